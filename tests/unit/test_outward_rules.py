"""The rules of what leaves, where no homeserver would let us try: forged relations, federated senders, odd clocks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import payload, store
from bridge.commands.parse import command_of
from bridge.config import Config
from bridge.connector import Connector
from bridge.model import Address, Answered, Author, Draft, Envelope, Recipients, RoomEvent
from bridge.outward import Outward
from bridge.payload import Post as Shown
from bridge.payload import Rights
from bridge.present import leaving
from bridge.rules import Rules
from bridge.store import Store, Tx

HERE, THERE = "!here", "!there"
ALICE = "@alice:company.example"


class Post(Connector):
    """A tool that answers whoever wrote; its addresses have domains, unless they have no @."""

    command = "mail"
    addressed = True

    def audience(self, scope: str, item: str, answered: Answered | None) -> Recipients:
        return Recipients((_address(answered.author),))

    def recipients(self, words: Any) -> Recipients:
        return Recipients(tuple(map(_address, words)))


def _address(account: str) -> Address:
    return Address(account, domain=account.rpartition("@")[2] if "@" in account else "")


class Office:
    """The rules on a store of their own, with a customer's thread in each of two rooms."""

    def __init__(self, memory: Store, **outward: Any) -> None:
        self.store = memory
        self.config = Config.model_validate(
            {
                "outward": outward,
                "permissions": {"administer": ["@boss:company.example"]},
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "inside": {"servers": ["sister.example"], "except_users": ["@irc_*", "@guest:company.example"]},
                "connectors": {"post": {}},
                "mappings": [{"connector": "post", "scope": room[1:], "room": room} for room in (HERE, THERE)],
            }
        )
        rules = self.rules = Rules(self.config)
        for room in (HERE, THERE):
            rules.places.resolve(room, room)
        rules.connect({"post": Post("post", None, None)})  # type: ignore[arg-type]
        self.outward, self.hearing, self.hub = rules.outward, rules.hearing, rules.hub

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

    async def let_go(self, *accounts: str, room: str = HERE) -> str:
        """Send a message to these accounts and end its hold; the reason why it is paused instead, "" when it is not."""
        await self.hear(f"!mail {' '.join(accounts)} Subject\nHello", room=room, thread="")

        def rule(tx: Tx) -> str:
            (row,) = tx.queue.in_state("asked")
            self.outward.shown(tx, row.uid, f"$preview-{row.uid}")
            self.outward.hold_over(tx, row.uid, row.payload)
            paused = tx.queue.get(row.uid)
            assert paused is not None
            tx.queue.remove(paused.id)
            return paused.error

        return await self.store.transact(rule)

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


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Callable[..., Office]]:
    """Makes an office whose `outward` section is as given."""
    async with store.opened(tmp_path) as memory:
        yield lambda **outward: Office(memory, **outward)


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


async def test_the_21st_message_of_a_mailbox_to_an_address_within_10_minutes_is_paused_and_says_why(
    office: Office,
) -> None:
    for _ in range(20):
        assert await office.let_go("jane@customer.example") == ""
    assert await office.let_go("jane@customer.example") == (
        "20 messages went from here to jane@customer.example within 10 minutes"
    )
    (notice,) = await office.posts(1)
    assert "20 messages went from here to jane@customer.example" in notice.body
    assert notice.mentions == (ALICE,)


async def test_a_message_of_another_mailbox_or_to_another_address_is_not_paused(office: Office) -> None:
    for _ in range(20):
        assert await office.let_go("jane@customer.example", "joe@customer.example") == ""
    assert await office.let_go("jane@customer.example", room=THERE) == ""
    assert await office.let_go("ann@customer.example") == ""
    assert "joe@customer.example" in await office.let_go("ann@customer.example", "joe@customer.example")


async def test_messages_whose_holds_end_together_are_counted_before_the_first_of_them_has_left(office: Office) -> None:
    for _ in range(22):
        await office.hear("!mail jane@customer.example Subject\nHello", thread="")
    await office.shown()
    for row in await office.store.transact(lambda tx: tx.queue.held()):
        await office.store.transact(office.outward.hold_over, row.uid, row.payload)
    assert len(await office.store.transact(lambda tx: tx.queue.in_state("ready"))) >= 20
    assert len(await office.store.transact(lambda tx: tx.queue.in_state("paused"))) == 2


async def test_messages_of_more_than_10_minutes_ago_are_not_counted(office: Office) -> None:
    for _ in range(20):
        await office.let_go("jane@customer.example")
    await office.store.transact(lambda tx: tx.db.execute("UPDATE released_to SET at = at - 601"))
    assert await office.let_go("jane@customer.example") == ""


async def test_new_power_levels_of_a_mapped_room_are_looked_at_behind_nothing_that_waits_there(office: Office) -> None:
    for room in (HERE, "!unmapped"):
        await office.hear(type="m.room.power_levels", room=room, state_key="", thread="")
    rows = await office.store.transact(
        lambda tx: tx.db.execute("SELECT lane, payload FROM queue WHERE kind = 'rights'").fetchall()
    )
    assert [(lane == f"matrix:{HERE}", payload.load(Rights, text)) for lane, text in rows] == [(False, Rights(HERE))]


@pytest.mark.parametrize("command", ["!reply", "!mail jane@customer.example Subject\n"])
async def test_a_message_that_is_changed_before_it_has_left_counts_once(
    limited: Callable[..., Office], command: str
) -> None:
    office = limited(per_address=1)
    await office.open()
    asked = await office.hear(f"{command} Hello")
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    await office.hear(f"{command} Hello again", replaces=asked.id, thread="")
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    assert [draft.text for draft in await office.drafts()] == ["Hello again"]
    assert await office.state() == "ready"


async def test_nothing_leaves_from_a_room_that_was_upgraded_until_people_can_stop_it_in_the_new_one(
    limited: Callable[..., Office],
) -> None:
    """In the old room hardly anybody may still speak; who may enter the new one is not known yet."""
    office = limited()
    await office.open()
    await office.hear("!reply Hello")
    await office.shown()
    office.rules.places.upgrades({HERE: ""})
    await office.store.transact(_end_hold, office.outward)
    assert await office.state() == "paused"
    assert "its room was upgraded" in (await office.posts(1))[0].body


async def test_with_a_breaker_of_0_nothing_is_ever_paused(limited: Callable[..., Office]) -> None:
    office = limited(per_address=0)
    for _ in range(30):
        assert await office.let_go("jane@customer.example") == ""


async def test_help_names_every_word_that_is_obeyed(office: Office) -> None:
    await office.hear("!help", sender="@boss:company.example")
    (answer,) = await office.posts(1)
    commands = office.hearing._commands
    assert [word for word in commands.words() if f"\n!{word}" not in answer.body] == []


async def test_only_allowed_domains_are_written_to(limited: Callable[..., Office]) -> None:
    office = limited(domains=["customer.example"])
    await office.hear("!mail jane@customer.example Subject\nHello", thread="")
    assert len(await office.drafts()) == 1
    for other in ("eve@evil.example", "eve@customer.example.evil.example", "jane@customer.example, eve@evil.example"):
        await office.hear(f"!mail {other} Subject\nHello", thread="")
        (answer,) = await office.posts(1)
        assert "only to customer.example" in answer.body
    assert len(await office.drafts()) == 1


async def test_a_tool_whose_accounts_have_no_domain_is_not_limited_by_domains(limited: Callable[..., Office]) -> None:
    office = limited(domains=["customer.example"])
    plain = Draft("desk", "here", 1, "Title", ALICE, "Alice", Recipients((Address("jsmith"),)))
    office.outward.check(plain)


def test_the_domain_of_a_recipient_survives_in_the_queue(draft: Callable[..., Draft]) -> None:
    there = draft(recipients=Recipients((Address("jane@customer.example", domain="customer.example"),)))
    assert payload.load(Draft, payload.dump(there)).recipients.all[0].domain == "customer.example"


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
