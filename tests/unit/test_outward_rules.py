"""The rules of what leaves, where no homeserver would let us try: forged relations, federated senders, odd clocks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import payload, store
from bridge.commands import Commands
from bridge.commands.acts import Acts
from bridge.commands.parse import command_of
from bridge.commands.start import Starts
from bridge.config import Config
from bridge.connector import Connector
from bridge.hearing import Hearing
from bridge.hub import Hub
from bridge.model import Address, Answered, Author, Draft, Envelope, Recipients, RoomEvent
from bridge.outward import Outward, leaving
from bridge.payload import Post as Shown
from bridge.places import Places
from bridge.store import Store, Tx
from bridge.texts import Texts

HERE, THERE = "!here", "!there"
ALICE = "@alice:company.example"


class Post(Connector):
    """A tool that answers whoever wrote."""

    command = "mail"

    def audience(self, scope: str, answered: Answered) -> Recipients:
        return Recipients((Address(answered.author),))

    def recipients(self, words: Any) -> Recipients:
        return Recipients(tuple(Address(word) for word in words))


class Office:
    """The rules on a store of their own, with a customer's thread in each of two rooms."""

    def __init__(self, memory: Store) -> None:
        self.store = memory
        self.config = Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "inside": {"servers": ["sister.example"], "except_users": ["@irc_*", "@guest:company.example"]},
                "connectors": {"post": {}},
                "mappings": [{"connector": "post", "scope": room[1:], "room": room} for room in (HERE, THERE)],
            }
        )
        say, places = Texts("en"), Places(self.config)
        for room in (HERE, THERE):
            places.resolve(room, room)
        connectors: dict[str, Connector] = {"post": Post("post", None, None)}  # type: ignore[arg-type]
        self.outward = Outward(self.config, places, say)
        acts = Acts(places, self.outward, connectors, say)
        commands = Commands(self.config, acts, Starts(places, self.outward, connectors, say), self.outward, say)
        self.hearing = Hearing(self.config, places, commands, self.outward, say)
        self.hub = Hub(self.config, places, self.outward, say)

    async def open(self) -> None:
        for room in (HERE, THERE):
            await self.store.transact(self._letter, room)

    def _letter(self, tx: Tx, room: str) -> None:
        author = Author("post", f"customer{room[1:]}@outside.example")
        self.hub.accept(tx, Envelope("post", (room[1:],), room, f"<{room}>", author, 0.0, text="Hi"))
        conversation = tx.conversations.of_item(tx.conversations.items_referred("post", (f"<{room}>",))[0], room)
        assert conversation is not None
        tx.conversations.in_matrix(1 if room == HERE else 2, f"$root{room[1:]}")
        tx.conversations.shown(conversation.id, f"$root{room[1:]}")

    async def hear(self, text: str = "", **fields: Any) -> RoomEvent:
        event = said(text, **fields)
        await self.store.transact(self.hearing.hear, event)
        return event

    async def drafts(self) -> list[Draft]:
        """What is on its way outward."""
        rows = await self.store.transact(
            lambda tx: tx.db.execute("SELECT payload FROM queue WHERE kind = 'draft'").fetchall()
        )
        return [payload.load(Draft, row[0]) for row in rows]

    async def shown(self) -> None:
        """Every preview is in its room."""

        def rule(tx: Tx) -> None:
            for (uid,) in tx.db.execute("SELECT uid FROM queue WHERE state = 'asked'").fetchall():
                self.outward.shown(tx, uid, f"$preview-{uid}")

        await self.store.transact(rule)

    async def posts(self, count: int) -> list[Shown]:
        """What is said last in the rooms."""
        rows = await self.store.transact(
            lambda tx: tx.db.execute("SELECT payload FROM queue WHERE kind = 'post' ORDER BY id DESC").fetchmany(count)
        )
        return [payload.load(Shown, row[0]) for row in rows]

    async def state(self) -> str:
        row = await self.store.transact(
            lambda tx: tx.db.execute("SELECT state FROM queue WHERE kind = 'draft'").fetchone()
        )
        return str(row[0]) if row else ""


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        office = Office(memory)
        await office.open()
        yield office


_count = iter(range(1_000_000))


def said(text: str = "", **fields: Any) -> RoomEvent:
    plain = RoomEvent(
        f"$event{next(_count)}", HERE, ALICE, "m.room.message", time.time(), "m.text", text, thread="$roothere"
    )
    return replace(plain, **fields)


def reaction(target: str, key: str = "📤", **fields: Any) -> RoomEvent:
    return said(type="m.reaction", target=target, key=key, thread="", **fields)


async def test_the_rules_work_at_all(office: Office) -> None:
    await office.hear("!reply Hello")
    (draft,) = await office.drafts()
    assert draft.recipients.to == (Address("customerhere@outside.example"),)
    await office.hear("!reply Hello", sender="@bob:sister.example")
    assert len(await office.drafts()) == 2


@pytest.mark.parametrize(
    "sender",
    [
        "@alice:elsewhere.example",
        "@alice:company.example.evil.example",
        "@alice:company.example:8448",
        "@alice:Company.example",
        "@alice",
        "@irc_alice:company.example",
        "@guest:company.example",
        "@_passerelle_mail_eve:company.example",
        "@passerelle:company.example",
    ],
)
async def test_nobody_outside_makes_anything_leave(office: Office, sender: str) -> None:
    own = await office.hear("!reply secret", sender=sender)
    await office.hear("!mail eve@evil.example Hi\nsecret", sender=sender)
    inside = await office.hear("secret")
    for target in (own.id, inside.id, "$roothere"):
        await office.store.transact(office.hearing.hear, reaction(target, sender=sender))
    assert await office.drafts() == []


@pytest.mark.parametrize(
    "text", ["!reply secret", "!mail eve@evil.example Hi\nsecret", "!mail eve@evil.example with history Hi"]
)
async def test_a_relation_into_another_room_leads_nowhere_and_breaks_nothing(office: Office, text: str) -> None:
    await office.hear(text, thread="$rootthere")
    await office.hear(text, thread="$rootthere", answers="$rootthere")
    if "mail" not in text:
        await office.hear(text, thread="", answers="$rootthere")
    assert await office.drafts() == []
    await office.hear("!reply Still here", room=THERE, thread="$rootthere")
    (draft,) = await office.drafts()
    assert draft.recipients.to == (Address("customerthere@outside.example"),)


async def test_a_reply_to_another_rooms_message_goes_to_this_rooms_customer(office: Office) -> None:
    await office.hear("!reply Hello", answers="$rootthere")
    (draft,) = await office.drafts()
    assert draft.recipients.to == (Address("customerhere@outside.example"),)


async def test_events_of_another_room_neither_send_nor_change_a_message(office: Office) -> None:
    inside = await office.hear("secret")
    await office.store.transact(office.hearing.hear, reaction(inside.id, room=THERE))
    assert await office.drafts() == []
    asked = await office.hear("!reply Hello")
    await office.hear("!reply secret", replaces=asked.id, room=THERE, thread="")
    (draft,) = await office.drafts()
    assert draft.text == "Hello"


async def test_a_reaction_that_was_taken_back_is_not_obeyed_when_its_message_is_found(office: Office) -> None:
    early = said("written before the thread was a conversation")
    request = reaction(early.id)
    await office.store.transact(office.hearing.hear, request)
    await office.hear(type="m.room.redaction", target=request.id, thread="")
    await office.store.transact(office.hearing.located, request, early)
    assert await office.drafts() == []
    await office.store.transact(office.hearing.located, reaction(early.id), early)
    assert len(await office.drafts()) == 1


async def test_what_was_asked_long_before_we_heard_it_is_asked_again(office: Office) -> None:
    await office.hear("!reply Hello", when=time.time() - 3600)
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    assert await office.state() == "paused"


async def test_a_clock_ahead_of_ours_makes_nothing_wait(office: Office) -> None:
    await office.hear("!reply Hello", when=time.time() + 3600)
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    assert await office.state() == "ready"


async def test_the_hold_of_other_words_ends_nothing(office: Office) -> None:
    asked = await office.hear("!reply Hello")
    await office.shown()
    uid, held = await office.store.transact(_held)
    await office.hear("!reply Goodbye", replaces=asked.id, thread="")
    await office.store.transact(office.outward.hold_over, uid, held)
    assert await office.state() == "held"


async def test_released_words_that_change_before_they_leave_are_held_again(office: Office) -> None:
    asked = await office.hear("!reply Hello")
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    assert await office.state() == "ready"
    await office.hear("!reply Goodbye", replaces=asked.id, thread="")
    assert await office.state() == "held"


async def test_what_was_released_long_ago_is_asked_again_unless_it_may_have_left(office: Office) -> None:
    await office.hear("!reply Hello")
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    uid = await office.store.transact(_aged, time.time())
    await office.store.transact(office.outward.look_again, uid)
    assert await office.state() == "paused"
    await office.store.transact(lambda tx: tx.queue.move(uid, "ready"))
    await office.store.transact(_aged, time.time())
    row = await office.store.transact(lambda tx: tx.queue.get(uid))
    assert row is not None
    await office.store.transact(lambda tx: tx.queue.begin(row))
    await office.store.transact(office.outward.look_again, uid)
    assert await office.state() == "ready"


async def test_a_preview_that_cannot_be_shown_stops_its_draft_and_its_author_hears_why(office: Office) -> None:
    await office.hear("!reply Hello")
    (row,) = await office.store.transact(lambda tx: tx.queue.in_state("asked"))
    await office.store.transact(office.outward.unfit, row.uid, "413 too large")
    assert await office.drafts() == []
    (last,) = await office.posts(1)
    assert "413" in last.body
    assert last.mentions == (ALICE,)


async def test_a_draft_given_up_in_doubt_is_said_to_have_perhaps_left(office: Office) -> None:
    await office.hear("!reply Hello")
    (row,) = await office.store.transact(lambda tx: tx.queue.in_state("asked"))
    for doubt, said_so in ((None, False), (1.0, True)):
        await office.store.transact(office.outward.gave_up, replace(row, doubt=doubt), "cut off")
        (last,) = await office.posts(1)
        assert ("perhaps sent" in last.body) == said_so


def _aged(tx: Tx, now: float) -> str:
    (row,) = tx.queue.drafts_ready()
    draft = replace(payload.load(Draft, row.payload), asked=now - 3600)
    tx.queue.amend(row.uid, payload.dump(draft))
    return row.uid


def _held(tx: Tx) -> tuple[str, str]:
    row: tuple[str, str] = tx.db.execute("SELECT uid, payload FROM queue WHERE state = 'held'").fetchone()
    return row


def _end_hold(tx: Tx, outward: Outward) -> None:
    outward.hold_over(tx, *_held(tx))


@pytest.mark.parametrize(
    ("body", "html", "name"),
    [
        ("!reply a b", "", "reply"),
        ("!REPLY a", "", "reply"),
        ("!reply\na", "<p>!reply<br>a</p>", "reply"),
        ("!reply **a**", "!reply <strong>a</strong>", "reply"),
        ("!reply a", "<p>!reply a</p>", "reply"),
        ("!reply a", '<font color="red">!reply a</font>', "reply"),
        ("!reply a", "<p><code>!reply a</code></p>", None),
        ("!reply a", "<pre>!reply a</pre>", None),
        ("!reply a", "<blockquote>!reply a</blockquote>", None),
        ("!reply a", "<del>!reply a</del>", None),
        ("!reply a", "a", None),
        ("!reply a", "!replya", None),
        ("!reply a", "!mail a", None),
        ("`!reply a`", "", None),
        ("> !reply a", "", None),
        ("x !reply a", "", None),
        ("\u200b!reply a", "", None),
    ],
)
def test_a_command_is_what_people_see_as_one(body: str, html: str, name: str | None) -> None:
    command = command_of(said(body, html=html))
    assert (command.name if command else None) == name


@pytest.mark.parametrize(
    ("body", "html", "text", "kept"),
    [
        ("**a** b", "<strong>a</strong> b", "**a** b", True),
        ("1. one\n2. two", "<ol><li>one</li><li>two</li></ol>", "1. one\n2. two", True),
        ("- a_b\n- c", "<ul><li>a_b</li><li>c</li></ul>", "- a_b\n- c", True),
        ("[site](https://x.example/y)", '<a href="https://x.example/y">site</a>', "[site](https://x.example/y)", True),
        ("site", '<a href="https://secret.example/y">site</a>', "site", False),
        ("a", "a <span style='color:white'>secret</span>", "a", False),
        ("a b", "b a", "a b", False),
        ("> <@bob:company.example> secret\n\na", "<mx-reply>secret</mx-reply>a", "a", True),
        ("> * <@bob:company.example> secret\n> more\n\na", "", "a", False),
        ("@bob:company.example hi", '<a href="https://matrix.to/#/@bob:company.example">Bob</a> hi', "Bob hi", True),
    ],
)
def test_formatted_text_leaves_only_when_it_says_no_more_than_the_preview(
    body: str, html: str, text: str, kept: bool, draft: Callable[..., Draft]
) -> None:
    found = leaving(draft(text=body, html=html))
    assert found.text == text
    assert "secret" not in found.html
    assert bool(found.html) == kept
    assert leaving(found) == found


@pytest.fixture
def draft() -> Callable[..., Draft]:
    plain = Draft("post", "here", 1, "Title", ALICE, "Alice", Recipients((Address("jane@customer.example"),)))
    return lambda **fields: replace(plain, **fields)
