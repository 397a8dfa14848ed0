"""The contract, passed by the CalDAV plugin in front of a real Radicale."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from bridge.store import new_uid
from bridge.testing import Contract, Tool
from plugins.caldav import CalDav
from tests.peers import ROOT
from tests.peers.dav import BRIDGE, Radicale


class Tasks(Tool):
    """A list, and people who write to it with other clients."""

    name = "tasks"
    scope = "ops"
    words: ClassVar[dict[str, tuple[str, str]]] = {
        "due": ("2026-12-01", "+3d"),
        "state": ("done", "in-process"),
        "assign-item": ("alice@company.example", "bob@company.example"),
    }
    # Others look the same to it. A PUT is answered without a body: only its status says that this is no list.
    troubles = ("down", "cut", "403", "500", "page")
    server: ClassVar[Radicale]

    async def __aenter__(self) -> Self:
        self.url = self.server.url
        return self

    def config(self, url: str) -> dict[str, Any]:
        return {"url": url, "username": BRIDGE, "password": self.server.password(BRIDGE)}

    async def open(self, title: str, text: str) -> str:
        name = new_uid()
        await self.server.write(name, f"SUMMARY:{title}", f"DESCRIPTION:{text}")
        return f"ops/{name}.ics"

    async def elsewhere(self, title: str, text: str) -> str:
        await self.server.write(title, f"SUMMARY:{title}", f"DESCRIPTION:{text}", folder="home")
        return f"home/{title}.ics"

    async def privately(self, title: str, text: str) -> str:
        await self.server.write(title, f"SUMMARY:{title}", f"DESCRIPTION:{text}", "CLASS:PRIVATE")
        return f"ops/{title}.ics"

    async def delete(self, item: str) -> None:
        await self.server.remove(_named(item)[1])

    async def edit(self, item: str, add: str, without: str = "?") -> None:
        folder, name = _named(item)
        around = ("BEGIN", "END", "UID", "PRODID", "VERSION", without)
        own = [line for line in await self.server.lines(name, folder) if line and not line.startswith(around)]
        await self.server.write(name, *own, add, folder=folder)

    async def say(self, item: str, text: str) -> None:
        await self.edit(item, f"COMMENT:{text}")

    async def change(self, item: str) -> None:
        done = "STATUS:COMPLETED" in await self.server.lines(_named(item)[1])
        await self.edit(item, "STATUS:NEEDS-ACTION" if done else "STATUS:COMPLETED", "STATUS")

    async def said(self, item: str) -> list[str]:
        lines = await self.server.lines(_named(item)[1])
        return [line for line in lines if line.startswith("COMMENT")]

    async def titles(self) -> list[str]:
        names = self.server.names()
        lines = [await self.server.lines(name.removesuffix(".ics")) for name in names]
        return [line for each in lines for line in each if line.startswith("SUMMARY")]


def _named(item: str) -> tuple[str, str]:
    """The list, and the name of a task."""
    folder, _, name = item.partition("/")
    return folder, name.removesuffix(".ics")


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One server for all tests: every test makes tasks of its own."""
    Tasks.server = Radicale(tmp_path_factory.mktemp("radicale"))
    asyncio.run(Tasks.server.start())
    asyncio.run(Tasks.server.list("home"))
    yield
    asyncio.run(Tasks.server.stop())


class TestCalDav(Contract):
    plugin = CalDav
    tool = Tasks
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "caldav.md"
