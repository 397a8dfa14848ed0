"""The tables of people and rooms: ghosts, where they have joined, employees' names, how far rooms were read."""

from __future__ import annotations

import sqlite3


class People:
    """Ghosts, memberships, names and room markers, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def ghosts(self) -> dict[str, str]:
        """Display name by Matrix id, of every registered ghost."""
        return dict(self._db.execute("SELECT mxid, name FROM ghost").fetchall())

    def registered(self, mxid: str, realm: str, account: str, name: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO ghost VALUES (?, ?, ?, ?)", (mxid, realm, account, name))

    def memberships(self) -> set[tuple[str, str]]:
        return set(self._db.execute("SELECT mxid, room FROM membership").fetchall())

    def joined(self, mxid: str, room: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO membership VALUES (?, ?)", (mxid, room))

    def left(self, mxid: str, room: str) -> None:
        self._db.execute("DELETE FROM membership WHERE mxid = ? AND room = ?", (mxid, room))

    def name(self, mxid: str) -> str:
        """The display name last seen, or the localpart; an account that is no Matrix id as it is."""
        row = self._db.execute("SELECT name FROM profile WHERE mxid = ?", (mxid,)).fetchone()
        return row[0] if row else mxid.removeprefix("@").partition(":")[0]

    def named(self, mxid: str, name: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO profile VALUES (?, ?)", (mxid, name))

    def marker(self, room: str) -> str:
        row = self._db.execute("SELECT marker FROM room WHERE room = ?", (room,)).fetchone()
        return row[0] if row else ""

    def mark(self, room: str, marker: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO room VALUES (?, ?)", (room, marker))

    def encrypted(self) -> set[str]:
        """Rooms that are encrypted: nothing is carried there."""
        return {room for (room,) in self._db.execute("SELECT room FROM encrypted").fetchall()}

    def is_encrypted(self, room: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO encrypted VALUES (?)", (room,))

    def aliases(self) -> dict[str, str]:
        """Room id by alias, as last resolved."""
        return dict(self._db.execute("SELECT alias, room FROM alias").fetchall())

    def resolved(self, alias: str, room: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO alias VALUES (?, ?)", (alias, room))
