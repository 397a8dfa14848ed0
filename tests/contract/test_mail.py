"""The contract, passed by mail: real SMTP in, a real mail server out."""

from __future__ import annotations

import asyncio
import contextlib
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import aiosmtplib

from bridge.testing import Contract, Tool
from bridge.testing.faults import free_port
from tests.peers import ROOT
from tests.peers.mailroom import HandedOver
from tests.peers.world import Fault, Sink, letter, post

CAROL = "carol@outside.example"
LARGEST = 1_000_000
REPLIES = {  # what goes wrong, and what a mail server says then
    "down": ("banner", {"cut": True}),
    "slow": ("after-data", {"delay": 60, "times": 1}),
    "cut": ("after-data", {"cut": True, "times": 1}),
    "535": ("mail", {"reply": "535 5.7.8 who are you?"}),
    "421": ("mail", {"reply": "421 4.3.2 closing"}),
    "451": ("rcpt", {"reply": "451 4.7.1 later"}),
    "452": ("data", {"reply": "452 4.3.1 full"}),
    "554": ("banner", {"reply": "554 5.3.2 not for you"}),
    "page": ("ehlo", {"reply": "<!doctype html>"}),
    "error": ("data", {"reply": "200 <error/>"}),
}


class Letters(Tool):
    """Carol, who writes to a mailbox; the sink, which gets what the bridge sends."""

    scope = "support@company.example"
    recipient = CAROL
    troubles = tuple(REPLIES)
    noticed = ("down", "554", "page")

    async def __aenter__(self) -> Self:
        self.port = free_port()
        self.sink = Sink()
        self.fault: Fault | None = None
        self.last: EmailMessage | None = None
        await self.sink.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.sink.stop()

    def config(self, url: str) -> dict[str, Any]:
        return {
            "listen": f"127.0.0.1:{self.port}",
            "max_size": LARGEST,
            "mailboxes": [{"address": self.scope}],
            "smarthost": {"host": self.sink.host, "port": self.sink.port, "security": "none", "timeout": 0.4},
        }

    async def open(self, title: str, text: str) -> str:
        await self._post(letter(subject=title, body=text))
        return self._id()

    async def say(self, item: str, text: str) -> None:
        await self._post(letter(subject="Re", body=text, in_reply_to=item, references=[item]))

    async def again(self) -> None:
        assert self.last is not None
        await self._post(self.last)

    async def nonsense(self) -> None:
        for size in (LARGEST + 1, 3 * LARGEST):
            with contextlib.suppress(aiosmtplib.SMTPException):
                await self._post(letter(subject="Huge", body="x\n" * (size // 2)))
        for to in ("nobody@company.example", "support@elsewhere.example"):
            with contextlib.suppress(aiosmtplib.SMTPException):
                await self._post(letter(to=to))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"\xff\x00\r\nMAIL FROM:<\xe9 <\r\nDATA\r\n" + b"x" * 100_000 + b"\r\n")
        await reader.readline()
        writer.close()

    async def echo(self, item: str) -> None:
        """As through a list."""
        await post("127.0.0.1", self.port, self.scope, [self.scope], self.sink.mails[-1].data)

    async def attach(self, item: str, name: str, data: bytes) -> None:
        await self._post(letter(body="See there", attachments=[(name, data)], in_reply_to=item, references=[item]))

    async def files(self, item: str) -> list[tuple[str, bytes]]:
        return [file for mail in self._distinct() for file in mail.files.items()]

    async def said(self, item: str) -> list[str]:
        return [mail.text for mail in self._distinct()]

    async def titles(self) -> list[str]:
        return [mail["Subject"] for mail in self._distinct()]

    async def hurt(self, trouble: str, nth: int = 0) -> None:
        await self.heal()
        stage, how = REPLIES.get(trouble, ("rcpt", {"reply": "550 5.1.1 no such user"}))
        if nth < 2:  # a mail is handed over in one step
            self.fault = self.sink.faults.add(stage, **{"times": None, **how})  # type: ignore[arg-type]

    async def heal(self) -> None:
        self.sink.faults.clear()
        self.fault = None

    def struck(self) -> bool:
        return self.fault is not None and self.fault.hits > 0

    async def _post(self, mail: EmailMessage) -> None:
        self.last = mail
        await post("127.0.0.1", self.port, CAROL, [str(mail["To"])], mail)

    def _id(self) -> str:
        assert self.last is not None
        return str(self.last["Message-ID"])

    def _distinct(self) -> list[Any]:
        """A repeat has the same Message-ID: that is all mail can promise."""
        return list({mail["Message-ID"]: mail for mail in self.sink.mails}.values())


class TestMail(Contract):
    plugin = HandedOver
    tool = Letters
    page: ClassVar[Path] = ROOT / "config" / "passerelle.yaml"
