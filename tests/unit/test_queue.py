"""Lanes: order, retries, a destination that is down, dead letters, cancelling, stopping, trouble with the disk."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import lanes, queue
from bridge.config import Retry
from bridge.matrix.sending import Sending
from bridge.model import Deferred, Delivery, File, Rejected, Unavailable, Unconfirmed
from bridge.payload import Post
from bridge.queue import Crossing, Line, Queue
from bridge.store import Store, Tx, opened
from bridge.texts import Texts

QUICK = Retry(first=0.01, longest=0.02)


class Place:
    """A destination that does what a test says: `answers` by payload, first one first, then it takes everything."""

    name = "place"

    def __init__(self, careful: bool = False, parallel: int = 4) -> None:
        self.careful = careful
        self.parallel = parallel
        self.answers: dict[str, list[Exception]] = {}
        self.trouble: Callable[[Delivery], Exception | None] = lambda _: None
        self.crossing: Crossing = lambda tx: None
        self.preparing: Callable[[Delivery], Awaitable[None]] | None = None
        self.open = asyncio.Event()  # closed, deliveries hang at the other side
        self.open.set()
        self.tried: list[Delivery] = []
        self.times: list[float] = []
        self.taken: list[str] = []
        self.at_once = 0
        self.most = 0
        self.changes: list[str] = []
        self.back = 0
        self.waiting: list[str] = []
        self._news = asyncio.Condition()

    async def prepare(self, delivery: Delivery) -> None:
        if self.preparing:
            await self.preparing(delivery)

    async def deliver(self, delivery: Delivery) -> Crossing:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self._tell(self.tried, delivery)
            self.times.append(time.monotonic())
            await self.open.wait()
            answers = self.answers.get(delivery.payload)
            if error := answers.pop(0) if answers else self.trouble(delivery):
                raise error
            await self._tell(self.taken, delivery.payload)
            return self.crossing
        finally:
            self.at_once -= 1

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> bool:
        return False

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        self.waiting.append(reason)

    async def came_back(self) -> None:
        self.back += 1

    async def changed(self, name: str, reason: str) -> None:
        await self._tell(self.changes, reason)

    async def until(self, seen: Callable[[], Any]) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(seen)

    async def _tell(self, where: list[Any], what: Any) -> None:
        async with self._news:
            where.append(what)
            self._news.notify_all()


class Bench:
    """A queue with one destination on a store of its own."""

    def __init__(self, store: Store, place: Place, retry: Retry = QUICK) -> None:
        self.store = store
        self.place = place
        self.line = Line(store, place, retry, place.changed)
        self.queue = Queue([self.line], store)

    async def add(self, *payloads: str, lane: str = "a") -> list[Delivery]:
        return await self.store.transact(
            lambda tx: [tx.queue.add(lane, self.place.name, "post", each) for each in payloads]
        )

    async def rows(self, state: str = "ready") -> list[Delivery]:
        return await self.store.transact(lambda tx: tx.queue.in_state(state))  # type: ignore[arg-type]

    async def crossed_out(self) -> None:
        """Wait until nothing is ready any more."""
        async with asyncio.timeout(10):
            while await self.rows():
                await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.store.on_ready = self.queue.push
        task = asyncio.create_task(self.queue.run())
        try:
            yield
        finally:
            self.queue.stop()
            async with asyncio.timeout(10):
                await task


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as memory:
        yield memory


# --- order


async def test_a_lane_keeps_its_order_and_lanes_go_on_at_once(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.open.clear()
    async with bench.running():
        await bench.add("a1", "a2", "a3")
        await bench.add("b1", "b2", lane="b")
        await bench.place.until(lambda: len(bench.place.tried) == 2)
        assert {each.payload for each in bench.place.tried} == {"a1", "b1"}
        bench.place.open.set()
        await bench.crossed_out()
    assert [each for each in bench.place.taken if each[0] == "a"] == ["a1", "a2", "a3"]
    assert [each for each in bench.place.taken if each[0] == "b"] == ["b1", "b2"]


async def test_a_retry_keeps_order_while_other_lanes_go_on(store: Store) -> None:
    bench = Bench(store, Place(), Retry(first=0.2, longest=0.2))
    bench.place.answers["a1"] = [Deferred("later"), Deferred("later")]
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.add("b1", "b2", lane="b")
        await bench.crossed_out()
    assert bench.place.taken == ["b1", "b2", "a1", "a2"]


async def test_a_long_lane_keeps_its_order_whatever_comes_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PAGE", 5)
    bench = Bench(store, Place())
    bench.place.answers = {"004": [Deferred("later")], "011": [Unavailable("down")], "020": [Unconfirmed()]}
    wanted = [f"{number:03}" for number in range(40)]
    async with bench.running():
        for first in range(0, 40, 4):  # the lane spills into the database while it is being worked on
            await bench.add(*wanted[first : first + 4])
            await bench.place.until(lambda first=first: len(bench.place.taken) > first / 2)
        await bench.crossed_out()
    assert bench.place.taken == wanted


async def test_what_an_earlier_life_left_goes_first_and_is_in_doubt(store: Store) -> None:
    bench = Bench(store, Place())
    old = await bench.add("old 1", "old 2")
    bench.line._born = time.time()
    async with bench.running():
        await bench.add("new")
        await bench.crossed_out()
    assert bench.place.taken == ["old 1", "old 2", "new"]
    assert [each.doubt for each in bench.place.tried[:2]] == [each.created for each in old]
    assert bench.place.tried[2].doubt is None


async def test_what_arrives_while_the_queue_opens_does_not_overtake_what_is_older(store: Store) -> None:
    bench = Bench(store, Place())
    await bench.add("old 1", "old 2")
    bench.queue.push(await bench.add("new"))  # heard of before the lanes are read
    async with bench.running():
        await bench.crossed_out()
    assert bench.place.taken == ["old 1", "old 2", "new"]


async def test_a_lane_that_is_empty_is_forgotten(store: Store) -> None:
    bench = Bench(store, Place())
    async with bench.running():
        await bench.add("a1")
        await bench.crossed_out()
        await bench.add("b1", lane="b")
        await bench.crossed_out()
        await bench.place.until(lambda: "a" not in bench.line.lanes.open)


# --- a destination that is down


async def test_a_destination_that_is_down_gets_one_probe_at_a_time_and_then_all_go_on(store: Store) -> None:
    bench = Bench(store, Place(parallel=4))
    down = True
    bench.place.trouble = lambda _: Unavailable("connection refused") if down else None
    async with bench.running():
        for lane in "abcdefgh":
            await bench.add(f"{lane}1", f"{lane}2", lane=lane)
        await bench.place.until(lambda: len(bench.place.tried) >= 4 and bench.place.at_once == 0)
        bench.place.most, before = 0, len(bench.place.tried)
        await bench.place.until(lambda: len(bench.place.tried) >= before + 9)
        assert bench.place.most == 1
        assert len({each.lane for each in bench.place.tried[-8:]}) > 1  # not always the same one
        assert bench.line.trouble == "connection refused"
        down = False
        await bench.crossed_out()
    assert sorted(bench.place.taken) == [f"{lane}{number}" for lane in "abcdefgh" for number in (1, 2)]
    assert bench.line.trouble == ""
    assert bench.place.back == 1


async def test_people_hear_of_an_outage_once_and_of_a_hiccup_never(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.answers = {"a1": [Unavailable("hiccup")], "a2": [Unavailable("down")] * 4}
    async with bench.running():
        await bench.add("a1")
        await bench.crossed_out()
        assert bench.place.changes == []
        await bench.add("a2")
        await bench.crossed_out()
    assert bench.place.changes == ["down", ""]


async def test_failures_at_the_same_moment_count_once(store: Store) -> None:
    bench = Bench(store, Place(parallel=8), Retry(first=0.05, longest=60))
    bench.place.open.clear()
    bench.place.answers = {f"{lane}1": [Unavailable("down")] for lane in "abcdefgh"}
    async with bench.running():
        for lane in "abcdefgh":
            await bench.add(f"{lane}1", lane=lane)
        await bench.place.until(lambda: bench.place.at_once == 8)
        bench.place.open.set()
        await bench.crossed_out()  # not after 0.05 * 2 ** 8 seconds
    assert bench.place.times[8] - bench.place.times[7] < 5


async def test_the_other_side_says_how_long_to_wait(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.open.clear()
    bench.place.answers = {"a1": [Unavailable("busy", retry_after=0.4)], "b1": [Unavailable("cut off")]}
    async with bench.running():
        await bench.add("a1")
        await bench.place.until(lambda: bench.place.at_once == 1)
        await bench.add("b1", lane="b")
        await bench.place.until(lambda: bench.place.at_once == 2)
        bench.place.open.set()
        await bench.crossed_out()
    assert bench.place.times[2] - bench.place.times[1] >= 0.4


# --- failures


async def test_what_is_rejected_becomes_a_dead_letter_and_its_lane_goes_on(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.answers["a1"] = [Rejected("413 too large")]
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
    assert bench.place.taken == ["a2"]
    assert [(each.payload, each.error) for each in await bench.rows("dead")] == [("a1", "413 too large")]


async def test_what_fails_in_an_unforeseen_way_is_tried_again_and_then_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ODD_ATTEMPTS", 3)
    bench = Bench(store, Place())
    bench.place.trouble = lambda delivery: KeyError("event_id") if delivery.payload == "a1" else None
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
    assert [each.payload for each in bench.place.tried] == ["a1", "a1", "a1", "a2"]
    (dead,) = await bench.rows("dead")
    assert re.fullmatch(
        r"KeyError \(bridge/queue\.py:\d+ \w+\)", dead.error
    )  # what, and where; its words may be content


async def test_what_is_never_confirmed_is_given_up_in_doubt_after_some_attempts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ODD_ATTEMPTS", 3)
    bench = Bench(store, Place(careful=True))
    bench.place.answers["a1"] = [Deferred("later")] * 4 + [Unconfirmed() for _ in range(5)]
    async with bench.running():
        await bench.add("a1")
        await bench.crossed_out()
    assert len(bench.place.tried) == 4 + 3  # being asked to wait is no odd failure
    assert [each.doubt is not None for each in await bench.rows("dead")] == [True]


async def test_a_message_that_takes_the_destination_down_each_time_waits_alone_and_is_given_up(store: Store) -> None:
    bench = Bench(store, Place(), Retry(first=0.01, longest=0.02, give_up=0.3))
    bench.place.trouble = lambda each: Unavailable("the upload was cut off") if each.payload == "bad" else None
    async with bench.running():
        await bench.add("bad", "behind it")
        for number in range(50):
            await bench.add(f"{number}", lane=f"{number}")
            await asyncio.sleep(0.01)
        await bench.crossed_out()
    assert [each.payload for each in await bench.rows("dead")] == ["bad"]
    assert sorted(bench.place.taken) == sorted(["behind it", *map(str, range(50))])
    assert bench.place.back == 1  # it was taken for the destination's trouble once


async def test_what_cannot_be_prepared_says_nothing_about_the_destination(store: Store) -> None:
    bench = Bench(store, Place())
    failures: list[Exception] = [Unavailable("the homeserver is down"), OSError("disk"), Deferred("not caught up")]
    doubts: list[float | None] = []

    async def fails(delivery: Delivery) -> None:
        doubts.append(delivery.doubt)
        if delivery.payload == "bad":
            raise Rejected("not allowed")
        if failures:
            raise failures.pop(0)

    bench.place.preparing = fails
    async with bench.running():
        await bench.add("a1")
        await bench.add("bad", lane="b")
        await bench.crossed_out()
    assert bench.line.trouble == ""
    assert bench.place.back == 0
    assert [each.payload for each in await bench.rows("dead")] == ["bad"]
    assert bench.place.taken == ["a1"]
    assert doubts == [None] * 5  # what was not handed over is not in doubt


async def test_people_hear_once_that_the_other_side_asks_to_wait(store: Store) -> None:
    bench = Bench(store, Place(careful=True))
    bench.place.answers = {"a1": [Unavailable("down"), Deferred("451 one"), Deferred("451 two")], "a2": [Deferred("3")]}
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
    assert bench.place.waiting == ["451 one", "3"]


async def test_only_so_many_deliveries_are_in_memory_and_none_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST", 10)
    bench = Bench(store, Place())
    bench.place.open.clear()
    wanted = [f"{lane}{number}" for lane in "abcdefgh" for number in range(5)]
    async with bench.running():
        for each in wanted:
            await bench.add(each, lane=each[0])
        assert sum(len(lane.backlog) for lane in bench.line.lanes.open.values()) == bench.line.lanes.held == 10
        bench.place.open.set()
        await bench.crossed_out()
    assert bench.line.lanes.held == 0
    for lane in "abcdefgh":
        assert [each for each in bench.place.taken if each[0] == lane] == [f"{lane}{number}" for number in range(5)]


async def test_what_is_too_old_is_given_up_at_its_next_failure(store: Store) -> None:
    bench = Bench(store, Place(), Retry(first=0.01, longest=0.02, give_up=0.05))
    bench.place.trouble = lambda _: Deferred("mailbox full")
    async with bench.running():
        await bench.add("a1")
        await bench.crossed_out()
    assert [each.error for each in await bench.rows("dead")] == ["mailbox full"]
    assert len(bench.place.tried) > 1


async def test_a_dead_letter_that_is_replayed_goes_to_the_end_of_its_lane_with_its_full_time(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.answers["a1"] = [Unconfirmed(), Rejected("no")]
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
        dead = (await bench.rows("dead"))[0]
        await bench.store.transact(lambda tx: tx.queue.move(dead.uid, "ready"))
        await bench.crossed_out()
    again = bench.place.tried[-1]
    assert bench.place.taken == ["a2", "a1"]
    assert again.uid == dead.uid
    assert again.created > dead.created
    assert again.doubt  # the first attempt may have been taken, however long ago


# --- doubt, cancelling


async def test_a_careful_attempt_is_written_down_before_it_is_made(store: Store) -> None:
    bench = Bench(store, Place(careful=True))
    bench.place.open.clear()
    async with bench.running():
        await bench.add("a1")
        await bench.place.until(lambda: bench.place.at_once == 1)
        (row,) = await bench.rows()
        assert (row.attempts, row.doubt is not None) == (1, True)
        bench.place.open.set()
        await bench.crossed_out()


async def test_what_is_cancelled_before_the_attempt_is_not_delivered(store: Store) -> None:
    bench = Bench(store, Place(careful=True))

    async def cancelled_meanwhile(delivery: Delivery) -> None:
        if delivery.payload == "a1":
            await bench.store.transact(lambda tx: tx.queue.drop(delivery.uid))

    bench.place.preparing = cancelled_meanwhile
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
    assert [each.payload for each in bench.place.tried] == ["a2"]


async def test_what_is_changed_before_the_attempt_is_delivered_as_it_is_now(store: Store) -> None:
    bench = Bench(store, Place(careful=True))

    async def changed_meanwhile(delivery: Delivery) -> None:
        await bench.store.transact(lambda tx: tx.queue.amend(delivery.uid, "new words"))

    bench.place.preparing = changed_meanwhile
    async with bench.running():
        await bench.add("old words")
        await bench.crossed_out()
    assert bench.place.taken == ["new words"]


async def test_doubt_stays_until_the_other_side_says_yes(store: Store) -> None:
    bench = Bench(store, Place(careful=True))
    bench.place.answers["a1"] = [Unavailable("down"), Unconfirmed(), Unavailable("down"), Deferred("later")]
    doubts: list[bool] = []

    async def look(delivery: Delivery) -> None:
        doubts.append((await bench.rows())[0].doubt is not None)

    bench.place.preparing = look
    async with bench.running():
        await bench.add("a1")
        await bench.crossed_out()
    assert doubts == [False, False, True, True, True]  # before each of the five attempts


async def test_an_answer_that_may_be_lost_leaves_doubt_where_attempts_are_not_written_down(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.answers["a1"] = [Unavailable("the answer was cut off")]
    async with bench.running():
        await bench.add("a1")
        await bench.crossed_out()
    assert [each.doubt is not None for each in bench.place.tried] == [False, True]


async def test_what_reached_some_recipients_is_read_again_and_tried_for_the_others(store: Store) -> None:
    bench = Bench(store, Place(careful=True))

    def some(tx: Tx) -> float | None:
        row = next(each for each in tx.queue.in_state("ready") if each.payload.startswith("a1"))
        if row.payload == "a1 for all":
            tx.queue.amend(row.uid, "a1 for the others")
            return time.time() + 0.1
        return None

    bench.place.crossing = some
    async with bench.running():
        await bench.add("a1 for all")
        while (await bench.rows())[0].payload == "a1 for all":
            await asyncio.sleep(0.005)
        assert (await bench.rows())[0].doubt is None  # the others can still be spared
        await bench.crossed_out()
    assert bench.place.taken == ["a1 for all", "a1 for the others"]


async def test_what_the_database_refuses_each_time_is_kept_and_its_lane_goes_on(store: Store) -> None:
    bench = Bench(store, Place())

    def refused(tx: Tx) -> float | None:
        if bench.place.taken == ["a1"]:
            raise sqlite3.IntegrityError("UNIQUE constraint failed")
        return None

    bench.place.crossing = refused
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
    assert bench.place.taken == ["a1", "a2"]
    assert [each.payload for each in await bench.rows("dead")] == ["a1"]


# --- trouble with the disk


class Failing:
    """A store whose transactions fail so many times once `ready`."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.failed = 0
        for name in ("transact", "tag_along"):
            if hasattr(store, name):
                monkeypatch.setattr(store, name, self._failing(getattr(store, name)))

    def _failing(self, plain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def transact(*arguments: Any, **named: Any) -> Any:
            if self.left:
                self.left -= 1
                self.failed += 1
                raise sqlite3.OperationalError("database or disk is full")
            return await plain(*arguments, **named)

        return transact


async def test_a_full_disk_while_crossing_out_delivers_nothing_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(store, Place())
    monkeypatch.setattr(bench.line, "_pause", lambda seconds: asyncio.sleep(0))
    disk = Failing(store, monkeypatch)
    bench.place.open.clear()
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.place.until(lambda: bench.place.at_once == 1)
        disk.left = 5
        bench.place.open.set()
        await bench.place.until(lambda: len(bench.place.taken) == 2)
        await bench.crossed_out()
    assert disk.failed == 5
    assert bench.place.taken == ["a1", "a2"]


async def test_a_full_disk_does_not_end_the_workers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(store, Place(careful=True))
    monkeypatch.setattr(bench.line, "_pause", lambda seconds: asyncio.sleep(0))
    bench.place.answers["a1"] = [Unavailable("down"), Deferred("later"), Rejected("no")]
    disk = Failing(store, monkeypatch)

    async def fill(delivery: Delivery) -> None:
        disk.left = 2

    await bench.add("a1", "a2")
    bench.place.preparing = fill
    async with bench.running():
        await bench.place.until(lambda: bench.place.taken == ["a2"])
        await bench.crossed_out()
    assert [each.payload for each in await bench.rows("dead")] == ["a1"]


async def test_what_was_delivered_and_cannot_be_noted_becomes_a_dead_letter_and_its_lane_goes_on(store: Store) -> None:
    bench = Bench(store, Place())

    def broken(tx: Tx) -> float | None:
        raise AssertionError("a mistake of ours")

    bench.place.crossing = broken
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
    assert bench.place.taken == ["a1", "a2"]
    errors = [each.error for each in await bench.rows("dead")]
    assert [each.startswith("delivered, but AssertionError (bridge/queue.py:") for each in errors] == [True] * 2


async def test_a_dead_letter_that_cannot_be_told_is_kept(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.answers["a1"] = [Rejected("no")]
    bench.place.gave_up = lambda tx, delivery, reason: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.crossed_out()
    assert [each.payload for each in await bench.rows("dead")] == ["a1"]


# --- stopping


async def test_stopping_lets_what_is_in_flight_end_and_begins_nothing_new(store: Store) -> None:
    bench = Bench(store, Place())
    bench.place.open.clear()
    async with bench.running():
        await bench.add("a1", "a2")
        await bench.place.until(lambda: bench.place.at_once == 1)
        bench.queue.stop()
        bench.place.open.set()
    assert bench.place.taken == ["a1"]
    assert [each.payload for each in await bench.rows()] == ["a2"]


async def test_stopping_does_not_wait_for_a_destination_that_is_down(store: Store) -> None:
    bench = Bench(store, Place(), Retry(first=60, longest=60))
    bench.place.trouble = lambda _: Unavailable("down", retry_after=3600)
    async with bench.running():
        for lane in "abcdefgh":
            await bench.add(f"{lane}1", lane=lane)
        await bench.place.until(lambda: bench.line.trouble)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert len(await bench.rows()) == 8


async def test_stopping_does_not_wait_for_what_is_only_prepared(store: Store) -> None:
    bench = Bench(store, Place(careful=True))
    began = asyncio.Event()

    async def for_ever(delivery: Delivery) -> None:
        began.set()
        await asyncio.Event().wait()

    bench.place.preparing = for_ever
    async with bench.running():
        await bench.add("a1")
        await began.wait()
    (row,) = await bench.rows()
    assert (row.attempts, row.doubt) == (0, None)


async def test_stopping_does_not_wait_for_a_disk_that_is_full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(store, Place())
    disk = Failing(store, monkeypatch)
    bench.place.open.clear()
    async with bench.running():
        await bench.add("a1")
        await bench.place.until(lambda: bench.place.at_once == 1)
        disk.left = 1000
        bench.place.open.set()
        await bench.place.until(lambda: bench.place.taken)
        began = time.monotonic()
    disk.left = 0
    assert time.monotonic() - began < 10
    assert [each.payload for each in await bench.rows()] == ["a1"]  # the next life delivers it again, with the same id


def test_waiting_grows_and_is_bounded() -> None:
    line = Line.__new__(Line)
    line._retry = Retry(first=1, longest=300)
    waits = [line._backoff(failures) for failures in range(40)]
    assert 0.5 <= waits[0] <= 1
    assert 150 <= waits[9] <= 300
    assert max(waits) <= 300


def test_a_delivery_is_a_value() -> None:
    delivery = Delivery(1, "uid", "a", "place", "post", "{}", "ready", None, 0.0)
    assert replace(delivery, attempts=2) != delivery


async def test_a_file_no_longer_kept_is_refused_before_the_homeserver_is_asked(store: Store) -> None:
    nothing: Any = None
    sending = Sending(store, nothing, nothing, Texts("en"))
    post = Post("!room", "gone.pdf", file=File("gone.pdf", "application/pdf", 3, "0" * 64))
    delivery = Delivery(1, "uid", "a", "matrix", "post", "{}", "ready", None, 0.0)
    with pytest.raises(Rejected, match="no longer kept"):
        await sending.uploaded(delivery, post, nothing)
