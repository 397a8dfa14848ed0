"""Mail that is handed over to us: the listeners for SMTP and LMTP.

Promise: 250 is said only after the bridge has written the mail down. Trouble of our own is always a temporary answer
(4xx), so that the sender's server keeps the mail; a permanent one (5xx) is always about the mail itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bridge.connector import Port
from bridge.model import Rejected
from plugins.mail import identity, read
from plugins.mail.arrival import Arrival, is_echo, kept
from plugins.mail.config import LOCAL, Config, Network, endpoint, ip_of, spoken
from plugins.mail.content import Transaction
from plugins.mail.lmtp import LmtpSession, LocalSession
from plugins.mail.smtp import TROUBLE, Session

log = logging.getLogger(__name__)

RATE_WINDOW = 600.0  # seconds
GRACE = 10.0  # seconds that a mail on its way may take when we stop
ABORT = 1.0  # seconds for what is cut off to end
NO_MAILBOX = "550 5.1.1 no such mailbox here"
AT_ONCE = 8  # mails of the largest size that may be in memory together
MOST_SENDERS = 100_000  # that are counted; a flood of more begins a new window
LONGEST_SENDER = 320  # characters of an address that tell senders apart, RFC 5321 4.5.3.1
# Of the connections, who is no relay of ours may have at most: its address an eighth, its network a quarter.
_SHARES = {4: ((32, 8), (24, 4)), 6: ((128, 8), (64, 4))}

_LINE = re.compile(r"[^ -~]+")


def _let_in(socket: Path) -> None:
    """The mail server is another user; the rights of the folder say who may come."""
    socket.chmod(0o666)


class Receiver:
    """The listeners. `async with` listens; leaving it stops in good order, without cutting a mail short."""

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
        self._servers: dict[str, asyncio.Server] = {}  # by what is listened to
        self._sessions: set[Session] = set()
        self._from: Counter[Network] = Counter()  # connections by address, and by network
        self._seen: Counter[tuple[str, str]] = Counter()
        self._window = 0.0

    async def __aenter__(self) -> Receiver:
        try:
            for where in self.config.listeners:
                session = Session if where == self.config.smtp else LmtpSession
                self._servers[where] = await self._listening(where, session)
        except BaseException:
            await self.stop()
            raise
        return self

    async def _listening(self, where: str, session: type[Session]) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if not where.startswith("/"):
            return await loop.create_server(lambda: session(self), *endpoint(where), reuse_address=True)
        server = await loop.create_unix_server(lambda: LocalSession(self), where)
        _let_in(Path(where))
        return server

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The TCP port of SMTP, 0 when not listening."""
        return self._port_of(self.config.smtp)

    @property
    def lmtp_port(self) -> int:
        """The TCP port of LMTP, 0 when not listening."""
        return self._port_of(self.config.listen_lmtp)

    def _port_of(self, where: str) -> int:
        server = self._servers.get(where)
        return int(server.sockets[0].getsockname()[1]) if server and server.sockets else 0

    @property
    def listening(self) -> bool:
        """Whether everything that is configured is listened to."""
        return all(where in self._servers for where in self.config.listeners)

    async def stop(self, grace: float = GRACE) -> None:
        """Take no more connections; a mail that is being handed over gets `grace` seconds to end."""
        self.stopping = True
        for server in self._servers.values():
            server.close()
        self._servers.clear()
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
        near = self._near(peer)
        if any(self._from[network] >= most for network, most in near.items()):
            return "421 4.7.0 too many connections from your network, try again later"
        self._from.update(near.keys())
        self._sessions.add(session)
        session.gone.add_done_callback(lambda _: self._forget(session, near))
        return ""

    def _near(self, peer: str) -> dict[Network, int]:
        """Where a host is, and how many connections may come from there. Our own host and relays speak for many."""
        found = ip_of(peer)
        if self.config.trusted_relays or peer == LOCAL or found is None or found.is_loopback:
            return {}
        return {
            ipaddress.ip_network((found, length), strict=False): max(1, self.config.max_connections // part)
            for length, part in _SHARES[found.version]
        }

    def _forget(self, session: Session, near: Iterable[Network]) -> None:
        self._sessions.discard(session)
        self._from.subtract(list(near))
        for network in near:
            if not self._from[network]:
                del self._from[network]

    def recipient(self, transaction: Transaction, address: str) -> str:
        """Note one of our mailboxes, or refuse it; returns the answer to RCPT."""
        scope = identity.mailbox_of(address, self._bridge.scopes())
        if not scope:
            return NO_MAILBOX
        if self._too_many(transaction.sender.lower(), scope):
            return f"450 4.7.1 more than {self.config.rate} mails in 10 minutes, try again later"
        transaction.recipients.append(address)
        transaction.scopes.append(scope)
        return "250 2.1.5 recipient ok"

    def _too_many(self, sender: str, scope: str) -> bool:
        """Whether a loop or a flood is going on; counted in windows, so that memory stays bounded.

        Bounces are not counted: all the world sends them as <>, a hundred of them say nothing about one sender, and
        they make no loop, since nothing answers them (RFC 5321 4.5.5). Nor would the peer tell: it is our own relay.
        """
        if not sender:
            return False
        now, one = time.monotonic(), (sender[:LONGEST_SENDER], scope)
        if now - self._window > RATE_WINDOW or len(self._seen) >= MOST_SENDERS:
            self._seen.clear()
            self._window = now
        self._seen[one] += 1 if self.config.rate else 0
        return 0 < self.config.rate < self._seen[one]

    async def take(self, transaction: Transaction, raw: bytes) -> str:
        """Hand a mail to the bridge; returns the answer to DATA. Never raises, except when cancelled."""
        scopes = tuple(dict.fromkeys(transaction.scopes))
        if 0 < len(self._bridge.scopes().intersection(scopes)) < len(scopes):
            return TROUBLE  # some have lost their room since RCPT: one answer cannot say so, but the next RCPT can
        return await self._answer(transaction, raw, scopes)

    async def take_each(self, transaction: Transaction, raw: bytes) -> list[str]:
        """Hand a mail to the bridge; returns an answer per recipient. Never raises, except when cancelled.

        All mailboxes that have a room share one commit. A mailbox may lose its room between RCPT and here: that one
        is refused, and the others' answers stay true.
        """
        scopes = dict.fromkeys(transaction.scopes)
        mapped = self._bridge.scopes()
        together = tuple(scope for scope in scopes if scope in mapped)
        answers = dict.fromkeys(scopes, NO_MAILBOX)
        if together:
            answers |= dict.fromkeys(together, await self._answer(transaction, raw, together))
        if len(together) > 1 and answers[together[0]].startswith("5"):  # lost just now, by one of them or all
            answers |= {scope: await self._answer(transaction, raw, (scope,)) for scope in together}
        return [answers[scope] for scope in transaction.scopes]

    async def _answer(self, transaction: Transaction, raw: bytes, scopes: tuple[str, ...]) -> str:
        arrival = Arrival(raw, transaction.sender, tuple(transaction.recipients), scopes, time.time())
        try:
            return f"250 2.0.0 kept as {await self._accept(arrival)}"
        except Rejected as refusal:
            return f"550 5.7.1 {_LINE.sub(' ', str(refusal))[:400].strip() or 'refused'}"
        except Exception:  # whatever it is, it is our trouble: the sender's server must keep the mail
            log.exception("a mail could not be written down; the sender was asked to try again")
            return TROUBLE

    async def _accept(self, arrival: Arrival) -> str:
        mail = await self._mails.read(arrival.raw)
        if is_echo(mail, arrival.scopes, self._bridge.sign):
            return "our own"
        found = await kept(self._connector, self.config, self._bridge, arrival, mail)
        await self._bridge.accept(found)
        return found.key[:16]
