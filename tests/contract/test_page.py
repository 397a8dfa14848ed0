"""The contract, passed by the page plugin in front of a web server on loopback, which it is allowed to look at.

A page has no messages and is never changed by us; trouble with one page is an answer, so that others are not held up.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from bridge.testing import Contract, Office, Tool
from bridge.testing.contract import word
from plugins.page import Page
from tests.peers import ROOT
from tests.peers.pages import Pages


class Site(Tool):
    """A web site, and people who write its pages. It is asked at the proxy's address: that is what people link."""

    name, scope = "pages", "web"

    async def __aenter__(self) -> Self:
        self.pages = await Pages().__aenter__()
        self.url = self.pages.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pages.__aexit__(kind, error, trace)

    def config(self, url: str) -> dict[str, Any]:
        return {"hosts": ["127.0.0.1"], "ports": [urlsplit(url).port], "networks": ["127.0.0.1"], "seconds": 2}

    async def open(self, title: str, text: str) -> str:
        self.pages.page(text, title)
        return f"{self.front}/{text}"


class TestPage(Contract):
    plugin = Page
    tool = Site
    page: ClassVar = ROOT / "docs" / "plugins" / "page.md"
    test_a_404_of_a_proxy_says_nothing_of_any_item = None  # it is refused: no page is ever said to be deleted
    test_looking_at_an_item_waits_out_trouble = None  # see above; tests/unit/test_page.py shows what it does instead

    async def test_a_link_gets_its_card_and_a_page_in_trouble_none(self, office: Office) -> None:
        first, second = [await office.tool.open(word(), word()) for _ in range(2)]
        await office.say(f"{office.tool.front}/none and {first}")
        await office.say(f"look: {second}")
        for url in (first, second):
            await office.until(lambda url=url: url in office.everything(), f"the card of {url}")
        assert not await office.drafts(), "nothing waits for the page that is not there"
        assert office.everything().count("site: 127.0.0.1") == 2
        assert "none" not in office.everything()
