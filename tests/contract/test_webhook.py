"""The contract, passed by the generic webhook plugin in front of a small script of somebody's."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp
from aiohttp import web

from bridge.model import Rejected, Request
from bridge.testing import Contract, Office, Tool
from bridge.testing.contract import word
from bridge.testing.office import served
from plugins.webhook import Webhook
from plugins.webhook.settings import Proof
from tests.peers import ROOT

SECRET = "both-know-it"
RULES = [
    {"when": [{"path": "kind", "equals": "heartbeat"}, {"path": "machine", "exists": False}], "scope": "none",
     "text": "-"},
    {"when": [{"path": "said"}], "scope": "floor", "item": "{{ body.machine.id }}", "title": "{{ body.machine.name }}",
     "once": "{{ body.id }}", "id": "event{{ body.id }}", "text": "{{ body.said }}", "author": "{{ body.by }}",
     "at": "{{ body.at }}", "state": "{{ body.machine.state }}", "url": "https://floor.example/{{ body.machine.id }}",
     "mark": "{{ body.mark }}", "fields": {"parts": "{{ body.machine.parts | join(', ') }}"}},
]  # fmt: skip


class Floor(Tool):
    """A script that knows machines, tells what is said at them, and takes signed messages, each key once."""

    name, scope = "floor", "floor"
    troubles = ("down", "cut", "401", "429", "500", "page", "error")  # the others are seen as one of these
    noticed = ("down", "401", "403", "503")
    unknown = b'{"kind": "heartbeat"}'
    proof: ClassVar[dict[str, Any]] = {"secret": SECRET}

    async def __aenter__(self) -> Self:
        self.machines: dict[str, dict[str, Any]] = {}
        self.stored: list[tuple[str, str, bytes]] = []
        self.taken: dict[str, dict[str, Any]] = {}
        self.events = 0
        app = web.Application()
        app.router.add_route("*", "/in", self._take)
        self.server = served(app)
        self.url = f"{await self.server.__aenter__()}/in"
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.server.__aexit__(None, None, None)

    def config(self, url: str) -> dict[str, Any]:
        answer = {"item": "made.id", "url": "made.url"}
        known = {"version": 1, "scopes": [self.scope], "proof": self.proof, "rules": RULES}
        return {**known, "url": url, "answer": answer}

    def signed(self, body: bytes) -> Request:
        return Request(Proof(**self.proof).headers(body, "1"), body)

    async def open(self, title: str, text: str) -> str:
        item = f"floor:m{len(self.machines)}"
        self.machines[item] = {"id": item[6:], "name": title, "state": "runs", "parts": ["arm", "belt"], "said": []}
        await self.say(item, text)
        return item

    async def say(self, item: str, text: str, by: str = "carol", mark: str = "") -> None:
        self.events += 1
        machine = self.machines[item]
        machine["said"].append(text)
        event = {"id": self.events, "said": text, "by": by, "at": 1e9 + self.events, "machine": machine, "mark": mark}
        request = self.signed(json.dumps(event).encode())
        async with aiohttp.ClientSession() as http, http.post(self.hook, data=request.body, headers=request.headers):
            pass

    async def change(self, item: str) -> None:
        self.machines[item]["state"] = "stands" if self.machines[item]["state"] == "runs" else "runs"
        await self.say(item, "the state is another")

    async def said(self, item: str) -> list[str]:
        return [*self.machines[item]["said"]]

    async def files(self, item: str) -> list[tuple[str, bytes]]:
        return [(name, data) for where, name, data in self.stored if where == item]

    async def titles(self) -> list[str]:
        return [each["name"] for each in self.machines.values()]

    async def _take(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(status=405)
        body = await request.read()
        Proof(**self.proof).check(Request({k.lower(): v for k, v in request.headers.items()}, body))
        said, key = json.loads(body), request.headers["Idempotency-Key"]
        if key not in self.taken:
            item = f"floor:{said['item']}"
            if said["kind"] == "item":
                item = await self.open(said["title"], said["text"])
                self.taken[key] = {"made": {"id": item[6:], "url": "https://floor.example/"}}
            else:
                self.taken[key] = {}
                await self.say(item, said["text"], "bridge", said["mark"])
            self.stored += [(item, each["name"], base64.b64decode(each["base64"])) for each in said["files"]]
        return web.json_response(self.taken[key])


class TestWebhook(Contract):
    plugin = Webhook
    tool = Floor
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "webhook.md"

    async def test_a_404_with_words_of_its_own_is_a_refusal(self, office: Office) -> None:
        _, conversation = await self._begun(office)
        await office.tool.hurt("refusal")
        office.tool.proxy.refusal = 404, b'{"error": "there is no such machine"}'
        await office.say(f"!reply {word()}", conversation)
        error = await office.failed()
        assert (type(error), str(error)) == (Rejected, "there is no such machine")
