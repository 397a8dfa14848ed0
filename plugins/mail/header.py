"""The header of a mail → values: addresses, ids, dates, bounded and never raising (RFC 5322)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from email.utils import getaddresses, mktime_tz, parsedate_tz

from bridge.model import Address
from bridge.text.plain import decode, decode_words, one_line
from plugins.mail.identity import HEADER

_VALUE = 16_000  # characters of a header field that are looked at
_FIELDS = 20_000  # header fields that are looked at
_FIELD = re.compile(r"([!-9;-~]++)[ \t]*+:[ \t]*+([^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+)(?:\r\n|\r|\n|\Z)")
_FOLDING = re.compile(r"[\r\n]+[ \t]*")
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ID = re.compile(r"<([^<>]{1,2000})>")
_SANE_ID = re.compile(r"[!-;=?-~\u00a1-\u1fff\u2c00-\ud7ff\uf900-\ufdff]{1,996}")
_ACCOUNT = re.compile(r"[^\s<>()\[\],;:\\\"@\x00-\x1f\x7f\ufffd]{1,64}@[^\s<>()\[\],;:\\\"@\x00-\x1f\x7f\ufffd]{1,255}")
_BOX = _ACCOUNT.pattern
# A From that every reader of mail understands alike.
ONE_BOX = re.compile(rf"(?:\"((?:[^\"\\]|\\.){{0,500}}+)\"|([^\"(),:;<>@\\\[\]]{{0,500}}+))<({_BOX})>\s*+|({_BOX})\s*+")
_SPECIAL_WORD = re.compile(r"(=\?[\w.:+*-]{1,80}\?q\?)([!->@-~ ]*[()<>@,;:\\\"\[\].][!->@-~ ]*)\?=", re.IGNORECASE)
_COMMAS = re.compile(r",\s*+")
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
        *("authentication-results", "auto-submitted", "precedence", "x-failed-recipients", HEADER.lower()),
        *_AUTOMATIC,
    )
)
_NO_NESTING = str.maketrans("():;", "    ")


def fields_of(source: str, more: Collection[str] = ()) -> tuple[Mapping[str, list[str]], int]:
    """The header fields that matter, and `more`, by lower-cased name, unfolded; and where the header ends.

    Under "content-*" stand those that describe the content, as they came.
    """
    fields: dict[str, list[str]] = {}
    at = source.find("\n") + 1 if source.startswith("From ") else 0
    for _ in range(_FIELDS):
        found = _FIELD.match(source, at)
        if found is None:
            break
        name = found[1].lower()
        if (name in _WANTED or name in more) and len(fields.setdefault(name, [])) < 50:
            # The nearest references are the last ones.
            value = found[2][-_VALUE:] if name == "references" else found[2][:_VALUE]
            fields[name].append(_CONTROLS.sub("\ufffd", eight_bit(_FOLDING.sub(" ", value))).strip())
        elif name.startswith("content-"):
            fields.setdefault("content-*", []).append(found[0])
        at = found.end()
    return fields, at


def eight_bit(value: str) -> str:
    """`value` with its undeclared 8-bit characters decoded."""
    return value if value.isascii() else decode(value.encode("utf-8", "surrogateescape"), "")


def last(fields: Mapping[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[-1]


def subject_of(fields: Mapping[str, list[str]]) -> str:
    return one_line(decode_words(fields.get("subject", [""])[0]))[:500]


def addresses(values: Sequence[str]) -> tuple[Address, ...]:
    """The addresses in header fields, each once, at most 500, names decoded after parsing (RFC 2047 6.2)."""
    if not values:
        return ()
    text = _SPECIAL_WORD.sub(_escaped, ", ".join(values))
    if text.count(",") < 20 and (boxes := [ONE_BOX.fullmatch(box) for box in _COMMAS.split(text)]) and all(boxes):
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


def message_id(fields: Mapping[str, list[str]]) -> str:
    return next(iter(ids(fields.get("message-id", [""])[0])), "")


def ids(value: str) -> list[str]:
    """The Message-IDs in a field, with brackets; some senders encode or fold inside them, or leave the brackets out."""
    value = decode_words(value)
    inner = _ID.findall(value) if "<" in value else [value] if "@" in value and " " not in value else []
    joined = ("".join(id.split()) for id in inner)
    return [f"<{id}>" for id in joined if _SANE_ID.fullmatch(id)]


def refs(fields: Mapping[str, list[str]], own: str) -> tuple[str, ...]:
    near = [id for value in fields.get("in-reply-to", ()) for id in ids(value)]
    far = [id for value in fields.get("references", ()) for id in ids(value)]
    return tuple(id for id in dict.fromkeys((*near, *reversed(far))) if id != own)[:50]


def date(value: str) -> float | None:
    try:
        parsed = parsedate_tz(value[:100])
        when = float(mktime_tz(parsed)) if parsed else 0.0
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return when if 0 < when < 4e9 else None


def automatic(fields: Mapping[str, list[str]]) -> bool:
    submitted = last(fields, "auto-submitted").partition(";")[0].strip().lower()
    precedence = last(fields, "precedence").strip().lower()
    marked = any(name in fields for name in _AUTOMATIC)
    return marked or submitted not in ("", "no") or precedence in ("bulk", "junk", "list", "auto_reply")
