"""The bot in rooms: what it says when invited, what it needs, and what it hears when it was away."""

from __future__ import annotations

import aiohttp

from tests.conftest import Company, company_with
from tests.e2e.looking import membership, says
from tests.peers import until
from tests.peers.employee import body

JANE = "Jane Doe <jane@customer.example>"


async def test_the_bot_says_what_it_can_do_and_which_right_it_lacks(company: Company) -> None:
    room = await company.alice.create_room("unmapped", powers={company.bot: 0})
    await company.alice.put_state(
        room, "m.room.power_levels", {"users": {company.bot: 0}, "invite": 50, "users_default": 0}
    )
    await company.alice.invite(room, company.bot)
    hello = await company.alice.see(room, says("not mapped yet", company.bot))
    assert "right to invite" in body(hello) or "to invite" in body(hello)


async def test_a_missing_right_is_said_once_and_again_only_when_another_is_missing(company: Company) -> None:
    async def need(level: int) -> None:
        levels = {"users": {company.bot: 50}, "events_default": level, "state_default": 50, "invite": 0}
        await company.alice.put_state(company.room, "m.room.power_levels", levels)

    def said(room: str) -> list[str]:
        return [body(event) for event in company.alice.timeline(room) if "missing" in body(event)]

    ghosts, speak = "for everybody to send messages", "for me to send messages"
    operators = await company.alice.create_room("operators", invite=[company.bot], powers={company.bot: 50})
    await company.reconfigure(management_room=operators)
    await need(50)
    await company.alice.see(company.room, says(ghosts, company.bot))
    await company.alice.see(operators, says(ghosts, company.bot))
    await company.bridge.stop()
    await company.bridge.start()
    await need(40)  # another event, and the same right
    await need(60)  # now the bot itself may not speak there
    alarm = await company.alice.see(operators, says(speak, company.bot))
    await need(0)
    await need(50)
    await company.alice.see(operators, says(ghosts, company.bot), after=alarm["event_id"])
    await company.alice.see(company.room, lambda event: len(said(company.room)) == 2)
    assert [speak in each for each in said(operators)] == [False, True, False]
    assert not [each for each in said(company.room) if speak in each]


async def test_in_a_room_that_the_bot_made_it_lacks_nothing_itself(company: Company) -> None:
    room = await _made_by_the_bot(company)
    mapping = {"connector": "mail", "scope": company.mailbox, "room": room}
    await company.alice.join(room)
    await company.reconfigure(mappings=[mapping])
    notice = await company.alice.see(room, says("for everybody to send messages", company.bot))
    assert "for me" not in body(notice)


async def _made_by_the_bot(company: Company) -> str:
    url = f"{company.synapse.url}/_matrix/client/v3/createRoom"
    asked = {
        "preset": "private_chat",
        "invite": [company.alice.mxid],
        "power_level_content_override": {"events_default": 100, "invite": 100},
    }
    headers = {"Authorization": f"Bearer {company.config['appservice']['as_token']}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, json=asked, params={"user_id": company.bot}) as answer,
    ):
        return str((await answer.json())["room_id"])


async def test_an_outsiders_invitation_is_not_followed(company: Company) -> None:
    guest = await company.hire("guest")
    await company.reconfigure(inside={"except_users": [guest.mxid]})
    room = await guest.create_room("trap", invite=[company.bot])
    mapped = await company.alice.create_room("honest", invite=[company.bot])
    await company.alice.see(mapped, says("not mapped yet", company.bot))
    assert company.bot not in await guest.members(room)


async def test_the_bot_comes_into_an_encrypted_room_and_says_that_it_cannot_be_mapped(company: Company) -> None:
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room = await company.alice.create_room("secret", invite=[company.bot], state=[encryption])
    await company.alice.see(room, says("cannot be mapped", company.bot))


async def test_what_was_said_while_the_bridge_was_down_is_heard_in_order_and_once(company: Company) -> None:
    room = company.room
    await company.post(sender=JANE, subject="Down", body="Before the night.")
    root = await company.alice.see(room, says("Before the night."))
    company.bridge.kill()
    for number in range(3):
        await company.alice.say(room, f"!reply Number {number} of the night.", thread=root["event_id"])
    await company.bridge.start()
    mails = await company.sink.wait_for_count(3)
    assert [mail.text.split("Number ")[1][0] for mail in mails] == ["0", "1", "2"]
    await company.alice.say(room, "!reply The morning after.", thread=root["event_id"])
    await company.sink.wait_for(lambda mail: "The morning after." in mail.text)
    assert len(company.sink.mails) == 4


async def test_mail_is_taken_while_the_homeserver_is_down_and_shown_when_it_is_back(company: Company) -> None:
    await company.post(sender=JANE, subject="First", body="The homeserver knows me.")
    await company.alice.see(company.room, says("The homeserver knows me."))
    await company.synapse.stop()
    try:
        await company.post(sender=JANE, subject="Second", body="Nobody is at home.")
        company.bridge.kill()
    finally:
        await company.synapse.start()
    await company.bridge.start()
    await company.alice.see(company.room, says("Nobody is at home."))
    assert len([event for event in company.alice.timeline(company.room) if "Nobody is at home" in body(event)]) == 1


@company_with(language="fr")
async def test_the_bot_speaks_french(company: Company) -> None:
    await company.alice.say(company.room, "!help")
    await company.alice.see(company.room, says("Tout le reste", company.bot))


async def test_a_room_that_becomes_encrypted_stops_with_a_notice(company: Company) -> None:
    await company.alice.put_state(company.room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await company.alice.see(company.room, says("encrypted", company.bot))


async def test_nothing_of_a_conversation_is_shown_in_a_room_that_became_encrypted(company: Company) -> None:
    mail = await company.post(sender=JANE, subject="Before", body="Still in clear.")
    await company.alice.see(company.room, says("Still in clear."))
    await company.alice.put_state(company.room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await company.alice.see(company.room, says("encrypted", company.bot))
    await company.post(sender=JANE, subject="Re: Before", body="Not in clear.", in_reply_to=mail["Message-ID"])
    await company.alice.say(company.room, "!help")
    await company.alice.see(company.room, says("!original", company.bot))
    await company.bridge.stop()
    await company.bridge.start(wait=False)
    other = await company.alice.create_room("another", invite=[company.bot])
    await company.alice.see(other, says("not mapped yet", company.bot))
    assert not [event for event in company.alice.timeline(company.room) if "Not in clear" in str(event)]


async def test_a_bot_that_was_removed_comes_back_when_it_is_invited_and_what_waited_is_shown(company: Company) -> None:
    mail = await company.post(sender=JANE, subject="Removed", body="Before it was removed.")
    await company.alice.see(company.room, says("Before it was removed."))
    await company.alice.client.room_kick(company.room, company.bot)
    await company.post(
        sender="new@customer.example", subject="Re: Removed", body="While it was away.", in_reply_to=mail["Message-ID"]
    )
    await company.alice.invite(company.room, company.bot)
    await company.alice.see(company.room, says("While it was away."), timeout=40)


async def test_operators_hear_who_removed_the_bot_and_what_waits_and_of_an_unmapped_room_nothing(
    company: Company,
) -> None:
    operators = await company.alice.create_room("operators", invite=[company.bot], powers={company.bot: 50})
    await company.reconfigure(management_room=operators)
    other = await company.alice.create_room("unmapped", invite=[company.bot])
    await company.alice.see(other, says("not mapped yet", company.bot))
    await company.alice.client.room_kick(other, company.bot)
    await company.alice.client.room_kick(company.room, company.bot)
    told = await company.alice.see(operators, says("removed me", company.bot))
    assert company.alice.mxid in body(told)
    assert company.mailbox in body(told)
    assert f"/invite {company.bot}" in body(told)
    assert len([event for event in company.alice.timeline(operators) if "removed me" in body(event)]) == 1


async def test_an_invitation_by_somebody_who_may_not_is_declined_and_operators_hear_of_it_once(
    company: Company,
) -> None:
    guest = await company.hire("guest")
    operators = await company.alice.create_room("operators", invite=[company.bot], powers={company.bot: 50})
    await company.reconfigure(inside={"except_users": [guest.mxid]}, management_room=operators)
    traps = [await guest.create_room("trap", invite=[company.bot]) for _ in range(2)]
    await company.alice.see(operators, says("the invitation was declined", company.bot))
    for trap in traps:
        await guest.see(trap, membership(company.bot, "leave"))
    direct = await company.alice.create_room("direct")
    await company.post(sender="nobody@customer.example", subject="Here", body="I have a ghost.")
    shown = await company.alice.see(company.room, says("I have a ghost."))
    ghost = shown["sender"]
    await company.alice.invite(direct, ghost)
    await company.alice.see(direct, membership(ghost, "leave"))
    assert len([event for event in company.alice.timeline(operators) if "declined" in body(event)]) == 1


async def test_where_nobody_is_left_the_bot_leaves_but_it_stays_where_something_is_mapped(company: Company) -> None:
    carol = await company.hire("carol")
    operators = await company.bob.create_room("operators", invite=[company.bot], powers={company.bot: 50})
    mapped = await company.alice.create_room("mapped", invite=[company.bot], powers={company.bot: 50})
    await company.reconfigure(
        mappings=[{"connector": "mail", "scope": company.mailbox, "room": mapped}], management_room=operators
    )
    await company.post(sender=JANE, subject="Left", body="Somebody is here.")
    await company.alice.see(mapped, says("Somebody is here."))
    talk = await company.alice.create_room("talk", invite=[company.bot, carol.mxid])
    await carol.join(talk)
    await company.alice.see(talk, says("not mapped yet", company.bot))
    await company.alice.leave(mapped)
    told = await company.bob.see(operators, says("Nobody is left", company.bot))
    assert company.mailbox in body(told)
    await company.alice.leave(talk)
    assert company.bot in await carol.members(talk)
    await carol.leave(talk)
    for room, stays in ((mapped, True), (talk, False)):

        async def settled(room: str = room, stays: bool = stays) -> bool:
            return (company.bot in await _joined(company, room)) == stays

        await until(settled, f"the bot to be in {room}: {stays}")


async def _joined(company: Company, room: str) -> set[str]:
    """Who of ours is in the room, as the homeserver tells the bot; nobody, when the bot is not."""
    url = f"{company.synapse.url}/_matrix/client/v3/rooms/{room}/joined_members"
    headers = {"Authorization": f"Bearer {company.config['appservice']['as_token']}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(url, params={"user_id": company.bot}) as answer,
    ):
        return set((await answer.json()).get("joined", {}))
