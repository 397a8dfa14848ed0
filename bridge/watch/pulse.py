"""Whether this process lives: its loop turns and its database answers. Asked by /live, told to systemd."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time

from bridge.store import Error, Store

log = logging.getLogger(__name__)

LONGEST = 5.0  # seconds in which the database must answer
FRESH = 1.0  # seconds for which an answer will do: anybody may ask
SELDOM = 3600.0  # seconds between two beats that nobody waits for


class Pulse:
    """Asks the database to take a transaction with nothing in it, so that its thread must come round."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._one = asyncio.Lock()
        self._asked = float("-inf")
        self._alive = True

    async def alive(self) -> bool:
        """Whether it answers; all who ask at the same time get the same answer."""
        async with self._one:
            if time.monotonic() - self._asked > FRESH:
                self._alive = await self._answers()
                self._asked = time.monotonic()
            return self._alive

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(LONGEST):
                await self._store.transact(lambda tx: None)
        except (OSError, Error, TimeoutError) as error:
            log.error("the database does not answer: %s", error)
            return False
        return True

    async def run(self) -> None:
        """Tell systemd that we are ready and then, twice as often as it demands, that we live; until cancelled."""
        notify("READY=1")
        while True:
            if await self.alive():  # at once: of a bridge that follows another one the last word was its predecessor's
                notify("WATCHDOG=1")
            await asyncio.sleep(_interval())


def _interval() -> float:
    """Half of what `WatchdogSec=` allows, in seconds."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) else SELDOM


def notify(what: str) -> None:
    """Tell systemd, if it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        try:
            to.connect("\0" + address[1:] if address.startswith("@") else address)
            to.sendall(what.encode())
        except OSError as error:  # we run all the same; systemd will say that it heard nothing
            log.warning("systemd cannot be told %s: %s", what, error)
