"""All that the bridge remembers. A rule is a plain function that gets a `Tx`; running it is one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from bridge.model import Delivery, File
from bridge.store import database
from bridge.store.conversations import Conversation, Conversations, Item, Message
from bridge.store.mappings import Mappings
from bridge.store.people import Claim, People
from bridge.store.queue import QueueTable, new_uid, passes
from bridge.store.spool import DiskSpool

__all__ = ["Claim", "Conversation", "Error", "Item", "Message", "Store", "StoreBusy", "Tx", "new_uid", "passes"]

Error = sqlite3.Error

P = ParamSpec("P")
T = TypeVar("T")


class StoreBusy(Exception):
    """Another process has the database."""


@dataclass(slots=True)
class Tx:
    """One transaction: the tables, and what the rest of the bridge must hear of once it is committed."""

    db: sqlite3.Connection
    queue: QueueTable = field(init=False)
    conversations: Conversations = field(init=False)
    people: People = field(init=False)
    mappings: Mappings = field(init=False)
    timers: list[tuple[str, float]] = field(default_factory=list)  # uid of a held draft, seconds to hold it

    def __post_init__(self) -> None:
        self.queue = QueueTable(self.db)
        self.conversations = Conversations(self.db)
        self.people = People(self.db)
        self.mappings = Mappings(self.db)

    def keep(self, file: File) -> None:
        """Write a small file's content with this commit."""
        if file.data is not None:
            self.db.execute(
                "INSERT INTO blob (hash, data, at) VALUES (?, ?, ?) ON CONFLICT (hash) DO UPDATE SET at = excluded.at",
                (file.hash, file.data, time.time()),
            )

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
        self.on_ready: Callable[[list[Delivery]], None] = lambda _: None
        self.on_timer: Callable[[list[tuple[str, float]]], None] = lambda _: None

    async def transact(self, rule: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a rule in one transaction; returns after the commit, when its deliveries are on their way."""
        return await self._run(lambda tx: rule(tx, *args, **kwargs))

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

        result: T = await self._writer.transact(run, announce, patient=patient)
        return result

    async def secret(self) -> bytes:
        """The key of this bridge's signatures, made once."""

        def find(tx: Tx) -> str:
            tx.db.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_hex(32),))
            return str(tx.db.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()[0])

        return bytes.fromhex(await self.transact(find))

    async def expire(self, before: float) -> None:
        """Forget arrivals and spooled content older than that; what a queued delivery needs is kept by its age."""

        def rule(tx: Tx) -> None:
            tx.db.execute("DELETE FROM seen WHERE at < ?", (before,))
            tx.db.execute("DELETE FROM blob WHERE at < ?", (before,))

        await self.transact(rule)


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Store]:
    """Open the store in `folder` for this process alone. Raises `StoreBusy`, `sqlite3.Error`, `OSError`."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy(f"another passerelle is running on {folder}; stop it first") from None
        writer = await database.opened(folder / "passerelle.db")
        try:
            yield Store(folder, writer)
        finally:
            await writer.close()
