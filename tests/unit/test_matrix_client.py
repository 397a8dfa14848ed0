"""What the homeserver's answers mean for a delivery: its trouble, this message's for now, or for good."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from mautrix.errors import MatrixRequestError

from bridge.matrix.client import Client
from bridge.matrix.wire import Wire
from bridge.model import Deferred, Rejected, Unavailable
from tests.peers import free_port


class Homeserver:
    """Answers every request as it is told."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 200
        self.document: Any = {}
        self.text = ""
        self.headers: dict[str, str] = {}
        self.cut = False

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        if self.cut:
            assert request.transport is not None
            request.transport.abort()
        if self.text:
            return web.Response(text=self.text, status=self.status, headers=self.headers)
        return web.json_response(self.document, status=self.status, headers=self.headers)


@pytest.fixture
async def homeserver() -> AsyncIterator[Homeserver]:
    made = Homeserver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


@pytest.fixture
async def client(homeserver: Homeserver) -> AsyncIterator[Client]:
    url = f"http://127.0.0.1:{homeserver.port}"
    async with aiohttp.ClientSession() as session:
        with contextlib.closing(Wire(url, 0.5, 4)) as wire:
            yield Client(url, "token", wire, session, "@bot:company.example")


async def failure(client: Client) -> Exception:
    with pytest.raises((Rejected, Deferred, Unavailable, MatrixRequestError)) as caught:
        await client.call("PUT", "_matrix/client/v3/rooms/!r/send/m.room.message/1", {"body": "words"})
    assert "token" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (401, "M_UNKNOWN_TOKEN", Unavailable),
        (403, "M_UNKNOWN_TOKEN", Unavailable),
        (401, "M_MISSING_TOKEN", Unavailable),
        (429, "M_LIMIT_EXCEEDED", Unavailable),
        (502, "M_UNKNOWN", Unavailable),
        (503, "", Unavailable),
        (504, "", Unavailable),
        (500, "M_UNKNOWN", Deferred),
        (404, "", Deferred),
        (403, "", Deferred),
        (413, "M_TOO_LARGE", Rejected),
        (413, "", Rejected),
        (403, "M_FORBIDDEN", MatrixRequestError),
        (400, "M_BAD_JSON", MatrixRequestError),
        (404, "M_NOT_FOUND", MatrixRequestError),
    ],
)
async def test_a_refusal_is_about_the_homeserver_the_moment_or_the_message(
    homeserver: Homeserver, client: Client, status: int, code: str, meaning: type[Exception]
) -> None:
    homeserver.status, homeserver.document = status, {"errcode": code, "error": "no"} if code else {}
    assert isinstance(await failure(client), meaning)


async def test_the_homeserver_says_how_long_to_wait(homeserver: Homeserver, client: Client) -> None:
    homeserver.status, homeserver.document = 429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1500}
    found = await failure(client)
    assert isinstance(found, Unavailable)
    assert found.retry_after == 1.5
    homeserver.headers = {"Retry-After": "7"}
    found = await failure(client)
    assert isinstance(found, Unavailable)
    assert found.retry_after == 7
    homeserver.headers = {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}
    found = await failure(client)
    assert isinstance(found, Unavailable)
    assert found.retry_after is None


async def test_a_homeserver_that_is_not_there_hangs_up_or_talks_nonsense_is_in_trouble(
    homeserver: Homeserver, client: Client
) -> None:
    homeserver.text = "<html>It works!</html>"
    assert isinstance(await failure(client), Unavailable)
    homeserver.text = '["a", "list"]'
    assert isinstance(await failure(client), Unavailable)
    homeserver.cut = True
    assert isinstance(await failure(client), Unavailable)
    url = f"http://127.0.0.1:{free_port()}"
    async with aiohttp.ClientSession() as session:
        nobody = Client(url, "token", Wire(url, 0.5, 4), session, "@bot:company.example")
        assert isinstance(await failure(nobody), Unavailable)
