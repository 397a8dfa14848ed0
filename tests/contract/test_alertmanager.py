"""The contract, passed by the Alertmanager plugin in front of a real Alertmanager."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from bridge.model import Rejected, Request
from bridge.testing import Contract, Tool
from bridge.testing.contract import failure, word
from bridge.testing.office import Office
from plugins.alertmanager import Alertmanager
from plugins.alertmanager.alerts import item_of
from tests.peers import ROOT
from tests.peers.alertmanager import LOGIN, NIGHT, RECEIVER, TOKEN
from tests.peers.alertmanager import Alertmanager as Peer

pytestmark = pytest.mark.debian("prometheus-alertmanager", "prometheus-alertmanager")


class Alerts(Tool):
    """An Alertmanager, and machines that send it alerts."""

    name, scope, sealed = "alerts", RECEIVER, False
    words: ClassVar[dict[str, tuple[str, str]]] = {
        "silence": ("2h works on the roof", "3h works on the roof"),
        "ack": ("looking", "mending"),
    }
    troubles = ("down", "cut", "500", "page", "error")  # the others are seen as one of these
    refusal = (400, b'{"error": "this cannot be done"}')
    unknown = b'{"receiver": "others", "groupLabels": {}, "alerts": []}'
    peer: ClassVar[Peer]

    async def __aenter__(self) -> Self:
        self.url = self.peer.url
        self.names: dict[str, str] = {}
        self.teams: dict[str, dict[str, str]] = {}
        self.count = 0
        await self.peer.reload(self.hook)
        return self

    def config(self, url: str) -> dict[str, Any]:
        login = dict(zip(("username", "password"), LOGIN, strict=True))
        return {"url": url, "web": self.url, **login, "receivers": [RECEIVER, NIGHT], "token": TOKEN}

    def signed(self, body: bytes) -> Request:
        return Request({"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}, body)

    async def open(self, title: str, text: str) -> str:
        item = item_of(RECEIVER, {"alertname": title, "service": "shop"})
        self.names[item] = title
        await self.say(item, text)
        return item

    async def elsewhere(self, title: str, text: str) -> str:
        item = item_of(NIGHT, {"alertname": title, "service": "shop"})
        self.names[item], self.teams[item] = title, {"team": "night"}
        await self.say(item, text)
        return item

    async def say(self, item: str, text: str) -> None:
        """One more alert of the group."""
        self.count += 1
        more = {"value": f"{self.count} %", **self.teams.get(item, {})}
        await self.peer.fire(self.names[item], text, instance=f"n{self.count}", **more)
        await self._settled(item, self.count)

    async def change(self, item: str) -> None:
        await self.say(item, "and another")

    async def _settled(self, item: str, count: int) -> None:
        """What is sent shows in its interface a moment later."""
        async with asyncio.timeout(5):
            while not any(
                each["labels"]["instance"] == f"n{count}" for each in await self.peer.call("GET", "alerts")
                if each["labels"]["alertname"] == self.names[item]
            ):  # fmt: skip
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module", autouse=True)
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One server for all tests: every test has alerts of its own."""
    Alerts.peer = Peer(tmp_path_factory.mktemp("alertmanager"))
    asyncio.run(Alerts.peer.start())
    yield
    asyncio.run(Alerts.peer.stop())


class TestAlertmanager(Contract):
    plugin = Alertmanager
    tool = Alerts
    page: ClassVar[Path] = ROOT / "docs" / "plugins" / "alertmanager.md"

    async def test_a_change_that_makes_no_sense_is_refused(self, office: Office) -> None:
        """Any words are a reason for `ack`: only `silence` can be typed wrongly."""
        item = await office.tool.open(word(), word())
        error = await failure(self._changed(office, item, "silence", word()))
        assert isinstance(error, Rejected), f"change must raise Rejected, not {error!r}"

    async def test_a_change_is_one_line_and_what_fires_again_none_beside_its_message(self, office: Office) -> None:
        item, again = await office.tool.open(word(), word()), word()
        tool = office.tool
        assert isinstance(tool, Alerts)
        await office.until(lambda: "1 firing" in office.card(), "it fires")
        await tool.say(item, again)
        await office.arrives(again)
        await office.until(lambda: "2 firing" in office.card(), "two fire")
        for number in (1, 2):
            await tool.peer.resolve(tool.names[item], instance=f"n{number}")
        await office.until(lambda: "resolved" in office.card(), "they have ended")
        await office.until(lambda: "→ resolved" in office.everything(), "a line says so")
        last = word()
        await tool.say(item, last)
        await office.arrives(last)
        await office.until(lambda: "1 firing" in office.card(), "it fires again")
        text = office.everything().rpartition("→ resolved")[2]  # before, one may have ended a look earlier
        assert not re.search(r"→ \d firing", text), "\n" + text
