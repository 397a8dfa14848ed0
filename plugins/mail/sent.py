"""Copies of what we sent, for the mailbox's own folder of sent mail.

A copy follows the smarthost's yes and decides nothing: that it cannot be kept repeats no mail and fails no delivery.
Copies wait in memory until the server takes them; a mail is looked for by its Message-ID before it is put there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from bridge.model import Unavailable
from plugins.mail.config import Imap
from plugins.mail.imap import Account, apart

log = logging.getLogger(__name__)

MOST = 64_000_000  # octets of copies that wait
PATIENCE = 2.0  # seconds that a delivery waits for its copy; then it goes on without
FIRST, LONGEST = 5.0, 300.0  # seconds between two attempts
OVERDUE = 900.0  # seconds after which an attempt is ended


class Copies:
    """Copies for one account. `run` keeps them; one after the other."""

    def __init__(self, name: str, imap: Imap) -> None:
        self.trouble = ""
        self._name = name
        self._imap = imap
        self._waiting: deque[tuple[str, bytes, asyncio.Event]] = deque()
        self._some = asyncio.Event()
        self._one = asyncio.Lock()  # one after the other, also while we stop
        self._running = False

    async def keep(self, message_id: str, raw: bytes) -> None:
        """Have a copy kept, soon. Never raises, except when cancelled."""
        if sum(len(each) for _, each, _ in self._waiting) + len(raw) > MOST:
            log.error("%s: no copy of %s is kept in the folder of sent mail: too many wait", self._name, message_id)
            return
        done = asyncio.Event()
        self._waiting.append((message_id, raw, done))
        self._some.set()
        try:
            async with asyncio.timeout(PATIENCE):
                if not self._running:  # we are stopping, and this is the end of the last deliveries
                    await self._next()
                elif not self.trouble:
                    await done.wait()
        except TimeoutError:
            log.info("%s: the copy of %s follows", self._name, message_id)

    async def run(self) -> None:
        """Keep copies until cancelled; a server that is down is asked again and again."""
        self._running, wait = True, FIRST
        try:
            while True:
                await self._some.wait()
                if await self._next():
                    wait = FIRST
                else:
                    await asyncio.sleep(wait)
                    wait = min(LONGEST, wait * 2)
        finally:
            self._running = False
            for message_id, _, _ in self._waiting:
                log.warning("%s: no copy of %s is kept in the folder of sent mail", self._name, message_id)

    async def _next(self) -> bool:
        """Keep the first that waits; whether that went well."""
        async with self._one:
            if not self._waiting:
                self._some.clear()
                return True
            message_id, raw, done = self._waiting[0]
            account = Account(self._imap, 0)
            try:
                async with asyncio.timeout(OVERDUE):
                    await apart(_keep, account, message_id, raw)
            except (Unavailable, TimeoutError) as error:
                account.cut()
                trouble = str(error) or f"{account.where} does not come to an end"
                if trouble != self.trouble:
                    log.warning("%s: no copy of %s can be kept now: %s", self._name, message_id, trouble)
                self.trouble = trouble
                self._waiting.rotate(-1)  # the server may refuse this one only
                return False
            self.trouble = ""
            self._waiting.popleft()
            done.set()
            return True


def _keep(account: Account, message_id: str, raw: bytes) -> None:
    """With a connection of its own: the other one is busy listening."""
    try:
        account.keep(message_id, raw)
    finally:
        account.drop()
