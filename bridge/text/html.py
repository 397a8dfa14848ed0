"""HTML of others (mail) and of employees' clients, made safe and simple, or plain text.

A linear scanner rewrites any tag soup into few tags, never more than `_DEPTH` deep, before nh3 and inscriptis see it:
50,000 nested divs take nh3 five seconds and make inscriptis return nothing. nh3 has the last word on what is safe.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterator
from typing import NamedTuple

import inscriptis
import nh3
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

from bridge.text.plain import INTERNAL_LINK, clean, text_to_html, without_internal_links

_LIMIT = 1_000_000  # characters of HTML that are parsed
_MARKS = 50_000  # of "<", ">" and "&" each; nh3 is quadratic in entities
_DEPTH = 100


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_RENAMED = {"b": "strong", "i": "em", "s": "del", "strike": "del", "ins": "u", "h5": "h4", "h6": "h4", "tt": "code"}
_RENAMED |= {"kbd": "code", "samp": "code", "tfoot": "tbody", "menu": "ul", "dir": "ul"}
_INLINE = _names("strong em u del code a sup sub")
_BLOCKS = _names("p pre ul ol li h1 h2 h3 h4 blockquote table thead tbody tr th td")
_CELLS = frozenset(("td", "th"))
_TABLE = _names("table thead tbody tr th td caption colgroup")
_KEPT = _INLINE | _BLOCKS | {"br"}
# Shown as their text, on lines of their own.
_LINES = _names(
    "div section article header footer main aside nav center address fieldset form figure "
    "figcaption dl dt dd details summary hr caption legend body"
)
_DROPPED = _names(
    "head script style title template object applet iframe svg math noframes noembed select "
    "datalist audio video canvas textarea xml"
)
_BREAKS = _LINES | _BLOCKS | {"br"}
_RAW = _names("script style title textarea iframe noembed noframes")  # what is in them is not HTML
_VOID = _names("br img hr input meta link base area col embed source track wbr param")

_TAG = re.compile(
    r"<(/?)([a-zA-Z][a-zA-Z0-9:_-]{0,40})((?:[^<>\"']++|\"[^\"<]{0,4000}\"|'[^'<]{0,4000}'|[\"'])*+)>",
)
_COMMENT_END = re.compile("-->")
_ODD = re.compile(r"<[!?][^<>]{0,4000}>")  # a declaration, or Outlook's <![if !mso]>
_ATTRIBUTE = re.compile(r"(?<![^\s\"'/])([^\s=/\"'<>]++)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))")
_HIDDEN = re.compile(r"display\s{0,9}:\s{0,9}none", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n\f]+")
_SCHEME = re.compile(r"https?://|mailto:", re.IGNORECASE)
_USER = re.compile(r"@([^\s:@]{1,200}):\S+")  # a Matrix user id
UNSEEN = " \t\r\n\f\u00a0\u200b\u200c\u200d\u034f\ufeff"

_SAFE = nh3.Cleaner(
    tags=set(_KEPT),
    attributes={"a": {"href"}},
    url_schemes={"http", "https", "mailto"},
    link_rel=None,
)
_PLAIN = ParserConfig(css=CSS_PROFILES["strict"])


class Token(NamedTuple):
    """A tag or a text of the source."""

    at: int  # where it begins in the source
    kind: str  # "text", "open" or "close"
    name: str  # of the tag, lower-cased
    data: str  # the text, or the attributes, as they stand in the source


def safe_html(html: str) -> str:
    """Foreign HTML as Matrix HTML of the tags that clients show; images become their text, links are http(s) or mailto.

    Links into Matrix lose their address, so that nobody outside makes a mention. What is hidden by its style is left
    out. HTML that is `too_complex` comes back as its escaped text.
    """
    return _safe(html) or text_to_html(stripped(html))


def html_to_text(html: str) -> str:
    """Readable plain text of foreign HTML; link addresses follow their texts. Empty only where there is no text."""
    if too_complex(html):
        return stripped(html)
    text = inscriptis.get_text(_Writer(links=True).rewrite(html), _PLAIN)
    lines = (line.rstrip() for line in text.split("\n"))
    return clean("\n".join(lines)).strip() or stripped(html)


def matrix_to_html(formatted_body: str) -> str:
    """An employee's Matrix HTML as clean HTML for a mail.

    The quote of a rich reply (`<mx-reply>`), images, links into Matrix (their text stays) and every attribute but a
    link's address are gone.
    """
    return without_internal_links(_safe(formatted_body)).strip()


def too_complex(html: str) -> bool:
    """Whether parsing `html` would take long: only its text is taken then."""
    return len(html) > _LIMIT or max(map(html.count, "<>&")) > _MARKS


def _safe(html: str) -> str:
    if too_complex(html):
        return ""
    return _SAFE.clean(_Writer().rewrite(html)).strip()


def stripped(html: str) -> str:
    """The text of HTML by removing what looks like a tag: crude, linear, and never at a loss."""
    html = clean(html[: 4 * _LIMIT])
    parts = (
        token.data if token.kind == "text" else "\n"
        for token in tokens_of(html)
        if token.kind == "text" or token.name in _BREAKS
    )
    lines = (_SPACE.sub(" ", line).strip() for line in entities.unescape("".join(parts)).split("\n"))
    return clean("\n".join(lines)).strip()


def tokens_of(html: str) -> Iterator[Token]:
    """The tags and texts of any tag soup, without comments and scripts. Linear: nothing is looked for twice in vain."""
    start = at = 0  # where the text that was not given yet begins; how far we have looked
    endless = set[str]()
    while (tag := html.find("<", at)) >= 0:
        token = None
        if found := _TAG.match(html, tag):
            token = Token(tag, "close" if found[1] else "open", found[2].lower(), found[3])
            end = found.end()
            if token.name in _RAW and token.kind == "open":
                end = _find(html, re.compile(f"</{token.name}", re.IGNORECASE), end, endless)
        elif html.startswith("<!--", tag):
            end = _find(html, _COMMENT_END, tag + 2, endless, after=True)
        elif found := _ODD.match(html, tag):
            end = found.end()
        else:  # just a "<"
            at = tag + 1
            continue
        if start < tag:
            yield Token(start, "text", "", html[start:tag])
        if token:
            yield token
        start = at = end
    if start < len(html):
        yield Token(start, "text", "", html[start:])


def _find(html: str, what: re.Pattern[str], at: int, endless: set[str], after: bool = False) -> int:
    """Where `what` stands next; `at` if nowhere, which is remembered in `endless` and not looked for again."""
    found = None if what.pattern in endless else what.search(html, at)
    if found is None:
        endless.add(what.pattern)
        return at + 2 if after else at
    return found.end() if after else found.start()


def closers_of(tokens: list[Token]) -> dict[int, int]:
    """Index of an opening tag → index of the tag that closes it, for those that are closed."""
    opened: dict[str, list[int]] = {}
    closers: dict[int, int] = {}
    for i, token in enumerate(tokens):
        if token.kind == "open" and token.name not in _VOID:
            opened.setdefault(token.name, []).append(i)
        elif token.kind == "close" and opened.get(token.name):
            closers[opened[token.name].pop()] = i
    return closers


def left_out(token: Token) -> bool:
    """Whether this tag opens something that is never shown: a script, a title, what its style hides."""
    hidden = "none" in token.data and _HIDDEN.search(token.data) is not None
    return token.name in _DROPPED or (hidden and token.name not in _VOID)


def _attributes(token: Token) -> dict[str, str]:
    """Attributes by lower-cased name; the first of a name counts, as in a browser."""
    found = _ATTRIBUTE.finditer(token.data[:8000])
    pairs = [(m[1].lower(), clean(entities.unescape(m[2] or m[3] or m[4] or ""))) for m in found]
    return dict(reversed(pairs))


def _href(token: Token) -> str:
    """The address of a link, of a scheme that is known, or ""."""
    href = re.sub(r"\s", "", _attributes(token).get("href", ""))
    return href if len(href) <= 4000 and (_SCHEME.match(href) or INTERNAL_LINK.match(href)) else ""


def _data_tables(tokens: list[Token]) -> set[int]:
    """The tables that hold data: two rows and columns at least and no table inside; others only place things."""
    found: set[int] = set()
    opened: list[_Table] = []
    for i, token in enumerate(tokens):
        if token.name == "table" and token.kind == "open":
            if opened:
                opened[-1].outer = True
            opened.append(_Table(i, outer="presentation" in token.data))
        elif token.name == "table" and opened and token.kind == "close":
            table = opened.pop()
            if not table.outer and table.rows > 1 and table.columns > 1:
                found.add(table.at)
        elif opened and token.kind == "open":
            opened[-1].count(token.name)
    return found


class _Table:
    """A table as it is being counted."""

    def __init__(self, at: int, outer: bool) -> None:
        self.at, self.outer = at, outer
        self.rows = self.columns = self.cells = 0

    def count(self, name: str) -> None:
        if name == "tr":
            self.rows, self.cells = self.rows + 1, 0
        elif name in _CELLS:
            self.cells += 1
            self.columns = max(self.columns, self.cells)


class _Writer:
    """Writes tokens as balanced HTML of few tags and bounded depth; `links` puts addresses after the texts of links."""

    def __init__(self, links: bool = False) -> None:
        self.links = links
        self.out: list[str] = []
        self.stack: list[str] = []
        self.ignored: dict[str, int] = {}  # opening tags left out, whose closing tags are to be left out too
        self.tables: list[bool] = []  # of the tables we are in: whether it is kept
        self.fresh = True  # nothing stands on this line yet
        self.due = False  # a line ended; the break is written when something follows
        self.link: tuple[str, int] | None = None  # address, and where its text begins in `out`
        self.pill = False

    def rewrite(self, html: str) -> str:
        tokens = list(tokens_of(clean(html)))
        closers, kept = closers_of(tokens), _data_tables(tokens)
        i = 0
        while i < len(tokens):
            token = tokens[i]
            if token.kind == "text":
                self.text(entities.unescape(token.data))
            elif token.kind == "close":
                self.close(token.name)
            elif token.name == "mx-reply":  # internal words: without an end, everything after it is
                i = closers.get(i, len(tokens))
            elif left_out(token):
                i = closers.get(i, i)
            else:
                self.open(token, i in kept)
            i += 1
        while self.stack:
            self.pop()
        return "".join(self.out)

    def text(self, text: str) -> None:
        text = clean(text)
        if "pre" not in self.stack:
            text = _SPACE.sub(" ", text)
            if self.fresh or self.due:
                text = text.lstrip(" ")
                if not text.strip(UNSEEN):
                    return
        if self.pill and (user := _USER.fullmatch(text.strip())):
            text = user[1]
        if self.due:
            self.out.append("<br>")
        self.out.append(entities.escape(text, quote=False))
        self.fresh = self.due = False

    def open(self, token: Token, kept_table: bool) -> None:
        name = _RENAMED.get(token.name, token.name)
        if name == "table":
            self.tables.append(kept_table)
        if name in _TABLE and not (self.tables and self.tables[-1]):
            self.cell() if name in _CELLS else self.line()
        elif name == "br":
            self.br()
        elif name == "img":
            self.text(_attributes(token).get("alt", ""))
        elif name in _INLINE:
            self.inline(name, token)
        elif name in _BLOCKS:
            self.block(name)
        elif name in _LINES:
            self.line()

    def close(self, name: str) -> None:
        name = _RENAMED.get(name, name)
        kept = bool(self.tables and self.tables[-1])
        if name == "table" and self.tables:
            self.tables.pop()
        self.pill = self.pill and name != "a"
        if self.ignored.get(name):
            self.ignored[name] -= 1
        elif name in _TABLE and not kept:
            self.due = self.due or not (self.fresh or name in _CELLS)
        elif not (name in _KEPT and self.pop_to(name)) and name in _BREAKS:
            self.line()

    def inline(self, name: str, token: Token) -> None:
        href = _href(token) if name == "a" else ""
        self.pill = INTERNAL_LINK.match(href) is not None
        useless = name == "a" and (self.pill or not href)
        if useless or name in self.stack or len(self.stack) >= _DEPTH:
            self.ignored[name] = self.ignored.get(name, 0) + 1
            return
        self.stack.append(name)
        self.out.append(f'<a href="{entities.escape(href)}">' if href else f"<{name}>")
        if href:
            self.link = href, len(self.out)

    def block(self, name: str) -> None:
        self.imply_ends(name)
        if len(self.stack) >= _DEPTH:
            self.ignored[name] = self.ignored.get(name, 0) + 1
            self.line()
            return
        self.stack.append(name)
        self.out.append(f"<{name}>")
        self.fresh, self.due = True, False

    def imply_ends(self, name: str) -> None:
        """Close what the opening of a block closes (HTML 13.1.2.4), so that old HTML does not count as deep."""
        if name in ("td", "th"):
            self.pop_to("td", "th", within=("tr", "table"))
        elif name in ("tr", "thead", "tbody"):
            self.pop_to("tr", name, within=("table",))
        elif name == "li":
            self.pop_to("li", within=("ul", "ol", "table", "blockquote"))
        else:
            self.pop_to("p", within=("li", "td", "th", "table", "blockquote"))

    def pop_to(self, *names: str, within: tuple[str, ...] | None = None) -> bool:
        """Close the innermost of the open `names`, and all in it, but nothing beyond the borders `within`.

        Whether one was open.
        """
        if within is None:
            within = ("table",) if names[0] in _TABLE else ("td", "th", "table")
        for depth in range(len(self.stack) - 1, -1, -1):
            if self.stack[depth] in names:
                while len(self.stack) > depth:
                    self.pop()
                return True
            if self.stack[depth] in within:
                break
        return False

    def pop(self) -> None:
        name = self.stack.pop()
        if name in _INLINE:
            self.end_inline(name)
            return
        while self.out[-1] == "<br>":
            self.out.pop()
        if self.out[-1] == f"<{name}>" and name not in _CELLS:
            self.out.pop()
        else:
            self.out.append(f"</{name}>")
        self.fresh, self.due = True, False

    def end_inline(self, name: str) -> None:
        if self.out[-1] == f"<{name}>" or (name == "a" and self.out[-1].startswith("<a ")):
            self.out.pop()
            return
        if name == "a" and self.link and self.links:
            href, start = self.link
            said = entities.unescape("".join(self.out[start:]))
            if href.startswith("http") and len(href) <= 200 and href.rstrip("/") not in said:
                self.out.append(f" ({entities.escape(href)})")
        self.out.append(f"</{name}>")

    def line(self) -> None:
        self.due = self.due or not self.fresh

    def cell(self) -> None:
        if not (self.fresh or self.due):
            self.out.append(" ")

    def br(self) -> None:
        if self.due:
            self.out.append("<br>")
        if self.out and self.out[-3:] != ["<br>"] * 3:
            self.out.append("<br>")
        self.fresh, self.due = True, False
