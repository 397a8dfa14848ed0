"""Lanes: one delivery at a time in a lane, lanes in parallel, failures waited out, what cannot be delivered buried."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from bridge.config import Retry
from bridge.model import Deferred, Delivery, Rejected, Unavailable
from bridge.store import Store, Tx

log = logging.getLogger(__name__)

PAGE = 100  # deliveries of one lane in memory; the rest waits in the database
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

    async def came_back(self) -> None:
        """The destination answers again after it did not."""


@dataclass(slots=True)
class Lane:
    """The order of deliveries; `spilled` when the database holds more than `backlog` does."""

    name: str
    backlog: deque[Delivery] = field(default_factory=deque)
    spilled: bool = False
    missed: bool = False  # something was committed while the database was read
    last: int = 0
    scheduled: bool = False  # waits for a worker, for its time, or is being worked on


class Line:
    """All lanes of one destination and the few workers that serve them."""

    def __init__(
        self, store: Store, destination: Destination, retry: Retry, on_change: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self.destination = destination
        self._store = store
        self._retry = retry
        self._on_change = on_change
        self._lanes: dict[str, Lane] = {}
        self._ready: asyncio.Queue[Lane | None] = asyncio.Queue()
        self._up = asyncio.Event()
        self._up.set()
        self._probing = asyncio.Lock()
        self._failures = 0
        self._wait = 0.0
        self._stopping = asyncio.Event()
        self._born = time.time()
        self.trouble = ""

    # --- what comes in

    def push(self, delivery: Delivery) -> None:
        lane = self._lanes.get(delivery.lane) or self._lanes.setdefault(delivery.lane, Lane(delivery.lane))
        if lane.spilled or len(lane.backlog) >= PAGE:
            lane.spilled = lane.missed = True
        else:
            lane.backlog.append(delivery)
        self._schedule(lane)

    def reopen(self, name: str) -> None:
        """A lane that the database has something for."""
        lane = self._lanes.setdefault(name, Lane(name))
        lane.spilled = True
        self._schedule(lane)

    def _schedule(self, lane: Lane) -> None:
        if not lane.scheduled:
            lane.scheduled = True
            self._ready.put_nowait(lane)

    # --- workers

    async def run(self) -> None:
        """Serve the lanes until `stop`; what is in flight then is finished."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self.destination.parallel):
                workers.create_task(self._work())

    def stop(self) -> None:
        self._stopping.set()
        for _ in range(self.destination.parallel):
            self._ready.put_nowait(None)

    async def _work(self) -> None:
        while not self._stopping.is_set():
            lane = await self._ready.get()
            if lane is None:
                return
            if self._up.is_set():
                await self._step(lane)
            else:
                await self._wait_and_probe(lane)

    async def _wait_and_probe(self, lane: Lane) -> None:
        """While the destination is down, one worker at a time tries, with the next lane each time."""
        async with self._probing:
            if not self._up.is_set():
                await self._pause(self._wait)
            if not self._stopping.is_set():
                await self._step(lane)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _step(self, lane: Lane) -> None:
        """Deliver the lane's next; then the lane waits for its turn again, for its time, or is forgotten."""
        delay = 0.0
        delivery = await self._next(lane)
        if delivery is not None:
            delay = delivery.due - time.time()
            if delay <= 0:
                delay = await self._attempt(lane, delivery)
            else:
                lane.backlog.appendleft(delivery)
        lane.scheduled = False
        if delivery is None and not lane.backlog and not lane.spilled:
            self._lanes.pop(lane.name, None)
        elif delay > 0:
            lane.scheduled = True
            asyncio.get_running_loop().call_later(delay, self._ready.put_nowait, lane)
        else:
            self._schedule(lane)

    async def _next(self, lane: Lane) -> Delivery | None:
        while not lane.backlog and lane.spilled:
            lane.missed = False
            page = await self._store.transact(lambda tx: tx.queue.head(lane.name, lane.last, PAGE))
            # A previous life of this process may have begun to deliver them.
            lane.backlog.extend(
                replace(row, doubt=row.doubt or row.created) if row.created < self._born else row for row in page
            )
            lane.spilled = len(page) == PAGE or lane.missed
            if not page and not lane.missed:
                break
        if not lane.backlog:
            return None
        delivery = lane.backlog.popleft()
        lane.last = delivery.id
        return delivery

    # --- one attempt

    async def _attempt(self, lane: Lane, delivery: Delivery) -> float:
        """Returns the seconds until the lane may go on."""
        try:
            await self.destination.prepare(delivery)
            begun = await self._begun(delivery)
            if begun is None:
                return 0.0
            delivery = begun
            crossing = await self.destination.deliver(delivery)
        except (Unavailable, OSError, TimeoutError) as error:
            return await self._is_down(lane, delivery, error)
        except Rejected as error:
            return await self._bury(delivery, str(error))
        except Deferred as error:
            return await self._later(lane, delivery, str(error), doubtful=False)
        except Exception as error:  # whatever it is, the message is kept and the other lanes go on
            log.exception("delivery %s to %s failed", delivery.uid, self.destination.name)
            return await self._later(lane, delivery, f"{type(error).__name__}: {error}", doubtful=True)
        await self._is_up()
        return await self._cross_out(lane, delivery, crossing)

    async def _begun(self, delivery: Delivery) -> Delivery | None:
        """The delivery with the attempt written down; None when it was cancelled or replayed under another number."""
        if not (self.destination.careful or delivery.attempts or delivery.doubt):
            return delivery  # a first attempt: that the row exists says enough
        begun = await self._commit(lambda tx: tx.queue.begin(delivery))
        return replace(begun, doubt=delivery.doubt or begun.doubt) if begun else None

    async def _cross_out(self, lane: Lane, delivery: Delivery, crossing: Crossing) -> float:
        def rule(tx: Tx) -> float | None:
            again = crossing(tx)
            if again is None:
                tx.queue.remove(delivery.id)
                return None
            tx.queue.postpone(delivery, again, "", doubtful=False)
            return again

        again = await self._commit(rule)
        if again is None:
            return 0.0
        lane.spilled, lane.last = True, delivery.id - 1  # the row was amended: read it again
        lane.backlog.clear()
        return max(0.01, again - time.time())

    async def _commit(self, rule: Callable[[Tx], T]) -> T:
        """The other side has said yes, so this must be written: a full disk is waited out."""
        while True:
            try:
                return await self._store.transact(rule)
            except OSError as error:
                log.error("cannot write down a delivery, trying again: %s", error)
            except Exception:  # sqlite3's errors are of many kinds; dropping the answer would deliver twice
                log.exception("cannot write down a delivery, trying again")
            if self._stopping.is_set():
                raise asyncio.CancelledError
            await self._pause(1)

    async def _later(self, lane: Lane, delivery: Delivery, error: str, *, doubtful: bool) -> float:
        await self._is_up()
        odd = doubtful and delivery.attempts + 1 >= ODD_ATTEMPTS and not self.destination.careful
        if odd or time.time() - delivery.created > self._retry.give_up:
            return await self._bury(delivery, error)
        delay = self._backoff(delivery.attempts)
        late = replace(delivery, attempts=max(1, delivery.attempts), doubt=delivery.doubt or time.time())
        await self._commit(lambda tx: tx.queue.postpone(late, time.time() + delay, error, doubtful=doubtful))
        lane.backlog.appendleft(replace(late, doubt=late.doubt if doubtful else None))
        return delay

    def _backoff(self, attempts: int) -> float:
        longest: float = min(self._retry.longest, self._retry.first * 2 ** min(attempts, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    async def _bury(self, delivery: Delivery, reason: str) -> float:
        def rule(tx: Tx) -> None:
            if self.destination.gave_up(tx, delivery, reason):
                tx.queue.remove(delivery.id)
            else:
                tx.queue.bury(delivery, reason)

        await self._is_up()
        log.warning("delivery %s to %s given up", delivery.uid, self.destination.name)
        await self._commit(rule)
        return 0.0

    # --- down and up

    async def _is_down(self, lane: Lane, delivery: Delivery, error: Exception) -> float:
        """The destination is in trouble, not the message: it stays first in its lane and one worker probes."""
        reason = str(error) or type(error).__name__
        if self.destination.careful:  # nothing was taken: it can be cancelled again
            await self._commit(lambda tx: tx.queue.postpone(delivery, 0, reason, doubtful=False))
        lane.backlog.appendleft(delivery)
        asked: float | None = getattr(error, "retry_after", None)
        self._wait = asked or self._backoff(self._failures)
        self._failures += 1
        self.trouble = reason
        if self._up.is_set():
            self._up.clear()
            log.warning("%s is down: %s", self.destination.name, reason)
            await self._on_change(self.destination.name, reason)
        return 0.0

    async def _is_up(self) -> None:
        if self._up.is_set():
            return
        self._failures, self.trouble = 0, ""
        self._up.set()
        log.warning("%s is back", self.destination.name)
        await self.destination.came_back()
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
                line.push(delivery)

    async def run(self) -> None:
        """Deliver what is there and what comes, until `stop`."""
        for name, destination in await self._store.transact(lambda tx: tx.queue.lanes()):
            if destination in self.lines:
                self.lines[destination].reopen(name)
        async with asyncio.TaskGroup() as tasks:
            for line in self.lines.values():
                tasks.create_task(line.run())

    def stop(self) -> None:
        for line in self.lines.values():
            line.stop()
