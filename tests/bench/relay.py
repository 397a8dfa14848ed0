"""A relay in front of the homeserver that notes when each numbered message was confirmed, and does nothing else.

Both sides of a comparison go through it, so that one clock, in one place, has measured both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import cast

from tests.bench.mails import MARK

Note = Callable[[int, float], None]  # a message's number, and when the homeserver had said yes to it


class Relay:
    """Passes bytes on. `notes` has, by run, who wants to hear of its messages."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.notes: dict[str, Note] = {}
        self.last = 0.0  # when something was last answered

    async def quiet(self, seconds: float) -> bool:
        """Whether nothing has been answered for so long."""
        return time.monotonic() - self.last > seconds

    def answered(self, asked: bytes, answer: bytes) -> None:
        """A request has its answer; one at a time is under way on a connection."""
        self.last = time.monotonic()
        if asked.startswith(b"PUT ") and b"/send/" in asked[:400] and answer.startswith(b"HTTP/1.1 200"):
            mark = MARK.search(asked.decode("utf-8", "replace"))
            if mark and mark[2] in self.notes:
                self.notes[mark[2]](int(mark[1]), time.monotonic())


class _Inner(asyncio.Protocol):
    """Our connection to the homeserver."""

    def __init__(self, outer: _Outer) -> None:
        self.outer = outer

    def data_received(self, data: bytes) -> None:
        self.outer.answer(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.outer.transport.close()


class _Outer(asyncio.Protocol):
    """A client's connection to us."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.asked = bytearray()
        self.waiting: list[bytes] = []
        self.inner: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            inner, _ = await loop.create_connection(lambda: _Inner(self), "127.0.0.1", self.relay.target)
        except OSError:
            self.transport.close()
            return
        self.inner = inner
        for data in self.waiting:
            inner.write(data)
        self.waiting.clear()

    def data_received(self, data: bytes) -> None:
        self.asked += data
        if self.inner is None:
            self.waiting.append(data)
        else:
            self.inner.write(data)

    def answer(self, data: bytes) -> None:
        self.transport.write(data)
        if self.asked:
            asked, self.asked = bytes(self.asked), bytearray()
            self.relay.answered(asked, data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.inner:
            self.inner.close()


@contextlib.asynccontextmanager
async def relaying(port: int) -> AsyncIterator[Relay]:
    """A relay to that port of this machine."""
    relay = Relay(port)
    server = await asyncio.get_running_loop().create_server(lambda: _Outer(relay), "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
