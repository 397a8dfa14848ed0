"""Rooms that are upgraded on a real homeserver: mappings, mails and conversations go where the people go."""

from __future__ import annotations

import contextlib

import aiosmtplib

from tests.conftest import Company, company_with
from tests.e2e.looking import says
from tests.peers import until
from tests.peers.employee import Event, body, relation, thread_of

JANE = "Jane Doe <jane@customer.example>"


async def operators(company: Company, **more: object) -> str:
    """A management room, and the bridge that knows it."""
    room = await company.alice.create_room("operators", invite=[company.bot], powers={company.bot: 50})
    await company.reconfigure(management_room=room, **more)
    return room


def bodies(company: Company, room: str) -> list[str]:
    return [body(event) for event in company.alice.timeline(room)]


async def gone_on(company: Company, room: str, message: Event, old: str) -> str:
    """The thread that a message is in began with a link to the old one; returns its root."""
    root = thread_of(message)
    assert root
    begun = await company.alice.see(room, lambda event: event["event_id"] == root)
    assert "goes on from https://matrix.to/#/" in body(begun)
    assert old.replace("$", "%24") in body(begun)
    return root


async def test_a_private_room_is_followed_when_the_bot_is_invited_and_what_waited_is_shown_there(
    company: Company,
) -> None:
    told = await operators(company)
    mail = await company.post(sender=JANE, subject="Upgrade", body="In the old room.")
    root = await company.alice.see(company.room, says("In the old room."))
    new = await company.alice.upgrade(company.room)
    alarm = await company.alice.see(told, says("I cannot enter the room that replaces it", company.bot))
    assert f"/invite {company.bot}" in body(alarm)
    await company.post(sender=JANE, subject="Re: Upgrade", body="Nobody lets me in.", in_reply_to=mail["Message-ID"])
    await company.alice.say(new, "!help")  # said before the bot is there
    company.bridge.kill()
    await company.bridge.start()
    await company.alice.invite(new, company.bot)
    shown = await company.alice.see(new, says("Nobody lets me in."), timeout=30)
    thread = await gone_on(company, new, shown, root["event_id"])
    assert not [each for each in bodies(company, company.room) if "Nobody lets me in." in each]
    await company.alice.see(new, says("!original", company.bot))
    await company.alice.see(new, says("This room replaces", company.bot))
    await company.alice.say(new, "!reply We have moved.", thread=thread)
    sent = await company.sink.wait_for(lambda mail: "We have moved." in mail.text)
    assert mail["Message-ID"] in sent.raw("References")
    await company.post(sender=JANE, subject="Upgrade", body="A second thread.")
    second = await company.alice.see(new, says("A second thread."))
    assert thread_of(second) is None
    named = await company.alice.see(told, says("The configuration still names", company.bot))
    assert company.room in body(named)
    assert len([each for each in bodies(company, told) if "I cannot enter" in each]) == 1
    assert not [each for each in bodies(company, told) if "right is missing" in each]
    assert not [each for each in bodies(company, new) if "not mapped yet" in each]


async def test_an_upgrade_while_the_bridge_is_down_is_caught_up_with_and_an_alias_leads_to_the_new_room(
    company: Company,
) -> None:
    alias = "#upgraded-while-down:" + company.synapse.server_name
    room = await company.alice.create_room(
        "aliased", invite=[company.bob.mxid, company.bot], powers={company.bot: 50}, alias=alias[1:].partition(":")[0]
    )
    await company.alice.put_state(room, "m.room.canonical_alias", {"alias": alias})
    await company.reconfigure(mappings=[{"connector": "mail", "scope": company.mailbox, "room": alias}])
    mail = await company.post(sender=JANE, subject="Down", body="Before the upgrade.")
    root = await company.alice.see(room, says("Before the upgrade."))
    company.bridge.kill()
    await company.alice.say(room, "!reply Said while nobody heard.", thread=root["event_id"])
    new = await company.alice.upgrade(room, "11")
    await company.alice.invite(new, company.bot)
    await company.bridge.start()
    await company.post(sender=JANE, subject="Re: Down", body="After the upgrade.", in_reply_to=mail["Message-ID"])
    shown = await company.alice.see(new, says("After the upgrade."), timeout=30)
    thread = await gone_on(company, new, shown, root["event_id"])
    preview = await company.alice.see(new, says("Said while nobody heard.", company.bot))
    assert "Paused" in body(preview)  # in the old room nobody can stop it
    assert not company.sink.mails
    await company.alice.say(new, "!send", thread=thread)
    sent = await company.sink.wait_for(lambda mail: "Said while nobody heard." in mail.text)
    assert mail["Message-ID"] in sent.raw("References")


async def test_a_room_that_does_not_come_from_ours_is_not_followed(company: Company) -> None:
    told = await operators(company)
    elsewhere = await company.alice.create_room("elsewhere", invite=[company.bot])
    await company.alice.put_state(company.room, "m.room.tombstone", {"body": "replaced", "replacement_room": elsewhere})
    await company.alice.see(told, says("does not say that it comes from there", company.bot))

    async def left() -> bool:
        return company.bot not in await company.alice.members(elsewhere)

    await until(left, "the bot to leave the wrong room")
    await company.post(sender=JANE, subject="Stay", body="Where I was.")
    await company.alice.see(company.room, says("Where I was."))


@company_with(outward={"hold": 60}, permissions={"administer": ["@alice:company.example"]})
async def test_what_waits_to_leave_is_shown_again_in_the_new_room_and_a_mapping_made_by_command_goes_there(
    company: Company,
) -> None:
    await company.reconfigure(mappings=[])
    await company.alice.say(company.room, f"!map mail {company.mailbox}")
    await company.alice.see(company.room, says(company.mailbox, company.bot))
    root = await _taken(company)
    await company.alice.say(company.room, "!reply Wait for it.", thread=root["event_id"])
    held = await company.alice.see(company.room, says("Leaves in", company.bot))
    new = await company.alice.upgrade(company.room)
    await company.alice.invite(new, company.bot)
    preview = await company.alice.see(new, says("Paused", company.bot))
    assert "Wait for it." in body(preview)
    await company.alice.see(
        company.room, lambda event: relation(event).get("event_id") == held["event_id"] and "newer" in body(event)
    )
    await company.alice.react(new, preview["event_id"], "❌")
    await company.alice.see(new, says("Not sent: cancelled.", company.bot))
    await company.bridge.stop()
    await company.bridge.start()
    await company.post(sender=JANE, subject="Later", body="The mapping has moved.")
    await company.alice.see(new, says("The mapping has moved."))
    assert not company.sink.mails


async def _taken(company: Company) -> Event:
    """A mail that is shown in the company's room, once that is mapped."""

    async def taken() -> bool:
        with contextlib.suppress(aiosmtplib.SMTPException):
            await company.post(sender=JANE, subject="Hold", body="Answer me.")
            return True
        return False

    await until(taken, "the mailbox to be mapped")
    return await company.alice.see(company.room, says("Answer me."))
