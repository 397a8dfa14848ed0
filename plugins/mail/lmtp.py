"""LMTP from the server's side (RFC 2033): SMTP in which every recipient gets an answer of its own to the mail.

Postfix and Exim send again what was not answered with yes, to those recipients only: so each answer must be true alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, cast

from plugins.mail.config import LOCAL
from plugins.mail.content import Transaction
from plugins.mail.smtp import Server, Session


class EachServer(Server, Protocol):
    """A server that answers recipient by recipient."""

    async def take_each(self, transaction: Transaction, raw: bytes) -> list[str]:
        """Take a whole mail; returns one answer per recipient, in their order. Never raises, except when cancelled."""
        ...


class LmtpSession(Session):
    """One LMTP connection."""

    protocol: ClassVar[str] = "LMTP"
    commands: ClassVar[Mapping[str, Callable[[Any, str], str]]] = {
        "LHLO": Session.commands["EHLO"],
        # EHLO and HELO must be refused: RFC 2033 4.1
        **{verb: command for verb, command in Session.commands.items() if verb not in ("EHLO", "HELO")},
    }

    async def _taken(self, transaction: Transaction, raw: bytes) -> str:
        return "\r\n".join(await cast(EachServer, self._server).take_each(transaction, raw))

    def _refused(self, transaction: Transaction, refusal: str) -> str:
        """RFC 2033 4.2: as many answers as recipients, whatever they are."""
        return "\r\n".join([refusal] * len(transaction.recipients))


class LocalSession(LmtpSession):
    """One that came through a socket in the file system: its rights say who may come."""

    def _peer(self, transport: asyncio.BaseTransport) -> str:
        return LOCAL
