"""The rooms: which scope is mapped where, by what name people know them, and how something is posted into them."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from bridge import payload
from bridge.config import Config, Mapping
from bridge.model import Delivery, Unavailable
from bridge.payload import CardPost, Enter, Locate, Mark, Post, Preview, Reword, Rights, Unmark
from bridge.store import Tx
from bridge.texts import Texts

Shown = Post | CardPost | Reword | Mark | Unmark | Preview | Enter | Locate


def link(room: str, event: str = "") -> str:
    """A matrix.to link (Matrix spec, appendix "matrix.to navigation")."""
    return f"https://matrix.to/#/{quote(room, safe='')}" + (f"/{quote(event, safe='')}" if event else "")


class Places:
    """Mapped rooms. Aliases are resolved once the homeserver answers; until then a mapping leads nowhere yet."""

    def __init__(self, config: Config, say: Texts) -> None:
        self._say = say
        self._connectors = frozenset(config.connectors)
        self.declared = config.mappings
        self.made: tuple[Mapping, ...] = ()
        self._index()
        self._resolved: dict[str, str] = {}
        self._fresh: set[str] = set()
        self.management = ""
        self.encrypted: set[str] = set()  # nothing is carried there until encrypted rooms can be read

    def declare(self, mappings: Iterable[Mapping]) -> None:
        """From now on the configuration maps these."""
        self.declared = tuple(mappings)
        self._index()

    def make(self, mappings: Iterable[Mapping]) -> None:
        """From now on these are mapped by people in their rooms."""
        self.made = tuple(mappings)
        self._index()

    def _index(self) -> None:
        """All mappings, in order of precedence: what is declared comes before what was made for that scope and room."""
        pinned = {_place(mapping) for mapping in self.declared}
        made = (mapping for mapping in self.made if _place(mapping) not in pinned)
        self._mappings = [each for each in (*self.declared, *made) if each.connector in self._connectors]
        self._by_scope: dict[tuple[str, str], list[Mapping]] = {}
        scopes: dict[str, set[str]] = {}
        for mapping in self._mappings:
            self._by_scope.setdefault((mapping.connector, mapping.scope), []).append(mapping)
            scopes.setdefault(mapping.connector, set()).add(mapping.scope)
        self._scopes = {name: frozenset(found) for name, found in scopes.items()}  # asked for with every recipient

    def resolve(self, name: str, room: str) -> None:
        """Room id of an alias, or of itself."""
        self._resolved[name] = room
        self._fresh.add(name)

    def recall(self, name: str, room: str) -> None:
        """What the alias meant in an earlier life: good enough to take messages until the homeserver answers."""
        self._resolved[name] = room

    def unresolved(self) -> list[str]:
        """Rooms of mappings that were not looked up since the start."""
        return sorted({mapping.room for mapping in self._mappings} - self._fresh)

    def rooms_of(self, connector: str, scopes: Iterable[str]) -> dict[str, str]:
        """Scope by room id, for every room that one of the scopes is mapped to.

        Raises `Unavailable` when one of these rooms is not known yet: nothing may be lost for it.
        """
        found = [mapping for scope in dict.fromkeys(scopes) for mapping in self._by_scope.get((connector, scope), ())]
        missing = [mapping.room for mapping in found if mapping.room not in self._resolved]
        if missing:
            raise Unavailable(f"the room {missing[0]} is not known yet")
        return {self._resolved[mapping.room]: mapping.scope for mapping in reversed(found)}

    def scopes_of(self, connector: str) -> frozenset[str]:
        """Mapped scopes of a connector."""
        return self._scopes.get(connector, frozenset())

    def mappings_of(self, room: str) -> list[Mapping]:
        return [mapping for mapping in self._mappings if self._resolved.get(mapping.room) == room]

    def carries(self, room: str, connector: str) -> bool:
        """Whether anything of that connector is mapped to a room."""
        return any(mapping.connector == connector for mapping in self.mappings_of(room))

    def private(self, room: str, connector: str, scope: str) -> bool:
        """Whether a room may see the private notes of that scope."""
        found = [mapping for mapping in self._by_scope.get((connector, scope), ()) if mapping.private]
        return any(self._resolved.get(mapping.room) == room for mapping in found)

    @property
    def mappings(self) -> list[Mapping]:
        """Every mapping, in order of precedence."""
        return list(self._mappings)

    def room_of(self, mapping: Mapping) -> str:
        """Room id of a mapping, "" while it is not known."""
        return self._resolved.get(mapping.room, "")

    def mapped(self) -> set[str]:
        """Room ids of every mapping that is known."""
        return {self._resolved[mapping.room] for mapping in self._mappings if mapping.room in self._resolved}

    def name(self, room: str) -> str:
        """The alias people know the room by, or a link."""
        aliases = [name for name, known in self._resolved.items() if known == room and name.startswith("#")]
        return aliases[0] if aliases else link(room)

    def post(self, tx: Tx, shown: Shown, conversation: int | None = None) -> None:
        """Write down that something is to appear in a room, after what is to appear in its thread before."""
        lane = f"matrix:{conversation}" if conversation else f"matrix:{shown.room}"
        tx.queue.add(lane, "matrix", payload.kind_of(shown), payload.dump(shown), conversation=conversation)

    def check_rights(self, tx: Tx, room: str) -> None:
        """In a lane of its own: in the room's, what the bot may not say any more would keep this waiting."""
        tx.queue.add(f"matrix:{room}:rights", "matrix", "rights", payload.dump(Rights(room)))

    def tell_rights(self, tx: Tx, room: str, missing: list[str]) -> None:
        """Say which rights the bot lacks, in the room and to operators; nothing when it said just that last time."""
        if not tx.people.lacks(room, missing) or not missing:
            return
        rights = [self._say(right) for right in missing]
        self.tell_operators(tx, self._say("lacks-rights", room=self.name(room), rights="; ".join(rights)))
        if room != self.management and "right-speak" not in missing:
            body = "\n".join(self._say("lacks-right", right=right) for right in rights)
            self.post(tx, Post(room, body, notice=True))

    def tell_dead_letter(self, tx: Tx, delivery: Delivery, room: str, reason: str, uid: str = "") -> None:
        """Operators hear of what was given up; `uid` when the dead letter has another name than the delivery."""
        body = self._say(
            "dead-letter", kind=delivery.kind, destination=delivery.destination, room=self.name(room), reason=reason,
            uid=uid or delivery.uid,
        )  # fmt: skip
        self.tell_operators(tx, body)

    def tell_operators(self, tx: Tx, body: str) -> None:
        """A notice in the management room, if there is one."""
        if self.management:
            self.post(tx, Post(self.management, body, notice=True))


def _place(mapping: Mapping) -> tuple[str, str, str]:
    return mapping.connector, mapping.scope, mapping.room
