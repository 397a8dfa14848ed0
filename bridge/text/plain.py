"""Plain text: decoding and cleaning what others send, short views, and an employee's words without Matrix marks."""

from __future__ import annotations

import binascii
import codecs
import html
import re

_NEWLINE = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# Lone surrogates (Synapse answers 500 to them), controls, and what reverses the direction of the text around it.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]+")
_ASCII = dict.fromkeys((*range(32), 127)) | dict.fromkeys(map(ord, "\n\r\v\f"), "\n") | {9: "\t"}
_BLANKS = re.compile(r"\n(?:[ \t]*+\n){3,}+")
_URL = re.compile(r"https?://[^\s<>\"'\u00a0]+", re.IGNORECASE)

# Addresses inside the homeserver; clients make permalinks of the form …/#/room/… and …/#/user/… as well.
_INTERNAL = (
    r"(?:https?://(?:www\.)?matrix\.to/|https?://[^\s<>\"'()\[\]#]{1,200}/#/(?:room|user)/|matrix:[a-z]+/|mxc://)"
)
INTERNAL_LINK = re.compile(_INTERNAL, re.IGNORECASE)
_INTERNAL_URL = re.compile(rf"<?\b{_INTERNAL}[^\s<>\"'()\[\]]*>?", re.IGNORECASE)
_INTERNAL_MARKDOWN = re.compile(rf"!?\[([^\[\]\n]{{0,300}})\]\(<?{_INTERNAL}[^\s<>()]*>?\)", re.IGNORECASE)
_PILL = re.compile(
    r"<a\s[^<>]{0,200}?href=[\"']https?://matrix\.to/#/((?:@|%40)[^\"'<>?/]{1,255})[^\"'<>]*[\"'][^<>]*>([^<]{1,300})</a>",
    re.IGNORECASE,
)
_FALLBACK = re.compile(r"> (?:\* )?<@[^>\n]*>")

_WORD = re.compile(r"=\?([\w.:+-]{1,60})(?:\*[\w-]{0,20})?\?([bq])\?([^?]*+)\?=", re.IGNORECASE)
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
# Never asked to decode: quadratic or able to make anything of anything.
_NO_CHARSETS = frozenset(("idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "mbcs", "oem"))
# What these names mean in mail is more than what they say (WHATWG Encoding 4.2).
_WIDER = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949"}


def clean(text: str) -> str:
    """`text` fit to be shown and stored.

    Newlines become \\n; lone surrogates, control characters other than \\n and \\t, and bidirectional overrides are
    dropped; at most two blank lines follow each other.
    """
    if text.isascii():  # most are, and this is fast
        text = text.replace("\r\n", "\n").translate(_ASCII)
    else:
        text = _UNWANTED.sub("", _NEWLINE.sub("\n", text))
    return _BLANKS.sub("\n\n\n", text)


def trim(text: str, limit: int = 4000, lines: int = 60) -> tuple[str, bool]:
    """A short view of at most `limit` characters and `lines` lines, and whether something was left out.

    The cut is at the end of a line, or of a word, where one ends in the second half of the view.
    """
    short = "\n".join(text.split("\n", lines)[:lines])
    if len(short) > limit:
        short = short[: _boundary(short, limit)]
    return (text, False) if len(short) == len(text) else (short.rstrip(), True)


def _boundary(text: str, limit: int) -> int:
    for mark in ("\n", " "):
        end = text.rfind(mark, limit // 2, limit + 1)
        if end > 0:
            return end
    return limit


def text_to_html(text: str) -> str:
    """`text` as HTML: escaped, one `<br>` a line end, http and https URLs as links."""
    if "://" not in text:
        return html.escape(text, quote=False).replace("\n", "<br>")
    out: list[str] = []
    end = 0
    for found in _URL.finditer(text):
        url = _without_punctuation(found[0])
        out += (html.escape(text[end : found.start()], quote=False), _anchor(url))
        end = found.start() + len(url)
    out.append(html.escape(text[end:], quote=False))
    return "".join(out).replace("\n", "<br>")


def _anchor(url: str) -> str:
    return f'<a href="{html.escape(url)}">{html.escape(url, quote=False)}</a>'


def _without_punctuation(url: str) -> str:
    """The URL without the punctuation of the sentence around it; a closing bracket stays if it was opened inside."""
    url = url.rstrip(".,;:!?*_")
    if url.endswith(")") and url.count("(") < url.count(")"):
        return url[:-1].rstrip(".,;:!?*_")
    return url


def matrix_to_text(body: str, formatted_body: str = "", *, is_reply: bool = False) -> str:
    """The plain text of an employee's message, for a mail.

    Nothing internal stays: links to matrix.to and into the homeserver keep their names only, and `is_reply` removes the
    quote that clients put before a rich reply (the fallback of the Matrix specification). `formatted_body` tells the
    names of the people mentioned, where `body` has their user ids.
    """
    text = clean(body)
    if is_reply:
        text = _without_fallback(text)
    for user, name in _mentioned(formatted_body).items():
        text = text.replace(user, name)
    return without_internal_links(text).strip()


def without_internal_links(text: str) -> str:
    """Plain text whose links into Matrix are reduced to the names they carry."""
    return _INTERNAL_URL.sub("", _INTERNAL_MARKDOWN.sub(r"\1", text))


def _without_fallback(text: str) -> str:
    if not _FALLBACK.match(text):
        return text
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if not line.startswith(">")), len(lines))
    return "\n".join(lines[start:]).removeprefix("\n")


def _mentioned(formatted_body: str) -> dict[str, str]:
    """User id → name, longest first, of the mentions (at most 100) in Matrix HTML."""
    pills: dict[str, str] = {}
    for found in _PILL.finditer(formatted_body[:100_000]):
        user = found[1].replace("%40", "@").replace("%3A", ":").replace("%3a", ":")
        if ":" in user and len(pills) < 100:
            name = clean(html.unescape(found[2])).strip()
            pills[user] = name[1:].partition(":")[0] if name == user else name
    return dict(sorted(pills.items(), key=lambda pill: -len(pill[0])))


def one_line(text: str) -> str:
    """`text`, cleaned, in one line with single spaces."""
    return " ".join(clean(text).split())


def decode_words(value: str) -> str:
    """A header's text with its encoded words decoded (RFC 2047); what is no proper word stays as it is.

    Neighbouring words are joined before they are decoded: many senders split inside a character.
    """
    if "=?" not in value:
        return value
    out: list[str] = []
    end, charset, data = 0, "", b""
    for word in _WORD.finditer(value):
        gap = value[end : word.start()]
        joined = bool(charset) and not gap.strip()  # space between words is no text (RFC 2047 6.2)
        if not joined or charset != word[1].lower():
            out.append(decode(data, charset))
            data = b""
        out.append("" if joined else gap)
        end, charset = word.end(), word[1].lower()
        data += decode_base64(word[3].encode()) if word[2] in "bB" else binascii.a2b_qp(word[3].encode(), header=True)
    return "".join((*out, decode(data, charset), value[end:]))


def decode_base64(data: bytes) -> bytes:
    """Base64 as far as it can be decoded; "=" ends it (RFC 2045 6.8)."""
    data = data.partition(b"=")[0].translate(None, _NOT_BASE64)
    data = data[: len(data) - 1] if len(data) % 4 == 1 else data
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4))


def decode(data: bytes, charset: str) -> str:
    """`data` in the charset it claims; in UTF-8, else Windows-1252, where that is unknown or nothing. Never raises."""
    try:
        name = codecs.lookup(charset).name if re.fullmatch(r"[\w.:+-]{1,40}", charset) else ""
        if name and name not in _NO_CHARSETS and name != "ascii":
            return data.decode(_WIDER.get(name, name), "replace")
    except (LookupError, ValueError):  # no such charset; not one of text
        pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def spoken(count: int) -> str:
    """A size in bytes for people: 25000000 is "25 MB" (SI, as discs and mail providers count)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} bytes"
