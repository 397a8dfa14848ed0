"""Tools that are asked: each page is written down together with its cursor, so that none is lost or comes twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bridge.connector import Connector
from bridge.hub import Hub
from bridge.model import Deferred, Rejected, Unavailable, Unconfirmed
from bridge.store import Error, Store, passes

log = logging.getLogger(__name__)

LONGEST = 300.0  # seconds between two polls of a tool that does not answer
HICCUPS = 2  # polls in a row that may fail before people are told


class Poller:
    """Asks one tool again and again until cancelled."""

    def __init__(
        self, connector: Connector, store: Store, hub: Hub, on_change: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self._connector = connector
        self._store = store
        self._hub = hub
        self._on_change = on_change
        self._failures = 0
        self.trouble = ""

    async def run(self) -> None:
        """Poll; a tool that is down is named once, and asked less and less often."""
        while True:
            try:
                more = await self._once()
            except (Unavailable, Unconfirmed, Deferred, Rejected, OSError, TimeoutError) as error:
                await asyncio.sleep(await self._failed(error))
            except Error as error:
                if not passes(error):
                    raise
                log.error("what %s said cannot be written down yet: %s", self._connector.name, error)
                await asyncio.sleep(1)
            else:
                await self._answered()
                await asyncio.sleep(0 if more else self._connector.every)

    async def _once(self) -> bool:
        """One page; whether there is more now."""
        name = self._connector.name
        cursor = await self._store.transact(lambda tx: tx.conversations.cursor(name))
        page = await self._connector.poll(cursor)
        if page.envelopes or page.cursor != cursor:
            await self._store.transact(self._hub.accept_page, name, page)
        return page.more

    async def _failed(self, error: Exception) -> float:
        """How long to wait now."""
        self._failures += 1
        self.trouble = str(error) or type(error).__name__
        log.warning("%s cannot be polled: %s", self._connector.name, self.trouble)
        if self._failures == HICCUPS:
            await self._on_change(self._connector.name, self.trouble)
        asked: float = getattr(error, "retry_after", None) or 0.0
        return max(asked, min(LONGEST, self._connector.every * 2.0 ** min(self._failures - 1, 10)))

    async def _answered(self) -> None:
        told, self._failures, self.trouble = self._failures >= HICCUPS, 0, ""
        if told:
            await self._on_change(self._connector.name, "")
