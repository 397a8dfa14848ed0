"""What a crash, an outage, a refusal or a stop leaves behind, on a real homeserver that fails on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator

import pytest

from bridge import payload
from bridge.model import Author
from bridge.payload import Post
from tests.conftest import Company, company_with
from tests.e2e.looking import Event, says
from tests.peers import ROOT, until
from tests.peers.employee import thread_of
from tests.peers.faults import Proxy

LONG = "A line of an ordinary letter, neither long nor short.\n" * 70
JANE = Author("mail", "jane@customer.example", "Jane")


@contextlib.asynccontextmanager
async def behind_a_proxy(company: Company, **changes: object) -> AsyncIterator[Proxy]:
    """The bridge reaches the homeserver through a proxy."""
    async with Proxy(company.synapse.url) as proxy:
        await company.reconfigure(homeserver={"url": proxy.url}, **changes)
        yield proxy


def refuse_large_events(proxy: Proxy) -> None:
    proxy.add(413, method="PUT", contains="/send/", when=lambda each: int(each.headers["Content-Length"]) > 6000)


async def dead_letters(company: Company, *words: str) -> str:
    """What `passerelle dead-letters …` prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "dead-letters", *words, "--config", str(company.bridge.config),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


def database(company: Company) -> contextlib.closing[sqlite3.Connection]:
    """The bridge's own database, while it does not run."""
    file = company.folder / "bridge" / "data" / "passerelle.db"
    return contextlib.closing(sqlite3.connect(file, isolation_level=None))


def not_crossed_out(company: Company, root: Event, created: float) -> None:
    """As if the bridge had been killed between the homeserver's answer and its own note of it."""
    shown = Post(company.room, root["content"]["body"], author=JANE, message=1)
    with database(company) as connection:
        connection.execute("UPDATE conversation SET root = NULL, latest = NULL")
        connection.execute("UPDATE message SET event = NULL")
        connection.execute(
            "INSERT INTO queue (uid, lane, destination, kind, payload, state, conversation, created)"
            " VALUES (?, 'matrix:1', 'matrix', 'post', ?, 'ready', 1, ?)",
            (root["content"]["org.passerelle.delivery"], payload.dump(shown), created),
        )


def waiting(company: Company) -> int:
    with database(company) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM queue WHERE state = 'ready'").fetchone()[0])


async def test_what_a_homeserver_refuses_is_announced_kept_and_shown_on_request(company: Company) -> None:
    powers = {company.bot: 50}
    operators = await company.alice.create_room("operators", invite=[company.bot], powers=powers)
    async with behind_a_proxy(company, management_room=operators) as proxy:
        refuse_large_events(proxy)
        await company.post(sender="Jane <jane@customer.example>", body=f"Too long. {LONG}")
        await company.post(sender="Jane <jane@customer.example>", body="Short.")
        stub = await company.alice.see(company.room, says("cannot be shown here"))
        assert "413" in stub["content"]["body"]
        await company.alice.see(company.room, says("Short."))
        told = await company.alice.see(operators, says("Given up"))

        (line, total) = (await dead_letters(company, "list")).splitlines()
        uid = line.split()[0]
        assert total == "1 dead letters"
        assert uid in told["content"]["body"]
        assert "Too long." in json.loads(await dead_letters(company, "show", uid))["payload"]["body"]

        proxy.clear()
        assert await dead_letters(company, "replay", uid) == f"{uid}: will be tried again\n"
        late = await company.alice.see(company.room, says("Too long."))
        assert thread_of(late) == stub["event_id"]
        assert await dead_letters(company, "list") == "No dead letters.\n"


async def test_dead_letters_of_a_bridge_that_was_killed_can_be_replayed(company: Company) -> None:
    async with behind_a_proxy(company) as proxy:
        refuse_large_events(proxy)
        await company.post(sender="Jane <jane@customer.example>", body=f"Too long. {LONG}")
        await company.alice.see(company.room, says("cannot be shown here"))

        async def kept() -> bool:
            return "1 dead letters" in await dead_letters(company, "list")

        await until(kept, "the dead letter")
        company.bridge.kill()
        uid = (await dead_letters(company, "list")).split()[0]
        assert "will be tried again" in await dead_letters(company, "replay", uid)
        assert await dead_letters(company, "list") == "No dead letters.\n"
        proxy.clear()
        await company.bridge.start()
        await company.alice.see(company.room, says("Too long."))


async def test_a_stop_lets_a_mail_that_is_leaving_arrive_and_be_noted(company: Company) -> None:
    await company.post(sender="Jane <jane@customer.example>", body="Please help.")
    root = await company.alice.see(company.room, says("Please help."))
    slow = company.sink.faults.add("after-data", delay=1.5)
    await company.alice.say(company.room, "!reply We come.", thread=root["event_id"])

    async def leaving() -> bool:
        return slow.hits == 1

    await until(leaving, "the mail at the smarthost", every=0.01)
    assert await company.bridge.stop() == 0
    assert len(company.sink.mails) == 1
    await company.bridge.start()
    await company.alice.see(company.room, says("Accepted by mail"))
    assert len(company.sink.mails) == 1


async def test_a_stop_does_not_wait_for_a_homeserver_that_is_down(company: Company) -> None:
    async with behind_a_proxy(company) as proxy:
        await proxy.down()
        await company.post(sender="Jane <jane@customer.example>", body="Please help.")
        await company.post(sender="Joe <joe@customer.example>", body="Me too.")
        began = time.monotonic()
        assert await company.bridge.stop() == 0
        assert time.monotonic() - began < 5
        await proxy.up()
        await company.bridge.start()
        await company.alice.see(company.room, says("Please help."))
        await company.alice.see(company.room, says("Me too."))


async def test_an_answer_to_a_mail_whose_event_was_not_noted_is_understood(company: Company) -> None:
    async with behind_a_proxy(company) as proxy:
        await company.post(sender="Jane <jane@customer.example>", body="Please help.")
        root = await company.alice.see(company.room, says("Please help."))
        await company.bridge.stop()
        not_crossed_out(company, root, time.time())
        await company.alice.say(company.room, "!reply We come.", thread=root["event_id"])
        nothing_sent = proxy.add("refuse", method="PUT", contains="/send/")  # so that the room is read first
        company.bridge.child.start()

        async def tried() -> bool:
            return nothing_sent.hits > 3

        await until(tried, "attempts")
        proxy.clear()
        mail = await company.sink.wait_for()
        assert "We come." in mail.text
        said = [each for each in company.alice.timeline(company.room) if says("Please help.")(each)]
        assert len(said) == 1


async def test_what_was_in_doubt_for_a_day_is_looked_up_before_it_is_sent_again(company: Company) -> None:
    async with behind_a_proxy(company) as proxy:
        await company.post(sender="Jane <jane@customer.example>", body="Please help.")
        root = await company.alice.see(company.room, says("Please help."))
        await company.bridge.stop()
        not_crossed_out(company, root, time.time() - 25 * 3600)
        proxy.requests.clear()
        await company.bridge.start()

        async def noted() -> bool:
            return waiting(company) == 0

        await until(noted, "the delivery to be crossed out")
        assert proxy.requests["PUT send"] == 0
        await company.alice.say(company.room, "!reply We come.", thread=root["event_id"])
        await company.sink.wait_for()


async def test_what_was_in_doubt_for_a_day_and_is_not_in_the_room_is_sent(company: Company) -> None:
    async with behind_a_proxy(company):
        await company.post(sender="Jane <jane@customer.example>", body="Please help.")
        root = await company.alice.see(company.room, says("Please help."))
        await company.bridge.stop()
        root["content"] |= {"org.passerelle.delivery": "a" * 20, "body": "Never shown."}
        not_crossed_out(company, root, time.time() - 25 * 3600)
        await company.bridge.start()
        await company.alice.see(company.room, says("Never shown."))


@company_with(outward={"hold": 0.1})
async def test_a_mail_the_smarthost_may_have_is_sent_again_with_the_same_message_id(company: Company) -> None:
    await company.post(sender="Jane <jane@customer.example>", body="Please help.")
    root = await company.alice.see(company.room, says("Please help."))
    company.sink.faults.add("after-data", cut=True, times=2)
    await company.alice.say(company.room, "!reply We come.", thread=root["event_id"])
    mails = await company.sink.wait_for_count(3)
    assert len({mail["Message-ID"] for mail in mails}) == 1
    assert [mail.answered for mail in mails] == [False, False, True]


async def test_a_database_that_another_process_holds_refuses_nothing_for_good(company: Company) -> None:
    with database(company) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        deliver = asyncio.create_task(company.post(sender="Jane <jane@customer.example>", body="Please help."))
        root_said = asyncio.create_task(company.alice.say(company.room, "Meanwhile."))
        await root_said
        with pytest.raises(Exception, match="451"):  # after the five seconds that it waits
            await deliver
        connection.execute("ROLLBACK")
    await company.post(sender="Jane <jane@customer.example>", body="Please help.")
    await company.alice.see(company.room, says("Please help."))
    assert company.bridge.running


@company_with(retry={"first": 0.1, "longest": 0.2, "give_up": 1})
async def test_what_the_homeserver_does_not_take_for_too_long_is_told_in_its_thread(company: Company) -> None:
    async with behind_a_proxy(company) as proxy:
        await company.post(
            sender="Jane <jane@customer.example>", body="Please help.", message_id="<1@customer.example>"
        )
        root = await company.alice.see(company.room, says("Please help."))
        ghost = "user_id=%40_passerelle_mail_jane"
        proxy.add(500, method="PUT", contains=ghost)
        await company.post(
            sender="Jane <jane@customer.example>", body="Hello?", in_reply_to="<1@customer.example>",
            references=["<1@customer.example>"],
        )  # fmt: skip
        told = await company.alice.see(company.room, says("cannot be shown here"))
        assert thread_of(told) == root["event_id"]
        proxy.clear()
        await company.alice.say(company.room, "!retry", thread=root["event_id"])
        await company.alice.see(company.room, says("Hello?"))


async def test_a_mail_port_that_is_taken_is_named_and_waited_for_while_the_rest_goes_on(company: Company) -> None:
    await company.bridge.stop()
    taken = await asyncio.start_server(lambda *_: None, *company.smtp)
    async with taken:
        await company.bridge.start(wait=False)
        await until(lambda: _said(company, "mail failed"), "the bridge to say so", 30)
        await company.alice.say(company.room, "!help")
        await company.alice.see(company.room, says("!reply", company.bot))
    await company.bridge.ready()
    await company.post(subject="Back", body="The port is free again.")
    await company.alice.see(company.room, says("The port is free again."))


async def _said(company: Company, words: str) -> bool:
    return words in company.bridge.log_text()
