"""The seconds in which an outward message waits: timers in memory, what is left of them in the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from bridge import payload
from bridge.matrix.rooms import Rooms
from bridge.model import Deferred, Delivery, Draft
from bridge.outward import Outward
from bridge.store import Error, Store, Tx

log = logging.getLogger(__name__)
AGAIN = 1.0  # seconds until a hold that could not end is looked at again


class Holds:
    """Ends holds when their time has come and their room is known without a gap."""

    def __init__(self, store: Store, outward: Outward, rooms: Rooms) -> None:
        self._store = store
        self._outward = outward
        self._rooms = rooms
        self._ends: dict[str, float] = {}  # uid: on the monotonic clock
        self._changed = asyncio.Event()

    def start(self, timers: list[tuple[str, float]]) -> None:
        """Hold these drafts for so many seconds from now; an earlier hold of the same draft is forgotten."""
        for uid, seconds in timers:
            self._ends[uid] = time.monotonic() + seconds
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
        for uid in [uid for uid, end in self._ends.items() if end <= time.monotonic()]:
            self._ends[uid] = time.monotonic() + AGAIN
            try:
                await self._end(uid)
            except Deferred as error:
                log.warning("a hold cannot end yet: %s", error)
            except Exception:  # a full disk, say: the draft stays held and is looked at again
                log.exception("a hold could not be ended")

    async def _end(self, uid: str) -> None:
        again = self._ends[uid]
        if delivery := await self._held(uid):
            await self._rooms.settle(payload.load(Draft, delivery.payload).room)
            if self._ends[uid] != again:  # it was changed in the last moment: a new hold has begun
                return
            if delivery := await self._held(uid):
                await self._store.transact(self._outward.hold_over, uid, delivery.payload)
        if self._ends.get(uid) == again:
            del self._ends[uid]

    async def _held(self, uid: str) -> Delivery | None:
        delivery = await self._store.transact(lambda tx: tx.queue.get(uid))
        return delivery if delivery is not None and delivery.state == "held" else None

    def _write_remaining(self, tx: Tx) -> None:
        for uid, end in self._ends.items():
            delivery = tx.queue.get(uid)
            if delivery is not None and delivery.state == "held":
                tx.queue.move(uid, "held", hold=max(0.0, end - time.monotonic()))
