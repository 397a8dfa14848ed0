"""Writing down what tools bring, however it comes: one envelope that nobody foresaw does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bridge.hub import Hub
from bridge.model import Envelope, Page, Unavailable
from bridge.store import Store, passes
from bridge.watch.logs import told

log = logging.getLogger(__name__)


class Arrivals:
    """Each method returns after the commit; what it raises passes, and all of it must be brought again."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """What a webhook says. Raises `Unavailable` while a room is not known, `OSError`, `store.Error`."""
        try:
            await self._store.transact(self._hub.accept_all, envelopes)
        except Exception as error:
            if _passing(error):
                raise
            log.exception("what came cannot be understood; now one after the other")
            for envelope in envelopes:
                await self._take_alone(envelope)

    async def take_page(self, connector: str, page: Page) -> None:
        """What a poll brought, with its cursor. Raises as `take`."""
        try:
            await self._store.transact(self._hub.accept_page, connector, page)
        except Exception as error:
            if _passing(error):
                raise
            await self.take(page.envelopes)
            await self._store.transact(lambda tx: tx.conversations.moved_on(connector, page.cursor))

    async def _take_alone(self, envelope: Envelope) -> None:
        try:
            await self._store.transact(self._hub.accept_all, [envelope])
        except Exception as error:  # kept as a dead letter
            if _passing(error):
                raise
            log.exception("what arrived could not be understood", extra={"connector": envelope.connector})
            await self._store.transact(self._hub.keep_aside, envelope, told(error))


def _passing(error: Exception) -> bool:
    """Our own trouble, which will be over: a room is not known yet, the disk is full."""
    return isinstance(error, Unavailable) or passes(error)
