"""Where the homeserver reaches us: the running bridge, or for a moment we ourselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from bridge.config import Config
from bridge.doctor.line import Line, ok, reason, trouble
from bridge.matrix.appservice import shows


class Door:
    """`mine`: it is we who listen. Then `knocks` counts pings with the right token, `strangers` those with others."""

    def __init__(self, line: Line, *, mine: bool = False) -> None:
        self.line = line
        self.mine = mine
        self.knocks = 0
        self.strangers = 0


@contextlib.asynccontextmanager
async def opened(config: Config, running: bool) -> AsyncIterator[Door]:
    """Listen as the bridge would, unless it runs. What the homeserver would hand over meanwhile it keeps (503)."""
    listen = config.appservice.listen
    tls = config.appservice.tls()
    if running:
        yield Door(await _of_the_bridge(listen, tls is not None))
        return
    door = Door(ok("ports", f"{listen} is free for the homeserver to reach us"), mine=True)
    runner = web.AppRunner(_answering(config.appservice.hs_token.get_secret_value(), door), access_log=None)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port), reuse_address=True, ssl_context=tls).start()
    except OSError as error:
        door = Door(await _taken(listen, error, tls is not None))
    try:
        yield door
    finally:
        await runner.cleanup()


def _answering(token: str, door: Door) -> web.Application:
    async def ping(request: web.Request) -> web.Response:
        if shows(request, token):
            door.knocks += 1
            return web.json_response({})
        door.strangers += 1
        return web.json_response({"errcode": "M_FORBIDDEN"}, status=403)

    async def later(_: web.Request) -> web.Response:
        return web.json_response({"errcode": "M_UNKNOWN", "error": "the bridge does not run"}, status=503)

    app = web.Application()
    app.router.add_post("/_matrix/app/v1/ping", ping)
    app.router.add_route("*", "/{path:.*}", later)
    return app


async def figures(config: Config, running: bool) -> list[Line]:
    """Where /metrics is, or will be: a bridge that cannot listen there says so itself."""
    listen = config.metrics.listen
    if running or not listen:
        return []
    host, _, port = listen.rpartition(":")
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host.strip("[]"), int(port))
    except OSError as error:
        why = reason(error).lower()
        return [trouble("ports", f"metrics cannot be had on {listen}: {why}", "change `metrics.listen`")]
    server.close()
    return [ok("ports", f"{listen} is free for metrics")]


async def _of_the_bridge(listen: str, secure: bool) -> Line:
    if await _is_bridge(listen, secure):
        return ok("ports", f"the running bridge listens on {listen}")
    remedy = "see its log; when `appservice.listen` was changed since its start, start it anew"
    return trouble("ports", f"the running bridge does not answer on {listen}", remedy)


async def _taken(listen: str, error: OSError, secure: bool) -> Line:
    """Who has it: a bridge that we cannot ask, or something else."""
    if await _is_bridge(listen, secure):
        remedy = "run doctor as the bridge's own user, with its configuration; or another bridge needs another `listen`"
        return trouble("ports", f"a bridge listens on {listen}, but not on this configuration's data folder", remedy)
    why = reason(error).lower()
    remedy = f"find who has it (ss -ltnp 'sport = :{listen.rpartition(':')[2]}'), or change `appservice.listen`"
    return trouble("ports", f"the bridge cannot listen on {listen}: {why}", f"{remedy} and the registration's `url`")


async def _is_bridge(listen: str, secure: bool) -> bool:
    """Whether what listens there answers as a bridge does. The certificate is for the homeserver: not looked at."""
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - not listened to
    timeout, url = aiohttp.ClientTimeout(total=3), f"{'https' if secure else 'http'}://{host}:{port}/live"
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as said:
            return "live" in await said.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
