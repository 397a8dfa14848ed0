"""What rooms see of items: no more than their mappings say, few lines, what is gone, and who is called."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import items, payload, store
from bridge.config import Mapping
from bridge.connector import Connector
from bridge.departures import ConnectorDestination
from bridge.matrix import content
from bridge.matrix.lasting import newest, noted
from bridge.model import Author, Card, Change, Delivery, Draft, Envelope, Gone, Page, Rejected, Sent
from bridge.payload import EVERYBODY, Alter, CardPost, LinePost, Look, Post
from bridge.present import pointed_at
from bridge.store import Tx
from tests.unit.test_item_rules import ALICE, BOB, CARD, HERE, SECRET, Desk, Letters, Office

JOB7 = Card("job7", "job7", "Merger with Globex", "https://desk.example/job7", (("state", "signed"),))
HIDDEN = ("Merger", "Globex", "signed")  # what the room may not see
OPEN = replace(CARD, scope="jobs")
MOVED = replace(JOB7, item="job1", key="job1", url=CARD.url, scope="secrets")
BOBS = Author("desk", "bob", "Bob", verified=True)
LINKED = {"connector": "desk", "scope": "jobs", "room": HERE, "new": False}


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        yield Office(memory)


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Office]:
    """An office where HERE shows only the jobs that people name."""
    async with store.opened(tmp_path) as memory:
        yield Office(memory, [LINKED, *Office.MAPPINGS[1:]])


async def _rows(office: Office, room: str = HERE) -> list[tuple[str, Any]]:
    """(kind, payload) of what is to appear in a room, in the order in which it does."""
    rows = await office.store.transact(
        lambda tx: tx.db.execute("SELECT kind, payload FROM queue WHERE destination = 'matrix' ORDER BY id").fetchall()
    )
    found = [(kind, payload.load(payload.KINDS[kind], text)) for kind, text in rows]
    return [(kind, each) for kind, each in found if each.room == room]


async def _forget(office: Office) -> None:
    """All that is to appear has appeared; what is to appear from now on stands alone."""

    def rule(tx: Tx) -> None:
        for row in tx.queue._many("destination = 'matrix'"):
            if row.kind in ("card", "line") and row.conversation:
                shown = payload.load(CardPost if row.kind == "card" else LinePost, row.payload)
                known, shown = newest(tx, row, shown)
                if not known:
                    noted(tx, row.conversation, shown, f"${row.uid}", "@bot")
            tx.queue.remove(row.id)

    await office.store.transact(rule)


async def _gone(office: Office, remote: str = "job1") -> None:
    await office.store.transact(office.rules.items.gone, "desk", remote)


async def _named(office: Office, card: Card, connector: str = "desk") -> None:
    """The tool shows what somebody named last."""

    def rule(tx: Tx) -> None:
        (row, *_) = tx.queue._many("kind = 'look'")
        conversation = tx.conversations.get(row.conversation or 0)
        assert conversation is not None
        assert row.destination == connector
        office.rules.items.found(tx, connector, payload.load(Look, row.payload), conversation, card)
        tx.queue.remove(row.id)

    await office.store.transact(rule)
    await office.settle()


# --- what a room may see


async def _pasted(office: Office, card: Card) -> None:
    await office.letter()
    await office.say("See https://desk.example/job7, please")
    await _named(office, card)


async def _linked(office: Office, card: Card) -> None:
    await office.letter()
    await office.say("!link job7")
    await _named(office, card)


async def _moves(office: Office, card: Card) -> None:
    await office.arrive(begins=True, card=OPEN)
    await office.arrive(
        card=replace(card, item="job1"), scopes=(card.scope or "jobs",), text="About the merger: Globex"
    )


async def _moves_and_is_spoken_of(office: Office, card: Card) -> None:
    await _moves(office, card)
    for number in range(2):
        await office.arrive(scopes=("secrets",), text="Globex signed", private=bool(number), card=None)
    await office.say("!reply Hello?")
    await office.say("!state done")
    await office.say("!unlink")


async def _moves_in_what_is_read(office: Office, card: Card) -> None:
    """Nobody told us that it moved; we find out when we do something."""
    await office.arrive(begins=True, card=OPEN)
    await office.say("!state done")
    (alter,) = await office.queued(Alter)
    (here,) = await office.conversations()
    await office.store.transact(office.rules.items.changed, alter, here, replace(card, item="job1", key="job1"))


async def _mentions_a_way_round(office: Office, card: Card) -> None:
    """Followed where it may be seen, and asked for here."""
    await office.arrive(begins=True, card=replace(card, scope="secrets"), scopes=("secrets",), item="job7")
    await _linked(office, card)
    await office.arrive(item="job7", card=replace(card, title="Globex!"), scopes=("secrets",), text="Globex signed")


async def _loses_private(office: Office, card: Card) -> None:
    _map(office, {**Office.MAPPINGS[0], "private": True})
    await office.arrive(begins=True, card=replace(OPEN, private=True))
    _map(office, Office.MAPPINGS[0])
    await office.arrive(card=replace(card, item="job1"), scopes=("jobs",), text="Globex signed")


def _map(office: Office, here: dict[str, Any]) -> None:
    mappings = [Mapping.model_validate(each) for each in (here, *Office.MAPPINGS[1:])]
    office.rules.places.declare(mappings)


ELSEWHERE, PRIVATE = replace(JOB7, scope="secrets"), replace(JOB7, scope="jobs", private=True)
WAYS: list[tuple[Callable[[Office, Card], Any], Card]] = [
    *[(way, card) for way in (_pasted, _linked, _moves, _moves_and_is_spoken_of) for card in (ELSEWHERE, PRIVATE)],
    *[(_moves_in_what_is_read, card) for card in (ELSEWHERE, PRIVATE)],
    (_mentions_a_way_round, ELSEWHERE),
    (_loses_private, PRIVATE),
]


@pytest.mark.parametrize(("way", "card"), WAYS, ids=lambda each: getattr(each, "__name__", getattr(each, "scope", "")))
async def test_nothing_of_what_a_room_may_not_see_appears_in_it(
    office: Office, way: Callable[[Office, Card], Any], card: Card
) -> None:
    await way(office, card)
    shown = await _rows(office)
    assert shown
    assert not [word for word in HIDDEN if word in str(shown)]
    assert not await office.queued(Draft)


async def test_a_private_item_begins_only_where_private_notes_are_seen_and_so_does_all_that_is_said_of_it(
    office: Office,
) -> None:
    private = replace(PRIVATE, scope="")
    with pytest.raises(Rejected):
        await office.arrive(begins=True, item="job7", card=private, text="Globex")
    both = ("jobs", "secrets")
    await office.arrive(begins=True, item="job7", card=private, text="Globex", scopes=both)
    await office.arrive(item="job7", card=None, text="signed", scopes=both)
    assert not await _rows(office)
    assert "signed" in str(await office.queued(Post, SECRET))


@pytest.mark.parametrize("card", [replace(JOB7, scope="jobs"), JOB7], ids=["its scope", "the only scope"])
async def test_what_a_room_may_see_is_shown_whole(office: Office, card: Card) -> None:
    await _pasted(office, card)
    assert (await office.notices())[-1].startswith("job7: Merger with Globex\nstate: signed\n")


@pytest.mark.parametrize("card", [ELSEWHERE, PRIVATE])
async def test_a_minimal_card_is_key_and_link_and_not_followed(office: Office, card: Card) -> None:
    await _pasted(office, card)
    assert (await office.notices())[-1] == "job7\nhttps://desk.example/job7"
    assert await office.followed(1) == ["<1>"]


@pytest.mark.parametrize(
    ("typed", "key", "shown"),
    [
        ("https://wiki.example/Pumps", "Pumps", "Pumps"),
        ("https://wiki.example/?id=7", "Merger with Globex", "page7"),
        ("https://desk.example/issues/12", "#12", "#12"),
        ("job7", "job7", "job7"),
    ],
)
def test_a_key_that_says_more_than_people_typed_is_not_on_a_minimal_card(typed: str, key: str, shown: str) -> None:
    found = pointed_at(Card("page7", key, "Title", "https://wiki.example/Merger", (("a", "b"),)), typed, "page7")
    assert (found.key, found.title, found.fields) == (shown, "", ())
    assert found.url == (typed if "://" in typed else "https://wiki.example/Merger")


@pytest.mark.parametrize(("card", "told"), [(ELSEWHERE, "!map desk"), (PRIVATE, "private")])
async def test_to_follow_what_a_room_may_not_see_is_refused_with_who_can_help(
    office: Office, card: Card, told: str
) -> None:
    await _linked(office, card)
    assert told in (await office.notices())[-1]
    assert await office.followed(1) == ["<1>"]


async def test_an_address_is_asked_of_tools_that_are_not_mapped_here_and_a_key_is_not(office: Office) -> None:
    _map(office, Office.MAPPINGS[1])
    await office.letter()
    await office.say("job7 is like https://desk.example/job8 and https://elsewhere.example/job9")
    assert [look.remote for look in await office.queued(Look)] == ["job8"]
    await _named(office, replace(JOB7, scope="jobs", item="job8", key="job8", url="https://desk.example/job8"))
    assert (await office.notices())[-1] == "job8\nhttps://desk.example/job8"


class Pages(Connector):
    """It looks at any address."""

    last = True

    def match(self, text: str) -> str:
        return text if text.startswith("https://") else ""


@pytest.mark.parametrize(
    ("mapped", "asked"),
    [(("pages", "desk"), ["desk", "pages"]), (("pages",), ["desk", "pages"]), (("desk",), ["desk"])],
)
async def test_what_looks_at_any_address_is_asked_last_and_only_where_it_is_mapped(
    tmp_path: Path, mapped: tuple[str, ...], asked: list[str]
) -> None:
    async with store.opened(tmp_path) as memory:
        rooms = [{"connector": name, "scope": "jobs", "room": HERE} for name in mapped]
        office = Office(memory, [*rooms, *({**each, "room": SECRET} for each in rooms), *Office.MAPPINGS[1:]])
        nothing: Any = None
        tools = {"pages": Pages("pages", None, nothing), "desk": Desk("desk", None, nothing)}
        office.rules.places._connectors = frozenset([*tools, "letters"])
        office.rules.connect(tools | {"letters": Letters("letters", None, nothing)})
        office.rules.places._index()
        await office.say("https://desk.example/job7 https://news.example/", thread="")
        rows = await office.store.transact(lambda tx: tx.queue._many("kind = 'look'"))
        assert [row.destination for row in rows] == asked


async def test_a_mail_to_another_address_of_ours_does_not_change_in_whose_name_we_answer(tmp_path: Path) -> None:
    async with store.opened(tmp_path) as memory:
        scopes = [{"connector": "letters", "scope": scope, "room": HERE} for scope in ("post", "sales")]
        office = Office(memory, scopes)
        await office.letter()
        author = Author("letters", "jane@outside.example", "Jane")
        also = Envelope("letters", ("sales",), "l", "<2>", author, 0.0, title="Hello", text="Again", refs=("<1>",))
        await office.store.transact(office.rules.hub.accept, also)
        (conversation,) = await office.conversations()
        (item,) = await office.store.transact(lambda tx: tx.conversations.items_of(conversation.id))
        assert item.scope == "post"


async def test_what_is_mapped_nowhere_is_asked_for_nothing(office: Office) -> None:
    office.rules.places.declare([Mapping.model_validate(Office.MAPPINGS[1])])
    await office.letter()
    await office.say("https://desk.example/job8")
    assert not await office.queued(Look)


async def test_an_item_that_leaves_what_a_room_may_see_is_a_key_and_a_link_there_and_the_thread_says_so_once(
    office: Office,
) -> None:
    await office.arrive(begins=True, card=OPEN)
    await _forget(office)
    for _ in range(3):
        await office.arrive(card=MOVED, scopes=("secrets",), text="Globex")
    (card,) = await office.queued(CardPost, HERE)
    assert card.body == "job1\nhttps://desk.example/job1"
    (told,) = await office.queued(Post, HERE)
    assert "job1 is no longer among what this room may see" in told.body
    assert "Globex" in str(await _rows(office, SECRET))


async def test_it_is_told_where_nobody_else_takes_it_and_only_the_first_time(office: Office) -> None:
    await office.arrive(begins=True, card=OPEN)
    await office.arrive(card=replace(MOVED, scope="nowhere"), scopes=("nowhere",))
    assert "no longer among" in (await office.notices())[-1]
    with pytest.raises(Rejected):
        await office.arrive(card=replace(MOVED, scope="nowhere"), scopes=("nowhere",))


async def test_an_item_that_comes_back_goes_on_in_its_thread_and_what_it_was_meanwhile_is_not_told(
    office: Office,
) -> None:
    await office.arrive(begins=True, card=OPEN)
    await office.arrive(card=MOVED, scopes=("secrets",))
    await _forget(office)
    back = replace(OPEN, fields=(("state", "done"),))
    await office.arrive(card=back, scopes=("jobs",), text="Here again")
    shown = await _rows(office)
    assert [each.body for kind, each in shown if kind == "card"] == ["job1: Pump is loud\nstate: done\n" + CARD.url]
    assert "can be seen here again" in str(shown)
    assert "Here again" in str(shown)
    assert "signed" not in str(shown)
    assert len(await office.conversations()) == 1


async def test_what_is_older_than_the_move_neither_shows_nor_brings_back_anything(office: Office) -> None:
    now = time.time()
    await office.arrive(begins=True, card=OPEN, when=now - 60)
    await office.arrive(card=MOVED, scopes=("secrets",), when=now)
    await _forget(office)
    await office.arrive(card=OPEN, when=now - 30, text="Late")
    assert not await _rows(office)


async def test_a_room_that_is_mapped_to_both_scopes_speaks_for_the_new_one(tmp_path: Path) -> None:
    async with store.opened(tmp_path) as memory:
        both = [{"connector": "desk", "scope": scope, "room": HERE} for scope in ("jobs", "repairs")]
        office = Office(memory, both)
        await office.arrive(begins=True, card=OPEN)
        await office.arrive(card=replace(OPEN, scope="repairs", title="Pump is silent"), scopes=("repairs",))
        await office.say("!reply We come")
        (draft,) = await office.queued(Draft)
        assert draft.scope == "repairs"
        assert (await office.notices())[-1].endswith("Pump is loud → Pump is silent")


# --- only what people name


async def test_where_only_what_is_linked_is_wanted_nothing_begins_by_itself(quiet: Office) -> None:
    with pytest.raises(Rejected):
        await quiet.arrive(begins=True, text="News")
    assert not await quiet.conversations()


@pytest.mark.parametrize("words", ["!link job1", "what about job1?"])
async def test_what_people_link_or_mention_there_is_whole_and_followed(quiet: Office, words: str) -> None:
    await quiet.letter()
    await quiet.say(words)
    await _named(quiet, OPEN)
    assert "Pump is loud" in (await quiet.queued(CardPost, HERE))[-1].body
    await quiet.arrive(card=OPEN, text="News")
    assert "News" in str(await quiet.queued(Post, HERE))
    assert len(await quiet.conversations()) == 1


async def test_a_second_mention_of_what_the_room_follows_shows_it_and_follows_it_once(quiet: Office) -> None:
    await quiet.say("job1", thread="")
    await _named(quiet, OPEN)
    await quiet.say("job1 again", thread="")
    await _named(quiet, OPEN)
    item = await quiet.store.transact(lambda tx: tx.conversations.item_named("desk", "job1"))
    assert len(await quiet.store.transact(lambda tx: tx.conversations.all_of_item(item or 0))) == 1


@pytest.mark.parametrize("only", [{}, {"state": ["open"]}, {"state": ["never"]}])
async def test_a_quiet_room_takes_nothing_from_those_that_take_what_is_new(
    tmp_path: Path, only: dict[str, list[str]]
) -> None:
    async with store.opened(tmp_path) as memory:
        taking = {"connector": "desk", "scope": "jobs", "room": SECRET, "only": only}
        office = Office(memory, [LINKED, taking, Office.MAPPINGS[1]])
        await office.letter()
        await office.say("!link job1")
        await _named(office, OPEN)
        await office.arrive(card=OPEN, text="News")
        rooms = [room for room in (HERE, SECRET) if "News" in str(await office.queued(Post, room))]
        assert rooms == ([HERE] if "never" in str(only) else [HERE, SECRET])


async def test_a_letter_that_answers_ours_comes_to_a_quiet_room_and_any_other_is_refused(tmp_path: Path) -> None:
    async with store.opened(tmp_path) as memory:
        office = Office(memory, [{"connector": "letters", "scope": "post", "room": HERE, "new": False}])
        ours = await office.store.transact(lambda tx: tx.conversations.add(HERE, "Hello", "$1"))

        def begun(tx: Tx) -> None:
            item = tx.conversations.add_item("letters", "<0>", "Hello")
            tx.conversations.link(ours.id, item, "post")
            tx.conversations.refer("letters", ["<0>"], item)

        await office.store.transact(begun)
        author = Author("letters", "jane@outside.example", "Jane")
        answer = Envelope("letters", ("post",), "k", "<1>", author, 0.0, title="Hello", text="Hi", refs=("<0>",))
        await office.store.transact(office.rules.hub.accept, answer)
        assert "Hi" in str(await office.queued(Post, HERE))
        with pytest.raises(Rejected):
            await office.store.transact(office.rules.hub.accept, replace(answer, key="l", id="<2>", refs=()))


# --- gone


async def test_what_is_deleted_is_said_once_everywhere_and_its_card_keeps_title_and_link(office: Office) -> None:
    await office.arrive(begins=True, scopes=("jobs", "secrets"))
    await _forget(office)
    for _ in range(2):
        await _gone(office)
    for room in (HERE, SECRET):
        (card,) = await office.queued(CardPost, room)
        assert card.body == "job1: Pump is loud\nstate: deleted\nhttps://desk.example/job1"
        assert len([line for line in await office.notices(room) if "was deleted in desk" in line]) == 1


async def test_to_what_is_gone_nothing_is_sent_and_it_can_be_unlinked(office: Office) -> None:
    await office.arrive(begins=True)
    await _gone(office)
    for words in ("!reply Hello?", "!state done"):
        await office.say(words)
        assert "Pump is loud was deleted in desk" in (await office.notices())[-1]
    assert not [*await office.queued(Draft), *await office.queued(Alter)]
    await office.say("!unlink")
    assert await office.followed(1) == []


async def test_a_thread_with_something_else_goes_on_when_one_of_its_items_is_gone(office: Office) -> None:
    await office.letter()
    await office.say("!link job1")
    await office.found(CARD)
    await _gone(office)
    await office.say("!reply Dear Jane")
    assert [draft.connector for draft in await office.queued(Draft)] == ["letters"]


@pytest.mark.parametrize(("words", "told"), [("!link job7", "There is no job7 in desk."), ("see job7", "")])
async def test_a_link_to_what_does_not_exist_is_answered_and_a_mention_is_not(
    office: Office, words: str, told: str
) -> None:
    await office.letter()
    await office.say(words)

    def rule(tx: Tx) -> None:
        (row,) = tx.queue._many("kind = 'look'")
        conversation = tx.conversations.get(row.conversation or 0)
        assert conversation is not None
        office.rules.items.missed(tx, payload.load(Look, row.payload), conversation, "desk", "no such job")

    await office.store.transact(rule)
    assert (await office.notices())[-1:] == ([told] if told else [])


class Emptied(Desk):
    """A tool that has no item any more."""

    async def fetch(self, item: str) -> Card:
        raise Gone("there is no such job")

    async def change(self, change: Change) -> Card:
        return await self.fetch(change.item)

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        raise Gone("there is no such job")


@pytest.mark.parametrize("words", ["!link job1", "see job1", "!state done", "!reply We come"])
async def test_whatever_is_asked_of_it_tells_that_an_item_is_gone(office: Office, words: str) -> None:
    await office.arrive(begins=True)
    await office.letter()
    await _forget(office)
    (first, second) = await office.conversations()
    await office.say(words, thread=second.root if "job1" in words else first.root)
    nothing: Any = None
    rules = office.rules
    there = ConnectorDestination(
        Emptied("desk", None, nothing), office.store, nothing, nothing, rules.outward, rules.items, rules.places,
        rules.maps, 1,
    )  # fmt: skip
    (row,) = await office.store.transact(lambda tx: tx.queue._many("destination = 'desk'"))
    try:
        await office.store.transact(await there.deliver(row))
    except Gone:
        assert "!reply" in words, "of a draft it is told as of any that is refused for good"
    (card,) = await office.queued(CardPost, HERE)
    assert "state: deleted" in card.body
    (told, *answer) = await office.notices()
    assert "was deleted in desk" in told
    assert answer == (["There is no job1 in desk."] if "!link" in words else [])


async def test_news_from_before_it_was_deleted_do_not_bring_it_back_and_later_ones_do(office: Office) -> None:
    now = time.time()
    await office.arrive(begins=True, when=now - 60)
    await _gone(office)
    await _forget(office)
    await office.arrive(when=now - 30, card=replace(CARD, fields=(("state", "done"),)))
    assert not await _rows(office)
    await office.arrive(when=time.time() + 5, text="Restored")
    assert "can be seen here again" in str(await _rows(office))
    await office.say("!reply Good")
    assert len(await office.queued(Draft)) == 1


async def test_what_its_tool_says_is_deleted_is_so_once_by_whatever_way_we_hear_it(office: Office) -> None:
    await office.arrive(begins=True)
    for _ in range(2):
        await office.arrive(card=replace(CARD, gone=True), author=BOBS)
    await _gone(office)
    (told,) = await office.notices()
    assert "was deleted in desk" in told
    assert "state: deleted" in (await office.queued(CardPost))[-1].body


async def test_an_old_word_of_its_deletion_does_not_undo_what_came_later(office: Office) -> None:
    now = time.time()
    await office.arrive(begins=True, when=now - 60)
    await office.arrive(when=now - 20, card=replace(CARD, fields=(("state", "done"),)))
    await office.arrive(when=now - 40, card=replace(CARD, gone=True))
    assert "deleted" not in str(await office.notices())


# --- noise


async def _stands(office: Office, state: str, who: str = "Bob", **fields: Any) -> None:
    author = Author("desk", who.lower(), who) if who else Author("desk", "")
    await office.arrive(card=replace(CARD, fields=(("state", state), ("owner", ""))), author=author, **fields)


async def test_changes_of_a_minute_are_one_line_from_the_first_value_to_the_newest(office: Office) -> None:
    await office.arrive(begins=True)
    await _stands(office, "waiting", "Bob")
    await _forget(office)
    await _stands(office, "done", "Carol")
    (line,) = await office.queued(LinePost)
    assert line.body == "Bob, Carol changed job1: state: open → done"
    assert await office.store.transact(lambda tx: tx.cards.event_of(line.line)), "it is an edit of the first"


async def test_what_was_changed_and_back_is_said_to_be_as_before(office: Office) -> None:
    await office.arrive(begins=True)
    await _stands(office, "waiting", "Bob")
    await _stands(office, "open", "Bob")
    assert (await office.notices())[-1] == "job1 was changed and is as it was before (Bob)."


@pytest.mark.parametrize(("names", "told"), [(("Bob", ""), "Bob, somebody changed"), (("", ""), "job1 changed")])
async def test_a_change_of_nobody_known_is_not_put_down_to_another(
    office: Office, names: tuple[str, ...], told: str
) -> None:
    await office.arrive(begins=True)
    for state, name in zip(("waiting", "done"), names, strict=True):
        await _stands(office, state, name)
    assert (await office.notices())[-1].startswith(told)


async def test_after_a_minute_a_change_is_a_line_of_its_own(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.arrive(begins=True)
    await _stands(office, "waiting")
    monkeypatch.setattr(items, "MINUTE", 0.0)
    await _stands(office, "done")
    assert [line.body for line in await office.queued(LinePost)] == [
        "Bob changed job1: state: open → waiting",
        "Bob changed job1: state: waiting → done",
    ]


async def test_a_hundred_changes_in_one_page_are_a_handful_of_events(office: Office) -> None:
    await office.arrive(begins=True)
    await _forget(office)
    envelopes = tuple(
        Envelope("desk", ("jobs",), f"c{n}", f"c{n}", BOBS, 0.0, item="job1", card=replace(CARD, title=f"Pump {n}"))
        for n in range(100)
    )
    await office.store.transact(office.rules.hub.accept_page, "desk", Page(envelopes, "1"))
    shown = await _rows(office)
    assert [kind for kind, _ in shown] == ["card", "line"]
    assert [each.body for kind, each in shown if kind == "card"][-1].startswith("job1: Pump 99")
    assert "Pump is loud → Pump 99" in [each.body for kind, each in shown if kind == "line"][-1]


async def test_a_hundred_changes_one_after_the_other_wait_as_a_handful_of_events(office: Office) -> None:
    await office.arrive(begins=True)
    await _forget(office)
    for number in range(100):
        await office.arrive(card=replace(CARD, title=f"Pump {number}"), author=BOBS)
    assert len(await _rows(office)) == 4, "of two that wait the first may be under way"


async def test_what_is_under_way_is_not_reworded(office: Office) -> None:
    await office.arrive(begins=True)
    await _forget(office)
    await _stands(office, "waiting")
    before = await _rows(office)
    await _stands(office, "done")
    assert (await _rows(office))[: len(before)] == before


async def test_what_is_delivered_is_the_newest_wording_and_is_sent_once(office: Office) -> None:
    """As after a crash between the homeserver's yes and ours."""
    await office.arrive(begins=True)
    await _stands(office, "waiting")

    def rule(tx: Tx) -> tuple[tuple[str, Any], tuple[str, Any], str]:
        (row,) = tx.queue._many("kind = 'line'")
        stale = payload.load(LinePost, row.payload)
        tx.queue.amend(row.uid, payload.dump(replace(stale, body="newer")))
        first = newest(tx, row, stale)
        noted(tx, row.conversation or 0, first[1], "$line", "@bot")
        meant = tx.conversations.message_of_event("$line")
        return first, newest(tx, row, stale), meant.role if meant else ""

    first, again, role = await office.store.transact(rule)
    assert (first[0], first[1].body) == ("", "newer")
    assert (again[0], role) == ("$line", "card")


async def test_a_message_of_a_program_stands_for_the_change_that_it_tells_of(office: Office) -> None:
    await office.arrive(begins=True)
    await _stands(office, "done", text="It is resolved.", automatic=True)
    assert not await office.queued(LinePost)
    assert "done" in (await office.queued(CardPost, HERE))[-1].body
    await _stands(office, "open", text="No, it is not.")
    assert len(await office.queued(LinePost)) == 1, "of people both are told"


# --- who is called


async def _called(office: Office, **fields: Any) -> Post:
    card = replace(CARD, fields=(("state", "firing"),))
    await office.arrive(**{"text": "On fire", "automatic": True, "urgent": True, "card": card, **fields})
    return next(post for post in reversed(await office.queued(Post, HERE)) if not post.file)


async def test_what_is_urgent_calls_whoever_has_the_conversation(office: Office) -> None:
    await office.arrive(begins=True)
    await office.store.transact(lambda tx: tx.conversations.spoke(1, ALICE))
    post = await _called(office)
    assert (post.notice, post.mentions) == (False, (ALICE,))


async def test_else_the_employee_who_acted_last_on_the_item(office: Office) -> None:
    await office.store.transact(lambda tx: tx.people.owns(BOB, "desk", "bob"))
    await office.arrive(begins=True)
    await _stands(office, "waiting", who="Bob")
    await office.arrive(card=replace(CARD, fields=(("state", "seen"),)), author=BOBS)
    assert (await _called(office)).mentions == (BOB,)


async def test_also_when_he_acted_from_here(office: Office) -> None:
    await office.arrive(begins=True)
    await office.say("!state done", sender=BOB)
    (alter,) = await office.queued(Alter)
    (here,) = await office.conversations()
    await office.store.transact(office.rules.items.changed, alter, here, replace(CARD, fields=(("state", "done"),)))
    assert (await _called(office)).mentions == (BOB,)


async def test_else_the_room_by_a_mention_and_not_in_words(office: Office) -> None:
    await office.arrive(begins=True)
    post = await _called(office)
    assert post.mentions == (EVERYBODY,)
    shown = content.message(post, "uid", "$1", "$1", "")
    assert (shown["msgtype"], shown["m.mentions"]) == ("m.text", {"room": True})
    assert "@room" not in shown["body"]
    assert content.speaker(post) is None, "few but the bot may call a room"
    assert shown["body"].startswith("Carol Smith: ")


@pytest.mark.parametrize("begins", [True, False])
async def test_what_is_urgent_without_words_calls_as_well(office: Office, begins: bool) -> None:
    if not begins:
        await office.arrive(begins=True)
    post = await _called(office, text="", automatic=False, begins=begins)
    assert (post.notice, post.mentions) == (False, (EVERYBODY,))
    assert ("state: open → firing" if not begins else "job1 asks for a person") in post.body
    assert not await office.queued(LinePost)


async def test_whatever_else_tools_say_calls_nobody(office: Office) -> None:
    await office.arrive(begins=True)
    post = await _called(office, urgent=False)
    assert (post.notice, post.mentions) == (True, ())


@pytest.mark.parametrize(
    ("mentions", "said"),
    [((), {}), ((ALICE,), {"user_ids": [ALICE]}), ((ALICE, EVERYBODY), {"user_ids": [ALICE], "room": True})],
)
def test_mentions_are_told_apart_from_the_words(mentions: tuple[str, ...], said: dict[str, Any]) -> None:
    assert content.mentions(Post(HERE, "x", mentions=mentions)) == said
