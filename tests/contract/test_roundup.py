"""The contract, passed by the Roundup plugin in front of a real tracker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from bridge.testing import Contract, Tool
from plugins.roundup import Roundup
from tests.peers import ROOT
from tests.peers.roundup import BRIDGE
from tests.peers.roundup import Roundup as Tracker


class Desk(Tool):
    """A tracker, and Carol who uses its REST interface."""

    name = "desk"
    scope = "issue"
    troubles = ("down", "cut", "403", "429", "500", "page", "error")  # others look the same to it
    words: ClassVar[dict[str, tuple[str, str]]] = {
        "state": ("resolved", "chatting"),
        "assign-item": ("alice", "bob"),
        "priority": ("urgent", "wish"),
    }

    refusal = (400, b'{"error": {"status": 400, "msg": "this cannot be done"}}')
    tracker: ClassVar[Tracker]

    async def __aenter__(self) -> Self:
        self.url = self.tracker.url
        return self

    def config(self, url: str) -> dict[str, Any]:
        return {"url": url, "web": self.url, "username": BRIDGE, "password": self.tracker.password(BRIDGE)}

    async def open(self, title: str, text: str) -> str:
        return f"issue{await self.tracker.open(title, text, 'carol')}"

    async def say(self, item: str, text: str) -> None:
        await self.tracker.comment(item.removeprefix("issue"), text, "carol")

    async def change(self, item: str) -> None:
        issue = item.removeprefix("issue")
        status = (await self.tracker.read(issue)).status
        await self.tracker.change(issue, "carol", status="chatting" if status == "resolved" else "resolved")

    async def delete(self, item: str) -> None:
        await self.tracker.retire("issue", item.removeprefix("issue"))

    async def attach(self, item: str, name: str, data: bytes) -> None:
        file = name, data, "application/octet-stream"
        await self.tracker.comment(item.removeprefix("issue"), "See there", "carol", [file])

    async def files(self, item: str) -> list[tuple[str, bytes]]:
        found = (await self.tracker.read(item.removeprefix("issue"))).files
        return [(await self.tracker.download(each))[:2] for each in found]

    async def said(self, item: str) -> list[str]:
        return [each.content for each in (await self.tracker.read(item.removeprefix("issue"))).messages]

    async def titles(self) -> list[str]:
        found = await self.tracker.call("GET", "issue", "admin", params={"@fields": "title"})
        return [each["title"] for each in found["collection"]]


@pytest.fixture(scope="module", autouse=True)
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One tracker for all tests: it starts slowly, and every test makes an issue of its own."""
    Desk.tracker = Tracker(tmp_path_factory.mktemp("tracker"))
    asyncio.run(Desk.tracker.start())
    yield
    asyncio.run(Desk.tracker.stop())


class TestRoundup(Contract):
    plugin = Roundup
    tool = Desk
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "roundup.md"
