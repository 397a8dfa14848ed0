"""What the bot and the ghosts may do in a room, by its power levels (Matrix spec, m.room.power_levels). Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

_INTEGER = re.compile(r"\s{0,9}[+-]?\d{1,16}\s{0,9}", re.ASCII)
_VERSION = re.compile(r"\d{1,4}", re.ASCII)
ANNOUNCED = ("m.bridge", "uk.half-shot.bridge")  # MSC2346, and as long as it is not in the spec
_PRIVILEGED = 12  # the first room version in which whoever made the room is above all levels (MSC4289)


def missing(levels: Any, creators: Collection[str], bot: str) -> list[str]:
    """Which rights are missing, as keys of the catalogue. `levels` is the content of the event, {} without one."""
    mine = power(levels, creators, bot)
    ghosts = _level(levels, "users_default", 0)
    speak, react = _needed(levels, "m.room.message"), _needed(levels, "m.reaction")
    rights = {
        "right-speak": mine >= speak,
        "right-react": mine >= react,
        "right-invite": mine >= _level(levels, "invite", 0),
        "right-ghosts": ghosts >= speak,
        "right-announce": all(mine >= _needed_for_state(levels, type_) for type_ in ANNOUNCED),
    }
    return [right for right, given in rights.items() if not given]


def power(levels: Any, creators: Collection[str], mxid: str) -> float:
    """The level of somebody."""
    return math.inf if mxid in creators else _level(_part(levels, "users"), mxid, _level(levels, "users_default", 0))


def may_set(levels: Any, creators: Collection[str], mxid: str, type_: str) -> bool:
    """Whether somebody may send state events of that type."""
    return power(levels, creators, mxid) >= _needed_for_state(levels, type_)


def needed_to_map(levels: Any) -> float:
    """The level that may change the settings of a room: what a mapping is. 50 where the room does not say."""
    return _level(levels, "state_default", 50)


def powerful(levels: Any, creators: Collection[str]) -> list[str]:
    """Who has that level, as far as the room names them, the highest first."""
    named = {mxid: power(levels, creators, mxid) for mxid in (*creators, *_part(levels, "users"))}
    return sorted((mxid for mxid in named if named[mxid] >= needed_to_map(levels)), key=lambda mxid: -named[mxid])


def creators(create: Any) -> frozenset[str]:
    """Who is above all levels: none but in newer rooms. `create` is the whole m.room.create event."""
    content = _part(create, "content")
    version = content.get("room_version")
    if not (isinstance(version, str) and _VERSION.fullmatch(version) and int(version) >= _PRIVILEGED):
        return frozenset()
    more = content.get("additional_creators")
    named = [create.get("sender"), *(more if isinstance(more, list) else [])]
    return frozenset(mxid for mxid in named if isinstance(mxid, str))


def _needed(levels: Any, event: str) -> float:
    return _level(_part(levels, "events"), event, _level(levels, "events_default", 0))


def _needed_for_state(levels: Any, event: str) -> float:
    """Without any power levels everybody may (Matrix spec, m.room.power_levels)."""
    return _level(_part(levels, "events"), event, _level(levels, "state_default", 50 if levels else 0))


def _level(levels: Any, key: str, otherwise: float) -> float:
    """Rooms before version 10 may have levels as strings, and very old ones anything: then the default holds."""
    value = levels.get(key) if isinstance(levels, dict) else None
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(2**53) < value < 2**53:
        return otherwise  # infinities and NaN too
    return int(value)


def _part(levels: Any, key: str) -> dict[str, Any]:
    value = levels.get(key) if isinstance(levels, dict) else None
    return value if isinstance(value, dict) else {}
