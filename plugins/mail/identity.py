"""Mail addresses, and the signed ids by which we know our own mail and the answers to it again.

A delivery's uid and its signature (`uid.signature`) are in its Message-ID, in the address that answers go to, in the
address that bounces go to, and in a header of our own, because relays rewrite some of them. Everything here is pure;
`sign` is the bridge's `Port.sign`. Parsing ignores case: mail systems may change it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from bridge.model import Address

Sign = Callable[[str], str]
Kind = Literal["r", "b"]

HEADER = "X-Passerelle-Id"
_PROBE, _UID = "probe", 20  # letters of a delivery's uid
NOWHERE = "@passerelle.invalid>"  # ends the ids made up for mail without one; .invalid: RFC 2606
LOCAL_PART = 64  # octets, RFC 5321 4.5.3.1.1
LONGEST = LOCAL_PART - len("+r") - 20 - len(".") - 16  # the longest local part that can still be signed

_TOKEN = re.compile(r"([a-z2-7]{1,40})\.([a-z2-7]{16})")
_ATOMS = r"[^\s<>()\[\]\\,;:\"@.\x00-\x1f\x7f]+"
_ADDRESS = re.compile(
    rf"(?:{_ATOMS}(?:\.{_ATOMS})*|\"[ !#-\[\]-~]+\")@([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f.:]+\])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Token:
    """What a signed plus address says: `r` answers the delivery `uid`, `b` reports about it."""

    kind: Kind
    uid: str


def canonical(address: str) -> str:
    """Lower-cased, with the domain as DNS knows it (RFC 5890); as it is when the domain is none."""
    local, at, domain = address.rpartition("@")
    try:
        return f"{local}{at}{domain.encode('idna').decode('ascii') if not domain.isascii() else domain}".lower()
    except UnicodeError:
        return address.lower()


def address(account: str, name: str = "") -> Address:
    """Somebody whom mail reaches: canonical, and with the domain that policy asks about."""
    account = canonical(account)
    return Address(account, name, account.rpartition("@")[2])


def is_address(address: str) -> bool:
    """Whether mail can be addressed to it; the local part may be non-ASCII (RFC 6531), the domain must be canonical."""
    return len(address) <= 254 and _ADDRESS.fullmatch(address) is not None


def signed(uid: str, sign: Sign) -> str:
    return f"{uid}.{sign('id:' + uid)}"


def verified(text: str, sign: Sign) -> str:
    """The uid that `text` ("uid.signature") carries when its signature is ours, else ""."""
    match = _TOKEN.fullmatch(text.strip().lower())
    if match and hmac.compare_digest(sign("id:" + match[1]).encode(), match[2].encode()):
        return match[1]
    return ""


def probe(uid: str) -> str:
    """The id of a mail that only tries the way to a mailbox."""
    return f"{_PROBE}{uid}"


def probed(uid: str) -> str:
    """What such an id tries, "" when it is one of another mail: those are shorter."""
    return uid.removeprefix(_PROBE) if uid.startswith(_PROBE) and len(uid) > _UID else ""


def message_id(uid: str, mailbox: str, sign: Sign) -> str:
    """The Message-ID of a delivery, in angle brackets; the same at every attempt."""
    return f"<{signed(uid, sign)}@{mailbox.rpartition('@')[2]}>"


def uid_of(message_id: str, sign: Sign) -> str:
    """The delivery whose Message-ID it is, or "" when it is not one of ours."""
    return verified(message_id.strip("<> ").rpartition("@")[0], sign)


def plus_address(kind: Kind, uid: str, mailbox: str, sign: Sign) -> str:
    """Where answers (`r`) or bounces (`b`) of a delivery go; the bare mailbox when the signed one would be too long."""
    local, _, domain = mailbox.rpartition("@")
    local = f"{local}+{kind}{signed(uid, sign)}"
    return f"{local}@{domain}" if len(local) <= LOCAL_PART else mailbox


def tokens(addresses: Iterable[str], sign: Sign) -> list[Token]:
    """What the plus addresses among `addresses` stand for, where the signature is ours."""
    found: dict[Token, None] = {}
    for address in addresses:
        tag = address.rpartition("@")[0].rpartition("+")[2].lower()
        kind: Kind = "r" if tag[:1] == "r" else "b"
        if tag[:1] == kind and (uid := verified(tag[1:], sign)):
            found[Token(kind, uid)] = None
    return list(found)


def mailbox_of(address: str, mailboxes: Collection[str]) -> str:
    """Which of `mailboxes` an address belongs to, plus addresses (RFC 5233) included; "" when to none."""
    if len(address) > 320:  # RFC 5321 4.5.3.1: no such address; and the loop below stays short
        return ""
    address = canonical(address)
    local, _, domain = address.rpartition("@")
    while address not in mailboxes:
        local, plus, _ = local.rpartition("+")
        if not plus:
            return ""
        address = f"{local}@{domain}"
    return address


def others(addresses: Iterable[Address], mailboxes: Collection[str]) -> tuple[Address, ...]:
    """The people among `addresses`, canonical, once each, without our own mailboxes."""
    found = dict.fromkeys(address(one.account, one.name) for one in addresses if one.account)
    return tuple(one for one in found if not mailbox_of(one.account, mailboxes))


def vouched(address: str, fields: Iterable[str], authserv_id: str) -> bool:
    """Whether our own mail server found that DMARC (RFC 7489) vouches for the domain of a From address.

    `fields` are the Authentication-Results (RFC 8601), topmost first. Only the first that bears our server's name
    counts: it wrote that one last, what is below may be forged.
    """
    domain = address.rpartition("@")[2]
    for body in fields if authserv_id and domain else ():
        name, *results = _bare(body[:8192]).split(";")
        if name.split()[:1] == [authserv_id.lower()]:
            found = [result.split() for result in results if result.strip().startswith("dmarc")]
            # One result; a second one would have been written by the sender, into something badly quoted.
            return len(found) == 1 and found[0][0] == "dmarc=pass" and f"header.from={domain}" in found[0][1:]
    return False


def _bare(body: str) -> str:
    """Lower-cased, without comments and the content of quoted strings, in which a sender can write anything."""
    kept: list[str] = []
    depth, quoted = 0, False
    for piece in re.findall(r"\\.|[^\\]", body, re.DOTALL):
        if quoted:
            quoted = piece != '"'
        elif piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(0, depth - 1)
        elif not depth:
            quoted = piece == '"'
            kept.append(piece)
    return re.sub(r"\s*=\s*", "=", "".join(kept)).lower()
