"""Where tools call us: POST /hooks/NAME is read by that connector and committed before the tool hears yes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from bridge.connector import Connector
from bridge.model import Envelope, Rejected, Request

log = logging.getLogger(__name__)

LARGEST = 4 * 2**20  # bytes of a webhook
BODY = 20.0  # seconds in which all of it must have come

Accept = Callable[[list[Envelope]], Awaitable[None]]


def hooks(app: web.Application, connectors: Mapping[str, Connector], accept: Accept) -> None:
    """Add the route to an application."""

    async def hook(request: web.Request) -> web.Response:
        connector = connectors.get(request.match_info["name"])
        if connector is None or type(connector).parse is Connector.parse:
            raise web.HTTPNotFound(text="no connector of that name takes webhooks")
        envelopes = _parsed(connector, await _read(request))
        try:
            await accept(envelopes)
        except Exception:  # whatever it is, it is our trouble: the tool must come again
            log.exception("a webhook of %s could not be written down", connector.name)
            raise web.HTTPServiceUnavailable(text="try again later", headers={"Retry-After": "5"}) from None
        return web.Response(text="kept")

    app.router.add_post("/hooks/{name}", hook)


async def _read(request: web.Request) -> Request:
    if (request.content_length or 0) > LARGEST:
        raise web.HTTPRequestEntityTooLarge(LARGEST, request.content_length or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > LARGEST:
                    raise web.HTTPRequestEntityTooLarge(LARGEST, len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY:g} seconds") from None
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(headers, bytes(body), dict(request.query))


def _parsed(connector: Connector, request: Request) -> list[Envelope]:
    """What it says; a forged or senseless one is refused without saying which of the two it was."""
    try:
        return connector.parse(request)
    except (Rejected, RecursionError) as error:  # thousands of levels of JSON make no sense either
        log.warning("a webhook for %s was refused: %s", connector.name, error)
        raise web.HTTPForbidden(text="this webhook is not accepted") from None
