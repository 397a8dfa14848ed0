"""`!find words`: what is asked is written down; what was found is told only where, and as far as, it may be seen.

Everybody in the room reads the answer. So a room hears of what it may see anyway: the scopes mapped to it, with the
private parts and filters of these mappings, and its own conversations. In a direct chat it is what the rooms may see in
which the asker is.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from bridge import payload
from bridge.choice import chosen, facts_of_card, home_of
from bridge.commands.parse import Command
from bridge.connector import Connector
from bridge.listing import Line, spoken
from bridge.matrix.search import Said
from bridge.model import Card, Delivery, RoomEvent
from bridge.outward import Refusal
from bridge.payload import Find, Post
from bridge.places import Places, link
from bridge.store import Conversation, Tx
from bridge.text.plain import one_line
from bridge.texts import Texts

DESTINATION = "finding"
MOST = 10  # lines of an answer
MOST_WORDS, LONGEST = 10, 60  # of a question: words, characters of each
TIMES, WHILE = 10, 60.0  # questions of one person, in so many seconds


@dataclass(frozen=True, slots=True)
class Found:
    """What was heard of everybody who was asked; nothing of it was held against what may be seen."""

    rooms: frozenset[str]  # whose scopes and conversations may be told
    direct: bool = False  # asked in a direct chat
    cards: Mapping[str, Sequence[Card]] = field(default_factory=dict)  # by connector
    said: Sequence[Said] = ()
    titled: Sequence[tuple[int, float]] = ()  # our number of a conversation, when something was said there last
    notes: Sequence[str] = ()  # who does not answer


class Finds:
    """Each method is a rule: it runs inside one transaction."""

    def __init__(self, places: Places, connectors: dict[str, Connector], say: Texts) -> None:
        self._places = places
        self._connectors = connectors
        self._say = say
        self._asked: dict[str, deque[float]] = {}  # when, by person

    def find(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!find words`: asked in a lane of this person's own. Raises `Refusal`."""
        words = one_line(command.rest)
        self._sensible(words)
        lane = f"{DESTINATION}:{event.sender}"
        if tx.queue.head(lane, 0, 1):
            raise Refusal(self._say("find-busy"))
        self._not_too_often(event.sender)
        asked = Find(event.room, event.sender, event.id, words)
        number = conversation.id if conversation else None
        tx.queue.add(lane, DESTINATION, "find", payload.dump(asked), conversation=number)

    def _sensible(self, words: str) -> None:
        parts = words.split()
        if not parts:
            raise Refusal(self._say("find-usage"))
        if len(parts) > MOST_WORDS or max(map(len, parts)) > LONGEST:
            raise Refusal(self._say("find-long", words=MOST_WORDS, letters=LONGEST))
        if not re.search(r"\w\w", words):
            raise Refusal(self._say("find-short"))

    def _not_too_often(self, sender: str) -> None:
        now, times = time.monotonic(), self._asked.setdefault(sender, deque())
        while times and times[0] <= now - WHILE:
            times.popleft()
        if len(times) >= TIMES:
            raise Refusal(self._say("find-often", times=TIMES, seconds=round(times[0] + WHILE - now) or 1))
        times.append(now)

    # --- answers

    def broken(self, tx: Tx, delivery: Delivery, asked: Find) -> None:
        """It ended without an answer, in an earlier life of the bridge: it is not asked again by itself."""
        self._tell(tx, delivery, asked, self._say("find-broken", words=asked.words))

    def nowhere(self, tx: Tx, delivery: Delivery, asked: Find, direct: bool) -> None:
        """There is nothing that may be seen."""
        self._tell(tx, delivery, asked, self._say("find-no-rooms" if direct else "find-nowhere"))

    def answer(self, tx: Tx, delivery: Delivery, asked: Find, found: Found) -> None:
        """At most ten lines of all that may be seen, no source before all others."""
        threads = self._threads(tx, found)
        sources = []
        for name, cards in sorted(found.cards.items()):
            seen = [card for card in cards if self._may_see(tx, self._connectors[name], card, found.rooms)]
            sources.append([self._card_line(tx, name, card, found.rooms, threads) for card in seen[:MOST]])
        sources.insert(0, [self._thread_line(each, event, found) for each, event in threads.values()])
        lines = [line for line in chain(*zip_longest(*sources)) if line is not None]
        tail = [self._say("find-more")] if len(lines) > MOST else [] if lines else [self._say("find-nothing")]
        body, html = spoken(lines[:MOST], [*tail, *found.notes])
        self._tell(tx, delivery, asked, body, html)

    def _tell(self, tx: Tx, delivery: Delivery, asked: Find, body: str, html: str = "") -> None:
        post = Post(asked.room, body, html, notice=True, answers=asked.event)
        self._places.post(tx, post, delivery.conversation)

    # --- conversations

    def _threads(self, tx: Tx, found: Found) -> dict[int, tuple[Conversation, str]]:
        """Conversations of these rooms, and the event to look at, the newest first; one more than can be shown."""
        newest: dict[int, tuple[float, Conversation, str]] = {}
        for said in found.said:
            conversation = self._where(tx, said)
            if conversation and conversation.room == said.room and conversation.id not in newest:
                newest[conversation.id] = said.when, conversation, said.event
        for number, when in found.titled:
            if number not in newest and (titled := tx.conversations.get(number)) is not None:
                newest[number] = when, titled, titled.root
        ranked = sorted(newest.values(), key=lambda each: -each[0])[: 2 * MOST]
        return {each.id: (each, event) for _, each, event in ranked if each.room in found.rooms}

    def _where(self, tx: Tx, said: Said) -> Conversation | None:
        """The conversation that an event is in; what it claims of its thread counts in its own room only."""
        found = tx.conversations.of_event(said.event)
        return found or (tx.conversations.of_event(said.thread) if said.thread else None)

    def _thread_line(self, conversation: Conversation, event: str, found: Found) -> Line:
        room = self._places.name(conversation.room) if found.direct else ""
        return Line(conversation.title or self._say("no-subject"), link(conversation.room, event), room)

    # --- items

    def _may_see(self, tx: Tx, connector: Connector, card: Card, rooms: frozenset[str]) -> bool:
        """Whether one of the rooms would see that item anyway. The plugin is not trusted with it.

        A conversation's own room sees what it is about: people are there for that, not for all of the tool. A mapping
        with a filter shows what fits it; what cannot be told from the card is not shown, unless the room has a
        conversation about it.
        """
        scope = home_of(connector, card)
        mappings = self._places.mappings_to(connector.name, scope) if scope else []
        homes = {each.room for each in self._followers(tx, connector.name, card)}
        rooms -= self._places.own_rooms - homes
        here = [each for each in mappings if self._places.room_of(each) in rooms and (each.private or not card.private)]
        if not here or not any(each.only for each in mappings):
            return bool(here)
        facts = facts_of_card(card)
        known = all(set(each.only) <= set(facts) for each in mappings)
        fitting = chosen(mappings, lambda: facts) if known else []
        return any(each in fitting or self._places.room_of(each) in homes for each in here)

    def _followers(self, tx: Tx, connector: str, card: Card) -> list[Conversation]:
        item = tx.conversations.item_named(connector, card.item)
        return [each for each, _ in tx.conversations.all_of_item(item)] if item is not None else []

    def _card_line(
        self, tx: Tx, connector: str, card: Card, rooms: frozenset[str], threads: dict[int, tuple[Conversation, str]]
    ) -> Line:
        """An item; a conversation about it is no line of its own then."""
        followers = [each for each in self._followers(tx, connector, card) if each.room in rooms and each.root]
        for each in followers:
            threads.pop(each.id, None)
        title = f"{card.key}: {card.title}" if card.title else card.key
        state = next((value for _, value in card.fields if value), "")
        more = [(self._say("find-thread"), link(each.room, each.root)) for each in followers[:1]]
        return Line(title, card.url, ", ".join(filter(None, [connector, state])), tuple(more))
