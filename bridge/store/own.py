"""The tables of rooms of their own: which conversation has one, whence it came, and who is to be there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnRoom:
    """A conversation whose thread is a whole room; `room` is "" while that is being made."""

    conversation: int
    room: str
    home: str  # the room that it came from, as it was then
    root: str  # of its thread there
    closing: str  # uid of the summary that must be accepted before it is archived
    at: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message of a conversation: who wrote it (account or Matrix id), and when."""

    sender: str
    at: float


_COLUMNS = "o.conversation, o.room, o.home, o.root, o.closing, o.at"
_SAID = "('inward', 'stranger', 'automatic', 'colleague', 'outward', 'internal')"


class OwnRooms:
    """Rooms of their own, within one transaction. Those that were archived are none any more."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def of(self, conversation: int) -> OwnRoom | None:
        return self._one("o.conversation = ?", conversation)

    def in_room(self, room: str) -> OwnRoom | None:
        return self._one("o.room = ?", room)

    def closed_by(self, uid: str) -> OwnRoom | None:
        """The one that is archived when that summary is accepted."""
        return self._one("o.closing = ?", uid)

    def of_item(self, item: int) -> list[OwnRoom]:
        """Those that conversations of an item have gone to."""
        return self._all(
            "o.room <> '' AND o.conversation IN (SELECT conversation FROM conversation_item WHERE item = ?)", item
        )

    def all(self) -> dict[int, tuple[str, str]]:
        """(room, home) by conversation, of each that has or had one; room is "" where that is over."""
        rows = self._db.execute(
            "SELECT conversation, CASE WHEN ended IS NULL THEN room ELSE '' END, home FROM own_room WHERE room <> ''"
            " ORDER BY at"
        )
        return {conversation: (room, home) for conversation, room, home in rows}

    # --- coming and going

    def begin(self, conversation: int, home: str, root: str) -> None:
        """Somebody asked for it."""
        self._db.execute(
            "INSERT INTO own_room (conversation, room, home, root, closing, at) VALUES (?, '', ?, ?, '', ?)",
            (conversation, home, root, time.time()),
        )

    def forget(self, conversation: int) -> None:
        """It cannot be made."""
        self._db.execute("DELETE FROM own_room WHERE conversation = ? AND room = ''", (conversation,))

    def enter(self, conversation: int, room: str) -> None:
        """The conversation goes on there: its events so far stay where they are, and its cards are shown anew."""
        self._leave(conversation)
        self._db.execute(
            "INSERT OR IGNORE INTO former (root, room, conversation, at)"
            " SELECT root, room, id, ? FROM conversation WHERE id = ? AND root IS NOT NULL",
            (time.time(), conversation),
        )
        self._db.execute(
            "INSERT INTO own_card SELECT conversation, item, card FROM conversation_item"
            " WHERE conversation = ? AND card IS NOT NULL",
            (conversation,),
        )
        self._db.execute("UPDATE conversation_item SET card = NULL WHERE conversation = ?", (conversation,))
        self._db.execute("UPDATE line SET event = NULL WHERE conversation = ?", (conversation,))
        self._db.execute(  # that room may have been upgraded since it was asked for
            "UPDATE own_room SET room = ?, at = ?, (home, root) = (SELECT c.room, COALESCE(c.root, '')"
            " FROM conversation c WHERE c.id = own_room.conversation) WHERE conversation = ? AND ended IS NULL",
            (room, time.time(), conversation),
        )
        self._go(conversation, room, "")

    def end(self, own: OwnRoom, home: str) -> None:
        """It is archived: the conversation is in its thread again, or begins one in `home`, which came after that."""
        self._leave(own.conversation)
        same = home == own.home
        gone = "DELETE FROM former WHERE conversation = ? AND room <> ?"
        self._db.execute(gone, (own.conversation, "" if same else own.home))
        self._go(own.conversation, home, own.root if same else "")
        self._db.execute(
            "UPDATE conversation_item SET card = (SELECT o.event FROM own_card o WHERE ? = 1"
            " AND o.conversation = conversation_item.conversation AND o.item = conversation_item.item)"
            " WHERE conversation = ?",
            (int(same), own.conversation),
        )
        self._db.execute("DELETE FROM own_card WHERE conversation = ?", (own.conversation,))
        self._db.execute("UPDATE line SET event = NULL WHERE conversation = ?", (own.conversation,))
        self._db.execute("DELETE FROM own_thread WHERE conversation = ?", (own.conversation,))
        self._db.execute(
            "UPDATE own_room SET ended = ? WHERE conversation = ? AND ended IS NULL", (time.time(), own.conversation)
        )

    def closes(self, conversation: int, uid: str) -> None:
        """Note which summary must be accepted before it is archived; "": none is on its way any more."""
        self._db.execute(
            "UPDATE own_room SET closing = ? WHERE conversation = ? AND ended IS NULL", (uid, conversation)
        )

    def succeeded(self, room: str, later: str) -> int:
        """The room was upgraded; returns our number of its conversation, 0 when it has none of its own."""
        own = self.in_room(room)
        if own is not None:
            self._db.execute("UPDATE own_room SET room = ? WHERE room = ? AND ended IS NULL", (later, room))
        return own.conversation if own else 0

    def _leave(self, conversation: int) -> None:
        """Its events are from now on in another room than it is itself."""
        self._db.execute(
            "UPDATE message SET room = (SELECT c.room FROM conversation c WHERE c.id = message.conversation)"
            " WHERE conversation = ? AND event IS NOT NULL AND room IS NULL",
            (conversation,),
        )

    def _go(self, conversation: int, room: str, root: str) -> None:
        self._db.execute(
            "UPDATE conversation SET room = ?, root = ?, latest = ? WHERE id = ?",
            (room, root or None, root or None, conversation),
        )

    # --- threads inside

    def threaded(self, event: str, root: str, conversation: int) -> None:
        """A message in a thread inside the room."""
        self._db.execute("INSERT OR IGNORE INTO own_thread VALUES (?, ?, ?)", (event, root, conversation))

    def thread_of(self, event: str) -> str:
        """The root of the thread inside its room that a message is in, "" when it is in none."""
        row = self._db.execute("SELECT root FROM own_thread WHERE event = ?", (event,)).fetchone()
        return row[0] if row else ""

    # --- people

    def speakers(self, conversation: int) -> set[str]:
        """Matrix ids of whoever said something in the conversation, or sent something from it."""
        rows = self._db.execute(
            "SELECT DISTINCT sender FROM message WHERE conversation = ? AND role IN ('internal', 'outward', 'start')",
            (conversation,),
        )
        return {sender for (sender,) in rows}

    def participants(self, conversation: int) -> list[tuple[str, str]]:
        """(connector, account) of those who take part in its items and are known to have an owner."""
        rows = self._db.execute(
            "SELECT i.connector, p.account FROM conversation_item l JOIN item i ON i.id = l.item"
            " JOIN participant p ON p.item = i.id WHERE l.conversation = ? AND (EXISTS (SELECT 1 FROM account a"
            " WHERE a.connector = i.connector AND a.account = p.account) OR EXISTS (SELECT 1 FROM declared_account d"
            " WHERE d.connector = i.connector AND d.account = p.account)) ORDER BY 1, 2",
            (conversation,),
        )
        return rows.fetchall()

    def spoken(self, conversation: int, since: float, but: str) -> list[Spoken]:
        """Who wrote when, each message once, oldest first; the event `but` not counted."""
        rows: Iterable[tuple[str, float]] = self._db.execute(
            f"SELECT MIN(sender), MIN(created) FROM message WHERE conversation = ? AND created >= ? AND role IN {_SAID}"
            " AND COALESCE(event, '') <> ? GROUP BY COALESCE(event, CAST(id AS TEXT)) ORDER BY 2",
            (conversation, since, but),
        )
        return [Spoken(sender, at) for sender, at in rows]

    def _one(self, where: str, *values: object) -> OwnRoom | None:
        return next(iter(self._all(where, *values)), None)

    def _all(self, where: str, *values: object) -> list[OwnRoom]:
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM own_room o WHERE o.ended IS NULL AND {where} ORDER BY o.at", values
        )
        return [OwnRoom(*row) for row in rows]
