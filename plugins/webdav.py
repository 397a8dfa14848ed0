"""Documents in folders of a WebDAV server (RFC 4918): changes are seen by looking, what is saved is there whole."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from xml.sax.saxutils import escape

from pydantic import Field

from bridge.connector import Port, ServerConfig, doubt
from bridge.model import Author, Card, Delivery, Draft, Envelope, File, Page, Rejected, Sent, Unconfirmed
from bridge.text import clean, one_line
from bridge.text.plain import spoken
from plugins.dav import DAV, SPACES, Found
from plugins.dav_server import Server

FOLDERS = 2000  # in one scope
OWN, MARK = "{http://owncloud.org/ns}", "{passerelle:}mark"
PROPS = (
    "D:resourcetype", "D:getetag", "D:getlastmodified", "D:getcontentlength", "D:getcontenttype",
    "D:creator-displayname", "O:owner-display-name", "O:fileid", "P:mark",
)  # fmt: skip
Versions = dict[str, str]  # by path of a file
Folders = dict[str, Any]  # by path: its ETag, where that covers all below it, and the version of each file by name


class WebDav(Server):
    kind = "folder"

    class Config(ServerConfig):
        every: float = Field(60, ge=1, description="Seconds between two looks for what is new")

    command, usage, reaction, many = "doc", "[title]", "📄", True
    filters: ClassVar[Mapping[str, str]] = {"type": "its media type", "folder": "the folder it is in"}

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self._took = 0.0
        self._known: dict[str, Versions] = {}  # by scope: what the last look saw

    async def offers(self) -> list[str]:
        found = await self.dav.inside("", "D:resourcetype")
        return [each.path for each in found if each.path and each.is_a(f"{DAV}collection") and not each.is_hidden]

    async def wait(self) -> None:
        """A look that takes long is made less often: nine tenths of the time the server has for others."""
        await asyncio.sleep(max(self.every, 9 * self._took))

    async def poll(self, cursor: str) -> Page:
        began = time.monotonic()
        page = await super().poll(cursor)
        self._took = time.monotonic() - began
        return page

    async def news(self, scope: str, at: Folders | None) -> tuple[Folders, list[Envelope], bool]:
        now, seen = await self._walk(scope, at or {})
        self._known[scope] = _files(now)
        return now, self._told(scope, _files(at), self._known[scope], seen) if at else [], False

    async def _walk(self, scope: str, old: Folders) -> tuple[Folders, dict[str, Found]]:
        """All folders, and the files of those that were looked into."""
        now, seen, waiting = Folders(), dict[str, Found](), [(scope, "")]
        while waiting:
            folder, etag = waiting.pop()
            if len(now) >= FOLDERS:
                raise Rejected(f"it has more than {FOLDERS} folders: map those inside it that matter")
            now[folder] = [etag, {}]
            for each in await self.dav.inside(folder, *PROPS):
                if each.path == folder or each.is_hidden or each.path.rpartition("/")[0] != folder:
                    continue
                if not each.is_a(f"{DAV}collection"):
                    now[folder][1][each.path.rpartition("/")[2]] = each.version
                    seen[each.path] = each
                    continue
                deep = each.text(f"{DAV}getetag") if each.text(f"{OWN}fileid") else ""
                if deep and old.get(each.path, [""])[0] == deep:  # nothing below it has changed
                    now |= {path: kept for path, kept in old.items() if f"{path}/".startswith(f"{each.path}/")}
                elif each.path not in now:
                    waiting.append((each.path, deep))
        return now, seen

    def _told(self, scope: str, old: Versions, now: Versions, seen: Mapping[str, Found]) -> list[Envelope]:
        fresh = {version: path for path, version in now.items() if path not in old}
        told = []
        for path in sorted(old.keys() - now.keys()):
            to = fresh.get(old[path], "")
            name, moved = path.rpartition("/")[2], (("state", f"moved to {to}"),) if to else ()
            card = Card(path, path, name, self.dav.url(to or path), moved, scope, gone=not to)
            told.append(self._envelope(f"gone {old[path]}", card))
        for path in sorted(path for path, version in now.items() if old.get(path) != version):
            each, key = seen[path], f"{old.get(path, '')} {now[path]}"
            ours = self.is_mark(each.text(MARK).partition(" ")[0])
            envelope = self._envelope(key, self._card(each))
            told.append(replace(envelope, begins=path not in old and not ours))
        return told

    def _envelope(self, key: str, card: Card) -> Envelope:
        path, nobody = card.item, Author(self.name, "")  # who has changed it, the server does not say
        scopes, facts, key = self._around(path), (("folder", path.rpartition("/")[0]),), f"{path} {key} {self.turn}"
        return Envelope(self.name, scopes, key, key, nobody, time.time(), card.title, item=path, card=card, facts=facts)

    def _around(self, path: str) -> tuple[str, ...]:
        """The folders that it is in and rooms are mapped to, the innermost first."""
        return tuple(sorted((each for each in self.port.scopes() if path.startswith(f"{each}/")), key=len)[::-1])

    def _card(self, found: Found) -> Card:
        size, who = found.text(f"{DAV}getcontentlength"), f"{OWN}owner-display-name"
        fields = (
            ("type", one_line(found.text(f"{DAV}getcontenttype")).partition(";")[0]),
            ("size", spoken(int(size)) if size.isdecimal() and len(size) < 16 else ""),
            ("changed", found.day(f"{DAV}getlastmodified")),
            ("by", one_line(found.text(who) or found.text(f"{DAV}creator-displayname"))),
        )
        scope = next(iter(self._around(found.path)), found.path.partition("/")[0])
        return Card(found.path, found.path, found.path.rpartition("/")[2], self.dav.url(found.path), fields, scope)

    def match(self, text: str) -> str:
        path = self.dav.named(text)
        return path if path and ("://" in text or self._around(path)) else ""

    async def fetch(self, item: str) -> Card:
        if (found := await self.dav.look(item, *PROPS)) is None or found.is_a(f"{DAV}collection"):
            raise await self.gone(f"file {item}")
        return self._card(found)

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        """By path, among what the last look saw; those first whose name alone has all the words."""
        wanted, paths = clean(words).casefold().split(), set[str]()
        for scope in scopes:
            if not await self.is_there(scope):
                await self.alive()
                continue
            if scope not in self._known:
                self._known[scope] = _files((await self._walk(scope, {}))[0])
            paths |= {path for path in self._known.get(scope, ()) if _has(path, wanted)}
        likeliest = sorted(paths, key=lambda path: (not _has(path.rpartition("/")[2], wanted), path))[:10]
        found = [await self.dav.look(path, *PROPS) for path in likeliest]
        return [self._card(each) for each in found if each]

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        """The files of the draft, else its words as a text file."""
        files: Sequence[File] = draft.files
        if not files:
            text = draft.plain.encode("utf-8", "replace")
            files = [await self.port.spool.keep(f"{draft.heading[:100]}.txt", "text/plain", text)]
        mark = self.mark(delivery.uid)
        saved = [await self._save(draft, file, f"{mark} {n}", delivery.again) for n, file in enumerate(files)]
        with doubt():
            return Sent(mark, card=await self.fetch(saved[0]))

    async def _save(self, draft: Draft, file: File, mark: str, again: bool) -> str:
        """Written aside and marked, then moved to the first name that is free: it is never seen in part."""
        stem, suffix = re.fullmatch(r"(.*?)(\.\w{1,8})?", _harmless(file.name)).groups("")  # type: ignore[union-attr]
        names = [f"{draft.scope}/{stem}{f' ({n})' if n > 1 else ''}{suffix}" for n in range(1, 100)]
        for path in names if again else ():
            if (there := await self.dav.look(path, *PROPS)) is None:
                break
            if there.text(MARK) == mark or await self._same(there, file):
                return path
        aside = f"{draft.scope}/.{mark.replace(' ', '.')}"
        await self.written("PUT", aside, file, {})
        values = f"<P:mark>{escape(mark)}</P:mark><P:link>{escape(draft.link)}</P:link>"
        xml = f"<D:propertyupdate {SPACES}><D:set><D:prop>{values}</D:prop></D:set></D:propertyupdate>"
        await self.dav.ask("PROPPATCH", aside, xml, accept=(403, 405, 409, 501))  # some servers keep no such properties
        for path in names:
            headers = {"Destination": self.dav.href(path), "Overwrite": "F"}
            reply = await self.http.request("MOVE", self.dav.href(aside), headers=headers, accept=(404, 412))
            if reply.status != 412:
                break
        else:
            raise Rejected(f"there are {len(names)} files called {stem}{suffix} already")
        with doubt():
            there = await self.dav.look(path, *PROPS)
        if there is None or there.text(f"{DAV}getcontentlength") != str(file.size):
            raise Unconfirmed(f"the server answers {reply.status}, and {path} is not there as it was sent")
        return path

    async def _same(self, there: Found, file: File) -> bool:
        """Whether an earlier attempt has saved it, on a server that keeps no marks."""
        if there.text(MARK) or there.text(f"{DAV}getcontentlength") != str(file.size):
            return False
        kept = await self.http.download(self.dav.href(there.path), file.name, file.type)
        return bool(kept.hash) and kept.hash == file.hash

    async def is_there(self, scope: str) -> bool:
        found = await self.dav.look(scope, "D:resourcetype")
        return found is not None and found.is_a(f"{DAV}collection")


def _files(folders: Folders) -> Versions:
    return {f"{folder}/{name}": version for folder, (_, names) in folders.items() for name, version in names.items()}


def _has(path: str, words: Sequence[str]) -> bool:
    return bool(words) and all(word in path.casefold() for word in words)


def _harmless(name: str) -> str:
    """A name that every system takes."""
    return re.sub(r'[/\\:*?"<>|]', "_", one_line(clean(name))).lstrip(".~ ").rstrip(". ")[:150] or "file"
