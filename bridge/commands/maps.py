"""Acts on mappings: which part of a tool lives in a room, made and undone there by those who may."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from bridge import payload
from bridge.choice import leaves_out
from bridge.commands.acts import Acts
from bridge.commands.parse import Command
from bridge.commands.trial import Trials
from bridge.config import Mapping
from bridge.connector import Connector
from bridge.model import RoomEvent
from bridge.outward import Refusal
from bridge.payload import Chart, Post, Survey
from bridge.permissions import EVERY_ROOM, Permits
from bridge.places import Places, Standing
from bridge.store import Conversation, Tx
from bridge.texts import Texts

WORDS = ("map", "unmap", "mappings", "test")
MOST_LINES = 40  # mappings listed at once
MOST_OFFERED = 30  # scopes of a tool listed at once
MOST_ASKED = 5  # tools that are asked at once what they have
LONGEST = 300  # characters of a pattern
_PRIVATE = ("private", "privé")
_LINKED = ("linked", "lié", "liés")
_QUOTES = str.maketrans("“”„«»", '"""""')  # as phones and French keyboards write them
_PART = re.compile(r'(?:(?P<name>[a-z][a-z-]{0,39})=)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody typed after `!map`, taken apart."""

    words: tuple[str, ...]
    private: bool
    only: dict[str, tuple[str, ...]]
    new: bool = True


def read(line: str) -> Wanted:
    """Take the line apart: [connector] scope [private] [linked] [name=pattern …]. Pure.

    Quotes hold a pattern with blanks together; without them a comma parts patterns of which one must fit.
    """
    words: list[str] = []
    only: dict[str, tuple[str, ...]] = {}
    for part in _PART.finditer(line.translate(_QUOTES)):
        value = part["quoted"] if part["bare"] is None else part["bare"]
        if part["name"]:
            patterns = (value,) if part["bare"] is None else tuple(filter(None, value.split(",")))
            name = part["name"].lower()
            only[name] = (*only.get(name, ()), *(pattern[:LONGEST] for pattern in patterns))
        else:
            words.append(value)
    policy = {word.lower() for word in words[1:]}
    kept = words[:1] + [word for word in words[1:] if word.lower() not in (*_PRIVATE, *_LINKED)]
    return Wanted(tuple(kept), not policy.isdisjoint(_PRIVATE), only, new=policy.isdisjoint(_LINKED))


class Maps:
    """Each method is a rule: it runs inside one transaction. Those of commands raise `Refusal`."""

    def __init__(
        self, places: Places, acts: Acts, permits: Permits, connectors: dict[str, Connector], say: Texts
    ) -> None:
        self._places = places
        self._acts = acts
        self._permits = permits
        self._connectors = connectors
        self._say = say
        self.trials = Trials(places, acts, permits, connectors, say)

    def obey(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """Do what was asked. Raises `Refusal`."""
        acts = {"map": self._map, "unmap": self._unmap, "mappings": self._list, "test": self.trials.test}
        act = acts[command.name]
        act(tx, event, command, conversation)

    # --- asked

    def _map(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!map …`: what is missing is asked for, one thing at a time; then the tool is asked whether it has that."""
        allowed = [name for name in sorted(self._connectors) if self._permits.may(event.sender, "map", name)]
        wanted = read(command.first_line)
        if wanted.new and self._places.is_own(event.room):
            raise Refusal(self._say("map-own"))
        if not wanted.words and len(allowed) > 1:
            self._acts.answer(tx, event, conversation, self._say("map-which", connectors=", ".join(allowed)))
            if len(allowed) > MOST_ASKED:
                return
        elif wanted.words:
            allowed = [self._connector(event.sender, wanted.words, allowed)]
        named = bool(wanted.words) and wanted.words[0].lower() == allowed[0].lower()
        scope = wanted.words[1:] if named else wanted.words
        if len(scope) > 1:
            raise Refusal(self._say("map-usage", text=" ".join(scope[1:])))
        for name in allowed:
            self._known(name, wanted.only)
            mapping = Mapping(
                connector=name, scope="".join(scope), room=event.room, private=wanted.private, new=wanted.new,
                only=wanted.only,
            )  # fmt: skip
            survey = Survey(event.room, event.sender, event.id, mapping)
            tx.queue.add(f"{name}:{event.room}:survey", name, "survey", payload.dump(survey))

    def _connector(self, sender: str, words: tuple[str, ...], allowed: list[str]) -> str:
        """The one that is named, or that has the scope that is named. Raises `Refusal`."""
        named = next((name for name in self._connectors if name.lower() == words[0].lower()), "")
        if named:
            if why := self._permits.why_not(sender, "map", named):
                raise Refusal(why)
            return named
        having = [name for name in sorted(self._connectors) if _found(words[0], self._connectors[name].scopes())]
        if len(having) == 1 and having[0] not in allowed:
            raise Refusal(self._permits.why_not(sender, "map", having[0]))
        candidates = [name for name in having if name in allowed] or allowed
        if len(candidates) != 1:
            raise Refusal(self._say("map-whose", scope=words[0], connectors=", ".join(candidates)))
        return candidates[0]

    def _known(self, name: str, only: Iterable[str]) -> None:
        filters = self._connectors[name].filters
        unknown = [fact for fact in only if fact not in filters]
        if unknown:
            known = "; ".join(f"{fact} ({what})" for fact, what in filters.items()) or "—"
            raise Refusal(self._say("map-no-filter", connector=name, filter=unknown[0], filters=known))

    def _unmap(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!unmap [connector] scope`."""
        words = [word.lower() for word in read(command.first_line).words]
        here = self._places.mappings_of(event.room)
        found = [each for each in here if words and words in ([each.scope.lower()], _names(each))]
        if not found:
            known = "; ".join(f"!unmap {each.connector} {each.scope}" for each in here) or self._say("nothing-mapped")
            raise Refusal(self._say("unmap-which", mappings=known))
        connectors = sorted({each.connector for each in found})
        if len(connectors) > 1:
            raise Refusal(self._say("map-whose", scope=found[0].scope, connectors=", ".join(connectors)))
        if why := self._permits.why_not(event.sender, "unmap", found[0].connector):
            raise Refusal(why)
        if self._places.pinned(found[0]):
            raise Refusal(self._say("map-pinned", scope=found[0].scope, connector=found[0].connector))
        self._places.post(tx, Chart(event.room, event.sender, event.id, found[0], undo=True))

    def _list(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!mappings`: of this room; of all, for administrators in the management room."""
        everywhere = event.room == self._places.management and self._permits.may(event.sender, EVERY_ROOM)
        mappings = self._places.mappings if everywhere else self._places.mappings_of(event.room)
        lines = [self._line(tx, mapping, everywhere) for mapping in mappings[:MOST_LINES]]
        if len(mappings) > MOST_LINES:
            lines.append(self._say("and-more", count=len(mappings) - MOST_LINES))
        self._acts.answer(tx, event, conversation, "\n".join(lines) or self._say("nothing-mapped"))

    def _line(self, tx: Tx, mapping: Mapping, everywhere: bool) -> str:
        room = self._places.room_of(mapping)
        where = f" → {self._places.name(room) if room else mapping.room}" if everywhere else ""
        maker = tx.mappings.maker(mapping)
        by = self._say("mapped-by", who=tx.people.name(maker)) if maker else self._say("mapped-pinned")
        said = [self._policy(mapping), by, self._say("room-unknown") if not room else ""]
        return f"{mapping.scope} ({mapping.connector}){where}: {'; '.join(filter(None, said))}"

    def _policy(self, mapping: Mapping) -> str:
        """The filters and the audience of a mapping, in words; "" when there is nothing to say."""
        only = ", ".join(f"{fact} = {' | '.join(patterns)}" for fact, patterns in mapping.only.items())
        said = {"mapped-only": bool(only), "mapped-private": mapping.private, "mapped-linked": not mapping.new}
        return "; ".join(self._say(key, only=only) for key, so in said.items() if so)

    # --- what the tool has

    def unknown(self, tx: Tx, survey: Survey, reason: str) -> None:
        """The tool does not say what it has."""
        self._say_in(tx, survey, self._say("tool-unasked", connector=survey.mapping.connector, reason=reason))

    def offered(self, tx: Tx, survey: Survey, offers: Sequence[str]) -> None:
        """The tool has these: is the wanted one among them, who asks must have power in the room."""
        mapping = survey.mapping
        scope = _found(mapping.scope, offers)
        if why := self._permits.why_not(survey.sender, "map", mapping.connector):  # since it was typed
            self._say_in(tx, survey, why)
        elif scope:
            mapping = mapping.model_copy(update={"scope": scope})
            self._places.post(tx, Chart(survey.room, survey.sender, survey.event, mapping))
        elif not offers:
            self._say_in(tx, survey, self._say("tool-empty", connector=mapping.connector))
        else:
            near = get_close_matches(mapping.scope, offers, 1) or list(offers)
            shown = [*offers[:MOST_OFFERED], *(["…"] if len(offers) > MOST_OFFERED else [])]
            key = "map-no-scope" if mapping.scope else "map-offer"
            self._say_in(
                tx, survey,
                self._say(
                    key, connector=mapping.connector, scope=mapping.scope, offers=", ".join(shown),
                    example=f"!map {mapping.connector} {_quoted(near[0])}",
                ),
            )  # fmt: skip

    # --- what the room says

    def settled(self, tx: Tx, chart: Chart, standing: Standing) -> None:
        """The room is known: make the mapping, or undo it, or say whose right is missing."""
        refusal = self._permits.why_not(chart.sender, "map", chart.mapping.connector) or self._refusal(chart, standing)
        if refusal:
            return self._say_in(tx, chart, refusal)
        if chart.undo:
            return self._undone(tx, chart)
        self._places.tell_rights(tx, chart.room, list(standing.missing))
        return self._made(tx, chart)

    def _refusal(self, chart: Chart, standing: Standing) -> str:
        if standing.level < standing.needed:
            who = ", ".join(standing.powerful[:3]) or self._say("nobody-yet")
            level = max(int(standing.level), -100)
            return self._say("map-power", needed=int(standing.needed), level=level, who=who)
        if self._places.is_upgraded(chart.room):
            return self._say("map-upgraded")
        if standing.encrypted and not chart.undo:
            return self._say("map-encrypted")
        if chart.mapping.private and self._places.is_own(chart.room) and not chart.undo:
            return self._say("map-own-private")
        there = [each for each in self._places.mappings_of(chart.room) if _names(each) == _names(chart.mapping)]
        if any(map(self._places.pinned, there)):
            return self._say("map-pinned", scope=chart.mapping.scope, connector=chart.mapping.connector)
        return ""

    def _made(self, tx: Tx, chart: Chart) -> None:
        mapping, room = chart.mapping, chart.room
        if not self._places.scopes_of(mapping.connector):
            tx.conversations.moved_on(mapping.connector, "")  # what happened while nobody wanted it is none of ours
        if not self._places.mappings_of(room):
            tx.people.mark(room, "")  # nor what was said here
        tx.people.resolved(room, room)
        tx.mappings.make(mapping, chart.sender)
        self._follow(tx, room)
        self._say_in(tx, chart, self._confirmed(mapping, room))
        self._tell(tx, "operators-mapped", chart)

    def _confirmed(self, mapping: Mapping, room: str) -> str:
        others = [
            each
            for each in self._places.mappings_to(mapping.connector, mapping.scope)
            if self._places.room_of(each) != room
        ]
        done = "mapped" if mapping.new else "mapped-when-linked"
        lines = [self._say(done, scope=mapping.scope, connector=mapping.connector), self._policy(mapping)]
        if others:
            rooms = sorted({self._places.name(self._places.room_of(each) or each.room) for each in others})
            lines.append(self._say("mapped-elsewhere", rooms=", ".join(rooms)))
        if leaves_out([mapping, *others]) and any(each.only for each in (mapping, *others)):
            lines.append(self._say("mapped-leaves-out", scope=mapping.scope))
        return "\n".join(filter(None, [*lines, self._say("mapped-how")]))

    def _undone(self, tx: Tx, chart: Chart) -> None:
        if not tx.mappings.remove(chart.mapping):
            return self._say_in(tx, chart, self._say("unmap-which", mappings=self._say("nothing-mapped")))
        self._follow(tx, chart.room)
        self._places.check_presence(tx, chart.room)
        self._say_in(tx, chart, self._say("unmapped", scope=chart.mapping.scope, connector=chart.mapping.connector))
        return self._tell(tx, "operators-unmapped", chart)

    def _follow(self, tx: Tx, room: str) -> None:
        """Memory says the same as the tables, once they say it for good; the room is told."""
        tx.committed.append(partial(self._places.recall, room, room))  # first: what is mapped to it may arrive just now
        tx.committed.append(partial(self._places.make, tx.mappings.made()))
        self._places.announce_in(tx, room)

    def _tell(self, tx: Tx, key: str, chart: Chart) -> None:
        if chart.room != self._places.management:
            mapping, room = chart.mapping, self._places.name(chart.room)
            body = self._say(key, who=chart.sender, scope=mapping.scope, connector=mapping.connector, room=room)
            self._places.tell_operators(tx, body)

    def _say_in(self, tx: Tx, asked: Survey | Chart, body: str) -> None:
        self._places.post(tx, Post(asked.room, body, notice=True, answers=asked.event, mentions=(asked.sender,)))


def _names(mapping: Mapping) -> list[str]:
    return [mapping.connector.lower(), mapping.scope.lower()]


def _found(scope: str, offers: Iterable[str]) -> str:
    """The scope as the tool writes it, "" when it has none like that."""
    offers = list(offers)
    return next((each for each in offers if each == scope), "") or next(
        (each for each in offers if scope and each.lower() == scope.lower()), ""
    )


def _quoted(scope: str) -> str:
    return f'"{scope}"' if " " in scope else scope
