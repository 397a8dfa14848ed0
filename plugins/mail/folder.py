"""Mail that was read in a folder: whose it is, by its header, since no envelope of SMTP says so."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection
from dataclasses import replace

from bridge.connector import Port
from bridge.model import Envelope, Rejected
from plugins.mail import identity, read
from plugins.mail.arrival import Arrival, is_echo, kept
from plugins.mail.config import Config, spoken
from plugins.mail.header import addresses, fields_of
from plugins.mail.imap import Found, nameless

log = logging.getLogger(__name__)

# What our own reading of a header might raise, were it wrong: one mail must not be a wall for those behind it.
MISTAKES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
HEAD = 256_000  # octets in which the header is looked for
# Where mail servers note whom a mail was delivered to.
DELIVERED = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to")


async def arrived(
    connector: str, config: Config, port: Port, reader: read.Reader, mailbox: str, found: Found
) -> Envelope | None:
    """The mail as the bridge sees it; None when it is none for a room. Raises `OSError`.

    `mailbox` is whose account it was read in.
    """
    mail = read.unreadable(found.raw, found.problem) if found.problem else await reader.read(found.raw)
    try:
        return await _shown(connector, config, port, mailbox, found, mail)
    except MISTAKES as fault:
        log.exception("a mail that was read in a folder cannot be shown")
        why = f"it cannot be shown ({type(fault).__name__}); it stays in the folder"
        stub = replace(found, raw=nameless(mailbox, hashlib.sha256(found.raw).hexdigest()), problem=why)
        return await _shown(connector, config, port, mailbox, stub, read.unreadable(stub.raw, why))


async def _shown(
    connector: str, config: Config, port: Port, mailbox: str, found: Found, mail: read.Mail
) -> Envelope | None:
    arrival = _sent(port, config, mailbox, found, mail) if found.sent else _received(port, mailbox, found, mail)
    return await kept(connector, config, port, arrival, mail) if arrival else None


async def opened(connector: str, config: Config, port: Port, raw: bytes, mailbox: str) -> list[Envelope]:
    """A mail that somebody kept in a file, as if it came now. Raises `Rejected` when it is none of ours."""
    if len(raw) > config.max_size:
        raise Rejected(f"it is larger than the {spoken(config.max_size)} that are taken")
    fields, _ = fields_of(raw[:HEAD].decode("ascii", "surrogateescape"))
    if not {"from", "date", "message-id", "received"}.intersection(fields):
        raise Rejected("this is no mail: it has no header (RFC 5322)")
    async with read.Reader() as reader:
        mail = await reader.read(raw)
    arrival = _received(port, mailbox, Found("", False, time.time(), raw), mail)
    if arrival is None:
        raise Rejected("the bridge sent this mail itself: it would not be shown")
    scopes = (mailbox,) if mailbox else tuple(filter(None, arrival.scopes))
    if not scopes:
        raise Rejected("it names no mailbox that is mapped to a room: say which with --to")
    return [await kept(connector, config, port, replace(arrival, scopes=scopes), mail)]


def _received(port: Port, mailbox: str, found: Found, mail: read.Mail) -> Arrival | None:
    """For those of our mailboxes that it names; else for the one it was found in."""
    fields, _ = fields_of(found.raw[:HEAD].decode("ascii", "surrogateescape"), (*DELIVERED, "return-path"))
    delivered = tuple(one.account for name in DELIVERED for one in addresses(fields.get(name, [])))
    named = (*delivered, *(one.account for one in (*mail.to, *mail.cc)))
    scopes = _ours(named, port.scopes()) or (mailbox,)
    back = fields.get("return-path", ["?"])[0].strip()
    sender = "" if back == "<>" else back
    arrival = Arrival(found.raw, sender, delivered, scopes, found.received)
    return None if is_echo(mail, scopes, port.sign) else arrival


def _sent(port: Port, config: Config, mailbox: str, found: Found, mail: read.Mail) -> Arrival | None:
    """A colleague's own mail; what we sent is known already, and what was sent as somebody else is none of ours."""
    ours = identity.uid_of(mail.message_id, port.sign) or identity.verified(mail.token, port.sign)
    sender = identity.mailbox_of(mail.sender.account, config.addresses)
    if ours or not sender:
        return None
    scopes = (sender,) if sender in port.scopes() else (mailbox,)
    return Arrival(found.raw, sender, (), scopes, found.received, sent=True)


def _ours(accounts: Collection[str], mapped: Collection[str]) -> tuple[str, ...]:
    found = dict.fromkeys(identity.mailbox_of(account, mapped) for account in accounts)
    return tuple(filter(None, found))
