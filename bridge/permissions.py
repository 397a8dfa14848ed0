"""Who may do what: one table of acts and levels, for commands and reactions, for help, and for the documentation."""

from __future__ import annotations

from typing import Literal

from bridge.config import EVERYBODY, Config, Permissions
from bridge.texts import Texts

Level = Literal["inside", "use", "map", "administer"]  # each may all that those before it may

EVERY_ROOM = "mappings of every room"  # what the management room shows

ACTS: dict[str, Level] = {
    "help": "inside",
    "cancel": "inside",  # whoever sees something leave that must not
    "reply": "use",
    "send": "use",
    "retry": "use",
    "original": "use",
    "link": "use",
    "unlink": "use",
    "room": "use",
    "find": "use",
    "me": "use",
    "mappings": "use",
    "map": "map",
    "unmap": "map",
    "test": "map",
    EVERY_ROOM: "administer",
}
TOOLS: Level = "use"  # the words that connectors add

_WHO: dict[Level, tuple[str, str]] = {
    "inside": ("everybody of the company", "`inside`"),
    "use": ("those who use it: at first everybody of the company", "`permissions.use`"),
    "map": ("those who map rooms, each for some connectors; with power in the room", "`permissions.map`"),
    "administer": ("administrators: all of the above, too", "`permissions.administer`"),
}
MOST_NAMES = 5


class Permits:
    """Whom the configuration allows what; it can change while the bridge runs."""

    def __init__(self, config: Config, say: Texts) -> None:
        self._config = config
        self._say = say

    def change(self, permissions: Permissions) -> None:
        """From now on these hold."""
        self._config = self._config.model_copy(update={"permissions": permissions})

    def may(self, mxid: str, act: str, connector: str = "") -> bool:
        """Whether somebody may do it; without a `connector`, with any of them."""
        level = level_of(act)
        if level == "inside":
            return self._config.is_inside(mxid)
        if level == "use":
            return self._config.may_use(mxid)
        if level == "administer":
            return self._config.may_administer(mxid)
        names = [connector] if connector else self._config.connectors
        return any(self._config.may_map(mxid, name) for name in names)

    def why_not(self, mxid: str, act: str, connector: str = "") -> str:
        """ "" when somebody may do it, else whose right it is, as a sentence."""
        if self.may(mxid, act, connector):
            return ""
        level = level_of(act)
        if level == "inside" or not self._config.is_inside(mxid):
            return self._say("not-allowed", who=mxid)
        names = ", ".join(self._names(level, connector)) or self._say("nobody-yet")
        if level == "map" and connector:
            return self._say("may-not-map", names=names, connector=connector)
        return self._say("may-not", names=names, act=act, key=f"permissions.{level}")

    def _names(self, level: Level, connector: str) -> list[str]:
        """Who may, as the configuration names them."""
        permissions = self._config.permissions
        listed = set(permissions.administer)
        if level == "use":
            listed |= permissions.use
        if level == "map":
            wanted = (connector, EVERYBODY) if connector else tuple(permissions.map)
            listed = listed.union(*(permissions.map.get(name, frozenset()) for name in wanted))
        names = sorted(listed)
        return [*names[:MOST_NAMES], "…"] if len(names) > MOST_NAMES else names


def level_of(act: str) -> Level:
    """The level that an act needs; `act` is the word of a command."""
    return ACTS.get(act, TOOLS)


def table() -> str:
    """The table for the documentation, in Markdown."""
    lines = ["| who | in the configuration | may |", "|---|---|---|"]
    for level, (who, key) in _WHO.items():
        acts = [f"`!{act}`" if act != EVERY_ROOM else "see all mappings in the management room" for act in _of(level)]
        more = ["the words of the tools"] if level == TOOLS else []
        lines.append(f"| {who} | {key} | {', '.join([*acts, *more])} |")
    return "\n".join(lines)


def _of(level: Level) -> list[str]:
    return [act for act, needed in ACTS.items() if needed == level]
