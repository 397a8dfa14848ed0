"""Tools that are asked: each page is written down together with its cursor, so that none is lost or comes twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from bridge.arrivals import Arrivals
from bridge.connector import Connector
from bridge.model import Author, Card, Deferred, Envelope, Gone, Page, Rejected, Unavailable, Unconfirmed
from bridge.store import Error, Store
from bridge.watch.logs import told

log = logging.getLogger(__name__)

LONGEST = 300.0  # seconds between two polls of a tool that does not answer
LOOK = 20.0  # seconds between two looks at items of a tool that deletes without a word
OURS = 2.0  # seconds until what we could not write down is asked for again
HICCUPS = 2  # polls in a row that may fail before people are told


class Poller:
    """Asks one tool again and again until cancelled."""

    def __init__(
        self, connector: Connector, store: Store, arrivals: Arrivals, on_change: Callable[[str, str], Awaitable[None]],
        look: float = LOOK,
    ) -> None:  # fmt: skip
        self._connector = connector
        self._store = store
        self._arrivals = arrivals
        self._on_change = on_change
        self._failures = 0
        self._pause = look
        self._looked = (0.0, 0)  # when an item was looked at last, and which
        self._parts: set[str] = set()  # parts of the tool that people were told are away
        self.trouble = ""

    async def run(self) -> None:
        """Poll; a tool that is down is named once, and asked less and less often."""
        while True:
            if not self._connector.port.scopes():  # no room wants anything of it: it begins when one does
                self.trouble = ""
                await asyncio.sleep(self._connector.every)
                continue
            cursor = await self._store.transact(lambda tx: tx.conversations.cursor(self._connector.name))
            page = await self._asked(cursor)
            if page is not None and await self._written_down(page, cursor):
                await self._look(page.cursor)
                goes_on = page.more and page.cursor != cursor  # else it would be asked the same without a pause
                await (asyncio.sleep(0) if goes_on else self._connector.wait())

    async def _written_down(self, page: Page, cursor: str) -> bool:
        """False, after a while, when it must be asked for again: a room is not known yet, the disk is full."""
        if not page.envelopes and page.cursor == cursor:
            return True
        try:
            await self._arrivals.take_page(self._connector.name, page)
        except (Unavailable, OSError, Error) as error:
            log.error("what %s said cannot be written down yet: %s", self._connector.name, error)
            self.trouble = f"what it said cannot be written down yet: {told(error)}"
            await asyncio.sleep(OURS)
            return False
        return True

    async def _look(self, cursor: str) -> None:
        """Whether one of the items that rooms follow is still there, each in its turn, where no poll would tell."""
        (at, item), name = self._looked, self._connector.name
        if not self._connector.silent or time.monotonic() < at + self._pause:
            return
        item, remote = await self._store.transact(lambda tx: tx.cards.followed(name, item))
        self._looked = time.monotonic(), item
        try:
            if remote and self._connector.match(remote) == remote:  # else it is still to be made
                await self._connector.fetch(remote)
        except Gone:
            deleted, key = Card(remote, remote, "", gone=True), f"gone {remote}"
            envelope = Envelope(name, (), key, key, Author(name, ""), time.time(), item=remote, card=deleted)
            await self._written_down(Page((envelope,), cursor), cursor)
        except (Unavailable, Unconfirmed, Deferred, Rejected, OSError, TimeoutError) as error:
            log.debug("%s does not show %s: %s", name, remote, told(error))  # the next poll says what is wrong

    async def _asked(self, cursor: str) -> Page | None:
        """A page; None, after a while, when the tool does not answer."""
        try:
            page = await self._connector.poll(cursor)
        except (Unavailable, Unconfirmed, Deferred, Rejected, OSError, TimeoutError) as error:
            await asyncio.sleep(await self._failed(error))
            return None
        await self._answered()
        return page

    async def _failed(self, error: Exception) -> float:
        """How long to wait now."""
        self._failures += 1
        self.trouble = told(error)
        log.warning("%s cannot be polled: %s", self._connector.name, error)
        if self._failures == HICCUPS:
            await self._on_change(self._connector.name, self.trouble)
        asked: float = getattr(error, "retry_after", None) or 0.0
        return max(asked, min(LONGEST, self._connector.every * 2.0 ** min(self._failures - 1, 10)))

    async def _answered(self) -> None:
        was_told, self._failures = self._failures >= HICCUPS, 0
        if was_told:
            await self._on_change(self._connector.name, "")
        parts = self._connector.troubles()
        self.trouble = "; ".join(f"{part}: {reason}" for part, reason in parts.items())
        for part in self._parts ^ parts.keys():
            await self._on_change(part, parts.get(part, ""))
        self._parts = set(parts)
