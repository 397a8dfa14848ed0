"""Acts on rooms of their own: give a conversation one, and close it with a summary to its item."""

from __future__ import annotations

import time
from dataclasses import replace

from bridge import payload
from bridge.commands.acts import Acts, asked_at, takes_words
from bridge.commands.parse import Command
from bridge.connector import Connector
from bridge.model import Card, Draft, Rejected, RoomEvent
from bridge.moving import Moving
from bridge.outward import Outward, Refusal
from bridge.payload import MakeRoom
from bridge.places import Places, link
from bridge.store import Conversation, Item, OwnRoom, Tx
from bridge.text.plain import one_line
from bridge.texts import Texts

LONGEST = 100  # characters of a room's name
MOST_NAMES = 20  # people whom a summary names
_CLOSE = ("close", "fermer")


class RoomActs:
    """Each method is a rule: it runs inside one transaction. All raise `Refusal` with a sentence for who asked."""

    def __init__(
        self, places: Places, acts: Acts, outward: Outward, moving: Moving, connectors: dict[str, Connector],
        say: Texts,
    ) -> None:  # fmt: skip
        self._places = places
        self._acts = acts
        self._outward = outward
        self._moving = moving
        self._connectors = connectors
        self._say = say

    def room(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!room [name]`: the conversation goes on in a room of its own; `!room close [words]`: and comes back."""
        if conversation is None:
            raise Refusal(self._say("not-a-conversation", command=command.name))
        word, _, words = command.rest.partition(" ")
        first, _, below = command.rest.partition("\n")
        if first.strip().lower() in _CLOSE:
            self._close(tx, event, conversation, below.strip())
        elif word.lower() in _CLOSE:
            self._close(tx, event, conversation, words.strip())
        else:
            self._make(tx, event, conversation, command.first_line)

    # --- made

    def _make(self, tx: Tx, event: RoomEvent, conversation: Conversation, name: str) -> None:
        known = tx.own.of(conversation.id)
        if known is not None:
            raise Refusal(self._say("room-there", link=link(known.room)) if known.room else self._say("room-begun"))
        if not self._moving.mappings(tx, conversation, conversation.room):
            raise Refusal(self._say("room-no-item"))
        tx.own.begin(conversation.id, conversation.room, conversation.root)
        name = one_line(name) or one_line(self._name(tx, conversation)[: 4 * LONGEST])
        self._moving.ask(tx, MakeRoom(conversation.room, conversation.id, name[:LONGEST], event.sender, event.id))

    def _name(self, tx: Tx, conversation: Conversation) -> str:
        """Of the only item that its tool has a name for, with its key; else what the conversation is called."""
        named = [item for item in self._acts.items(tx, conversation) if self._is_named(item)]
        if len(named) != 1:
            return one_line(conversation.title) or self._say("no-subject")
        text, _ = tx.conversations.stands(named[0].id)
        key = payload.load(Card, text).key if text and not named[0].aside else named[0].remote
        return f"{key}: {named[0].title}" if named[0].title not in ("", key) else key

    def _is_named(self, item: Item) -> bool:
        return self._connectors[item.connector].match(item.remote) == item.remote

    def _hears(self, item: Item) -> bool:
        """Whether a summary can be sent to it; the room of what takes none must close all the same."""
        return self._is_named(item) and takes_words(self._connectors[item.connector])

    # --- closed

    def dropped(self, tx: Tx, uid: str) -> None:
        """A draft does not leave: perhaps it was a summary."""
        self._moving.dropped(tx, uid)

    def _close(self, tx: Tx, event: RoomEvent, conversation: Conversation, words: str) -> None:
        own = tx.own.of(conversation.id)
        if own is None or not own.room:
            raise Refusal(self._say("room-none"))
        pending = tx.queue.get(own.closing) if own.closing else None
        if pending is not None and pending.state != "dead":
            raise Refusal(self._say("room-closing"))
        summary = words or self._facts(tx, own, event)
        items = [
            item
            for item in self._acts.items(tx, conversation)
            if self._hears(item) and not item.aside and self._places.serves(event.room, item.connector, item.scope)
        ]
        if not items:  # nobody outside by itself: a mail's sender is no place for a summary
            tx.own.closes(conversation.id, event.id)
            self._moving.archive(tx, own, event.sender, summary)
            return
        item = self._acts.item(items, self._acts.meant(tx, event.answers, conversation))
        draft = replace(self._draft(tx, event, item), text=summary, link="" if words else link(own.room))
        tx.own.closes(conversation.id, self._outward.ask(tx, draft, conversation))

    def _draft(self, tx: Tx, event: RoomEvent, item: Item) -> Draft:
        connector = self._connectors[item.connector]
        try:
            recipients = connector.audience(item.scope, item.remote, None)
        except Rejected as error:
            raise Refusal(self._say("cannot-answer", reason=error)) from None
        return Draft(
            connector=item.connector, scope=item.scope, item=item.id, remote=item.remote,
            title=connector.title(item.title), author=event.sender, author_name=tx.people.name(event.sender),
            account=tx.people.account(event.sender, item.connector), recipients=recipients, room=event.room,
            source=event.id, trigger=event.id, asked=asked_at(event),
        )  # fmt: skip

    def _facts(self, tx: Tx, own: OwnRoom, event: RoomEvent) -> str:
        """Who took part, from when to when, how much was said; never what."""
        spoken = tx.own.spoken(own.conversation, own.at, event.id)
        if not spoken:
            return self._say("room-facts-none")
        names = list(dict.fromkeys(tx.people.name(each.sender) for each in spoken))
        people = ", ".join([*names[:MOST_NAMES], *(["…"] if len(names) > MOST_NAMES else [])])
        begin, end = (time.strftime("%Y-%m-%d %H:%M", time.localtime(each.at)) for each in (spoken[0], spoken[-1]))
        return self._say("room-facts", people=people, begin=begin, end=end, count=len(spoken))
