"""The rooms: which scope is mapped where, by what name people know them, and how something is posted into them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

from bridge import payload
from bridge.choice import Facts, chosen
from bridge.config import Config, Mapping
from bridge.model import Delivery, Unavailable
from bridge.payload import (
    Announce,
    CardPost,
    Chart,
    Decline,
    Enter,
    Follow,
    Left,
    LinePost,
    Locate,
    Mark,
    Post,
    Preview,
    Reword,
    Rights,
    Unmark,
)
from bridge.store import Tx
from bridge.texts import Texts

Shown = Post | CardPost | LinePost | Reword | Mark | Unmark | Preview | Enter | Locate | Chart


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand in a room for somebody who wants a mapping there."""

    level: float  # of who asks, by the room's power levels
    needed: float
    powerful: tuple[str, ...]  # who has that level
    encrypted: bool
    missing: tuple[str, ...]  # rights that the bot and the ghosts lack, as keys of the catalogue


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
        self._resolved: dict[str, str] = {}
        self._fresh: set[str] = set()
        self._own: dict[int, str] = {}  # conversations that have, or had (""), a room of their own
        self._home: dict[str, str] = {}  # by such a room, the one that its conversation came from
        self._next: dict[str, str] = {}  # what came after each upgraded room, "" while that cannot be entered
        self._index()
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
        """All mappings, in order of precedence: what is declared comes before what was made for that scope and room.

        Rules read this in another thread: each part is built whole and then put in its place.
        """
        pinned = {self._place(mapping) for mapping in self.declared}
        made = (mapping for mapping in self.made if self._place(mapping) not in pinned)
        mappings = [each for each in (*self.declared, *made) if each.connector in self._connectors]
        by_scope: dict[tuple[str, str], list[Mapping]] = {}
        scopes: dict[str, set[str]] = {}
        for mapping in mappings:
            by_scope.setdefault((mapping.connector, mapping.scope), []).append(mapping)
            scopes.setdefault(mapping.connector, set()).add(mapping.scope)
        self._mappings, self._by_scope = mappings, by_scope
        self._choosy = {place for place, found in by_scope.items() if any(each.only or not each.new for each in found)}
        self._scopes = {name: frozenset(found) for name, found in scopes.items()}  # asked for with every recipient

    def _place(self, mapping: Mapping) -> tuple[str, str, str]:
        """An alias and the id of the same room are the same place, as soon as that is known."""
        return mapping.connector, mapping.scope, self._resolved.get(mapping.room, mapping.room)

    def resolve(self, name: str, room: str) -> None:
        """Room id of an alias, or of itself."""
        self.recall(name, room)
        self._fresh.add(name)

    def recall(self, name: str, room: str) -> None:
        """What the alias meant in an earlier life: good enough to take messages until the homeserver answers."""
        room = self.successor(room)
        if self._resolved.get(name) != room:
            self._resolved = {**self._resolved, name: room}
            if self.made:  # which of them are declared, too, by another name of the room
                self._index()

    def known(self, name: str) -> str:
        """Room id that a name meant last, "" when it was never looked up."""
        return self._resolved.get(name, "")

    # --- rooms that were upgraded

    def upgrades(self, successors: dict[str, str]) -> None:
        """From now on these rooms are upgraded: their names mean what came after, "" where that is not entered yet."""
        self._next = dict(successors)
        self._resolved = {name: self.successor(room) for name, room in self._resolved.items()}
        self.management = self.successor(self.management)
        self._index()

    def successor(self, room: str) -> str:
        """The room that a conversation of `room` lives in now: itself unless it was upgraded and that was followed."""
        seen: set[str] = set()
        while (later := self._next.get(room)) and room not in seen:
            seen.add(room)
            room = later
        return room

    def origin(self, room: str) -> str:
        """The first of the rooms that replaced each other until there was this one: what came there came here.

        For a conversation's own room, that of the room which it came from.
        """
        room = self._home.get(room, room)
        replaced, seen = {later: room for room, later in self._next.items()}, set[str]()
        while (before := replaced.get(room)) and room not in seen:
            seen.add(room)
            room = before
        return room

    def is_upgraded(self, room: str) -> bool:
        """Whether a room was replaced by another."""
        return room in self._next

    def awaits_successor(self, room: str) -> bool:
        """Whether it was upgraded to a room that cannot be entered yet: nothing may be shown in the old one."""
        return self._next.get(room) == ""

    def awaiting(self) -> list[str]:
        """Upgraded rooms whose replacement is not entered yet."""
        return [room for room, later in self._next.items() if not later]

    def succeeds(self, room: str) -> bool:
        """Whether it replaced another room."""
        return room in self._next.values()

    @property
    def any_upgraded(self) -> bool:
        return bool(self._next)

    # --- rooms of their own

    def own(self, rooms: dict[int, tuple[str, str]]) -> None:
        """From now on these conversations have a room of their own: (room, whence they came); "" where that is over."""
        self._own = {conversation: room for conversation, (room, _) in rooms.items()}
        self._home = {room: home for room, home in rooms.values() if room}

    def has_moved(self, conversation: int | None) -> bool:
        """Whether a conversation has a room of its own, or had one."""
        return conversation in self._own

    def is_own(self, room: str) -> bool:
        """Whether the whole room is one conversation."""
        return room in self._home

    @property
    def own_rooms(self) -> frozenset[str]:
        """Those that are a whole conversation each."""
        return frozenset(self._home)

    @property
    def any_own(self) -> bool:
        return bool(self._home)

    # --- which rooms

    def unresolved(self) -> list[str]:
        """Rooms of mappings that were not looked up since the start."""
        return sorted({mapping.room for mapping in self._mappings} - self._fresh)

    def rooms_of(
        self, connector: str, scopes: Iterable[str], facts: Callable[[], Facts] = dict,
        homes: Callable[[], Collection[str]] = tuple,
    ) -> dict[str, str]:  # fmt: skip
        """Scope by room id, for every room that takes what has these facts and came for one of the scopes.

        `homes` are the rooms where its conversations are already: of a scope with filters they keep it, whatever the
        filters say now; and a mapping that takes nothing new takes what is there. Both are asked for only where that
        matters. Raises `Unavailable` when one of the rooms
        is not known yet: nothing may be lost for it.
        """
        found: list[Mapping] = []
        for scope in dict.fromkeys(scopes):
            mappings = self._by_scope.get((connector, scope), [])
            missing = [mapping.room for mapping in mappings if mapping.room not in self._resolved]
            if missing:
                raise Unavailable(f"the room {missing[0]} is not known yet")
            if (connector, scope) in self._choosy:
                kept = homes()
                at_home = [mapping for mapping in mappings if self._resolved[mapping.room] in kept]
                taking = [mapping for mapping in mappings if mapping.new]
                filtered = any(mapping.only for mapping in taking)
                stays = filtered and any(mapping.new for mapping in at_home)
                mappings = at_home if stays else [*chosen(taking, facts), *(each for each in at_home if not each.new)]
            found += mappings
        return {self._resolved[mapping.room]: mapping.scope for mapping in reversed(found)}

    def scopes_of(self, connector: str) -> frozenset[str]:
        """Mapped scopes of a connector."""
        return self._scopes.get(connector, frozenset())

    def mappings_to(self, connector: str, scope: str) -> list[Mapping]:
        """Every mapping of a scope."""
        return list(self._by_scope.get((connector, scope), ()))

    def mappings_of(self, room: str) -> list[Mapping]:
        """Every mapping to a room."""
        return [mapping for mapping in self._mappings if self._resolved.get(mapping.room) == room]

    def carries(self, room: str, connector: str) -> bool:
        """Whether anything of that connector is mapped to a room."""
        return any(mapping.connector == connector for mapping in self.mappings_of(room))

    def serves(self, room: str, connector: str, scope: str) -> bool:
        """Whether that scope is mapped to a room, or to the one that came after it."""
        room = self.successor(room)
        return any(self._resolved.get(mapping.room) == room for mapping in self._by_scope.get((connector, scope), ()))

    def sees(self, room: str, connector: str, scopes: Collection[str] = (), *, private: bool = False) -> Mapping | None:
        """The mapping by which a room may see what belongs to one of these scopes (none: nobody can tell to which)
        and, with `private`, is only for rooms that see private notes; None when it may not.
        """
        here = [each for each in self.mappings_of(self.successor(room)) if each.connector == connector]
        fitting = (each for each in here if (not scopes or each.scope in scopes) and (each.private or not private))
        return next(fitting, None)

    def private(self, room: str, connector: str, scope: str) -> bool:
        """Whether a room may see the private notes of that scope."""
        found = [mapping for mapping in self._by_scope.get((connector, scope), ()) if mapping.private]
        return any(self._resolved.get(mapping.room) == room for mapping in found)

    def pinned(self, mapping: Mapping) -> bool:
        """Whether it is the configuration that says so, and not somebody in the room."""
        return any(mapping is each for each in self.declared)

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

    def wanted(self) -> set[str]:
        """Rooms where the bot is to be, whoever invites it."""
        named = {mapping.room for mapping in self._mappings}
        return self.mapped() | named | set(filter(None, [self.management]))

    def is_ours(self, tx: Tx, room: str) -> bool:
        """Whether something of the bridge lives in a room."""
        return room in self.mapped() or room == self.management or tx.conversations.has_any(room)

    def spoken(self, room: str) -> str:
        """What is mapped to a room, for people."""
        scopes = sorted({f"{each.scope} ({each.connector})" for each in self.mappings_of(room)})
        return ", ".join(scopes) or self._say("no-mapping")

    def names(self, room: str) -> list[str]:
        """By what the configuration and people name a room."""
        return [name for name, known in self._resolved.items() if known == room]

    def name(self, room: str) -> str:
        """The alias people know the room by, or a link."""
        aliases = [name for name, known in self._resolved.items() if known == room and name.startswith("#")]
        return aliases[0] if aliases else link(room)

    def post(self, tx: Tx, shown: Shown, conversation: int | None = None) -> None:
        """Write down that something is to appear in a room, after what is to appear in its thread before."""
        lane = f"matrix:{conversation}" if conversation else f"matrix:{shown.room}"
        tx.queue.add(lane, "matrix", payload.kind_of(shown), payload.dump(shown), conversation=conversation)

    def post_newest(self, tx: Tx, shown: CardPost | LinePost, conversation: int) -> None:
        """As `post`, for what is sent once and edited ever after: what certainly still waits is reworded instead.

        The first that waits may be under way, unless it was written down in this very transaction.
        """
        fresh = {row.uid for row in tx.queue.fresh}
        rows = tx.queue.unsent(f"matrix:{conversation}", payload.kind_of(shown))
        same = [row for row in rows if _same(payload.load(type(shown), row.payload), shown)]
        tried = same and (same[-1].attempts or same[-1].doubt is not None)  # a dead letter that was brought back
        if same and not tried and (len(same) > 1 or same[0].uid in fresh):
            tx.queue.amend(same[-1].uid, payload.dump(shown))
        else:
            self.post(tx, shown, conversation)

    def follow(self, tx: Tx, room: str, sender: str = "") -> None:
        """It was upgraded: go where it goes on. Until then what is to be shown there waits."""
        tx.mappings.closes(room)
        successors = tx.mappings.successors()
        tx.committed.append(lambda: self.upgrades(successors))
        tx.queue.add(f"matrix:{room}:follow", "matrix", "follow", payload.dump(Follow(room, sender)))

    def check_presence(self, tx: Tx, room: str) -> None:
        """See whether anybody is left there; two of these are enough, for one may be under way."""
        lane = f"matrix:{room}:left"
        if len(tx.queue.head(lane, 0, 2)) < 2:
            tx.queue.add(lane, "matrix", "left", payload.dump(Left(room)))

    def decline(self, tx: Tx, room: str, mxid: str, sender: str) -> None:
        """All in one lane: however many invitations come, and however slow the homeservers of those who send them."""
        tx.queue.add("matrix:invitations", "matrix", "decline", payload.dump(Decline(room, mxid, sender)))

    def check_rights(self, tx: Tx, room: str) -> None:
        """In a lane of its own: in the room's, what the bot may not say any more would keep this waiting."""
        tx.queue.add(f"matrix:{room}:rights", "matrix", "rights", payload.dump(Rights(room)))

    def announce(self, tx: Tx) -> None:
        """Have the rooms told what is mapped to them, where that is not what they were told last."""
        told = tx.mappings.announced()
        wanted = {(self.room_of(mapping), state_key(mapping)) for mapping in self._mappings}
        for room in sorted({where for where, _ in told ^ wanted} - {""}):
            self.announce_in(tx, room)

    def announce_news(self, tx: Tx, room: str) -> None:
        """The same for one room, if it was not told of all that is mapped to it."""
        if not {(room, state_key(mapping)) for mapping in self.mappings_of(room)} <= tx.mappings.announced():
            self.announce_in(tx, room)

    def announce_in(self, tx: Tx, room: str) -> None:
        """In a lane of its own, as that of rights."""
        tx.queue.add(f"matrix:{room}:announce", "matrix", "announce", payload.dump(Announce(room)))

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


def _same(one: CardPost | LinePost, other: CardPost | LinePost) -> bool:
    """Whether both are about one message."""
    return one.item == other.item and getattr(one, "line", 0) == getattr(other, "line", 0)


def state_key(mapping: Mapping) -> str:
    """Of the state event that announces a mapping (MSC2346): {bridge}://{network}/{channel}, at most 255 bytes."""
    key = f"passerelle://{quote(mapping.connector, safe='')}/{quote(mapping.scope, safe='@')}"
    return key if len(key) <= 255 else f"passerelle://{sha256(key.encode()).hexdigest()}"
