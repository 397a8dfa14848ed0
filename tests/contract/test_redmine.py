"""The contract, passed by the Redmine plugin in front of a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp
import pytest

from bridge.testing import Contract, Tool
from plugins.redmine import Redmine
from tests.peers import ROOT
from tests.peers.redmine import BRIDGE, OTHER, PROJECT
from tests.peers.redmine import Redmine as Server


class Desk(Tool):
    """A project, and Carol and Alice who use its REST interface."""

    name = "desk"
    scope = PROJECT
    words: ClassVar[dict[str, tuple[str, str]]] = {
        "state": ("Resolved", "New"),
        "assign-item": ("alice", "bob"),
        "priority": ("Urgent", "Low"),
    }
    troubles = ("down", "cut", "403")  # others look the same to it
    noticed = ("down", "403", "page")
    refusal = (422, b'{"errors": ["this cannot be done"]}')
    server: ClassVar[Server]

    async def __aenter__(self) -> Self:
        self.url = self.server.url
        return self

    def config(self, url: str) -> dict[str, Any]:
        return {"url": url, "web": self.url, "username": BRIDGE, "password": self.server.password(BRIDGE)}

    async def open(self, title: str, text: str) -> str:
        return f"redmine{await self.server.open(title, text)}"

    async def elsewhere(self, title: str, text: str) -> str:
        return f"redmine{await self.server.open(title, text, 'alice', project_id=OTHER)}"

    async def privately(self, title: str, text: str) -> str:
        return f"redmine{await self.server.open(title, text, 'alice', is_private=True)}"

    async def delete(self, item: str) -> None:
        await self.server.remove(_number(item))

    async def say(self, item: str, text: str) -> None:
        await self.server.change(_number(item), "alice", notes=text)

    async def whisper(self, item: str, text: str) -> None:
        await self.server.change(_number(item), "alice", notes=text, private_notes=True)

    async def change(self, item: str) -> None:
        issue = await self.server.read(_number(item))
        await self.server.change(_number(item), status_id=2 if issue["status"]["id"] == 3 else 3)

    async def attach(self, item: str, name: str, data: bytes) -> None:
        file = await self.server.upload(name, data, "text/x-any", "alice")
        await self.server.change(_number(item), "alice", uploads=[file])

    async def files(self, item: str) -> list[tuple[str, bytes]]:
        found = (await self.server.read(_number(item)))["attachments"]
        login = {"Authorization": aiohttp.encode_basic_auth(BRIDGE, self.server.password(BRIDGE))}
        async with aiohttp.ClientSession(headers=login, raise_for_status=True) as http:
            return [(each["filename"], await (await http.get(each["content_url"])).read()) for each in found]

    async def said(self, item: str) -> list[str]:
        issue = await self.server.read(_number(item))
        return [issue["description"], *(each["notes"] or "" for each in issue["journals"])]

    async def titles(self) -> list[str]:
        return await self.server.titles()


def _number(item: str) -> int:
    return int(item.removeprefix("redmine"))


@pytest.fixture(scope="module", autouse=True)
def server(redmine: Server) -> None:
    Desk.server = redmine


class Patient(Redmine):
    """Looks three times a second: more often would only keep the server busy."""

    async def wait(self) -> None:
        await asyncio.sleep(0.3)


@pytest.mark.debian("redmine", "/usr/share/redmine/bin/rails")
class TestRedmine(Contract):
    plugin = Patient
    tool = Desk
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "redmine.md"
    patience: ClassVar[float] = 4.0  # a request takes it 0.1 s, and much longer on a busy machine
