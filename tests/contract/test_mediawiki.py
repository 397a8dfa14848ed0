"""The contract, passed by the MediaWiki plugin on a real wiki: a page is an item, its talk page is the talk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from bridge.testing import Contract, Tool
from plugins.mediawiki import MediaWiki
from tests.peers import ROOT
from tests.peers.mediawiki import BRIDGE, PRESENT, SPACE, talk_of
from tests.peers.mediawiki import MediaWiki as Server


class Sparing(MediaWiki):
    """Looks less often than the kit wants, since a look is what costs most here."""

    async def wait(self) -> None:
        await asyncio.sleep(0.2)


class Pages(Tool):
    """A namespace, and Alice and Bob who write there."""

    name = "pages"
    scope = SPACE
    # What else a server can do to a request, the plugin does not see differently from these.
    troubles = ("down", "cut", "500", "error")
    noticed = ("down", "403", "page", "error")
    refusal = (200, b'{"error": {"code": "protectedpage", "info": "This page has been protected."}}')
    server: ClassVar[Server]

    async def __aenter__(self) -> Self:
        self.url = self.server.url
        self.names: dict[str, str] = {}
        return self

    def config(self, url: str) -> dict[str, Any]:
        password, path = self.server.password(BRIDGE), "/wiki/$1"
        return {"url": url, "web": self.url, "username": BRIDGE, "password": password, "article_path": path}

    async def open(self, title: str, text: str) -> str:
        page = await self.server.edit(f"{SPACE}:{title}", text)
        self.names[f"mediawiki{page['pageid']}"] = page["title"]
        return f"mediawiki{page['pageid']}"

    async def say(self, item: str, text: str) -> None:
        await self.server.talk(self.names[item], text, "Bob")

    async def change(self, item: str) -> None:
        await self.server.edit(self.names[item], " more", "Bob", append=True, summary="More of it")

    async def said(self, item: str) -> list[str]:
        return (await self.server.text(talk_of(self.names[item]))).split("\n\n")

    async def titles(self) -> list[str]:
        return await self.server.titles(3000)


@pytest.fixture(scope="module", autouse=True)
def server(mediawiki: Server) -> None:
    Pages.server = mediawiki


@pytest.mark.debian("mediawiki", PRESENT)
class TestMediaWiki(Contract):
    plugin = Sparing
    tool = Pages
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "mediawiki.md"
    patience: ClassVar[float] = 4.0  # a request takes it 0.1 s, and much longer on a busy machine
