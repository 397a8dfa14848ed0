"""The public listener: TLS, times and sizes, and how many strangers are let in, before anything of theirs is read.

Who shows the homeserver's token is never limited. Everybody else has one request on each connection, a short time to
say it, and an allowance (`limits`). Where too many connect, the oldest that has shown no token gives way: a new
connection may be the homeserver's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from aiohttp import web

from bridge.web.limits import NOWHERE, REFUSED, Limiter, Place, Seats, client, is_in, place

HEAD = 15.0  # seconds from the connection to the end of the first request's head
IDLE = 180.0  # seconds without a request; homeservers hang up earlier by themselves (Synapse: 120)
HANDSHAKE = 10.0  # seconds of TLS
LINGER = 1.0  # seconds in which the rest of a refused body may still come
SHUTDOWN = 3.0  # seconds that requests to us get to end; the homeserver repeats them
HEADERS = 64  # fields of a request, each at most 8190 bytes
CONNECTIONS = 256  # of strangers; an eighth of them of one address, a quarter of one network

Proxies = Sequence[IPv4Network | IPv6Network]
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Crowd:
    """The connections that have shown no token yet, oldest first."""

    def __init__(self, proxies: Proxies, most: int = CONNECTIONS) -> None:
        self._proxies = proxies
        self._most = most
        self._here: dict[Connection, Place] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._here)

    def enter(self, connection: Connection, peer: str) -> None:
        """One more; where that is too many, the oldest there gives way. A proxy speaks for many: it counts in all."""
        found = place(peer)
        where = NOWHERE if is_in(found.address, self._proxies) else found
        self._here[connection] = where
        self._count.update(where)
        for key, most in ((where.address, self._most // 8), (where.network, self._most // 4)):
            if key and self._count[key] > most:
                self._give_way(key)
        if len(self._here) > self._most:
            networks = Counter(each.network for each in self._here.values())
            self._give_way(networks.most_common(1)[0][0])

    def leave(self, connection: Connection) -> None:
        """It has ended, or has shown that it is the homeserver's."""
        where = self._here.pop(connection, None)
        if where is not None:
            self._count.subtract(where)
            self._count += Counter()

    def _give_way(self, key: str) -> None:
        oldest = next(each for each, where in self._here.items() if key in where)
        self.leave(oldest)
        oldest.drop()


class Connection(web.RequestHandler):
    """One connection to us, which must say something soon."""

    __slots__ = ("_crowd", "_timer")

    def __init__(self, crowd: Crowd, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server, loop=loop, keepalive_timeout=IDLE, lingering_time=LINGER, max_headers=HEADERS,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,  # a few bytes can be the whole memory once unpacked
        )  # fmt: skip
        self._crowd = crowd
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername") or ("",)
        self._timer = self._loop.call_later(HEAD, self.drop)
        self._crowd.enter(self, str(peer[0]))

    def connection_lost(self, exc: BaseException | None) -> None:
        self.heard()
        self._crowd.leave(self)
        super().connection_lost(exc)

    def heard(self) -> None:
        """A whole head has come."""
        if self._timer:
            self._timer.cancel()

    def proven(self) -> None:
        """It is the homeserver's."""
        self._crowd.leave(self)

    def drop(self) -> None:
        """Hang up without a word: whoever is slow on purpose would not read it either."""
        if self.transport is not None:
            self.transport.abort()


class Gate:
    """What every request passes before its body is read; `is_homeserver` compares the token."""

    def __init__(
        self, is_homeserver: Callable[[web.Request], bool], proxies: Proxies, per_minute: int, at_once: int
    ) -> None:
        self.proxies = proxies
        self._is_homeserver = is_homeserver
        self._limiter = Limiter(per_minute)
        self._seats = Seats(at_once)

    @web.middleware
    async def pass_(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """429 and 503 say when to come again; 415 is for what is compressed (RFC 9110 15.5.16)."""
        connection = request.protocol
        if isinstance(connection, Connection):
            connection.heard()
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise _closing(web.HTTPUnsupportedMediaType(text="send it uncompressed", headers={"Accept-Encoding": ""}))
        if self._is_homeserver(request):
            if isinstance(connection, Connection):
                connection.proven()
            return await handler(request)
        where = client(request.remote or "", request.headers.getall("X-Forwarded-For", ()), self.proxies)
        if wait := self._limiter.take(where):
            raise _busy(web.HTTPTooManyRequests, wait)
        if who := self._seats.full(where):
            raise _busy(web.HTTPTooManyRequests if who == "you" else web.HTTPServiceUnavailable, 1)
        with self._seats.seat(where):
            return await self._strangers(request, handler, where)

    async def _strangers(self, request: web.Request, handler: Handle, where: Place) -> web.StreamResponse:
        try:
            answer = await handler(request)
        except web.HTTPException as refusal:
            if 400 <= refusal.status < 500:
                self._limiter.charge(where, REFUSED - 1)
            raise _closing(refusal) from None
        answer.force_close()
        return answer


def _busy(kind: type[web.HTTPException], seconds: int) -> web.HTTPException:
    return _closing(kind(text="too many requests, come again later", headers={"Retry-After": str(seconds)}))


def _closing(answer: web.HTTPException) -> web.HTTPException:
    answer.force_close()
    return answer


@contextlib.asynccontextmanager
async def listening(
    app: web.Application, gate: Gate, host: str, port: int, tls: ssl.SSLContext | None
) -> AsyncIterator[int]:
    """Serve `app` behind the gate; gives the port. Raises `OSError` when that is taken."""
    app.middlewares.append(gate.pass_)
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN)
    await runner.setup()
    loop, crowd = asyncio.get_running_loop(), Crowd(gate.proxies)
    assert runner.server is not None
    server: web.Server = runner.server
    secure: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": HANDSHAKE, "ssl_shutdown_timeout": SHUTDOWN}
    try:
        listener = await loop.create_server(
            lambda: Connection(crowd, server, loop), host, port, reuse_address=True, **(secure if tls else {})
        )
        try:
            yield int(listener.sockets[0].getsockname()[1])
        finally:
            listener.close()
    finally:
        await runner.cleanup()
