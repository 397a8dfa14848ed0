"""The tables of people and rooms: ghosts, where they have joined, employees' names, how far rooms were read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
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

    # --- accounts in tools: as the configuration says, else as proven by a code

    def declare(self, people: Mapping[str, Mapping[str, str]]) -> None:
        """From now on the configuration says whose accounts these are; what is claimed of them is void."""
        rows = [(mxid, connector, account) for mxid, named in people.items() for connector, account in named.items()]
        self._db.execute("DELETE FROM declared_account")
        self._db.executemany("INSERT INTO declared_account VALUES (?, ?, ?)", rows)
        self._db.execute(
            "DELETE FROM claim WHERE EXISTS (SELECT 1 FROM declared_account d WHERE d.connector = claim.connector"
            " AND (d.mxid = claim.mxid OR d.account = claim.account))"
        )

    def declared(self, mxid: str) -> dict[str, str]:
        """The accounts that the configuration gives somebody, by connector."""
        rows = self._db.execute("SELECT connector, account FROM declared_account WHERE mxid = ?", (mxid,))
        return dict(rows.fetchall())

    def reserved(self, connector: str, account: str) -> str:
        """The employee whose account it is by the configuration, "" when that does not say."""
        row = self._db.execute(
            "SELECT mxid FROM declared_account WHERE connector = ? AND account = ?", (connector, account)
        ).fetchone()
        return row[0] if row else ""

    def account(self, mxid: str, connector: str) -> str:
        """The employee's own account in that tool, "" when none is known."""
        return self.accounts(mxid).get(connector, "")

    def accounts(self, mxid: str) -> dict[str, str]:
        """The employee's account by connector; what is somebody else's by the configuration is not his."""
        proven = self._db.execute(
            "SELECT a.connector, a.account FROM account a WHERE a.mxid = ? AND NOT EXISTS (SELECT 1"
            " FROM declared_account d WHERE d.connector = a.connector AND d.account = a.account) ORDER BY a.connector",
            (mxid,),
        )
        return dict(sorted({**dict(proven.fetchall()), **self.declared(mxid)}.items()))

    def owner(self, connector: str, account: str) -> str:
        """The employee whose account it is, "" when that is not known."""
        row = self._db.execute(
            "SELECT a.mxid FROM account a WHERE a.connector = ? AND a.account = ? AND NOT EXISTS (SELECT 1"
            " FROM declared_account d WHERE d.mxid = a.mxid AND d.connector = a.connector)",
            (connector, account),
        ).fetchone()
        return self.reserved(connector, account) or (row[0] if row else "")

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
