"""All IMAP accounts of a connector together: asked at the same time, each with trouble and patience of its own.

A look leads from places in folders to new mails and new places; the places are the connector's cursor, so the bridge
commits them with the mails. One account that is slow or down keeps none of the others waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import astuple

from bridge.model import Unavailable
from plugins.mail.config import Imap
from plugins.mail.imap import Account, News, Place, apart

log = logging.getLogger(__name__)

Places = Mapping[str, Place]  # by folder

LAGGARD = 1.0  # seconds that accounts which have answered wait for those which have not
LONGEST = 300.0  # seconds between two looks at an account that does not answer
OVERDUE = 900.0  # seconds of a look after which it is ended: a server may say a little, again and again, for ever
EARLY = 0.9  # of that time: the bridge, who waits as long, is to find it due
HICCUPS = 2  # looks in a row that may fail before people are told


def dump(places: Mapping[str, Places]) -> str:
    """The cursor of the places in each account's folders."""
    return json.dumps(
        {name: {folder: astuple(place) for folder, place in each.items()} for name, each in places.items()}
    )


def load(cursor: str) -> dict[str, Places]:
    """The places by account and folder; none for the first cursor, ""."""
    found = json.loads(cursor or "{}")
    return {name: {folder: Place(*place) for folder, place in each.items()} for name, each in found.items()}


class Watched:
    """One account under watch: what is asked of it now, and how it has gone lately."""

    def __init__(self, name: str, imap: Imap, max_size: int) -> None:
        self.name = name
        self.account = Account(imap, max_size)
        self.trouble = ""
        self.failures = 0
        self.due = 0.0  # when it is to be asked again, monotonic seconds
        self.look: asyncio.Future[News] | None = None
        self.idle: asyncio.Future[bool] | None = None
        self._from: Places | None = None  # where `look` began
        self._overdue = 0.0  # when what goes on now should have ended long ago
        self._breaks = 0  # times in a row that waiting for the server's word has failed
        self._silent = 0.0  # until then it does not wait for it

    def ask(self, places: Places | None) -> None:
        """Begin a look, unless one goes on."""
        if self.look is None:
            self._from = places
            self._overdue = time.monotonic() + OVERDUE
            self.look = apart(self.account.look, places or {})

    def hurry(self) -> None:
        """End what has gone on for too long; it fails then."""
        now = time.monotonic()
        if (self.look or self.idle) and now > self._overdue:
            self._overdue = now + OVERDUE
            self.account.cut()

    def close(self) -> None:
        """Let the connection go; what goes on ends soon, and by itself."""
        self.account.interrupt()
        self.account.cut()
        if all(each is None or each.done() for each in (self.look, self.idle)):
            self.account.drop()

    def answer(self, places: Places | None, every: float) -> News | None:
        """What the look that has ended has brought; None when it failed, or led from elsewhere."""
        look, self.look = self.look, None
        assert look is not None
        try:
            news = look.result()
        except Unavailable as trouble:
            self._failed(str(trouble), every)
            return None
        if self.failures >= HICCUPS:
            log.info("%s: IMAP works again", self.name)
        self.failures, self.trouble = 0, ""
        self.due = time.monotonic() + min(every, self.account.imap.every)
        return news if self._from == places else None

    def _failed(self, trouble: str, every: float) -> None:
        self.failures += 1
        if trouble != self.trouble:
            log.warning("%s: %s", self.name, trouble)
        self.trouble = trouble
        self.due = time.monotonic() + EARLY * min(LONGEST, every * 2.0 ** min(self.failures - 1, 10))

    def listen(self, places: Places | None) -> None:
        """Begin to wait for the server's word, where it gives it."""
        now = time.monotonic()
        if self.look is None and self.idle is None and self.account.can_idle and now >= self._silent and places:
            self._overdue = self.due + OVERDUE
            self.idle = apart(self.account.idle, places, max(0.0, self.due - now))

    def heard(self) -> bool:
        """Whether the server has something to tell now; or has failed to, and may be asked again."""
        if self.idle is None or not self.idle.done():
            return False
        idle, self.idle = self.idle, None
        try:
            rang = idle.result()
        except Unavailable as trouble:  # a server that breaks off each time is asked now and then only
            log.info("%s: waiting for new mail ended: %s", self.name, trouble)
            self._breaks += 1
            self._silent = self.due if self._breaks > 1 else 0.0
            return self._breaks == 1
        self._breaks = 0
        return rang


class Watch:
    """The accounts, by the address of their mailbox."""

    def __init__(self, accounts: Mapping[str, Imap], max_size: int) -> None:
        self.accounts = {name: Watched(name, imap, max_size) for name, imap in accounts.items()}
        self._places: dict[str, Places] = {}
        self._next: set[str] | None = None  # whom the next look is about; None: all

    async def look(
        self, cursor: str, wanted: Collection[str], every: float
    ) -> tuple[dict[str, News], dict[str, Places]]:
        """What is new in the wanted accounts, and all places behind it; of one that is slow the next look tells.

        Raises `Unavailable` when not one of them answers.
        """
        places = load(cursor)
        accounts = [each for name, each in self.accounts.items() if name in wanted]
        await self._ask(accounts, places)
        found: dict[str, News] = {}
        for each in accounts:
            each.hurry()
            if each.look is not None and each.look.done() and (news := each.answer(places.get(each.name), every)):
                found[each.name] = news
        if accounts and all(each.trouble for each in accounts):
            raise Unavailable("; ".join(f"{each.name}: {each.trouble}" for each in accounts))
        self._next = {name for name, news in found.items() if news.more} or None
        self._places = places | {name: news.places for name, news in found.items()}
        return found, self._places

    async def _ask(self, accounts: Collection[Watched], places: Mapping[str, Places]) -> None:
        now, rung = time.monotonic(), self._next
        self._next = None
        asked = [
            each for each in accounts if now >= each.due or (not each.trouble and (rung is None or each.name in rung))
        ]
        if idles := [each.idle for each in asked if each.idle is not None]:
            for each in asked:
                if each.idle is not None:
                    each.account.interrupt()
            await asyncio.wait(idles, timeout=LAGGARD)
        for each in asked:
            each.heard()
            if each.idle is None:
                each.ask(places.get(each.name))
        if looks := [each.look for each in asked if each.look is not None]:
            await asyncio.wait(looks, timeout=LAGGARD)

    async def wait(self, seconds: float) -> None:
        """Until there may be something new, at most `seconds`."""
        accounts = [each for each in self.accounts.values() if each.name in self._places]
        end = time.monotonic() + seconds
        try:
            while not (rung := self._rung()) and (left := end - time.monotonic()) > 0:
                for each in accounts:
                    if not each.trouble:
                        each.listen(self._places[each.name])
                soonest = min((each.due for each in accounts if not each.idle and not each.look), default=end)
                asked = [future for each in accounts for future in (each.look, each.idle) if future is not None]
                await _first(asked, max(0.01, min(left, soonest - time.monotonic())))
        except asyncio.CancelledError:
            for each in accounts:
                if each.idle is not None:
                    each.account.interrupt()
            raise
        self._next = rung

    def _rung(self) -> set[str]:
        """Those with something to tell, and those whose turn it is."""
        now = time.monotonic()
        heard = {each.name for each in self.accounts.values() if each.heard()}
        ended = {name for name, each in self.accounts.items() if each.look is not None and each.look.done()}
        due = {
            name
            for name, each in self.accounts.items()
            if name in self._places and now >= each.due and each.look is None and each.idle is None
        }
        return heard | ended | due

    def troubles(self) -> dict[str, str]:
        """Which accounts do not answer, and why."""
        return {each.name: each.trouble for each in self.accounts.values() if each.failures >= HICCUPS}

    def close(self) -> None:
        """Let all connections go; what still waits on them ends."""
        for each in self.accounts.values():
            each.close()


async def _first(futures: list[asyncio.Future[News] | asyncio.Future[bool]], seconds: float) -> None:
    if futures:
        await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(seconds)
