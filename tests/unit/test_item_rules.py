"""The rules of items that tools have names for: cards, changes, links, new items, accounts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bridge import payload, store
from bridge.config import Config
from bridge.connector import Connector
from bridge.model import (
    Address,
    Answered,
    Author,
    Card,
    Delivery,
    Draft,
    Envelope,
    File,
    History,
    Page,
    Recipients,
    Rejected,
    RoomEvent,
    Sent,
)
from bridge.outward import beginning
from bridge.payload import Alter, CardPost, LinePost, Look, Post
from bridge.rules import Rules
from bridge.store import Conversation, Store, Tx

HERE, THERE, SECRET = "!here", "!there", "!secret"
ALICE, BOB = "@alice:company.example", "@bob:company.example"
CARD = Card("job1", "job1", "Pump is loud", "https://desk.example/job1", (("state", "open"), ("owner", "")))
CUSTOMER = Author("desk", "carol", "Carol Smith", verified=True)


class Desk(Connector):
    """A tool with named items."""

    command = "job"
    reaction = "🎫"
    usage = "[title]"
    words: ClassVar[dict[str, str]] = {"state": "done"}

    async def poll(self, cursor: str) -> Page:
        """Never asked: people write there, and it is heard."""
        raise NotImplementedError

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        """Never asked."""
        raise NotImplementedError

    def match(self, text: str) -> str:
        found = text.lower().removeprefix("https://desk.example/")
        return found if found.startswith("job") and found[3:].isdecimal() else ""

    def audience(self, scope: str, item: str, answered: Answered | None) -> Recipients:
        if not self.match(item):
            raise Rejected("it is not made yet")
        return Recipients((Address(item, self.name),))

    def recipients(self, words: Sequence[str]) -> Recipients:
        return Recipients((Address(self.name),))


class Letters(Connector):
    """A tool whose items have no names."""

    command = "letter"
    addressed = True

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        """Never asked."""
        raise NotImplementedError

    def audience(self, scope: str, item: str, answered: Answered | None) -> Recipients:
        if answered is None:
            raise Rejected("nobody wrote")
        return Recipients((Address(answered.author),))


class Office:
    """Every rule on a store of its own; the desk and letters are mapped here, the desk there and in a secret room."""

    MAPPINGS: ClassVar[list[dict[str, Any]]] = [
        {"connector": "desk", "scope": "jobs", "room": HERE},
        {"connector": "letters", "scope": "post", "room": HERE},
        {"connector": "desk", "scope": "secrets", "room": SECRET, "private": True},
    ]

    def __init__(self, memory: Store, mappings: list[dict[str, Any]] | None = None) -> None:
        self.store = memory
        config = Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "connectors": {"desk": {}, "letters": {}, "other": {}},
                "mappings": self.MAPPINGS if mappings is None else mappings,
            }
        )
        self.rules = Rules(config)
        for room in (HERE, SECRET):
            self.rules.places.resolve(room, room)
        nothing: Any = None
        desk, letters = Desk("desk", None, nothing), Letters("letters", None, nothing)
        self.rules.connect({"desk": desk, "letters": letters, "other": Desk("other", None, nothing)})

    async def arrive(self, **fields: Any) -> None:
        """Something arrives from the desk; a new job, unless told otherwise."""
        plain = Envelope(
            "desk", ("jobs",), f"key{next(_count)}", f"msg{next(_count)}", CUSTOMER, time.time(), title="Pump is loud",
            item="job1", card=CARD,
        )  # fmt: skip
        await self.store.transact(self.rules.hub.accept, replace(plain, **fields))
        await self.settle()

    async def letter(self) -> None:
        author = Author("letters", "jane@outside.example", "Jane")
        await self.store.transact(
            self.rules.hub.accept, Envelope("letters", ("post",), "k", "<1>", author, 0.0, title="Hello", text="Hi")
        )
        await self.settle()

    async def say(self, text: str = "", **fields: Any) -> RoomEvent:
        """Somebody says something in the first thread."""
        plain = RoomEvent(
            f"$event{next(_count)}", HERE, ALICE, "m.room.message", time.time(), "m.text", text, thread="$1"
        )
        event = replace(plain, **fields)
        await self.store.transact(self.rules.hearing.hear, event)
        return event

    async def settle(self) -> None:
        """What is to appear in rooms has appeared; "$1" is the first event of the conversation here."""

        def rule(tx: Tx) -> None:
            new = tx.db.execute("SELECT id, room FROM conversation WHERE root IS NULL ORDER BY id").fetchall()
            for number, room in new:
                first = room == HERE and tx.conversations.of_root("$1") is None
                tx.conversations.shown(number, "$1" if first else f"$other{number}")
            for row in tx.db.execute("SELECT conversation, payload FROM queue WHERE kind = 'card'").fetchall():
                card = payload.load(CardPost, row[1])
                if not tx.conversations.card(row[0], card.item):
                    event = f"$card{card.item}"
                    tx.conversations.carded(row[0], card.item, event)
                    tx.conversations.add_message(row[0], "card", "@bot", item=card.item, event=event)

        await self.store.transact(rule)

    async def queued(self, kind: type[Any], room: str = "") -> list[Any]:
        name = {Post: "post", CardPost: "card", LinePost: "line", Draft: "draft", Look: "look", Alter: "change"}[kind]
        rows = await self.store.transact(
            lambda tx: tx.db.execute("SELECT payload FROM queue WHERE kind = ? ORDER BY id", (name,)).fetchall()
        )
        found = [payload.load(kind, row[0]) for row in rows]
        return [each for each in found if not room or each.room == room]

    async def notices(self, room: str = HERE) -> list[str]:
        """What the bot says, the lines about changes last."""
        said = [post.body for post in await self.queued(Post, room) if post.notice]
        return said + [line.body for line in await self.queued(LinePost, room)]

    async def conversations(self, room: str = HERE) -> list[Conversation]:
        def rule(tx: Tx) -> list[Conversation]:
            numbers = tx.db.execute("SELECT id FROM conversation WHERE room = ? ORDER BY id", (room,)).fetchall()
            return [found for (number,) in numbers if (found := tx.conversations.get(number))]

        return await self.store.transact(rule)

    async def followed(self, conversation: int) -> list[str]:
        items = await self.store.transact(lambda tx: tx.conversations.items_of(conversation))
        return [item.remote for item in items]

    async def delivered(self, draft: Draft, sent: Sent) -> None:
        """The tool has taken a draft."""

        def rule(tx: Tx) -> None:
            (number,) = tx.db.execute("SELECT id FROM queue WHERE kind = 'draft'").fetchone()
            (delivery,) = tx.queue._many("id = ?", number)
            self.rules.outward.sent(tx, delivery, draft, sent)
            tx.queue.remove(number)

        await self.store.transact(rule)
        await self.settle()

    async def found(self, card: Card) -> None:
        """The tool has shown the item that somebody named."""

        def rule(tx: Tx) -> None:
            number, conversation, text = tx.db.execute(
                "SELECT id, conversation, payload FROM queue WHERE kind = 'look'"
            ).fetchone()
            place = tx.conversations.get(conversation)
            assert place is not None
            self.rules.items.found(tx, "desk", payload.load(Look, text), place, card)
            tx.queue.remove(number)

        await self.store.transact(rule)
        await self.settle()


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        yield Office(memory)


_count = iter(range(1_000_000))

# --- what arrives


async def test_a_new_item_is_a_thread_that_begins_with_its_card(office: Office) -> None:
    await office.arrive(text="It rattles.", begins=True)
    (card,) = await office.queued(CardPost, HERE)
    (conversation,) = await office.conversations()
    assert card.body == "job1: Pump is loud\nstate: open\nhttps://desk.example/job1"
    said = (await office.queued(Post, HERE))[0]
    assert (said.body, said.author) == ("It rattles.", CUSTOMER)
    kinds = await office.store.transact(
        lambda tx: tx.db.execute(
            "SELECT kind FROM queue WHERE conversation = ? ORDER BY id", (conversation.id,)
        ).fetchall()
    )
    assert kinds[:2] == [("card",), ("post",)]


async def test_a_new_item_without_words_is_a_thread_too(office: Office) -> None:
    await office.arrive(begins=True)
    assert len(await office.queued(CardPost, HERE)) == 1
    assert not await office.queued(Post, HERE)


async def test_a_change_of_an_item_that_nobody_follows_begins_nothing(office: Office) -> None:
    await office.arrive()
    assert not await office.conversations()


async def test_what_was_changed_is_one_line_and_the_card_is_edited(office: Office) -> None:
    await office.arrive(begins=True)
    fields = (("state", "done"), ("owner", "bob"))
    await office.arrive(card=replace(CARD, fields=fields, title="Pump was loud"), author=Author("desk", "bob", "Bob"))
    first, second = await office.queued(CardPost, HERE)
    assert first.item == second.item
    assert "done" in second.body
    (line,) = await office.notices()
    assert line == "Bob changed job1: state: open → done; owner: – → bob; title: Pump is loud → Pump was loud"


async def test_what_did_not_change_is_not_told_again(office: Office) -> None:
    await office.arrive(begins=True, text="One")
    await office.arrive(text="Two")
    await office.arrive()
    assert len(await office.queued(CardPost, HERE)) == 1
    assert not await office.notices()


async def test_a_state_that_arrives_late_does_not_undo_a_newer_one(office: Office) -> None:
    now = time.time()
    await office.arrive(begins=True, when=now - 100)
    await office.arrive(when=now, card=replace(CARD, fields=(("state", "done"),)))
    await office.arrive(when=now - 50, card=replace(CARD, fields=(("state", "waiting"),)))
    assert [("waiting" in card.body) for card in await office.queued(CardPost, HERE)] == [False, False]
    assert len(await office.notices()) == 1


async def test_the_same_arrival_twice_is_one(office: Office) -> None:
    for _ in range(2):
        await office.arrive(begins=True, text="Once", key="same")
    assert len(await office.queued(Post, HERE)) == 1


async def test_private_notes_are_shown_only_where_that_is_allowed(office: Office) -> None:
    both = ("jobs", "secrets")
    await office.arrive(begins=True, text="In public", scopes=both)
    await office.arrive(text="Between us", private=True, scopes=both)
    said = {room: [post.body for post in await office.queued(Post, room) if post.author] for room in (HERE, SECRET)}
    assert said == {HERE: ["In public"], SECRET: ["In public", "Between us"]}


async def test_a_page_is_written_with_its_cursor_and_what_no_room_takes_is_passed_over(office: Office) -> None:
    known = Envelope("desk", ("jobs",), "a", "m1", CUSTOMER, 1.0, text="Hi", item="job1", card=CARD, begins=True)
    unknown = replace(known, scopes=("elsewhere",), key="b", item="job2")
    page = Page((unknown, known), "cursor-1")
    await office.store.transact(office.rules.hub.accept_page, "desk", page)
    assert len(await office.conversations()) == 1
    assert await office.store.transact(lambda tx: tx.conversations.cursor("desk")) == "cursor-1"


async def test_a_comment_pauses_an_answer_but_a_changed_field_does_not(office: Office) -> None:
    await office.arrive(begins=True, text="It rattles.")
    await office.say("!reply We come")
    await office.arrive(card=replace(CARD, fields=(("state", "waiting"),)))
    assert await _states(office) == ["asked"]
    await office.arrive(text="Wait!")
    assert await _states(office) == ["paused"]


async def test_a_colleague_who_writes_in_the_tool_pauses_nothing(office: Office) -> None:
    await office.arrive(begins=True, text="It rattles.")
    await office.store.transact(lambda tx: tx.people.owns(BOB, "desk", "bob"))
    await office.say("!reply We come")
    await office.arrive(text="I am on it", author=Author("desk", "bob", "Bob", verified=True))
    assert await _states(office) == ["asked"]


# --- answering


async def test_an_answer_goes_to_the_item_even_when_nobody_has_written(office: Office) -> None:
    await office.arrive(begins=True)
    await office.say("!reply We come")
    (draft,) = await office.queued(Draft)
    assert (draft.connector, draft.remote, draft.answered) == ("desk", "job1", None)
    assert draft.recipients.to == (Address("job1"),)
    assert draft.title == ""


async def test_an_answer_is_sent_as_the_employee_whose_account_is_proven(office: Office) -> None:
    await office.arrive(begins=True, text="It rattles.")
    await office.say("!reply One")
    await office.store.transact(lambda tx: tx.people.owns(ALICE, "desk", "alice"))
    await office.say("!reply Two")
    assert [draft.account for draft in await office.queued(Draft)] == ["", "alice"]


async def test_with_a_letter_and_a_job_in_one_thread_nothing_crosses_and_the_bot_asks_which(office: Office) -> None:
    await office.letter()
    await office.say("!link job1")
    await office.found(CARD)
    await office.arrive(text="From the desk")
    assert await office.followed(1) == ["<1>", "job1"]
    assert not await office.queued(Draft)
    await office.say("!reply Which?")
    assert not await office.queued(Draft)
    assert "Pump is loud" in (await office.notices())[-1]
    assert "Hello" in (await office.notices())[-1]


async def test_a_reply_to_the_card_means_the_job(office: Office) -> None:
    await office.letter()
    await office.say("!link job1")
    await office.found(CARD)
    (card,) = await office.queued(CardPost)
    await office.say("!reply To the desk", answers=f"$card{card.item}")
    assert [draft.remote for draft in await office.queued(Draft)] == ["job1"]


# --- following


async def test_a_linked_item_has_a_card_and_is_heard_from_in_that_thread_only(office: Office) -> None:
    await office.letter()
    await office.say("!link https://desk.example/job7")
    (look,) = await office.queued(Look)
    assert (look.remote, look.follow) == ("job7", True)
    await office.found(replace(CARD, item="job7", key="job7"))
    await office.arrive(item="job7", card=replace(CARD, item="job7", key="job7"), text="News")
    assert len(await office.conversations()) == 1
    assert (await office.queued(Post, HERE))[-1].body == "News"


async def test_what_is_unlinked_is_heard_no_more(office: Office) -> None:
    await office.letter()
    await office.say("!link job1")
    await office.found(CARD)
    await office.say("!unlink")
    assert await office.followed(1) == ["<1>"]
    assert "no longer followed" in (await office.notices())[-1]


async def test_an_item_is_known_again_by_the_key_on_its_card(office: Office) -> None:
    """Only the tool can tell which one "job77" is: here the one that it calls job1."""
    await office.letter()
    await office.say("!link job77")
    await office.found(replace(CARD, key="job77"))
    assert await office.followed(1) == ["<1>", "job1"]
    assert len(await office.store.transact(lambda tx: tx.cards.with_key("desk", "job77"))) == 1
    await office.say("As I said: job77, job1.")
    assert not await office.queued(Look)
    await office.say("!link job77")
    await office.found(replace(CARD, key="job77"))
    assert await office.followed(1) == ["<1>", "job1"]
    await office.say("!unlink job77")
    assert await office.followed(1) == ["<1>"]


async def test_of_two_items_with_one_key_the_one_that_is_meant_is_asked_for(office: Office) -> None:
    await office.letter()
    for number, title in ((1, "Roof"), (2, "Wall")):
        await office.say(f"!link https://desk.example/job{number}")
        await office.found(replace(CARD, item=f"job{number}", key="job 77", title=title))
    await office.say("!unlink job 77")
    assert "Roof (desk); Wall (desk)" in (await office.notices())[-1]
    await office.say("!unlink job2")
    assert await office.followed(1) == ["<1>", "job1"]
    await office.say("!unlink job 77")
    assert await office.followed(1) == ["<1>"]


async def test_a_letter_cannot_be_unlinked_by_accident(office: Office) -> None:
    await office.letter()
    await office.say("!unlink")
    assert await office.followed(1) == ["<1>"]


async def test_a_key_that_means_nothing_is_explained(office: Office) -> None:
    await office.letter()
    for text in ("!link", "!link nonsense", "!unlink nonsense"):
        await office.say(text)
        assert "!link KEY" in (await office.notices())[-1]
    assert not await office.queued(Look)


async def test_a_pasted_key_or_address_is_shown_but_not_followed(office: Office) -> None:
    await office.letter()
    await office.say("See (https://desk.example/job7), please, and job7.")
    (look,) = await office.queued(Look)
    assert (look.remote, look.follow) == ("job7", False)
    await office.found(replace(CARD, item="job7", key="job7"))
    assert "job7: Pump is loud" in (await office.notices())[-1]
    assert await office.followed(1) == ["<1>"]


async def test_a_key_in_the_room_gets_its_card_in_a_thread(office: Office) -> None:
    event = await office.say("job7 again!", thread="")
    (conversation,) = await office.conversations()
    assert conversation.root == event.id


async def test_many_keys_in_one_message_are_not_a_flood(office: Office) -> None:
    await office.say(" ".join(f"job{number}" for number in range(100)), thread="")
    assert len(await office.queued(Look)) == 3


async def test_nobody_outside_can_make_us_look_at_anything(office: Office) -> None:
    await office.letter()
    await office.say("job7", sender="@guest:elsewhere.example")
    await office.say("!link job7", sender="@guest:elsewhere.example")
    await office.say("!state done", sender="@guest:elsewhere.example")
    assert not [*await office.queued(Look), *await office.queued(Alter)]


async def test_a_room_where_the_tool_is_not_mapped_is_shown_nothing_of_it(office: Office) -> None:
    await office.say("job7", room=THERE, thread="")
    await office.say("!link job7", room=THERE, thread="")
    assert not await office.queued(Look)


# --- making something new


async def test_a_new_item_is_made_of_the_thread_with_a_link_back_and_gets_its_name_later(office: Office) -> None:
    await office.letter()
    event = await office.say("!job Pump rattles")
    (draft,) = await office.queued(Draft)
    assert draft.history == History(root="$1", files=True)
    assert (draft.title, draft.remote) == ("Pump rattles", beginning(event.id))
    assert draft.link == "https://matrix.to/#/%21here/%241"
    await office.delivered(draft, Sent("m1", card=CARD))
    assert await office.followed(1) == ["<1>", "job1"]
    (card,) = await office.queued(CardPost)
    assert card.body.startswith("job1: ")
    await office.arrive(text="Thanks", key="later")
    assert len(await office.conversations()) == 1


async def test_a_new_item_can_be_made_of_one_message_or_of_the_text_that_follows(office: Office) -> None:
    await office.letter()
    await office.say("!job", answers="$1")
    await office.say("!job again Pump\nIt rattles.")
    first, second = await office.queued(Draft)
    assert first.history == History(only="$1", files=True)
    assert first.title == "Hello"
    assert (second.history, second.title, second.text) == (None, "Pump", "It rattles.")


async def test_one_conversation_makes_one_item_unless_forced(office: Office) -> None:
    await office.letter()
    await office.say("!job")
    await office.say("!job")
    assert len(await office.queued(Draft)) == 1
    assert "again" in (await office.notices())[-1]
    await office.say("!job again")
    assert len(await office.queued(Draft)) == 2


async def test_a_cancelled_item_was_never_begun(office: Office) -> None:
    await office.letter()
    await office.say("!job")
    await office.say("!cancel")
    assert await office.followed(1) == ["<1>"]
    await office.say("!job")
    assert len(await office.queued(Draft)) == 1


async def test_a_reaction_makes_an_item_of_any_message_once(office: Office) -> None:
    await office.letter()
    for sender in (ALICE, BOB, "@guest:elsewhere.example"):
        await office.say(type="m.reaction", key="🎫", target="$1", thread="", sender=sender, msgtype="")
    (draft,) = await office.queued(Draft)
    assert draft.history == History(only="$1", files=True)
    assert (draft.author, draft.title) == (ALICE, "Hello")


async def test_an_item_that_is_still_being_made_cannot_be_answered(office: Office) -> None:
    await office.say("!job Pump\nIt rattles.", thread="")
    (conversation,) = await office.conversations()
    await office.say("!reply Hello?", thread=conversation.root)
    assert "not made yet" in (await office.notices())[-1]


async def test_an_item_that_its_tool_told_us_of_first_is_not_shown_twice(office: Office) -> None:
    await office.letter()
    await office.say("!job Pump")
    (draft,) = await office.queued(Draft)
    await office.arrive(text="already?", begins=True)
    await office.delivered(draft, Sent("m1", card=CARD))
    assert await office.followed(1) == ["<1>", "job1"]


# --- changing


async def test_a_tools_own_word_changes_its_item_and_the_room_hears_who_did_it(office: Office) -> None:
    await office.arrive(begins=True)
    await office.say("!state done")
    (alter,) = await office.queued(Alter)
    assert (alter.change.item, alter.change.word, alter.change.value) == ("job1", "state", "done")


@pytest.mark.parametrize("text", ["!state", "!state   "])
async def test_a_change_without_a_value_is_explained(office: Office, text: str) -> None:
    await office.arrive(begins=True)
    await office.say(text)
    assert (await office.notices())[-1] == "Type: !state done"


async def test_a_letter_has_no_state(office: Office) -> None:
    await office.letter()
    await office.say("!state done")
    assert "!link KEY" in (await office.notices())[-1]


# --- whose account


async def test_an_account_is_proven_by_writing_the_code_there_as_that_account(office: Office) -> None:
    await office.arrive(begins=True, text="It rattles.")
    await office.say("!me desk alice")
    code = (await office.notices())[-1].split()[-1]
    await office.arrive(text=f" {code}\n", author=Author("desk", "mallory", verified=True))
    assert not await _account(office)
    await office.say("!me desk alice")
    code = (await office.notices())[-1].split()[-1]
    await office.arrive(text=f" {code}\n", author=Author("desk", "alice", verified=False))
    assert not await _account(office)
    await office.arrive(text=f" {code}\n", author=Author("desk", "alice", verified=True))
    assert await _account(office) == "alice"
    await office.say("!me")
    assert (await office.notices())[-1].startswith("desk: you are alice\n")
    await office.say("!me desk -")
    assert not await _account(office)


async def test_a_code_is_used_once_and_an_old_claim_is_void(office: Office) -> None:
    await office.arrive(begins=True, text="It rattles.")
    await office.say("!me desk alice")
    old = (await office.notices())[-1].split()[-1]
    await office.say("!me desk anna")
    await office.arrive(text=old, author=Author("desk", "alice", verified=True))
    assert not await _account(office)


async def test_files_come_with_what_was_said(office: Office) -> None:
    photo = File("pump.jpg", "image/jpeg", 3, "00" * 32, data=b"abc")
    await office.arrive(begins=True, files=(photo,))
    (shown,) = [post for post in await office.queued(Post, HERE) if post.file]
    assert shown.file.name == "pump.jpg"


async def _states(office: Office) -> list[str]:
    rows = await office.store.transact(
        lambda tx: tx.db.execute("SELECT state FROM queue WHERE kind = 'draft' ORDER BY id").fetchall()
    )
    return [state for (state,) in rows]


async def _account(office: Office) -> str:
    return await office.store.transact(lambda tx: tx.people.account(ALICE, "desk"))
