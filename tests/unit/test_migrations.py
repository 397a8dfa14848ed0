"""Databases of earlier versions: each is upgraded whole or not at all, and nothing that waited in it is lost."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import payload
from bridge.model import Draft, File
from bridge.payload import Post
from bridge.store import Tx, database, opened
from plugins.mail.write import Memo
from tests.peers import earlier
from tests.peers.earlier import DEAD, FIRST, HELD, JANE, LARGE, POST, SMALL, SUPPORT

SCHEMAS = range(1, len(database.scripts()) + 1)
RELEASED = {
    "0001.sql": "7b317137d659dd10a54bbce835f86b9139f5dc43822a82f44eb4908cb1f75f34",
    "0002.sql": "b734d8e17de65a9a407032084f1585da59e0c14799e184b7b9cac9656e2c6b22",
    "0003.sql": "067b1e208887fec52d905e2a86e18db922b7cfe79c6c8794869d0bb3e25cc641",
}  # what databases out there were made with


@contextlib.contextmanager
def plain(data: Path) -> Iterator[sqlite3.Connection]:
    """The database without the bridge."""
    with contextlib.closing(sqlite3.connect(data / "passerelle.db", isolation_level=None)) as connection:
        yield connection


def schema(connection: sqlite3.Connection) -> tuple[int, set[tuple[str, ...]]]:
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return connection.execute("PRAGMA user_version").fetchone()[0], set(rows)


@pytest.mark.parametrize("name", RELEASED)
def test_a_migration_that_was_released_is_never_changed(name: str) -> None:
    assert hashlib.sha256((database.MIGRATIONS / name).read_bytes()).hexdigest() == RELEASED[name]


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [each.name for each in database.scripts()] == [f"{number:04}.sql" for number in SCHEMAS]


def test_the_rows_of_earlier_versions_are_of_every_table(tmp_path: Path) -> None:
    earlier.data_of_schema(1, tmp_path)
    first = (database.MIGRATIONS / "0001.sql").read_text()
    with plain(tmp_path) as connection:
        for table in re.findall(r"CREATE TABLE (\w+)", first):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0], table


@pytest.mark.parametrize("number", SCHEMAS)
async def test_what_an_earlier_version_left_is_read_by_this_one(tmp_path: Path, number: int) -> None:
    earlier.data_of_schema(number, tmp_path)
    async with opened(tmp_path) as store:
        assert (await store.secret()).hex() == earlier.SECRET
        await store.transact(_as_it_was)
        for content in (SMALL, LARGE):
            assert await store.spool.read(File("a", "b", 1, hashlib.sha256(content).hexdigest())) == content


def _as_it_was(tx: Tx) -> None:
    conversation = tx.conversations.of_root("$root")
    assert conversation is not None
    assert (conversation.id, conversation.room, conversation.latest) == (1, "!room", "$words")
    assert tx.conversations.items_referred("mail", ("<2@customer.example>",)) == [1]
    assert tx.conversations.items_of(1)[0].scope == SUPPORT
    assert tx.conversations.takes_part(1, JANE)
    last = tx.conversations.last_inward(1, 1)
    assert last is not None
    assert (last.remote, last.refs) == ("<2@customer.example>", (FIRST,))
    memo = Memo.load(last.memo)
    assert memo is not None
    assert memo.sender.account == JANE
    kept = tx.conversations.last_original(1) or tx.conversations.message(5)
    assert kept is not None
    assert payload.load_file(kept.original).size == len(LARGE)
    assert [payload.load(Post, each.payload).body for each in tx.queue.head("matrix:1", 0, 9)] == ["Are you there?"]
    states = {each.uid: each.state for each in tx.queue.waiting(1, "paused", "dead")}
    assert states == {HELD: "paused", DEAD: "dead"}
    held = tx.queue.get(HELD)
    assert held is not None
    assert payload.load(Draft, held.payload).recipients.all[0].account == JANE
    assert [each.uid for each in tx.queue.touched_by("$preview")] == [HELD]
    assert tx.queue.get(POST) is not None
    assert not tx.conversations.first_time("$heard")
    assert tx.conversations.mark("$words", "⏳") == "$mark"
    assert tx.conversations.cursor("helpdesk") == "2025-11-22.12:00:00"
    assert tx.people.ghosts() == {"@_passerelle_mail_joe": "Joe"}
    assert tx.people.memberships() == {("@_passerelle_mail_joe", "!other")}
    assert tx.people.name("@alice:company.example") == "Alice"
    assert tx.people.marker("!room") == "s1"
    assert tx.people.aliases() == {"#help:company.example": "!other"}
    assert tx.people.owner("helpdesk", "alice") == "@alice:company.example"
    assert tx.people.proven("c", 0) is not None
    assert not tx.people.lacks("!other", ["right-invite"])
    assert tx.people.encrypted() == {"!secret"}
    assert tx.queue.recent_to("mail", SUPPORT, JANE, 0, but="") == 1


@pytest.mark.parametrize("number", SCHEMAS)
async def test_an_upgraded_database_is_like_a_new_one(tmp_path: Path, number: int) -> None:
    earlier.empty_of_schema(number, tmp_path / "old")
    for data in (tmp_path / "old", tmp_path / "new"):
        async with opened(data) as store:
            await store.secret()
    with plain(tmp_path / "old") as old, plain(tmp_path / "new") as new:
        assert schema(old) == schema(new)


async def test_before_an_upgrade_the_database_is_copied_as_it_was(tmp_path: Path) -> None:
    earlier.data_of_schema(1, tmp_path)
    with plain(tmp_path) as connection:
        before = list(connection.iterdump())
    async with opened(tmp_path):
        pass
    copy = tmp_path / "passerelle.db.schema1"
    assert oct(copy.stat().st_mode & 0o777) == "0o600"
    copy.replace(tmp_path / "passerelle.db")
    with plain(tmp_path) as connection:
        assert list(connection.iterdump()) == before
    async with opened(tmp_path):  # once more, over a copy of an earlier try
        pass
    copy.unlink()
    async with opened(tmp_path):
        assert not copy.exists()


async def test_an_upgrade_that_cannot_be_undone_is_not_begun(tmp_path: Path) -> None:
    earlier.data_of_schema(1, tmp_path)
    (tmp_path / "passerelle.db.schema1").mkdir()  # no file can take its place
    with pytest.raises(
        sqlite3.OperationalError, match=r"copy of it is made as .*schema1, and .* Is there room for 1 MB"
    ):
        async with opened(tmp_path):
            pass
    with plain(tmp_path) as connection:
        assert schema(connection)[0] == 1
    assert not (tmp_path / "passerelle.db.unfinished").exists()


async def test_an_upgrade_that_fails_in_the_middle_leaves_the_database_to_the_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier.data_of_schema(1, tmp_path / "data")
    with plain(tmp_path / "data") as connection:
        before, rows = schema(connection), list(connection.iterdump())
    steps = tmp_path / "migrations"
    steps.mkdir()
    (steps / "0001.sql").write_text((database.MIGRATIONS / "0001.sql").read_text())
    (steps / "0002.sql").write_text("CREATE TABLE whole (id INTEGER);\nDELETE FROM message;\n")
    (steps / "0003.sql").write_text("DROP TABLE mark;\nCREATE TABLE half (id INTEGER);\nnonsense;\nDROP TABLE seen;\n")
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", steps)
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            async with opened(tmp_path / "data"):
                pass
    with plain(tmp_path / "data") as connection:
        assert schema(connection) == before
        assert list(connection.iterdump()) == rows
    async with opened(tmp_path / "data") as store:
        await store.transact(_as_it_was)


async def test_a_database_of_a_newer_version_is_refused_untouched_and_no_thread_stays(tmp_path: Path) -> None:
    earlier.empty_of_schema(len(SCHEMAS), tmp_path)
    with plain(tmp_path) as connection:
        connection.execute(f"PRAGMA user_version = {len(SCHEMAS) + 1}")
    bytes_before, before = (tmp_path / "passerelle.db").read_bytes(), set(threading.enumerate())
    with pytest.raises(sqlite3.DatabaseError, match=r"newer version of passerelle.*Install the newer version"):
        async with opened(tmp_path):
            pass
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive() or thread.name.startswith("asyncio_")
    assert (tmp_path / "passerelle.db").read_bytes() == bytes_before
