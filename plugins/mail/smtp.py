"""SMTP from the server's side: one connection and what is said on it (RFC 5321), byte for byte.

Who may connect, who is a recipient and what becomes of a mail is for the `Server` to say. Commands that come together
are answered in one write (RFC 2920). While a mail is handed over nothing else is read of what follows it, so that the
answers keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Protocol, cast

from plugins.mail.content import Content, Limits, Transaction

log = logging.getLogger(__name__)

LINE = 4096  # octets of a command; RFC 5321 4.5.3.1.4 asks for 512, extensions and long addresses for more
RECIPIENTS = 1000  # of one mail
MISTAKES = 50  # in one connection; then it is no mail server that speaks
SILENCE = 300.0  # seconds, RFC 5321 4.5.3.2.7
LONGEST = 1800.0  # seconds between DATA and the end of a mail: who says a letter now and then is never silent
AHEAD = 2**16  # octets that may wait while we do; one read more at most
BATCH = 2**16  # characters of answers that are kept for one write

TROUBLE = "451 4.3.0 trouble here, try again later"
STOPPING = "421 4.3.2 this server is stopping, try again later"
GO_ON = "354 end with <CR><LF>.<CR><LF>"

# <address>, with a source route before it that nobody means any more (RFC 5321 4.1.1.3), and its parameters.
_PATH = (
    r' *<(?:@[^<>:\s]*:)?([^<>\s"\x00-\x1f\x7f]*+(?:"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*+"[^<>\s"\x00-\x1f\x7f]*+)*+)>'
    r"((?: +[!-~]+)*+) *"
)
_FROM = re.compile(rf" *FROM:{_PATH}", re.IGNORECASE | re.ASCII)
_TO = re.compile(rf" *TO:{_PATH}", re.IGNORECASE | re.ASCII)
_PARAMETER = re.compile(r"SIZE=(\d{1,20})|BODY=(?:7BIT|8BITMIME)|SMTPUTF8", re.IGNORECASE | re.ASCII)
_MISTAKEN = frozenset({"500", "501", "555"})
_WEB = frozenset({"GET", "HEAD", "POST", "PUT", "OPTIONS", "CONNECT"})


class Server(Limits, Protocol):
    """What the connections of one listener have in common."""

    name: str
    tls: ssl.SSLContext | None
    stopping: bool

    def admit(self, session: Session, peer: str) -> str:
        """The answer that refuses a host; empty when it may hand over mail now."""
        ...

    def recipient(self, transaction: Transaction, address: str) -> str:
        """Note a recipient, or refuse it; returns the answer."""
        ...

    async def take(self, transaction: Transaction, raw: bytes) -> str:
        """Take a whole mail; returns the answer. Never raises, except when cancelled."""
        ...


@cache
def extensions(name: str, max_size: int, starttls: bool) -> str:
    """The answer to EHLO: RFC 1870, 2920, 6152, 6531, 2034, 3207. AUTH is not among them: nobody logs in here."""
    offers = [name, f"SIZE {max_size}", "PIPELINING", "8BITMIME", "SMTPUTF8", *(["STARTTLS"] if starttls else [])]
    return "\r\n".join([*(f"250-{offer}" for offer in offers), "250 ENHANCEDSTATUSCODES"])


class Session(asyncio.Protocol):
    """One SMTP connection."""

    protocol: ClassVar[str] = "ESMTP"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()  # nothing of it goes on any more
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._began = 0.0  # when DATA was said
        self._unread = bytearray()
        self._unsent = ""
        self._mistakes = 0
        self._greeted = False
        self._transaction: Transaction | None = None
        self._content: Content | None = None  # between DATA and its end
        self._task: asyncio.Task[None] | None = None  # a mail being handed over, or TLS being started
        self._skipping = False  # the rest of a line that was refused
        self._secure = False
        self._unheard = False  # the client does not take our answers
        self._paused = False  # we do not take its words
        self._finished = False  # the client will say no more
        self._closed = False  # neither shall we

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from asyncio's
        if refusal := self._server.admit(self, self._peer(transport)):
            self._bye(refusal)
            return
        self._timer = self._loop.call_later(SILENCE, self._tick)
        self._say(f"220 {self._server.name} {self.protocol} Passerelle")
        self._flush()

    def _peer(self, transport: asyncio.BaseTransport) -> str:
        peer = transport.get_extra_info("peername") or ("",)
        return str(peer[0])

    def data_received(self, data: bytes) -> None:
        if not self._closed:
            self._heard = self._loop.time()
            self._unread += data
            self._advance()

    def eof_received(self) -> bool:
        """Keep the way back open for the answer to a mail that is being handed over; TLS cannot (asyncio)."""
        self._finished = True
        return self._task is not None and not self._secure

    def connection_lost(self, error: Exception | None) -> None:
        """Forget a mail that has not come to its end; one that is being handed over goes on."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        if self._content:
            self._content.drop()
            self._content = None
        self._transaction = None
        self._unread.clear()
        if self._task is None and not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        self._unheard = True

    def resume_writing(self) -> None:
        self._unheard = False
        self._advance()

    def leave(self) -> None:
        """Say goodbye, now or when the mail that is coming in has been answered."""
        if self._content is None and self._task is None:
            self._bye(STOPPING)

    def abort(self) -> None:
        if self._task:
            self._task.cancel()
        with contextlib.suppress(AttributeError):  # Python 3.11.2: a TLS transport that has ended already
            self._transport.abort()

    def _tick(self) -> None:
        """Note when silence, or a mail, has lasted too long. A timer for each command would cost as much as that."""
        if self._closed:  # the client does not even take our goodbye
            self._transport.abort()
            return
        now = self._loop.time()
        left = self._heard + SILENCE - now
        if self._content:
            left = min(left, self._began + LONGEST - now)
        if left <= 0 and self._task is None:
            self._bye("421 4.4.2 this has taken too long")
        self._timer = self._loop.call_later(left if left > 0 else SILENCE, self._tick)

    # --- words ---

    def _advance(self) -> None:
        """Go through what has come, as far as can be now; the answers leave together."""
        while self._unread and not (self._task or self._unheard or self._closed):
            if self._content:
                self._read_content(self._content)
            elif not self._read_line():
                break
            if len(self._unsent) > BATCH:
                self._flush()
        self._flush()
        self._pace()
        if self._finished and self._task is None:
            self._close()

    def _read_line(self) -> bool:
        """Take the next command; returns whether there was anything to take.

        Only CRLF ends a line (RFC 5321 2.3.8). One with a CR or LF inside is refused as a whole: who wrote it may have
        meant one command where another server sees two.
        """
        end = self._unread.find(b"\r\n")
        if self._skipping:
            whole = len(self._unread) - self._unread.endswith(b"\r")
            del self._unread[: whole if end < 0 else end + 2]
            self._skipping = end < 0
            return end >= 0
        if end < 0 and len(self._unread) <= LINE and b"\n" not in self._unread:
            return False
        line = self._unread[: LINE + 1 if end < 0 else end]
        if end < 0:
            self._skipping = True
        else:
            del self._unread[: end + 2]
        if len(line) > LINE:
            self._say("500 5.5.2 this line is too long")
        elif b"\n" in line or b"\r" in line:
            self._say("500 5.5.2 a line ends with <CR><LF> and has none inside")
        else:
            self._obey(line.decode(errors="replace"))
        return True

    def _obey(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        command = self.commands.get(verb.upper())
        if command:
            try:
                answer = command(self, argument)
            except Exception:  # whatever it is, it is our trouble, and no reason to refuse a mail for good
                log.exception("an SMTP command failed")
                answer = TROUBLE
            self._say(answer)
        elif verb.upper() in _WEB:  # a browser was made to speak to us; what follows is its page's
            self._bye("421 4.7.0 this is no web server")
        else:
            self._say("500 5.5.1 no such command")

    def _say(self, answer: str) -> None:
        """Answer; the empty answer is none. Whoever makes mistake after mistake is sent away."""
        self._unsent += f"{answer}\r\n" if answer else ""
        if answer[:3] in _MISTAKEN:
            self._mistakes += 1
            if self._mistakes >= MISTAKES:
                self._bye("421 4.7.0 too many mistakes")

    def _bye(self, answer: str) -> None:
        self._say(answer)
        self._flush()
        self._close()

    def _flush(self) -> None:
        if self._unsent and not self._closed:
            answers, self._unsent = self._unsent, ""
            self._transport.write(answers.encode())

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport.close()

    def _pace(self) -> None:
        """Take no more from the network while much waits already."""
        full = len(self._unread) > AHEAD
        if full != self._paused and not self._closed:
            self._paused = full
            (self._transport.pause_reading if full else self._transport.resume_reading)()

    # --- commands: each takes its argument and returns its answer ---

    def _ehlo(self, argument: str) -> str:
        answer = self._helo(argument)
        server = self._server
        offered = server.tls is not None and not self._secure
        return extensions(server.name, server.max_size, offered) if answer.startswith("250") else answer

    def _helo(self, argument: str) -> str:
        if not argument.strip():
            return "501 5.5.4 say your name too"
        self._greeted = True
        self._transaction = None  # RFC 5321 4.1.4
        return f"250 {self._server.name}"

    def _mail(self, argument: str) -> str:
        match = _FROM.fullmatch(argument)
        if not match:
            return "501 5.5.4 say MAIL FROM:<address>"
        if not self._greeted:
            return "503 5.5.1 say EHLO first"
        if self._transaction:
            return "503 5.5.1 a mail has begun already"
        for word in match[2].split():
            parameter = _PARAMETER.fullmatch(word)
            if not parameter:
                return "555 5.5.4 only SIZE, BODY and SMTPUTF8 are known here"
            if int(parameter[1] or 0) > self._server.max_size:
                return self._server.too_large
        self._transaction = Transaction(match[1])
        return "250 2.1.0 sender ok"

    def _rcpt(self, argument: str) -> str:
        match = _TO.fullmatch(argument)
        if not match:
            return "501 5.5.4 say RCPT TO:<address>"
        if not self._transaction:
            return "503 5.5.1 need MAIL command"
        if match[2]:
            return "555 5.5.4 recipients have no parameters here"
        if len(self._transaction.recipients) >= RECIPIENTS:
            return "452 4.5.3 too many recipients"
        return self._server.recipient(self._transaction, match[1])

    def _data(self, argument: str) -> str:
        if argument.strip():
            return "501 5.5.4 DATA takes nothing"
        if not self._transaction or not self._transaction.recipients:
            return "503 5.5.1 need MAIL and RCPT commands"
        self._content = Content(self._server)
        self._began = self._loop.time()
        return GO_ON

    def _rset(self, _: str) -> str:
        self._transaction = None
        return "250 2.0.0 forgotten"

    def _quit(self, _: str) -> str:
        self._bye("221 2.0.0 bye")
        return ""

    def _starttls(self, argument: str) -> str:
        """RFC 3207. What came in plain text behind it, perhaps from somebody in between, is never looked at."""
        if argument.strip():
            return "501 5.5.4 STARTTLS takes nothing"
        if not self._server.tls or self._secure:
            return "503 5.5.1 not offered now"
        self._transport.pause_reading()  # until TLS reads
        self._paused = False
        self._unread.clear()
        self._greeted = False
        self._transaction = None
        self._task = self._loop.create_task(self._start_tls(self._server.tls))
        return "220 2.0.0 go ahead"

    commands: ClassVar[Mapping[str, Callable[[Any, str], str]]] = {
        "EHLO": _ehlo,
        "HELO": _helo,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "RSET": _rset,
        "NOOP": lambda _self, _: "250 2.0.0 ok",
        "QUIT": _quit,
        "VRFY": lambda _self, _: "252 2.5.0 send a mail and see",
        "HELP": lambda _self, _: "214 2.0.0 RFC 5321 says how this works",
        "STARTTLS": _starttls,
    }

    # --- what takes time ---

    def _read_content(self, content: Content) -> None:
        if content.add(self._unread):
            transaction, self._transaction, self._content = self._transaction, None, None
            assert transaction is not None
            if content.refusal:
                self._conclude(transaction, self._refused(transaction, content.refusal))
            else:
                self._task = self._loop.create_task(self._hand_over(transaction, content))

    async def _hand_over(self, transaction: Transaction, content: Content) -> None:
        try:
            answer = await self._taken(transaction, content.mail())
        finally:
            content.drop()
            self._end_task()
        self._heard = self._loop.time()
        self._conclude(transaction, answer)
        self._advance()

    async def _taken(self, transaction: Transaction, raw: bytes) -> str:
        return await self._server.take(transaction, raw)

    def _refused(self, transaction: Transaction, refusal: str) -> str:
        return refusal

    def _conclude(self, transaction: Transaction, answer: str) -> None:
        """Say what became of a mail."""
        self._say(answer)
        if self._server.stopping:
            self._bye(STOPPING)

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        plain, secured = self._transport, None
        try:
            secured = await self._loop.start_tls(plain, self, context, server_side=True)
        except OSError as error:
            log.info("TLS could not be started: %s", error)
        finally:
            self._end_task()
            if secured is None:  # asyncio tells nobody that the connection has gone
                plain.abort()
                self.connection_lost(None)
        if secured is not None:
            self._transport, self._secure = secured, True
            self.leave() if self._server.stopping else self._advance()

    def _end_task(self) -> None:
        self._task = None
        if self._closed and not self.gone.done():  # the connection has gone before
            self.gone.set_result(None)
