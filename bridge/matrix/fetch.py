"""What an outward message is made of, fetched from the homeserver: the words or file of an event, a transcript."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from mautrix.errors import MatrixRequestError

from bridge.matrix.events import parse
from bridge.matrix.ghosts import Ghosts
from bridge.model import Draft, File, History, Rejected, RoomEvent
from bridge.store import Store
from bridge.text.plain import matrix_to_text
from bridge.texts import Texts

PAGE = 100
MOST = 500  # messages of a transcript


class Fetch:
    """Reads events and media as the bot. Raises `Rejected` when what was asked for cannot be sent."""

    def __init__(self, ghosts: Ghosts, store: Store, say: Texts) -> None:
        self._say = say
        self._ghosts = ghosts
        self._store = store

    async def completed(self, draft: Draft) -> Draft:
        """The draft with the words or the file of its source, or its transcript, if they are still missing."""
        if draft.history:
            return draft if draft.transcript else await self._with_transcript(draft, draft.history)
        if draft.text or draft.files or draft.source == draft.trigger:
            return draft
        event = await self._source(draft)
        if event.file is not None:
            return replace(draft, files=(event.file,))
        return replace(draft, text=event.body, html=event.html)

    async def spooled(self, files: tuple[File, ...], limit: int) -> tuple[File, ...]:
        """The files with their content in the spool. Raises `Rejected` above `limit` bytes, or when media is gone."""
        return tuple([await self._spooled(file, limit) for file in files])

    async def _spooled(self, file: File, limit: int) -> File:
        if file.hash:
            return file
        try:
            kept = await self._store.spool.keep_stream(file.name, file.type, self._ghosts.bot.download(file.mxc), limit)
        except MatrixRequestError as error:
            raise Rejected(self._say("file-unreadable", name=file.name, reason=error)) from None
        return replace(kept, mxc=file.mxc)

    async def event(self, room: str, event: str) -> RoomEvent | None:
        """An event of a room, or None when the homeserver does not show it."""
        try:
            raw = await self._ghosts.bot.call("GET", f"_matrix/client/v3/rooms/{room}/event/{quote(event, safe='')}")
        except MatrixRequestError:
            return None
        found = parse({"room_id": room, **raw})
        return edited(raw, found) if found else None

    async def speakers(self, room: str, root: str) -> set[str]:
        """Who said something in a thread, as far as it is shown to us; of the last 500 messages and the first."""
        try:
            return {event.sender for event in await self._of_thread(room, root)} if root else set()
        except Rejected:
            return set()

    async def _source(self, draft: Draft) -> RoomEvent:
        """The event whose words are to leave, as last edited by its author."""
        event = await self.event(draft.room, draft.source)
        if event is None:
            raise Rejected(self._say("content-gone"))
        if event.sender != draft.author:
            raise Rejected(self._say("content-not-yours"))
        if event.type != "m.room.message" or not (event.body or event.file):
            raise Rejected(self._say("content-none"))
        if event.msgtype not in ("m.text", "m.emote", "m.notice") and event.file is None:
            raise Rejected(self._say("content-type", type=event.msgtype))
        return event

    async def _with_transcript(self, draft: Draft, history: History) -> Draft:
        """What was said before the request, and in which events: should one be taken back, the draft is stopped."""
        wanted = history.last or MOST
        lines: dict[str, str] = {}
        files: list[File] = []
        for event in reversed(await self._chosen(draft, history)):
            if len(lines) < wanted and (line := await self._line(event)):
                lines[event.id] = line
                files += [event.file] if event.file and history.files else []
        if not lines and not draft.text:
            raise Rejected(self._say("content-none"))
        title = draft.title or (_first_line(next(iter(lines.values()))) if history.only else "")
        transcript = "\n\n".join(reversed(lines.values()))
        kept = (*draft.files, *reversed(files))
        return replace(draft, title=title, transcript=transcript, files=kept, parts=(*draft.parts, *lines))

    async def _chosen(self, draft: Draft, history: History) -> list[RoomEvent]:
        """The messages that the history means, oldest first."""
        if history.only:
            event = await self.event(draft.room, history.only)
            return [event] if event else []
        if history.root:
            return _before(draft, await self._of_thread(draft.room, history.root))
        said = await self._of_room(draft, history.last or MOST)
        return _before(draft, [event for event in said if history.whole or not event.thread])

    async def _of_thread(self, room: str, root: str) -> list[RoomEvent]:
        """How the thread began, and its last messages."""
        bot, root = self._ghosts.bot, quote(root, safe="")
        found: list[dict[str, Any]] = []
        query = {"dir": "b", "limit": str(PAGE)}
        try:
            first = await bot.call("GET", f"_matrix/client/v3/rooms/{room}/event/{root}")
            while len(found) < MOST:
                path = f"_matrix/client/v1/rooms/{room}/relations/{root}/m.thread"
                page = await bot.call("GET", path, **query)
                found += page.get("chunk", [])
                if "next_batch" not in page:
                    break
                query["from"] = page["next_batch"]
        except MatrixRequestError as error:
            raise Rejected(self._say("history-unreadable", reason=error)) from None
        return _readable([first, *reversed(found)], room)

    async def _of_room(self, draft: Draft, wanted: int) -> list[RoomEvent]:
        """The last messages of the room."""
        try:
            path = f"_matrix/client/v3/rooms/{draft.room}/messages"
            page = await self._ghosts.bot.call("GET", path, dir="b", limit=str(wanted * 3 + 20))
        except MatrixRequestError as error:
            raise Rejected(self._say("history-unreadable", reason=error)) from None
        return _readable(page.get("chunk", [])[::-1], draft.room)

    async def _line(self, event: RoomEvent) -> str:
        if event.body.startswith("!") or event.sender == self._ghosts.bot.mxid:
            return ""
        name = self._ghosts.name(event.sender) or await self._store.transact(lambda tx: tx.people.name(event.sender))
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(event.when))
        text = f"[{event.file.name}]" if event.file else matrix_to_text(event.body, event.html, is_reply=True)
        return f"{name}, {at}:\n{text}" if text.strip() else ""


def _first_line(spoken: str) -> str:
    """The beginning of what somebody said, as a title; the first line of a transcript says who and when."""
    return " ".join(spoken.partition("\n")[2].split())[:80]


def _before(draft: Draft, events: list[RoomEvent]) -> list[RoomEvent]:
    """Nobody asked to send what was said after the request, which may stand elsewhere."""
    at = next((i for i, event in enumerate(events) if event.id == draft.source), None)
    return [event for event in events if event.when <= draft.asked] if at is None else events[:at]


def _readable(found: list[dict[str, Any]], room: str) -> list[RoomEvent]:
    """Messages that people said, with their last edits, oldest first."""
    events = []
    for raw in found:
        event = parse({"room_id": room, **raw})
        if event and event.type == "m.room.message" and not event.replaces:
            events.append(edited(raw, event))
    return events


def edited(raw: dict[str, Any], event: RoomEvent) -> RoomEvent:
    """The event with the words of its last edit by its own author, which the homeserver bundles (spec 11.35)."""
    relations = raw.get("unsigned", {}).get("m.relations", {}) if isinstance(raw.get("unsigned"), dict) else {}
    latest = relations.get("m.replace") if isinstance(relations, dict) else None
    new = parse({"room_id": event.room, **latest}) if isinstance(latest, dict) else None
    if new is None or new.sender != event.sender or not new.body:
        return event
    return replace(event, body=new.body, html=new.html, file=new.file or event.file)
