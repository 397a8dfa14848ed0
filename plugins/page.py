"""Any web page (Open Graph, oEmbed): a link that nobody else knows gets a plain card. A page is only looked at."""

from __future__ import annotations

import asyncio
import codecs
import html
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urljoin, urlsplit
from weakref import WeakValueDictionary

from pydantic import Field
from pydantic.networks import IPvAnyNetwork

from bridge import model
from bridge.connector import Connector, ConnectorConfig, Port, Reply
from bridge.model import Card, Rejected
from bridge.text import one_line
from bridge.text.plain import INTERNAL_LINK, decode

HTML, OEMBED = ("text/html", "application/xhtml+xml"), ("application/json", "application/json+oembed")
KEPT, MOST_KEPT = 300.0, 256  # seconds in which a page is not asked again; pages
TITLE, WORDS, RAW = 200, 240, 4000  # characters of a title, of a description; of either as it is in the page
LARGEST, MOST_TAGS, MOST_ATTRIBUTES = 8192, 2000, 20  # characters of a tag; tags of a head; attributes of a tag

# A page is hostile: it is never built as a tree, only walked through once, tag by tag, up to its body.
_TAG = re.compile(r"<(!--|(?:script|style|title|meta|link|body)(?=[\s/>]))", re.IGNORECASE | re.ASCII)
_END = re.compile(r"""(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
_ATTRIBUTE = re.compile(r"""([^\s"'<>/=]++)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'>]++)))?+""", re.ASCII)
_AFTER = {each: re.compile(rf"</{each}", re.IGNORECASE | re.ASCII) for each in ("script", "style", "title")}
_AFTER["!--"] = re.compile("-->")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:+-]{1,40})", re.IGNORECASE)
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
# What is not seen: soft hyphens, marks of direction, what has no width. Joiners stay: some scripts need them.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]+"
)


class Head(NamedTuple):
    """What the head of a page says: its title, its meta tags by name, and where its oEmbed is ("": nowhere)."""

    title: str
    said: Mapping[str, str]
    oembed: str


class Page(Connector):
    class Config(ConnectorConfig):
        hosts: tuple[str, ...] = Field(("*",), min_length=1, description="Patterns of the hosts that are looked at")
        ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
            (80, 443), description="Ports that may be asked"
        )
        networks: tuple[IPvAnyNetwork, ...] = Field((), description="Private networks that are looked at all the same")
        seconds: float = Field(10, gt=0, le=60, description="How long one page may take, with all its redirects")
        ca_file: Path | None = Field(None, description="PEM file of an authority to trust besides the system's")

    last = True

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.scope = "web"
        self.web = port.web(
            config.hosts, ports=config.ports, networks=config.networks, seconds=config.seconds, ca_file=config.ca_file
        )
        self._kept = OrderedDict[str, tuple[float, Card | str]]()  # until when; a string says why there is no card
        self._asked = WeakValueDictionary[str, asyncio.Lock]()

    def match(self, text: str) -> str:
        return "" if INTERNAL_LINK.match(text) else self.web.address(text)

    def audience(self, scope: str, item: str, answered: model.Answered | None) -> model.Recipients:
        raise Rejected("nothing can be sent to a page")

    async def fetch(self, item: str) -> Card:
        """The same page is asked once in five minutes, in however many rooms it is linked."""
        async with self._asked.setdefault(item, asyncio.Lock()):
            until, found = self._kept.pop(item, (0.0, ""))
            if until < time.monotonic():
                until, found = time.monotonic() + KEPT, await self._looked(item)
            self._kept[item] = until, found
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        if isinstance(found, str):
            raise Rejected(found)
        return found

    async def _looked(self, url: str) -> Card | str:
        try:
            reply = await self.web.get(url, HTML)
            head = read(text_of(reply))
            more = await self._embedded(reply.url, head.oembed)
        except Rejected as error:
            return str(error)
        return card(url, reply.url, head, more) or "the page does not say what it is"

    async def _embedded(self, page: str, place: str) -> Mapping[str, str]:
        """What the page's oEmbed says (oembed.com 2.3.4), as far as it is text."""
        try:
            said = json.loads((await self.web.get(urljoin(page, place), OEMBED)).body) if place else {}
        except (Rejected, ValueError, RecursionError):
            return {}
        return {key: value for key, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}


def card(url: str, found: str, head: Head, more: Mapping[str, str]) -> Card | None:
    """The card of the page linked as `url` and found at `found`; None when it says nothing of itself."""
    title = _first((head.said.get("og:title"), more.get("title"), head.said.get("twitter:title"), head.title), TITLE)
    about = _first(map(head.said.get, ("og:description", "description", "twitter:description")), WORDS)
    site = _first((head.said.get("og:site_name"), more.get("provider_name")), 80)
    by = _first((more.get("author_name"), head.said.get("author")), 80)
    host = urlsplit(found).hostname or ""  # a page may call itself anything: where it is, is always shown
    fields = (("site", f"{site} ({host})" if site else host), ("by", by), ("about", about))
    shown = tuple((label, value) for label, value in fields if value)
    return Card(url, "", title or host, url, shown, scope="web") if title or about else None


def _first(texts: Iterator[str | None] | tuple[str | None, ...], most: int) -> str:
    """The first that says anything, as people may see it."""
    for text in texts:
        line = one_line(_UNSEEN.sub("", html.unescape((text or "")[:RAW])))
        if line:
            return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"
    return ""


def text_of(reply: Reply) -> str:
    """The page as text: in the charset of its first bytes, of its header, or of its own meta tag (HTML 13.2.3.2)."""
    marked = next((name for mark, name in _MARKS if reply.body.startswith(mark)), "")
    told = re.search(r"charset\s*=\s*[\"']?([\w.:+-]{1,40})", reply.headers.get("content-type", ""), re.IGNORECASE)
    meant = _CHARSET.search(reply.body[:1024])
    return decode(reply.body, marked or (told[1] if told else meant[1].decode() if meant else _guessed(reply.body)))


def _guessed(body: bytes) -> str:
    """UTF-8, unless it cannot be; its last letter may be cut in two."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def read(text: str) -> Head:
    """The head of a page. It takes a tenth of a second at most, whatever is in it."""
    title, said, oembed = "", dict[str, str](), ""
    for name, inside in _tags(text):
        if name == "title":
            title = title or inside
            continue
        found = {
            each[1].lower(): each[2] or each[3] or each[4] or ""
            for each in islice(_ATTRIBUTE.finditer(inside), MOST_ATTRIBUTES)
        }
        if name == "meta":
            said.setdefault((found.get("property") or found.get("name") or "").lower(), found.get("content", ""))
        elif found.get("type", "").lower() in OEMBED and not oembed:
            oembed = html.unescape(found.get("href", ""))
    return Head(title, said, oembed)


def _tags(text: str) -> Iterator[tuple[str, str]]:
    """Each title with its text, each meta and link with its attributes; comments and programs are left out."""
    at = 0
    for _ in range(MOST_TAGS):
        tag = _TAG.search(text, at)
        if tag is None or tag[1].lower() == "body":
            return
        name, at = tag[1].lower(), tag.end()
        if name != "!--":
            end = _END.match(text, at, at + LARGEST)
            stop = end.end() if end else text.find(">", at, at + LARGEST) + 1  # a quote that nobody closes
            if not stop:
                return
            if name in ("meta", "link"):
                yield name, text[at : stop - 1]
            at = stop
        if name in _AFTER:
            after = _AFTER[name].search(text, at)
            if after is None:
                return
            if name == "title":
                yield name, text[at : min(after.start(), at + RAW)]
            at = after.end()
