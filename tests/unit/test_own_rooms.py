"""The rules of rooms of their own: asked for, moved into, spoken in, closed; the homeserver's part is in tests/e2e."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge import payload, store
from bridge.config import Mapping, Permissions
from bridge.matrix.destination import MatrixDestination
from bridge.matrix.threads import Threads
from bridge.model import Author, Deferred, Delivery, Draft, Envelope, Rejected, RoomEvent
from bridge.moving import Made
from bridge.payload import Archive, CardPost, Chart, Gather, Look, MakeRoom, Mark, Post, Preview
from bridge.places import Standing
from bridge.store import Conversation, OwnRoom, Tx
from tests.unit.test_item_rules import ALICE, BOB, CARD, CUSTOMER, HERE, SECRET
from tests.unit.test_item_rules import Office as Base

_KINDS = {kind: name for name, kind in payload.KINDS.items()}
OWN, LATER = "!own", "!later"
GUEST, GONE, OWNER = "@guest:elsewhere.example", "@gone:company.example", "@olive:company.example"


class Office(Base):
    """The same, with rooms of their own."""

    async def rows(self, kind: type[Any]) -> list[Any]:
        """What waits for the homeserver, of one kind."""
        found = await self.store.transact(lambda tx: tx.queue.in_state("ready"))
        return [payload.load(kind, row.payload) for row in found if row.kind == _KINDS[kind]]

    async def ask(self, text: str = "!room", **fields: Any) -> RoomEvent:
        return await self.say(text, **fields)

    async def move(self, spoke: tuple[str, ...] = (), present: tuple[str, ...] = (ALICE, BOB)) -> None:
        """The homeserver has made the room that was asked for."""
        (wanted,) = await self.rows(MakeRoom)
        made = Made(OWN, "marker", spoke, present)
        await self.store.transact(self.rules.moving.moved, wanted, made)
        await self.crossed("room")

    async def crossed(self, kind: str) -> None:
        def rule(tx: Tx) -> None:
            for row in tx.queue.in_state("ready"):
                if row.kind == kind:
                    tx.queue.remove(row.id)

        await self.store.transact(rule)

    async def own(self) -> OwnRoom | None:
        return await self.store.transact(lambda tx: tx.own.in_room(OWN))

    async def close(self, text: str = "!room close") -> RoomEvent:
        return await self.say(text, room=OWN, thread="")

    async def archive(self) -> None:
        """The homeserver has closed the room for everybody."""
        (wanted,) = await self.rows(Archive)
        own = await self.own()
        assert own is not None
        await self.store.transact(self.rules.moving.ended, own, wanted, [])
        await self.crossed("archive")

    async def drafts(self) -> list[tuple[Delivery, Draft]]:
        def rule(tx: Tx) -> list[Delivery]:
            states: Any = ("asked", "held", "paused", "ready", "dead")
            return [row for state in states for row in tx.queue.in_state(state) if row.kind == "draft"]

        return [(row, payload.load(Draft, row.payload)) for row in await self.store.transact(rule)]

    async def accepted(self) -> None:
        """The tool has taken the only draft."""
        ((row, draft),) = await self.drafts()
        await self.store.transact(lambda tx: (self.rules.moving.accepted(tx, row.uid, draft), tx.queue.remove(row.id)))


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        office = Office(memory)
        await office.arrive(begins=True, text="It rattles.")
        yield office


async def only(office: Office, room: str) -> Conversation:
    (found,) = await office.conversations(room)
    return found


# --- asked


async def test_the_room_is_asked_for_once_and_named_like_its_item(office: Office) -> None:
    event = await office.ask()
    (wanted,) = await office.rows(MakeRoom)
    conversation = await only(office, HERE)
    assert wanted == MakeRoom(HERE, conversation.id, "job1: Pump is loud", ALICE, event.id)
    await office.ask(sender=BOB)
    assert len(await office.rows(MakeRoom)) == 1
    assert "being made" in (await office.notices())[-1]
    await office.move()
    await office.ask("!room", room=OWN, thread="")
    assert OWN.removeprefix("!") in (await office.notices(OWN))[-1]
    assert not await office.rows(MakeRoom)


async def test_a_name_can_be_given_and_guests_and_conversations_without_an_item_get_none(office: Office) -> None:
    await office.ask(sender=GUEST)
    assert "Only people of this company" in (await office.notices())[-1]
    await office.say("!unlink")
    await office.ask()
    assert "nothing of a tool" in (await office.notices())[-1]
    assert not await office.rows(MakeRoom)
    await office.arrive(begins=True, item="job2", card=replace(CARD, item="job2", key="job2"))
    second = (await office.conversations())[-1]
    await office.ask("!room The big\none", thread=second.root)
    (wanted,) = await office.rows(MakeRoom)
    assert wanted.name == "The big"


# --- moved


async def test_it_is_mapped_like_the_room_it_came_from_for_nothing_new(office: Office) -> None:
    letter = Envelope("letters", ("post",), "k", "<1>", Author("letters", "jane@x.example"), 0.0, title="Hi", text="Hi")
    await office.store.transact(office.rules.hub.accept, letter)
    first = (await office.conversations())[0]

    def joined(tx: Tx) -> None:
        (mail,) = tx.conversations.items_referred("letters", ["<1>"])
        tx.conversations.link(first.id, mail, "post")

    await office.store.transact(joined)
    await office.ask()
    await office.move()
    mapped = office.rules.places.mappings_of(OWN)
    assert {(each.connector, each.scope, each.new, each.private) for each in mapped} == {
        ("desk", "jobs", False, False),
        ("letters", "post", False, False),
    }


async def test_a_room_that_sees_private_notes_gives_one_that_does(office: Office) -> None:
    await office.arrive(begins=True, scopes=("secrets",), item="job9", card=replace(CARD, item="job9", key="job9"))
    secret = await only(office, SECRET)
    await office.ask(room=SECRET, thread=secret.root)
    await office.move()
    (mapping,) = office.rules.places.mappings_of(OWN)
    assert mapping.private


async def test_people_of_the_thread_and_of_the_item_are_invited_and_nobody_from_outside(office: Office) -> None:
    await office.say("Me too.", sender=BOB)
    await office.say("I have left the room since.", sender=GONE)
    await office.say("Hello.", sender=GUEST)
    await office.store.transact(lambda tx: tx.people.owns(OWNER, "desk", "olive"))
    await office.arrive(text="Mine.", author=Author("desk", "olive", verified=True))
    await office.ask()
    await office.move(spoke=(GUEST, "@_passerelle_desk_carol:company.example"), present=(ALICE, BOB, GUEST))
    (gather,) = await office.rows(Gather)
    assert gather == Gather(OWN, (ALICE, BOB, OWNER))


async def test_what_arrives_from_then_on_is_in_that_room_only_and_once(office: Office) -> None:
    await office.ask()
    known = Envelope(
        "desk", ("jobs",), "twice", "msg", CUSTOMER, 1.0, title="Pump is loud", item="job1", card=CARD, text="Before."
    )
    await office.store.transact(office.rules.hub.accept, known)
    await office.move()
    await office.store.transact(office.rules.hub.accept, known)
    await office.arrive(text="After.")
    await office.arrive(begins=True, text="Another.", item="job2", card=replace(CARD, item="job2", key="job2"))
    posts = [(post.room, post.body) for post in await office.queued(Post) if post.author]
    assert [room for room, body in posts if "Before." in body] == [HERE]
    assert [room for room, body in posts if "After." in body] == [OWN]
    assert [room for room, body in posts if "Another." in body] == [HERE]
    await office.store.transact(office.rules.hub.accept, known)
    await office.close("!room close Done.")
    await office.accepted()
    await office.archive()
    await office.store.transact(office.rules.hub.accept, known)
    after = replace(known, key="later", text="At home.")
    await office.store.transact(office.rules.hub.accept, after)
    posts = [(post.room, post.body) for post in await office.queued(Post) if post.author]
    assert len([body for _, body in posts if "Before." in body]) == 1
    assert [room for room, body in posts if "At home." in body] == [HERE]


async def test_a_mail_belongs_to_the_room_that_its_conversation_has_and_another_begins_where_it_always_did(
    office: Office,
) -> None:
    jane = Author("letters", "jane@outside.example", "Jane")
    await office.letter()
    mail = (await office.conversations())[-1]
    await office.ask(thread=mail.root)
    await office.move()
    answer = Envelope("letters", ("post",), "k2", "<2>", jane, 0.0, title="Re: Hello", text="More.", refs=("<1>",))
    await office.store.transact(office.rules.hub.accept, answer)
    await office.store.transact(office.rules.hub.accept, replace(answer, key="k3", id="<3>", refs=(), text="New."))
    posts = [(post.room, post.body) for post in await office.queued(Post) if post.author]
    assert [room for room, body in posts if "More." in body] == [OWN]
    assert [room for room, body in posts if "New." in body] == [HERE]


async def test_two_threads_of_one_item_both_hear_of_it_though_one_has_moved(office: Office) -> None:
    first = await only(office, HERE)
    second = await office.store.transact(lambda tx: tx.conversations.add(HERE, "Second", "$second"))

    def linked(tx: Tx) -> None:
        (item,) = tx.conversations.items_of(first.id)
        tx.conversations.link(second.id, item.id, "jobs")

    await office.store.transact(linked)
    await office.ask()
    await office.move()
    await office.arrive(text="For both.")
    assert sorted(post.room for post in await office.queued(Post) if "For both." in post.body) == [HERE, OWN]


async def test_what_was_written_down_for_the_thread_and_not_shown_yet_is_shown_in_the_room(office: Office) -> None:
    await office.ask()
    conversation = await only(office, HERE)
    row = Delivery(1, "uid", "lane", "matrix", "post", "", "ready", conversation.id, 0.0)
    threads = Threads(office.store, office.rules.places, office.rules.say, cast(Any, None))
    before = Post(HERE, "Hello", answers="$1")
    assert await threads.here(before, conversation.id) == before
    await office.move()
    post = await threads.here(before, conversation.id)
    assert post == Post(OWN, "Hello")
    assert await threads.of(row, post) == ("", "", "")
    assert (await threads.here(Preview(HERE, "draft"), conversation.id)).room == OWN
    assert (await threads.here(Mark(OWN, "$1", "x"), conversation.id)).room == HERE  # an event stays where it is
    asked = await office.say("Aside.", room=OWN, thread="$inner")
    assert await threads.of(row, Post(OWN, "Answer", answers=asked.id)) == ("$inner", asked.id, asked.id)
    outside = replace(row, conversation=None)
    assert await threads.of(outside, Post(HERE, "Gone on", thread="$1")) == ("$1", "$1", "")


async def test_what_waits_to_leave_is_shown_again_there_and_can_still_be_stopped_where_it_was_said(
    office: Office,
) -> None:
    said = await office.say("!reply Wait.")
    other = await office.say("!reply Also.")
    await office.store.transact(_shown)
    await office.ask()
    await office.move()
    drafts = await office.drafts()
    assert [(row.state, draft.moved, draft.rooms) for row, draft in drafts] == [("paused", OWN, (HERE, OWN))] * 2
    assert {preview.room for preview in (await office.rows(Preview))[-2:]} == {OWN}
    redaction = RoomEvent("$redaction", HERE, ALICE, "m.room.redaction", target=said.id)
    await office.store.transact(office.rules.hearing.hear, redaction)
    cross = RoomEvent("$cross", HERE, BOB, "m.reaction", target=other.id, key="❌")
    await office.store.transact(office.rules.hearing.hear, cross)
    assert await office.drafts() == []


async def test_the_old_thread_leads_to_the_room_and_nothing_that_is_asked_there_is_done(office: Office) -> None:
    await office.ask()
    await office.move()
    told = (await office.queued(Post, HERE))[-1]
    assert (told.thread, told.mentions) == ("$1", (ALICE,))
    assert "goes on in a room of its own" in told.body
    before = len(await office.notices())
    await office.say("Hello?")
    await office.say("Anybody?")
    assert len(await office.notices()) == before + 1
    await office.say("!reply Lost.")
    await office.store.transact(
        office.rules.hearing.hear, RoomEvent("$sends", HERE, ALICE, "m.reaction", target="$1", key="📤")
    )
    assert len(await office.notices()) == before + 3
    assert (await office.queued(Post, HERE))[-1].thread == "$1"
    assert await office.drafts() == []


# --- who comes


def member(mxid: str, membership: str, room: str = OWN) -> RoomEvent:
    return RoomEvent(f"${mxid}{membership}{room}", room, ALICE, "m.room.member", state_key=mxid, membership=membership)


@pytest.mark.parametrize("membership", ["invite", "join"])
async def test_private_notes_stop_when_somebody_from_outside_comes(tmp_path: Path, membership: str) -> None:
    async with store.opened(tmp_path) as memory:
        office = Office(memory, [{"connector": "desk", "scope": "jobs", "room": HERE, "private": True}])
        await office.arrive(begins=True, text="It rattles.")
        await office.ask()
        await office.move()
        sees = office.rules.places.sees
        for harmless in (member(BOB, membership), member(GUEST, "leave"), member(GUEST, membership, HERE)):
            await office.store.transact(office.rules.hearing.hear, harmless)
        assert sees(OWN, "desk", ("jobs",), private=True)
        await office.store.transact(office.rules.hearing.hear, member(GUEST, membership))
        assert sees(OWN, "desk", ("jobs",))
        assert not sees(OWN, "desk", ("jobs",), private=True)
        assert sees(HERE, "desk", ("jobs",), private=True)
        assert f"{GUEST} is not of this company" in (await office.notices(OWN))[-1]
        with pytest.raises(Rejected, match="nobody here takes"):  # it stays in the tool
            await office.arrive(text="Do not tell him.", private=True)
        await office.arrive(text="For everybody.")
        assert [post.body for post in await office.queued(Post, OWN)][-1] == "For everybody."


async def secretive(memory: store.Store) -> Office:
    """Its room sees private notes; a conversation of it has moved. Olive takes part, and is not in that room."""
    office = Office(memory, [{"connector": "desk", "scope": "jobs", "room": HERE, "private": True}])
    await memory.transact(lambda tx: tx.people.owns(OWNER, "desk", "olive"))
    await office.arrive(begins=True, text="Mine.", author=Author("desk", "olive", verified=True))
    await office.ask()
    await office.move(spoke=(BOB,))
    return office


async def test_into_a_room_that_sees_private_notes_nobody_is_brought_who_does_not_see_them_already(
    tmp_path: Path,
) -> None:
    async with store.opened(tmp_path) as memory:
        office = await secretive(memory)
        assert (await office.rows(Gather))[0].people == (ALICE, BOB)
        assert f"Not invited, since they are not in this one: {OWNER}" in (await office.notices())[-1]


async def test_private_items_and_what_waits_to_be_shown_are_no_guests_matter(tmp_path: Path) -> None:
    async with store.opened(tmp_path) as memory:
        office = await secretive(memory)
        await office.arrive(card=replace(CARD, title="Confidential", private=True), text="Do not tell him.")
        (waiting,) = [post for post in await office.rows(Post) if "Do not tell" in post.body]
        known = SimpleNamespace(is_caught_up=lambda room: True)
        door: Any = SimpleNamespace(_places=office.rules.places, _rooms=known)
        assert not MatrixDestination._is_hidden(door, waiting)
        await memory.transact(office.rules.hearing.hear, member(GUEST, "join"))
        assert MatrixDestination._is_hidden(door, waiting)
        assert "Confidential" not in [card.body for card in await office.queued(CardPost, OWN)][-1]
        known.is_caught_up = lambda room: False  # perhaps somebody has come
        with pytest.raises(Deferred):
            MatrixDestination._is_hidden(door, waiting)


async def test_of_a_tool_that_is_mapped_no_more_no_card_comes_along(office: Office) -> None:
    await office.ask()
    await office.move()
    (card,) = await office.queued(CardPost, OWN)
    door: Any = SimpleNamespace(_places=office.rules.places)
    conversation = (await only(office, OWN)).id

    async def shown() -> bool:
        return await office.store.transact(lambda tx: MatrixDestination._shows(door, tx, conversation, card))

    assert await shown()
    office.rules.places.make([])
    assert not await shown()


async def test_nobody_maps_private_notes_to_it(tmp_path: Path) -> None:
    async with store.opened(tmp_path) as memory:
        office = await secretive(memory)
        wanted = Mapping(connector="desk", scope="secrets", room=OWN, private=True, new=False)
        office.rules.permit(Permissions(map={"desk": frozenset({ALICE})}))
        standing = Standing(100, 50, (ALICE,), False, ())
        await memory.transact(office.rules.maps.settled, Chart(OWN, ALICE, "$maps", wanted), standing)
        assert not office.rules.places.sees(OWN, "desk", ("secrets",))
        assert "it sees private notes where" in (await office.notices(OWN))[-1]


async def test_people_are_there_for_one_conversation_and_not_for_all_of_the_tool(office: Office) -> None:
    await office.ask()
    await office.move()
    mine = replace(CARD, scope="jobs")
    other = replace(mine, item="job9", key="job9", title="The boss is to be dismissed")
    desk, finds = office.rules.finds._connectors["desk"], office.rules.finds
    seen = await office.store.transact(
        lambda tx: [finds._may_see(tx, desk, card, frozenset({OWN})) for card in (mine, other)]
    )
    assert seen == [True, False]
    await office.say("What about job9 ?", room=OWN, thread="")
    await office.found(other)
    (shown,) = [post for post in await office.queued(Post, OWN) if "job9" in post.body]
    assert "dismissed" not in shown.body
    await office.say("!link job9", room=OWN, thread="")
    await office.found(other)
    assert [card.body for card in await office.queued(CardPost, OWN)][-1].startswith("job9: The boss")


# --- inside


async def test_in_its_room_whatever_is_said_belongs_to_the_conversation(office: Office) -> None:
    await office.ask()
    await office.move()
    await office.say("!reply In the timeline.", room=OWN, thread="")
    await office.say("!reply In a thread.", room=OWN, thread="$inner")
    plain = await office.say("Look at this.", room=OWN, thread="")
    await office.store.transact(
        office.rules.hearing.hear, RoomEvent("$sends", OWN, ALICE, "m.reaction", target=plain.id, key="📤")
    )
    drafts = [draft for _, draft in await office.drafts()]
    assert [(draft.room, draft.source) for draft in drafts][2] == (OWN, plain.id)
    assert [draft.text for draft in drafts][:2] == ["In the timeline.", "In a thread."]
    await office.say("!job again", room=OWN, thread="")
    (made,) = [draft for _, draft in await office.drafts() if draft.history]
    assert (made.history.root, made.history.whole) == ("", True)


async def test_an_item_that_is_only_mentioned_there_does_not_become_part_of_it(office: Office) -> None:
    await office.ask()
    await office.move()
    own = await office.own()
    assert own is not None
    card = replace(CARD, item="job7", key="job7")

    def mentioned(tx: Tx) -> int:
        conversation = tx.conversations.get(own.conversation)
        assert conversation is not None
        office.rules.items.found(tx, "desk", Look(OWN, "job7", "jobs", "$said", follow=False), conversation, card)
        return len(tx.conversations.items_of(own.conversation))

    assert await office.store.transact(mentioned) == 1
    assert "job7" in (await office.notices(OWN))[-1]


async def test_nothing_new_can_be_mapped_there(office: Office) -> None:
    await office.ask()
    await office.move()
    office.rules.permit(Permissions(administer=frozenset({ALICE})))
    await office.say("!map desk jobs", room=OWN, thread="")
    assert "one conversation" in (await office.notices(OWN))[-1]
    before = len(await office.notices(OWN))
    await office.say("!map desk secrets linked", room=OWN, thread="")
    assert len(await office.notices(OWN)) == before  # the tool is asked whether it has that


async def test_without_its_last_item_it_stays_a_room_and_closes_at_once(office: Office) -> None:
    await office.ask()
    await office.move()
    await office.say("!unlink", room=OWN, thread="")
    await office.say("Still ours.", room=OWN, thread="")
    assert office.rules.places.mappings_of(OWN)
    await office.close("!room close That was it.")
    (archive,) = await office.rows(Archive)
    assert archive == Archive(OWN, ALICE, "That was it.")
    await office.archive()
    assert "That was it." in (await office.notices())[-1]


async def test_an_upgraded_room_stays_the_conversations_own(office: Office) -> None:
    await office.ask()
    await office.move()
    await office.settle()

    def upgraded(tx: Tx) -> None:
        tx.mappings.succeeded(OWN, LATER)
        tx.conversations.move(OWN, LATER)
        office.rules.moving.show_cards(tx, tx.own.succeeded(OWN, LATER))
        successors, made, own = tx.mappings.successors(), tx.mappings.made(), tx.own.all()
        tx.committed += [lambda: office.rules.places.upgrades(successors), lambda: office.rules.places.make(made)]
        tx.committed += [lambda: office.rules.places.own(own), lambda: office.rules.places.resolve(LATER, LATER)]

    await office.store.transact(upgraded)
    assert (await office.queued(CardPost))[-1].room == LATER
    await office.arrive(text="Here now.")
    assert [post.room for post in await office.queued(Post) if "Here now." in post.body] == [LATER]
    await office.say("!reply Fine.", room=LATER, thread="")
    assert [draft.room for _, draft in await office.drafts()] == [LATER]


# --- closed


async def test_the_summary_goes_to_the_item_and_only_then_the_conversation_comes_back(office: Office) -> None:
    await office.ask()
    await office.move()
    await office.settle()
    await office.say("A secret of ours.", room=OWN, thread="", sender=BOB)
    await office.close()
    ((row, draft),) = await office.drafts()
    assert (draft.remote, draft.room) == ("job1", OWN)
    assert "bob" in draft.text
    assert "Messages: 1" in draft.text
    assert "secret" not in draft.plain
    assert OWN.removeprefix("!") in draft.link
    await office.close()
    assert "on its way" in (await office.notices(OWN))[-1]
    assert await office.rows(Archive) == []
    await office.accepted()
    await office.archive()
    conversation = await only(office, HERE)
    assert (conversation.root, conversation.latest) == ("$1", "$1")
    assert office.rules.places.mappings_of(OWN) == []
    assert await office.store.transact(lambda tx: tx.conversations.card(conversation.id, 1)) == "$card1"
    await office.say("!retry")  # the thread is the conversation again
    assert "Nothing failed here" in (await office.notices())[-1]
    await office.ask()
    assert len(await office.rows(MakeRoom)) == 1
    assert row.kind == "draft"


async def test_words_are_the_summary_and_a_cancelled_or_refused_one_archives_nothing(office: Office) -> None:
    await office.ask()
    await office.move()
    event = await office.close("!room close We replaced the pump.")
    ((row, draft),) = await office.drafts()
    assert (draft.text, draft.link) == ("We replaced the pump.", "")
    await office.store.transact(
        office.rules.hearing.hear, RoomEvent("$no", OWN, BOB, "m.reaction", target=event.id, key="❌")
    )
    assert "not archived" in (await office.notices(OWN))[-1]
    assert await office.drafts() == []
    await office.close("!room close Again.")
    ((row, draft),) = await office.drafts()
    await office.store.transact(lambda tx: (tx.queue.bury(row, "no"), office.rules.moving.refused(tx, row.uid)))
    assert "not archived" in (await office.notices(OWN))[-1]
    assert await office.rows(Archive) == []
    await office.store.transact(lambda tx: office.rules.outward.retry(tx, row))
    await office.accepted()  # after !retry
    assert len(await office.rows(Archive)) == 1


async def test_an_edited_summary_is_asked_anew_and_closes_the_room_as_it_says_now(office: Office) -> None:
    await office.ask()
    await office.move()
    event = await office.close("!room close Replaced.")
    edit = replace(event, id="$edit", body="!room close Mended.", replaces=event.id)
    await office.store.transact(office.rules.hearing.hear, edit)
    ((_, draft),) = await office.drafts()
    assert draft.text == "Mended."
    assert not [body for body in await office.notices(OWN) if "not archived" in body]
    await office.accepted()
    assert [archive.summary for archive in await office.rows(Archive)] == ["Mended."]


async def test_of_several_items_the_one_is_meant_whose_card_is_answered(office: Office) -> None:
    (first,) = await office.conversations()
    await office.arrive(begins=True, item="job2", card=replace(CARD, item="job2", key="job2"))

    def linked(tx: Tx) -> None:
        item = tx.conversations.item_named("desk", "job2")
        assert item is not None
        tx.conversations.link(first.id, item, "jobs")

    await office.store.transact(linked)
    await office.ask()
    await office.move()
    await office.settle()
    await office.close("!room close Both.")
    assert "several places" in (await office.notices(OWN))[-1]
    assert await office.drafts() == []
    own = await office.own()
    assert own is not None
    card = await office.store.transact(lambda tx: tx.conversations.card(own.conversation, 2))
    await office.say("!room close Only this.", room=OWN, thread="", answers=card)
    assert [draft.remote for _, draft in await office.drafts()] == ["job2"]


async def test_what_else_waits_when_it_is_closed_comes_back_and_is_looked_at_again(office: Office) -> None:
    await office.ask()
    await office.move()
    await office.say("!reply Not yet.", room=OWN, thread="")
    await office.store.transact(_shown)
    own = await office.own()
    assert own is not None
    await office.store.transact(office.rules.moving.archive, own, ALICE, "")
    await office.archive()
    ((row, draft),) = await office.drafts()
    assert (row.state, draft.rooms) == ("paused", (OWN, HERE))
    assert (await office.rows(Preview))[-1] == Preview(HERE, row.uid)


async def test_what_arrives_after_its_mapping_was_undone_begins_where_it_always_did(office: Office) -> None:
    await office.ask()
    await office.move()
    (mapping,) = office.rules.places.mappings_of(OWN)
    await office.store.transact(lambda tx: tx.mappings.remove(mapping))
    office.rules.places.make(())
    await office.arrive(text="Where now?")
    assert [post.room for post in await office.queued(Post) if "Where now?" in post.body] == [HERE]


def _shown(tx: Tx) -> None:
    """Every preview is in the room."""
    for row in tx.queue.in_state("asked"):
        tx.queue.previewed(row.uid, f"$preview{row.uid}")
        tx.queue.move(row.uid, "held", hold=60)
