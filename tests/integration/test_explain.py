"""`passerelle replay` and `explain`: what would happen and why, with nothing sent and nothing changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import Company, company_with
from tests.e2e.looking import says
from tests.integration.test_apply import apply, mapped, new_room, passerelle
from tests.peers.employee import body
from tests.peers.roundup import Roundup
from tests.peers.world import letter


def kept(company: Company, **fields: Any) -> Path:
    """A mail in a file."""
    file = company.folder / "kept.eml"
    file.write_bytes(letter(**fields).as_bytes())
    return file


async def told(company: Company, *words: str) -> str:
    status, said = await passerelle(company, *words)
    assert status == 0, said
    return said


async def test_a_mail_in_a_file_is_explained_and_nothing_happens_until_it_is_replayed(company: Company) -> None:
    file = kept(company, to=company.mailbox, subject="Old invoice", body="Where is it?\nPlease.\n")
    said = await told(company, "replay", str(file), "--dry-run")
    assert "“Old invoice” from Carol Customer <carol@outside.example> (not verified)" in said
    assert f"mapping {company.mailbox} (mail) in {company.room}" in said
    assert "a new conversation" in said
    assert "| Where is it?" in said
    assert "nothing was written down" in said
    assert "accepted" in await told(company, "replay", str(file))
    await company.alice.see(company.room, says("Where is it?"))
    assert "it came before" in await told(company, "replay", str(file), "--dry-run")
    await company.post(subject="Marker", body="afterwards")
    await company.alice.see(company.room, says("afterwards"))
    assert sum("Where is it?" in body(event) for event in company.alice.timeline(company.room)) == 1


async def test_a_dry_run_says_which_conversation_and_what_it_would_pause(company: Company) -> None:
    first = await company.post(subject="Order", body="Ten, please.")
    root = await company.alice.see(company.room, says("Ten, please."))
    await company.bridge.stop()
    await company.reconfigure(outward={"hold": 600})
    await company.alice.say(company.room, "!reply Soon.", thread=root["event_id"])
    await company.alice.see(company.room, says("carol@outside.example", company.bot))
    file = kept(company, to=company.mailbox, subject="Re: Order", body="Or eleven.", in_reply_to=first["Message-ID"])
    said = await told(company, "replay", str(file), "--dry-run")
    assert "goes on in “Order” https://matrix.to/#/" in said
    assert "belongs to the conversation" in said
    assert "pauses what waits to leave there: " in said
    file = kept(company, sender="mallory@evil.example", to=company.mailbox, in_reply_to=first["Message-ID"])
    assert "a stranger" in await told(company, "replay", str(file), "--dry-run")


@company_with(bridge=False)
async def test_a_stopped_bridge_explains_what_it_has_kept(company: Company) -> None:
    await company.bridge.start()
    await company.bridge.stop()
    file = kept(company, to="nobody@company.example", subject="Lost")
    status, said = await passerelle(company, "replay", str(file), "--dry-run")
    assert status == 1
    assert "--to" in said
    said = await told(company, "replay", str(file), "--dry-run", "--to", company.mailbox)
    assert "a new conversation" in said
    assert company.mailbox in await told(company, "explain", company.mailbox.replace("@", "+more@"))


@company_with(permissions={"administer": ["@alice:company.example"]}, outward={"domains": ["outside.example"]})
async def test_addresses_events_and_deliveries_are_explained(company: Company) -> None:
    await company.post(subject="Order", body="Ten, please.")
    root = (await company.alice.see(company.room, says("Ten, please.")))["event_id"]
    said = await told(company, "explain", "support+anything@company.example")
    assert f"comes to mail as {company.mailbox}" in said
    said = await told(company, "explain", "carol@outside.example")
    assert "messages may go there" in said
    assert f"takes part in “Order” https://matrix.to/#/{company.room.replace('!', '%21')}" in said
    said = await told(company, "explain", "dora@elsewhere.example")
    assert "only to outside.example" in said
    assert "takes part in no conversation" in said
    said = await told(company, "explain", root)
    assert "inward message of carol@outside.example" in said
    assert "a !reply goes to carol@outside.example by mail, in the name of support@company.example" in said
    assert "Ten, please." not in said
    assert said == await told(company, "explain", f"https://matrix.to/#/{company.room}/{root}?via=company.example")
    company.sink.faults.add("rcpt", "451 4.7.1 come again", times=None)
    asked = await company.alice.say(company.room, "!reply Here they are.", thread=root)
    await company.alice.see(company.room, says("come again"))
    said = await told(company, "explain", asked)
    assert "draft" in said
    assert "come again" in said
    uid = said.partition("draft ")[2].partition(" ")[0]
    assert "for carol@outside.example" in await told(company, "explain", uid)
    assert "may: use, map, administer" in await told(company, "explain", company.alice.mxid)
    assert "Nothing here knows" in await told(company, "explain", "what?")
    assert len(company.alice.thread(company.room, root)) == 3  # the mail, the command, its preview


async def test_filters_are_told_with_what_the_mail_has(company: Company) -> None:
    room = await new_room(company)
    only = {"connector": "mail", "scope": company.mailbox, "room": room, "only": {"subject": "*invoice*"}}
    await apply(company, mappings=mapped(company, only))
    file = kept(company, to=company.mailbox, subject="My invoice")
    assert f"in {room}, only subject: *invoice* (its filter fits" in await told(
        company, "replay", str(file), "--dry-run"
    )
    file = kept(company, to=company.mailbox, subject="Hello")
    said = await told(company, "replay", str(file), "--dry-run")
    assert f"in {company.room} (no filter of another mapping fits)" in said
    await apply(company, mappings=[only])
    said = await told(company, "replay", str(file), "--dry-run")
    assert "refused" in said
    assert "it has subject: Hello" in said


async def test_an_item_of_a_tool_is_found_by_its_key_or_address(company: Company, desk: Roundup) -> None:
    issue = await desk.open("Printer is on fire", "It burns.")
    await company.alice.see(company.room, says("Printer is on fire"))
    said = await told(company, "explain", f"issue{issue.removeprefix('issue')}")
    assert "followed in “Printer is on fire”" in said
    assert "no conversation follows it" in await told(company, "explain", "issue9999")
    hook = company.folder / "hook.json"
    hook.write_text(json.dumps({"headers": {}, "body": {}}))
    status, said = await passerelle(company, "replay", str(hook), "--connector", "helpdesk")
    assert status == 1
    assert "reads no such file" in said
