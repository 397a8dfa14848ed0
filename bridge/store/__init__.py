"""All that the bridge remembers. A rule is a plain function that gets a `Tx`; running it is one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from bridge.model import Delivery, File
from bridge.store import database
from bridge.store.cards import Cards
from bridge.store.conversations import Conversation, Conversations, Item, Message
from bridge.store.keeping import Fade, Keeping, Pruned
from bridge.store.mappings import Mappings
from bridge.store.own import OwnRoom, OwnRooms
from bridge.store.people import Claim, People
from bridge.store.queue import QueueTable, new_uid, passes
from bridge.store.spool import DiskSpool

__all__ = [
    "Claim", "Conversation", "Error", "Item", "Message", "OwnRoom", "Pruned", "Restored", "Store", "StoreBusy", "Tx",
    "new_uid", "passes",
]  # fmt: skip

log = logging.getLogger(__name__)

Error = sqlite3.Error

P = ParamSpec("P")
T = TypeVar("T")


class StoreBusy(Exception):
    """Another process has the database."""


class Restored(NamedTuple):
    """When the last backup was restored, and when it had been made; 0.0: never.

    What people asked for before `at` may have been done by the bridge of then, which this one knows nothing of.
    """

    at: float
    made: float


class _Undone(Exception):
    """Raised by what was only tried."""


@dataclass(slots=True)
class Tx:
    """One transaction: the tables, and what the rest of the bridge must hear of once it is committed."""

    db: sqlite3.Connection
    queue: QueueTable = field(init=False)
    conversations: Conversations = field(init=False)
    people: People = field(init=False)
    mappings: Mappings = field(init=False)
    own: OwnRooms = field(init=False)
    cards: Cards = field(init=False)
    timers: list[tuple[str, float]] = field(default_factory=list)  # uid of a held draft, seconds to hold it
    committed: list[Callable[[], None]] = field(default_factory=list)  # what memory must follow the commit

    def __post_init__(self) -> None:
        self.queue = QueueTable(self.db)
        self.conversations = Conversations(self.db)
        self.people = People(self.db)
        self.mappings = Mappings(self.db)
        self.own = OwnRooms(self.db)
        self.cards = Cards(self.db)

    def keep(self, file: File) -> None:
        """Write a small file's content with this commit."""
        if file.data is not None:
            self.db.execute(
                "INSERT INTO blob (hash, data, at) VALUES (?, ?, ?) ON CONFLICT (hash) DO UPDATE SET at = excluded.at",
                (file.hash, file.data, time.time()),
            )

    def restored(self) -> Restored:
        """Whether this is what a backup knew."""
        rows = self.db.execute("SELECT key, value FROM meta WHERE key IN ('restored', 'restored from')")
        found = {key: float(value) for key, value in rows.fetchall()}
        return Restored(found.get("restored", 0.0), found.get("restored from", 0.0))

    def keep_text(self, name: str, text: str) -> File:
        """A text file of our own making, in the spool with this commit."""
        data = text.encode(errors="replace")
        file = File(name, "text/plain; charset=utf-8", len(data), hashlib.sha256(data).hexdigest(), data=data)
        self.keep(file)
        return file


class Store:
    """The bridge's memory: a database and a spool in one folder, owned by one process."""

    def __init__(self, folder: Path, writer: database.Writer) -> None:
        self._writer = writer
        self.spool = DiskSpool(folder / "spool", writer.transact)
        self._keeping = Keeping(folder / database.NAME, self.spool, writer.transact)
        self.on_ready: Callable[[list[Delivery]], None] = lambda _: None
        self.on_timer: Callable[[list[tuple[str, float]]], None] = lambda _: None

    def time_commits(self, tell: Callable[[float], None]) -> None:
        """From now on `tell` hears of each commit how many seconds it took."""
        self._writer.on_commit = tell

    async def transact(self, rule: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a rule in one transaction; returns after the commit, when its deliveries are on their way."""
        return await self._run(lambda tx: rule(tx, *args, **kwargs))

    async def rehearse(self, rule: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a rule returns; nothing of what it did is kept, and nobody hears of it."""
        found: list[T] = []

        def undone(tx: Tx) -> None:
            found[:] = [rule(tx, *args, **kwargs)]
            raise _Undone

        try:
            await self._run(undone)
        except _Undone:
            return found[0]
        raise AssertionError("a rehearsal is always undone")

    async def look_through(self, question: Callable[[sqlite3.Connection], T], seconds: float) -> T:
        """What a question finds that reads much: asked beside the writer, who waits for nothing meanwhile.

        Raises `Error` when that takes longer than `seconds`.
        """
        return await asyncio.to_thread(self._keeping.asked, question, seconds)

    async def tag_along(self, rule: Callable[[Tx], T]) -> T:
        """As `transact`, for what nobody waits for: committed with the next that somebody does, or a little later."""
        return await self._run(rule, patient=True)

    async def _run(self, rule: Callable[[Tx], T], *, patient: bool = False) -> T:
        tx: Tx | None = None

        def run(connection: sqlite3.Connection) -> T:
            nonlocal tx
            tx = Tx(connection)
            return rule(tx)

        def announce() -> None:
            assert tx is not None
            if tx.queue.fresh:
                self.on_ready(tx.queue.fresh)
            if tx.timers:
                self.on_timer(tx.timers)
            for follow in tx.committed:
                follow()
            for uid, state in tx.queue.moved:
                log.info("draft", extra={"uid": uid, "state": state})

        result: T = await self._writer.transact(run, announce, patient=patient)
        return result

    async def secret(self) -> bytes:
        """The key of this bridge's signatures, made once."""

        def find(tx: Tx) -> str:
            tx.db.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_hex(32),))
            return str(tx.db.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()[0])

        return bytes.fromhex(await self.transact(find))

    async def prune(self, before: float, fade: Fade, *, orphans: bool = False, dry: bool = False) -> Pruned:
        """Remove what retention, ending at `before`, has ended; with `orphans` also content that nothing refers to.

        `fade` says what stays of a connector's memo. `dry` only counts.

        Raises `sqlite3.Error`, `OSError`; what was removed until then stays removed.
        """
        removed = await self._keeping.expire(before, fade, dry=dry)
        return removed + await self._keeping.orphans(before, dry=dry) if orphans else removed


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else opens the store in `folder`. Raises `StoreBusy`, `OSError`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy(f"another passerelle is running on {folder}; stop it first") from None
        yield


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Store]:
    """Open the store in `folder` for this process alone. Raises `StoreBusy`, `sqlite3.Error`, `OSError`."""
    with alone(folder):
        writer = await database.opened(folder / database.NAME)
        try:
            yield Store(folder, writer)
        finally:
            await writer.close()
