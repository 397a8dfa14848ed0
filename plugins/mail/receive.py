"""Mail that arrives: the SMTP listener.

Promise: 250 is said only after the bridge has written the mail down. Trouble of our own is always a temporary answer
(4xx), so that the sender's server keeps the mail; a permanent one (5xx) is always about the mail itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter, defaultdict
from typing import Any, cast

from aiosmtpd import smtp

from bridge.connector import Port
from bridge.model import Rejected
from plugins.mail import identity, read
from plugins.mail.arrival import Arrival, envelope, is_echo
from plugins.mail.config import Config, endpoint, spoken
from plugins.mail.write import eml_name

log = logging.getLogger(__name__)

RATE_WINDOW = 600.0  # seconds
MOST_RECIPIENTS = 1000
GRACE = 10.0  # seconds that a mail on its way may take when we stop
CHUNK = 2**18  # octets read at once; nothing limits a line, whatever RFC 5321 4.5.3.1.6 says
END = b"\r\n.\r\n"
SENDER_OK, RECIPIENT_OK = "250 2.1.0 sender ok", "250 2.1.5 recipient ok"
AT_ONCE = 8  # mails of the largest size that may be in memory together

_PATH = re.compile(r"<(?:@[^<>:\s]*:)?([^<>\s\"]*)>(?:\s+(.*))?")
_LINE = re.compile(r"[^ -~]+")


class Transaction(smtp.Envelope):
    """One mail of a connection while it is being handed over; the next mail gets a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.scopes: dict[str, None] = {}  # a set in the order of RCPT


class Receiver:
    """The SMTP listener. `async with` listens; leaving it stops in good order, without cutting a mail short."""

    def __init__(self, connector: str, config: Config, port: Port, mails: read.Reader) -> None:
        self.config = config
        self.held = 0  # octets of mail in memory
        self.stopping = False
        self.tls = config.tls()
        self._connector = connector
        self._bridge = port
        self._mails = mails
        self._server: asyncio.Server | None = None
        self._sessions: set[Session] = set()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._window = 0.0

    async def __aenter__(self) -> Receiver:
        if not smtp.log.isEnabledFor(logging.DEBUG):  # it would write down every command: who writes to whom
            smtp.log.setLevel(logging.WARNING)
        host, port = endpoint(self.config.listen)
        listen = asyncio.get_running_loop().create_server
        self._server = await listen(lambda: Session(self), host, port, reuse_address=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The TCP port listened on, 0 when not listening."""
        sockets = self._server.sockets if self._server else ()
        return int(sockets[0].getsockname()[1]) if sockets else 0

    async def stop(self, grace: float = GRACE) -> None:
        """Take no more connections; a mail that is being handed over gets `grace` seconds to end."""
        self.stopping = True
        if self._server:
            self._server.close()
        for session in tuple(self._sessions):
            session.leave()
        if self._sessions:
            await asyncio.wait([session.gone for session in self._sessions], timeout=grace)
        for session in tuple(self._sessions):
            session.abort()

    def admit(self, session: Session, peer: str) -> str:
        """The answer that refuses a host; empty when it may hand over mail now."""
        if not self.config.trusts(peer):
            return "554 5.7.1 this server takes mail from its own relays only"
        if self.stopping or len(self._sessions) >= self.config.max_connections:
            return "421 4.7.0 too many connections, try again later"
        self._sessions.add(session)
        session.gone.add_done_callback(lambda _: self._sessions.discard(session))
        return ""

    async def handle_EHLO(self, _s: Any, session: Any, _e: Any, host: str, lines: list[str]) -> list[str]:
        session.host_name = host
        lines = [line for line in lines if not line.startswith("250-AUTH")]
        lines[1:1] = [f"250-SIZE {self.config.max_size}", "250-PIPELINING"]
        return ["\r\n".join(lines)]  # one write instead of ten

    async def handle_MAIL(self, _s: Any, _session: Any, envelope: Transaction, sender: str, options: list[str]) -> str:
        if any(int(option[5:]) > self.config.max_size for option in options if re.fullmatch(r"SIZE=\d+", option)):
            return self.too_large
        envelope.mail_from = sender
        envelope.mail_options.extend(options)
        return SENDER_OK

    async def handle_RCPT(self, _s: Any, _session: Any, envelope: Transaction, address: str, _o: list[str]) -> str:
        scope = identity.mailbox_of(address, self._bridge.scopes())
        if not scope:
            return "550 5.1.1 no such mailbox here"
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return "452 4.5.3 too many recipients"
        if self._too_many(str(envelope.mail_from).lower(), scope):
            return f"450 4.7.1 more than {self.config.rate} mails in 10 minutes, try again later"
        envelope.rcpt_tos.append(address)
        envelope.scopes[scope] = None
        return RECIPIENT_OK

    async def handle_exception(self, error: Exception) -> str:
        log.error("SMTP session failed", exc_info=error)
        return "451 4.3.0 trouble here, try again later"

    @property
    def too_large(self) -> str:
        return f"552 5.3.4 this message is larger than the {spoken(self.config.max_size)} this server takes"

    def _too_many(self, sender: str, scope: str) -> bool:
        """Whether a loop or a flood is going on; counted in windows, so that memory stays bounded."""
        now = time.monotonic()
        if now - self._window > RATE_WINDOW:
            self._seen.clear()
            self._window = now
        self._seen[sender, scope] += 1 if self.config.rate else 0
        return 0 < self.config.rate < self._seen[sender, scope]

    async def take(self, envelope: Transaction, raw: bytes) -> str:
        """Hand a mail to the bridge; returns the answer to DATA. Never raises, except when cancelled."""
        sender = str(envelope.mail_from).removeprefix("<>")
        arrival = Arrival(raw, sender, tuple(envelope.rcpt_tos), tuple(envelope.scopes), time.time())
        try:
            return f"250 2.0.0 kept as {await self._accept(arrival)}"
        except Rejected as refusal:
            return f"550 5.7.1 {_LINE.sub(' ', str(refusal))[:400].strip() or 'refused'}"
        except Exception:  # whatever it is, it is our trouble: the sender's server must keep the mail
            log.exception("a mail could not be written down; the sender was asked to try again")
            return "451 4.3.0 trouble here, try again later"

    async def _accept(self, arrival: Arrival) -> str:
        mail = await self._mails.read(arrival.raw)
        sign = self._bridge.sign
        if is_echo(mail, arrival.scopes, sign):
            return "our own"
        keep = self._bridge.spool.keep
        original = await keep(eml_name(mail.subject), "message/rfc822", arrival.raw)
        files = [await keep(part.name, part.type, part.data) for part in mail.parts]
        found = envelope(self._connector, self.config, sign, arrival, mail, original, files)
        await self._bridge.accept(found)
        return found.key[:16]


class Session(smtp.SMTP):
    """One SMTP connection. What aiosmtpd leaves us to mend is mended here: DATA, limits, leaving politely."""

    line_length_limit = CHUNK
    command_size_limit = 4096

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._busy = False
        self._unsent = b""
        self._silent_until = 0.0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        super().__init__(
            receiver,
            data_size_limit=None,  # checked by the receiver, whose answers name the limit
            enable_SMTPUTF8=True,
            hostname=receiver.config.greeting,
            ident="Passerelle",
            tls_context=receiver.tls,
            auth_exclude_mechanism=("LOGIN", "PLAIN"),
            timeout=300,  # RFC 5321 4.5.3.2.7
            loop=asyncio.get_running_loop(),
        )
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)  # aiosmtpd shares one among connections

    def _create_envelope(self) -> Transaction:
        return Transaction()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        first = self._original_transport is None  # false when STARTTLS has just ended
        super().connection_made(transport)
        peer = transport.get_extra_info("peername") or ("",)
        refusal = self._receiver.admit(self, str(peer[0])) if first else ""
        conversation = self._handler_coroutine
        if first and conversation:  # a lost connection is no error of ours: its exception needs no mention
            conversation.add_done_callback(lambda task: task.cancelled() or task.exception())
        if refusal and conversation:
            conversation.cancel()
            self._bye(refusal)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self.gone.done():
            self.gone.set_result(None)

    def leave(self) -> None:
        """Say goodbye, now or when the mail that is being handed over has been answered."""
        if not self._busy:
            self._bye("421 4.3.2 this server is stopping, try again later")

    def abort(self) -> None:
        transport = self._original_transport or self.transport
        if transport is not None:
            cast(asyncio.WriteTransport, transport).abort()  # uvloop's transports do not inherit from asyncio's

    def _bye(self, answer: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            cast(asyncio.WriteTransport, self.transport).write(self._unsent + answer.encode("ascii") + b"\r\n")
            self.transport.close()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Note when silence has lasted too long. A new timer for every command would cost as much as the command."""
        self._silent_until = self.loop.time() + (duration or self._timeout_duration)
        armed = self._timeout_handle
        if armed is None or armed.cancelled() or armed.when() > self._silent_until:
            if armed:
                armed.cancel()
            self._timeout_handle = self.loop.call_at(self._silent_until, self._timeout_cb)

    def _timeout_cb(self) -> None:
        if self.loop.time() < self._silent_until:
            self._timeout_handle = self.loop.call_at(self._silent_until, self._timeout_cb)
            return
        self._bye("421 4.4.2 nothing heard for too long")

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        match = _PATH.fullmatch(arg.strip())  # the common forms; aiosmtpd's own parser is slow
        if match:
            return match[1] or "<>", match[2] or ""
        address, rest = super()._getaddr(arg)
        return address, rest

    async def push(self, status: Any) -> None:
        """Answer. A yes with the client's next command behind it waits for that one's answer (RFC 2920 3.2).

        Sending is the dearest part of a command, and relays send MAIL, RCPT and DATA together.
        """
        self._unsent += f"{status}\r\n".encode()
        if status in (SENDER_OK, RECIPIENT_OK) and b"\n" in self._reader._buffer:  # type: ignore[attr-defined]
            return
        answers, self._unsent = self._unsent, b""
        self._writer.write(answers)
        await self._writer.drain()

    async def smtp_DATA(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        transaction = self.envelope
        if arg or not isinstance(transaction, Transaction) or not transaction.rcpt_tos:
            await self.push("501 5.5.4 DATA takes nothing" if arg else "503 5.5.1 need RCPT command")
            return
        self._busy = True
        try:
            await self.push("354 end with <CR><LF>.<CR><LF>")
            answer = await self._mail(transaction)
            self._reset_timeout()
            await self.push(answer)
        finally:
            self.envelope = self._create_envelope()  # nothing of this mail may reach the next one
            self._busy = False
        if self._receiver.stopping:
            self.leave()

    async def _mail(self, transaction: Transaction) -> str:
        """Read a mail and hand it over; returns the answer."""
        content = _Content(self._receiver)
        try:
            while not content.ended:
                content.add(await self._piece(content.tail))
                self._reset_timeout()
            return content.refusal or await self._receiver.take(transaction, content.mail())
        finally:
            content.drop()

    async def _piece(self, tail: bytes) -> bytes:
        """What comes up to the end of DATA, or as much of it as there is; `tail` is what came last.

        Only CRLF ends a line: what other servers take for an end of DATA ("\\n.\\r\\n") is text here, so that no second
        mail can be smuggled in. RFC 5321 2.3.8
        """
        begun = next((count for count in (4, 3, 2, 1) if tail.endswith(END[:count])), 0)
        try:
            if begun:
                return bytes(await self._reader.readexactly(len(END) - begun))
            return bytes(await self._reader.readuntil(END))
        except asyncio.LimitOverrunError as more:
            return bytes(await self._reader.read(more.consumed))


class _Content:
    """The octets of one mail as they come in, with the limits on them."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._pieces: list[bytes] = []
        self._kept = 0
        self._size = 0
        self.tail = b"\r\n"  # DATA's own
        self.refusal = ""

    @property
    def ended(self) -> bool:
        return self.tail == END

    def add(self, piece: bytes) -> None:
        self.tail = (self.tail + piece[-5:])[-5:]
        self._size += len(piece)
        limit = self._receiver.config.max_size
        if self._size - 3 > limit:
            self.refusal = self._receiver.too_large
        elif self._receiver.held + len(piece) > limit * AT_ONCE:
            self.refusal = self.refusal or "452 4.3.1 too much mail at once, try again later"
        if self.refusal:
            self.drop()
            return
        self._pieces.append(piece)
        self._kept += len(piece)
        self._receiver.held += len(piece)

    def mail(self) -> bytes:
        """The mail, without the dots that SMTP added. RFC 5321 4.5.2"""
        raw = b"".join(self._pieces)[:-3]
        self._pieces.clear()
        return raw[raw.startswith(b".") :].replace(b"\r\n.", b"\r\n")

    def drop(self) -> None:
        self._pieces.clear()
        self._receiver.held -= self._kept
        self._kept = 0
