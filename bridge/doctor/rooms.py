"""The mapped rooms as the homeserver has them: found, entered, readable, and with the rights the bridge needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from urllib.parse import quote

from bridge.config import Config, Mapping
from bridge.doctor.homeserver import Asked
from bridge.doctor.line import Line, note, ok, trouble
from bridge.matrix.rights import creators, may_set, missing
from bridge.texts import Texts

_INVITES = {  # of a sync, nothing but the rooms we are invited to
    "presence": {"types": []},
    "account_data": {"types": []},
    "room": {"timeline": {"limit": 1, "types": []}, "state": {"types": []}, "ephemeral": {"types": []}},
}


async def rooms(config: Config, ask: Asked, mappings: Iterable[Mapping], *, known: bool) -> list[Line]:
    """A line or more for each room. `known`: the bot is registered; before, nobody lets it look into a room."""
    names = list(dict.fromkeys([each.room for each in mappings] + [config.management_room, config.rooms.space]))
    look = _Look(config, ask, known)
    lines = [line for part in await asyncio.gather(*(look.at(name) for name in filter(None, names))) for line in part]
    if not known and any(line.state == "note" for line in lines):
        return [*lines, note("rooms", "what the bot may do there is seen after the first start", "run doctor again")]
    if not config.management_room:
        lines.append(note("rooms", "nobody is told of trouble in Matrix", "name a `management_room`, invite the bot"))
    return lines


class _Look:
    def __init__(self, config: Config, ask: Asked, known: bool) -> None:
        self._config = config
        self._ask = ask
        self._known = known
        self._say = Texts("en")
        self._invited: frozenset[str] | None = None
        self._asking = asyncio.Lock()

    async def at(self, name: str) -> list[Line]:
        room, lost = await self._found(name)
        if lost:
            return [lost]
        if not self._known:
            return [note(f"room {name}", "is there")]
        said = await self._ask("GET", f"_matrix/client/v3/rooms/{_quoted(room)}/state/m.room.member/{self._ask.bot}")
        if said.status != 200 or said.body.get("membership") != "join":
            return [await self._outside(name, room)]
        return await self._inside(name, room)

    async def _found(self, name: str) -> tuple[str, Line | None]:
        if not name.startswith("#"):
            return name, None
        said = await self._ask("GET", f"_matrix/client/v3/directory/room/{_quoted(name)}", "")
        if said.status == 200:
            return str(said.body.get("room_id", "")), None
        remedy = "make the room, or give it this alias (its settings, Addresses), or mend the name in the configuration"
        return "", trouble(f"room {name}", f"no room has this alias: {said.why}", remedy)

    async def _outside(self, name: str, room: str) -> Line:
        bot = self._ask.bot
        async with self._asking:
            if self._invited is None:
                said = await self._ask("GET", "_matrix/client/v3/sync", filter=json.dumps(_INVITES), timeout="0")
                self._invited = frozenset(said.body.get("rooms", {}).get("invite", {}))
        if room in self._invited:
            return ok(f"room {name}", f"{bot} is invited, and joins when the bridge runs")
        return trouble(f"room {name}", f"{bot} is not in the room", f"invite it there: /invite {bot}")

    async def _inside(self, name: str, room: str) -> list[Line]:
        state = f"_matrix/client/v3/rooms/{_quoted(room)}/state"
        levels, create, secret, gone = await asyncio.gather(
            self._ask("GET", f"{state}/m.room.power_levels"),
            self._ask("GET", f"{state}/m.room.create", format="event"),
            self._ask("GET", f"{state}/m.room.encryption"),
            self._ask("GET", f"{state}/m.room.tombstone"),
        )
        about, lines = f"room {name}", []
        if secret.status == 200:
            lines.append(
                trouble(about, "is encrypted: the bridge carries nothing there", "map a room without encryption")
            )
        if gone.status == 200:
            follower = str(gone.body.get("replacement_room", "another room"))
            lines.append(note(about, f"was upgraded: it goes on in {follower}", "invite the bot there, map that one"))
        content = levels.body if levels.status == 200 else {}
        above = creators(create.body if create.status == 200 else {})
        if name == self._config.rooms.space:
            return [self._space(about, may=may_set(content, above, self._ask.bot, "m.space.child"))]
        lacking = missing(content, above, self._ask.bot)
        if name == self._config.management_room:
            lacking = [right for right in lacking if right == "right-speak"]
        remedy = f"in the room's settings, Roles & permissions; most simply: make {self._ask.bot} a moderator"
        lines += [trouble(about, f"a right is missing: {self._plain(right)}", remedy) for right in lacking]
        return lines or [ok(about, f"{self._ask.bot} is there, with the rights it needs")]

    def _space(self, about: str, *, may: bool) -> Line:
        if may:
            return ok(about, f"{self._ask.bot} may put rooms of conversations into this space")
        remedy = f"in the space's settings, Roles & permissions; most simply: make {self._ask.bot} a moderator"
        return trouble(about, f"{self._ask.bot} may not put rooms into this space", remedy)

    def _plain(self, right: str) -> str:
        return self._say(right).replace("for me", "for the bot")


def _quoted(part: str) -> str:
    return quote(part, safe="")
