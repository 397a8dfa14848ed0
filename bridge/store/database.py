"""One writer on an SQLite file: rules run in its thread, and all that wait are committed together (group commit)."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
NAME = "passerelle.db"
BEFORE = ".schema"  # ends, with its number, the name of the copy that is made before an upgrade
UNFINISHED = ".unfinished"  # ends the name of one that is not whole yet
PATIENCE = 0.005  # seconds that a rule nobody waits for may wait for others to be committed with
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit survives a power cut
    "PRAGMA foreign_keys = OFF",  # rules keep them; checking each insert costs a look-up
    "PRAGMA cache_size = -65536",  # 64 MiB
    "PRAGMA wal_autocheckpoint = 4000",
)


class Job:
    """A rule that waits for its commit: a plain function that gets the connection, and its outcome."""

    __slots__ = ("announce", "done", "error", "result", "rule", "taken")

    def __init__(self, rule: Callable[[sqlite3.Connection], Any], announce: Callable[[], None] | None) -> None:
        self.rule = rule
        self.announce = announce
        self.taken: asyncio.Future[None] | None = None
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


class Writer(aiosqlite.Connection):
    """An aiosqlite connection that runs whole transactions in one hop to its thread."""

    def __init__(self, path: Path) -> None:
        super().__init__(partial(sqlite3.connect, str(path), isolation_level=None, cached_statements=256), 64)
        self.on_commit: Callable[[float], None] = lambda _: None  # the seconds that a commit took
        self._waiting: list[Job] = []
        self._turn = asyncio.Lock()

    async def transact(
        self,
        rule: Callable[[sqlite3.Connection], Any],
        announce: Callable[[], None] | None = None,
        *,
        patient: bool = False,
    ) -> Any:
        """Run `rule` in a transaction and return its result after the commit.

        Whoever comes first takes everything that waits into one commit. An error of the rule undoes that rule only,
        but may make the others run twice: a rule has no effects but those on the database.
        An error of the commit (disk full) is raised to everybody in it. `announce` is called after the commit, in
        commit order, even when the task that asked for it was cancelled meanwhile. A `patient` rule lets somebody else
        come first for a moment: a commit is by far the dearest part.
        """
        job = Job(rule, announce)
        self._waiting.append(job)
        if patient:
            await _company(job)
        async with self._turn:
            if not job.done:
                batch, self._waiting = self._waiting, []
                for each in batch:
                    _wake(each.taken)
                began = time.perf_counter()
                hop = asyncio.ensure_future(self._hop(partial(_commit, self._conn, batch)))
                hop.add_done_callback(lambda _: self.on_commit(time.perf_counter() - began))
                hop.add_done_callback(lambda _: _announce(batch))
                await asyncio.shield(hop)
        if job.error is not None:
            raise job.error
        if not job.done:  # whoever took it into his commit failed before it began
            raise sqlite3.OperationalError("the database is closed")
        return job.result

    async def _hop(self, act: Callable[[], Any]) -> Any:
        return await self._execute(act)  # type: ignore[no-untyped-call]

    async def outside_transaction(self, act: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `act` in the thread between two transactions."""
        return await self._hop(partial(act, self._conn))


async def _company(job: Job) -> None:
    """Wait until somebody has taken the job into a commit, or too long."""
    loop = asyncio.get_running_loop()
    job.taken = loop.create_future()
    timer = loop.call_later(PATIENCE, _wake, job.taken)
    try:
        await job.taken
    finally:
        timer.cancel()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _commit(connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """All rules in one transaction. When one fails, all is undone and the others are run again without it.

    That is seldom. A savepoint for each would cost always, a fifth of the time: SQLite copies every page they touch.
    """
    left = list(jobs)
    try:
        while left:
            connection.execute("BEGIN IMMEDIATE")
            failed = next((job for job in left if not _ran(connection, job)), None)
            if failed is None:
                connection.execute("COMMIT")
                break
            connection.execute("ROLLBACK")
            left.remove(failed)
    except sqlite3.Error as error:  # the commit itself failed: nobody's rule is written
        for job in jobs:
            job.error, job.result = job.error or error, None
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    for job in jobs:
        job.done = True


def _announce(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.done and job.error is None and job.announce is not None:
            try:
                job.announce()
            except Exception:  # it is committed all the same, and so is what the others wait to hear
                log.exception("what was committed could not be told to those who follow it")


def _ran(connection: sqlite3.Connection, job: Job) -> bool:
    """Run a rule; False when it failed."""
    try:
        job.result = job.rule(connection)
    except Exception as error:  # it is raised again in the task that asked for this rule
        if not connection.in_transaction:  # a full disk ends the whole transaction (sqlite.org/lang_transaction)
            raise sqlite3.OperationalError(str(error)) from error
        job.error = error
    return job.error is None


async def opened(path: Path) -> Writer:
    """Open the database, made and migrated as needed. Raises `sqlite3.Error` when that cannot be done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    private(path)
    writer = Writer(path)
    await writer
    try:
        await writer.outside_transaction(_prepare)
    except BaseException:
        await writer.close()  # or its thread would keep the process alive
        raise
    return writer


def private(path: Path) -> None:
    """See that only our own user can read the database at that path; what SQLite puts beside it follows its mode."""
    path.touch(mode=0o600)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def scripts() -> list[Path]:
    """The migrations in their order: a database has schema n when the first n of them were run on it."""
    return sorted(MIGRATIONS.glob("*.sql"))


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout = 5000")
    schema, known = connection.execute("PRAGMA user_version").fetchone()[0], len(scripts())
    if not known:
        raise sqlite3.DatabaseError(f"this installation is incomplete: there is no schema in {MIGRATIONS}")
    if schema > known:
        raise sqlite3.DatabaseError(
            f"it has schema {schema}, made by a newer version of passerelle; this version knows schemas up to {known}. "
            "Install the newer version again, or restore a backup that was made before the upgrade"
        )
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    if schema < known:
        if schema:
            _copy_aside(connection, schema)
        _migrate(connection, schema)


def _copy_aside(connection: sqlite3.Connection, schema: int) -> None:
    """The database as it was before an upgrade, beside it. An upgrade that could not be undone is not begun."""
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    unfinished, copy = path.with_name(f"{path.name}{UNFINISHED}"), path.with_name(f"{path.name}{BEFORE}{schema}")
    try:
        unfinished.unlink(missing_ok=True)
        private(unfinished)
        connection.execute("VACUUM INTO ?", (str(unfinished),))
        unfinished.replace(copy)
    except (sqlite3.Error, OSError) as error:
        unfinished.unlink(missing_ok=True)
        size = path.stat().st_size // 1_000_000 + 1
        raise sqlite3.OperationalError(
            f"before the upgrade a copy of it is made as {copy}, and failed ({error}). Is there room for {size} MB?"
        ) from error
    log.warning("the database is upgraded from schema %d to %d; as it was, it is in %s", schema, len(scripts()), copy)


def _migrate(connection: sqlite3.Connection, schema: int) -> None:
    """Every step that is missing in one transaction: all of them, or none and the older bridge can go on with it."""
    steps = (
        f"{script.read_text(encoding='utf-8')}\nPRAGMA user_version = {number};"
        for number, script in enumerate(scripts()[schema:], schema + 1)
    )
    try:
        connection.executescript("\n".join(["BEGIN IMMEDIATE;", *steps, "COMMIT;"]))
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
