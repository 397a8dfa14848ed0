"""The contract, passed by mail that is read from a real IMAP server and leaves to a real mail server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest
import pytest_asyncio

from bridge.testing import Contract
from plugins.mail import Mail
from tests.contract.test_mail import LARGEST, Letters
from tests.peers import ROOT
from tests.peers.dovecot import Dovecot
from tests.peers.world import letter

_users = itertools.count(1)
_server: list[Dovecot] = []  # the tool is made by the kit, which knows no fixtures


class Faulty:
    """What stands between the bridge and the IMAP server, and makes trouble."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.trouble = ""
        self.hits = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.trouble:
                self.hits += 1
                writer.write({"page": b"<!doctype html>\r\n", "slow": b""}.get(self.trouble, b"* BYE trouble\r\n"))
                await (reader.read() if self.trouble == "slow" else writer.drain())
            else:
                await self._pass_on(reader, writer)
        self._open.discard(writer)
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inward, outward = await asyncio.open_connection("127.0.0.1", self.target)
        self._open.add(outward)
        try:
            await asyncio.gather(_copied(reader, outward), _copied(inward, writer))
        finally:
            self._open.discard(outward)
            outward.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


class Inbox(Letters):
    """Carol's mail comes into an account; the sink gets what the bridge sends."""

    troubles = ("down", "slow", "cut", "page")
    noticed = ("down", "page")

    async def __aenter__(self) -> Self:
        (server,) = _server
        self.server, self.user = server, f"contract{os.getpid()}-{next(_users)}"
        self.box, self.faulty = server.account(self.user), Faulty(server.port)
        self.imap_port = await self.faulty.start()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.faulty.stop()
        await super().__aexit__(kind, error, trace)

    def config(self, url: str) -> dict[str, Any]:
        plain = super().config(url)
        del plain["listen"]
        imap = self.server.imap(self.user, port=self.imap_port, timeout=0.7)
        return plain | {"mailboxes": [{"address": self.scope, "imap": imap}]}

    async def nonsense(self) -> None:
        """What is in the mailbox is shown, whatever it is; not so what its account has sent as somebody else."""
        for raw in (b"\r\n", b"\xff\x00\r\n", b"From: <<<\r\n\r\n", b"Subject: =?x?x?x?=\r\n" * 500):
            await self.box.put(raw, "Gesendet")
        await self.box.put(letter(subject="Huge", body="x\n" * LARGEST).as_bytes(), "Gesendet")

    async def echo(self, item: str) -> None:
        """As through a list."""
        await self.box.put(self.sink.mails[-1].data)

    async def hurt(self, trouble: str, nth: int = 0) -> None:
        await super().hurt(trouble, nth)
        if trouble in self.troubles and trouble != "cut":
            self.faulty.trouble = trouble
            self.faulty.cut()

    async def heal(self) -> None:
        await super().heal()
        self.faulty.trouble = ""

    def struck(self) -> bool:
        return super().struck() or self.faulty.hits > 0

    async def _post(self, mail: EmailMessage) -> None:
        self.last = mail
        await self._put(mail)

    async def _put(self, mail: EmailMessage) -> None:
        await self.box.put(mail.as_bytes())


@pytest.mark.debian("dovecot-imapd", "dovecot")
class TestMailByImap(Contract):
    plugin = Mail
    tool = Inbox
    page: ClassVar[Path] = ROOT / "config" / "passerelle.yaml"


@pytest_asyncio.fixture(autouse=True, scope="module", loop_scope="module")
async def dovecot() -> AsyncIterator[None]:
    """One server for all; each test is a user of its own."""
    async with Dovecot() as server:
        _server[:] = [server]
        yield
