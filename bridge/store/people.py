"""The tables of people and rooms: ghosts, where they have joined, employees' names, how far rooms were read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """An employee says that an account of a tool is his, until the code is written there by that account."""

    code: str
    mxid: str
    connector: str
    account: str
    room: str  # where to say that it is proven
    conversation: int  # 0: outside any


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

    def lacks(self, room: str, rights: Iterable[str]) -> bool:
        """Note which rights the bot lacks in a room; False when just that was noted before."""
        now = " ".join(sorted(rights))
        row = self._db.execute("SELECT rights FROM lacking WHERE room = ?", (room,)).fetchone()
        if now == (row[0] if row else ""):
            return False
        self._db.execute("INSERT OR REPLACE INTO lacking VALUES (?, ?)", (room, now))
        return True

    def aliases(self) -> dict[str, str]:
        """Room id by alias, as last resolved."""
        return dict(self._db.execute("SELECT alias, room FROM alias").fetchall())

    def resolved(self, alias: str, room: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO alias VALUES (?, ?)", (alias, room))

    # --- accounts in tools

    def account(self, mxid: str, connector: str) -> str:
        """The employee's own account in that tool, "" when none is proven."""
        row = self._db.execute(
            "SELECT account FROM account WHERE mxid = ? AND connector = ?", (mxid, connector)
        ).fetchone()
        return row[0] if row else ""

    def accounts(self, mxid: str) -> dict[str, str]:
        """The employee's account by connector."""
        rows = self._db.execute("SELECT connector, account FROM account WHERE mxid = ? ORDER BY connector", (mxid,))
        return dict(rows.fetchall())

    def owner(self, connector: str, account: str) -> str:
        """The employee whose account it is, "" when nobody has proven that."""
        row = self._db.execute(
            "SELECT mxid FROM account WHERE connector = ? AND account = ?", (connector, account)
        ).fetchone()
        return row[0] if row else ""

    def owns(self, mxid: str, connector: str, account: str) -> None:
        """It is proven; whoever had the account before has it no longer."""
        self._db.execute("DELETE FROM account WHERE connector = ? AND account = ?", (connector, account))
        self._db.execute("INSERT OR REPLACE INTO account VALUES (?, ?, ?)", (mxid, connector, account))

    def disowns(self, mxid: str, connector: str) -> None:
        self._db.execute("DELETE FROM account WHERE mxid = ? AND connector = ?", (mxid, connector))

    def claims(self, claim: Claim) -> None:
        """Somebody says that an account is his; an earlier claim of his for that connector is void."""
        self._db.execute("DELETE FROM claim WHERE mxid = ? AND connector = ?", (claim.mxid, claim.connector))
        self._db.execute(
            "INSERT INTO claim VALUES (?, ?, ?, ?, ?, ?, ?)",
            (claim.code, claim.mxid, claim.connector, claim.account, claim.room, claim.conversation, time.time()),
        )

    def proven(self, code: str, since: float) -> Claim | None:
        """The claim with that code, made since then; it is used up."""
        row = self._db.execute(
            "SELECT code, mxid, connector, account, room, conversation FROM claim WHERE code = ? AND at > ?",
            (code, since),
        ).fetchone()
        self._db.execute("DELETE FROM claim WHERE code = ? OR at <= ?", (code, since))
        return Claim(*row) if row else None
