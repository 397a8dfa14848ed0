"""The contract, passed by the WebDAV plugin in front of a real WsgiDAV. Files have no comments: what people say is
another file, whose name is on its card.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from bridge.testing import Contract, Tool
from plugins.webdav import WebDav
from tests.peers import ROOT
from tests.peers.dav import BRIDGE, WsgiDav


class Documents(Tool):
    """A folder, and people who work in it."""

    name = "documents"
    scope = "Deals"
    troubles = ("down", "cut", "403", "500", "page")  # others look the same to it
    server: ClassVar[WsgiDav]

    async def __aenter__(self) -> Self:
        self.url = self.server.url
        return self

    def config(self, url: str) -> dict[str, Any]:
        return {"url": url, "username": BRIDGE, "password": self.server.password(BRIDGE)}

    async def open(self, title: str, text: str) -> str:
        await self.server.write(f"Deals/{title}.txt", text)
        return f"Deals/{title}.txt"

    async def elsewhere(self, title: str, text: str) -> str:
        await self.server.write(f"Plans/{title}.txt", text)
        return f"Plans/{title}.txt"

    async def delete(self, item: str) -> None:
        (self.server.files / item).unlink()

    async def say(self, item: str, text: str) -> None:
        await self.server.write(f"{item.rpartition('/')[0]}/{text}.txt", text)

    async def change(self, item: str) -> None:
        await self.server.write(item, f"{(self.server.files / item).read_text()} and more")

    async def files(self, item: str) -> list[tuple[str, bytes]]:
        """All that are there: it is one of them."""
        return [(path.name, path.read_bytes()) for path in (self.server.files / "Deals").iterdir() if path.is_file()]

    async def titles(self) -> list[str]:
        return [path.name for path in (self.server.files / "Deals").iterdir()]


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One server for all tests: every test makes files of its own."""
    Documents.server = WsgiDav(tmp_path_factory.mktemp("wsgidav"))
    asyncio.run(Documents.server.start())
    (Documents.server.files / "Plans").mkdir()
    yield
    asyncio.run(Documents.server.stop())


class TestWebDav(Contract):
    plugin = WebDav
    tool = Documents
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "webdav.md"
    # These look for the words of a message, and a file says nothing.
    test_what_people_say_appears_once_in_order_and_in_their_name = None
    test_nothing_appears_again_after_a_restart = None
    test_what_is_said_while_the_bridge_is_down_appears_once = None
    test_the_first_poll_only_says_where_to_begin = None
    test_a_page_that_comes_again_shows_nothing_twice = None
    test_polling_waits_out_trouble = None
