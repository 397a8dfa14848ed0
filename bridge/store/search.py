"""Looking for what an operator asks about, wherever it is; and what was applied last, while no bridge runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bridge.config import Mapping
from bridge.model import Delivery
from bridge.store import database
from bridge.store.keeping import reading
from bridge.store.mappings import Mappings
from bridge.store.queue import QueueTable

MOST = 20  # of each kind are shown


class Search:
    """Reads only, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._queue = QueueTable(connection)

    def items_with(self, account: str) -> list[tuple[int, str]]:
        """(our number, connector) of items that an account takes part in, the youngest first."""
        rows = self._db.execute(
            "SELECT i.id, i.connector FROM participant p JOIN item i ON i.id = p.item WHERE p.account = ?"
            f" ORDER BY i.id DESC LIMIT {MOST + 1}",
            (account,),
        )
        return rows.fetchall()

    def following(self, connector: str, room: str) -> int:
        """How many conversations of a room have an item of that connector."""
        row = self._db.execute(
            "SELECT COUNT(DISTINCT c.id) FROM conversation c JOIN conversation_item l ON l.conversation = c.id"
            " JOIN item i ON i.id = l.item WHERE c.room = ? AND i.connector = ?",
            (room, connector),
        ).fetchone()
        return int(row[0])

    def newest_conversation(self) -> int:
        """Our number of it, 0 when there is none."""
        row = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM conversation").fetchone()
        return int(row[0])

    def waiting(self, conversation: int) -> list[Delivery]:
        """All that is still to be delivered for a conversation, in order, dead letters too."""
        uids = self._db.execute(
            f"SELECT uid FROM queue WHERE conversation = ? ORDER BY id LIMIT {MOST}", (conversation,)
        ).fetchall()
        return [row for (uid,) in uids if (row := self._queue.get(uid)) is not None]


def applied(folder: Path) -> tuple[list[Mapping], list[Mapping]]:
    """(declared, made) mappings of the bridge with that data folder, as it was last; the database stays as it is."""
    try:
        with reading(folder / database.NAME) as connection:
            found = Mappings(connection)
            return found.declared(), found.made()
    except sqlite3.OperationalError:  # there is none yet, or it is of a version that knew of no such thing
        return [], []
