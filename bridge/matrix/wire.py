"""A few kept HTTP/1.1 connections to the homeserver: one request at a time on each, answers read whole.

Nearly all that the bridge asks of a homeserver is small and goes to the same place; a general client costs several
times what such a request needs. Files go through aiohttp, which streams them.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote, urlsplit

import httptools

MOST = 64 * 2**20  # bytes of an answer
IDLE = 50.0  # seconds after which an idle connection is not trusted any more
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_IDEMPOTENT = {"GET", "PUT", "DELETE"}  # RFC 9110 9.2.2


class Broken(OSError):
    """No whole answer came: the server cannot be reached, hung up, is too slow, or does not speak HTTP."""


@dataclass(slots=True)
class Answer:
    """What the server said: the status, the header fields (names lower-cased), the body."""

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Wire:
    """Connections to one server, `limit` at most. `seconds` is how long one request may take.

    The server's certificate is verified: by `tls`, or by the system's authorities.
    """

    def __init__(self, url: str, seconds: float, limit: int, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._base = parts.path.rstrip("/")
        self._name = parts.netloc.rpartition("@")[2]
        self._seconds = seconds
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(limit)

    async def request(self, method: str, target: str, fields: str, body: bytes = b"") -> Answer:
        """One request; `fields` are header lines, each ended by CRLF. Raises `Broken`.

        A connection that the server had closed without our noticing is replaced once, where repeating does no harm.
        """
        head = (
            f"{method} {self._base}/{quote(target, safe=_PRINTABLE)} HTTP/1.1\r\n"
            f"Host: {self._name}\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
        )
        whole = head.encode("ascii") + body
        async with self._free:
            while kept := self._kept():
                try:
                    return await self._asked(kept, whole)
                except Broken:
                    if method not in _IDEMPOTENT or not kept.stale:
                        raise
            return await self._asked(await self._connected(), whole)

    def _kept(self) -> _Connection | None:
        """An idle connection that still stands, the last used first."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.open and now - connection.used < IDLE:
                return connection
            connection.close()
        return None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                _, made = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise Broken(str(error) or type(error).__name__) from None
        return made

    async def _asked(self, connection: _Connection, whole: bytes) -> Answer:
        try:
            answer = await connection.ask(whole, self._seconds)
        except BaseException:  # cancelled, too: what comes now would be taken for the next request's answer
            connection.close()
            raise
        if connection.open:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Hang up; a request under way fails."""
        while self._idle:
            self._idle.pop().close()


class _Connection(asyncio.Protocol):
    """One connection. It was `stale` when the server hung up instead of answering."""

    def __init__(self) -> None:
        self.open = False
        self.stale = False
        self.used = 0.0
        self._silent = True  # nothing came since the last request
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._pieces: list[bytes] = []
        self._size = 0

    async def ask(self, whole: bytes, seconds: float) -> Answer:
        loop = asyncio.get_running_loop()
        self._silent = True
        self._answer, self._pieces, self._size = Answer(), [], 0  # nothing of the last one may pass for this one's
        self._waiting = loop.create_future()
        timer = loop.call_later(seconds, self._fail, f"no answer within {seconds:g} seconds")
        self._transport.write(whole)
        try:
            answer = await self._waiting
        finally:
            timer.cancel()
            self._waiting = None
        self.used = loop.time()
        return answer

    def close(self) -> None:
        if self.open:
            self.open = False
            self._transport.close()

    def _fail(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Broken(why))
        self.close()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        ended = error is None and self._answer.status >= 200 and not self._lengths_known()
        if self.open and self._waiting is not None and ended:
            self._complete()  # a body may end with the connection, RFC 9112 6.3
        self.stale, self.open = self._silent, False
        self._fail(str(error) if error else "the connection was closed")

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():  # nobody asked
            self.close()
            return
        self._silent = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"this is not HTTP: {error}")

    # --- httptools

    def on_message_begin(self) -> None:
        self._answer, self._pieces, self._size = Answer(), [], 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.fields[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MOST:
            self._fail(f"the answer is larger than {MOST} bytes")
        else:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self._answer.status >= 200:  # else an interim answer, RFC 9110 15.2
            if not self._parser.should_keep_alive():
                self.close()
            self._complete()

    def _lengths_known(self) -> bool:
        return "content-length" in self._answer.fields or "transfer-encoding" in self._answer.fields

    def _complete(self) -> None:
        self._answer.body = b"".join(self._pieces)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._answer)
