"""A reverse proxy before the tool's HTTP server, that can be told to make trouble of every kind a tool makes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from yarl import URL

# What a tool can do to a request. "down": nobody is there. "slow": it does what it is asked, and answers too late.
# "cut": what changes something is done, and the connection breaks before the answer. A number: that status; 429 comes
# with Retry-After. "page": 200 and somebody's login page. "error": 200 and an error inside, as JSON.
# "404" is not the tool's: so answers a proxy before it that has lost it.
TROUBLES = ("down", "slow", "cut", "401", "403", "429", "500", "502", "503", "page", "error")
NOT_FOUND = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body><h1>404 Not Found</h1></body>\r\n</html>\r\n"
SAFE = {"GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT"}  # RFC 9110 9.2.1, RFC 4918 9.1, RFC 3253 3.6
RETRY_AFTER = 1.0  # seconds that a 429 asks for
_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}  # RFC 9110 7.6.1


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Proxy:
    """Passes on to `target`, except what `trouble` is for: one of `TROUBLES`, "refusal" (of changes), or ""."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))  # taken from now on, so that its port is known
        self.port = int(self._socket.getsockname()[1])
        self.target = ""
        self.trouble = ""
        self.refusal = (400, b"")
        self.nth = 0  # strike only the nth request that changes something; 0: every one that fits
        self.struck: list[float] = []  # when
        self._changes = 0

    def close(self) -> None:
        self._socket.close()

    def hurt(self, trouble: str, nth: int = 0) -> None:
        self.trouble, self.nth, self._changes = trouble, nth, 0
        self.struck.clear()

    @contextlib.asynccontextmanager
    async def serving(self, target: str) -> AsyncIterator[None]:
        """In front of `target` (scheme, host and port) until left."""
        self.target = target.rstrip("/")
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await runner.setup()
        try:
            async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as self._http:
                await web.SockSite(runner, self._socket).start()
                yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        trouble = self.trouble if self._fits(request) else ""
        if trouble:
            self.struck.append(time.monotonic())
        if trouble == "down":
            return _hang_up(request)
        if trouble == "refusal":
            status, body = self.refusal
            return web.Response(status=status, body=body, content_type="application/json")
        if trouble == "404":
            return web.Response(status=404, text=NOT_FOUND, content_type="text/html")
        if trouble.isdecimal():
            headers = {"Retry-After": f"{RETRY_AFTER:.0f}"} if trouble == "429" else {}
            return web.Response(status=int(trouble), text="made up by the contract kit", headers=headers)
        if trouble == "page":
            return web.Response(text="<!doctype html><title>Please log in</title>", content_type="text/html")
        if trouble == "error":
            return web.json_response({"error": {"code": 17, "message": "internal error"}})
        return await self._pass_on(request, trouble)

    def _fits(self, request: web.Request) -> bool:
        changes = request.method not in SAFE
        self._changes += changes
        if self.trouble in ("cut", "refusal") and not changes:
            return False
        return not self.nth or (changes and self._changes == self.nth)

    async def _pass_on(self, request: web.Request, trouble: str) -> web.StreamResponse:
        url = URL(self.target + request.raw_path, encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        try:
            async with self._http.request(
                request.method, url, headers=headers, data=await request.read(), allow_redirects=False
            ) as answer:
                body = await answer.read()
        except aiohttp.ClientError:
            return _hang_up(request)
        if trouble == "slow":
            await asyncio.sleep(3600)  # until the plugin has hung up
        if trouble:
            return _hang_up(request)
        left = {name: value for name, value in answer.headers.items() if name.lower() not in {*_HOP, "content-length"}}
        return web.Response(status=answer.status, body=body, headers=left)


def _hang_up(request: web.Request) -> web.Response:
    """Close the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
