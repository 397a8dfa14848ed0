"""Which rooms what arrives appears in: those whose mappings take it, and those that follow its item and may see it."""

from __future__ import annotations

from functools import partial

from bridge import payload
from bridge.choice import facts_of
from bridge.model import Card, Envelope
from bridge.places import Places
from bridge.store import Tx


def scopes_of(envelope: Envelope) -> tuple[str, ...]:
    """The scopes that what arrives belongs to: where the card names another than it came for, that one."""
    home = envelope.card.scope if envelope.card else ""
    return envelope.scopes if not home or home in envelope.scopes else (home,)


class Audience:
    """Each method reads, within a transaction."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def rooms(self, tx: Tx, envelope: Envelope) -> dict[str, str]:
        """Scope by room. Raises `Unavailable` when a mapped room is not known yet."""
        connector, scopes = envelope.connector, scopes_of(envelope)
        rooms = self._places.rooms_of(
            connector, scopes, partial(facts_of, envelope), partial(self._homes, tx, envelope)
        )  # fmt: skip
        item = self.named(tx, envelope)
        following = [each.room for each, _ in tx.conversations.all_of_item(item)] if item is not None else []
        for room in following:
            if mapping := self._places.sees(room, connector, scopes):
                rooms.setdefault(room, mapping.scope)
        if self.is_private(tx, envelope):
            seeing = {room: self._places.sees(room, connector, scopes, private=True) for room in rooms}
            rooms = {room: mapping.scope for room, mapping in seeing.items() if mapping}
        homes = self._homes(tx, envelope) if self._places.any_own else ()
        own = [room for room in homes if self._places.is_own(room) and self._places.sees(room, connector, scopes)]
        moved = set(map(self._places.origin, own))  # there it begins nothing: its conversation has left
        return {room: scope for room, scope in rooms.items() if room in homes or self._places.origin(room) not in moved}

    def named(self, tx: Tx, envelope: Envelope) -> int | None:
        """Our number of the item that the tool names, if we know it."""
        return tx.conversations.item_named(envelope.connector, envelope.item) if envelope.item else None

    def known(self, tx: Tx, envelope: Envelope) -> list[int]:
        """Items by what it proves to answer, by what it answers (the nearest ancestor first), or because somebody
        answered it before.
        """
        proven = tx.conversations.items_referred(envelope.connector, envelope.proof)
        referred = tx.conversations.items_referred(envelope.connector, (*envelope.refs, envelope.id))
        return list(dict.fromkeys((*proven, *referred)))

    def _homes(self, tx: Tx, envelope: Envelope) -> set[str]:
        """Rooms with a conversation that it belongs to."""
        item = self.named(tx, envelope) if envelope.item else next(iter(self.known(tx, envelope)), None)
        return {conversation.room for conversation, _ in tx.conversations.all_of_item(item)} if item else set()

    def is_private(self, tx: Tx, envelope: Envelope) -> bool:
        """Whether it or its item is for rooms that may see private notes; where it does not say, as far as we know."""
        item = self.named(tx, envelope)
        text = tx.conversations.stands(item)[0] if item is not None and envelope.card is None else ""
        card = payload.load(Card, text) if text else envelope.card
        return envelope.private or (card is not None and card.private)
