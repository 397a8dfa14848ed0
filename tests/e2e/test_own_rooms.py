"""A conversation gets a room of its own on a real homeserver, in a space, and comes back into its thread."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from bridge.app import opened
from bridge.config import Rooms, load
from bridge.model import Delivery
from bridge.payload import MakeRoom
from bridge.store import Tx
from tests.conftest import Company, company_with
from tests.e2e.looking import Event, marks, says
from tests.e2e.test_tickets import card_of, said
from tests.peers.employee import Refused, body, relation, thread_of
from tests.peers.roundup import Roundup

SPACE = "#own-rooms:company.example"
JANE = "Jane Doe <jane@customer.example>"


def link_in(event: Event) -> str:
    """The room that a message links to."""
    return (
        body(event)
        .partition("https://matrix.to/#/")[2]
        .split("/")[0]
        .split()[0]
        .replace("%21", "!")
        .replace("%3A", ":")
    )


async def state(company: Company, room: str, type_: str, key: str = "") -> dict[str, Any]:
    """What a room says, {} where it says nothing."""
    answer = await company.alice.client.room_get_state_event(room, type_, key)
    content = getattr(answer, "content", {})
    return content if "errcode" not in content else {}


async def moved(company: Company, thread: str, asked: str) -> str:
    """The own room of the conversation in that thread, entered by Alice."""
    told = await company.alice.see(
        company.room, lambda event: relation(event).get("m.in_reply_to", {}).get("event_id") == asked
    )
    assert thread_of(told) == thread
    assert "goes on in a room of its own" in body(told)
    room = link_in(told)
    await company.alice.see_invite(room)
    await company.alice.join(room)
    return room


@company_with(outward={"hold": 60}, rooms={"space": SPACE})
async def test_a_conversation_moves_into_a_room_in_the_space_works_there_and_comes_back_when_that_is_closed(
    company: Company, desk: Roundup
) -> None:
    powers, alias = {company.bot: 50}, SPACE[1:].partition(":")[0]
    space = await company.alice.create_room("Business", [company.bot], powers, alias, space=True)
    carol = await company.hire("carol")
    await company.alice.invite(company.room, carol.mxid)
    await carol.join(company.room)
    issue = await desk.open("Printer on fire", "It burns.", by="carol")
    card = await company.alice.see(company.room, card_of(issue))
    thread = card["event_id"]
    await company.bob.say(company.room, "I was there.", thread=thread)
    await company.alice.say(company.room, "!reply Hold on.", thread=thread)
    held = await company.alice.see(company.room, says("Leaves in", company.bot))
    asked = await company.alice.say(company.room, "!room", thread=thread)
    room = await moved(company, thread, asked)
    # private, in the space, without encryption, its people invited and nobody else
    assert (await state(company, room, "m.room.join_rules"))["join_rule"] == "invite"
    assert (await state(company, room, "m.room.history_visibility"))["history_visibility"] == "invited"
    assert (await state(company, room, "m.room.name"))["name"] == f"issue{issue}: Printer on fire"
    assert (await state(company, space, "m.space.child", room))["suggested"] is True
    assert await state(company, room, "m.space.parent", space)
    assert not await state(company, room, "m.room.encryption")
    assert (await state(company, room, "m.room.power_levels"))["users"][company.alice.mxid] == 50
    await company.bob.see_invite(room)
    assert room not in carol.invites
    # linked, the card there and pinned, what waits shown again
    first = await company.alice.see(room, says("goes on from", company.bot))
    assert thread.replace("$", "%24") in body(first)
    there = await company.alice.see(room, card_of(issue))
    assert thread_of(there) is None
    await company.alice.see(room, lambda event: event["content"].get("pinned") == [there["event_id"]])
    preview = await company.alice.see(room, says("Paused", company.bot))
    assert "Hold on." in body(preview)
    await company.alice.see(
        company.room, lambda event: relation(event).get("event_id") == held["event_id"] and "newer" in body(event)
    )
    await company.alice.react(room, preview["event_id"], "❌")
    await company.alice.see(room, says("Not sent: cancelled.", company.bot))
    # the whole room is the conversation
    await desk.comment(issue, "Still burning!", by="carol")
    news = await company.alice.see(room, says("Still burning!"))
    assert thread_of(news) is None
    sent = await company.alice.say(room, "!reply We are on our way.")
    await company.alice.see(room, says("We are on our way.", company.bot))
    await company.alice.say(room, "!send")
    await company.alice.see(room, marks(sent, "✉️"))
    assert await said(desk, issue, "We are on our way.")
    await company.alice.say(room, "About this:", thread=news["event_id"])
    told = await company.alice.say(room, "!retry", thread=news["event_id"])
    answer = await company.alice.see(room, says("Nothing failed here", company.bot))
    assert (thread_of(answer), relation(answer)["m.in_reply_to"]["event_id"]) == (news["event_id"], told)
    # who writes in the old thread hears it, once
    await company.bob.say(company.room, "Anybody?", thread=thread)
    pointed = await company.alice.see(company.room, says("goes on in its own room", company.bot))
    assert (thread_of(pointed), link_in(pointed)) == (thread, room)
    await company.bob.say(company.room, "Hello?", thread=thread)
    # closed: facts, never words
    closing = await company.alice.say(room, "!room close")
    summary = await company.alice.see(room, says("This was talked about", company.bot))
    assert "About this" not in body(summary)
    await company.alice.say(room, "!send")
    await company.alice.see(room, marks(closing, "✉️"))
    assert await said(desk, issue, "This was talked about in a room of its own. Taking part:")
    back = await company.alice.see(company.room, says("closed its own room", company.bot))
    assert thread_of(back) == thread
    last = await company.alice.see(room, says("closed this room", company.bot))
    assert thread.replace("$", "%24") in body(last)
    assert (await state(company, room, "m.room.name"))["name"].endswith("(archived)")
    assert not await state(company, space, "m.space.child", room)
    with pytest.raises(Refused):
        await company.alice.say(room, "One more thing")
    await desk.comment(issue, "It is out.", by="carol")
    out = await company.alice.see(company.room, says("It is out."))
    assert thread_of(out) == thread
    assert not [event for event in company.alice.timeline(room) if "It is out." in body(event)]
    assert not [e for e in company.alice.timeline(space) if e["type"] == "m.room.message"]
    assert len([e for e in company.alice.timeline(company.room) if "goes on in its own room" in body(e)]) == 1
    assert not [e for e in company.alice.timeline(company.room) if "Still burning!" in body(e)]


async def test_a_room_is_made_once_though_the_bridge_dies_before_it_is_written_down(company: Company) -> None:
    """Twice the homeserver has made the room and the bridge does not know it; the third life finds it."""
    mail = await company.post(sender=JANE, subject="Crash", body="Is anybody there?")
    root = await company.alice.see(company.room, says("Is anybody there?"))
    space = await company.alice.create_space("Closed")
    await company.bridge.stop()
    config, connectors = load(company.bridge.config)
    config = config.model_copy(update={"rooms": Rooms(space=space)})
    async with opened(config, connectors) as bridge:

        def ask(tx: Tx) -> Delivery:
            conversation = tx.conversations.of_root(root["event_id"])
            assert conversation is not None
            tx.own.begin(conversation.id, company.room, conversation.root)
            wanted = MakeRoom(company.room, conversation.id, "Crash", company.alice.mxid, root["event_id"])
            bridge.rules.moving.ask(tx, wanted)
            return tx.queue.fresh[-1]

        await bridge.ghosts.load()
        await bridge.recall()
        await bridge.ghosts.introduce_bot()
        row = await bridge.store.transact(ask)
        made = [partial_of(await bridge.matrix.deliver(row)).keywords["made"] for _ in range(2)]
    assert made[0].room == made[1].room
    assert "I could not put it into the space" in made[0].lacking[0]
    await company.bridge.start()
    told = await company.alice.see(company.room, says("goes on in a room of its own", company.bot))
    assert link_in(told) == made[0].room
    assert thread_of(told) == root["event_id"]
    assert "in no space" in body(told)
    await company.alice.see_invite(made[0].room)
    await company.alice.join(made[0].room)
    await company.post(sender=JANE, subject="Re: Crash", body="I am still here.", in_reply_to=mail["Message-ID"])
    await company.alice.see(made[0].room, says("I am still here."))
    await company.alice.say(made[0].room, "!room close")  # no summary to people outside
    back = await company.alice.see(company.room, says("closed its own room", company.bot))
    assert thread_of(back) == root["event_id"]
    assert not company.sink.mails
    assert not [event for event in company.alice.timeline(company.room) if "still here" in body(event)]


async def test_a_conversation_comes_back_when_everybody_has_left_its_room(company: Company) -> None:
    mail = await company.post(sender=JANE, subject="Deserted", body="Who is in?")
    root = await company.alice.see(company.room, says("Who is in?"))
    await company.bob.say(company.room, "I am.", thread=root["event_id"])
    room = await moved(company, root["event_id"], await company.alice.say(company.room, "!room", root["event_id"]))
    await company.alice.leave(room)
    await company.bob.see_invite(room)  # somebody may still come
    assert not [event for event in company.alice.timeline(company.room) if "nobody is left" in body(event)]
    await company.bob.join(room)
    await company.bob.leave(room)
    back = await company.alice.see(company.room, says("nobody is left in its own room", company.bot))
    assert thread_of(back) == root["event_id"]
    await company.post(sender=JANE, subject="Re: Deserted", body="And now?", in_reply_to=mail["Message-ID"])
    assert thread_of(await company.alice.see(company.room, says("And now?"))) == root["event_id"]


def partial_of(crossing: Any) -> partial[None]:
    assert isinstance(crossing, partial)
    return crossing
