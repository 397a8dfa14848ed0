"""Writing down what the homeserver says: one event that nobody foresaw does not stop those after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.config import Config
from bridge.hearing import Hearing
from bridge.matrix.rooms import Rooms
from bridge.model import RoomEvent
from bridge.places import Places
from bridge.store import Store, Tx, passes
from bridge.watch.logs import told

log = logging.getLogger(__name__)

CATCH_UP_WAIT = 30  # seconds a transaction waits for its rooms before the homeserver is asked to come again


class Heard:
    """Each method returns after the commit; what it raises passes, and all of it must be brought again."""

    def __init__(
        self, config: Config, store: Store, rooms: Rooms, places: Places, hearing: Hearing,
        is_echo: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._config = config
        self._store = store
        self._rooms = rooms
        self._places = places
        self._hearing = hearing
        self._is_echo = is_echo

    async def take(self, events: list[RoomEvent]) -> None:
        """A transaction of the homeserver: it waits behind the catch-up of its rooms."""
        events = [event for event in events if self._matters(event)]
        async with asyncio.timeout(CATCH_UP_WAIT):
            behind = [room for room in {event.room for event in events} if not self._rooms.is_caught_up(room)]
            if self._places.mapped().intersection(behind):
                self._rooms.look()  # the homeserver has just spoken to us: no need to wait longer
            for room in behind:
                await self._rooms.caught_up(room)
        await self.write_down(events)

    async def write_down(self, events: list[RoomEvent]) -> None:
        """All of them, in order; or none and an error."""
        events = [event for event in events if self._matters(event)]
        try:
            if events:
                await self._store.transact(self._hear_all, events)
        except Exception as error:  # an event may be of a kind nobody foresaw: it must not stop those after it
            if passes(error):
                raise  # they are not written down: the homeserver must send them again
            log.exception("an event cannot be understood; now one after the other")
            for event in events:
                await self._hear_alone(event)

    def _matters(self, event: RoomEvent) -> bool:
        return self._hearing.matters(event) and not (
            self._config.is_ours(event.sender) and self._is_echo(event.delivery)
        )

    def _hear_all(self, tx: Tx, events: list[RoomEvent]) -> None:
        for event in events:
            self._hearing.hear(tx, event)

    async def _hear_alone(self, event: RoomEvent) -> None:
        try:
            await self._store.transact(self._hearing.hear, event)
        except Exception as error:  # kept as a dead letter
            if passes(error):
                raise
            log.exception("an event could not be understood", extra={"event": event.id})
            await self._store.transact(self._hearing.keep_aside, event, told(error))
