"""Hands mail to the smarthost: over a few connections that are kept and used again, with one result per recipient.

Which failure means what: the message's own (5xx) is `Rejected`; a passing one (4xx) is `Deferred`; the server's (cannot
be reached, refuses our login, is closing) is `Unavailable`; no answer to a message we handed over is `Unconfirmed`.
Passwords never get into errors: what the server says is stripped of them, and causes that could hold them are cut off.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from bridge.model import Address, Deferred, Finding, Rejected, Unavailable, Unconfirmed
from bridge.text.plain import spoken
from plugins.mail.config import Smarthost

CONNECTIONS = 4
IDLE = 30.0  # seconds that an unused connection is kept
PATIENCE = 10  # the answer to a whole message may take so many times longer; RFC 5321 4.5.3.2.6: 10 minutes
SERVER_TROUBLE = frozenset({421, 503, 530, 535, 538})  # about us or the server, never about one message


@dataclass(slots=True)
class Outcome:
    """What became of one mail, recipient by recipient."""

    reply: str = ""
    accepted: list[Address] = field(default_factory=list)
    deferred: list[tuple[Address, str]] = field(default_factory=list)
    refused: list[tuple[Address, str]] = field(default_factory=list)


class Submission:
    """Our side of the smarthost (RFC 6409). Connections belong to the running loop; `close` them at the end."""

    def __init__(self, smarthost: Smarthost, greeting: str, connections: int = CONNECTIONS, idle: float = IDLE) -> None:
        self._smarthost = smarthost
        self._greeting = greeting
        self._idle_time = idle
        self._context: ssl.SSLContext | None = None
        self._room = asyncio.Semaphore(connections)
        self._idle: dict[SMTP, asyncio.TimerHandle] = {}

    async def send(self, sender: str, recipients: Mapping[str, Address], message: bytes) -> Outcome:
        """Submit one mail to the recipients, by their addresses as SMTP writes them.

        Returns when the server has taken it for at least one of them. Raises `Rejected` when it refused the message or
        every recipient for good, `Deferred` when it may take it later, `Unavailable` when the server is in trouble, and
        `Unconfirmed` when the connection was lost before it said whether it has the message.
        """
        async with self._room:
            client = await self._reused(sender, message) or await self._fresh(sender, message)
            async with self._kept(client):
                return await self._submit(client, recipients, message)

    async def check(self) -> list[Finding]:
        """What `doctor` asks: whether it can be reached, trusts us, and how large a mail it takes."""
        host = f"{self._smarthost.host}:{self._smarthost.port}"
        try:
            client = await self._connected()
        except Unavailable as trouble:
            return [Finding(False, str(trouble), "check host, port, security, ca_file and the login of smarthost")]
        limit = _limit(client)
        login = f", logged in as {self._smarthost.username}" if self._smarthost.username else ""
        files = limit * 100 // 137  # base64 in lines, RFC 2045 6.8
        most = f"takes mails up to {spoken(limit)}" if limit else "names no largest size"
        _part(client)
        said = f"smarthost {host} answers ({self._smarthost.security}{login}) and {most}"
        return [Finding(True, said, most=files)]

    def close(self) -> None:
        """Close the connections that are not in use."""
        for client, timer in self._idle.items():
            timer.cancel()
            _part(client)
        self._idle.clear()

    # --- connections ---

    async def _reused(self, sender: str, message: bytes) -> SMTP | None:
        """A kept connection that has begun this mail; None when there is none that still works."""
        while self._idle:
            client, timer = self._idle.popitem()
            timer.cancel()
            if not client.is_connected:
                continue
            try:
                await self._begin(client, sender, message)
                return client
            except Unavailable:  # it had been closed meanwhile: nothing is lost, nothing was said yet
                client.close()
        return None

    async def _fresh(self, sender: str, message: bytes) -> SMTP:
        client = await self._connected()
        await self._begin(client, sender, message)
        return client

    async def _connected(self) -> SMTP:
        smarthost = self._smarthost
        secrets: list[str] = []
        try:
            secrets = [smarthost.secret()]
            client = SMTP(
                hostname=smarthost.host,
                port=smarthost.port,
                username=smarthost.username or None,
                password=secrets[0] or None,
                local_hostname=self._greeting,
                timeout=smarthost.timeout,
                use_tls=smarthost.security == "tls",
                start_tls=smarthost.security == "starttls",
                tls_context=self._tls(),
            )
            await client.connect()
            if client.is_ehlo_or_helo_needed:  # for SIZE
                await client.ehlo()
        except (SMTPException, OSError, ValueError) as error:
            where = f"smarthost {smarthost.host}:{smarthost.port}"
            raise Unavailable(f"{where}: {_explained(error, smarthost.username, *secrets)}") from None
        return client

    def _tls(self) -> ssl.SSLContext | None:
        if self._context is None and self._smarthost.security != "none":
            self._context = self._smarthost.tls()  # takes some milliseconds: once is enough
        return self._context

    async def _begin(self, client: SMTP, sender: str, message: bytes) -> None:
        """MAIL FROM; on failure the connection is closed."""
        limit = _limit(client)
        if limit and len(message) > limit:
            self._keep(client)
            raise Rejected(f"it has {spoken(len(message))}, and the mail server takes {spoken(limit)} at most")
        options = [f"SIZE={len(message)}"] if "size" in client.esmtp_extensions else []
        try:
            await client.mail(sender, options=options)
        except SMTPResponseException as error:
            _part(client)
            _judge(error)
        except OSError as error:
            client.close()
            raise Unavailable(f"connection to the mail server lost: {error}") from None
        except asyncio.CancelledError:
            client.close()
            raise

    @asynccontextmanager
    async def _kept(self, client: SMTP) -> AsyncIterator[None]:
        """Keep the connection for the next mail, unless its state is unknown or the server is in trouble."""
        try:
            yield
        except (Rejected, Deferred):
            await self._reset(client)
            raise
        except BaseException:
            _part(client)
            raise
        self._keep(client)

    async def _reset(self, client: SMTP) -> None:
        """Keep a connection whose mail was refused, when the server forgets that mail."""
        try:
            await client.rset()
        except (SMTPException, OSError, asyncio.CancelledError) as error:
            _part(client)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._keep(client)

    def _keep(self, client: SMTP) -> None:
        if client.is_connected:
            self._idle[client] = asyncio.get_running_loop().call_later(self._idle_time, self._drop, client)

    def _drop(self, client: SMTP) -> None:
        self._idle.pop(client, None)
        _part(client)

    # --- one mail ---

    async def _submit(self, client: SMTP, recipients: Mapping[str, Address], message: bytes) -> Outcome:
        outcome = Outcome()
        try:
            for address, recipient in recipients.items():
                await _offer(client, recipient, address, outcome)
        except OSError as error:
            raise Unavailable(f"connection to the mail server lost: {error}") from None
        if not outcome.accepted:
            _nobody(outcome)
        try:
            answer = await client.data(message, timeout=self._smarthost.timeout * PATIENCE)
        except SMTPDataError as error:
            if error.code >= 400:
                _judge(error)
            raise Unconfirmed(_said(error)) from None
        except (SMTPException, OSError) as error:
            raise Unconfirmed(f"the mail server did not confirm the message: {error}") from None
        outcome.reply = _without_addresses(f"{answer.code} {answer.message}")
        return outcome


async def _offer(client: SMTP, recipient: Address, address: str, outcome: Outcome) -> None:
    """RCPT TO for one recipient."""
    try:
        await client.rcpt(address)
    except SMTPResponseException as error:
        if error.code in SERVER_TROUBLE or not 400 <= error.code < 600:
            _judge(error)
        (outcome.refused if error.code >= 500 else outcome.deferred).append((recipient, _said(error)))
    else:
        outcome.accepted.append(recipient)


def _nobody(outcome: Outcome) -> NoReturn:
    said = [*outcome.deferred, *outcome.refused]
    answers = "; ".join(f"{who.account}: {answer}" for who, answer in said) if len(said) != 1 else said[0][1]
    raise Deferred(answers) if outcome.deferred else Rejected(answers or "there is no recipient")


def _judge(error: SMTPResponseException) -> NoReturn:
    """Turn a refusal by the server into ours."""
    if error.code in SERVER_TROUBLE or not 400 <= error.code < 600:
        raise Unavailable(f"the mail server said: {_said(error)}") from None
    raise (Rejected if error.code >= 500 else Deferred)(_said(error)) from None


def _said(error: SMTPResponseException) -> str:
    return f"{error.code} {' '.join(error.message.split())}"[:500]


def _without_addresses(reply: str) -> str:
    """What the server said, fit for a log: some servers name the recipient."""
    return " ".join(word for word in reply.split() if "@" not in word)[:200]


def _explained(error: Exception, username: str, *secrets: str) -> str:
    """Why there is no connection, for people; whatever the server repeats of the password is left out."""
    if isinstance(error, SMTPAuthenticationError):
        text = f"login as {username} refused: {_said(error)}"
    else:
        text = _said(error) if isinstance(error, SMTPResponseException) else str(error) or type(error).__name__
    for secret in filter(None, secrets):
        login = f"\0{username}\0{secret}"
        for form in (*(base64.b64encode(one.encode()).decode() for one in (login, secret)), secret):
            text = text.replace(form, "***")
    return text


def _limit(client: SMTP) -> int:
    """The largest message the server takes, in bytes; 0 when it does not say. RFC 1870"""
    size = client.esmtp_extensions.get("size", "").strip()
    return int(size) if size.isdecimal() else 0


def _part(client: SMTP) -> None:
    """Close without waiting for the answer to QUIT."""
    if client.is_connected and client.protocol is not None:
        with suppress(SMTPServerDisconnected):
            client.protocol.write(b"QUIT\r\n")
    client.close()
