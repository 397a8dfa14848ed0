"""Mail that arrives: the SMTP listener.

Promise: 250 is said only after the bridge has written the mail down. Trouble of our own is always a temporary answer
(4xx), so that the sender's server keeps the mail; a permanent one (5xx) is always about the mail itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter

from bridge.connector import Port
from bridge.model import Rejected
from plugins.mail import identity, read
from plugins.mail.arrival import Arrival, envelope, is_echo
from plugins.mail.config import Config, endpoint, spoken
from plugins.mail.smtp import TROUBLE, Session, Transaction
from plugins.mail.write import eml_name

log = logging.getLogger(__name__)

RATE_WINDOW = 600.0  # seconds
GRACE = 10.0  # seconds that a mail on its way may take when we stop
ABORT = 1.0  # seconds for what is cut off to end
AT_ONCE = 8  # mails of the largest size that may be in memory together

_LINE = re.compile(r"[^ -~]+")


class Receiver:
    """The SMTP listener. `async with` listens; leaving it stops in good order, without cutting a mail short."""

    def __init__(self, connector: str, config: Config, port: Port, mails: read.Reader) -> None:
        self.config = config
        self.name = config.greeting
        self.max_size = config.max_size
        self.max_held = config.max_size * AT_ONCE
        self.held = 0  # octets of mail in memory
        self.too_large = f"552 5.3.4 this message is larger than the {spoken(config.max_size)} this server takes"
        self.tls = config.tls()
        self.stopping = False
        self._connector = connector
        self._bridge = port
        self._mails = mails
        self._server: asyncio.Server | None = None
        self._sessions: set[Session] = set()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._window = 0.0

    async def __aenter__(self) -> Receiver:
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
        for end, seconds in ((Session.leave, grace), (Session.abort, ABORT)):
            for session in tuple(self._sessions):
                end(session)
            if self._sessions:
                await asyncio.wait([session.gone for session in self._sessions], timeout=seconds)

    def admit(self, session: Session, peer: str) -> str:
        """The answer that refuses a host; empty when it may hand over mail now."""
        if not self.config.trusts(peer):
            return "554 5.7.1 this server takes mail from its own relays only"
        if self.stopping or len(self._sessions) >= self.config.max_connections:
            return "421 4.7.0 too many connections, try again later"
        self._sessions.add(session)
        session.gone.add_done_callback(lambda _: self._sessions.discard(session))
        return ""

    def recipient(self, transaction: Transaction, address: str) -> str:
        """Note one of our mailboxes, or refuse it; returns the answer to RCPT."""
        scope = identity.mailbox_of(address, self._bridge.scopes())
        if not scope:
            return "550 5.1.1 no such mailbox here"
        if self._too_many(transaction.sender.lower(), scope):
            return f"450 4.7.1 more than {self.config.rate} mails in 10 minutes, try again later"
        transaction.recipients.append(address)
        transaction.scopes[scope] = None
        return "250 2.1.5 recipient ok"

    def _too_many(self, sender: str, scope: str) -> bool:
        """Whether a loop or a flood is going on; counted in windows, so that memory stays bounded.

        Bounces are not counted: all the world sends them as <>, a hundred of them say nothing about one sender, and
        they make no loop, since nothing answers them (RFC 5321 4.5.5). Nor would the peer tell: it is our own relay.
        """
        if not sender:
            return False
        now = time.monotonic()
        if now - self._window > RATE_WINDOW:
            self._seen.clear()
            self._window = now
        self._seen[sender, scope] += 1 if self.config.rate else 0
        return 0 < self.config.rate < self._seen[sender, scope]

    async def take(self, transaction: Transaction, raw: bytes) -> str:
        """Hand a mail to the bridge; returns the answer to DATA. Never raises, except when cancelled."""
        recipients, scopes = tuple(transaction.recipients), tuple(transaction.scopes)
        arrival = Arrival(raw, transaction.sender, recipients, scopes, time.time())
        try:
            return f"250 2.0.0 kept as {await self._accept(arrival)}"
        except Rejected as refusal:
            return f"550 5.7.1 {_LINE.sub(' ', str(refusal))[:400].strip() or 'refused'}"
        except Exception:  # whatever it is, it is our trouble: the sender's server must keep the mail
            log.exception("a mail could not be written down; the sender was asked to try again")
            return TROUBLE

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
