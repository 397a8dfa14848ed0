"""The outside world on loopback: a mail server that keeps and shows what it gets, and people who write to us."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as SMTP_POLICY
from email.policy import EmailPolicy
from email.utils import format_datetime
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self

import aiosmtplib
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.peers import free_port
from tests.peers.certificate import Certificate

Stage = Literal["banner", "ehlo", "mail", "rcpt", "data", "after-data"]


@dataclass(frozen=True)
class Mail:
    """A mail as the sink got it."""

    data: bytes
    sender: str
    recipients: tuple[str, ...]
    peer: str
    tls: bool
    login: str | None
    answered: bool = True  # False: it was taken, and the sender never heard so

    @cached_property
    def message(self) -> EmailMessage:
        parsed = BytesParser(policy=SMTP_POLICY).parsebytes(self.data)
        assert isinstance(parsed, EmailMessage)
        return parsed

    def __getitem__(self, header: str) -> str:
        """A header's decoded value, or ""."""
        return str(self.message[header] or "")

    def raw(self, header: str) -> str:
        """A header as it went over the wire, folds included, or ""."""
        head = self.data.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "replace")
        lines = head.replace("\n ", "\0 ").replace("\n\t", "\0\t").split("\n")
        found = [line for line in lines if line.lower().startswith(f"{header.lower()}:")]
        return found[0].partition(":")[2].strip().replace("\0", "\n") if found else ""

    @property
    def text(self) -> str:
        """The plain text part."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """The HTML part."""
        return self._part("html")

    @property
    def files(self) -> dict[str, bytes]:
        """Attachments: name → content."""
        parts = [part for part in self.message.walk() if part.get_filename()]
        return {str(part.get_filename()): part.get_payload(decode=True) or b"" for part in parts}  # type: ignore[misc]

    def _part(self, kind: Literal["plain", "html"]) -> str:
        part = self.message.get_body((kind,))
        return str(part.get_content()).replace("\r\n", "\n") if part is not None else ""


@dataclass
class Fault:
    """What goes wrong at one stage of an SMTP conversation: a reply, a cut, a delay, `times` times (None: always).

    `when` sees the session and the envelope so far; at stage "rcpt" its third argument is what RCPT said. A client that
    is refused at EHLO tries HELO, which is the same stage. `cut` after the data means that the mail was taken: its
    sender cannot know.
    """

    stage: Stage
    reply: str = ""
    cut: bool = False
    delay: float = 0
    times: int | None = 1
    chance: float = 1
    when: Callable[[Session, Envelope, str], bool] = lambda session, envelope, argument: True
    hits: int = 0


class Faults:
    """The faults that wait for their moment; reproducible by `seed`."""

    def __init__(self, seed: int = 0) -> None:
        self.waiting: list[Fault] = []
        self._dice = random.Random(seed)

    def add(self, stage: Stage, reply: str = "", **how: Any) -> Fault:
        """`sink.faults.add("rcpt", "451 4.7.1 later", times=2)`; see `Fault`."""
        fault = Fault(stage, reply, **how)
        self.waiting.append(fault)
        return fault

    def clear(self) -> None:
        self.waiting.clear()

    def take(self, stage: Stage, session: Session, envelope: Envelope, argument: str) -> Fault | None:
        """The fault that strikes now."""
        for fault in self.waiting:
            over = fault.times is not None and fault.hits >= fault.times
            fits = fault.stage == stage and not over and fault.when(session, envelope, argument)
            if fits and self._dice.random() < fault.chance:
                fault.hits += 1
                return fault
        return None


class Sink:
    """A mail server that accepts everything, unless told otherwise, and remembers it."""

    def __init__(
        self,
        port: int | None = None,
        security: Literal["none", "starttls", "tls"] = "none",
        certificate: Certificate | None = None,
        login: tuple[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        assert security == "none" or certificate is not None, "TLS needs a certificate"
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.security = security
        self.login = login
        self.mails: list[Mail] = []
        self.connections = 0
        self.faults = Faults(seed)
        self._tls = certificate.context() if certificate else None
        self.open: set[_Conversation] = set()
        self._server: asyncio.Server | None = None
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen (again) on the same port."""
        tls = self._tls if self.security == "tls" else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._conversation, self.host, self.port, ssl=tls)

    async def stop(self) -> None:
        """Be down: the port refuses, open connections break."""
        if self._server is not None:
            self._server.close()
            for conversation in list(self.open):
                _abort(conversation)
            self._server = None

    async def wait_for(
        self, wanted: Callable[[Mail], Any] = lambda mail: True, timeout: float = 40, after: int = 0
    ) -> Mail:
        """The first mail that is `wanted`, here already or to come; `after` leaves out the first ones."""

        def first() -> Mail | None:
            return next((mail for mail in self.mails[after:] if wanted(mail)), None)

        try:
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(first)
        except TimeoutError:
            have = [f"{mail.sender} → {', '.join(mail.recipients)}: {mail['Subject']}" for mail in self.mails]
            raise AssertionError(f"the sink waited {timeout} s for a mail and has {have}") from None
        found = first()
        assert found is not None
        return found

    async def wait_for_count(self, count: int, timeout: float = 40) -> list[Mail]:
        """At least so many mails."""
        await self.wait_for(lambda mail: len(self.mails) >= count, timeout)
        return list(self.mails)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """aiosmtpd's hook: a whole mail is here."""
        fault = self.faults.take("after-data", session, envelope, "")
        if fault is not None:
            await asyncio.sleep(fault.delay)
            if fault.reply and not fault.cut:
                return fault.reply
        cut = fault is not None and fault.cut
        await self._keep(_taken(session, envelope, self.security == "tls" or session.ssl is not None, answered=not cut))
        if cut:
            _abort(server)
        return "250 2.0.0 taken"

    async def _keep(self, mail: Mail) -> None:
        async with self._news:
            self.mails.append(mail)
            self._news.notify_all()

    def _conversation(self) -> _Conversation:
        self.connections += 1
        return _Conversation(self)

    def smtp_settings(self) -> dict[str, Any]:
        """What aiosmtpd needs to be this server."""
        starttls = self.security == "starttls"
        return {
            "hostname": "mx.outside.example",
            "data_size_limit": 100 * 2**20,
            "enable_SMTPUTF8": True,
            "tls_context": self._tls if starttls else None,
            "require_starttls": starttls,
            "auth_required": self.login is not None,
            "auth_require_tls": starttls,
            "authenticator": self._authenticate if self.login else None,
        }

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self.login, handled=False, auth_data=given[0])


class _Conversation(SMTP):
    """One SMTP connection to the sink."""

    line_length_limit = 65_536  # more than RFC 5321 grants: a test reads what came, however bad

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink, loop=asyncio.get_running_loop(), **sink.smtp_settings())
        self.sink = sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.sink.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.sink.open.discard(self)
        super().connection_lost(error)

    async def _handle_client(self) -> None:
        if not await self._faulted("banner"):
            await super()._handle_client()
        elif self.transport is not None:
            self.transport.close()

    async def smtp_EHLO(self, hostname: str) -> None:
        if not await self._faulted("ehlo", hostname):
            await super().smtp_EHLO(hostname)

    async def smtp_HELO(self, hostname: str) -> None:
        if not await self._faulted("ehlo", hostname):
            await super().smtp_HELO(hostname)

    async def smtp_MAIL(self, arg: str | None) -> None:
        if not await self._faulted("mail", arg or ""):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        if not await self._faulted("rcpt", arg or ""):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: str) -> None:
        if not await self._faulted("data", arg or ""):
            await super().smtp_DATA(arg)

    async def _faulted(self, stage: Stage, argument: str = "") -> bool:
        """Let a fault strike; whether it was the answer."""
        assert self.session is not None
        assert self.envelope is not None
        fault = self.sink.faults.take(stage, self.session, self.envelope, argument)
        if fault is None:
            return False
        await asyncio.sleep(fault.delay)
        if fault.cut:
            _abort(self)
        elif fault.reply:
            await self.push(fault.reply)
        return fault.cut or bool(fault.reply)


def _abort(conversation: SMTP) -> None:
    """Break the connection without a word."""
    if conversation.transport is not None:
        with contextlib.suppress(AttributeError):  # Python 3.11.2: a TLS transport that has ended already
            conversation.transport.abort()  # type: ignore[attr-defined]


def _taken(session: Session, envelope: Envelope, tls: bool, answered: bool) -> Mail:
    assert isinstance(envelope.original_content, bytes)
    peer = session.peer[0] if isinstance(session.peer, tuple) else str(session.peer)
    return Mail(
        data=envelope.original_content,
        sender=envelope.mail_from or "",
        recipients=tuple(str(recipient) for recipient in envelope.rcpt_tos),
        peer=peer,
        tls=tls,
        login=str(session.auth_data) if session.authenticated else None,
        answered=answered,
    )


class _Mua(EmailPolicy):
    """Headers as mail programs write them: message ids one a line, never encoded (RFC 5322 3.6.4)."""

    def fold(self, name: str, value: Any) -> str:
        if name.lower() in ("message-id", "in-reply-to", "references"):
            return f"{name}: " + "\r\n ".join(str(value).split()) + "\r\n"
        return str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


MUA = _Mua(linesep="\r\n")


@dataclass(frozen=True)
class Attachment:
    """A file that goes with a letter."""

    name: str
    data: bytes
    type: str = "application/octet-stream"


def letter(
    sender: str = "Carol Customer <carol@outside.example>",
    to: str | Sequence[str] = "support@company.example",
    subject: str = "A question",
    body: str = "Hello, I have a question.\n",
    *,
    cc: str | Sequence[str] = (),
    html: str | None = None,
    attachments: Sequence[Attachment | tuple[str, bytes] | tuple[str, bytes, str]] = (),
    in_reply_to: str | None = None,
    references: Sequence[str] = (),
    message_id: str | None = None,
    date: datetime.datetime | None = None,
    headers: dict[str, str] | None = None,
) -> EmailMessage:
    """A mail as a customer's program would write it."""
    message = EmailMessage(policy=MUA)
    message["From"], message["To"], message["Subject"] = sender, _joined(to), subject
    message["Date"] = format_datetime(date or datetime.datetime.now(datetime.UTC))
    message["Message-ID"] = message_id or f"<{uuid.uuid4().hex}@outside.example>"
    optional = {"Cc": _joined(cc), "In-Reply-To": in_reply_to, "References": " ".join(references)}
    for name, value in (optional | (headers or {})).items():
        if value:
            message[name] = value
    message.set_content(body)
    if html is not None:
        message.add_alternative(html, subtype="html")
    for each in attachments:
        _attach(message, each if isinstance(each, Attachment) else Attachment(*each))
    return message


def _attach(message: EmailMessage, file: Attachment) -> None:
    main, _, sub = file.type.partition("/")
    message.add_attachment(file.data, maintype=main, subtype=sub, filename=file.name)


def _joined(addresses: str | Sequence[str]) -> str:
    return addresses if isinstance(addresses, str) else ", ".join(addresses)


async def post(
    host: str, port: int, sender: str, recipients: Sequence[str], message: bytes | EmailMessage, timeout: float = 40
) -> str:
    """Hand one mail to an SMTP server; returns its answer. Raises what aiosmtplib raises when it refuses."""
    data = message.as_bytes() if isinstance(message, EmailMessage) else message
    client = aiosmtplib.SMTP(
        hostname=host, port=port, start_tls=False, timeout=timeout, local_hostname="outside.example"
    )
    async with client:
        refused, answer = await client.sendmail(sender, list(recipients), data)
    if refused:
        raise aiosmtplib.SMTPRecipientsRefused(
            [aiosmtplib.SMTPRecipientRefused(code, text, who) for who, (code, text) in refused.items()]
        )
    return answer
