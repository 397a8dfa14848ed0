"""A conversation goes on in a room of its own, and comes back into its thread: what is written down then."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bridge import payload
from bridge.config import Config, Mapping
from bridge.items import Items
from bridge.model import Card, Delivery, Draft, Lifecycle
from bridge.payload import Archive, Gather, MakeRoom, Pin, Post, Preview, Reword
from bridge.places import Places, link
from bridge.store import Conversation, OwnRoom, Tx
from bridge.texts import Texts

MOST_PEOPLE = 100  # invited at once
_WAITING: tuple[Lifecycle, ...] = ("asked", "held", "paused", "dead")


@dataclass(frozen=True, slots=True)
class Made:
    """A room as the homeserver has made it; `marker` is from where on it is read, `lacking` what could not be done."""

    room: str
    marker: str
    spoke: Collection[str]  # who said something in the thread
    present: Collection[str]  # who is in the room of that thread
    lacking: Sequence[str] = ()


class Moving:
    """The rules of rooms of their own. Each method is a rule: it runs inside one transaction."""

    def __init__(self, config: Config, places: Places, items: Items, say: Texts) -> None:
        self._config = config
        self._places = places
        self._items = items
        self._say = say

    # --- asked

    def ask(self, tx: Tx, wanted: MakeRoom) -> None:
        """Have the room made, after what is to be shown in the thread before."""
        _add(tx, wanted.conversation, wanted)

    def archive(self, tx: Tx, own: OwnRoom, sender: str, summary: str) -> None:
        """Have it archived, after what is to be shown there before."""
        _add(tx, own.conversation, Archive(own.room, sender, summary))

    def deserted(self, tx: Tx, room: str) -> None:
        """Nobody is left in it, and nobody is there to invite anybody: the conversation comes back by itself."""
        own = tx.own.in_room(room)
        if own is not None:
            self.archive(tx, own, "", "")

    def visited(self, tx: Tx, room: str, mxid: str) -> None:
        """Somebody from outside comes into a conversation's own room: from now on no private note is shown there."""
        open_to = [each for each in tx.mappings.made() if each.private and self._places.successor(each.room) == room]
        for mapping in open_to:
            tx.mappings.make(mapping.model_copy(update={"private": False}), tx.mappings.maker(mapping))
        if open_to:
            own = tx.own.in_room(room)
            if own and (conversation := tx.conversations.get(own.conversation)):
                self._items.hide_private(tx, conversation)
            self._follow(tx, room)
            self._places.post(tx, Post(room, self._say("room-guest", who=mxid), notice=True))

    # --- there

    def mappings(self, tx: Tx, conversation: Conversation, room: str) -> list[Mapping]:
        """What the conversation's items need in `room`, to be seen there as they are now; nothing new comes by it."""
        here = conversation.room
        found = dict.fromkeys((item.connector, item.scope) for item in tx.conversations.items_of(conversation.id))
        return [
            Mapping(
                connector=connector, scope=scope, room=room, new=False,
                private=self._places.private(self._places.successor(here), connector, scope),
            )
            for connector, scope in found
            if self._places.serves(here, connector, scope)
        ]  # fmt: skip

    def moved(self, tx: Tx, wanted: MakeRoom, made: Made) -> None:
        """The room is there: from now on it is where the conversation is."""
        own, conversation = tx.own.of(wanted.conversation), tx.conversations.get(wanted.conversation)
        if own is None or own.room or conversation is None:
            return
        room, home = made.room, conversation.room
        mappings = self.mappings(tx, conversation, room)
        if not mappings:
            return self.unmade(tx, wanted, self._say("room-no-item"))
        people, absent = self._people(tx, wanted, made, private=any(mapping.private for mapping in mappings))
        tx.own.enter(conversation.id, room)
        for mapping in mappings:
            tx.mappings.make(mapping, wanted.sender)
        tx.people.resolved(room, room)
        tx.people.mark(room, made.marker)
        self._follow(tx, room)
        _add(tx, conversation.id, Gather(room, tuple(people)))
        before = self._say("goes-on", title=conversation.title, link=link(home, conversation.root))
        self._places.post(tx, Post(room, f"{before}\n{self._say('room-how')}", notice=True), conversation.id)
        self.show_cards(tx, conversation.id)
        self._bring(tx, conversation.id, room)
        lines = [self._say("room-made", link=link(room), count=len(people)), *made.lacking]
        lines += [self._say("room-absent", people=", ".join(absent))] if absent else []
        root, who = conversation.root, (wanted.sender,)
        answer = Post(home, "\n".join(lines), notice=True, answers=wanted.event, thread=root, mentions=who)
        return self._places.post(tx, answer)

    def unmade(self, tx: Tx, wanted: MakeRoom, reason: str) -> None:
        """It cannot be: the conversation stays where it is."""
        tx.own.forget(wanted.conversation)
        body = self._say("room-unmade", reason=reason)
        post = Post(wanted.room, body, notice=True, answers=wanted.event, mentions=(wanted.sender,))
        self._places.post(tx, post, wanted.conversation)

    def _people(self, tx: Tx, wanted: MakeRoom, made: Made, *, private: bool) -> tuple[list[str], list[str]]:
        """Who asked, who spoke and is still there, who takes part in the items by a proven account; never outsiders.

        And those who are left out: in a room that sees private notes, who is not where they are seen already.
        """
        spoke = {*made.spoke, *tx.own.speakers(wanted.conversation)}.intersection(made.present)
        parts = tx.own.participants(wanted.conversation)
        found = spoke | {tx.people.owner(connector, account) for connector, account in parts}
        others = sorted(mxid for mxid in found if self._config.is_inside(mxid) and mxid != wanted.sender)
        absent = [mxid for mxid in others if private and mxid not in made.present]
        return [wanted.sender, *(mxid for mxid in others if mxid not in absent)][:MOST_PEOPLE], absent

    def show_cards(self, tx: Tx, number: int) -> None:
        """The cards of a conversation, where it is now."""
        conversation = tx.conversations.get(number)
        for item in tx.conversations.items_of(number) if conversation else ():
            if conversation and tx.conversations.stands(item.id)[0]:
                self._items.show(tx, conversation, item.id)

    def pin(self, tx: Tx, room: str, conversation: int) -> None:
        """A card is new in a conversation's own room."""
        _add(tx, conversation, Pin(room))

    def _bring(self, tx: Tx, conversation: int, room: str) -> None:
        """What waits to leave is shown where the conversation is now, and stays until its author says `!send` there."""
        for row in tx.queue.waiting(conversation, *_WAITING):
            if row.kind == "draft":
                self._bring_one(tx, row, conversation, room)

    def _bring_one(self, tx: Tx, row: Delivery, conversation: int, room: str) -> None:
        draft = payload.load(Draft, row.payload)
        tx.queue.amend(row.uid, payload.dump(replace(draft, moved=room if room != draft.room else "")))
        if row.state in ("asked", "held"):
            tx.queue.move(row.uid, "paused", error=self._say("why-moved"))
        event = tx.queue.preview_of(row.uid)
        if event and row.state != "dead":  # else a preview is still to come, in the right room
            self._places.post(tx, Reword(draft.room, event, self._say("preview-newer")), conversation)
            tx.queue.previewed(row.uid, "")
            self._places.post(tx, Preview(room, row.uid), conversation)

    # --- and back

    def ended(self, tx: Tx, own: OwnRoom, archived: Archive, lacking: Sequence[str]) -> None:
        """The room is closed: the conversation goes on in its thread."""
        home = self._places.successor(own.home)
        tx.own.end(own, home)
        for mapping in tx.mappings.made():
            if self._places.successor(mapping.room) == own.room:
                tx.mappings.remove(mapping)
        self._follow(tx, own.room)
        who, nobody = tx.people.name(archived.sender), not archived.sender
        body = self._say("room-deserted-there" if nobody else "room-archived-there", link=link(own.room), who=who)
        self._places.post(tx, Post(home, _joined(body, archived.summary), notice=True), own.conversation)
        self._show_at_home(tx, own.conversation, home)
        self._bring(tx, own.conversation, home)
        said = self._say("room-deserted" if nobody else "room-archived", link=link(home, own.root), who=who)
        lines = [said, *lacking]
        self._places.post(tx, Post(own.room, "\n".join(lines), notice=True))

    def _show_at_home(self, tx: Tx, number: int, home: str) -> None:
        """What may be seen there now: its mappings may have changed while the conversation was away."""
        conversation = tx.conversations.get(number)
        for item in tx.conversations.items_of(number) if conversation else ():
            text = tx.conversations.stands(item.id)[0]
            private = bool(text) and payload.load(Card, text).private
            sees = self._places.sees(home, item.connector, (item.scope,), private=private)
            if conversation and text and (sees or item.aside == "outside"):
                self._items.show(tx, conversation, item.id)

    def _follow(self, tx: Tx, room: str) -> None:
        """Memory says the same as the tables, once they say it for good; the room is told what is mapped to it."""
        tx.committed.append(partial(self._places.recall, room, room))
        tx.committed.append(partial(self._places.make, tx.mappings.made()))
        tx.committed.append(partial(self._places.own, tx.own.all()))
        self._places.announce_in(tx, room)

    # --- the summary

    def accepted(self, tx: Tx, uid: str, draft: Draft) -> None:
        """A tool has taken a draft: was it a summary, its room can be archived."""
        own = tx.own.closed_by(uid)
        if own is not None:
            self.archive(tx, own, draft.author, draft.text)

    def refused(self, tx: Tx, uid: str) -> None:
        """A tool has refused a draft: was it a summary, nothing is archived until that is sent after all."""
        if own := tx.own.closed_by(uid):
            self._stays(tx, own)

    def dropped(self, tx: Tx, uid: str) -> None:
        """A draft does not leave: was it a summary, nothing is archived."""
        if own := tx.own.closed_by(uid):
            tx.own.closes(own.conversation, "")
            self._stays(tx, own)

    def _stays(self, tx: Tx, own: OwnRoom) -> None:
        self._places.post(tx, Post(own.room, self._say("room-stays"), notice=True), own.conversation)


def _joined(body: str, summary: str) -> str:
    return f"{body}\n\n{summary}" if summary else body


def _add(tx: Tx, conversation: int, wanted: MakeRoom | Gather | Pin | Archive) -> None:
    tx.queue.add(
        f"matrix:{conversation}", "matrix", payload.kind_of(wanted), payload.dump(wanted), conversation=conversation
    )
