"""The store: what is committed together, what a failure undoes, what is kept how long, and who may open it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.model import Delivery, File, Rejected
from bridge.store import Store, StoreBusy, Tx, database, opened, spool
from bridge.store.spool import CHUNK, SMALL

SCRIPTS = database.scripts()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as memory:
        yield memory


def row(payload: str, lane: str = "a") -> Callable[[Tx], Delivery]:
    return lambda tx: tx.queue.add(lane, "matrix", "post", payload)


async def ready(store: Store) -> list[str]:
    return [each.payload for each in await store.transact(lambda tx: tx.queue.in_state("ready"))]


async def between_commits(store: Store, sql: str) -> Any:
    """Run a statement outside of any rule's transaction."""
    return await store._writer.outside_transaction(lambda connection: connection.execute(sql).fetchone())


async def commits_of(store: Store, work: Callable[[], Any]) -> int:
    """How many commits that took."""
    seen: list[str] = []

    def listen(connection: sqlite3.Connection, hear: Callable[[str], Any] | None) -> None:
        connection.set_trace_callback(hear)

    await store._writer.outside_transaction(lambda connection: listen(connection, seen.append))
    await work()
    await store._writer.outside_transaction(lambda connection: listen(connection, None))
    return sum(statement.startswith("COMMIT") for statement in seen)


# --- commits


async def test_whoever_waits_is_committed_together(store: Store) -> None:
    async def fifty() -> None:
        await asyncio.gather(*(store.transact(row(f"{number}")) for number in range(50)))

    assert await commits_of(store, fifty) <= 3
    assert await ready(store) == [f"{number}" for number in range(50)]


async def test_a_failing_rule_undoes_only_itself(store: Store) -> None:
    def fails(tx: Tx) -> None:
        row("never")(tx)
        raise ValueError("a mistake")

    announced: list[str] = []
    store.on_ready = lambda fresh: announced.extend(each.payload for each in fresh)
    rules = [row("1"), row("2"), fails, row("3"), fails, row("4")]
    outcomes = await asyncio.gather(*(store.transact(each) for each in rules), return_exceptions=True)
    assert [type(each) for each in outcomes] == [Delivery, Delivery, ValueError, Delivery, ValueError, Delivery]
    assert await ready(store) == ["1", "2", "3", "4"]
    assert announced == ["1", "2", "3", "4"]


async def test_a_statement_that_fails_undoes_only_its_rule(store: Store) -> None:
    outcomes = await asyncio.gather(
        store.transact(row("1")),
        store.transact(lambda tx: tx.db.execute("INSERT INTO meta VALUES ('secret', NULL)")),
        store.transact(row("2")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], sqlite3.IntegrityError)
    assert await ready(store) == ["1", "2"]


async def test_a_commit_that_fails_fails_for_everybody_and_nothing_is_announced(store: Store, tmp_path: Path) -> None:
    announced: list[Delivery] = []
    store.on_ready = announced.extend
    await between_commits(store, "PRAGMA busy_timeout = 20")
    other = sqlite3.connect(tmp_path / "passerelle.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    outcomes = await asyncio.gather(*(store.transact(row(f"{number}")) for number in range(9)), return_exceptions=True)
    assert {type(each) for each in outcomes} == {sqlite3.OperationalError}
    assert announced == []
    other.execute("ROLLBACK")
    other.close()
    await store.transact(row("again"))
    assert await ready(store) == ["again"]


async def test_a_full_disk_fails_whoever_needs_room_and_later_all_is_well(store: Store) -> None:
    pages = (await between_commits(store, "PRAGMA page_count"))[0]
    await between_commits(store, f"PRAGMA max_page_count = {pages + 3}")
    large = "x" * 100_000
    outcomes = await asyncio.gather(*(store.transact(row(large)) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(each, sqlite3.OperationalError) for each in outcomes)
    assert await ready(store) == []
    await between_commits(store, "PRAGMA max_page_count = 1000000")
    await store.transact(row(large))
    assert await ready(store) == [large]


async def test_what_a_cancelled_task_wrote_is_announced_all_the_same(store: Store) -> None:
    announced: list[str] = []
    store.on_ready = lambda fresh: announced.extend(each.payload for each in fresh)
    begun, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(tx: Tx) -> None:
        loop.call_soon_threadsafe(begun.set)
        row("slow")(tx)
        go.wait(10)

    leading = asyncio.create_task(store.transact(slow))
    await begun.wait()
    waiting = [asyncio.create_task(store.transact(row(f"{number}"))) for number in range(3)]
    await asyncio.sleep(0)
    leading.cancel()
    waiting[1].cancel()
    go.set()
    outcomes = await asyncio.gather(leading, *waiting, return_exceptions=True)
    assert [type(each) for each in outcomes][:1] == [asyncio.CancelledError]
    await store.transact(row("last"))
    assert announced == ["slow", "0", "1", "2", "last"]
    assert await ready(store) == announced


async def test_nobody_is_told_yes_by_a_closed_database(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        rules = [store.transact(row(f"{number}")) for number in range(5)]
        closing = asyncio.gather(*rules, return_exceptions=True)
    said_yes = [each for each in await closing if isinstance(each, Delivery)]
    async with opened(tmp_path) as store:
        assert await ready(store) == [each.payload for each in said_yes]


async def test_deliveries_are_announced_in_the_order_of_their_commits(store: Store) -> None:
    announced: list[int] = []
    store.on_ready = lambda fresh: announced.extend(each.id for each in fresh)

    async def write(number: int) -> None:
        for _ in range(20):
            await store.transact(row(f"{number}"))

    await asyncio.gather(*(write(number) for number in range(8)))
    assert announced == sorted(announced)
    assert len(announced) == 160


# --- opening


async def test_an_empty_folder_gets_every_migration_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "new" / "folder") as store:
        assert (await between_commits(store, "PRAGMA user_version"))[0] == len(SCRIPTS)
        assert (await between_commits(store, "PRAGMA journal_mode"))[0] == "wal"
        assert (await between_commits(store, "PRAGMA synchronous"))[0] == 2  # FULL
        secret = await store.secret()
    async with opened(tmp_path / "new" / "folder") as store:
        assert await store.secret() == secret


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(StoreBusy, match="another passerelle is running"):
            async with opened(tmp_path):
                pass
    async with opened(tmp_path):
        pass


async def test_only_its_own_user_can_read_what_the_bridge_keeps(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "data") as store:
            await store.spool.keep("a", "text/plain", b"x" * (SMALL + 1))
            found = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
            assert len(found) == 8  # the folder, database, -wal, -shm, lock, spool, its folder, the file
            assert {each.name: oct(each.stat().st_mode & 0o077) for each in found} == dict.fromkeys(
                (each.name for each in found), "0o0"
            )
    finally:
        os.umask(before)


async def test_a_database_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    (tmp_path / "passerelle.db").chmod(0o644)
    async with opened(tmp_path):
        assert [oct(each.stat().st_mode & 0o777) for each in tmp_path.glob("passerelle.db*")] == ["0o600"] * 3


# --- rows of the queue


async def test_an_attempt_begins_only_while_its_row_is_ready(store: Store) -> None:
    delivery = await store.transact(row("words"))
    begun = await store.transact(lambda tx: tx.queue.begin(delivery))
    assert begun is not None
    assert (begun.attempts, begun.doubt is not None) == (1, True)
    await store.transact(lambda tx: tx.queue.move(delivery.uid, "paused"))
    assert await store.transact(lambda tx: tx.queue.begin(delivery)) is None
    await store.transact(lambda tx: tx.queue.drop(delivery.uid))
    assert await store.transact(lambda tx: tx.queue.begin(delivery)) is None


async def test_a_later_doubt_does_not_hide_an_earlier_one(store: Store) -> None:
    delivery = await store.transact(row("words"))
    first = await store.transact(lambda tx: tx.queue.begin(delivery))
    second = await store.transact(lambda tx: tx.queue.begin(delivery))
    assert first is not None
    assert second is not None
    assert second.doubt == first.doubt


async def test_a_dead_draft_that_is_asked_again_is_as_new_but_for_having_been_attempted(store: Store) -> None:
    uid = await store.transact(lambda tx: tx.queue.add_draft("m:1", "mail", "{}", 1, "@a:b", "$words", "$cause"))
    old = time.time() - 10 * 86400
    await store.transact(
        lambda tx: tx.db.execute("UPDATE queue SET state = 'dead', created = ?, attempts = 9, doubt = ?", (old, old))
    )
    await store.transact(lambda tx: tx.queue.revive(uid, "asked", "{}"))
    again = await store.transact(lambda tx: tx.queue.get(uid))
    assert again is not None
    assert (again.state, again.attempts, again.doubt, again.error) == ("asked", 1, None, "")
    assert again.created > old


async def test_a_place_in_a_lane_is_never_given_twice(store: Store) -> None:
    first = await store.transact(row("1"))
    await store.transact(lambda tx: tx.queue.remove(first.id))
    second = await store.transact(row("2"))
    assert second.id > first.id


# --- the spool


async def test_a_small_file_is_written_with_the_commit_that_carries_it(store: Store) -> None:
    file = await store.spool.keep("a.txt", "text/plain", b"small")
    bare = File(file.name, file.type, file.size, file.hash)
    with pytest.raises(FileNotFoundError):
        await store.spool.read(bare)
    await store.transact(lambda tx: tx.keep(file))
    assert await store.spool.read(bare) == b"small"
    assert list(store.spool.folder.glob("??/*")) == []
    assert (await store.spool.path(bare)).read_bytes() == b"small"


async def test_a_large_file_is_on_disk_before_its_commit(store: Store) -> None:
    data = os.urandom(SMALL + 1)
    file = await store.spool.keep("a.bin", "application/octet-stream", data)
    assert file.data is None
    assert file.hash == hashlib.sha256(data).hexdigest()
    assert await store.spool.read(file) == data
    assert (await store.spool.path(file)).read_bytes() == data


async def test_a_stream_is_kept_and_read_in_chunks(store: Store) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(5):
            yield bytes([number]) * CHUNK

    file = await store.spool.keep_stream("a.bin", "application/octet-stream", chunks(), 10 * CHUNK)
    assert file.size == 5 * CHUNK
    assert [len(chunk) async for chunk in store.spool.stream(file)] == [CHUNK] * 5


async def test_a_stream_that_is_too_large_is_rejected_and_leaves_nothing(store: Store) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    with pytest.raises(Rejected, match="larger than the 1 MB"):
        await store.spool.keep_stream("a.bin", "application/octet-stream", endless(), 1_000_000)
    assert list(store.spool.folder.iterdir()) == []


async def test_the_same_content_in_a_newer_message_is_kept_as_long_as_that(store: Store) -> None:
    large = os.urandom(SMALL + 1)
    file = await store.spool.keep("a", "text/plain", large)
    place, past = await store.spool.path(file), time.time() - 1000
    os.utime(place, (past, past))
    await store.spool.keep("b", "text/plain", large)
    assert store.spool.remove(time.time() - 500) == (0, 0)
    assert store.spool.remove(time.time() + 1) == (1, SMALL + 1)
    with pytest.raises(FileNotFoundError):
        await store.spool.read(file)


async def test_a_write_that_fails_leaves_no_half_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(out: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "_settle", full)
    with pytest.raises(OSError, match="No space left"):
        await store.spool.keep("a", "text/plain", b"x" * (SMALL + 1))
    assert list(store.spool.folder.glob("**/*")) == []


async def test_half_files_of_a_life_that_was_cut_short_are_removed(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "incoming-abc").write_bytes(b"half")
    async with opened(tmp_path) as store:
        assert list(store.spool.folder.iterdir()) == []
