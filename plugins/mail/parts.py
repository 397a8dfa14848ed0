"""The parts of a mail → text, HTML, files, and what a delivery report says (RFC 2045, RFC 3464)."""

from __future__ import annotations

import mimetypes
import quopri
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import Message

from bridge.model import Report
from bridge.text import clean, html_to_text, safe_html, text_to_html
from bridge.text.html import too_complex
from bridge.text.plain import decode, decode_base64, decode_words, one_line
from plugins.mail.header import addresses, eight_bit, fields_of, ids, message_id, subject_of
from plugins.mail.quotes import fold, fold_html, unflow

_TEXT_LIMIT = 1_000_000  # characters of text that are kept
_PARTS = 100  # attached files that are kept
_REPORTED_ID = re.compile(r"^[ \t>]{0,9}Message-ID:\s{0,9}(<[^<>\s]{1,996}>)", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+_-]{0,90}")
_NAME_UNWANTED = re.compile(r"[\x00-\x1f\x7f<>:\"|?*]")
_SIGNATURES = frozenset(("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"))
_TWINS = frozenset(("text/x-amp-html", "text/watch-html", "text/enriched", "text/richtext"))
_EXTENSIONS = {"text/calendar": ".ics", "text/plain": ".txt", "message/rfc822": ".eml", "image/jpeg": ".jpg"}


@dataclass(frozen=True, slots=True)
class Part:
    """A file that came with a mail."""

    name: str
    type: str  # media type, lower-cased
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Body:
    """One readable part, in one form or both."""

    text: str = ""
    html: str = ""


@dataclass(slots=True)
class Found:
    """What the walk through the parts has collected."""

    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    root: Message | None = None
    report: Report | None = None
    returned: str = ""  # Message-ID of the mail that a report returns

    def attach(self, name: str, type: str, data: bytes) -> None:
        if len(self.parts) < _PARTS:
            self.parts.append(Part(_file_name(name, type, len(self.parts) + 1), type, data))
        elif len(self.problems) < 5:
            self.problems.append(f"only the first {_PARTS} attachments are shown")


def bodies_of(part: Message, found: Found) -> list[Body]:
    """What is to be read in `part`, in order; what is a file goes to `found`."""
    kind = part.get_content_type()
    children = _children(part)
    if children is None:
        return _leaf(part, kind, found)
    if kind == "message/delivery-status":
        _status(children, found)
        return []
    if kind.startswith("message/"):
        for child in children:
            _enclosed(part, child, found)
        return []
    if kind == "multipart/alternative":
        return _alternative(children, found)
    if kind == "multipart/signed":  # the signature says nothing to people, and the mail is kept as it came
        children = [child for child in children if child.get_content_type() not in _SIGNATURES]
    if kind == "multipart/encrypted":
        found.problems.append("the mail is encrypted")
    return [body for child in children for body in bodies_of(child, found)]


def _children(part: Message) -> list[Message] | None:
    """The parts of a part, or None for a leaf."""
    if not part.is_multipart():
        return None
    return [child for child in part.get_payload() if isinstance(child, Message)]


def _alternative(children: Iterable[Message], found: Found) -> list[Body]:
    """The same words in several forms (RFC 2046 5.1.4): the first plain one and the last one in HTML, together."""
    groups = [bodies_of(child, found) for child in children if child.get_content_type() not in _TWINS]
    plain = next((group for group in groups if any(b.text.strip() for b in group) and not _has_html(group)), [])
    rich = next((group for group in reversed(groups) if _has_html(group)), [])
    if plain and rich:
        return [Body(_joined_text(plain), _joined_html(rich))]
    return rich or plain


def _leaf(part: Message, kind: str, found: Found) -> list[Body]:
    _mend(part)
    name, data = _given_name(part), _payload(part)
    attached = part.get_content_disposition() == "attachment" or (name and part is not found.root)
    if kind == "text/rfc822-headers":
        found.returned = found.returned or message_id(fields_of(data.decode("ascii", "surrogateescape"))[0])
        return []
    if attached or not (kind in ("text/plain", "text/html") or kind.startswith("multipart/")):
        _file(name, kind, data, found)
        return []
    text = decode(data, _charset(part)).replace("\r\n", "\n")
    if kind == "text/html":
        return [Body(html=text)]
    if "flowed" in str(part.get("content-type", "")).lower():
        text = unflow(text, delsp=str(part.get_param("delsp", "")).lower() == "yes")
    return [Body(text=text)]


def _file(name: str, kind: str, data: bytes, found: Found) -> None:
    kind = kind if _TYPE.fullmatch(kind) else "application/octet-stream"
    if kind in ("application/ms-tnef", "application/vnd.ms-tnef") or name.lower() == "winmail.dat":
        found.problems.append("some attachments are inside winmail.dat, a format of Outlook's own")
    if kind in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
        found.problems.append("the mail is encrypted or signed as a whole (S/MIME)")
    if data or name:
        found.attach(name, kind, data)


def _mend(part: Message) -> None:
    """Decode undeclared 8-bit characters in the fields that name files: `email` would lose them."""
    for name, value in part.raw_items():
        if name.lower() in ("content-type", "content-disposition") and not value.isascii():
            part.replace_header(name, eight_bit(value))


def _given_name(part: Message) -> str:
    if not any("name" in value.lower() for name, value in part.raw_items()):  # most parts; parsing parameters is slow
        return ""
    try:
        return decode_words(str(part.get_filename("")))
    except (ValueError, LookupError, TypeError):  # parameters that contradict RFC 2231
        return ""


def _charset(part: Message) -> str:
    try:
        return part.get_content_charset("")
    except ValueError:
        return ""


def _payload(part: Message) -> bytes:
    """The content of a leaf, its transfer encoding undone as far as it can be."""
    encoding = str(part.get("content-transfer-encoding", "")).strip().lower()
    data = _undecoded(part)
    if encoding == "base64":
        return decode_base64(data)
    return quopri.decodestring(data) if encoding == "quoted-printable" else data


def _undecoded(part: Message) -> bytes:
    """The content of a leaf as it came. Asked for text, `email` would decode it in any charset that is claimed."""
    del part["content-transfer-encoding"]
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _enclosed(part: Message, inner: Message, found: Found) -> None:
    """A mail inside the mail: a file, and in a report the mail that the report is about."""
    source = "".join(_source(inner)).replace("\r\n", "\n").replace("\n", "\r\n")
    fields, _ = fields_of(source)
    found.returned = found.returned or message_id(fields)
    name = _given_name(part) or subject_of(fields)[:80].replace("/", "-") or "message"
    found.attach(name, "message/rfc822", source.encode("utf-8", "surrogateescape"))


def _source(part: Message) -> Iterator[str]:
    """The source of a parsed part. `as_bytes` raises on odd header fields."""
    for name, value in part.raw_items():
        yield f"{name}: {value}\n"
    yield "\n"
    children = _children(part)
    if children is None:
        yield _undecoded(part).decode("ascii", "surrogateescape")
        return
    boundary = part.get_boundary() if part.get_content_maintype() == "multipart" else None
    if boundary and part.preamble:
        yield part.preamble
    for child in children:
        yield f"\n--{boundary}\n" if boundary else ""
        yield from _source(child)
    yield f"\n--{boundary}--\n{part.epilogue or ''}" if boundary else ""


def _file_name(name: str, type: str, number: int) -> str:
    """A harmless name for a file: no path, no control characters, at most 120 characters; a guess if none is given."""
    name = one_line(_NAME_UNWANTED.sub("", name.replace("\\", "/").rpartition("/")[2])).strip(". ")
    extension = _EXTENSIONS.get(type) or mimetypes.guess_extension(type) or ".bin"
    if not name:
        return f"{type.partition('/')[0]}-{number}{extension}"
    if type == "message/rfc822" and not name.lower().endswith(".eml"):
        name += extension
    stem, dot, suffix = name.rpartition(".")
    return f"{stem[:100]}.{suffix[:15]}" if dot and len(name) > 120 else name[:120]


def _has_html(bodies: Iterable[Body]) -> bool:
    return any(body.html for body in bodies)


def _joined_text(bodies: Iterable[Body]) -> str:
    texts = (body.text if body.text.strip() or not body.html else html_to_text(body.html) for body in bodies)
    return "\n\n".join(clean(text).strip("\n") for text in texts if text.strip())


def _joined_html(bodies: list[Body]) -> str:
    if len(bodies) == 1:
        return bodies[0].html
    return "".join(f"<div>{body.html or text_to_html(clean(body.text).strip())}</div>" for body in bodies)


def written(bodies: list[Body], found: Found, forward: bool) -> tuple[str, str, int]:
    """The text, the safe HTML and the number of lines folded. A forwarded mail is shown whole."""
    html, text, folded, hidden = "", "", 0, 0
    if _has_html(bodies):
        html = _joined_html(bodies)
        html, hidden = (html, 0) if forward else fold_html(html)
    if html and not any(body.text.strip() for body in bodies):
        text, folded = html_to_text(html), hidden
    else:
        text = _joined_text(bodies).rstrip()
        text, folded = (text, 0) if forward else fold(text)
    if len(text) > _TEXT_LIMIT:
        text = text[:_TEXT_LIMIT]
        found.problems.append("the text is too long to be shown whole")
    if too_complex(html):
        found.problems.append("the HTML part is too large or too complex; plain text shown")
        html = ""
    return text, safe_html(html) if html else "", max(folded, hidden)


def _status(blocks: Sequence[Message], found: Found) -> None:
    """A delivery status (RFC 3464): of its recipients the first that failed, else the first."""
    recipients = [dict((name.lower(), one_line(value)) for name, value in block.raw_items()) for block in blocks[:1000]]
    known = [fields for fields in recipients if "final-recipient" in fields or "original-recipient" in fields]
    if not known:
        return
    fields = next((fields for fields in known if fields.get("action", "").lower() == "failed"), known[0])
    who = fields.get("final-recipient") or fields["original-recipient"]
    reason = fields.get("diagnostic-code", "").partition(";")[2].strip() or fields.get("status", "")
    found.report = Report(
        about=next((id for block in recipients for id in ids(block.get("x-original-message-id", ""))), ""),
        recipient=who.rpartition(";")[2].strip(" <>").lower()[:320],
        reason=reason[:500],
        failed=fields.get("action", "failed").lower() == "failed",
    )


def complete_report(fields: Mapping[str, list[str]], bodies: list[Body], found: Found) -> None:
    """Name the mail that a report is about: the one returned, else a Message-ID in the text."""
    failed = addresses(fields.get("x-failed-recipients", []))  # Exim, which may send no delivery status
    if found.report is None and failed:
        found.report = Report(about="", recipient=failed[0].account, reason=_first_line(bodies))
    if found.report is not None:
        said = (named[1] for body in bodies if (named := _REPORTED_ID.search(body.text[:200_000])))
        about = found.returned or found.report.about or next((id for value in said for id in ids(value)), "")
        found.report = replace(found.report, about=about)


def _first_line(bodies: list[Body]) -> str:
    return next((line.strip()[:500] for body in bodies for line in body.text.split("\n") if line.strip()), "")
