"""A bridge of the mail plugin whose homeserver shows everything at once: for tests of how mail arrives."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

from bridge.config import Config
from bridge.connector import Connector
from bridge.testing import Tool
from bridge.testing.faults import Proxy
from bridge.testing.office import ROOM, Office
from plugins.mail import Mail
from tests.peers.world import Sink

SUPPORT, SALES = "support@company.example", "sales@company.example"
CAROL = "carol@customer.example"
_numbers = itertools.count(1)


class HandedOver(Mail):
    """Mail as it is without IMAP: it is handed over, and nobody is asked for it."""

    poll = Connector.poll


class _Settings(Tool):
    """The mail plugin with these settings; nobody works with it but the test."""

    name, scope = "mail", SUPPORT

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(Proxy())
        self.settings = dict(settings)

    def config(self, url: str) -> dict[str, Any]:
        return self.settings


class Mailroom(Office):
    """All its mailboxes are mapped to the room; what operators would hear is in `told`."""

    def __init__(self, settings: Mapping[str, Any], folder: Path) -> None:
        asks = any("imap" in each for each in settings["mailboxes"])
        super().__init__(Mail if asks else HandedOver, _Settings(settings), folder, 2.0)
        self.told: list[tuple[str, str]] = []

    @property
    def mail(self) -> Mail:
        return cast(Mail, self.connector)

    def _configured(self) -> Config:
        plain = super()._configured()
        boxes = [each["address"] for each in self.tool.config("")["mailboxes"]]
        mappings = [plain.mappings[0].model_copy(update={"scope": each, "room": ROOM}) for each in boxes]
        inside = plain.inside.model_copy(update={"domains": frozenset({"company.example"})})
        return plain.model_copy(update={"mappings": tuple(mappings), "inside": inside})

    async def _told(self, name: str, reason: str) -> None:
        self.told.append((name, reason))

    async def shown(self, *words: str) -> None:
        """Each word is shown, sooner or later, and then once."""
        for word in words:
            await self.arrives(word)
        counts = {word: len(self.posts(word)) for word in words}
        assert counts == dict.fromkeys(words, 1)


def settings(sink: Sink | None, *mailboxes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A configuration of the plugin; without a sink nothing can leave."""
    host, port = (sink.host, sink.port) if sink else ("127.0.0.1", 9)
    smarthost = {"host": host, "port": port, "security": "none", "timeout": 5}
    return {"hostname": "bridge.example", "mailboxes": list(mailboxes), "smarthost": smarthost, **more}


@contextlib.asynccontextmanager
async def mailroom(folder: Path, config: Mapping[str, Any]) -> AsyncIterator[Mailroom]:
    """A bridge that runs; `stop` and `start` are a crash and the next life."""
    office = Mailroom(config, folder)
    try:
        await office.start()
        yield office
    finally:
        await office.stop()


def written(text: str, *more: str, sender: str = CAROL, to: str = SUPPORT, number: int = 0) -> bytes:
    """A mail with that text; `more` are fields of its header. Each has its own Message-ID, unless `number` says one."""
    lines = [
        f"From: {sender}", f"To: {to}", "Subject: Printer",
        f"Message-ID: <m{number or next(_numbers)}@customer.example>",
        "Date: Sun, 22 Nov 2026 10:00:00 +0000", *more, "", text, "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()
