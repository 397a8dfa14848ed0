"""Rooms that people map themselves: on a real homeserver, with its power levels and its state."""

from __future__ import annotations

from typing import Any

from tests.conftest import MAILBOX, Company, company_with
from tests.e2e.looking import Look, says
from tests.peers import until
from tests.peers.employee import body
from tests.peers.roundup import Roundup

JANE = "Jane Doe <jane@customer.example>"
MAPPED = "✅ What comes from"


def announces(scope: str) -> Look:
    """The state that says what is mapped; "" that it says nothing any more."""

    def look(event: dict[str, Any]) -> bool:
        said = event.get("content", {}).get("channel", {}).get("id", "")
        return event["type"] == "uk.half-shot.bridge" and bool(said == scope)

    return look


@company_with(permissions={"administer": ["*"]})
async def test_a_room_is_mapped_in_the_room_and_mail_arrives_there_until_it_is_undone(company: Company) -> None:
    room = await company.alice.create_room("second", invite=[company.bot, company.bob.mxid], powers={company.bot: 50})
    await company.bob.join(room)
    await company.alice.see(room, says("!map", company.bot))
    await company.bob.say(room, f"!map {MAILBOX}")
    refused = await company.alice.see(room, says("You need power level 50", company.bot))
    assert company.alice.mxid in body(refused)

    await company.alice.say(room, "!map")
    await company.alice.see(room, says(f"mail has: {MAILBOX}", company.bot))
    await company.alice.say(room, f'!map mail {MAILBOX} subject="*invoice*"')
    confirmed = await company.alice.see(room, says(MAPPED, company.bot))
    assert "only what fits: subject = *invoice*" in body(confirmed)
    announced = await company.alice.see(room, announces(MAILBOX))
    assert announced["state_key"] == f"passerelle://mail/{MAILBOX}"
    assert announced["content"]["bridgebot"] == company.bot
    assert announced["content"]["creator"] == company.alice.mxid
    assert announced["content"]["network"]["id"] == announced["content"]["protocol"]["id"] == "mail"

    await company.post(sender=JANE, subject="Our invoice", body="The first sum.")
    await company.alice.see(room, says("The first sum."))
    await company.post(sender=JANE, subject="Hello", body="No sum at all.")
    await company.alice.see(company.room, says("No sum at all."))
    company.bridge.kill()
    await company.bridge.start()
    await company.post(sender=JANE, subject="Another Invoice", body="The second sum.")
    root = await company.alice.see(room, says("The second sum."))
    assert not [event for event in company.alice.timeline(company.room) if "sum." in body(event)]

    await company.alice.say(room, f"!unmap {MAILBOX}")
    await company.alice.see(room, says("is no longer mapped", company.bot))
    await company.alice.see(room, announces(""), after=announced["event_id"])
    await company.alice.say(room, "!reply Too late.", thread=root["event_id"])
    await company.alice.see(room, says("an answer could not come back here", company.bot))
    await company.post(sender=JANE, subject="A third invoice", body="The third sum.")
    await company.alice.see(company.room, says("The third sum."))


@company_with(permissions={"administer": ["*"]})
async def test_an_encrypted_room_is_not_mapped(company: Company) -> None:
    room = await company.alice.create_room("secret", invite=[company.bot])
    await company.alice.see(room, says("not mapped yet", company.bot))
    await company.alice.put_state(room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await company.alice.say(room, f"!map {MAILBOX}")
    await company.alice.see(room, says("I cannot read encrypted rooms yet. Map", company.bot))


async def test_what_the_configuration_maps_is_announced_and_withdrawn_even_when_that_changed_meanwhile(
    company: Company,
) -> None:
    announced = await company.alice.see(company.room, announces(company.mailbox))
    assert "creator" not in announced["content"]
    await company.alice.see(company.room, lambda event: event["type"] == "m.bridge" and bool(event["content"]))
    await company.reconfigure(mappings=[])
    await company.alice.see(company.room, announces(""), after=announced["event_id"])
    await company.alice.say(company.room, "!mappings")
    await company.alice.see(company.room, says("Nothing is mapped here", company.bot))


async def test_without_the_right_to_announce_that_is_said_and_made_good_when_it_is_granted(company: Company) -> None:
    room = await company.alice.create_room("poor", invite=[company.bot])
    await company.reconfigure(mappings=[{"connector": "mail", "scope": company.mailbox, "room": room}])
    await company.alice.see(room, says("for me to change settings", company.bot))
    levels = {"users": {company.bot: 50}}
    await company.alice.put_state(room, "m.room.power_levels", levels)
    await company.alice.see(room, announces(company.mailbox))


@company_with(permissions={"administer": ["*"]})
async def test_a_tool_that_nobody_wanted_is_asked_from_the_moment_on_when_somebody_maps_it(
    company: Company, desk: Roundup
) -> None:
    await company.reconfigure(mappings=company.config["mappings"][:1])
    before = await desk.open("Long ago", "Nobody wanted this.", by="carol")
    await company.alice.say(company.room, "!map helpdesk")
    await company.alice.see(company.room, says("helpdesk has: issue. Type: !map helpdesk issue", company.bot))
    await company.alice.say(company.room, "!map issue state=unread")
    await company.alice.see(company.room, says(MAPPED, company.bot))
    cards: list[str] = []

    async def shown() -> bool:
        """The first look at the tool only says where to begin: nobody knows when it is over."""
        await desk.open("Of no use", "Not fitting.", by="carol", status="resolved")
        await desk.open("Just now", "Somebody wants this.", by="carol")
        cards[:] = [body(event) for event in company.alice.timeline(company.room) if "\nstatus: " in body(event)]
        return bool(cards)

    await until(shown, "the card of a new issue", every=1)
    assert all("Just now" in card for card in cards)
    assert not [card for card in cards if f"issue{before}:" in card]
