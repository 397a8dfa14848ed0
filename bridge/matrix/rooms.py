"""The mapped rooms as the homeserver has them: joined, rights checked, and read without a gap (catch-up)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mautrix.errors import MatrixRequestError

from bridge.config import Config
from bridge.matrix.content import DELIVERY
from bridge.matrix.events import parse
from bridge.matrix.ghosts import Ghosts
from bridge.matrix.rights import creators, missing
from bridge.matrix.upgrades import Upgrades
from bridge.model import Deferred, RoomEvent, Unavailable
from bridge.places import Places
from bridge.store import Error, Store, Tx
from bridge.texts import Texts

log = logging.getLogger(__name__)

PAGE = 100
SETTLED = 2.0  # seconds after which no event appears before others in the order that /messages has
RETRY = 2.0  # seconds until a room the homeserver did not show is looked at again; doubled each time, up to a minute


class Rooms:
    """Which rooms are known without a gap. Nothing leaves the company from a room that is not."""

    def __init__(
        self, config: Config, store: Store, ghosts: Ghosts, places: Places, say: Texts,
        hear: Callable[[list[RoomEvent]], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._config = config
        self._store = store
        self._ghosts = ghosts
        self._places = places
        self._say = say
        self._hear = hear
        self._trusted: dict[str, asyncio.Event] = {}
        self._look = asyncio.Event()
        self._resolving = asyncio.Lock()
        self._absent: set[str] = set()  # rooms the bot was removed from
        self._judged: set[str] = set()  # rooms whose rights were looked at
        self._outages = 0
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._read_at: dict[str, float] = {}  # when `settle` last began to read, on the monotonic clock
        self.upgrades = Upgrades(config, store, ghosts, places, say, self._read, self.prepare, self.look)

    # --- the gate

    def is_caught_up(self, room: str) -> bool:
        gate = self._trusted.get(room)  # asked for every room that speaks to us: none is made for that
        return gate is not None and gate.is_set()

    async def caught_up(self, room: str) -> None:
        """Wait until everything that happened in a mapped room is known. One without the bot keeps nobody waiting."""
        if room in self._places.mapped() and room not in self._absent:
            await self._gate(room).wait()

    async def settle(self, room: str, fresh: float = 0.0) -> None:
        """Hear what the homeserver has not told us yet: something may have been taken back.

        A reading that began up to `fresh` seconds ago is enough. Raises `Deferred` when the room cannot be read.
        """
        later = self._places.successor(room)
        if later != room:  # that is what people see; in the old one there is little more to hear, if it is shown
            with contextlib.suppress(Deferred):
                await self._settle(room, fresh)
        await self._settle(later, fresh)

    async def _settle(self, room: str, fresh: float) -> None:
        if room in self._places.encrypted:
            raise Deferred("the room is encrypted")
        asked = time.monotonic()
        async with self._reading[room]:
            if self._read_at.get(room, -fresh) >= asked - fresh:
                return
            begun = time.monotonic()
            try:
                await self._read(room)
            except (Unavailable, OSError, Error) as error:
                raise Deferred(f"what was said last is not known: {error}") from None
            self._read_at[room] = begun

    def distrust(self) -> None:
        """The homeserver was away: look again at every room before anything leaves."""
        self._outages += 1
        for gate in self._trusted.values():
            gate.clear()
        self._look.set()

    def look(self) -> None:
        """Look at the rooms now (the homeserver has just spoken to us)."""
        self._look.set()

    def _gate(self, room: str) -> asyncio.Event:
        return self._trusted.setdefault(room, asyncio.Event())

    @property
    def all_caught_up(self) -> bool:
        mapped = self._places.mapped()
        return not self._places.unresolved() and all(self.is_caught_up(room) for room in mapped)

    # --- the loop

    async def run(self) -> None:
        """Catch up at start, after each outage, and now and then for what the homeserver forgot to push."""
        failures = 0
        while True:
            self._look.clear()
            failures = 0 if await self._round() else failures + 1
            wait = min(60.0, RETRY * 2 ** min(failures - 1, 5)) if failures else self._config.catch_up
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), wait)
                failures = 0

    async def _round(self) -> bool:
        complete = await self.resolve()
        for room in sorted(self._places.mapped()):
            outages = self._outages
            try:
                await self._read(room)
                await self._judge(room)
            except Deferred as error:  # the homeserver answers: the bot is no longer in this room
                log.warning("catch-up of %s waits: %s", room, error)
                self._gate(room).clear()
                self._absent.add(room)
                self._judged.discard(room)
                complete = await self._came_back_to(room) and complete
            except (Unavailable, OSError, Error) as error:
                log.warning("catch-up of %s waits: %s", room, error)
                self._gate(room).clear()
                complete = False
            else:
                self._absent.discard(room)
                if outages == self._outages:  # else it may have been read before the outage
                    self._gate(room).set()
        if complete:
            await self._ask_to_push()
        return complete

    async def _came_back_to(self, room: str) -> bool:
        """Be in a room again that the bot was removed from, when it may; it is read in the next round."""
        with contextlib.suppress(Unavailable, Deferred, OSError, Error, MatrixRequestError):
            await self.prepare(room)
            self.look()
            return True
        return False

    async def _ask_to_push(self) -> None:
        """The homeserver tries again now to hand over what it holds, not after its back-off of up to 8 minutes."""
        path = f"_matrix/client/v1/appservice/{self._config.appservice.id}/ping"
        for _ in range(3):  # Synapse may say 502 while its own retry is under way
            try:
                async with asyncio.timeout(10):
                    await self._ghosts.bot.call("POST", path, {})
                return
            except (Unavailable, Deferred, MatrixRequestError, TimeoutError) as error:
                log.info("the homeserver may not reach us: %s", error)
                await asyncio.sleep(0.5)

    async def resolve(self) -> bool:
        """Find the rooms that mappings name by alias, and join them; whether all are found."""
        async with self._resolving:
            return await self._resolve()

    async def _resolve(self) -> bool:
        names = [*self._places.unresolved(), self._config.management_room]
        complete = True
        for name in filter(None, names):
            try:
                await self._enter(name)
            except (Unavailable, Deferred, OSError, Error, MatrixRequestError) as error:
                log.warning("the room %s cannot be entered yet: %s", name, error)
                complete = False
                if isinstance(error, Deferred | MatrixRequestError) and name != self._config.management_room:
                    with contextlib.suppress(OSError, Error):
                        await self._store.transact(self._tell_closed, name, str(error))
        return complete

    def _tell_closed(self, tx: Tx, name: str, reason: str) -> None:
        """Operators hear once a day of a room that lets nobody in, or that there is not."""
        today = int(time.time() // 86400)
        if self._places.management and tx.conversations.first_time(f"not entered {name} {today}"):
            mapped = [f"{each.scope} ({each.connector})" for each in self._places.mappings if each.room == name]
            names = {"room": name, "scopes": ", ".join(mapped), "bot": self._config.bot_mxid}
            body = self._say("not-entered", reason=reason, **names)
            self._places.tell_operators(tx, body)

    async def _enter(self, name: str) -> None:
        room = name
        if name.startswith("#"):
            answer = await self._ghosts.bot.call("GET", f"_matrix/client/v3/directory/room/{name.replace('#', '%23')}")
            room = str(answer["room_id"])
            await self._moved(self._places.known(name), room)
        room = self._places.successor(room)
        await self.prepare(room)
        await self._store.transact(lambda tx: tx.people.resolved(name, room))
        self._places.resolve(name, room)
        if name == self._config.management_room:
            self._places.management = room
            await self._follow_missed(room)
            self._judged.add(room)

    async def _moved(self, before: str, room: str) -> None:
        """The alias means another room than it did: perhaps that was upgraded while we were away."""
        if before not in ("", self._places.successor(room)):
            with contextlib.suppress(Deferred):
                if await self.upgrades.is_replaced_by(before, room):
                    await self.upgrades.followed(before)

    async def exists(self, name: str) -> bool:
        """Whether the homeserver knows the alias; while it does not answer nothing speaks against it."""
        if name.startswith("#"):
            with contextlib.suppress(Unavailable, Deferred, OSError):
                try:
                    await self._ghosts.bot.call("GET", f"_matrix/client/v3/directory/room/{name.replace('#', '%23')}")
                except MatrixRequestError:
                    return False
        return True

    async def prepare(self, room: str) -> None:
        """Be in the room and know its people by name; a room that is encrypted is taken note of."""
        members = (await self._members(room)).get("joined", {})
        if await self._is_encrypted(room):
            await self._store.transact(lambda tx: tx.people.is_encrypted(room))
            self._places.encrypted.add(room)
        names = {
            mxid: member.get("display_name") or mxid[1:].partition(":")[0]
            for mxid, member in members.items()
            if isinstance(member, dict) and not self._config.is_ours(mxid)
        }

        def learn(tx: Tx) -> None:
            for mxid, display in names.items():
                tx.people.named(mxid, display)

        await self._store.transact(learn)

    async def _members(self, room: str) -> dict[str, Any]:
        """The people in the room. The bot joins when it is not there, whatever it believed. Raises `Deferred`."""
        path = f"_matrix/client/v3/rooms/{room}/joined_members"
        if self._ghosts.is_in(self._config.bot_mxid, room):
            with contextlib.suppress(MatrixRequestError):  # it was removed, and perhaps invited again
                return await self._ghosts.bot.call("GET", path)
            await self._ghosts.forget(self._config.bot_mxid, room)
        await self._ghosts.join(self._config.bot_mxid, room)
        return await self._ghosts.bot.call("GET", path)

    async def _is_encrypted(self, room: str) -> bool:
        try:
            await self._ghosts.bot.call("GET", f"_matrix/client/v3/rooms/{room}/state/m.room.encryption")
        except MatrixRequestError:
            return False
        return True

    # --- catch-up

    async def _read(self, room: str) -> None:
        """Hear everything since the marker. Without one the room is new: what was said before is none of ours, unless
        it replaces another: then all that was said there is.
        """
        marker = await self._store.transact(lambda tx: tx.people.marker(room))
        path = f"_matrix/client/v3/rooms/{room}/messages"
        if not marker:
            now = str((await self._page(path, dir="b", limit="1")).get("start", ""))
            if self._places.succeeds(room):
                await self._read_on(room, path, "")
            await self._mark(room, now)
        else:
            await self._read_on(room, path, marker)

    async def _read_on(self, room: str, path: str, marker: str) -> None:
        """Hear what comes after the marker, or all there is."""
        while True:
            page = await self._page(path, dir="f", limit=str(PAGE), **({"from": marker} if marker else {}))
            events = [parse({"room_id": room, **raw}) for raw in page.get("chunk", [])]
            await self._hear([event for event in events if event])
            end = page.get("end")
            if not isinstance(end, str) or end == marker:
                return
            marker = end
            if _settled(events):
                await self._mark(room, marker)

    async def _page(self, path: str, **query: str) -> dict[str, Any]:
        try:
            return await self._ghosts.bot.call("GET", path, **query)
        except MatrixRequestError as error:
            raise Deferred(f"the homeserver does not show the room: {error}") from None

    async def _mark(self, room: str, marker: str) -> None:
        if marker:
            await self._store.transact(lambda tx: tx.people.mark(room, marker))

    async def find(self, room: str, uid: str, since: float) -> str:
        """The event that carries one of our deliveries, among those newer than `since`; "" when there is none."""
        query = {"dir": "b", "limit": str(PAGE)}
        while True:
            page = await self._page(f"_matrix/client/v3/rooms/{room}/messages", **query)
            for raw in page.get("chunk", []):
                if raw.get("content", {}).get(DELIVERY) == uid:
                    return str(raw["event_id"])
            old = any(raw.get("origin_server_ts", 0) / 1000 < since - 600 for raw in page.get("chunk", []))
            if old or not page.get("chunk") or not page.get("end"):
                return ""
            query["from"] = page["end"]

    # --- rights

    async def _judge(self, room: str) -> None:
        """Once after a start or a return; from then on changes are heard."""
        await self._follow_missed(room)
        if room not in self._judged and not self._places.is_upgraded(room):
            missing = await self.missing_rights(room)
            await self._store.transact(self._places.tell_rights, room, missing)
            await self._store.transact(self._places.announce_news, room)
            self._judged.add(room)

    async def _follow_missed(self, room: str) -> None:
        """Its tombstone may have been heard by one who did not know what it means, or by nobody."""
        if room not in self._judged and not self._places.is_upgraded(room) and await self.upgrades.replacement(room):
            await self._store.transact(self._places.follow, room)

    async def missing_rights(self, room: str) -> list[str]:
        """What the bot and the ghosts cannot do here, as keys of the catalogue."""
        levels = await self._state(room, "m.room.power_levels")
        create = await self._state(room, "m.room.create", format="event")  # the content alone names no creator
        return missing(levels, creators(create), self._config.bot_mxid)

    async def is_space(self, room: str) -> bool:
        """Whether it holds other rooms (Matrix spec, "Spaces")."""
        return (await self._state(room, "m.room.create")).get("type") == "m.space"

    async def _state(self, room: str, type_: str, **query: str) -> dict[str, Any]:
        """{} when the room has none, or the homeserver does not show it."""
        try:
            return await self._ghosts.bot.call("GET", f"_matrix/client/v3/rooms/{room}/state/{type_}", **query)
        except MatrixRequestError:
            return {}


def _settled(events: Sequence[RoomEvent | None]) -> bool:
    """Whether a marker after these is past everything. Pages go by depth: of two events sent at the same moment the
    later one may come to stand before the earlier one, so the last moments are read again.
    """
    newest = max((event.when for event in events if event), default=0.0)
    return newest < time.time() - SETTLED
