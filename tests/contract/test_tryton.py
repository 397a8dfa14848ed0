"""The contract, passed by the Tryton plugin in front of a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from bridge.testing import Contract, Tool
from plugins.tryton import Tryton
from tests.peers import ROOT
from tests.peers.tryton import BRIDGE, DATABASE
from tests.peers.tryton import Tryton as Server


class Crm(Tool):
    """A Tryton, and Alice who uses it as its clients do."""

    name = "crm"
    scope = "opportunities"
    troubles = ("down", "cut", "error")  # what else there is, its client code sees as one of these
    words: ClassVar[dict[str, tuple[str, str]]] = {
        "stage": ("lost", "lead"),
        "amount": ("100", "2 500,50"),
        "probability": ("70%", "20"),
    }

    refusal = (200, b'{"id": 0, "error": ["UserError", ["this cannot be done", "", null]]}')
    server: ClassVar[Server]

    async def __aenter__(self) -> Self:
        self.url = self.server.url
        return self

    def config(self, url: str) -> dict[str, Any]:
        account = {"username": BRIDGE, "password": self.server.password(BRIDGE)}
        return {"url": url, "web": self.url, "database": DATABASE, **account}

    async def open(self, title: str, text: str) -> str:
        return f"opportunity/{await self.server.open(title, text)}"

    def _id(self, item: str) -> int:
        return int(item.partition("/")[2])

    async def say(self, item: str, text: str) -> None:
        await self.server.chat(self._id(item), text)

    async def whisper(self, item: str, text: str) -> None:
        await self.server.note(self._id(item), text)

    async def change(self, item: str) -> None:
        number = self._id(item)
        state = (await self.server.read(number, "state"))["state"]
        await self.server.press(number, "lead" if state == "lost" else "lost")

    async def delete(self, item: str) -> None:
        await self.server.delete(self._id(item))

    async def attach(self, item: str, name: str, data: bytes) -> None:
        await self.server.attach(self._id(item), name, data)

    async def files(self, item: str) -> list[tuple[str, bytes]]:
        return await self.server.files(self._id(item))

    async def said(self, item: str) -> list[str]:
        return [each["content"] for each in await self.server.said(self._id(item))]

    async def titles(self) -> list[str]:
        return [each["description"] or "" for each in await self.server.all("description")]


@pytest.fixture(scope="module", autouse=True)
def server(tryton: Server) -> None:
    Crm.server = tryton


class Calm(Tryton):
    """Looks for news less often than the kit would: each look costs the server six requests."""

    async def wait(self) -> None:
        await asyncio.sleep(0.4)


class TestTryton(Contract):
    plugin = Calm
    tool = Crm
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "tryton.md"
    patience = 3.0  # it is slow to answer when others run
