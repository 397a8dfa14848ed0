"""Asking a tool again and again: what is told, what is kept, what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import store
from bridge.arrivals import Arrivals
from bridge.config import Config
from bridge.connector import Connector
from bridge.model import Author, Card, Envelope, Gone, Page, Rejected, Unavailable, Unconfirmed
from bridge.polling import Poller
from bridge.rules import Rules
from bridge.store import Store
from tests.peers import until

ROOM = "!room"
CARD = Card("job1", "job1", "Pump is loud")
PLAIN = Envelope("desk", ("jobs",), "k", "m", Author("desk", "carol"), 1.0, text="Hello", item="job1", begins=True)


class Port:
    """What the poller asks of a port."""

    mapped = frozenset({"jobs"})

    def scopes(self) -> frozenset[str]:
        return self.mapped


class Desk(Connector):
    """Answers as it is told, then with nothing new."""

    every = 0.01

    def __init__(self) -> None:
        super().__init__("desk", None, Port())  # type: ignore[arg-type]
        self.answers: list[Page | Exception] = []
        self.cursors: list[str] = []
        self.jobs: dict[str, Card | Exception] = {}
        self.looked: list[str] = []

    def match(self, text: str) -> str:
        return text if text in self.jobs else ""

    async def fetch(self, item: str) -> Card:
        self.looked.append(item)
        found = self.jobs[item]
        if isinstance(found, Exception):
            raise found
        return found

    async def poll(self, cursor: str) -> Page:
        self.cursors.append(cursor)
        answer = self.answers.pop(0) if self.answers else Page((), cursor)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    """A poller on a real store with real rules."""

    def __init__(self, memory: Store) -> None:
        self.store = memory
        mapping = {"connector": "desk", "scope": "jobs", "room": ROOM}
        config = Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "connectors": {"desk": {}},
                "mappings": [mapping],
            }
        )
        self.rules = Rules(config)
        self.rules.places.resolve(ROOM, ROOM)
        self.desk = Desk()
        self.told: list[str] = []
        self.poller = Poller(self.desk, memory, Arrivals(memory, self.rules.hub), self._tell, look=0.0)

    async def _tell(self, name: str, reason: str) -> None:
        self.told.append(reason)

    async def rows(self, kind: str) -> list[Any]:
        return await self.store.transact(
            lambda tx: tx.db.execute("SELECT payload FROM queue WHERE kind = ? ORDER BY id", (kind,)).fetchall()
        )

    async def polled(self, times: int) -> bool:
        return len(self.desk.cursors) >= times

    async def cursor(self) -> str:
        return await self.store.transact(lambda tx: tx.conversations.cursor("desk"))

    async def reaches(self, cursor: str) -> None:
        async def there() -> bool:
            return await self.cursor() == cursor

        await until(there, f"the cursor {cursor}", every=0.01)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with store.opened(tmp_path) as memory:
        yield Bench(memory)


@contextlib.asynccontextmanager
async def polling(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.poller.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_each_page_is_asked_for_from_where_the_last_one_ended(bench: Bench) -> None:
    bench.desk.answers = [Page((PLAIN,), "1", more=True), Page((replace(PLAIN, key="k2"),), "2")]
    async with polling(bench):
        await bench.reaches("2")
    assert bench.desk.cursors[:2] == ["", "1"]
    assert len(await bench.rows("post")) == 2


async def test_a_tool_that_is_away_is_told_once_and_once_when_it_is_back(bench: Bench) -> None:
    bench.desk.every = 0.001
    bench.desk.answers = [Unavailable("away"), Unconfirmed("lost"), TimeoutError(), Rejected("no"), Page((PLAIN,), "1")]
    async with polling(bench):
        await bench.reaches("1")
    assert bench.told == ["lost", ""]
    assert not bench.poller.trouble


async def test_a_hiccup_is_not_worth_a_word(bench: Bench) -> None:
    bench.desk.answers = [Unavailable("away"), Page((PLAIN,), "1")]
    async with polling(bench):
        await bench.reaches("1")
    assert not bench.told


async def test_one_envelope_that_nobody_foresaw_is_kept_and_those_after_it_arrive(bench: Bench) -> None:
    odd = replace(PLAIN, key="odd", title=None)  # type: ignore[arg-type]
    bench.desk.answers = [Page((PLAIN, odd, replace(PLAIN, key="last", text="Last")), "1")]
    async with polling(bench):
        await bench.reaches("1")
    posts = [row[0] for row in await bench.rows("post")]
    assert "Hello" in posts[0]
    assert "Last" in posts[-1]
    assert len(await bench.rows("envelope")) == 1


async def test_nothing_is_lost_while_a_room_is_not_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.polling.OURS", 0.01)
    bench.rules.places._resolved.clear()
    page = Page((PLAIN,), "1")
    bench.desk.answers = [page] * 50
    async with polling(bench):

        async def thrice() -> bool:
            return len(bench.desk.cursors) > 2

        await until(thrice, "three polls", every=0.01)
        assert set(bench.desk.cursors) == {""}

        async def said() -> bool:
            return "the room !room is not known yet" in bench.poller.trouble

        await until(said, "whoever asks how the bridge is to be told", every=0.001)
        bench.rules.places.resolve(ROOM, ROOM)
        await bench.reaches("1")
    assert not bench.told, "that is no trouble of the tool"


async def test_a_tool_that_no_room_is_mapped_to_is_not_asked(bench: Bench) -> None:
    bench.desk.port.mapped = frozenset()  # type: ignore[attr-defined]
    bench.desk.answers = [Page((PLAIN,), "1")]
    bench.poller.trouble = "it was away when the last room gave it up"
    async with polling(bench):
        await asyncio.sleep(0.05)
        assert not bench.desk.cursors
        assert not bench.poller.trouble, "nobody wants it: that it is away troubles nobody"
        bench.desk.port.mapped = frozenset({"jobs"})  # type: ignore[attr-defined]
        await bench.reaches("1")


@pytest.mark.parametrize("silent", [True, False])
async def test_what_is_deleted_without_a_word_is_noticed_where_the_tool_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(Desk, "silent", silent)
    async with store.opened(tmp_path) as memory:
        bench = Bench(memory)
        jobs = [f"job{number}" for number in (1, 2, 3)]
        made = replace(PLAIN, key="begun", item="begun:$1", card=replace(CARD, item="begun:$1"))
        bench.desk.jobs = {"job1": Rejected("not for you"), "job2": Gone("deleted"), "job3": CARD}
        news = [replace(PLAIN, key=job, item=job, card=replace(CARD, item=job, key=job)) for job in jobs]
        bench.desk.answers = [Page((made, *news), "1")]
        async with polling(bench):
            await bench.reaches("1")
            polls = len(bench.desk.cursors)
            await until(lambda: bench.polled(polls + 8), "some more polls", every=0.01)
        said = " ".join([row[0] for row in await bench.rows("post")])
        assert said.count("job2 was deleted") == said.count("was deleted") == silent
        assert set(bench.desk.looked) == (set(jobs) if silent else set())
        assert bench.desk.looked.count("job2") == silent  # it is followed no longer
        assert bench.told == []
