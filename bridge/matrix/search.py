"""What the homeserver knows that a search needs: who is in a room, and where words were written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mautrix.errors import MatrixRequestError

from bridge.config import Config
from bridge.matrix.ghosts import Ghosts
from bridge.model import Rejected

MOST_EVENTS = 50  # of a search
AT_ONCE = 8  # questions to the homeserver
_OPERATORS = {"or", "and", "not", "near"}  # of the homeserver's search, or of the database below it


@dataclass(frozen=True, slots=True)
class Said:
    """An event with the words in it."""

    event: str
    room: str
    thread: str  # root of the thread that it says to be in, ""
    when: float


class Search:
    """Asked as the bot, which is in every mapped room. All raise `Rejected` (it says no), `Unavailable`, `Deferred`."""

    def __init__(self, config: Config, ghosts: Ghosts) -> None:
        self._config = config
        self._ghosts = ghosts
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def is_alone_with(self, mxid: str, room: str) -> bool:
        """Whether nobody but this person and the bot reads the room, or is invited to."""
        found = await self._ask("GET", f"{_room(room)}/members", not_membership="leave")
        there = {
            str(member.get("state_key"))
            for member in _dicts(found.get("chunk"))
            if _dict(member.get("content")).get("membership") in ("join", "invite", "knock")
        }
        return there == {mxid, self._config.bot_mxid}

    async def rooms_of(self, mxid: str, rooms: Collection[str]) -> frozenset[str]:
        """Those of the rooms in which somebody is joined now."""
        found = await asyncio.gather(*(self._is_in(mxid, room) for room in rooms))
        return frozenset(room for room, joined in zip(rooms, found, strict=True) if joined)

    async def _is_in(self, mxid: str, room: str) -> bool:
        try:
            found = await self._ask("GET", f"{_room(room)}/state/m.room.member/{quote(mxid, safe='@:')}")
        except Rejected:  # was never there, or the bot is not
            return False
        return found.get("membership") == "join"

    async def said(self, words: str, rooms: Collection[str]) -> tuple[Said, ...]:
        """Events of exactly these rooms with all the words, the newest first; who wrote `!find` only looked for them.

        The homeserver also searches the room that another one claims to have replaced: that is left out here.
        """
        term = " ".join(plain(words))
        if not term or not rooms:
            return ()
        wanted = {
            "search_term": term,
            "keys": ["content.body"],
            "order_by": "recent",
            "filter": {
                "rooms": sorted(rooms), "limit": MOST_EVENTS, "types": ["m.room.message"],
                "not_senders": [self._config.bot_mxid],
            },
        }  # fmt: skip
        body = {"search_categories": {"room_events": wanted}}
        found = await self._ask("POST", "_matrix/client/v3/search", body)
        return tuple(each for each in _events(found) if each.room in rooms)

    async def _ask(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        async with self._turns:
            try:
                return await self._ghosts.bot.call(method, path, body, **query)
            except MatrixRequestError as error:
                raise Rejected(str(error)) from None


def plain(words: str) -> list[str]:
    """The words without whatever a search engine reads as its own language."""
    return [word for word in re.findall(r"\w+", words.casefold()) if word not in _OPERATORS]


def _events(found: dict[str, Any]) -> Iterator[Said]:
    events = _dict(_dict(found.get("search_categories")).get("room_events"))
    for event in (_dict(result.get("result")) for result in _dicts(events.get("results"))):
        content = _dict(event.get("content"))
        relation, when = _dict(content.get("m.relates_to")), event.get("origin_server_ts")
        body = content.get("body")
        if not isinstance(body, str) or body.lstrip("* ").lower().startswith("!find"):
            continue
        thread = relation.get("event_id") if relation.get("rel_type") in ("m.thread", "m.replace") else ""
        seconds = when / 1000 if isinstance(when, int | float) else 0.0
        yield Said(_text(event.get("event_id")), _text(event.get("room_id")), _text(thread), seconds)


def _room(room: str) -> str:
    return f"_matrix/client/v3/rooms/{quote(room, safe='!:')}"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
