"""The CalDAV plugin on a real Radicale: what it tells, what it writes, and that nothing is told or written twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import store
from bridge.http import new_session
from bridge.model import Change, Delivery, Draft, Envelope, Recipients, Rejected, Unavailable, Unconfirmed
from bridge.port import BridgePort
from plugins.caldav import CalDav
from tests.peers.dav import BRIDGE, Radicale
from tests.peers.faults import Proxy

UID = "a2b3c4d5e6f7g2h3i4j5"


class Port(BridgePort):
    """Rooms are mapped to these scopes."""

    mapped: frozenset[str] = frozenset({"ops"})

    def scopes(self) -> frozenset[str]:
        return self.mapped


class Office:
    """The plugin on a server, and where its last poll ended."""

    def __init__(self, server: Radicale, port: Port) -> None:
        password = server.password(BRIDGE)
        self.server, self.port, self.cursor = server, port, ""
        self.plugin = CalDav("tasks", CalDav.Config(url=server.url, username=BRIDGE, password=password), port)  # type: ignore[arg-type]

    async def news(self) -> list[Envelope]:
        found: list[Envelope] = []
        for _ in range(20):
            page = await self.plugin.poll(self.cursor)
            self.cursor = page.cursor
            found += page.envelopes
            if not page.more:
                return found
        raise AssertionError("polls come to no end")


@contextlib.asynccontextmanager
async def opened(server: Radicale, folder: Path) -> AsyncIterator[Office]:
    async with contextlib.AsyncExitStack() as stack:
        memory = await stack.enter_async_context(store.opened(folder))
        session = await stack.enter_async_context(new_session())
        nothing: Any = None
        yield Office(server, Port("tasks", memory, nothing, nothing, b"secret", session, 1_000_000))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radicale]:
    """One server for all tests: it starts slowly."""
    server = Radicale(tmp_path_factory.mktemp("server"))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def at(shared: Radicale, tmp_path: Path) -> AsyncIterator[Office]:
    server = shared
    if not server.child.running:
        await server.start()
    await server.call("DELETE", "/team/ops/", by="team")
    await server.list("ops")
    async with opened(server, tmp_path) as office:
        yield office


def delivery(uid: str = UID, attempts: int = 1) -> Delivery:
    return Delivery(1, uid, "lane", "tasks", "draft", "", "ready", 1, time.time(), attempts=attempts)


def draft(text: str, remote: str = "begun:$event", **fields: Any) -> Draft:
    given = {"title": "Pump; leaks, badly", "text": text, "link": "https://matrix.to/#/!room/$event", **fields}
    return Draft("tasks", "ops", 1, author="@alice:c.example", author_name="Alice", recipients=Recipients(()),
                 remote=remote, **given)  # fmt: skip


async def test_tasks_and_comments_are_told_once_and_what_is_old_begins_nothing(at: Office) -> None:
    old = ("SUMMARY:Old", "CREATED:20200101T000000Z", "COMMENT:long ago")
    await at.server.write("old", *old)
    assert await at.news() == []
    await at.server.write("pump", "SUMMARY:Pump leaks", "DESCRIPTION:In the cellar\\, left", "DUE;VALUE=DATE:20261201",
                          "ATTENDEE;CN=Bob:mailto:bob@company.example", "PERCENT-COMPLETE:20")  # fmt: skip
    await at.server.write("old", *old, "COMMENT:just now")
    told = {(each.item, each.text, each.begins) for each in await at.news()}
    assert told == {("ops/pump.ics", "In the cellar, left", True), ("ops/old.ics", "", False),
                    ("ops/old.ics", "just now", False)}  # fmt: skip
    card = await at.plugin.fetch("ops/pump.ics")
    assert card.fields == (("state", "needs-action"), ("due", "2026-12-01"), ("assigned to", "Bob"), ("done", "20 %"))
    before = at.cursor
    assert (await at.news(), at.cursor) == ([], before)
    await at.server.remove("pump")
    [gone] = await at.news()
    assert gone.card
    assert (gone.item, gone.card.title, gone.card.gone) == ("ops/pump.ics", "Pump leaks", True)


async def test_a_forgotten_token_tells_what_happened_meanwhile_and_nothing_else(at: Office) -> None:
    await at.news()
    for name in ("one", "two", "three"):
        await at.server.write(name, f"SUMMARY:{name}", f"COMMENT:of {name}")
    keys = {each.key for each in await at.news() if each.text}
    assert len(keys) == 3
    await at.server.write("two", "SUMMARY:two", "COMMENT:of two", "COMMENT:another")
    await at.server.remove("three")
    cursor = json.loads(at.cursor)
    cursor["ops"]["token"] = "http://radicale.org/ns/sync/" + "0" * 64
    at.cursor = json.dumps(cursor)
    news = await at.news()
    assert [each.text for each in news if each.text] == ["another"]
    assert [each.item for each in news if each.begins] == []
    assert [each.item for each in news if each.card and each.card.gone] == ["ops/three.ics"]


async def test_many_at_once_come_a_few_at_a_time(at: Office) -> None:
    await at.news()
    for number in range(25):
        await at.server.write(f"t{number}", f"SUMMARY:{number}")
    page = await at.plugin.poll(at.cursor)
    assert (len(page.envelopes), page.more) == (20, True)
    news = await at.news()
    assert sorted(each.item for each in news if each.begins) == sorted(f"ops/t{number}.ics" for number in range(25))


async def test_a_list_that_is_gone_stops_no_other(at: Office) -> None:
    at.port.mapped = frozenset({"ops", "nolist"})
    await at.news()
    assert list(at.plugin.troubles()) == ["tasks nolist"]
    await at.server.write("pump", "SUMMARY:Pump leaks")
    assert [each.item for each in await at.news()] == ["ops/pump.ics"]
    assert [each.ok for each in await at.plugin.check()] == [False, True]


async def test_a_task_is_made_once_with_its_words_and_the_link_back_and_is_no_news(at: Office) -> None:
    await at.news()
    for attempts in (1, 2):
        sent = await at.plugin.create(delivery(attempts=attempts), draft("In the cellar."))
    assert sent.card
    assert at.server.names() == [sent.card.item.removeprefix("ops/")]
    lines = await at.server.lines(sent.card.item.removeprefix("ops/").removesuffix(".ics"))
    assert {"SUMMARY:Pump\\; leaks\\, badly", "URL:https://matrix.to/#/!room/$event", "STATUS:NEEDS-ACTION"} <= {*lines}
    assert any(line.startswith("DESCRIPTION:Alice:\\n\\nIn the cellar.") for line in lines)
    assert [(each.begins, each.text) for each in await at.news()] == [(False, "")]


async def test_what_is_said_at_the_same_time_is_all_there_once_and_nothing_else_is_touched(at: Office) -> None:
    await at.server.write("pump", "SUMMARY:Pump leaks", "X-OTHER;A=b:only one client knows")
    await at.news()
    sent = [at.plugin.send(delivery(f"a{n}"), draft(f"word {n}", "ops/pump.ics")) for n in range(3)]
    await asyncio.gather(*sent)
    await at.plugin.send(delivery("a1", attempts=2), draft("word 1", "ops/pump.ics"))
    lines = await at.server.lines("pump")
    assert sorted(line.partition("word ")[2][0] for line in lines if line.startswith("COMMENT")) == ["0", "1", "2"]
    assert "X-OTHER;A=b:only one client knows" in lines
    assert [each.text for each in await at.news() if each.text] == []


async def test_words_change_what_they_say_and_nonsense_is_refused(at: Office) -> None:
    await at.server.write("pump", "SUMMARY:Pump leaks", "DTSTART:20261101T080000Z", "DURATION:P2D")
    ask = Change("ops/pump.ics", "due", "2026-12-01", "", "Alice")
    assert dict((await at.plugin.change(ask)).fields)["due"] == "2026-12-01 08:00+00:00"
    card = await at.plugin.change(replace(ask, word="state", value="fait"))
    assert dict(card.fields)["state"] == "completed"
    assert dict(card.fields)["done"] == "100 %"
    assert not any(line.startswith("DURATION") for line in await at.server.lines("pump"))
    card = await at.plugin.change(replace(ask, word="state", value="en cours"))
    assert (dict(card.fields)["state"], dict(card.fields)["done"]) == ("in-process", "")
    with pytest.raises(Rejected, match="begins on"):
        await at.plugin.change(replace(ask, value="2026-10-01"))
    card = await at.plugin.change(replace(ask, value="-"))
    assert dict(card.fields)["due"] == ""


async def test_all_the_words_are_searched_in_all_that_a_task_says(at: Office) -> None:
    for name, said in (
        ("a", "SUMMARY:Pump leaks"),
        ("b", "DESCRIPTION:Ask about the pump"),
        ("c", "COMMENT:PUMP & hose"),
    ):
        await at.server.write(name, said, *(["SUMMARY:Cellar"] if name != "a" else []))
    found = {words: [card.item for card in await at.plugin.find(words, ["nolist", "ops"])]
             for words in ("pump", "cellar pump", "pump &", "pump nothing", " ")}  # fmt: skip
    assert found == {
        "pump": ["ops/a.ics", "ops/b.ics", "ops/c.ics"], "cellar pump": ["ops/b.ics", "ops/c.ics"],
        "pump &": ["ops/c.ics"], "pump nothing": [], " ": [],
    }  # fmt: skip


async def test_of_a_private_task_nothing_is_for_all_also_when_it_is_deleted(at: Office) -> None:
    await at.news()
    await at.server.write("pay", "SUMMARY:Pay", "CLASS:CONFIDENTIAL", "COMMENT:more")
    told = await at.news()
    await at.server.remove("pay")
    told += await at.news()
    assert [(each.private, each.card and each.card.private) for each in told] == [(True, True)] * 3


async def test_only_tasks_of_lists_that_are_mapped_are_known(at: Office) -> None:
    good = "ops/pump.ics"
    assert {
        at.plugin.match(text) for text in (good, f" {at.server.url}{good}?x#y", f"{at.server.url}ops/%70ump.ics")
    } == {good}
    assert at.plugin.match(f"{at.server.url}other/pump.ics") == "other/pump.ics"  # the room says what may be seen of it
    for text in ("other/pump.ics", "ops/../other/x.ics", "ops/%2e%2e/x.ics", f"{at.server.url}ops/%2e%2e/ops/x.ics",
                 "ops/.hidden.ics", "ops/a\nb.ics", "/ops/pump.ics", "ops/pump.txt", "ops/a\\b.ics"):  # fmt: skip
        assert at.plugin.match(text) == ""


async def test_what_is_written_strangely_is_left_out_or_private_and_stops_nothing(at: Office) -> None:
    await at.news()
    await at.server.write("strange", "SUMMARY:Strange", "CREATED:00010101T000000")
    await at.server.write("house", "SUMMARY:House", "CLASS:X-BOARD-ONLY")
    await at.server.write("fine", "SUMMARY:Fine", "DUE;TZID=Nowhere/City:20261201T140000")
    calendar = at.server.folder / "collections" / "collection-root" / "team" / "ops" / "twice.ics"
    lines = ("BEGIN:VTODO", "UID:twice", "SUMMARY:Twice", "DUE:20261201", "DUE:20261202", "END:VTODO", "END:VCALENDAR")
    calendar.write_text("\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:tests", *lines, ""]))
    found = {each.title: each for each in await at.news()}
    assert {"Fine", "House"} <= found.keys()
    assert found["House"].private  # RFC 5545 3.8.1.3: what nobody knows is private
    assert found["House"].card.private


async def test_a_list_that_may_only_be_read_refuses_and_holds_nobody_up(at: Office) -> None:
    await at.server.list("fixed")
    await at.server.write("read", "SUMMARY:Read", folder="fixed")
    with pytest.raises(Rejected, match="does not let the bridge write to fixed"):
        await at.plugin.create(delivery(), replace(draft("Do it."), scope="fixed"))
    with pytest.raises(Rejected, match="does not let the bridge write to fixed"):
        await at.plugin.send(delivery(), draft("Done.", "fixed/read.ics"))


async def test_letters_are_found_as_they_are_written(at: Office) -> None:
    await at.server.write("street", "SUMMARY:Straße räumen")
    assert [card.title for card in await at.plugin.find("straße", ("ops",))] == ["Straße räumen"]


async def test_nothing_is_called_gone_by_whoever_else_answers_and_what_is_written_is_not_called_untaken(
    at: Office,
) -> None:
    await at.server.write("here", "SUMMARY:Here")
    async with Proxy(at.server.origin) as proxy:
        settings = {"username": BRIDGE, "password": at.server.password(BRIDGE)}
        plugin = CalDav("tasks", CalDav.Config(url=f"{proxy.url}/team/", **settings), at.port)  # type: ignore[arg-type]
        strange = proxy.add(404)
        with pytest.raises(Unavailable):
            await plugin.fetch("ops/here.ics")
        strange.times = 0
        proxy.add(503, method="GET", when=lambda _: bool(at.server.names()[1:]))  # once the second is there
        with pytest.raises(Unconfirmed):
            await plugin.create(delivery(), draft("Do it."))
