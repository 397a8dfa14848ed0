"""Delivering: one delivery at a time in a lane, lanes at once, failures waited out, what cannot be delivered buried."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Protocol, TypeVar

from bridge.config import Retry
from bridge.lanes import Lane, Lanes
from bridge.model import Deferred, Delivery, Rejected, Unavailable
from bridge.store import Error, Store, Tx, passes
from bridge.watch.logs import told
from bridge.watch.metrics import Outcome, uncounted

log = logging.getLogger(__name__)

ODD_ATTEMPTS = 12  # attempts at a delivery that fails in a way nobody foresaw

T = TypeVar("T")

# What to write when the other side said yes: in the same transaction the row is crossed out, or tried again at a time.
Crossing = Callable[[Tx], float | None]


class Destination(Protocol):
    """Where deliveries go. `careful`: each attempt is written before it is made; until then it can be stopped."""

    name: str
    parallel: int
    careful: bool

    async def prepare(self, delivery: Delivery) -> None:
        """What can be done before the attempt itself; it may wait. Raises as `deliver`."""

    async def deliver(self, delivery: Delivery) -> Crossing:
        """Raises `Rejected`, `Deferred`, `Unavailable`, or anything else: temporary and in doubt."""

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> bool:
        """Tell people about a dead letter; True when the row may go, for something else stands for it."""

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """It was `Deferred` for the first time: people may want to know why nothing happens."""

    async def came_back(self) -> None:
        """The destination answers again after it did not."""


class Line:
    """All lanes of one destination and the few workers that serve them."""

    def __init__(
        self, store: Store, destination: Destination, retry: Retry, on_change: Callable[[str, str], Awaitable[None]],
        count: Outcome = uncounted,
    ) -> None:  # fmt: skip
        self.destination = destination
        self._store = store
        self._retry = retry
        self._on_change = on_change
        self._count = count
        self.lanes = Lanes(self._read)
        self._up = asyncio.Event()
        self._up.set()
        self._probing = asyncio.Lock()
        self._preparing: set[asyncio.Task[object]] = set()
        self._failures = 0
        self._answers = 0  # a yes or a no: either shows that the destination is there
        self._told = False
        self._wait = 0.0
        self._stopping = asyncio.Event()
        self._born = time.time()
        self.trouble = ""

    # --- workers

    async def run(self) -> None:
        """Serve the lanes until `stop`; what is in flight then is finished."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self.destination.parallel):
                workers.create_task(self._work())

    def stop(self) -> None:
        self._stopping.set()
        for task in self._preparing:
            task.cancel()
        self.lanes.stop(self.destination.parallel)

    async def _work(self) -> None:
        while not self._stopping.is_set():
            lane = await self.lanes.turn()
            if lane is None or self._stopping.is_set():
                return
            await (self._step(lane) if self._up.is_set() else self._wait_and_probe(lane))

    async def _wait_and_probe(self, lane: Lane) -> None:
        """While the destination is down, one worker at a time tries, with the next lane each time."""
        async with self._probing:
            if probe := not self._up.is_set():
                await self._pause(self._wait)
                if not self._stopping.is_set():
                    await self._step(lane)
        if not probe and not self._stopping.is_set():
            await self._step(lane)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _step(self, lane: Lane) -> None:
        """Deliver the lane's next; then the lane waits for its turn again, for its time, or is forgotten."""
        delay = 0.0
        delivery = await self.lanes.first(lane)
        if delivery is not None:
            delay = delivery.due - time.time()
            if delay <= 0:
                delay = await self._attempt(lane, delivery)
            else:
                self.lanes.put_back(lane, delivery)
        self.lanes.end_turn(lane, delay, done=delivery is None)

    async def _read(self, lane: str, after: int, limit: int) -> list[Delivery]:
        rows = await self._commit(lambda tx: tx.queue.head(lane, after, limit))
        return [self._of_earlier_life(row) for row in rows]

    def _of_earlier_life(self, row: Delivery) -> Delivery:
        """An earlier life of this process may have begun to deliver it; a careful destination has noted that."""
        if self.destination.careful or row.created >= self._born:
            return row
        return replace(row, doubt=row.doubt or row.created)

    # --- one attempt

    async def _attempt(self, lane: Lane, delivery: Delivery) -> float:
        """Returns the seconds until the lane may go on."""
        try:
            await self._prepared(delivery)
        except Rejected as error:
            return await self._bury(delivery, error)
        except Exception as error:  # noqa: BLE001 - nothing was handed over: it says nothing about the destination
            self._say(logging.WARNING, "cannot be prepared", delivery, error=error)
            odd = not (isinstance(error, Unavailable | Deferred) or passes(error))
            late = replace(delivery, attempts=delivery.attempts + 1)
            return await self._later(lane, late, error, odd=odd)
        return await self._handed_over(lane, delivery)

    async def _handed_over(self, lane: Lane, delivery: Delivery) -> float:
        probe, tried = not self._up.is_set(), delivery
        try:
            begun = await self._begun(delivery)
            if begun is None:
                return 0.0
            tried = begun
            crossing = await self.destination.deliver(tried)
        except (Unavailable, OSError, TimeoutError) as error:
            self._count("failed", delivery.created)
            return await self._is_down(lane, self._not_taken(tried, delivery), error, probe=probe)
        except Rejected as error:
            self._count("rejected", delivery.created)
            await self._is_up()
            doubt = delivery.doubt if self.destination.careful else tried.doubt
            return await self._bury(replace(tried, doubt=doubt), error)
        except Deferred as error:
            self._count("deferred", delivery.created)
            await self._is_up()
            return await self._later(lane, self._not_taken(tried, delivery), error, asked=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message is kept and the other lanes go on
            self._count("failed", delivery.created)
            self._say(logging.ERROR, "failed", tried, trace=True)
            late = replace(tried, doubt=tried.doubt or time.time())
            return await self._later(lane, late, error, odd=not passes(error))
        await self._is_up()
        return await self._cross_out(lane, tried, crossing)

    async def _prepared(self, delivery: Delivery) -> None:
        """It may wait for long, so stopping ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._preparing.add(task)
        try:
            await self.destination.prepare(delivery)
        finally:
            self._preparing.discard(task)

    async def _begun(self, delivery: Delivery) -> Delivery | None:
        """The delivery with the attempt written down; None when it was cancelled or replayed under another number."""
        if not (self.destination.careful or delivery.attempts or delivery.doubt):
            return delivery  # a first attempt: that the row exists says enough
        begun = await self._commit(lambda tx: tx.queue.begin(delivery))
        return replace(begun, doubt=delivery.doubt or begun.doubt) if begun else None

    def _not_taken(self, tried: Delivery, before: Delivery) -> Delivery:
        """After a refusal. Where attempts are noted, doubt is what it was before; elsewhere an answer may be lost."""
        return replace(tried, doubt=before.doubt if self.destination.careful else tried.doubt or time.time())

    async def _cross_out(self, lane: Lane, delivery: Delivery, crossing: Crossing) -> float:
        def rule(tx: Tx) -> float | None:
            again = crossing(tx)
            if again is None:
                tx.queue.remove(delivery.id)
            else:
                tx.queue.postpone(replace(delivery, doubt=None), again, "")  # an answer leaves no doubt
            return again

        try:
            again = await self._commit(rule, patient=lane.empty and not self.destination.careful)
        except Exception as error:  # noqa: BLE001 - the other side has it: trying again and again would help nobody
            self._say(logging.ERROR, "was made and cannot be noted", delivery, trace=True)
            return await self._bury(delivery, error, "delivered, but ")
        if again is None:
            self._count("delivered", delivery.created)
            self._say(logging.INFO, "delivered", delivery, seconds=time.time() - delivery.created)
            return 0.0
        self._count("deferred", delivery.created)  # for those of its recipients that are left
        self.lanes.reread(lane, delivery)
        return max(0.01, again - time.time())

    async def _commit(self, rule: Callable[[Tx], T], *, patient: bool = False) -> T:
        """What must be written is: trouble of the disk is waited out, since dropping an answer would deliver twice."""
        commit = self._store.tag_along if patient else self._store.transact
        while True:
            try:
                return await commit(rule)
            except (OSError, Error) as error:
                if not passes(error):
                    raise
                log.error("the database cannot be used, trying again: %s", error)
            if self._stopping.is_set():
                raise asyncio.CancelledError
            await self._pause(1)

    async def _later(
        self, lane: Lane, late: Delivery, error: Exception, *, odd: bool = False, asked: bool = False
    ) -> float:
        """Only this lane waits; what is too old, or fails too often in a way nobody foresaw, is given up."""
        late = replace(late, attempts=max(1, late.attempts))
        lane.odd += odd
        if lane.odd >= ODD_ATTEMPTS or time.time() - late.created > self._retry.give_up:
            return await self._bury(late, error)
        delay, why = self._backoff(late.attempts - 1), told(error)
        tell, lane.told = asked and not lane.told, lane.told or asked
        self._say(logging.INFO, "waits", late, seconds=delay, error=error)

        def rule(tx: Tx) -> None:
            tx.queue.postpone(late, time.time() + delay, why)
            if tell:
                self.destination.waits(tx, late, why)

        await self._commit(rule)
        self.lanes.put_back(lane, late)
        return delay

    def _backoff(self, attempts: int) -> float:
        longest: float = min(self._retry.longest, self._retry.first * 2 ** min(attempts, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    async def _bury(self, delivery: Delivery, error: Exception, prefix: str = "") -> float:
        reason = prefix + told(error)

        def rule(tx: Tx) -> None:
            if self.destination.gave_up(tx, delivery, reason):
                tx.queue.remove(delivery.id)
            else:
                tx.queue.bury(delivery, reason)

        self._count("dead", delivery.created)
        self._say(logging.WARNING, "given up", delivery, error=error)
        try:
            await self._commit(rule)
        except Exception:  # nobody can be told, but it is kept all the same
            log.exception("a dead letter could not be told")
            await self._commit(lambda tx: tx.queue.bury(delivery, reason))
        return 0.0

    def _say(self, level: int, what: str, delivery: Delivery, *, trace: bool = False, **more: object) -> None:
        """One line of the log about a delivery, with the error that is being handled if its `trace` is wanted."""
        if log.isEnabledFor(level):
            about = {"uid": delivery.uid, "destination": self.destination.name, "kind": delivery.kind}
            about |= {"conversation": delivery.conversation, "attempts": max(1, delivery.attempts)}  # type: ignore[dict-item]
            log.log(level, what, exc_info=trace, extra=about | more)

    # --- down and up

    async def _is_down(self, lane: Lane, delivery: Delivery, error: Exception, *, probe: bool) -> float:
        """The destination is in trouble, not the message: it stays first in its lane and one worker probes."""
        reason = told(error)
        asked: float = getattr(error, "retry_after", None) or 0.0
        again = lane.downs > 0 and lane.answers != self._answers  # others got an answer since: it is this one's trouble
        lane.downs, lane.answers = lane.downs + 1, self._answers
        if again and not probe:
            return await self._later(lane, delivery, error)
        if self.destination.careful:  # nothing was taken: it can be cancelled again
            await self._commit(lambda tx: tx.queue.postpone(delivery, 0, reason))
        self.lanes.put_back(lane, delivery)
        if probe or self._up.is_set():
            self._wait = asked or self._backoff(self._failures)
            self._failures += 1
        else:  # it was under way when another found out: no second failure
            self._wait = max(self._wait, asked)
        self.trouble = reason
        if self._up.is_set():
            self._up.clear()
            log.warning("%s is down: %s", self.destination.name, error)
        elif probe and not self._told:  # not a hiccup: people should know
            self._told = True
            await self._on_change(self.destination.name, reason)
        return 0.0

    async def _is_up(self) -> None:
        self._answers += 1
        if self._up.is_set():
            return
        self._failures, self.trouble = 0, ""
        self._up.set()
        log.warning("%s is back", self.destination.name)
        await self.destination.came_back()
        if self._told:
            self._told = False
            await self._on_change(self.destination.name, "")


class Queue:
    """Every line, and the commits that feed them."""

    def __init__(self, lines: Iterable[Line], store: Store) -> None:
        self.lines = {line.destination.name: line for line in lines}
        self._store = store

    def push(self, deliveries: Iterable[Delivery]) -> None:
        """Deliveries that were just committed."""
        for delivery in deliveries:
            if line := self.lines.get(delivery.destination):
                line.lanes.push(delivery)

    async def run(self) -> None:
        """Deliver what is there and what comes, until `stop`."""
        for name, destination, due in await self._store.transact(lambda tx: tx.queue.lanes()):
            if destination in self.lines:
                self.lines[destination].lanes.reopen(name, due)
        async with asyncio.TaskGroup() as tasks:
            for line in self.lines.values():
                tasks.create_task(line.run())

    def stop(self) -> None:
        for line in self.lines.values():
            line.stop()
