"""The tables of mappings: which scope lives in which room, declared in the configuration or made by a command there."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable

from bridge.config import Mapping


class Mappings:
    """Mappings and upgraded rooms, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def made(self) -> list[Mapping]:
        """Those that people made in rooms, in the order in which they were made."""
        return self._all(declared=False)

    def declared(self) -> list[Mapping]:
        """Those of the configuration, as it was last applied."""
        return self._all(declared=True)

    def declare(self, mappings: Iterable[Mapping]) -> None:
        """From now on the configuration has these."""
        self._db.execute("DELETE FROM mapping WHERE declared = 1")
        for mapping in mappings:
            self._add(mapping, "", declared=True)

    def make(self, mapping: Mapping, mxid: str) -> None:
        """Somebody made it in its room; it takes the place of the one that was made for that scope and room."""
        self._add(mapping, mxid, declared=False)

    def remove(self, mapping: Mapping) -> bool:
        """Forget one that was made in a room; False when there is none."""
        gone = self._db.execute(
            "DELETE FROM mapping WHERE connector = ? AND scope = ? AND room = ? AND declared = 0",
            (mapping.connector, mapping.scope, mapping.room),
        )
        return gone.rowcount > 0

    def maker(self, mapping: Mapping) -> str:
        """Who made it in its room; "" when it is declared."""
        row = self._db.execute(
            "SELECT mxid FROM mapping WHERE connector = ? AND scope = ? AND room = ? AND declared = 0",
            (mapping.connector, mapping.scope, mapping.room),
        ).fetchone()
        return str(row[0]) if row else ""

    def _add(self, mapping: Mapping, mxid: str, *, declared: bool) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO mapping (connector, scope, room, policy, declared, mxid, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                mapping.connector, mapping.scope, mapping.room,
                mapping.model_dump_json(exclude={"connector", "scope", "room"}), int(declared), mxid, time.time(),
            ),
        )  # fmt: skip

    def _all(self, *, declared: bool) -> list[Mapping]:
        rows = self._db.execute(
            "SELECT connector, scope, room, policy FROM mapping WHERE declared = ? ORDER BY at, connector, scope, room",
            (int(declared),),
        )
        return [
            Mapping.model_validate({**json.loads(policy), "connector": connector, "scope": scope, "room": room})
            for connector, scope, room, policy in rows
        ]

    # --- rooms that were upgraded

    def successors(self) -> dict[str, str]:
        """The room that came after each upgraded one, "" while it cannot be entered."""
        return dict(self._db.execute("SELECT room, next FROM successor").fetchall())

    def closes(self, room: str) -> None:
        """It was upgraded; what replaces it must still be entered."""
        self._db.execute("INSERT OR IGNORE INTO successor VALUES (?, '')", (room,))

    def stays(self, room: str) -> None:
        """It was not upgraded after all, or to nothing that can be followed."""
        self._db.execute("DELETE FROM successor WHERE room = ? AND next = ''", (room,))

    def succeeded(self, room: str, next_room: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO successor VALUES (?, ?)", (room, next_room))
        self._db.execute("UPDATE OR REPLACE mapping SET room = ? WHERE room = ? AND declared = 0", (next_room, room))
        self._db.execute("DELETE FROM announced WHERE room = ?", (room,))

    # --- what rooms were told

    def announced(self) -> set[tuple[str, str]]:
        """(room, state key) of every announcement that stands."""
        return set(self._db.execute("SELECT room, key FROM announced").fetchall())

    def announce(self, room: str, key: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO announced VALUES (?, ?)", (room, key))

    def withdrawn(self, room: str, key: str) -> None:
        self._db.execute("DELETE FROM announced WHERE room = ? AND key = ?", (room, key))
