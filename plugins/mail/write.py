"""Outward mail as bytes, and the memo: what we remember of a mail in order to answer it.

Pure, and the same input always gives the same bytes, so that a repeated attempt can be recognised as one. Header fields
are written here and not by the standard library, which folds long Message-IDs into RFC 2047 words that other mail
programs cannot read, and raises on hostile names.
"""

from __future__ import annotations

import binascii
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime
from urllib.parse import quote

from bridge.model import Address, Answered, Draft, File, Rejected
from bridge.text.html import matrix_to_html
from bridge.text.plain import matrix_to_text, text_to_html, without_internal_links
from plugins.mail import identity
from plugins.mail.config import Mailbox
from plugins.mail.identity import Sign
from plugins.mail.subject import unanswered

QUOTED = 2000  # characters of a mail that are kept for quoting it
MOST_REFERENCES = 20

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_ID = re.compile(r"<[!-;=?-~]{1,900}>")  # printable ASCII; a line has at most 998 octets, RFC 5322 2.1.1
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Memo:
    """What an answer needs to know of the mail it answers; kept as JSON in `Envelope.memo`."""

    sender: Address
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    date: float | None = None  # seconds since the epoch
    text: str = ""

    def dump(self) -> str:
        """As JSON."""
        people = {key: [[one.account, one.name] for one in getattr(self, key)] for key in ("reply_to", "to", "cc")}
        text = self.text if len(self.text) <= QUOTED else f"{self.text[:QUOTED].rstrip()} […]"
        sender = [self.sender.account, self.sender.name]
        return json.dumps({"from": sender, **people, "date": self.date, "text": text})

    @classmethod
    def load(cls, memo: str) -> Memo | None:
        """Read it back; None when there is none (the message did not come by mail)."""
        try:
            raw = json.loads(memo)
            reply_to, to, cc = (tuple(Address(*one) for one in raw[key]) for key in ("reply_to", "to", "cc"))
            return cls(Address(*raw["from"]), reply_to, to, cc, raw["date"], raw["text"])
        except (ValueError, KeyError, TypeError):
            return None


def write(
    draft: Draft, uid: str, mailbox: Mailbox, files: Sequence[tuple[File, bytes]], sign: Sign, date: float
) -> bytes:
    """The mail of a draft: CRLF line ends, nothing but ASCII, ready for SMTP's DATA.

    `uid` is the delivery's, `date` (seconds since the epoch) the same at every attempt. Raises `Rejected` for an
    address that mail cannot be sent to.
    """
    head = _head(draft, uid, mailbox, sign, date)
    body = _alternative(f"=_{uid}.a", _text(draft, mailbox), _html(draft, mailbox))
    if files:
        parts = [body, *(_attachment(file, data) for file, data in files)]
        body = _multipart("mixed", f"=_{uid}.m", parts)
    return head + body


# --- header ---------------------------------------------------------------------------------------------------------


def _head(draft: Draft, uid: str, mailbox: Mailbox, sign: Sign, date: float) -> bytes:
    answered = draft.answered
    lines = [
        f"From: {_mailbox(draft.author_name or mailbox.name, mailbox.address)}",
        *_reply_to(uid, mailbox, sign),
        *_addresses("To", draft.recipients.to),
        *_addresses("Cc", draft.recipients.cc),
        f"Subject: {_encoded(subject(draft))}",
        f"Date: {format_datetime(datetime.fromtimestamp(int(date), UTC))}",
        f"Message-ID: {identity.message_id(uid, mailbox.address, sign)}",
        *(_references(answered) if answered else ()),
        f"{identity.HEADER}: {identity.signed(uid, sign)}",
        "MIME-Version: 1.0",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _reply_to(uid: str, mailbox: Mailbox, sign: Sign) -> list[str]:
    if mailbox.reply_address == "plain":
        return []
    return [f"Reply-To: {_mailbox(mailbox.name, identity.plus_address('r', uid, mailbox.address, sign))}"]


def _addresses(header: str, addresses: Iterable[Address]) -> list[str]:
    written = ",\r\n ".join(_mailbox(one.name, sendable(one.account)) for one in addresses)
    return [f"{header}: {written}"] if written else []


def sendable(account: str) -> str:
    """The address as every mail server understands it. Raises `Rejected` when there is no such form."""
    address = identity.canonical(account)
    if not identity.is_address(address):
        raise Rejected(f"{account} is not an address that mail can be sent to")
    if not address.isascii():  # would need SMTPUTF8 (RFC 6531) at every server on the way
        raise Rejected(f"{account}: only letters without accents can be sent to before the @")
    return address


def subject(draft: Draft) -> str:
    """What the mail is about; an answer's begins with "Re: ", once."""
    if draft.answered is None:
        return _clean(draft.title)
    return answer_subject(draft.title or draft.answered.title)


def answer_subject(title: str) -> str:
    """The subject of an answer: with "Re: ", once, whatever the language of those before."""
    return f"Re: {unanswered(_clean(title))}"


def _references(answered: Answered) -> list[str]:
    """In-Reply-To and References, oldest first, one id a line. RFC 5322 3.6.4."""
    ids = dict.fromkeys([*reversed(answered.refs), answered.id])
    known = [one for one in ids if _ID.fullmatch(one) and not one.endswith(identity.NOWHERE)]
    if len(known) > MOST_REFERENCES:
        known = [known[0], *known[1 - MOST_REFERENCES :]]
    last = [f"In-Reply-To: {answered.id}"] if answered.id in known else []
    return [*last, "References: " + "\r\n ".join(known)] if known else []


def _clean(text: str) -> str:
    """One line without control characters, so that nothing in it can become a header field."""
    return " ".join(_CONTROL.sub(" ", text).split())


def _mailbox(name: str, address: str) -> str:
    name = _clean(name)[:200]
    if not name:
        return address
    if name.isascii() and "=?" not in name:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}" <{address}>'
    return f"{_words(name)} <{address}>"


def _encoded(text: str) -> str:
    return text if text.isascii() and "=?" not in text and len(text) <= 900 else _words(text)


def _words(text: str) -> str:
    """As RFC 2047 words, folded."""
    return Header(text, "utf-8", maxlinelen=70, header_name="Subject").encode(linesep="\r\n")


# --- body -----------------------------------------------------------------------------------------------------------


def _text(draft: Draft, mailbox: Mailbox) -> str:
    blocks = [_words_of(draft)]
    if mailbox.signature.strip():
        blocks.append(f"-- \n{mailbox.signature.strip()}")
    if transcript := without_internal_links(draft.transcript).strip():
        blocks.append(f"{mailbox.transcript_line}\n\n{transcript}")
    if memo := _quoted(draft):
        lines = "\n".join(f">{line}" if line[:1] in ("", ">") else f"> {line}" for line in memo.text.splitlines())
        blocks.append(f"{_quote_line(mailbox, memo)}\n{lines}")
    return "\n\n".join(blocks) + "\n"


def _html(draft: Draft, mailbox: Mailbox) -> str:
    words = matrix_to_html(draft.html) if draft.html else ""
    blocks = [f"<div>{words or text_to_html(_words_of(draft))}</div>"]
    if mailbox.signature.strip():
        blocks.append(f"<p>-- <br>{text_to_html(mailbox.signature.strip())}</p>")
    if transcript := without_internal_links(draft.transcript).strip():
        blocks.append(f"<hr><p><b>{_escaped(mailbox.transcript_line)}</b></p><p>{text_to_html(transcript)}</p>")
    if memo := _quoted(draft):
        line = _escaped(_quote_line(mailbox, memo))
        blocks.append(f'<p>{line}</p><blockquote type="cite">{text_to_html(memo.text)}</blockquote>')
    body = "\n".join(blocks)
    return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body>\n{body}\n</body></html>\n'


def _words_of(draft: Draft) -> str:
    return matrix_to_text(draft.text, draft.html)


def _quoted(draft: Draft) -> Memo | None:
    memo = Memo.load(draft.answered.memo) if draft.answered else None
    return memo if memo and memo.text.strip() else None


def _quote_line(mailbox: Mailbox, memo: Memo) -> str:
    name = _clean(memo.sender.name) or memo.sender.account
    return mailbox.quote_line.replace("{date}", _day(memo.date)).replace("{name}", name)


def _day(date: float | None) -> str:
    try:
        return datetime.fromtimestamp(int(date or 0), UTC).strftime("%Y-%m-%d %H:%M UTC") if date else "?"
    except (ValueError, OverflowError, OSError):  # a sender may write any date
        return "?"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


# --- MIME -----------------------------------------------------------------------------------------------------------


def _alternative(boundary: str, text: str, markup: str) -> bytes:
    return _multipart("alternative", boundary, [_readable("text/plain", text), _readable("text/html", markup)])


def _multipart(kind: str, boundary: str, parts: Iterable[bytes]) -> bytes:
    """RFC 2046 5.1. `boundary` has "=_", which neither quoted-printable nor base64 can contain."""
    mark = f"--{boundary}".encode("ascii")
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode("ascii")
    return head + b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def _readable(media_type: str, text: str) -> bytes:
    """A text part: as it is when that is ASCII in short lines, else quoted-printable."""
    data = _CONTROL_IN_TEXT.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).encode("utf-8")
    plain = data.isascii() and max(map(len, data.split(b"\n"))) <= 78
    charset, encoding = ("us-ascii", "7bit") if plain else ("utf-8", "quoted-printable")
    body = data if plain else binascii.b2a_qp(data, istext=True)
    head = f"Content-Type: {media_type}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode("ascii") + body.replace(b"\n", b"\r\n")


def _attachment(file: File, data: bytes) -> bytes:
    media_type = file.type.lower().partition(";")[0].strip()
    if not _TYPE.fullmatch(media_type) or media_type.startswith(("message/", "multipart/")):
        media_type = "application/octet-stream"  # RFC 2046 5.2.1: message/rfc822 may not be in base64
    head = (
        f"Content-Type: {media_type}\r\n"
        f"Content-Disposition: attachment;\r\n {_filename(file.name)}\r\n"
        "Content-Transfer-Encoding: base64\r\n\r\n"
    )
    return head.encode("ascii") + _base64(data)


def _filename(name: str) -> str:
    """The parameter, plain where possible, else as RFC 2231 has it."""
    name = _shortened(_clean(name) or "file")
    if re.fullmatch(r"[\w .,()+@=-]+", name, re.ASCII):
        return f'filename="{name}"'
    return f"filename*=utf-8''{quote(name, safe='')}"


def eml_name(subject: str) -> str:
    """The name of a file that holds a whole mail."""
    name = " ".join(re.sub(r'[/\\:*?"<>|]+', " ", _clean(subject)).split())
    return f"{name[:80].strip('. ') or 'message'}.eml"


def _shortened(name: str, most: int = 200) -> str:
    """At most `most` octets in UTF-8, its extension kept."""
    if len(name.encode("utf-8")) <= most:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 10 or not extension.isascii():
        stem, dot, extension = name, "", ""
    kept = stem.encode("utf-8")[: most - len(dot + extension)].decode("utf-8", "ignore")
    return f"{kept}{dot}{extension}"


def _base64(data: bytes) -> bytes:
    """In lines of 76 characters, RFC 2045 6.8."""
    text = binascii.b2a_base64(data, newline=False)
    return b"".join(text[at : at + 76] + b"\r\n" for at in range(0, len(text), 76))
