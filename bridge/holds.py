"""The seconds in which an outward message waits: timers in memory, what is left of them in the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from typing import TypeVar

from bridge import payload
from bridge.matrix.rooms import Rooms
from bridge.model import Deferred, Delivery, Draft
from bridge.outward import Outward
from bridge.store import Error, Store, Tx

T = TypeVar("T")

log = logging.getLogger(__name__)
AGAIN = 1.0  # seconds until a hold that could not end is looked at again


class Holds:
    """Ends holds when their time has come and their room is known without a gap."""

    def __init__(self, store: Store, outward: Outward, rooms: Rooms) -> None:
        self._store = store
        self._outward = outward
        self._rooms = rooms
        self._ends: dict[str, float] = {}  # uid: on the monotonic clock
        self._late: set[str] = set()  # over, but their room could not be read
        self._changed = asyncio.Event()

    def start(self, timers: list[tuple[str, float]]) -> None:
        """Hold these drafts for so many seconds from now; an earlier hold of the same draft is forgotten."""
        for uid, seconds in timers:
            self._ends[uid] = time.monotonic() + seconds
            self._late.discard(uid)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled; what is left of the holds is then written down."""
        self.start([(each.uid, each.hold) for each in await self._store.transact(lambda tx: tx.queue.held())])
        try:
            while True:
                self._changed.clear()
                await self._end_due()
                wait = min(self._ends.values(), default=time.monotonic() + 3600) - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), max(0.0, wait))
        finally:
            try:
                await asyncio.shield(self._store.transact(self._write_remaining))
            except (OSError, Error) as error:  # then each is held in full again
                log.error("the remaining seconds of holds could not be written down: %s", error)

    async def _end_due(self) -> None:
        """What is over leaves, after one look into each room; what cannot end is looked at again."""
        now, again = time.monotonic(), time.monotonic() + AGAIN
        over = [uid for uid, end in self._ends.items() if end <= now]
        due = [uid for uid in self._ends if uid in over or (over and uid in self._late)]  # none overtakes another
        self._ends.update(dict.fromkeys(due, again))
        rooms = await self._tried(self._store.transact(self._held, due)) if due else None
        waiting = set() if rooms is not None else set(due)
        for where, held in (rooms or {}).items():
            if not await self._tried(self._end(where, held)):
                waiting.update(each.uid for each in held)
        self._late = waiting
        for uid in due:
            if uid not in waiting and self._ends[uid] == again:  # else a new hold has begun
                del self._ends[uid]

    async def _end(self, rooms: tuple[str, ...], held: list[Delivery]) -> bool:
        for room in rooms:
            await self._rooms.settle(room)
        await self._store.transact(self._over, held)
        return True

    async def _tried(self, part: Awaitable[T]) -> T | None:
        try:
            return await part
        except Deferred as error:
            log.warning("a hold cannot end yet: %s", error)
        except Exception:  # a full disk, say: the draft stays held and is looked at again
            log.exception("a hold could not be ended")
        return None

    def _held(self, tx: Tx, uids: list[str]) -> dict[tuple[str, ...], list[Delivery]]:
        """Those that are still held, by the rooms where they can be stopped."""
        rooms: dict[tuple[str, ...], list[Delivery]] = {}
        for delivery in filter(None, map(tx.queue.get, uids)):
            if delivery.state == "held":
                rooms.setdefault(payload.load(Draft, delivery.payload).rooms, []).append(delivery)
        return rooms

    def _over(self, tx: Tx, held: list[Delivery]) -> None:
        for delivery in held:
            self._outward.hold_over(tx, delivery.uid, delivery.payload)

    def _write_remaining(self, tx: Tx) -> None:
        for uid, end in self._ends.items():
            delivery = tx.queue.get(uid)
            if delivery is not None and delivery.state == "held":
                tx.queue.move(uid, "held", hold=max(0.0, end - time.monotonic()))
