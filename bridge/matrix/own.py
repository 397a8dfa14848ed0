"""Rooms of their own on the homeserver: made once, in the space, its people invited, its cards pinned; archived."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from mautrix.errors import MatrixRequestError

from bridge.config import Config
from bridge.matrix.fetch import Fetch
from bridge.matrix.ghosts import Ghosts
from bridge.model import Deferred, Delivery, Rejected
from bridge.moving import Made, Moving
from bridge.payload import Archive, Gather, MakeRoom, Pin, Post
from bridge.places import Places, link
from bridge.queue import Crossing
from bridge.store import Store, Tx
from bridge.texts import Texts

log = logging.getLogger(__name__)

_GUARDED = ("m.room.join_rules", "m.room.history_visibility", "m.room.guest_access", "m.room.encryption")
MODERATOR = 50
NOBODY = 100  # a level that only the bot has

# The preset of public rooms, made private by the state that comes with it: homeservers that encrypt new rooms by
# default can leave only that one out (Synapse: encryption_enabled_by_default_for_room_type: invite). Who is invited
# later does not see what was said before; who is invited at once sees everything, however late he comes ("joined" would
# hide that).
_PRIVATE = [
    {"type": "m.room.join_rules", "content": {"join_rule": "invite"}},
    {"type": "m.room.history_visibility", "content": {"history_visibility": "invited"}},
    {"type": "m.room.guest_access", "content": {"guest_access": "forbidden"}},
]


class OwnRooms:
    """What becomes of a conversation's own room. Each step can be done again: twice does no harm."""

    def __init__(
        self, config: Config, store: Store, ghosts: Ghosts, places: Places, fetch: Fetch, moving: Moving, say: Texts,
        look: Callable[[], None],
    ) -> None:  # fmt: skip
        self._config = config
        self._store = store
        self._ghosts = ghosts
        self._places = places
        self._fetch = fetch
        self._moving = moving
        self._say = say
        self._look = look

    # --- made

    async def make(self, delivery: Delivery, wanted: MakeRoom) -> Crossing:
        """Make the room, once. Raises `Rejected` when the homeserver does not let us, `Unavailable`, `Deferred`."""
        own = await self._store.transact(lambda tx: tx.own.of(wanted.conversation))
        if own is None or own.room:
            return lambda tx: None
        room = await self._created(delivery, wanted)
        await self._ghosts.join(self._config.bot_mxid, room)  # it is there; now that is written down, too
        if await self._state(room, "m.room.encryption"):
            raise Rejected(self._say("room-forced-encryption"))
        if (await self._state(room, "m.room.join_rules")).get("join_rule") != "invite":
            raise Rejected(self._say("room-not-private"))
        await self._tried(self._put(room, "m.room.canonical_alias", {}))  # that name is ours, and nothing for people
        lacking = [await self._empower(room, wanted.sender), await self._into_space(room)]
        spoke = await self._fetch.speakers(wanted.room, own.root)
        present = await self._present(wanted.room)
        made = Made(room, await self._marker(room), spoke, present, list(filter(None, lacking)))
        return partial(self._made, wanted=wanted, made=made)

    def _made(self, tx: Tx, wanted: MakeRoom, made: Made) -> None:
        self._moving.moved(tx, wanted, made)
        tx.committed.append(self._look)

    async def _created(self, delivery: Delivery, wanted: MakeRoom) -> str:
        """By an alias that only this delivery can have the homeserver makes no second one."""
        name = f"{self._config.appservice.ghosts}room_{delivery.uid}"
        body = {"preset": "public_chat", "visibility": "private", "initial_state": _PRIVATE}
        body |= {"name": wanted.name, "room_alias_name": name}
        try:
            return str((await self._ghosts.bot.call("POST", "_matrix/client/v3/createRoom", body))["room_id"])
        except MatrixRequestError as error:
            if error.errcode != "M_ROOM_IN_USE":
                raise Rejected(f"{error.errcode}: {error.message}") from None
        return await self._named(f"#{name}:{self._config.homeserver.server_name}")

    async def _named(self, alias: str) -> str:
        found = await self._ghosts.bot.call("GET", f"_matrix/client/v3/directory/room/{quote(alias, safe='')}")
        return str(found["room_id"])

    async def _empower(self, room: str, mxid: str) -> str:
        """Who asked moderates and says who else comes, but cannot open the room. Its maker need not be among the levels
        (MSC4289).
        """
        levels = await self._state(room, "m.room.power_levels")
        if not levels:
            raise Deferred("the homeserver has not finished the new room yet")
        changed = levels | {
            "users": {**_part(levels, "users"), mxid: MODERATOR},
            "invite": MODERATOR,
            "events": {**_part(levels, "events"), **dict.fromkeys(_GUARDED, NOBODY)},
        }
        if levels == changed:
            return ""
        why = await self._tried(self._put(room, "m.room.power_levels", changed))
        return self._say("room-no-power", who=mxid, reason=why) if why else ""

    async def _into_space(self, room: str) -> str:
        """Returns what is missing, for people."""
        name = self._config.rooms.space
        if not name:
            return self._say("room-no-space")
        via = {"via": [self._config.homeserver.server_name]}
        why = await self._tried(self._bind(name, room, via | {"canonical": True}, via | {"suggested": True}))
        return self._say("room-not-in-space", space=name, reason=why, bot=self._config.bot_mxid) if why else ""

    async def _bind(self, name: str, room: str, parent: dict[str, Any], child: dict[str, Any]) -> None:
        space = await self._named(name) if name.startswith("#") else name
        if not self._ghosts.is_in(self._config.bot_mxid, space):
            await self._ghosts.join(self._config.bot_mxid, space)
        await self._put(space, "m.space.child", child, room)
        await self._put(room, "m.space.parent", parent, space)

    async def _present(self, room: str) -> frozenset[str]:
        """Who is there, as far as it is shown to us."""
        try:
            return frozenset(await self._ghosts.members(room))
        except MatrixRequestError:
            return frozenset()

    async def _marker(self, room: str) -> str:
        """Whence the room is read: nobody but us has said anything there."""
        path = f"_matrix/client/v3/rooms/{room}/messages"
        try:
            return str((await self._ghosts.bot.call("GET", path, dir="b", limit="1")).get("start", ""))
        except MatrixRequestError as error:
            raise Deferred(f"the new room cannot be read: {error}") from None

    # --- furnished

    async def gather(self, delivery: Delivery, wanted: Gather) -> Crossing:
        """Invite them; who cannot be invited keeps nobody waiting."""
        refused = []
        for mxid in wanted.people:
            try:
                await self._ghosts.bot.call("POST", f"_matrix/client/v3/rooms/{wanted.room}/invite", {"user_id": mxid})
            except MatrixRequestError as error:
                if "already in the room" not in str(error):
                    refused.append(f"{mxid} ({error.message})")
        if not refused:
            return lambda tx: None
        body = self._say("room-not-invited", people=", ".join(refused))
        return lambda tx: self._places.post(tx, Post(wanted.room, body, notice=True), delivery.conversation)

    async def pin(self, delivery: Delivery, wanted: Pin) -> Crossing:
        """The cards that the conversation has there are pinned, and nothing else."""

        def cards(tx: Tx) -> list[str]:
            number = delivery.conversation or 0
            return [tx.conversations.card(number, item.id) for item in tx.conversations.items_of(number)]

        if self._places.is_own(wanted.room):
            pinned = list(filter(None, await self._store.transact(cards)))
            await self._tried(self._put(wanted.room, "m.room.pinned_events", {"pinned": pinned}))
        return lambda tx: None

    # --- archived

    async def archive(self, delivery: Delivery, wanted: Archive) -> Crossing:
        """Nobody writes there any more; its name and topic say so, and the space shows it no longer."""
        own = await self._store.transact(lambda tx: tx.own.of(delivery.conversation or 0))
        if own is None or own.room != self._places.successor(wanted.room):
            return lambda tx: None
        room = own.room
        why = await self._tried(self._lock(room))
        name = (await self._state(room, "m.room.name")).get("name")
        if isinstance(name, str) and not name.endswith(self._say("room-archived-name", name="")):
            await self._tried(self._put(room, "m.room.name", {"name": self._say("room-archived-name", name=name)}))
        there = link(self._places.successor(own.home), own.root)
        topic = {"topic": self._say("room-archived-topic", link=there)}
        await self._tried(self._put(room, "m.room.topic", topic))
        if space := self._config.rooms.space:
            await self._tried(self._bind(space, room, {}, {}))
        lacking = [self._say("room-not-locked", reason=why)] if why else []
        return lambda tx: self._moving.ended(tx, own, wanted, lacking)

    async def _lock(self, room: str) -> None:
        levels = await self._state(room, "m.room.power_levels")
        known = _part(levels, "events").items()
        needed = {type_: max(level, NOBODY) if isinstance(level, int) else NOBODY for type_, level in known}
        locked = levels | {"events_default": NOBODY, "state_default": NOBODY, "events": needed}
        if locked != levels:
            await self._put(room, "m.room.power_levels", locked)

    # --- what they share

    async def _state(self, room: str, type_: str) -> dict[str, Any]:
        """{} when the room has none. Raises `Deferred` when it is not shown to us."""
        try:
            return await self._ghosts.bot.call("GET", f"_matrix/client/v3/rooms/{room}/state/{type_}")
        except MatrixRequestError as error:
            if error.http_status == 404:
                return {}
            raise Deferred(f"the homeserver does not show the room: {error}") from None

    async def _put(self, room: str, type_: str, content: dict[str, Any], key: str = "") -> None:
        path = f"_matrix/client/v3/rooms/{room}/state/{type_}/{quote(key, safe='')}"
        await self._ghosts.bot.call("PUT", path, content)

    async def _tried(self, part: Awaitable[None]) -> str:
        """What is good to have: why it cannot be, "" when it is done. Raises `Unavailable`."""
        try:
            await part
        except MatrixRequestError as error:
            return str(error.message or error.errcode or error)
        except (Deferred, Rejected) as error:
            return str(error)
        return ""

    def gave_up(self, tx: Tx, delivery: Delivery, wanted: MakeRoom, reason: str) -> None:
        """The homeserver makes no room."""
        log.warning("no room was made for conversation %d", wanted.conversation)
        self._moving.unmade(tx, wanted, reason)


def _part(levels: dict[str, Any], key: str) -> dict[str, Any]:
    value = levels.get(key)
    return value if isinstance(value, dict) else {}
