"""Where the homeserver reaches us (Matrix Application Service API v1): transactions, ping, queries; liveness too."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from bridge.matrix.events import parse
from bridge.model import RoomEvent

log = logging.getLogger(__name__)

Hear = Callable[[list[RoomEvent]], Awaitable[None]]
Condition = Callable[[], dict[str, str]]
Alive = Callable[[], Awaitable[bool]]

MOST_EVENTS = 10_000  # in one transaction; homeservers send at most 100
BODY = 60.0  # seconds in which a whole transaction must have come


def routes(
    hs_token: str, max_body: int, hear: Hear, known_user: Callable[[str], bool], trouble: Condition, alive: Alive
) -> web.Application:
    """The application for the homeserver. `trouble` names what is not ready, with the reason; {} when all is well;
    `alive` says whether the database answers.

    `hear` returns after the commit; only then is a transaction acknowledged. When it raises, the homeserver gets 503
    and sends the same transaction again.
    """
    pages = _Pages(hs_token, hear, known_user, trouble, alive)
    app = web.Application(client_max_size=max_body)
    app.router.add_put("/_matrix/app/v1/transactions/{transaction}", pages.transaction)
    app.router.add_post("/_matrix/app/v1/ping", pages.ping)
    app.router.add_get("/_matrix/app/v1/users/{user}", pages.user)
    app.router.add_get("/_matrix/app/v1/rooms/{alias}", pages.room)
    app.router.add_get("/live", pages.live)
    app.router.add_get("/ready", pages.ready)
    return app


def bearer(request: web.Request) -> str:
    """The token that a request shows; from the header only, since URLs end up in proxies' logs. "" without one."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def shows(request: web.Request, token: str) -> bool:
    """Whether a request shows that token, compared in constant time."""
    given = bearer(request).encode(errors="replace")
    return bool(given) and hmac.compare_digest(given, token.encode())


class _Pages:
    def __init__(
        self, hs_token: str, hear: Hear, known_user: Callable[[str], bool], trouble: Condition, alive: Alive
    ) -> None:
        self._token = hs_token
        self._hear = hear
        self._known_user = known_user
        self._trouble = trouble
        self._alive = alive

    def _let_in(self, request: web.Request) -> None:
        """Nothing of a request is read before."""
        if not bearer(request):
            raise _refusal(web.HTTPUnauthorized, "M_MISSING_TOKEN", "no token was given")
        if not shows(request, self._token):
            raise _refusal(web.HTTPForbidden, "M_FORBIDDEN", "this is not the hs_token of the registration")

    async def transaction(self, request: web.Request) -> web.Response:
        self._let_in(request)
        try:
            async with asyncio.timeout(BODY):
                raw = await request.read()
        except TimeoutError:
            raise _refusal(web.HTTPRequestTimeout, "M_UNKNOWN", "the transaction did not come whole") from None
        try:
            body = json.loads(raw)
            events = body["events"]
            if not isinstance(events, list) or len(events) > MOST_EVENTS:
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _refusal(web.HTTPBadRequest, "M_BAD_JSON", "a transaction has a list of events") from None
        await self._heard([event for event in map(parse, events) if event])
        return web.json_response({})

    async def _heard(self, events: list[RoomEvent]) -> None:
        try:
            await self._hear(events)
        except Exception:  # whatever it is, these events are not written down: the homeserver keeps them
            log.exception("a transaction could not be written down")
            raise _refusal(web.HTTPServiceUnavailable, "M_UNKNOWN", "try again later") from None

    async def ping(self, request: web.Request) -> web.Response:
        self._let_in(request)
        return web.json_response({})

    async def user(self, request: web.Request) -> web.Response:
        self._let_in(request)
        if self._known_user(request.match_info["user"]):
            return web.json_response({})
        raise _refusal(web.HTTPNotFound, "M_NOT_FOUND", "no such user")

    async def room(self, request: web.Request) -> web.Response:
        self._let_in(request)
        raise _refusal(web.HTTPNotFound, "M_NOT_FOUND", "no such room")

    async def live(self, _: web.Request) -> web.Response:
        """Whether this process is worth keeping; other servers' trouble is none of it."""
        alive = await self._alive()
        return web.json_response({"live": alive}, status=200 if alive else 503)

    async def ready(self, _: web.Request) -> web.Response:
        """Names only: anybody may ask; the admin socket's /status has the reasons."""
        trouble = sorted(self._trouble() if await self._alive() else {**self._trouble(), "database": ""})
        return web.json_response({"ready": not trouble, "trouble": trouble}, status=503 if trouble else 200)


def _refusal(kind: type[web.HTTPException], code: str, error: str) -> web.HTTPException:
    return kind(text=json.dumps({"errcode": code, "error": error}), content_type="application/json")
