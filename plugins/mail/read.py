"""Mail bytes → value. Whatever arrives gives a `Mail`, in bounded time; what is risky is parsed in a process apart."""

from __future__ import annotations

import asyncio
import mimetypes
import multiprocessing
import quopri
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from email.message import Message
from email.parser import Parser
from email.utils import getaddresses, mktime_tz, parsedate_tz
from threading import Lock
from types import TracebackType
from typing import Any, Self

from pebble import ProcessExpired, ProcessPool

from bridge.model import Address, Report
from bridge.text import clean, fold, fold_html, html_to_text, safe_html, text_to_html, unflow
from bridge.text.html import too_complex
from bridge.text.plain import decode, decode_base64, decode_words, one_line

TOKEN_FIELD = "X-Passerelle-Id"  # noqa: S105 - the name of our own header field

_TEXT_LIMIT = 1_000_000  # characters of text that are kept
_PARTS = 100  # attached files that are kept
_VALUE = 16_000  # characters of a header field that are looked at
_FIELDS = 20_000  # header fields that are looked at

_FIELD = re.compile(r"([!-9;-~]++)[ \t]*+:[ \t]*+([^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+)(?:\r\n|\r|\n|\Z)")
_FOLDING = re.compile(r"[\r\n]+[ \t]*")
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STRUCTURED = re.compile(
    r"(?:^|(?<=\r))content-(?:type|disposition)[ \t]*:[^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+",
    re.IGNORECASE | re.MULTILINE,
)
_ID = re.compile(r"<([^<>]{1,2000})>")
_SANE_ID = re.compile(r"[!-;=?-~\u00a1-\u1fff\u2c00-\ud7ff\uf900-\ufdff]{1,996}")
_ACCOUNT = re.compile(r"[^\s<>()\[\],;:\\\"@\x00-\x1f\x7f\ufffd]{1,64}@[^\s<>()\[\],;:\\\"@\x00-\x1f\x7f\ufffd]{1,255}")
_BOX = _ACCOUNT.pattern
# A From that every reader of mail understands alike.
_ONE_BOX = re.compile(
    rf"(?:\"((?:[^\"\\]|\\.){{0,500}}+)\"|([^\"(),:;<>@\\\[\]]{{0,500}}+))<({_BOX})>\s*+|({_BOX})\s*+"
)
_SPECIAL_WORD = re.compile(r"(=\?[\w.:+*-]{1,80}\?q\?)([!->@-~ ]*[()<>@,;:\\\"\[\].][!->@-~ ]*)\?=", re.IGNORECASE)
_COMMAS = re.compile(r",\s*+")
_FORWARD = re.compile(r"\s{0,9}(?:fwd?|tr|wg|rv|i|enc|doorst|vb)\s?:", re.IGNORECASE)
_REPORTED_ID = re.compile(r"^[ \t>]{0,9}Message-ID:\s{0,9}(<[^<>\s]{1,996}>)", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+_-]{0,90}")
_NAME_UNWANTED = re.compile(r"[\x00-\x1f\x7f<>:\"|?*]")

_SIGNATURES = frozenset(("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"))
_TWINS = frozenset(("text/x-amp-html", "text/watch-html", "text/enriched", "text/richtext"))
_AUTOMATIC = (
    "list-id",
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-auto-response-suppress",
)
_WANTED = frozenset(
    (
        *("message-id", "in-reply-to", "references", "subject", "from", "reply-to", "to", "cc", "date"),
        *("authentication-results", "auto-submitted", "precedence", "x-failed-recipients", TOKEN_FIELD.lower()),
        *_AUTOMATIC,
    )
)
_NO_NESTING = str.maketrans("():;", "    ")
_TOKEN = re.compile(r"[!-~]{1,200}")
_EXTENSIONS = {"text/calendar": ".ics", "text/plain": ".txt", "message/rfc822": ".eml", "image/jpeg": ".jpg"}


@dataclass(frozen=True, slots=True)
class Part:
    """A file that came with a mail."""

    name: str
    type: str  # media type, lower-cased
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it arrived, read."""

    message_id: str  # "<…>", or ""
    refs: tuple[str, ...]  # Message-IDs it answers, nearest first, at most 50
    subject: str  # one line, at most 500 characters
    sender: Address  # account "" if there is none
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    date: float | None  # seconds since the epoch
    text: str  # folded
    html: str  # folded, safe Matrix HTML, or ""
    folded: int  # lines of quoted text left out
    parts: tuple[Part, ...]
    automatic: bool  # made by a program (RFC 3834), a list or a mass mailing; the null return path is the caller's
    authentication: tuple[str, ...]  # Authentication-Results as they came, unfolded, in order; () if From is ambiguous
    report: Report | None  # of a delivery status notification (RFC 3464); a VERP address is the caller's
    token: str  # our own X-Passerelle-Id, or ""
    problem: str  # what could not be read, for people, or ""


@dataclass(slots=True)
class _Body:
    """One readable part, in one form or both."""

    text: str = ""
    html: str = ""


@dataclass(slots=True)
class _Found:
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


def read(raw: bytes) -> Mail:
    """The mail in `raw`. Never raises; what cannot be parsed gives `unreadable`."""
    try:
        return _read(raw)
    except RecursionError:
        return unreadable(raw, "the mail is nested too deeply to be read")
    # The one guard: parsers of mail fail on hostile input in ways that no list of exceptions covers.
    except Exception as fault:  # noqa: BLE001
        return unreadable(raw, f"the mail could not be read ({type(fault).__name__})")


def unreadable(raw: bytes, problem: str) -> Mail:
    """What the header of a mail says, by bounded means only, where the rest cannot be read. Never raises."""
    fields, _ = _fields(raw[:1_000_000].decode("ascii", "surrogateescape"))
    return _mail(fields, "", "", 0, _Found(problems=[problem]))


def risky(raw: bytes) -> bool:
    """Whether reading `raw` may take long or break: it is big, or has many parts, tags, parameters or header lines.

    Text is read at 10 kB a millisecond, HTML at 1 kB.
    """
    ends = [end for end in (raw.find(b"\n\n"), raw.find(b"\n\r\n")) if end >= 0]
    return (
        len(raw) > 64_000
        or min(ends, default=len(raw)) > 24_000
        or raw.count(b"\n--") > 40
        or raw.count(b"<") > 1000
        or (len(raw) > 24_000 and b"html" in raw.lower())
        or raw.count(b";") > 3000
    )


class Reader:
    """Reads mails: harmless ones here, risky ones in a process of their own that is ended after `limit` seconds.

    An async context manager; the processes start with the first risky mail.
    """

    def __init__(self, limit: float = 5.0, workers: int = 2) -> None:
        self._limit = limit
        self._workers = workers
        self._pool: ProcessPool | None = None
        self._lock = Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(pool.join)

    async def read(self, raw: bytes) -> Mail:
        """The mail in `raw`, however hostile. Raises only when no process can be started: our own trouble."""
        if not risky(raw):
            return read(raw)
        try:
            return await self._apart(raw)
        except TimeoutError:
            return unreadable(raw, f"the mail could not be read within {self._limit:g} seconds")
        except ProcessExpired:
            return unreadable(raw, "the mail could not be read: it made the parser fail")
        except BrokenProcessPool:  # the pool, not the mail: once more, with a new one
            return await self._apart(raw)

    async def _apart(self, raw: bytes) -> Mail:
        future = await asyncio.to_thread(self._schedule, raw)  # starting a process takes half a second
        mail: Mail = await asyncio.wrap_future(future)
        return mail

    def _schedule(self, raw: bytes) -> Future[Mail]:
        with self._lock:
            if self._pool is None or not self._pool.active:
                self._pool = ProcessPool(max_workers=self._workers, max_tasks=1000, context=_context())
            future: Future[Mail] = self._pool.schedule(read, args=(raw,), timeout=self._limit)
            return future


def _context() -> Any:
    """How processes start: never by forking this one, which has threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _read(raw: bytes) -> Mail:
    source = raw.decode("ascii", "surrogateescape")
    fields, end = _fields(source)
    root = _parsed("".join(fields.get("content-*", ())), _body_of(source, end))
    found = _Found(root=root)
    bodies = _bodies(root, found)
    _complete_report(fields, bodies, found)
    text, html, folded = _written(bodies, found, forward=_FORWARD.match(_subject(fields)) is not None)
    return _mail(fields, text, html, folded, found)


def _parsed(header: str, body: str) -> Message:
    """The parts of a mail; only the fields that say how it is built are parsed again."""
    root: Message = Parser().parsestr(_bounded(header) + "\n", headersonly=True)
    if root.get_content_maintype() in ("multipart", "message"):
        return Parser().parsestr(_bounded(f"{header}\n{body}"))
    root.set_payload(body)
    return root


def _body_of(source: str, end: int) -> str:
    """What follows the empty line after the header; or the line that ended the header, being no field."""
    return source[end:].removeprefix("\r").removeprefix("\n")


def _bounded(source: str) -> str:
    """`source` without endless Content-Type and Content-Disposition fields: parsing parameters is quadratic."""
    if source.count(";") < 200:
        return source
    return _STRUCTURED.sub(
        lambda found: found[0] if len(found[0]) < 4000 else found[0][:4000].rpartition(";")[0], source
    )


# The header


def _fields(source: str) -> tuple[Mapping[str, list[str]], int]:
    """The header fields that matter, by lower-cased name, unfolded; and where the header ends.

    Under "content-*" stand those that describe the content, as they came.
    """
    fields: dict[str, list[str]] = {}
    at = source.find("\n") + 1 if source.startswith("From ") else 0
    for _ in range(_FIELDS):
        found = _FIELD.match(source, at)
        if found is None:
            break
        name = found[1].lower()
        if name in _WANTED and len(fields.setdefault(name, [])) < 50:
            # The nearest references are the last ones.
            value = found[2][-_VALUE:] if name == "references" else found[2][:_VALUE]
            fields[name].append(_CONTROLS.sub("\ufffd", _eight_bit(_FOLDING.sub(" ", value))).strip())
        elif name.startswith("content-"):
            fields.setdefault("content-*", []).append(found[0])
        at = found.end()
    return fields, at


def _eight_bit(value: str) -> str:
    """`value` with its undeclared 8-bit characters decoded."""
    return value if value.isascii() else decode(value.encode("utf-8", "surrogateescape"), "")


def _mail(fields: Mapping[str, list[str]], text: str, html: str, folded: int, found: _Found) -> Mail:
    senders = fields.get("from", [])
    sender = next(iter(_addresses(senders)), Address(""))
    message_id = _message_id(fields)
    # Who checked a From that can be read in two ways may have read another address than we do.
    certain = len(senders) == 1 and _ONE_BOX.fullmatch(senders[0]) is not None
    token = _last(fields, TOKEN_FIELD.lower())
    return Mail(
        message_id=message_id,
        refs=_refs(fields, message_id),
        subject=_subject(fields),
        sender=sender,
        reply_to=_addresses(fields.get("reply-to", [])),
        to=_addresses(fields.get("to", [])),
        cc=_addresses(fields.get("cc", [])),
        date=_date(_last(fields, "date")),
        text=text,
        html=html,
        folded=folded,
        parts=tuple(found.parts),
        automatic=_automatic(fields),
        authentication=tuple(clean(value) for value in fields.get("authentication-results", ())) if certain else (),
        report=found.report,
        token=token if _TOKEN.fullmatch(token) else "",
        problem="; ".join(dict.fromkeys(found.problems)),
    )


def _last(fields: Mapping[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[-1]


def _subject(fields: Mapping[str, list[str]]) -> str:
    return one_line(decode_words(fields.get("subject", [""])[0]))[:500]


def _addresses(values: Sequence[str]) -> tuple[Address, ...]:
    """The addresses in header fields, each once, at most 500, names decoded after parsing (RFC 2047 6.2)."""
    if not values:
        return ()
    text = _SPECIAL_WORD.sub(_escaped, ", ".join(values))
    if text.count(",") < 20 and (boxes := [_ONE_BOX.fullmatch(box) for box in _COMMAS.split(text)]) and all(boxes):
        return tuple(dict.fromkeys(_address(*_box(box)) for box in boxes if box))
    if len(text) > _VALUE:
        text = text[:_VALUE].rpartition(",")[0]
    if text.count("(") > 20 or text.count(":") > 50:  # comments and groups are parsed by recursion
        text = text.translate(_NO_NESTING)
    try:
        pairs = getaddresses([text])
    except (IndexError, ValueError, RecursionError):  # `unreadable` must not raise either
        return ()
    return tuple(dict.fromkeys(_address(*pair) for pair in pairs if _ACCOUNT.fullmatch(pair[1])))[:500]


def _escaped(word: re.Match[str]) -> str:
    """An encoded word with the characters encoded that mean something in a list of addresses (RFC 2047 5 (3))."""
    return word[1] + re.sub(r"[^\w=!*+/-]", lambda char: f"={ord(char[0]):02X}", word[2], flags=re.ASCII) + "?="


def _box(found: re.Match[str]) -> tuple[str, str]:
    return found[2] or re.sub(r"\\(.)", r"\1", found[1] or ""), found[3] or found[4]


def _address(name: str, account: str) -> Address:
    return Address(account.lower(), one_line(decode_words(name))[:200])


def _message_id(fields: Mapping[str, list[str]]) -> str:
    return next(iter(_ids(fields.get("message-id", [""])[0])), "")


def _ids(value: str) -> list[str]:
    """The Message-IDs in a field, with brackets; some senders encode or fold inside them, or leave the brackets out."""
    value = decode_words(value)
    inner = _ID.findall(value) if "<" in value else [value] if "@" in value and " " not in value else []
    joined = ("".join(id.split()) for id in inner)
    return [f"<{id}>" for id in joined if _SANE_ID.fullmatch(id)]


def _refs(fields: Mapping[str, list[str]], own: str) -> tuple[str, ...]:
    near = [id for value in fields.get("in-reply-to", ()) for id in _ids(value)]
    far = [id for value in fields.get("references", ()) for id in _ids(value)]
    return tuple(id for id in dict.fromkeys((*near, *reversed(far))) if id != own)[:50]


def _date(value: str) -> float | None:
    try:
        parsed = parsedate_tz(value[:100])
        when = float(mktime_tz(parsed)) if parsed else 0.0
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return when if 0 < when < 4e9 else None


def _automatic(fields: Mapping[str, list[str]]) -> bool:
    submitted = _last(fields, "auto-submitted").partition(";")[0].strip().lower()
    precedence = _last(fields, "precedence").strip().lower()
    marked = any(name in fields for name in _AUTOMATIC)
    return marked or submitted not in ("", "no") or precedence in ("bulk", "junk", "list", "auto_reply")


# The parts


def _bodies(part: Message, found: _Found) -> list[_Body]:
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
    return [body for child in children for body in _bodies(child, found)]


def _children(part: Message) -> list[Message] | None:
    """The parts of a part, or None for a leaf."""
    if not part.is_multipart():
        return None
    return [child for child in part.get_payload() if isinstance(child, Message)]


def _alternative(children: Iterable[Message], found: _Found) -> list[_Body]:
    """The same words in several forms (RFC 2046 5.1.4): the first plain one and the last one in HTML, together."""
    groups = [_bodies(child, found) for child in children if child.get_content_type() not in _TWINS]
    plain = next((group for group in groups if any(b.text.strip() for b in group) and not _has_html(group)), [])
    rich = next((group for group in reversed(groups) if _has_html(group)), [])
    if plain and rich:
        return [_Body(_joined_text(plain), _joined_html(rich))]
    return rich or plain


def _leaf(part: Message, kind: str, found: _Found) -> list[_Body]:
    _mend(part)
    name, data = _given_name(part), _payload(part)
    attached = part.get_content_disposition() == "attachment" or (name and part is not found.root)
    if kind == "text/rfc822-headers":
        found.returned = found.returned or _message_id(_fields(data.decode("ascii", "surrogateescape"))[0])
        return []
    if attached or not (kind in ("text/plain", "text/html") or kind.startswith("multipart/")):
        _file(name, kind, data, found)
        return []
    text = decode(data, _charset(part)).replace("\r\n", "\n")
    if kind == "text/html":
        return [_Body(html=text)]
    if "flowed" in str(part.get("content-type", "")).lower():
        text = unflow(text, delsp=str(part.get_param("delsp", "")).lower() == "yes")
    return [_Body(text=text)]


def _file(name: str, kind: str, data: bytes, found: _Found) -> None:
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
            part.replace_header(name, _eight_bit(value))


def _given_name(part: Message) -> str:
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


def _enclosed(part: Message, inner: Message, found: _Found) -> None:
    """A mail inside the mail: a file, and in a report the mail that the report is about."""
    source = "".join(_source(inner)).replace("\r\n", "\n").replace("\n", "\r\n")
    fields, _ = _fields(source)
    found.returned = found.returned or _message_id(fields)
    name = _given_name(part) or _subject(fields)[:80].replace("/", "-") or "message"
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


# Text and reports


def _has_html(bodies: Iterable[_Body]) -> bool:
    return any(body.html for body in bodies)


def _joined_text(bodies: Iterable[_Body]) -> str:
    texts = (body.text if body.text.strip() or not body.html else html_to_text(body.html) for body in bodies)
    return "\n\n".join(clean(text).strip("\n") for text in texts if text.strip())


def _joined_html(bodies: list[_Body]) -> str:
    if len(bodies) == 1:
        return bodies[0].html
    return "".join(f"<div>{body.html or text_to_html(clean(body.text).strip())}</div>" for body in bodies)


def _written(bodies: list[_Body], found: _Found, forward: bool) -> tuple[str, str, int]:
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


def _status(blocks: Sequence[Message], found: _Found) -> None:
    """A delivery status (RFC 3464): of its recipients the first that failed, else the first."""
    recipients = [dict((name.lower(), one_line(value)) for name, value in block.raw_items()) for block in blocks[:1000]]
    known = [fields for fields in recipients if "final-recipient" in fields or "original-recipient" in fields]
    if not known:
        return
    fields = next((fields for fields in known if fields.get("action", "").lower() == "failed"), known[0])
    who = fields.get("final-recipient") or fields["original-recipient"]
    reason = fields.get("diagnostic-code", "").partition(";")[2].strip() or fields.get("status", "")
    found.report = Report(
        about=next((id for block in recipients for id in _ids(block.get("x-original-message-id", ""))), ""),
        recipient=who.rpartition(";")[2].strip(" <>").lower()[:320],
        reason=reason[:500],
        failed=fields.get("action", "failed").lower() == "failed",
    )


def _complete_report(fields: Mapping[str, list[str]], bodies: list[_Body], found: _Found) -> None:
    """Name the mail that a report is about: the one returned, else a Message-ID in the text."""
    failed = _addresses(fields.get("x-failed-recipients", []))  # Exim, which may send no delivery status
    if found.report is None and failed:
        found.report = Report(about="", recipient=failed[0].account, reason=_first_line(bodies))
    if found.report is not None:
        said = (named[1] for body in bodies if (named := _REPORTED_ID.search(body.text[:200_000])))
        about = found.returned or found.report.about or next((id for value in said for id in _ids(value)), "")
        found.report = replace(found.report, about=about)


def _first_line(bodies: list[_Body]) -> str:
    return next((line.strip()[:500] for body in bodies for line in body.text.split("\n") if line.strip()), "")
