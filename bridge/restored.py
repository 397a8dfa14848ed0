"""After a restore from a backup: what may have been done since, and is not remembered, is not done again by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge import payload
from bridge.items import Items
from bridge.model import Delivery, Draft, RoomEvent
from bridge.payload import Alter, Reword, Unmark
from bridge.places import Places
from bridge.store import Tx
from bridge.texts import Texts

ONCE = frozenset({"send", "retry", "original", "help", "room"})  # commands that catch-up must not obey a second time


def doubtful(tx: Tx, say: Texts, asked: float) -> str:
    """Why something asked for at that time may have been done already; "" when it has not, as far as this goes."""
    restored = tx.restored()
    return say("why-restored", made=_spoken(restored.made)) if asked <= restored.at else ""


def typed_before(tx: Tx, say: Texts, event: RoomEvent) -> str:
    """The same for a command, as an answer to whoever typed it."""
    restored = tx.restored()
    before = event.when and event.when <= restored.at
    return say("typed-before-restore", made=_spoken(restored.made)) if before else ""


def look_back(tx: Tx, items: Items, say: Texts, pause: Callable[[Tx, Delivery, str], None]) -> None:
    """At a start: drafts from before the restore wait for their authors, changes of items for whoever asked.

    They were on their way when the backup was made, and so have most likely arrived since.
    """
    if not tx.restored().at:
        return
    for row in tx.queue.on_their_way():
        if row.kind == "draft":
            if why := doubtful(tx, say, payload.load(Draft, row.payload).asked):
                pause(tx, row, why)
        elif why := doubtful(tx, say, row.created):
            tx.queue.drop(row.uid)
            conversation = tx.conversations.get(row.conversation or 0)
            if conversation is not None:
                items.refused(tx, payload.load(Alter, row.payload), conversation, row.destination, why)


def had_left(tx: Tx, places: Places, say: Texts, mark: RoomEvent, held: str) -> None:
    """Our own mark on a message, from before the restore, says that it has left: then it need not be asked again.

    `held` is the mark that it has while it waits.
    """
    if mark.when > tx.restored().at:
        return
    for row in tx.queue.from_source(mark.target):
        draft = payload.load(Draft, row.payload)
        if row.state not in ("asked", "held", "paused") or draft.pending or draft.whole:
            continue  # of two that are made of one message the mark may be the other's
        preview = tx.queue.preview_of(row.uid)
        tx.queue.drop(row.uid)
        if preview:
            places.post(tx, Reword(draft.room, preview, say("left-before-restore")), row.conversation)
            places.post(tx, Unmark(draft.room, draft.source, held), row.conversation)


def _spoken(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
