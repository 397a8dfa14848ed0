"""A look at the database from outside, read-only: for `passerelle doctor`, whether a bridge runs on it or not."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge.config import Mapping
from bridge.store import database
from bridge.store.keeping import reading
from bridge.store.mappings import Mappings


@dataclass(frozen=True, slots=True)
class Glance:
    """What one sees: schema versions, the first line of damage ("" without, None when there was no time to look),
    deliveries given up and waiting, since when the oldest waits (Unix time), and mappings that people made in rooms.
    """

    version: int
    newest: int
    damage: str | None
    dead: int
    waiting: int
    oldest: float
    made: tuple[Mapping, ...]


def glance(folder: Path, seconds: float) -> Glance:
    """Look at the database in `folder`, at most so long for damage. Raises `sqlite3.Error`."""
    with reading(folder / database.NAME) as connection:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        newest = len(list(database.MIGRATIONS.glob("*.sql")))
        damage = _damage(connection, seconds)
        if version != newest:  # tables may be others
            return Glance(version, newest, damage, 0, 0, 0.0, ())
        dead, waiting, oldest = connection.execute(
            "SELECT coalesce(sum(state = 'dead'), 0), coalesce(sum(state = 'ready'), 0),"
            " coalesce(min(CASE WHEN state = 'ready' THEN created END), 0) FROM queue"
        ).fetchone()
        made = tuple(Mappings(connection).made())
    return Glance(version, newest, damage, int(dead), int(waiting), float(oldest), made)


def _damage(connection: sqlite3.Connection, seconds: float) -> str | None:
    connection.set_progress_handler(_over(time.monotonic() + seconds), 10_000)
    try:
        said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)
    return "" if said == "ok" else said


def _over(end: float) -> Callable[[], int]:
    return lambda: int(time.monotonic() > end)
