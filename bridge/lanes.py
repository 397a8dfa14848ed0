"""The lanes of one destination: whose turn it is, and how much of each is in memory; the rest is in the database."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bridge.model import Delivery

PAGE = 100  # deliveries of one lane in memory; the rest waits in the database
MOST = 10_000  # deliveries of all lanes in memory

# Reads what the database has of a lane: its name, the place after which, at most how many.
Read = Callable[[str, int, int], Awaitable[list[Delivery]]]


@dataclass(slots=True)
class Lane:
    """The order of deliveries; `spilled` when the database holds more than `backlog` does."""

    name: str
    backlog: deque[Delivery] = field(default_factory=deque)
    spilled: bool = False
    missed: bool = False  # something was committed while the database was read
    last: int = 0
    scheduled: bool = False  # waits for a worker, for its time, or is being worked on
    odd: int = 0  # of the first delivery: failures nobody foresaw
    downs: int = 0  # failures that looked like the destination's
    answers: int = 0  # what the line had heard at the last of these
    told: bool = False  # people know that it was asked to wait

    @property
    def empty(self) -> bool:
        return not self.backlog and not self.spilled


class Lanes:
    """Every lane that has something to do, each in the hands of one worker at a time."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.open: dict[str, Lane] = {}
        self.held = 0  # deliveries in memory
        self._turns: asyncio.Queue[Lane | None] = asyncio.Queue()

    def push(self, delivery: Delivery) -> None:
        """A delivery that was just committed, at the end of its lane."""
        lane = self.open.get(delivery.lane) or self.open.setdefault(delivery.lane, Lane(delivery.lane))
        if lane.spilled or len(lane.backlog) >= PAGE or self.held >= MOST:
            lane.spilled = lane.missed = True
        else:
            lane.backlog.append(delivery)
            self.held += 1
        self._schedule(lane)

    def reopen(self, name: str, due: float) -> None:
        """A lane that the database has something for; it is not even read before that is due."""
        lane = self.open.setdefault(name, Lane(name))
        self._forget(lane)  # what was pushed before is read again, behind what is older
        if not lane.scheduled:
            self.end_turn(lane, due - time.time(), done=False)

    def _forget(self, lane: Lane) -> None:
        """The database knows better what is in the lane."""
        self.held -= len(lane.backlog)
        lane.backlog.clear()
        lane.spilled = True

    def reread(self, lane: Lane, delivery: Delivery) -> None:
        """The row of the lane's first delivery was amended."""
        lane.last = delivery.id - 1
        self._forget(lane)

    def put_back(self, lane: Lane, delivery: Delivery) -> None:
        """It stays first in its lane."""
        lane.backlog.appendleft(delivery)
        self.held += 1

    async def first(self, lane: Lane) -> Delivery | None:
        """Take the lane's first delivery out of it, from the database if need be."""
        while not lane.backlog and lane.spilled:
            lane.missed = False
            limit = PAGE if self.held < MOST else 1
            page = await self._read(lane.name, lane.last, limit)
            lane.backlog.extend(page)
            self.held += len(page)
            lane.spilled = len(page) == limit or lane.missed
        if not lane.backlog:
            return None
        delivery = lane.backlog.popleft()
        self.held -= 1
        if delivery.id != lane.last:
            lane.last, lane.odd, lane.downs, lane.told = delivery.id, 0, 0, False
        return delivery

    # --- turns

    async def turn(self) -> Lane | None:
        """The lane whose turn it is; None when its worker should end."""
        return await self._turns.get()

    def end_turn(self, lane: Lane, delay: float, *, done: bool) -> None:
        """The lane waits for its turn again, for its time, or is forgotten when it is done and nothing came."""
        lane.scheduled = False
        if done and lane.empty:
            self.open.pop(lane.name, None)
        elif delay > 0:
            lane.scheduled = True
            asyncio.get_running_loop().call_later(delay, self._turns.put_nowait, lane)
        else:
            self._schedule(lane)

    def stop(self, workers: int) -> None:
        """Each worker gets its end."""
        for _ in range(workers):
            self._turns.put_nowait(None)

    def _schedule(self, lane: Lane) -> None:
        if not lane.scheduled:
            lane.scheduled = True
            self._turns.put_nowait(lane)
