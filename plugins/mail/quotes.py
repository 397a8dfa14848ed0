"""What a mail quotes at its end, plain or HTML: where it begins, and the mail without it; flowed text joined."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Sequence

from bridge.text.html import UNSEEN, Token, closers_of, left_out, stripped, tokens_of, too_complex

_MOST = 20_000  # lines that are examined
_LONGEST = 400  # characters of a line (or of an attribution broken over lines) that are examined at all

# "On … wrote:" as the usual clients write it, in one piece.
_ATTRIBUTION = re.compile(
    r"(?:On|Le|Am|Op|Il|El|Em|Den|Dnia|W dniu)\b.{4,300}?"
    r"\b(?:wrote|a écrit|schrieb|schreef|ha scritto|escribió|escreveu|skrev|napisał(?:\(a\))?)\b.{0,80}?\s?:"
    r"|(?:[\w'’.-]{1,40} ){1,4}(?:[<(\[]\S{3,80}[>)\]] ?)?(?:wrote|a écrit|schrieb)\s?:",
    re.IGNORECASE,
)
_OPENING = re.compile(r"(?:On|Le|Am|Op|Il|El|Em|Den|Dnia|W dniu)\b", re.IGNORECASE)
_ORIGINAL = re.compile(
    r"\s*-{2,}\s*(?:Original (?:Message|Appointment)|Message d['’]origine|Message original|E-mail d['’]origine"
    r"|(?:Urspr(?:ü|ue)ngliche|Original)[- ]Nachricht|Mensaje original|Messaggio originale|Mensagem original"
    r"|Oorspronkelijk bericht)\s*-{2,}\s*",
    re.IGNORECASE,
)
_FORWARDED = re.compile(
    r"^[\s*]{0,9}(?:-{2,}[ \t]*(?:Forwarded (?:message|by)|Message transf[ée]r[ée]|Message r[ée]exp[ée]di[ée]"
    r"|Weitergeleitete (?:Nachricht|Mail)|Mensaje reenviado|Messaggio inoltrato|Mensagem encaminhada"
    r"|Doorgestuurd bericht)"
    r"|Begin forwarded message|D[ée]but du message (?:transf[ée]r[ée]|r[ée]exp[ée]di[ée])"
    r"|Anfang der weitergeleiteten Nachricht|Inicio del mensaje reenviado|Inizio messaggio inoltrato)",
    re.IGNORECASE | re.MULTILINE,
)
_FROM = re.compile(r"[\s*]{0,9}(?:From|De|Von|Da|Van)\s?:", re.IGNORECASE)
_DATE = re.compile(
    r"[\s*]{0,9}(?:Sent|Date|Envoyé(?: le)?|Gesendet|Datum|Enviado|Fecha|Inviato|Data|Verzonden)\s?:", re.IGNORECASE
)
_TO = re.compile(r"[\s*]{0,9}(?:To|À|An|Para|A|Aan)\s?:", re.IGNORECASE)
_TIME = re.compile(r"\d[:.h]\d\d|\b(?:19|20)\d\d\b")
_RULE = re.compile(r"\s{0,9}_{10,}\s*")

# The marks that clients leave in HTML.
_QUOTE = re.compile(
    r"(?<![\w-])(?:gmail_quote(?:_container)?|yahoo_quoted|protonmail_quote|tutanota_quote|moz-cite-prefix)(?![\w-])"
)
_CITED = re.compile(r"(?<![\w-])type\s{0,9}=\s{0,9}[\"']?cite(?![\w-])", re.IGNORECASE)
_YAHOO = re.compile(r"(?<![\w-])yahoo_quoted(?![\w-])")
# After these marks everything is quoted.
_REST = re.compile(
    r"(?<![\w-])(?:divRplyFwdMsg|appendonsend|OutlookMessageHeader|stopSpelling|mail-editor-reference-message-container"
    r"|ms-outlook-mobile-reference-message)(?![\w-])"
)
# Without any of these there is nothing to look for.
_HINT = re.compile(
    r"quote|cite|divRplyFwdMsg|appendonsend|OutlookMessageHeader|stopSpelling|reference-message|--|__"
    r"|\b(?:From|De|Von|Da|Van)\b",
    re.IGNORECASE,
)


def attribution(text: str) -> bool:
    """Whether `text`, a line or an attribution joined from several, says who wrote what follows."""
    return len(text) <= _LONGEST and text.rstrip().endswith(":") and _ATTRIBUTION.fullmatch(text.strip()) is not None


def forwarded(text: str) -> bool:
    """Whether a line of `text` announces a forwarded message, which is content."""
    return _FORWARDED.search(text) is not None


def original(lines: Sequence[str], at: int) -> bool:
    """Whether an unmarked copy of the message that is answered begins at `lines[at]`, as Outlook and others quote."""
    line = lines[at]
    if len(line) > _LONGEST:
        return False
    if line[:1] == "_" or line[:2] == " _":
        return _RULE.fullmatch(line) is not None and any(
            _header_block(lines, i) for i in range(at + 1, min(at + 4, len(lines)))
        )
    return ("--" in line and _ORIGINAL.fullmatch(line) is not None) or _header_block(lines, at)


def _header_block(lines: Sequence[str], at: int) -> bool:
    """Whether the header of an answered mail stands here: "From:", then a date and a recipient.

    A subject alone is not enough: the fields of a contact form are no quote.
    """
    if not _FROM.match(lines[at][:_LONGEST]):
        return False
    following = [line[:_LONGEST] for line in lines[at + 1 : at + 11]]
    return all(any(map(field.match, following)) for field in (_DATE, _TO))


def fold(text: str) -> tuple[str, int]:
    """`text` without the quoted part at its end, and the number of lines with text in that part.

    Answers between quotes keep everything, and so does a forwarded message; a text is never folded to nothing. Linear.
    """
    lines = text.split("\n")
    cut = _cut(lines)
    if cut is None:
        return text, 0
    kept = "\n".join(lines[:cut]).rstrip()
    if not kept.strip() or forwarded(kept) or forwarded(lines[cut].lstrip("> ")):
        return text, 0
    return kept, sum(1 for line in lines[cut:] if line.strip())


def _cut(lines: list[str]) -> int | None:
    """The index of the first line of the quoted part, or None."""
    end = len(lines)
    first_mark = next((i for i, line in enumerate(lines) if line.startswith(">")), end)
    last_plain = next((i for i in range(end - 1, -1, -1) if lines[i].strip() and not lines[i].startswith(">")), -1)
    for at, line in enumerate(lines[:_MOST]):
        if line[:1] == ">" or not (":" in line or "--" in line or "__" in line):
            continue
        if original(lines, at):
            return at
        if line.rstrip()[-1:] == ":" and (at == last_plain or first_mark == end):
            start = _attribution_start(lines, at, dated=first_mark == end)
            if start is not None:
                return start
    return first_mark if last_plain < first_mark < end else None


def _attribution_start(lines: list[str], at: int, dated: bool) -> int | None:
    """Where the attribution that ends at line `at` begins, if one does: clients break it over up to four lines.

    `dated`: only one with a date or time counts, because nothing marks the quote that follows it.
    """
    for start in range(at, max(at - 4, -1), -1):
        said = " ".join(lines[start : at + 1])
        if not lines[start].strip() or len(said) > _LONGEST:
            break
        if _OPENING.match(lines[start].lstrip()) and attribution(said) and (_TIME.search(said) or not dated):
            return start
    return at if not dated and attribution(lines[at]) else None


def fold_html(html: str) -> tuple[str, int]:
    """HTML without the quoted part at its end, and the number of lines with text in that part.

    Known by the marks that the usual clients leave. Text after or between quotes keeps everything, and so does a
    forwarded message; nothing is ever folded to nothing.
    """
    if not _HINT.search(html) or too_complex(html):
        return html, 0
    tokens = list(tokens_of(html))
    cut = _cut_html(tokens)
    if cut is None:
        return html, 0
    before = "\n".join(_texts(tokens[:cut]))
    after = [text for text in _texts(tokens[cut:]) if text]
    if not before.strip() or forwarded(before) or forwarded("".join(after[:1])):
        return html, 0
    kept, left = html[: tokens[cut].at], html[tokens[cut].at :]
    return kept, sum(1 for line in stripped(left).split("\n") if line.strip())


def _visible(token: Token) -> str:
    return " ".join(entities.unescape(token.data).split()).strip(UNSEEN) if token.kind == "text" else ""


def _texts(tokens: list[Token]) -> list[str]:
    return [text for token in tokens if (text := _visible(token))]


def _is_quote(token: Token) -> bool:
    cited = token.name == "blockquote" and _CITED.search(token.data) is not None
    return cited or _QUOTE.search(token.data) is not None


def _cut_html(tokens: list[Token]) -> int | None:
    """The index of the token where the quoted part at the end begins, or None."""
    closers = closers_of(tokens)
    places = [i for i, token in enumerate(tokens) if _visible(token)]
    lines = [_visible(tokens[i]) for i in places]
    number = {place: n for n, place in enumerate(places)}
    answered = False
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if token.kind == "open":
            if _REST.search(token.data):
                return i
            if _is_quote(token):
                if not answered and _at_end(tokens, closers, i):
                    return _with_attribution(tokens, i)
                answered = True
                i = closers.get(i, i) if token.name == "blockquote" else i
            elif left_out(token):
                i = closers.get(i, i)
        elif i in number and original(lines, number[i]):
            return i
        i += 1
    return None


def _at_end(tokens: list[Token], closers: dict[int, int], at: int) -> bool:
    """Whether no text of the author follows the quote at `at`, nor stands between the quotes inside it."""
    end = closers.get(at, len(tokens))
    whole = tokens[at].name == "blockquote" or _YAHOO.search(tokens[at].data) is not None
    i, seen = (end if whole else at) + 1, False
    while i < len(tokens):
        token = tokens[i]
        if token.kind == "open":
            if _REST.search(token.data):
                return True
            quote = _is_quote(token) or (token.name == "blockquote" and i < end)
            seen = seen or quote
            if quote or left_out(token):
                i = closers.get(i, len(tokens) if quote else i)
        elif (i > end or seen) and _visible(token):
            return False
        i += 1
    return True


def _with_attribution(tokens: list[Token], at: int) -> int:
    """`at`, or where the "On … wrote:" before the quote begins: up to six texts, together one attribution."""
    said: list[str] = []
    for i in range(at - 1, max(at - 40, -1), -1):
        if text := _visible(tokens[i]):
            said.insert(0, text)
            if attribution(" ".join(said)):
                return i
            if len(said) == 6:
                break
    return at


def unflow(text: str, delsp: bool = False) -> str:
    """Text of `format=flowed` with its paragraphs on one line each (RFC 3676 4.1, 4.2); quote marks stay."""
    paragraphs: list[tuple[int, list[str]]] = []
    flowing = False
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        if not (flowing and paragraphs[-1][0] == depth):
            paragraphs.append((depth, []))
        flowing = content.endswith(" ") and content != "-- "  # a signature's separator never flows
        paragraphs[-1][1].append(content[:-1] if flowing and delsp else content)
    return "\n".join((">" * depth + " " if depth else "") + "".join(parts) for depth, parts in paragraphs)
