"""What the plugins for WebDAV (RFC 4918) and CalDAV (RFC 4791) ask and hear: XML both ways, and paths."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml.ElementTree import fromstring

from bridge.connector import Http, Reply
from bridge.model import Unavailable

DAV, CAL = "{DAV:}", "{urn:ietf:params:xml:ns:caldav}"
SPACES = 'xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:O="http://owncloud.org/ns" xmlns:P="passerelle:"'
DATA = "<D:prop><C:calendar-data/></D:prop>"
MISSING = (404, 410)
LONGEST = 1000  # characters of a path
_STRANGE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|://|//|(?:^|/)\.|^/")  # "." begins what is hidden, and ".."


@dataclass(frozen=True, slots=True)
class Found:
    """One resource of an answer: its path below the url, decoded and without a "/" at its end."""

    path: str
    status: int
    props: Mapping[str, Element]  # those that it has

    def text(self, name: str) -> str:
        prop = self.props.get(name)
        return (prop.text or "").strip() if prop is not None else ""

    @property
    def version(self) -> str:
        """Another one whenever the file is another, as far as the server tells."""
        said = " ".join(self.text(f"{DAV}{name}") for name in ("getetag", "getlastmodified", "getcontentlength"))
        return sha256(said.encode("utf-8", "replace")).hexdigest()[:12]

    def day(self, name: str) -> str:
        """When that was (RFC 9110 5.6.7), for people."""
        try:
            return f"{parsedate_to_datetime(self.text(name)):%Y-%m-%d %H:%M} UTC"
        except (ValueError, OverflowError):
            return ""

    @property
    def is_hidden(self) -> bool:
        """What programs keep for themselves, and names that could not be asked for."""
        return self.path.rpartition("/")[2].startswith((".", "~")) or not self.path.isprintable() or "\\" in self.path

    def is_a(self, kind: str) -> bool:
        """Whether that is among its resource types."""
        types = self.props.get(f"{DAV}resourcetype")
        return types is not None and types.find(kind) is not None


class Dav:
    """Asks one server; paths are below its `url`, decoded."""

    def __init__(self, http: Http, url: str, *sites: str) -> None:
        self.http, self._base = http, f"{unquote(urlsplit(url).path).rstrip('/')}/"
        self._sites = [f"{site.rstrip('/')}/" for site in (*sites, url) if site]

    def named(self, text: str) -> str:
        """The path that an address, or a path itself, means; "" when it is none that could be asked for. Pure."""
        text = text.strip()
        for site in self._sites:
            if text.startswith(site):
                text = unquote(re.split("[?#]", text[len(site) :])[0])
                break
        return "" if len(text) > LONGEST or _STRANGE.search(text) else text.rstrip("/")

    def url(self, path: str) -> str:
        """Where people see it."""
        return f"{self._sites[0]}{quote(path)}"

    def href(self, path: str) -> str:
        return quote(f"{self._base}{path}")

    async def look(self, path: str, *props: str) -> Found | None:
        """One resource; None when it is not there."""
        _, found, _ = await self.ask("PROPFIND", path, _wanted(props), accept=MISSING)
        return found[0] if found and found[0].status not in MISSING else None

    async def root(self) -> Reply:
        """What the server says of the url itself, even that it is not there, or not for us."""
        return (await self.ask("PROPFIND", "", _wanted(["D:resourcetype"]), accept=(403, *MISSING)))[0]

    async def inside(self, path: str, *props: str) -> list[Found]:
        """A folder, and what is in it. Raises `Rejected` when there is no such folder."""
        return (await self.ask("PROPFIND", f"{path}/" if path else "", _wanted(props), 1))[1]

    async def tasks(self, path: str, filters: str) -> list[Found]:
        """The tasks of a list that all of these filters fit (RFC 4791 9.7.2), whole; none where there is no list."""
        inner = f'<C:comp-filter name="VCALENDAR"><C:comp-filter name="VTODO">{filters}</C:comp-filter></C:comp-filter>'
        xml = f"<C:calendar-query {SPACES}>{DATA}<C:filter>{inner}</C:filter></C:calendar-query>"
        return (await self.ask("REPORT", f"{path}/", xml, 1, MISSING))[1]

    async def these(self, path: str, inside: Collection[str]) -> list[Found]:
        """These tasks of a list, whole; those that are gone have a status that says so."""
        hrefs = "".join(f"<D:href>{escape(self.href(each))}</D:href>" for each in inside)
        xml = f"<C:calendar-multiget {SPACES}>{DATA}{hrefs}</C:calendar-multiget>"
        return (await self.ask("REPORT", f"{path}/", xml, 1))[1]

    async def since(self, path: str, token: str) -> tuple[str, list[str]]:
        """The new token, and what has changed in a list since the old one (RFC 6578); "": everything.

        The new token is "" when the server has forgotten the old one.
        """
        xml = (f"<D:sync-collection {SPACES}><D:sync-token>{escape(token)}</D:sync-token>"
               "<D:sync-level>1</D:sync-level><D:prop><D:getetag/></D:prop></D:sync-collection>")  # fmt: skip
        reply, found, new = await self.ask("REPORT", f"{path}/", xml, 0, (403, 409, 412) if token else ())
        if reply.status != 207 and b"valid-sync-token" not in reply.body:
            raise Unavailable(f"{reply.status}: the list {path} may not be read")
        if reply.status == 207 and not new:
            raise Unavailable("the server's answer has no sync-token")
        return new, [each.path for each in found if each.path.rpartition("/")[0] == path and not each.is_hidden]

    async def ask(
        self, method: str, path: str, xml: str, depth: int = 0, accept: Collection[int] = ()
    ) -> tuple[Reply, list[Found], str]:
        """The reply, what it names, and its sync-token; for a status in `accept` only the reply."""
        headers = {"Depth": str(depth), "Content-Type": "application/xml; charset=utf-8"}
        body = f'<?xml version="1.0" encoding="utf-8"?>{xml}'.encode()
        reply = await self.http.request(method, quote(path), body=body, headers=headers, accept=tuple(accept))
        if reply.status in accept:
            return reply, [], ""
        return reply, *await asyncio.to_thread(self._told, reply)  # it may be long

    def _told(self, reply: Reply) -> tuple[list[Found], str]:
        root = _read(reply)
        return [self._found(each) for each in root.findall(f"{DAV}response")], root.findtext(f"{DAV}sync-token", "")

    def _found(self, response: Element) -> Found:
        path = unquote(urlsplit(response.findtext(f"{DAV}href", "").strip()).path)
        if not f"{path}/".startswith(self._base):
            raise Unavailable(f"the tool names its resources below another path than {self._base}: see url")
        props: dict[str, Element] = {}
        for stat in response.findall(f"{DAV}propstat"):
            if _status(stat) == 200:
                props |= {prop.tag: prop for prop in stat.findall(f"{DAV}prop/*")}
        return Found(path[len(self._base) :].rstrip("/"), _status(response), props)


def _wanted(props: Collection[str]) -> str:
    return f"<D:propfind {SPACES}><D:prop>{''.join(f'<{prop}/>' for prop in props)}</D:prop></D:propfind>"


def _read(reply: Reply) -> Any:
    """The answer's XML; no DTD and no entities, so that a small answer cannot become a large one."""
    if reply.status != 207:
        raise Unavailable(f"the tool answers {reply.status} instead of 207: this is no WebDAV")
    try:
        root = fromstring(reply.body, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        raise Unavailable(f"the tool's answer is no XML that can be read: {type(error).__name__}") from None
    if root.tag != f"{DAV}multistatus":
        raise Unavailable("the tool's answer is no list of resources (RFC 4918 14.16)")
    return root


def _status(part: Element) -> int:
    found = re.match(r"HTTP/\S+ (\d{3})", part.findtext(f"{DAV}status", ""))
    return int(found[1]) if found else 200
