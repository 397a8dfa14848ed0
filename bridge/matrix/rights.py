"""What the bot and the ghosts may do in a room, by its power levels (Matrix spec, m.room.power_levels). Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

_INTEGER = re.compile(r"\s{0,9}[+-]?\d{1,16}\s{0,9}", re.ASCII)
_VERSION = re.compile(r"\d{1,4}", re.ASCII)
_PRIVILEGED = 12  # the first room version in which whoever made the room is above all levels (MSC4289)


def missing(levels: Any, creators: Collection[str], bot: str) -> list[str]:
    """Which rights are missing, as keys of the catalogue. `levels` is the content of the event, {} without one."""
    mine = math.inf if bot in creators else _level(_part(levels, "users"), bot, _level(levels, "users_default", 0))
    ghosts = _level(levels, "users_default", 0)
    speak, react = _needed(levels, "m.room.message"), _needed(levels, "m.reaction")
    rights = {
        "right-speak": mine >= speak,
        "right-react": mine >= react,
        "right-invite": mine >= _level(levels, "invite", 0),
        "right-ghosts": ghosts >= speak,
    }
    return [right for right, given in rights.items() if not given]


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
