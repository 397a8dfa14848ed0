"""The rules around rooms that are upgraded, invited to, and left; the servers' part is in tests/e2e."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from bridge import payload, store
from bridge.config import Config
from bridge.connector import Connector
from bridge.matrix.doors import MOST_TOLD, Doors
from bridge.matrix.threads import Threads
from bridge.model import Author, Card, Delivery, Envelope, RoomEvent
from bridge.payload import CardPost, Decline, Enter, Follow, Mark, Post, Preview
from bridge.rules import Rules
from bridge.store import Store, Tx

OLD, NEW, NEWEST, OTHER = "!old:company.example", "!new", "!newest", "!other:company.example"
BOT, ALICE, MALLORY = "@passerelle:company.example", "@alice:company.example", "@mallory:outside.example"
GHOST = "@_passerelle_desk_jane:company.example"


class Desk(Connector):
    """A tool."""


class Office:
    """The rules on a store of their own; a conversation in the mapped room."""

    def __init__(self, memory: Store) -> None:
        self.store = memory
        self.config = Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "permissions": {"use": ["company.example"]},
                "inside": {"users": ["@partner:sister.example"]},
                "connectors": {"desk": {}},
                "mappings": [{"connector": "desk", "scope": "jobs", "room": OLD}],
            }
        )
        self.rules = Rules(self.config)
        self.places = self.rules.places
        self.places.resolve(OLD, OLD)
        self.places.management = "!operators"
        self.rules.connect({"desk": Desk("desk", Desk.Config(), cast(Any, None))})

    async def begin(self) -> int:
        def rule(tx: Tx) -> int:
            conversation = tx.conversations.add(OLD, "A question")
            tx.conversations.shown(conversation.id, "$root", OLD)
            tx.conversations.add_message(conversation.id, "inward", "jane", event="$root")
            return conversation.id

        return await self.store.transact(rule)

    async def hear(self, event: RoomEvent) -> list[Delivery]:
        """What a heard event leads to."""
        before = await self.rows()
        await self.store.transact(self.rules.hearing.hear, event)
        known = {row.uid for row in before}
        return [row for row in await self.rows() if row.uid not in known]

    async def rows(self) -> list[Delivery]:
        return await self.store.transact(lambda tx: tx.queue.in_state("ready"))

    async def upgrade(self, room: str, later: str) -> None:
        def rule(tx: Tx) -> dict[str, str]:
            tx.mappings.succeeded(room, later)
            tx.conversations.move(room, later)
            return tx.mappings.successors()

        self.places.upgrades(await self.store.transact(rule))


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        yield Office(memory)


def event(type_: str, room: str = OLD, sender: str = ALICE, **more: Any) -> RoomEvent:
    return RoomEvent(f"${type_}{room}{sender}{sorted(more.items())}", room, sender, type_, **more)


def member(mxid: str, membership: str, sender: str, room: str) -> RoomEvent:
    return event("m.room.member", room, sender, state_key=mxid, membership=membership)


# --- upgrades


async def test_a_tombstone_in_a_room_of_ours_is_followed_and_meanwhile_nothing_is_shown_there(office: Office) -> None:
    (row,) = await office.hear(event("m.room.tombstone", state_key=""))
    assert payload.load(Follow, row.payload) == Follow(OLD, ALICE)
    assert office.places.awaiting() == [OLD]
    assert await office.store.transact(lambda tx: tx.mappings.successors()) == {OLD: ""}
    assert await office.hear(event("m.room.tombstone", room=OTHER, state_key="")) == []
    assert await office.hear(event("m.room.tombstone", room=OLD, state_key="other")) == []


async def test_what_an_upgrade_closes_is_no_missing_right(office: Office) -> None:
    assert [row.kind for row in await office.hear(event("m.room.power_levels", state_key=""))] == ["rights"]
    await office.hear(event("m.room.tombstone", state_key=""))
    assert await office.hear(event("m.room.power_levels", state_key="", sender=MALLORY)) == []


async def test_names_of_an_upgraded_room_mean_the_newest_one_also_after_a_start(office: Office) -> None:
    await office.upgrade(OLD, NEW)
    await office.upgrade(NEW, NEWEST)
    assert office.places.successor(OLD) == NEWEST
    assert office.places.mapped() == {NEWEST}
    assert office.places.serves(OLD, "desk", "jobs")
    later = Office(office.store)
    later.places.upgrades(await office.store.transact(lambda tx: tx.mappings.successors()))
    later.places.recall(OLD, OLD)
    assert later.places.mapped() == {NEWEST}


async def test_rooms_that_claim_to_replace_each_other_end_somewhere(office: Office) -> None:
    office.places.upgrades({OLD: NEW, NEW: OLD})
    assert office.places.origin(OLD) in (OLD, NEW)
    assert office.places.successor(OLD) in (OLD, NEW)


async def test_what_is_said_in_the_old_thread_belongs_to_the_conversation_and_does_not_become_its_root(
    office: Office,
) -> None:
    number = await office.begin()
    await office.upgrade(OLD, NEW)
    (answer,) = await office.hear(event("m.room.message", msgtype="m.text", body="!retry", thread="$root"))
    assert answer.conversation == number
    assert "Nothing failed here" in payload.load(Post, answer.payload).body
    conversation = await office.store.transact(lambda tx: tx.conversations.get(number))
    assert conversation is not None
    assert (conversation.room, conversation.root, conversation.latest) == (NEW, "", "")


async def test_what_is_shown_in_the_old_room_just_as_it_is_upgraded_does_not_become_the_new_root(
    office: Office,
) -> None:
    number = await office.begin()
    await office.upgrade(OLD, NEW)

    def late(tx: Tx) -> tuple[str, str]:
        message = tx.conversations.add_message(number, "inward", "jane")
        tx.conversations.in_matrix(message, "$late", OLD)
        tx.conversations.shown(number, "$late", OLD)
        conversation = tx.conversations.get(number)
        assert conversation is not None
        return conversation.root, tx.conversations.room_of("$late")

    assert await office.store.transact(late) == ("", OLD)

    def sent(tx: Tx) -> str:  # what was said in the old room leaves from the new one: a message of its own
        tx.conversations.add_message(number, "outward", ALICE, event="$late", uid="sent")
        return tx.conversations.room_of("$late")

    assert await office.store.transact(sent) == OLD


async def test_a_conversation_that_goes_on_begins_with_one_link_however_often_that_is_tried(office: Office) -> None:
    number = await office.begin()
    await office.upgrade(OLD, NEW)
    begun: list[tuple[str, str]] = []

    async def begin(delivery: Delivery, post: Post) -> str:
        begun.append((delivery.uid, post.body))
        if len(begun) == 1:
            raise OSError("the homeserver has it, and we do not know")
        return "$new"

    delivery = Delivery(1, "uid", "lane", "matrix", "post", "", "ready", number, 0.0)
    threads = Threads(office.store, office.places, office.rules.say, begin)
    post = await threads.here(Post(OLD, "Hello", answers="$root"))
    assert post == Post(NEW, "Hello")  # a relation does not reach into another room
    with pytest.raises(OSError, match="we do not know"):
        await threads.of(delivery, post)
    assert await threads.of(delivery, post) == ("$new", "$new", "")
    assert await threads.of(delivery, post) == ("$new", "$new", "")
    assert len(begun) == 2
    assert {uid for uid, _ in begun} == {"uid.goes-on"}
    assert "https://matrix.to/#/%21old%3Acompany.example/%24root" in begun[0][1]
    later = Threads(office.store, office.places, office.rules.say, begin)  # after a crash
    assert (await later.of(delivery, post))[0] == "$new"
    assert await later.of(delivery, replace(post, answers="$root")) == ("$new", "$new", "")


async def test_what_a_tool_brings_once_more_after_the_upgrade_is_not_shown_again(office: Office) -> None:
    """A mail server that did not hear our yes brings it again, perhaps hours later."""
    letter = Envelope("desk", ("jobs",), "key", "<1@x>", Author("desk", "jane"), 0.0, text="Hello")
    await office.store.transact(office.rules.hub.accept, letter)
    before = await office.rows()
    for old, new in ((OLD, NEW), (NEW, NEWEST)):
        await office.upgrade(old, new)
        await office.store.transact(office.rules.hub.accept, letter)
    assert await office.rows() == before
    await office.store.transact(office.rules.hub.accept, replace(letter, key="another", id="<2@x>"))
    assert len(await office.rows()) == len(before) + 1


async def test_marks_stay_with_their_event_and_previews_go_on(office: Office) -> None:
    await office.begin()
    await office.upgrade(OLD, NEW)
    threads = Threads(office.store, office.places, office.rules.say, cast(Any, None))
    assert await threads.here(Mark(NEW, "$root", "⚠️")) == Mark(OLD, "$root", "⚠️")
    assert await threads.here(Preview(OLD, "uid")) == Preview(NEW, "uid")


# --- invitations


async def test_the_bot_comes_to_those_who_may_ask_it_and_to_where_something_is_mapped(office: Office) -> None:
    for sender, room, kind in (
        (ALICE, OTHER, "enter"),
        (MALLORY, OLD, "enter"),
        (MALLORY, OTHER, "decline"),
        ("@partner:sister.example", OTHER, "decline"),  # inside, but not under permissions.use
    ):
        rows = await office.hear(member(BOT, "invite", sender, room))
        assert [row.kind for row in rows] == [kind], sender
    assert Enter(OTHER, ALICE) in [
        payload.load(Enter, row.payload) for row in await office.rows() if row.kind == "enter"
    ]


async def test_a_ghost_does_not_come_because_somebody_invites_it(office: Office) -> None:
    (row,) = await office.hear(member(GHOST, "invite", ALICE, OTHER))
    assert payload.load(Decline, row.payload) == Decline(OTHER, GHOST, ALICE)
    assert await office.hear(member(GHOST, "invite", ALICE, OLD)) == []  # it comes there when it has something to say


async def test_operators_are_not_flooded_by_those_who_invite_without_end(office: Office) -> None:
    doors = Doors(office.config, office.store, cast(Any, None), office.places, cast(Any, None), office.rules.say)
    for each in range(MOST_TOLD + 5):
        for room in (OTHER, NEW):
            await office.store.transact(doors.declined, Decline(room, BOT, f"@mallory{each}:outside.example"))
    told = [payload.load(Post, row.payload).body for row in await office.rows()]
    assert len(told) == MOST_TOLD
    assert ["More such invitations" in each for each in told] == [False] * (MOST_TOLD - 1) + [True]


# --- removed, left alone


async def test_who_removed_the_bot_from_a_mapped_room_is_told_and_of_others_nothing(office: Office) -> None:
    (kicked,) = await office.hear(member(BOT, "leave", ALICE, OLD))
    (banned,) = await office.hear(member(BOT, "ban", ALICE, OLD))
    for row, words in ((kicked, "removed me"), (banned, "/unban")):
        said = payload.load(Post, row.payload).body
        assert ALICE in said
        assert "jobs (desk)" in said
        assert words in said
    assert await office.hear(member(BOT, "leave", ALICE, OTHER)) == []


async def test_many_who_leave_at_once_are_looked_after_twice_at_most(office: Office) -> None:
    for each in range(9):
        mxid = f"@user{each}:company.example"
        await office.hear(member(mxid, "leave", mxid, OTHER))
    assert [row.kind for row in await office.rows()] == ["left", "left"]


async def test_the_card_of_an_item_is_shown_anew_where_its_conversation_goes_on(office: Office) -> None:
    number = await office.begin()

    def card(tx: Tx) -> int:
        item = tx.conversations.add_item("desk", "7", "A job")
        tx.conversations.link(number, item, "jobs")
        tx.conversations.stood(item, "A job", payload.dump(Card("7", "job7", "A job")), 1.0)
        tx.conversations.carded(number, item, "$card")
        return item

    item = await office.store.transact(card)
    await office.upgrade(OLD, NEW)

    async def begin(delivery: Delivery, post: Post) -> str:
        return "$new"

    threads = Threads(office.store, office.places, office.rules.say, begin)
    await threads.of(Delivery(1, "uid", "lane", "matrix", "post", "", "ready", number, 0.0), Post(NEW, "Hello"))
    (row,) = await office.rows()
    shown = payload.load(CardPost, row.payload)
    assert (shown.room, shown.item, row.conversation) == (NEW, item, number)
    assert await office.store.transact(lambda tx: tx.conversations.card(number, item)) == ""


@pytest.mark.parametrize("kind", ["m.room.encryption", "m.room.tombstone", "m.room.power_levels"])
@pytest.mark.parametrize("key", [None, "other"])
async def test_a_mere_message_of_that_type_changes_no_room(office: Office, kind: str, key: str | None) -> None:
    """Whoever may speak in a room can send one: nobody may stop what is shown there like that."""
    assert await office.hear(event(kind, sender=MALLORY, state_key=key)) == []
    assert not office.places.encrypted
    assert not await office.store.transact(lambda tx: tx.people.encrypted())
