"""Tasks (VTODO, RFC 5545) on a CalDAV server (RFC 4791): lists are asked what has changed by sync-token (RFC 6578)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar
from xml.sax.saxutils import escape

from pydantic import Field

from bridge import model
from bridge.connector import Port, ServerConfig, doubt
from bridge.model import Author, Card, Delivery, Draft, Envelope, Rejected, Sent, Unavailable, Unconfirmed
from bridge.text import clean, one_line
from plugins import vtodo
from plugins.dav import CAL, DAV, MISSING, Found
from plugins.dav_server import Server

PAGE = 20  # tasks asked for at once
EARLIER = 600.0  # what was made so shortly before we began counts as new: clients' clocks differ
MOST = 50  # tasks of a list that are read of those that one word has found


class CalDav(Server):
    kind = "list"

    class Config(ServerConfig):
        domain: str = Field("", pattern=r"^[^@\s]*$", description="Domain of assignees that are named without one")

    command, usage, reaction = "task", "[title]", "📌"
    filters: ClassVar[Mapping[str, str]] = {"state": "its state", "assigned-to": "whom it is assigned to"}
    words: ClassVar[Mapping[str, str]] = {
        "due": "friday (2026-12-01, +3d, -)", "state": "done", "assign-item": "alice@company.example (or me, -)",
    }  # fmt: skip

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.domain = config.domain

    async def offers(self) -> list[str]:
        found = await self.dav.inside("", "D:resourcetype", "C:supported-calendar-component-set")
        return [each.path for each in found if each.is_a(f"{CAL}calendar") and _takes_tasks(each)]

    async def _begun(self, scope: str) -> dict[str, Any]:
        """Where to begin; of what is there already, only the comments need be known."""
        found = await self.dav.tasks(scope, '<C:prop-filter name="COMMENT"/>')
        seen = {each.path: vtodo.seen(todo) for each in found if (todo := await _todo(each))}
        if (top := await self.dav.look(scope, "D:sync-token")) is None:
            raise Rejected("there is no such list")
        if not (token := top.text(f"{DAV}sync-token")):
            raise Rejected("the server has no sync-token for it (RFC 6578)")
        return {"token": token, "since": "", "begun": time.time() - EARLIER, "seen": seen, "todo": []}

    async def news(self, scope: str, at: dict[str, Any] | None) -> tuple[dict[str, Any], list[Envelope], bool]:
        """A few tasks at a time."""
        if at is None:
            return await self._begun(scope), [], False
        if not at["todo"]:
            token, paths = await self.dav.since(scope, at["token"])
            if not token:  # it has forgotten ours: everything is looked at again
                token, paths = await self.dav.since(scope, "")
                paths = list(dict.fromkeys([*paths, *at["seen"]]))
            if not paths:
                return {**at, "token": token}, [], False
            at = {**at, "since": at["token"], "token": token, "todo": paths}
        wanted, at["todo"] = at["todo"][:PAGE], at["todo"][PAGE:]
        known = {each.path: each for each in await self.dav.these(scope, wanted)}
        told = [one for path in wanted for one in await self._told(scope, path, known.get(path), at)]
        return at, told, bool(at["todo"])

    async def _told(self, scope: str, path: str, found: Found | None, at: dict[str, Any]) -> list[Envelope]:
        key = f"{path} {sha256(at['since'].encode()).hexdigest()[:12]}"  # asked with the same token: the same news
        known = at["seen"].get(path)
        bare = Envelope(self.name, (scope,), key, key, Author(self.name, ""), time.time(), item=path)
        if found is None or found.status in MISSING:
            title, hidden = at["seen"].pop(path, ["", False])[:2]
            card = Card(path, path, title, scope=scope, private=hidden, gone=True)
            return [replace(bare, title=title, card=card, private=hidden)]
        if (todo := await _todo(found)) is None:
            return []
        at["seen"][path] = vtodo.seen(todo)
        ours = self.is_mark(path.rpartition("/")[2].removesuffix(".ics"))
        new = known is None and not ours and vtodo.when(todo.get("CREATED")) >= at["begun"]
        card = self._card(path, todo)
        bare = replace(bare, title=card.title, card=card, begins=new, private=card.private)
        texts = {
            name: text
            for name, text, mark in vtodo.comments(todo)
            if name not in (known or ()) and not self.is_mark(mark)
        }
        someone = Author(self.name, scope)  # a comment does not say whose it is: somebody who may write to the list
        text = clean(str(todo.get("DESCRIPTION", ""))).strip() if new else ""
        first = replace(bare, author=someone if text else bare.author, text=text)
        said = [replace(bare, key=f"{path} {name}", id=f"{path} {name}", author=someone, text=clean(text))
                for name, text in texts.items()]  # fmt: skip
        return [first, *said]

    def _card(self, path: str, todo: Any) -> Card:
        title, fields, scope = vtodo.title(todo), vtodo.fields(todo), path.rpartition("/")[0]
        return Card(path, path, title, self.dav.url(path), fields, scope, vtodo.private(todo))

    def match(self, text: str) -> str:
        path = self.dav.named(text)
        scope, _, name = path.rpartition("/")
        return path if scope and name.endswith(".ics") and ("://" in text or scope in self.port.scopes()) else ""

    async def fetch(self, item: str) -> Card:
        return self._card(item, (await self._read(item))[1])

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        """By title, description or comment: one word is searched there, and all of them in what that brings."""
        asked, found = clean(words).split(), dict[str, Card | None]()
        wanted, longest = [word.casefold() for word in asked], escape(max(asked, key=len, default=""))
        for name in ("SUMMARY", "DESCRIPTION", "COMMENT") if wanted else ():
            match = f'<C:prop-filter name="{name}"><C:text-match>{longest}</C:text-match></C:prop-filter>'
            rows = [each for scope in scopes for each in (await self.dav.tasks(scope, match))[:MOST]]
            for each in [each for each in rows if each.path not in found]:
                todo = await _todo(each)
                fits = todo is not None and all(word in vtodo.words(todo) for word in wanted)
                found[each.path] = self._card(each.path, todo) if fits else None
        if not found:  # perhaps there are no lists at all
            await self.alive()
        return [card for card in found.values() if card][:10]

    async def change(self, change: model.Change) -> Card:
        edit = vtodo.change(change.word, one_line(change.value).strip(), self.domain)
        return await self._edit(change.item, edit)

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        mark, text = self.mark(delivery.uid), _words(draft)

        def add(todo: Any) -> bool:
            there = any(found == mark for _, _, found in vtodo.comments(todo))
            return not there and vtodo.comment(todo, text, mark)

        return Sent(mark, card=await self._edit(draft.remote, add))

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        mark = self.mark(delivery.uid)
        calendar = vtodo.new(UID=mark, SUMMARY=draft.heading, DESCRIPTION=_words(draft), URL=draft.link)
        path = f"{draft.scope}/{mark}.ics"
        await self._put(path, calendar, {"If-None-Match": "*"})  # 412: an earlier attempt has made it
        with doubt():
            return Sent(mark, card=await self.fetch(path))

    async def _edit(self, path: str, edit: Callable[[Any], bool]) -> Card:
        """Change a task and read it back; `edit` says whether there was anything to do."""

        async def act(found: tuple[Any, Any, str]) -> bool:
            calendar, todo, etag = found
            vtodo.touch(todo)
            return await self._put(path, calendar, {"If-Match": etag})

        found = await self.ensure(lambda: self._read(path), lambda found: not edit(found[1]), act, path)
        return self._card(path, found[1])

    async def _put(self, path: str, calendar: Any, condition: Mapping[str, str]) -> bool:
        """False when the condition does not hold."""
        headers = {"Content-Type": "text/calendar; charset=utf-8", **condition}
        body = await asyncio.to_thread(calendar.to_ical)
        reply = await self.written("PUT", path, body, headers, (412,))
        if reply.status not in (201, 204, 412):
            raise Unconfirmed(f"the server answers {reply.status} to a task that is written")
        return reply.status != 412

    async def _read(self, path: str) -> tuple[Any, Any, str]:
        reply = await self.http.request("GET", self.dav.href(path), accept=MISSING)
        if reply.status in MISSING:
            raise await self.gone(f"task {path}")
        if reply.body.lstrip()[:15].upper() != b"BEGIN:VCALENDAR":
            raise Unavailable("the server's answer is no calendar")
        calendar, todo = await vtodo.parsed(reply.body)
        if todo is None:
            raise Rejected(f"{path} is no task that can be read")
        if not (etag := reply.headers.get("etag", "")) or etag.startswith("W/"):
            raise Rejected("the server does not tell versions apart (ETag)")
        return calendar, todo, etag


def _takes_tasks(found: Found) -> bool:
    kinds = found.props.get(f"{CAL}supported-calendar-component-set")
    return kinds is None or not len(kinds) or any(each.get("name") == "VTODO" for each in kinds)


def _words(draft: Draft) -> str:
    """What is said; no calendar takes our files, so they are named."""
    text = draft.plain
    return "\n".join([text, *(f"[{one_line(file.name)}]" for file in draft.files if file.name not in text)])


async def _todo(found: Found) -> Any:
    return (await vtodo.parsed(found.text(f"{CAL}calendar-data").encode()))[1]
