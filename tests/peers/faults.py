"""A reverse proxy in front of a homeserver that can be told to fail, and that counts what passes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.peers import free_port

Kind = Literal["refuse", "slow", "cut"] | int
# Of one connection only: RFC 9110 7.6.1. Length is kept, so that a body is passed on as it came.
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}
ERRORS = {413: "M_TOO_LARGE", 429: "M_LIMIT_EXCEEDED", 401: "M_UNKNOWN_TOKEN", 403: "M_FORBIDDEN"}


@dataclass
class Fault:
    """What goes wrong with the requests it fits, `times` times (None: always).

    "refuse" closes the connection before anything is passed on; "slow" waits `delay` seconds and passes on; "cut"
    passes the request on and closes the connection instead of answering; a number answers with that status.
    """

    kind: Kind
    path: str = ""  # prefix of the path
    method: str = ""  # any when empty
    contains: str = ""  # somewhere in path and query
    when: Callable[[web.Request], bool] = lambda request: True
    chance: float = 1
    times: int | None = None
    delay: float = 0
    retry_after: float | None = None  # seconds; a 429 says so in header and body
    hits: int = 0

    def fits(self, request: web.Request) -> bool:
        return (
            (self.times is None or self.hits < self.times)
            and self.method in ("", request.method)
            and request.path.startswith(self.path)
            and self.contains in request.path_qs
            and self.when(request)
        )


class Proxy:
    """Stands before `target`; without faults it only passes on. `down()` and `up()` close and open its port."""

    def __init__(self, target: str, port: int | None = None, seed: int = 0) -> None:
        self.target = target.rstrip("/")
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._http._retry_connection = False  # or aiohttp would repeat requests by itself
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()
        assert self._http is not None
        await self._http.close()

    def add(self, kind: Kind, path: str = "", **how: Any) -> Fault:
        """`proxy.add(429, "/_matrix/client/v3/rooms", method="PUT", times=3, retry_after=0.5)`; see `Fault`."""
        fault = Fault(kind, path, **how)
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything go well again."""
        self.faults.clear()

    async def up(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def down(self) -> None:
        """Be down: the port refuses, open connections break."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests[kind_of(request.method, request.path)] += 1
        fault = self._strike(request)
        if fault is None:
            return await self._pass_on(request)
        self.struck[str(fault.kind)] += 1
        await asyncio.sleep(fault.delay)
        if fault.kind == "refuse":
            return _hang_up(request)
        if isinstance(fault.kind, int):
            return _refusal(fault.kind, fault.retry_after)
        return await self._pass_on(request, cut=fault.kind == "cut")

    def _strike(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.fits(request) and self._dice.random() < fault.chance:
                fault.hits += 1
                return fault
        return None

    async def _pass_on(self, request: web.Request, cut: bool = False) -> web.StreamResponse:
        assert self._http is not None
        url = URL(self.target + request.raw_path, encoded=True)
        data = request.content if request.body_exists else None
        headers = _forwarded(request.headers)
        try:
            async with self._http.request(
                request.method, url, headers=headers, data=data, allow_redirects=False
            ) as answer:
                return _hang_up(request) if cut else await _streamed(request, answer)
        except aiohttp.ClientConnectorError:
            return _refusal(502, None)
        except aiohttp.ClientConnectionError:  # the homeserver hung up, so do we
            return _hang_up(request)


def kind_of(method: str, path: str) -> str:
    """What a request is about, without its ids: "PUT send", "POST join", "PUT profile"."""
    parts = [part for part in path.split("/") if part]
    known = parts[3:] if parts[:1] == ["_matrix"] else parts
    if known[:1] == ["rooms"] and len(known) > 2:
        return f"{method} {known[2]}"
    return f"{method} {known[0] if known else path}"


async def _streamed(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_forwarded(answer.headers))
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def _forwarded(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


def _hang_up(request: web.Request) -> web.Response:
    """Close the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal(status: int, retry_after: float | None) -> web.Response:
    said: dict[str, Any] = {"errcode": ERRORS.get(status, "M_UNKNOWN"), "error": f"made up by the proxy: {status}"}
    headers = {}
    if retry_after is not None:
        said["retry_after_ms"] = int(retry_after * 1000)
        headers["Retry-After"] = str(max(1, round(retry_after)))
    return web.json_response(said, status=status, headers=headers)
