"""`!find`: what is told where, who is asked, and what happens when somebody does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from bridge import finding, payload, store
from bridge.commands import find
from bridge.config import Config
from bridge.connector import Connector
from bridge.finding import Finding
from bridge.listing import Line, spoken
from bridge.matrix.search import Said, plain
from bridge.model import Author, Card, Envelope, Rejected, RoomEvent, Unavailable
from bridge.payload import Find, Post
from bridge.rules import Rules
from bridge.store import Store, Tx

HERE, THERE, DIRECT = "!here", "!there", "!direct"
ALICE, BOB = "@alice:company.example", "@bob:company.example"
_count = count(1)


class Desk(Connector):
    """A tool that finds whatever it is told to, and is no better than it must be."""

    filters: ClassVar[dict[str, str]] = {"state": "how it stands", "weather": "told with what arrives only"}
    cards: Sequence[Card] = ()
    trouble: Exception | None = None
    asked: Sequence[str] = ()

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        self.asked = scopes
        if isinstance(self.trouble, TimeoutError):
            await asyncio.sleep(60)
        if self.trouble:
            raise self.trouble
        return self.cards


class Mute(Connector):
    """It cannot look for anything."""


class Homeserver:
    """The homeserver's part: who is where, and where words were said."""

    def __init__(self) -> None:
        self.alone = False
        self.joined: set[str] = set()
        self.events: list[Said] = []
        self.trouble: Exception | None = None

    async def is_alone_with(self, mxid: str, room: str) -> bool:
        return self.alone

    async def rooms_of(self, mxid: str, rooms: Collection[str]) -> frozenset[str]:
        return frozenset(self.joined & set(rooms))

    async def said(self, words: str, rooms: Collection[str]) -> Sequence[Said]:
        if self.trouble:
            raise self.trouble
        return self.events


class Office:
    """The desk is mapped here and there, by parts; the shop there only."""

    def __init__(self, memory: Store) -> None:
        self.store = memory
        urgent = {"state": ["urgent"]}
        self.rules = Rules(Config.model_validate({
            "homeserver": {"url": "http://hs", "server_name": "company.example"},
            "appservice": {"as_token": "a", "hs_token": "h"},
            "connectors": {"desk": {}, "shop": {}, "mute": {}},
            "mappings": [
                {"connector": "desk", "scope": "jobs", "room": HERE},
                {"connector": "desk", "scope": "plans", "room": HERE, "private": True},
                {"connector": "desk", "scope": "alarms", "room": HERE, "only": urgent},
                {"connector": "desk", "scope": "alarms", "room": THERE},
                {"connector": "desk", "scope": "clouds", "room": HERE, "only": {"weather": ["rain"]}},
                {"connector": "shop", "scope": "orders", "room": THERE},
                {"connector": "mute", "scope": "all", "room": HERE},
            ],
        }))  # fmt: skip
        for room in (HERE, THERE):
            self.rules.places.resolve(room, room)
        nothing: Any = None
        self.desk, self.shop = Desk("desk", None, nothing), Desk("shop", None, nothing)
        self.shop.scope = "orders"
        connectors = {"desk": self.desk, "shop": self.shop, "mute": Mute("mute", None, nothing)}
        self.rules.connect(connectors)
        self.homeserver = Homeserver()
        search: Any = self.homeserver
        self.finding = Finding(connectors, memory, search, self.rules.finds, self.rules.places, self.rules.say)

    async def say(self, text: str, room: str = HERE, sender: str = ALICE) -> None:
        event = RoomEvent(f"$e{next(_count)}", room, sender, "m.room.message", time.time(), "m.text", text)
        await self.store.transact(self.rules.hearing.hear, event)

    async def look(self, words: str, room: str = HERE, attempts: int = 1) -> str:
        """Alice looks for words; returns the answer."""
        await self.say(f"!find {words}", room)
        (row,) = await self.store.transact(lambda tx: tx.queue.head(f"finding:{ALICE}", 0, 10))
        begun = await self.store.transact(lambda tx: tx.queue.begin(row))
        assert begun is not None
        for _ in range(attempts - 1):
            begun = await self.store.transact(lambda tx, last=begun: tx.queue.begin(last))
            assert begun is not None
        crossing = await self.finding.deliver(begun)

        def rule(tx: Tx) -> None:
            crossing(tx)
            tx.queue.remove(row.id)

        await self.store.transact(rule)
        return await self.answer()

    async def answer(self) -> str:
        """What the bot said last."""
        return (await self.posts())[-1].body

    async def posts(self) -> list[Post]:
        rows = await self.store.transact(
            lambda tx: tx.db.execute("SELECT payload FROM queue WHERE kind = 'post' ORDER BY id").fetchall()
        )
        return [post for (text,) in rows if (post := payload.load(Post, text)).notice]

    async def conversation(self, title: str, room: str = HERE, account: str = "carol", item: str = "") -> int:
        """A thread with an item of the desk and a message of that account; its root is "$root1" for number 1."""

        def rule(tx: Tx) -> int:
            number = tx.conversations.add(room, title).id
            tx.conversations.shown(number, f"$root{number}")
            name = item or f"thing{number}"
            key = tx.conversations.item_named("desk", name) or tx.conversations.add_item("desk", name, title)
            tx.conversations.link(number, key, "jobs")
            tx.conversations.add_message(number, "inward", account, item=key, event=f"$said{number}")
            return number

        return await self.store.transact(rule)


@pytest_asyncio.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        yield Office(memory)


def job(number: int, scope: str = "jobs", **more: Any) -> Card:
    return Card(
        f"job{number}", f"job{number}", f"Pump {number}", f"https://desk.example/job{number}", scope=scope, **more
    )


# --- what may be told


async def test_a_room_hears_of_the_scopes_that_are_mapped_to_it_whatever_the_plugin_finds(office: Office) -> None:
    office.desk.cards = [job(1), job(2, "secrets"), job(3, ""), job(4)]
    office.shop.cards = [job(5, "orders")]
    said = await office.look("pump")
    assert said.splitlines() == [
        "• job1: Pump 1 (desk) https://desk.example/job1", "• job4: Pump 4 (desk) https://desk.example/job4",
    ]  # fmt: skip
    assert (sorted(office.desk.asked), office.shop.asked) == (["alarms", "clouds", "jobs", "plans"], ())


async def test_what_is_private_is_told_where_the_mapping_allows_it_only(office: Office) -> None:
    office.desk.cards = [job(1, private=True), job(2, "plans", private=True)]
    assert [line.split(":")[0] for line in (await office.look("pump")).splitlines()] == ["• job2"]


async def test_a_filter_keeps_out_what_it_would_keep_out_as_news(office: Office) -> None:
    urgent, calm = job(1, "alarms", fields=(("State", "urgent"),)), job(2, "alarms", fields=(("State", "open"),))
    office.desk.cards = [urgent, calm]
    assert "job1" in await office.look("pump")
    assert "job2" not in await office.answer()
    assert "job2" in await office.look("pump", THERE)
    assert "job1" not in await office.answer()


async def test_what_no_card_tells_is_not_shown_unless_the_room_has_a_thread_about_it(office: Office) -> None:
    office.desk.cards = [job(1, "clouds"), job(2, "clouds")]
    await office.conversation("Pump 2", item="job2")
    said = await office.look("pump")
    assert ("job1" in said, "job2" in said) == (False, True)


async def test_conversations_are_found_by_title_and_people_of_this_room_only(office: Office) -> None:
    await office.conversation("Pump is loud")
    await office.conversation("Ours", account="pumping@outside.example")
    await office.conversation("Pump elsewhere", THERE)
    said = await office.look("PUMP")
    assert sorted(said.splitlines()) == [
        "• Ours https://matrix.to/#/%21here/%24root2", "• Pump is loud https://matrix.to/#/%21here/%24root1",
    ]  # fmt: skip


async def test_people_are_found_by_their_names_and_not_by_their_server(office: Office) -> None:
    await office.conversation("One", account=BOB)
    await office.conversation("Two", account="jane@outside.example")
    await office.store.transact(lambda tx: tx.people.named(BOB, "Robert Éclair"))
    ghost = ("@_passerelle_jane:company.example", "desk", "jane@outside.example", "Jane Doe (outside.example)")
    await office.store.transact(lambda tx: tx.people.registered(*ghost))
    assert "One" in await office.look("éclair robert")
    assert "Two" in await office.look("doe")
    assert await office.look("company") == "Nothing here has all of these words."


@pytest.mark.parametrize("words", ["P%p is", "Pump__", "pump' OR '1'='1", "Pump\\ is", '"pump'])
async def test_words_are_no_pattern_and_no_sql(office: Office, words: str) -> None:
    await office.conversation("Pump is loud")
    assert await office.look(words) == "Nothing here has all of these words."


async def test_what_was_said_leads_to_the_event_once_for_each_conversation(office: Office) -> None:
    await office.conversation("Pump is loud")
    now = time.time()
    office.homeserver.events = [Said("$said1", HERE, "", now), Said("$root1", HERE, "", now - 1)]
    assert await office.look("pump") == "• Pump is loud https://matrix.to/#/%21here/%24said1"


async def test_a_forged_relation_does_not_reach_into_another_room(office: Office) -> None:
    secret = await office.conversation("The merger", THERE)
    office.homeserver.events = [
        Said("$forged", HERE, f"$root{secret}", 1.0), Said(f"$said{secret}", THERE, f"$root{secret}", 2.0)
    ]  # fmt: skip
    assert await office.look("anything") == "Nothing here has all of these words."
    office.homeserver.alone, office.homeserver.joined = True, {HERE, THERE}
    office.homeserver.events = [Said("$forged", HERE, f"$root{secret}", 1.0)]
    assert await office.look("anything", DIRECT) == "Nothing here has all of these words."


async def test_an_item_and_its_thread_are_one_line_with_both_links(office: Office) -> None:
    await office.conversation("Pump 1", item="job1")
    await office.conversation("Pump 1 elsewhere", THERE, item="job1")
    office.desk.cards = [job(1)]
    await office.look("pump")
    (post,) = await office.posts()
    assert post.body == "• job1: Pump 1 (desk) https://desk.example/job1 · https://matrix.to/#/%21here/%24root1"
    assert post.html == (
        '<ul><li><a href="https://desk.example/job1">job1: Pump 1</a> (desk)'
        ' · <a href="https://matrix.to/#/%21here/%24root1">thread</a></li></ul>'
    )


async def test_in_a_direct_chat_it_is_what_the_rooms_may_see_in_which_one_is_now(office: Office) -> None:
    await office.conversation("Pump here")
    await office.conversation("Pump there", THERE)
    office.desk.cards, office.shop.cards = [job(1), job(2, "plans", private=True)], [job(3, "orders", private=True)]
    office.homeserver.alone, office.homeserver.joined = True, {THERE}
    said = await office.look("pump", DIRECT)
    assert said == "• Pump there (https://matrix.to/#/%21there) https://matrix.to/#/%21there/%24root2"
    office.homeserver.joined = {HERE, THERE}
    said = await office.look("pump", DIRECT)
    assert [word in said for word in ("Pump here", "Pump there", "job1", "job2", "job3")] == [True] * 4 + [False]
    office.homeserver.joined = set()
    assert "You are in no room" in await office.look("pump", DIRECT)


async def test_elsewhere_there_is_nothing_to_look_through(office: Office) -> None:
    office.homeserver.joined = {HERE}
    office.desk.cards = [job(1)]
    assert "Nothing is mapped to this room" in await office.look("pump", DIRECT)
    assert office.desk.asked == ()


# --- how much


async def test_no_source_pushes_out_the_others_and_ten_lines_are_enough(office: Office) -> None:
    office.homeserver.alone, office.homeserver.joined = True, {HERE, THERE}
    office.desk.cards = [job(number) for number in range(1, 11)]
    office.shop.cards = [job(100, "orders"), job(101, "orders")]
    await office.conversation("Pump of a thread")
    lines = (await office.look("pump", DIRECT)).splitlines()
    assert [line.split()[1] for line in lines[:6]] == ["Pump", "job1:", "job100:", "job2:", "job101:", "job3:"]
    assert (len(lines), lines[-1]) == (11, "… and more")


def test_titles_and_addresses_are_shown_harmlessly() -> None:
    body, html = spoken(
        [Line("<b>x</b>\n@room", "javascript:alert(1)", "a&b"), Line("y", 'https://x/"><img>')], ["<i>"]
    )
    assert body == '• <b>x</b> @room (a&b)\n• y https://x/"><img>\n<i>'
    assert html == (
        "<ul><li>&lt;b&gt;x&lt;/b&gt; @room (a&amp;b)</li>"
        '<li><a href="https://x/&quot;&gt;&lt;img&gt;">y</a></li></ul>&lt;i&gt;'
    )


def test_the_homeserver_gets_words_and_no_query() -> None:
    assert plain('"Pump" OR -loud NEAR (x*) and_y') == ["pump", "loud", "x", "and_y"]


# --- who does not answer


@pytest.mark.parametrize("trouble", [Unavailable("down"), OSError("gone"), TimeoutError(), KeyError("its own mistake")])
async def test_who_does_not_answer_is_named_and_keeps_nobody_waiting(
    office: Office, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "PATIENCE", 0.05)
    office.desk.trouble = trouble
    office.shop.cards = [job(100, "orders")]
    said = await office.look("pump", THERE)
    assert said.splitlines() == ["• job100: Pump 100 (shop) https://desk.example/job100", "⚠️ desk does not answer"]


async def test_a_tool_that_says_no_is_quoted_on_one_line(office: Office) -> None:
    office.desk.trouble = Rejected("too\nmany words")
    said = await office.look("pump")
    assert said.splitlines() == ["Nothing here has all of these words.", "⚠️ desk says no: too many words"]


async def test_a_homeserver_that_does_not_search_leaves_titles(office: Office) -> None:
    await office.conversation("Pump is loud")
    office.homeserver.trouble = Rejected("Search is disabled on this homeserver")
    said = (await office.look("pump")).splitlines()
    assert (len(said), "Pump is loud" in said[0], "by title and people only" in said[1]) == (2, True, True)


async def test_a_search_that_a_crash_has_ended_is_told_and_not_tried_again(office: Office) -> None:
    office.desk.cards = [job(1)]
    assert "Please ask again: !find pump" in await office.look("pump", attempts=2)
    assert office.desk.asked == ()


# --- how it is asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "What shall I look for?"), ("   ", "What shall I look for?"), ("a", "too little"), ("% *", "too little"),
        ("x" * 61, "too much"), ("ab " * 11, "too much"),
    ],
)  # fmt: skip
async def test_words_that_make_no_sense_are_answered_kindly(office: Office, words: str, said: str) -> None:
    await office.say(f"!find {words}")
    assert said in await office.answer()


async def test_one_person_looks_for_one_thing_at_a_time_and_others_do_not_wait(office: Office) -> None:
    await office.say("!find pump")
    await office.say("!find pump")
    assert "I am still looking" in await office.answer()
    await office.say("!find pump", sender=BOB)
    assert len(await office.posts()) == 1
    rows = await office.store.transact(lambda tx: tx.queue.in_state("ready"))
    assert [payload.load(Find, row.payload).sender for row in rows if row.kind == "find"] == [ALICE, BOB]


async def test_who_asks_without_end_is_asked_for_patience(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "TIMES", 2)
    for _ in range(2):
        assert "Nothing here" in await office.look("pump")
    await office.say("!find pump")
    assert "You have asked 2 times within a minute" in await office.answer()


async def test_the_answer_is_in_the_thread_where_it_was_asked(office: Office) -> None:
    number = await office.conversation("Pump is loud")
    event = RoomEvent("$q", HERE, ALICE, "m.room.message", 1.0, "m.text", "!find pump", thread=f"$root{number}")
    await office.store.transact(office.rules.hearing.hear, event)
    (row,) = await office.store.transact(lambda tx: tx.queue.head(f"finding:{ALICE}", 0, 10))
    assert row.conversation == number


# --- whose accounts are whose, by the configuration


class Talk(Desk):
    """A tool in which people can write a code."""

    async def poll(self, cursor: str) -> Any:
        """Never asked."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        """Never asked."""


@pytest_asyncio.fixture
async def staff(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        office, nothing = Office(memory), None
        office.rules.connect({name: Talk(name, None, nothing) for name in ("desk", "shop")} | {  # type: ignore[arg-type]
            "mute": Mute("mute", None, nothing)})  # type: ignore[arg-type]  # fmt: skip
        yield office


async def declare(office: Office, people: dict[str, dict[str, str]]) -> None:
    await office.store.transact(lambda tx: tx.people.declare(people))


async def accounts(office: Office, mxid: str) -> dict[str, str]:
    return await office.store.transact(lambda tx: tx.people.accounts(mxid))


async def test_the_table_wins_over_what_was_proven_and_gives_way_to_it_again(staff: Office) -> None:
    await staff.store.transact(lambda tx: tx.people.owns(ALICE, "desk", "al"))
    await staff.store.transact(lambda tx: tx.people.owns(BOB, "desk", "alice"))
    await declare(staff, {ALICE: {"desk": "alice"}})
    assert (await accounts(staff, ALICE), await accounts(staff, BOB)) == ({"desk": "alice"}, {})

    def owners(tx: Tx) -> list[str]:
        return [tx.people.owner("desk", each) for each in ("alice", "al")]

    assert await staff.store.transact(owners) == [ALICE, ""]
    await declare(staff, {})
    assert await staff.store.transact(owners) == [BOB, ALICE]


async def test_me_says_which_accounts_are_whose_decision_and_how_to_prove_the_others(staff: Office) -> None:
    await declare(staff, {ALICE: {"desk": "alice", "mute": "ali"}})
    await staff.say("!me")
    assert (await staff.answer()).splitlines() == [
        "desk: you are alice (set by an administrator: cannot be changed here)",
        "mute: you are ali (set by an administrator: cannot be changed here)",
        "shop: I do not know who you are. Type: !me shop account",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!me desk anna", "set by an administrator: it cannot be changed here"),
        ("!me desk -", "set by an administrator: it cannot be changed here"),
        ("!me shop bobby", "is somebody else's"),
        ("!me mute alice", "Nobody can write a code into mute"),
        ("!me nothing alice", "one of: desk, shop"),
        ("!me shop", "one of: desk, shop"),
    ],
)
async def test_what_an_administrator_has_set_cannot_be_claimed(staff: Office, text: str, said: str) -> None:
    await declare(staff, {ALICE: {"desk": "alice"}, BOB: {"shop": "bobby"}})
    await staff.say(text)
    assert said in await staff.answer()


async def test_a_claim_is_void_once_an_administrator_has_decided(staff: Office) -> None:
    await staff.say("!me desk al")
    code = (await staff.answer()).split()[-1]
    await declare(staff, {ALICE: {"desk": "alice"}})
    proof = Envelope("desk", ("jobs",), "k", "k", Author("desk", "al", verified=True), 1.0, text=code)
    await staff.store.transact(staff.rules.items.proven, proof)
    assert await accounts(staff, ALICE) == {"desk": "alice"}
