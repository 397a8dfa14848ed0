"""`passerelle plan` and `apply` on a running bridge: nothing is lost, and the process stays the same."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosmtplib
import pytest

from tests.conftest import Company, company_with
from tests.e2e.looking import says
from tests.peers import free_port, until
from tests.peers.bridge import Forked, merged, write
from tests.peers.employee import body
from tests.peers.faults import Proxy
from tests.peers.roundup import Roundup
from tests.peers.world import letter

SALES = "sales@company.example"
BOXES = [{"address": "support@company.example"}, {"address": SALES}]
TWO = company_with(connectors={"mail": {"mailboxes": BOXES}})


async def passerelle(company: Company, *words: str) -> tuple[int, str]:
    """Exit status and words of the command line, as an admin types it."""
    log = company.folder / f"said-{len(list(company.folder.iterdir()))}.txt"
    child = Forked([*words, "--config", str(company.bridge.config)], company.folder, log)
    child.start()

    async def ended() -> bool:
        return not child.running

    await until(ended, f"passerelle {words[0]} to end", timeout=60)
    return await child.stop(), log.read_text()


def edit(company: Company, **changes: Any) -> None:
    """Change the file; the bridge does not know yet."""
    company.config = merged(company.config, changes)
    write(company.bridge.config, company.config)


async def apply(company: Company, **changes: Any) -> str:
    edit(company, **changes)
    status, said = await passerelle(company, "apply", "--yes")
    assert status == 0, f"{said}\n{company.bridge.log_text()[-3000:]}"
    return said


async def new_room(company: Company) -> str:
    room = await company.alice.create_room("another", invite=[company.bot], powers={company.bot: 50})
    return room


def mapped(company: Company, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [*company.config["mappings"], *more]


@asynccontextmanager
async def connected(company: Company) -> AsyncIterator[aiosmtplib.SMTP]:
    """A mail server that stays connected."""
    client = aiosmtplib.SMTP(hostname=company.smtp[0], port=company.smtp[1], start_tls=False)
    await client.connect()
    yield client
    client.close()


@TWO
async def test_a_mapping_comes_and_goes_while_a_mail_server_stays_connected(company: Company) -> None:
    room, process = await new_room(company), company.bridge.child.pid
    base = company.config["mappings"]
    async with connected(company) as peer:
        assert (await passerelle(company, "plan")) == (0, "Nothing to do: the bridge is as the configuration says.\n")
        edit(company, mappings=mapped(company, {"connector": "mail", "scope": SALES, "room": room}))
        status, said = await passerelle(company, "plan")
        assert status == 3
        assert f"+ at once      mapping {SALES} (mail) in {room}\n" in said
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused):  # a plan changes nothing
            await peer.send_message(letter(to=SALES, subject="Too early"))
        assert "Applied." in await apply(company)
        await peer.send_message(letter(to=SALES, subject="Price list", body="please"))
        await company.alice.see(room, says("please"))
        await apply(company, mappings=base)
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await peer.send_message(letter(to=SALES, subject="Too late"))
        assert refused.value.recipients[0].code == 550
    assert company.bridge.child.pid == process


async def test_another_port_for_mail_is_taken_in_the_same_process_and_nothing_is_lost(company: Company) -> None:
    process, old = company.bridge.child.pid, company.smtp
    new = ("127.0.0.1", free_port())
    stop = asyncio.Event()

    async def keep_writing() -> list[str]:
        """As mail servers do: what is not taken is brought again, here to whichever port answers."""
        sent = []
        while not stop.is_set() or len(sent) < 5:
            text = f"letter number {len(sent)}."
            for host, port in (old, new):
                try:
                    await aiosmtplib.send(letter(subject=text, body=text), hostname=host, port=port, start_tls=False)
                except (aiosmtplib.SMTPException, OSError):
                    continue
                sent.append(text)
                break
            await asyncio.sleep(0.05)
        return sent

    writing = asyncio.create_task(keep_writing())
    said = await apply(company, connectors={"mail": {"listen": f"{new[0]}:{new[1]}"}})
    assert "connector mail: listen:" in said
    await company.post(subject="By the new way", body="new port")
    stop.set()
    for text in [*await writing, "new port"]:
        await company.alice.see(company.room, says(text))
    assert company.bridge.child.pid == process
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection(*old)


async def test_a_file_with_mistakes_changes_nothing_and_every_mistake_is_told(company: Company) -> None:
    edit(company, outward={"hold": -1}, mappings=mapped(company, {"connector": "nobody", "scope": "x", "room": "y"}))
    for act in (["plan"], ["apply", "--yes"]):
        status, said = await passerelle(company, *act)
        assert status == 1
        assert "hold" in said
        assert "connector" in said
    await company.post(subject="Still here", body="still here")
    await company.alice.see(company.room, says("still here"))


async def test_a_configuration_that_cannot_start_gives_way_to_the_one_before(company: Company) -> None:
    process = company.bridge.child.pid
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    taken = server.sockets[0].getsockname()[1]
    before = company.config
    edit(company, connectors={"mail": {"listen": f"127.0.0.1:{taken}"}})
    status, said = await passerelle(company, "apply", "--yes")
    assert status == 1
    assert "could not start" in said
    assert "Nothing is changed." in said
    server.close()
    company.config = before
    await company.post(subject="As before", body="as before")
    await company.alice.see(company.room, says("as before"))
    assert company.bridge.child.pid == process


async def test_who_the_bridge_is_stays_until_it_is_stopped(company: Company) -> None:
    edit(company, appservice={"ghosts": "_other_"})
    status, said = await passerelle(company, "apply", "--yes")
    assert status == 1
    assert "Stop the bridge" in said


async def test_nothing_is_applied_when_nobody_can_be_asked(company: Company) -> None:
    edit(company, outward={"hold": 1})
    status, said = await passerelle(company, "apply")
    assert status == 1
    assert "--yes" in said


async def test_a_hangup_applies_the_file(company: Company) -> None:
    room = await new_room(company)
    boxes = {"mail": {"mailboxes": BOXES}}
    edit(company, connectors=boxes, mappings=mapped(company, {"connector": "mail", "scope": SALES, "room": room}))
    os.kill(company.bridge.child.pid, signal.SIGHUP)

    async def taken() -> bool:
        try:
            await company.post(to=SALES, subject="Hello", body="after the hangup")
        except (aiosmtplib.SMTPException, OSError):
            return False
        return True

    await until(taken, "the file to be applied")
    await company.alice.see(room, says("after the hangup"))


@TWO
async def test_operators_hear_once_of_a_mapped_room_that_cannot_be_entered(company: Company) -> None:
    operators, closed = await new_room(company), await company.alice.create_room("closed")
    await company.reconfigure(management_room=operators)
    edit(company, mappings=mapped(company, {"connector": "mail", "scope": SALES, "room": closed}))
    os.kill(company.bridge.child.pid, signal.SIGHUP)
    told = await company.alice.see(operators, says("I cannot enter", company.bot), timeout=40)
    assert closed in body(told)
    assert f"{SALES} (mail)" in body(told)
    await company.alice.invite(closed, company.bot)
    await company.alice.see(closed, says("What comes from outside starts a thread", company.bot), timeout=40)
    assert len([event for event in company.alice.timeline(operators) if "I cannot enter" in body(event)]) == 1


async def test_a_permission_is_taken_away_at_once(company: Company) -> None:
    await company.post(subject="Question", body="may I?")
    root = await company.alice.see(company.room, says("may I?"))
    said = await apply(company, permissions={"use": [company.bob.mxid]})
    assert "permissions.use" in said
    assert "anew" not in said
    await company.alice.say(company.room, "!reply no", thread=root["event_id"])
    await company.bob.say(company.room, "!reply yes", thread=root["event_id"])
    mail = await company.sink.wait_for()
    assert "yes" in mail.text
    assert len(company.sink.mails) == 1


AWAY = {"plugin": "roundup", "url": "http://127.0.0.1:1/", "username": "bridge", "password": "of-the-bridge"}


@company_with(connectors={"helpdesk": AWAY})
async def test_an_administrators_table_of_accounts_counts_at_once(company: Company) -> None:
    said = await apply(company, people={company.alice.mxid: {"helpdesk": "alice.smith"}})
    assert f"people.{company.alice.mxid}.helpdesk: alice.smith" in said
    assert "anew" not in said
    await company.alice.say(company.room, "!me")
    await company.alice.see(company.room, says("helpdesk: you are alice.smith (set by an administrator", company.bot))


async def test_another_address_of_a_tool_is_used_after_apply(company: Company, desk: Roundup) -> None:
    process = company.bridge.child.pid
    async with Proxy(desk.origin) as proxy:
        url = desk.url.replace(desk.origin, proxy.url)
        said = await apply(company, connectors={"helpdesk": {"url": url, "web": desk.url}})
        assert f"connector helpdesk: url: {desk.url} -> {url}" in said
        await desk.open("Found by the other way")
        await company.alice.see(company.room, says("Found by the other way"))
        assert proxy.requests
        assert company.bridge.child.pid == process
        await apply(company, connectors={"helpdesk": {"url": desk.url}})


@company_with(bridge=False)
async def test_a_stopped_bridge_is_planned_by_what_was_applied_last(company: Company) -> None:
    status, said = await passerelle(company, "plan")
    assert status == 3
    assert f"+ at once      mapping {company.mailbox} (mail) in {company.room}" in said
    await company.bridge.start()
    await company.bridge.stop()
    status, said = await passerelle(company, "plan")
    assert status == 0
    assert "does not run" in said
