"""The tables of what conversations show of items: cards that stand aside, lines about changes, who acted last."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass, replace
from typing import Literal

KEPT = 86400.0  # seconds after which nothing on its way can be about a line any more that is in the room

Why = Literal["outside", "gone"]


@dataclass(frozen=True, slots=True)
class Told:
    """One line about changes: `before` is JSON of the card as it was before the first, `who` made them."""

    id: int
    before: str
    who: tuple[str, ...]


class Cards:
    """What conversations show of items, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def connector_of(self, item: int) -> str:
        """The connector that an item is of."""
        row = self._db.execute("SELECT connector FROM item WHERE id = ?", (item,)).fetchone()
        return row[0] if row else ""

    def with_key(self, connector: str, key: str) -> list[int]:
        """The items whose cards have that key, oldest first: several may."""
        rows = self._db.execute(
            "SELECT id FROM item WHERE connector = ? AND json_extract(card, '$.key') = ? ORDER BY id", (connector, key)
        )
        return [row[0] for row in rows]

    def followed(self, connector: str, after: int) -> tuple[int, str]:
        """The next item that a conversation follows, and what the tool calls it; (0, "") after the last."""
        row = self._db.execute(
            "SELECT i.id, i.remote FROM item i WHERE i.connector = ? AND i.id > ? AND i.remote != '' AND EXISTS"
            " (SELECT 1 FROM conversation_item l LEFT JOIN aside a ON a.item = l.item AND a.conversation ="
            " l.conversation WHERE l.item = i.id AND COALESCE(a.why, '') != 'gone') ORDER BY i.id LIMIT 1",
            (connector, after),
        ).fetchone()
        return (row[0], row[1]) if row else (0, "")

    # --- cards that stand aside

    def put_aside(self, conversation: int, item: int, why: Why, card: str) -> None:
        """From now on the conversation shows this card (JSON) of the item, and hears nothing of it."""
        self._db.execute("INSERT OR REPLACE INTO aside VALUES (?, ?, ?, ?)", (item, conversation, why, card))

    def aside(self, conversation: int, item: int) -> tuple[str, str]:
        """(why, JSON of the card that is shown instead); ("", "") where the item is followed as usual."""
        row: tuple[str, str] | None = self._db.execute(
            "SELECT why, card FROM aside WHERE item = ? AND conversation = ?", (item, conversation)
        ).fetchone()
        return row or ("", "")

    def take_back(self, conversation: int, item: int) -> bool:
        """It is followed as usual again; False when it was."""
        done = self._db.execute("DELETE FROM aside WHERE item = ? AND conversation = ?", (item, conversation))
        return done.rowcount > 0

    # --- lines about changes

    def begin(self, conversation: int, item: int, before: str, who: str) -> Told:
        """A new line."""
        now = time.time()
        self._db.execute(
            "DELETE FROM line WHERE item = ? AND conversation = ? AND event IS NOT NULL AND at < ?",
            (item, conversation, now - KEPT),
        )
        number = self._db.execute(
            "INSERT INTO line (conversation, item, at, card, who) VALUES (?, ?, ?, ?, ?)",
            (conversation, item, now, before, json.dumps([who])),
        ).lastrowid
        assert number is not None
        return Told(number, before, (who,))

    def begun(self, conversation: int, item: int, since: float) -> Told | None:
        """The newest line about that item, if it was begun since then."""
        row = self._db.execute(
            "SELECT id, card, who FROM line WHERE item = ? AND conversation = ? AND at > ? ORDER BY id DESC LIMIT 1",
            (item, conversation, since),
        ).fetchone()
        return Told(row[0], row[1], tuple(json.loads(row[2]))) if row else None

    def joins(self, told: Told, who: str) -> Told:
        """This one has made changes of the line, too."""
        told = replace(told, who=tuple(dict.fromkeys((*told.who, who))))
        self._db.execute("UPDATE line SET who = ? WHERE id = ?", (json.dumps(told.who), told.id))
        return told

    def said(self, line: int, event: str) -> None:
        """The line is in the room."""
        self._db.execute("UPDATE line SET event = ? WHERE id = ?", (event, line))

    def event_of(self, line: int) -> str:
        """The message of a line, "" while it is not in the room."""
        row = self._db.execute("SELECT event FROM line WHERE id = ?", (line,)).fetchone()
        return row[0] or "" if row else ""

    # --- who acted

    def acts(self, item: int, mxid: str) -> None:
        """An employee has done something with an item."""
        self._db.execute("INSERT OR REPLACE INTO actor VALUES (?, ?)", (item, mxid))

    def actor(self, item: int) -> str:
        """The employee who acted last on it, "" when none has."""
        row = self._db.execute("SELECT mxid FROM actor WHERE item = ?", (item,)).fetchone()
        return row[0] if row else ""
