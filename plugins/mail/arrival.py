"""How a mail that was read becomes an envelope: whose it is, what it answers, whether it proves to belong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bridge.connector import Port
from bridge.model import Address, Author, Envelope, File, Report
from plugins.mail import identity, read
from plugins.mail.config import Config
from plugins.mail.identity import Sign
from plugins.mail.subject import topic
from plugins.mail.write import Memo, eml_name

_DAEMON = re.compile(r"(mailer-?daemon|mail-daemon|postmaster|mdaemon|bounces?)([+.-].*)?@.*", re.IGNORECASE)

MOST_ADDRESSES = 200  # that are compared with filters


@dataclass(frozen=True, slots=True)
class Arrival:
    """A mail as it was handed over, or read from a folder."""

    raw: bytes = field(repr=False)
    sender: str  # the return path, "" for <>
    recipients: tuple[str, ...]
    scopes: tuple[str, ...]  # our mailboxes among the recipients
    when: float  # seconds since the epoch
    sent: bool = False  # it is from the mailbox's own folder of sent mail: a colleague wrote it


async def kept(connector: str, config: Config, port: Port, arrival: Arrival, mail: read.Mail) -> Envelope:
    """The mail as the bridge sees it, and as it came, with its files in the spool. Raises `OSError`."""
    keep = port.spool.keep
    original = await keep(eml_name(mail.subject), "message/rfc822", arrival.raw)
    files = [await keep(part.name, part.type, part.data) for part in mail.parts]
    return envelope(connector, config, port.sign, arrival, mail, original, files)


def envelope(
    connector: str, config: Config, sign: Sign, arrival: Arrival, mail: read.Mail, original: File, files: Iterable[File]
) -> Envelope:
    """The mail as the bridge sees it. Pure."""
    sender = identity.canonical(mail.sender.account)
    verified = arrival.sent or identity.vouched(sender, mail.authentication, config.authserv_id)
    others = identity.others((*mail.to, *mail.cc), config.addresses)
    uids = [*(token.uid for token in _tokens(arrival, mail, sign)), identity.verified(mail.token, sign)]
    named = [identity.message_id(uid, arrival.scopes[0], sign) for uid in uids if uid]
    proof = dict.fromkeys([*named, *(ref for ref in mail.refs if arrival.sent or identity.uid_of(ref, sign))])
    return Envelope(
        connector=connector,
        scopes=arrival.scopes,
        key=_key(mail, arrival.raw),
        id=mail.message_id or f"<{hashlib.sha256(arrival.raw).hexdigest()}{identity.NOWHERE}",
        author=_author(Address(sender, mail.sender.name), verified=verified),
        when=arrival.when if mail.date is None else min(mail.date, arrival.when),
        title=mail.subject,
        topic=topic(mail.subject),
        text=mail.text,
        html=mail.html,
        refs=tuple(dict.fromkeys([*named, *mail.refs])),
        proof=tuple(proof),
        people=tuple(map(_author, others)),
        files=tuple(files),
        original=original,
        folded=mail.folded,
        automatic=mail.automatic or not arrival.sender,
        problem=mail.problem,
        report=_report(arrival, mail, sign),
        memo=Memo(mail.sender, mail.reply_to, mail.to, mail.cc, mail.date, mail.text).dump(),
        probe=_probe(arrival, mail, sender in config.addresses, sign),
        facts=(("sender", sender), ("subject", mail.subject), *_addresses(arrival, mail)),
    )


def _addresses(arrival: Arrival, mail: read.Mail) -> list[tuple[str, str]]:
    """Whom it was sent to, by what mappings may choose."""
    named = [*arrival.recipients, *(one.account for one in (*mail.to, *mail.cc))]
    return [("address", address) for address in dict.fromkeys(map(identity.canonical, named[:MOST_ADDRESSES]))]


def _author(one: Address, *, verified: bool = False) -> Author:
    """A person by a canonical address; who gives no name is called by what stands before the @."""
    local, _, domain = one.account.rpartition("@")
    return Author("mail", one.account, one.name or local, verified, domain)


def _key(mail: read.Mail, raw: bytes) -> str:
    if not mail.message_id:
        return hashlib.sha256(raw).hexdigest()
    return hashlib.sha256(
        f"{mail.message_id}\n{mail.sender.account}\n{mail.date}".encode("utf-8", "replace")
    ).hexdigest()


def _tokens(arrival: Arrival, mail: read.Mail, sign: Sign) -> list[identity.Token]:
    """Our signed addresses among the recipients; the header's too, since aliases rewrite those of SMTP."""
    return identity.tokens([*arrival.recipients, *(one.account for one in (*mail.to, *mail.cc))], sign)


def _probe(arrival: Arrival, mail: read.Mail, own: bool, sign: Sign) -> str:
    """The trial whose very mail this is, or whose failure it reports. Who answers one has something to say."""
    reports = (
        [one.uid for one in _tokens(arrival, mail, sign) if one.kind == "b"] if _report(arrival, mail, sign) else []
    )
    itself = [identity.uid_of(mail.message_id, sign), identity.verified(mail.token, sign)] if own else []
    return next(filter(None, map(identity.probed, reports or itself)), "")


def _report(arrival: Arrival, mail: read.Mail, sign: Sign) -> Report | None:
    """What a bounce says; a signed bounce address names our message more surely than anything in the text.

    An automatic answer (a vacation notice) may come to the bounce address too (RFC 3834 4): that is no failure.
    """
    uid = next((one.uid for one in _tokens(arrival, mail, sign) if one.kind == "b"), "")
    if uid and mail.report:
        return replace(mail.report, about=uid)
    if uid and (not mail.sender.account or _DAEMON.fullmatch(mail.sender.account)):
        return Report(uid, "", (mail.text.strip() or mail.subject)[:500])
    return mail.report


def is_echo(mail: read.Mail, scopes: tuple[str, ...], sign: Sign) -> bool:
    """Whether it is a mail we sent from the only mailbox that it now comes back to (a list, a redirection)."""
    ours = identity.uid_of(mail.message_id, sign) or identity.verified(mail.token, sign)
    return bool(ours) and not identity.probed(ours) and {identity.canonical(mail.sender.account)} == set(scopes)
