"""Rooms that are upgraded: the bot follows, and so do mappings and conversations (Matrix spec, "Room Upgrades")."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from mautrix.errors import MatrixRequestError

from bridge import payload
from bridge.config import Config
from bridge.matrix.ghosts import Ghosts
from bridge.model import Deferred, Delivery, Draft, Lifecycle, Unavailable
from bridge.payload import Follow, Post, Preview, Reword
from bridge.places import Places, link
from bridge.queue import Crossing
from bridge.store import Store, Tx
from bridge.texts import Texts

log = logging.getLogger(__name__)

_ROOM = re.compile(r"![A-Za-z0-9._~!$&'()*+,;=@-]{1,200}(?::[A-Za-z0-9.:\[\]-]{1,230})?")  # it becomes part of a path
Act = Callable[[str], Awaitable[None]]


class Upgrades:
    """What comes after a tombstone. `read` hears what a room has not told yet; `prepare` is in a room and knows it."""

    def __init__(
        self, config: Config, store: Store, ghosts: Ghosts, places: Places, say: Texts, read: Act, prepare: Act,
        look: Callable[[], None],
    ) -> None:  # fmt: skip
        self._config = config
        self._store = store
        self._ghosts = ghosts
        self._places = places
        self._say = say
        self._read = read
        self._prepare = prepare
        self._look = look
        self.on_own: Callable[[Tx, int], None] = lambda tx, conversation: None  # its own room was upgraded

    async def follow(self, delivery: Delivery | None, follow: Follow) -> Crossing:
        """Go where the room goes on. What must be written then is the same however often it is done.

        Raises `Deferred` while the new room cannot be entered, or the old one does not show what replaces it.
        """
        room = follow.room
        later = await self.replacement(room)
        if not later:
            return partial(self._stays, room=room)
        if not _ROOM.fullmatch(later):
            return partial(self._refused, room=room, later=later[:255])
        was_there = self._ghosts.is_in(self._config.bot_mxid, later)
        try:
            await self._enter(room, later, follow.sender)
            if await self._predecessor(later) != room:
                await self._turn_back(later, was_there=was_there)
                return partial(self._refused, room=room, later=later)
            await self._read(room)  # what was said last there, before anything moves
        except Unavailable as error:  # perhaps another homeserver's trouble: it must not look like that of ours
            raise Deferred(str(error)) from None
        return partial(self._succeed, room=room, later=later)

    async def followed(self, room: str) -> None:
        """The same at once, for a room whose tombstone we may have missed. Raises as `follow`."""
        crossing = await self.follow(None, Follow(room))
        await self._store.transact(crossing)

    async def entered(self, room: str) -> None:
        """The bot has just entered a room: if that replaces one of ours, it is followed now.

        An invitation may come before its tombstone, or long after, when nobody was let in before. Raises as `follow`.
        """
        before = await self._predecessor(room)
        if not before or self._places.successor(before) == room:
            return
        if await self._store.transact(self._places.is_ours, before) and await self.is_replaced_by(before, room):
            await self.followed(before)

    async def is_replaced_by(self, room: str, later: str) -> bool:
        """Whether a room says so; False too while it is not shown to us."""
        with contextlib.suppress(Deferred):
            return await self.replacement(room) == later
        return False

    async def replacement(self, room: str) -> str:
        """The room that replaces this one, as its state says now; "" when none does. Raises `Deferred`."""
        found = (await self._state(room, "m.room.tombstone")).get("replacement_room")
        return found if isinstance(found, str) else ""

    async def _predecessor(self, room: str) -> str:
        before = (await self._state(room, "m.room.create")).get("predecessor")
        found = before.get("room_id") if isinstance(before, dict) else None
        return found if isinstance(found, str) and _ROOM.fullmatch(found) else ""

    async def _state(self, room: str, type_: str) -> dict[str, Any]:
        """{} when the room has none. Raises `Deferred` when it is not shown to us."""
        try:
            return await self._ghosts.bot.call("GET", f"_matrix/client/v3/rooms/{room}/state/{type_}")
        except MatrixRequestError as error:
            if error.http_status == 404:
                return {}
            raise Deferred(f"the homeserver does not show {room}: {error}") from None

    async def _enter(self, room: str, later: str, sender: str) -> None:
        server = sender.partition(":")[2] or room.partition(":")[2]
        if not self._ghosts.is_in(self._config.bot_mxid, later):
            await self._ghosts.join(self._config.bot_mxid, later, via=server)
        await self._prepare(later)

    async def _turn_back(self, later: str, *, was_there: bool) -> None:
        if not was_there and later not in self._places.wanted():
            await self._ghosts.leave(self._config.bot_mxid, later)

    # --- what is written then

    def _stays(self, tx: Tx, room: str) -> None:
        """The tombstone was taken back, or names no room."""
        tx.mappings.stays(room)
        self._in_memory(tx)

    def _refused(self, tx: Tx, room: str, later: str) -> None:
        """Anybody could send the bot anywhere, if the new room did not say whence it comes."""
        if tx.conversations.first_time(f"upgrade refused {room} {later}"):
            names = {"old": self._places.name(room), "new": link(later), "scopes": self._places.spoken(room)}
            self._places.tell_operators(tx, self._say("upgrade-refused", **names))
        self._stays(tx, room)

    def _succeed(self, tx: Tx, room: str, later: str) -> None:
        if tx.mappings.successors().get(room):  # followed before
            return
        scopes, names = self._places.spoken(room), self._places.names(room)
        was_management = room == self._places.management
        self._pause(tx, room, later)
        tx.mappings.succeeded(room, later)
        tx.conversations.move(room, later)
        own = tx.own.succeeded(room, later)
        for name in {*names, later}:
            tx.people.resolved(name, later)
        self._in_memory(tx, later)
        tx.committed.append(self._look)
        shown = {"old": self._places.name(room), "scopes": scopes}
        if own:
            self.on_own(tx, own)
        if not was_management:
            self._places.post(tx, Post(later, self._say("upgraded", **shown | {"old": link(room)}), notice=True))
        self._places.tell_operators(tx, self._say("upgraded-operators", new=link(later), **shown))
        if room in (self._config.management_room, *(mapping.room for mapping in self._places.declared)):
            self._places.tell_operators(tx, self._say("upgraded-named", name=room, new=later))

    def _in_memory(self, tx: Tx, later: str = "") -> None:
        successors, made, own = tx.mappings.successors(), tx.mappings.made(), tx.own.all()

        def follow() -> None:
            self._places.upgrades(successors)
            self._places.make(made)
            self._places.own(own)
            if later:
                self._places.resolve(later, later)

        tx.committed.append(follow)

    def _pause(self, tx: Tx, room: str, later: str) -> None:
        """What waits to leave: in the old room hardly anybody may still take it back, so it is shown in the new one,
        and its author says `!send` there.
        """
        states: tuple[Lifecycle, ...] = ("asked", "held", "paused")
        for state in states:
            for delivery in tx.queue.in_state(state):
                conversation = tx.conversations.get(delivery.conversation or 0)
                if conversation is None or conversation.room != room:
                    continue
                if state != "paused":
                    tx.queue.move(delivery.uid, "paused", error=self._say("why-upgraded"))
                event = tx.queue.preview_of(delivery.uid)
                if event:
                    old = payload.load(Draft, delivery.payload).room
                    self._places.post(tx, Reword(old, event, self._say("preview-newer")), conversation.id)
                    tx.queue.previewed(delivery.uid, "")
                    self._places.post(tx, Preview(later, delivery.uid), conversation.id)

    # --- while it cannot be followed

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """Operators hear once that the bot must be invited."""
        room = payload.load(Follow, delivery.payload).room
        if tx.conversations.first_time(f"upgrade waits {delivery.uid}"):
            body = self._say(
                "upgrade-waits", old=self._places.name(room), reason=reason, bot=self._config.bot_mxid,
                scopes=self._places.spoken(room),
            )  # fmt: skip
            self._places.tell_operators(tx, body)
