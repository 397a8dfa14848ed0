"""A web server on loopback whose pages a test writes: honest ones, and those that want to hurt who looks at them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEAD = '<!doctype html><html><head><meta charset="utf-8"><title>{title}</title>{more}</head><body>words</body></html>'


class Pages:
    """Starts empty; `visits` are the requests it heard, as (method, path with query, headers)."""

    def __init__(self, *addresses: str, tls: ssl.SSLContext | None = None) -> None:
        self.addresses, self.tls = addresses or ("127.0.0.1",), tls
        self.visits: list[tuple[str, str, Mapping[str, str]]] = []
        self.sent = 0  # bytes of what never ends
        self._pages: dict[str, Answer] = {}
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        self.port = 0
        for address in self.addresses:
            await web.TCPSite(self._runner, address, self.port, ssl_context=self.tls).start()
            self.port = self._runner.addresses[0][1]
        self.url = f"http{'s' if self.tls else ''}://{self.addresses[0]}:{self.port}/"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.visits]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.visits.append((request.method, request.raw_path, dict(request.headers)))
        answer = self._pages.get(request.path)
        return await answer(request) if answer else web.Response(status=404, text="not found", content_type="text/html")

    # --- what a test writes; each returns the page's address

    def put(
        self, path: str, body: str | bytes = b"", type: str = "text/html", status: int = 200, **headers: str
    ) -> str:
        """`headers` have _ for -."""
        raw = body.encode() if isinstance(body, str) else body
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=raw, status=status, headers={"Content-Type": type, **fields})

        return self.put_answer(path, answer)

    def put_answer(self, path: str, answer: Answer) -> str:
        self._pages[f"/{path}"] = answer
        return f"{self.url}{path}"

    def page(self, path: str, title: str, more: str = "") -> str:
        return self.put(path, HEAD.format(title=title, more=more))

    def redirect(self, path: str, to: str, status: int = 302) -> str:
        return self.put(path, "moved", status=status, Location=to, Set_Cookie="seen=1")

    def chain(self, steps: int) -> str:
        """So many redirects before a page."""
        self.page("chain0", "the end")
        for step in range(1, steps + 1):
            self.redirect(f"chain{step}", f"/chain{step - 1}", (301, 302, 303, 307, 308)[step % 5])
        return f"{self.url}chain{steps}"

    def drip(self, path: str) -> str:
        """A byte now and then, for ever."""
        return self.put_answer(path, lambda request: self._for_ever(request, b"<", 0.02))

    def endless(self, path: str) -> str:
        """As much as anybody takes."""
        return self.put_answer(path, lambda request: self._for_ever(request, b"<p>" * 20_000, 0.0))

    def bomb(self, path: str, size: int = 50 * 2**20) -> str:
        """A few kilobytes that unpack to very much more."""
        page = gzip.compress(HEAD.format(title="bomb", more="").encode() + bytes(size), 1)
        return self.put(path, page, Content_Encoding="gzip")

    async def silence(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)  # until who asked has hung up
        return web.Response()

    async def _for_ever(self, request: web.Request, piece: bytes, pause: float) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/html"})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(piece)
                self.sent += len(piece)
                await asyncio.sleep(pause)
        return answer
