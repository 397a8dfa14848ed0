"""What is kept for how long: raw content as long as retention says, and of the spool only what something refers to."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bridge.store.database import BEFORE
from bridge.store.spool import DiskSpool

BATCH = 500  # rows deleted in one commit, so that nobody who waits for a commit waits long
YOUNG = 86400  # seconds in which content that nothing refers to may belong to what is just arriving
STEPS = 10_000  # of SQLite's virtual machine, between looks at the clock
COPIES = 30 * 86400  # seconds that the copy made before an upgrade is kept, retention permitting
_HASH = re.compile(r'"hash":\s*"([0-9a-f]{64})"')

T = TypeVar("T")

Fade = Callable[[str, str], str]  # what stays of a connector's memo: its name, the memo
Transact = Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be."""

    arrivals: int = 0  # notes that something has arrived
    words: int = 0  # what was kept of a message's words to answer it
    letters: int = 0  # dead letters, and drafts that nobody sent or dropped
    contents: int = 0  # messages as they came, and their files, older than retention
    orphans: int = 0  # the same, referred to by nothing
    copies: int = 0  # of the database, made before upgrades
    freed: int = 0  # bytes of contents, orphans and copies

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@contextlib.contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection beside the writer's, for what takes long: in WAL mode a reader keeps no writer waiting."""
    uri = f"{database.absolute().as_uri()}?mode=rw"  # never made; a reader needs to write into the file of locks
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)) as connection:
        yield connection


def referred(connection: sqlite3.Connection) -> set[str]:
    """SHA-256, in hex, of all content of the spool that a message or a delivery refers to."""
    found: set[str] = set()
    for table, column in (("message", "original"), ("queue", "payload")):
        for (text,) in connection.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE '%\"hash\":%'"):
            found.update(_HASH.findall(text))
    return found


class Keeping:
    """Ends what has its time. Each method works in small commits, so that deliveries go on beside it."""

    def __init__(self, database: Path, spool: DiskSpool, transact: Transact) -> None:
        self._database = database
        self._spool = spool
        self._transact = transact

    def asked(self, question: Callable[[sqlite3.Connection], T], seconds: float) -> T:
        """In a thread of its own. Raises `sqlite3.OperationalError` when it is not answered in that time."""
        end = time.monotonic() + seconds
        with reading(self._database) as connection:
            connection.set_progress_handler(lambda: int(time.monotonic() > end), STEPS)
            return question(connection)

    async def expire(self, before: float, fade: Fade, *, dry: bool = False) -> Pruned:
        """Forget what is older than that: notes of arrivals, what was given up or never sent, content; old copies.

        What is ready to be delivered stays, whatever its age.
        """
        freed = await self._transact(lambda db: _sum(db, "blob", "LENGTH(data)", before))
        removed = [
            await self._removed(table, key, f"{column} < ?{but}", before, dry)
            for table, key, column, but in (
                ("seen", "key", "at", ""),
                ("queue", "id", "created", " AND state <> 'ready'"),
                ("blob", "hash", "at", ""),
            )
        ]
        files, size = await asyncio.to_thread(self._spool.remove, before, dry=dry)
        copies, more = await asyncio.to_thread(self._old_copies, before, dry)
        words = await self._faded(before, fade, dry)
        return Pruned(removed[0], words, removed[1], removed[2] + files, 0, copies, freed + size + more)

    async def _faded(self, before: float, fade: Fade, dry: bool) -> int:
        """Of messages that retention has ended since the last time: how to answer stays, what was said does not."""
        changes = await asyncio.to_thread(self._fading, before, fade)
        for start in range(0, 0 if dry else len(changes), BATCH):
            await self._transact(partial(_note_memos, changes=changes[start : start + BATCH]))
        if not dry:
            await self._transact(
                lambda db: db.execute("INSERT OR REPLACE INTO meta VALUES ('faded', ?)", (repr(before),))
            )
        return len(changes)

    def _fading(self, before: float, fade: Fade) -> list[tuple[str, int]]:
        """(new memo, number) of each message."""
        with reading(self._database) as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'faded'").fetchone()
            rows = connection.execute(
                "SELECT m.id, i.connector, m.memo FROM message m JOIN item i ON i.id = m.item"
                " WHERE m.created >= ? AND m.created < ? AND m.memo <> '' AND m.role <> 'start'",
                (float(row[0]) if row else 0.0, before),
            )
            faded = ((number, memo, fade(connector, memo)) for number, connector, memo in rows)
            return [(new, number) for number, memo, new in faded if new != memo]

    async def orphans(self, before: float, *, dry: bool = False) -> Pruned:
        """Forget content that nothing refers to: of files that were shown, say. `before` is where retention ends."""
        young = time.time() - YOUNG
        kept, rows, size = await asyncio.to_thread(self._unreferred, before, young)
        for start in range(0, 0 if dry else len(rows), BATCH):
            await self._transact(partial(_forget, rows=rows[start : start + BATCH], before=young))
        files, more = await asyncio.to_thread(self._spool.remove, young, kept, since=before, dry=dry)
        return Pruned(orphans=len(rows) + files, freed=size + more)

    async def _removed(self, table: str, key: str, where: str, before: float, dry: bool) -> int:
        if dry:
            count = f"SELECT COUNT(*) FROM {table} WHERE {where}"
            return int((await self._transact(lambda db: db.execute(count, (before,)).fetchone()))[0])
        some = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {where} LIMIT {BATCH})"
        total = 0
        while gone := await self._transact(lambda db: db.execute(some, (before,)).rowcount):
            total += gone
        return total

    def _unreferred(self, since: float, before: float) -> tuple[set[str], list[str], int]:
        """(what is referred to, rows of the `blob` table that are not, their bytes)."""
        with reading(self._database) as connection:
            connection.execute("BEGIN")
            kept = referred(connection)
            sizes = connection.execute("SELECT hash, LENGTH(data) FROM blob WHERE at >= ? AND at < ?", (since, before))
            rows = {digest: size for digest, size in sizes if digest not in kept}
        return kept, list(rows), sum(rows.values())

    def _old_copies(self, before: float, dry: bool) -> tuple[int, int]:
        found = [
            (path, state.st_size)
            for path in self._database.parent.glob(f"{self._database.name}{BEFORE}*")
            if (state := path.stat()).st_mtime < max(before, time.time() - COPIES)
        ]
        for path, _ in () if dry else found:
            path.unlink(missing_ok=True)
        return len(found), sum(size for _, size in found)


def _sum(connection: sqlite3.Connection, table: str, what: str, before: float) -> int:
    return int(
        connection.execute(f"SELECT COALESCE(SUM({what}), 0) FROM {table} WHERE at < ?", (before,)).fetchone()[0]
    )


def _note_memos(connection: sqlite3.Connection, changes: list[tuple[str, int]]) -> None:
    connection.executemany("UPDATE message SET memo = ? WHERE id = ?", changes)


def _forget(connection: sqlite3.Connection, rows: list[str], before: float) -> None:
    """What has come again meanwhile is young, and stays."""
    connection.executemany("DELETE FROM blob WHERE hash = ? AND at < ?", [(digest, before) for digest in rows])
