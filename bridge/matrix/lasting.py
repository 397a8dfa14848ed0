"""Messages that are sent once and edited ever after: cards of items, and lines about their changes."""

from __future__ import annotations

from dataclasses import replace

from bridge import payload
from bridge.items import look
from bridge.model import Delivery
from bridge.payload import CardPost, LinePost
from bridge.store import Tx

Lasting = CardPost | LinePost


def newest(tx: Tx, delivery: Delivery, shown: Lasting) -> tuple[str, Lasting]:
    """(event that shows it, "" before the first, what it is to say): a line as it was last reworded, a card as its item
    stands now, however long it waited: the room may see less of it than then.
    """
    row, number = tx.queue.get(delivery.uid), delivery.conversation or 0
    if row is not None:
        shown = replace(payload.load(type(shown), row.payload), room=shown.room)
    if isinstance(shown, LinePost):
        return tx.cards.event_of(shown.line), shown
    body, html = look(tx, number, shown.item)
    return tx.conversations.card(number, shown.item), replace(shown, body=body, html=html) if body else shown


def noted(tx: Tx, conversation: int, shown: Lasting, event: str, mxid: str) -> None:
    """It is in the room, for the first time: what answers it is about its item.

    Its conversation may have gone on in another room meanwhile: there it is shown anew, for an edit cannot reach here.
    """
    now = tx.conversations.get(conversation)
    left = now is not None and now.room != shown.room
    if isinstance(shown, LinePost) and not left:
        tx.cards.said(shown.line, event)
    elif not left:
        tx.conversations.carded(conversation, shown.item, event)
    room = shown.room if left else ""
    tx.conversations.add_message(conversation, "card", mxid, item=shown.item, event=event, room=room)
