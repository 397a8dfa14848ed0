"""A bridge's database after years: messages known, rows queued, written by SQL straight into the tables."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from bridge import payload
from bridge.model import Address, Author, Draft, Recipients
from bridge.payload import Post
from bridge.store import database
from tests.bench.mails import MAILBOXES

FIRST_MAILS = 0.7  # of the messages known; the others are answers
LARGEST = 2**32

# Ids as real ones: nothing in their order says when they came.
_SCATTERED = f"printf('%08x', n * 2654435761 % {LARGEST})"
_ROOM = "printf('!bench%02d:company.example', n % 50)"
_TABLES = {
    "conversation (id, room, root, latest, title, speaker, created)": (
        f"n, {_ROOM}, '$root' || {_SCATTERED} || printf('%031d', n), '$last' || {_SCATTERED}, 'Order ' || n, NULL,"
        " :now",
        ":first",
    ),
    "item (id, connector, remote, title, created)": (
        f"n, 'mail', '<' || {_SCATTERED} || '.seed@customers.example>', 'Order ' || n, :now",
        ":first",
    ),
    "conversation_item (conversation, item, scope)": (
        "n, n, printf('box%02d@company.example', n % 50)",
        ":first",
    ),
    "participant (item, account)": ("n, 'somebody' || n % 9973 || '@customers.example'", ":first"),
    "reference (connector, remote, item)": (
        f"'mail', '<' || {_SCATTERED} || '.seed@customers.example>', 1 + n % :first",
        ":known",
    ),
    "seen (key, at)": (
        f"'mail ' || {_ROOM} || ' ' || {_SCATTERED} || printf('%056d', n), :now - n",
        ":known",
    ),
    "message (id, conversation, item, role, remote, refs, event, sender, title, memo, original, created)": (
        "n, 1 + n % :first, 1 + n % :first, 'inward',"
        f" '<' || {_SCATTERED} || '.seed@customers.example>', '', '$mail' || {_SCATTERED} || printf('%031d', n),"
        " 'somebody' || n % 9973 || '@customers.example', 'Order ' || n, :memo, :memo, :now - n",
        ":known",
    ),
}


def make(folder: Path, known: int, queued: int) -> None:
    """A data folder with so many messages known and so many rows in the queue, none of which can be delivered now."""
    path = folder / "passerelle.db"
    asyncio.run(_empty(path))
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "journal_mode = OFF", "cache_size = -500000"):
        connection.execute(f"PRAGMA {pragma}")
    _know(connection, known)
    connection.execute("BEGIN")
    _queue(connection, queued, int(known * FIRST_MAILS))
    connection.execute("COMMIT")
    connection.close()
    asyncio.run(_empty(path))  # as a bridge leaves it: in WAL mode


async def _empty(path: Path) -> None:
    await (await database.opened(path)).close()


def _know(connection: sqlite3.Connection, known: int) -> None:
    """Indexes are made afterwards: that is many times faster."""
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    values = {"first": max(1, int(known * FIRST_MAILS)), "known": known, "now": time.time(), "memo": "x" * 100}
    connection.execute("BEGIN")
    for table, (columns, count) in _TABLES.items():
        numbers = f"WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
        order = "" if columns.startswith("n,") else " ORDER BY 1, 2"
        connection.execute(f"INSERT INTO {table} {numbers} SELECT {columns} FROM numbers{order}", values)
    connection.execute("COMMIT")
    for _, sql in indexes:
        connection.execute(sql)


def _queue(connection: sqlite3.Connection, queued: int, conversations: int) -> None:
    """Half for a smarthost that is down, half for rooms, in lanes whose next attempt is an hour away."""
    now = time.time()
    row = (
        "INSERT INTO queue (uid, lane, destination, kind, payload, state, conversation, created, attempts, due) VALUES"
    )
    for n in range(queued // 2):
        room, conversation = f"!bench{n % 50:02d}:company.example", 1 + n % conversations
        post = Post(room, "words " * 100, author=Author("mail", f"customer0.box{n % 50:02d}@customers.example"))
        draft = Draft(
            "mail", MAILBOXES[n % 50], 1, "Order", "@alice:company.example", "Alice",
            Recipients((Address("somebody@customers.example"),)), "words " * 100, room=room, asked=now + 3600,
        )  # fmt: skip
        rows = [
            (f"m{n:019d}", f"matrix:{conversation}", "matrix", "post", payload.dump(post), conversation, 1, now + 3600),
            (f"d{n:019d}", f"mail:{conversation}", "mail", "draft", payload.dump(draft), conversation, 0, 0.0),
        ]
        for uid, lane, destination, kind, text, number, attempts, due in rows:
            values = (uid, lane, destination, kind, text, "ready", number, now, attempts, due)
            connection.execute(f"{row} (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
