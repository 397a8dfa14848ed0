"""Somebody's script: machines, and what is said at them. It calls until it is heard, and takes each key once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from typing import Any, Self

import aiohttp
from aiohttp import web

from bridge.model import Request
from bridge.testing.office import served
from plugins.webhook.settings import Proof

PROOF = {"secret": "both-know-it", "timestamp": "X-Time", "signed": "{timestamp}.{body}"}
RULE = {
    "scope": "floor", "once": "{{ body.id }}", "item": "{{ body.machine }}", "title": "{{ body.name }}",
    "text": "{{ body.said }}", "author": "{{ body.by }}", "at": "{{ body.at }}",
}  # fmt: skip


class Floor:
    """`said`: (number, machine, by, words) of all that was ever said; `hook`: where it calls."""

    def __init__(self) -> None:
        self.hook = self.url = ""
        self.machines: dict[str, str] = {}  # what each is called
        self.said: list[tuple[int, str, str, str]] = []
        self._taken: dict[str, dict[str, str]] = {}  # answers, by key
        self._calls: deque[bytes] = deque()
        self._proof = Proof.model_validate(PROOF)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/in", self._take)
        self._server = served(app)
        self.url = await self._server.__aenter__()
        self._calling = asyncio.create_task(self._call())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._calling.cancel()
        await self._server.__aexit__(None, None, None)

    def open(self, name: str, words: str, by: str, mark: str = "") -> str:
        machine = f"m{len(self.machines)}"
        self.machines[machine] = name
        self.say(machine, words, by, mark)
        return machine

    def say(self, machine: str, words: str, by: str, mark: str = "") -> None:
        number = len(self.said)
        self.said.append((number, machine, by, words))
        event = {"id": number, "machine": machine, "name": self.machines[machine], "said": words, "by": by}
        self._calls.append(json.dumps({**event, "mark": mark, "at": time.time()}).encode())

    async def _call(self) -> None:
        """One after the other, each until it is heard."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as http:
            while True:
                await asyncio.sleep(0.05)
                while self._calls and await self._heard(http, self._calls[0]):
                    self._calls.popleft()

    async def _heard(self, http: aiohttp.ClientSession, body: bytes) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            headers = self._proof.headers(body, str(int(time.time())))
            async with http.post(self.hook, data=body, headers=headers) as answer:
                return answer.status == 200
        return False

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._proof.check(Request({name.lower(): value for name, value in request.headers.items()}, body))
        asked: dict[str, Any] = json.loads(body)
        if (key := request.headers["Idempotency-Key"]) not in self._taken:
            machine = asked["item"]
            if asked["kind"] == "item":
                machine = self.open(asked["title"], asked["text"], "bridge", asked["mark"])
            else:
                self.say(machine, asked["text"], "bridge", asked["mark"])
            self._taken[key] = {"machine": machine}
        return web.json_response(self._taken[key])
