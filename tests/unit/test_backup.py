"""Backups: what is in them, that nothing spoiled or forged is restored, and what pruning removes and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import payload
from bridge.model import Address, File
from bridge.payload import Post
from bridge.store import Pruned, Store, StoreBusy, Tx, backup, database, keeping, opened
from bridge.store.backup import Unusable, restore, write
from bridge.store.spool import SMALL
from plugins.mail import Mail
from plugins.mail.write import Memo
from tests.peers import earlier

DAY = 86400


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "data") as memory:
        yield memory


async def kept(store: Store, data: bytes, *, said: bool = True) -> File:
    """Content of the spool, with a message that refers to it unless `said` is false."""
    file = await store.spool.keep("a.eml", "message/rfc822", data)

    def rule(tx: Tx) -> None:
        tx.keep(file)
        if said:
            tx.conversations.add_message(1, "inward", "jane@customer.example", original=payload.dump_file(file))

    await store.transact(rule)
    if file.data is None:
        os.utime(place(store, file), (time.time(), time.time()))  # see `long_ago`
    return File(file.name, file.type, file.size, file.hash)


def place(store: Store, file: File) -> Path:
    return store.spool.folder / file.hash[:2] / file.hash


def listed(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:  # as anybody would
        return tar.getnames()


def parts(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar.getmembers()}  # type: ignore[union-attr]


def packed(
    archive: Path, content: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda _: None
) -> Path:
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            tar.addfile(info, io.BytesIO(data))
    return archive


def with_manifest(content: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The parts and a manifest that vouches for them."""
    manifest = json.loads(content.pop("manifest.json"))
    sums = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in content.items()}
    return content | {"manifest.json": json.dumps(manifest | {"parts": sums} | changes).encode()}


# --- making one


async def test_a_backup_of_a_running_store_holds_its_database_and_what_it_refers_to(
    store: Store, tmp_path: Path
) -> None:
    small, large, lost = b"small", os.urandom(SMALL + 1), os.urandom(SMALL + 2)
    files = [await kept(store, data) for data in (small, large, lost)]
    await kept(store, os.urandom(SMALL + 3), said=False)
    shown = Post("!r", "x", file=await store.spool.keep("b", "image/png", os.urandom(SMALL + 4)))
    await store.transact(lambda tx: tx.queue.add("a", "matrix", "post", payload.dump(shown)))
    place(store, files[2]).unlink()
    secret = await store.secret()

    target, manifest = await asyncio.to_thread(write, tmp_path / "data", tmp_path)
    assert target.name.startswith("passerelle-2")
    assert oct(target.stat().st_mode & 0o777) == "0o600"
    assert {each.name for each in tmp_path.iterdir()} == {"data", target.name}
    hashes = sorted([files[1].hash, shown.file.hash if shown.file else ""])
    assert listed(target) == ["passerelle.db", *(f"spool/{each[:2]}/{each}" for each in hashes), "manifest.json"]
    assert (manifest.files, manifest.gone, manifest.damaged) == (2, 1, ())

    again = restore(target, tmp_path / "again")
    assert again == manifest
    async with opened(tmp_path / "again") as restored:
        assert await restored.secret() == secret
        assert [await restored.spool.read(each) for each in files[:2]] == [small, large]
        at, made = await restored.transact(lambda tx: tx.restored())
        assert time.time() - 60 < made < at < time.time()
    assert await store.transact(lambda tx: tx.restored()) == (0, 0)


async def test_a_backup_is_of_one_moment_and_keeps_no_writer_waiting(store: Store, tmp_path: Path) -> None:
    await store.transact(lambda tx: [tx.db.execute("INSERT INTO blob VALUES (?, ?, 0)", (f"{n}", os.urandom(20_000)))
                                     for n in range(200)])  # fmt: skip
    done, longest = threading.Event(), 0.0

    async def go_on() -> None:
        nonlocal longest
        while not done.is_set():
            began = time.perf_counter()
            await store.transact(_two_rows)
            longest = max(longest, time.perf_counter() - began)

    writing = asyncio.create_task(go_on())
    target, _ = await asyncio.to_thread(write, tmp_path / "data", tmp_path / "b.tar")
    done.set()
    await writing
    restore(target, tmp_path / "again")
    async with opened(tmp_path / "again") as restored:
        assert await restored.transact(lambda tx: len(tx.queue.in_state("ready"))) % 2 == 0
    assert longest < 2  # a lock would last as long as the copy and then some; this is a busy machine


def _two_rows(tx: Tx) -> None:
    for _ in range(2):
        tx.queue.add("a", "matrix", "post", "x" * 1000)


async def test_what_was_deleted_is_in_no_later_backup(store: Store, tmp_path: Path) -> None:
    await kept(store, b"forget me not" * 100, said=False)
    await store.transact(lambda tx: tx.db.execute("DELETE FROM blob"))
    target, _ = await asyncio.to_thread(write, tmp_path / "data", tmp_path / "b.tar")
    assert b"forget me not" not in target.read_bytes()


async def test_a_file_that_the_disk_has_spoiled_is_told_and_does_not_spoil_the_backup(
    store: Store, tmp_path: Path
) -> None:
    good, bad = [await kept(store, os.urandom(SMALL + 1)) for _ in range(2)]
    place(store, bad).write_bytes(b"x" * (SMALL + 1))
    target, manifest = await asyncio.to_thread(write, tmp_path / "data", tmp_path / "b.tar")
    assert manifest.damaged == (f"spool/{bad.hash[:2]}/{bad.hash}",)
    assert f"spool/{good.hash[:2]}/{good.hash}" in listed(target)
    assert restore(target, tmp_path / "again").files == 1


async def test_a_backup_never_overwrites_anything_and_leaves_nothing_when_it_fails(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.tar").write_text("precious")
    with pytest.raises(Unusable, match="exists already"):
        await asyncio.to_thread(write, tmp_path / "data", tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "precious"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_append", full)
    with pytest.raises(OSError, match="No space left"):
        await asyncio.to_thread(write, tmp_path / "data", tmp_path / "c.tar")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b.tar", "data"]


def test_where_no_bridge_has_run_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(Unusable, match="no database"):
        write(tmp_path / "data", tmp_path / "b.tar")
    (tmp_path / "data" / "passerelle.db").touch()
    with pytest.raises(Unusable, match="empty"):
        write(tmp_path / "data", tmp_path / "b.tar")


# --- restoring one


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of an earlier schema, with a file."""
    folder = tmp_path_factory.mktemp("backup")
    earlier.data_of_schema(1, folder / "old")
    return write(folder / "old", folder / "b.tar")[0]


async def test_a_backup_of_an_earlier_schema_is_restored_and_upgraded_by_the_start(
    archive: Path, tmp_path: Path
) -> None:
    assert restore(archive, tmp_path / "new").schema_ == 1
    found = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert [each.name for each in found if each.stat().st_mode & 0o077] == []
    async with opened(tmp_path / "new") as store:
        assert (await store.secret()).hex() == earlier.SECRET
        assert await store.transact(lambda tx: tx.conversations.of_root("$root")) is not None
        assert (await store.transact(lambda tx: tx.restored())).at > 0


def test_nothing_is_restored_over_something(archive: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "lost+found").mkdir(parents=True)  # a volume of its own
    (data / "precious").write_text("x")
    with pytest.raises(Unusable, match=rf"not empty \(precious …\).*Move it away, for example to {data}.old"):
        restore(archive, data)
    (data / "precious").unlink()
    restore(archive, data)
    assert sorted(each.name for each in data.iterdir()) == ["lock", "lost+found", "passerelle.db", "spool"]


async def test_nothing_is_restored_under_a_running_bridge(archive: Path, tmp_path: Path) -> None:
    async with opened(tmp_path / "data"):
        with pytest.raises(StoreBusy, match="another passerelle is running"):
            restore(archive, tmp_path / "data")


def outside(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda content: {name: b"evil"} | content


def sql(text: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """The database changed by whoever can also write a manifest."""

    def change(content: dict[str, bytes]) -> dict[str, bytes]:
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.deserialize(content["passerelle.db"])
            connection.executescript(text)
            return with_manifest(content | {"passerelle.db": connection.serialize()})

    return change


def spoiled(content: dict[str, bytes]) -> dict[str, bytes]:
    return content | {"passerelle.db": content["passerelle.db"][:-1] + b"x"}


def a_file_less(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if not name.startswith("spool/")}


def torn(content: dict[str, bytes]) -> dict[str, bytes]:
    middle = len(content["passerelle.db"]) // 2
    return with_manifest(content | {"passerelle.db": content["passerelle.db"][:middle] + bytes(middle)})


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "a path out of the folder": (outside("../evil"), "holds what no backup holds"),
    "a path that is absolute": (outside("/tmp/evil"), "holds what no backup holds"),
    "a path that leaves the spool": (outside("spool/ab/../../evil"), "holds what no backup holds"),
    "a file of the wrong folder": (outside(f"spool/cd/{'ab' * 32}"), "holds what no backup holds"),
    "a second database": (outside("passerelle.db-wal"), "holds what no backup holds"),
    "a long name": (outside("x" * 200), "holds what no backup holds"),
    "a file that the manifest does not name": (outside(f"spool/ab/{'ab' * 32}"), "damaged: spool/ab"),
    "a file of another content": (lambda c: with_manifest({f"spool/ab/{'ab' * 32}": b"x"} | c), "damaged: spool/ab"),
    "a file less": (a_file_less, "damaged: spool/"),
    "another byte": (spoiled, "damaged: passerelle.db"),
    "no database": (lambda c: with_manifest({k: v for k, v in c.items() if k != "passerelle.db"}), "no database"),
    "no manifest": (lambda c: {k: v for k, v in c.items() if k != "manifest.json"}, "was cut short"),
    "a manifest that is none": (lambda c: c | {"manifest.json": b"{"}, "manifest cannot be read"),
    "a manifest of thousands of brackets": (lambda c: c | {"manifest.json": b"[" * 100_000}, "manifest cannot be read"),
    "a later format": (lambda c: with_manifest(c, format=2), "manifest cannot be read.*newer version"),
    "a later schema": (lambda c: with_manifest(c, schema=999), "schema 999 is newer"),
    "another schema": (lambda c: with_manifest(c, schema=2), "not one of schema 2"),
    "half a database": (torn, "database is (damaged|not one)"),
    "no database at all": (lambda c: with_manifest(c | {"passerelle.db": b"x" * 8192}), "database is damaged"),
    "a trigger": (sql("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM message; END"), "not one of schema 1"),
    "a view": (sql("DROP TABLE mark; CREATE VIEW mark AS SELECT 1"), "not one of schema 1"),
    "a table more": (sql("CREATE TABLE more (id INTEGER)"), "not one of schema 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_backup_that_was_spoiled_or_forged_is_refused_and_leaves_nothing(
    archive: Path, tmp_path: Path, name: str
) -> None:
    change, why = HOSTILE[name]
    forged = packed(tmp_path / "forged.tar", change(parts(archive)))
    with pytest.raises(Unusable, match=why):
        restore(forged, tmp_path / "new")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["lock"]
    restore(archive, tmp_path / "new")  # what was left does not stand in the way


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
                                  tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])  # fmt: skip
def test_only_plain_files_are_restored(archive: Path, tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo(f"spool/ab/{'ab' * 32}")
    info.type, info.linkname = kind, "/etc/passwd"
    (tmp_path / "forged.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + archive.read_bytes())
    with pytest.raises(Unusable, match="holds what no backup holds"):
        restore(tmp_path / "forged.tar", tmp_path / "new")


def test_a_backup_that_was_cut_short_anywhere_is_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    for length in (0, 100, 511, 512, 600, len(whole) // 2, len(whole) - 2048 - 1):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(Unusable, match=r"cut short|manifest"):
            restore(tmp_path / "cut.tar", tmp_path / "new")


def test_a_size_that_is_a_lie_is_noticed(archive: Path, tmp_path: Path) -> None:
    info = tarfile.TarInfo("passerelle.db")
    for size in (2**60, 2**33):
        info.size = size
        (tmp_path / "forged.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + archive.read_bytes())
        with pytest.raises(Unusable, match=r"cut short within passerelle\.db"):
            restore(tmp_path / "forged.tar", tmp_path / "new")
    (tmp_path / "forged.tar").write_bytes(os.urandom(2048))
    with pytest.raises(Unusable, match="no backup of passerelle"):
        restore(tmp_path / "forged.tar", tmp_path / "new")


def test_a_restore_that_was_cut_short_can_be_done_again(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "new" / "restoring" / "spool").mkdir(parents=True)
    (tmp_path / "new" / "restoring" / "passerelle.db").write_text("half")
    restore(archive, tmp_path / "new")
    assert not (tmp_path / "new" / "restoring").exists()


# --- pruning


def whole(connector: str, memo: str) -> str:
    """Memos stay as they are."""
    return memo


@contextlib.contextmanager
def long_ago(store: Store, seconds: float) -> Iterator[None]:
    """What is written down within was written down so long ago."""
    real = time.time
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time", lambda: real() - seconds)
        yield


async def test_pruning_removes_what_is_over_and_what_nothing_refers_to(store: Store) -> None:
    contents = {name: os.urandom(size) for name, size in {"small": 10, "large": SMALL + 1}.items()}
    with long_ago(store, 20 * DAY):
        over = [await kept(store, data) for data in contents.values()]
        await store.transact(lambda tx: tx.conversations.first_time("$old"))
        uid = await store.transact(lambda tx: tx.queue.keep_unknown("event", "{}", "odd"))
        await store.transact(lambda tx: tx.queue.add("a", "matrix", "post", "{}"))
    with long_ago(store, 5 * DAY):
        said = [await kept(store, b"said" + data) for data in contents.values()]
        orphans = [await kept(store, b"nobody's" + data, said=False) for data in contents.values()]
        await store.transact(lambda tx: tx.conversations.first_time("$new"))
    arriving = [await kept(store, b"arriving" + data, said=False) for data in contents.values()]
    copy = store.spool.folder.parent / "passerelle.db.schema1"
    copy.write_bytes(b"copy")
    os.utime(copy, (0, 0))

    before = time.time() - 10 * DAY
    expected = Pruned(
        arrivals=1, letters=1, contents=2, orphans=2, copies=1,
        freed=sum(each.size for each in (*over, *orphans)) + 4,
    )  # fmt: skip
    assert await store.prune(before, whole, orphans=True, dry=True) == expected
    assert await store.prune(before, whole, orphans=True) == expected
    assert await store.prune(before, whole, orphans=True) == Pruned()

    for file in (*over, *orphans):
        with pytest.raises(FileNotFoundError):
            await store.spool.read(file)
    for file in (*said, *arriving):
        assert len(await store.spool.read(file)) == file.size
    assert await store.transact(lambda tx: tx.queue.get(uid)) is None
    assert len(await store.transact(lambda tx: tx.queue.in_state("ready"))) == 1  # give_up ends it, never retention
    assert await store.transact(lambda tx: tx.conversations.first_time("$old"))
    assert not await store.transact(lambda tx: tx.conversations.first_time("$new"))
    assert not copy.exists()


async def test_the_hourly_round_leaves_what_is_young_to_the_command(store: Store) -> None:
    with long_ago(store, 5 * DAY):
        orphan = await kept(store, os.urandom(SMALL + 1), said=False)
    assert await store.prune(time.time() - 10 * DAY, whole) == Pruned()
    assert len(await store.spool.read(orphan)) == orphan.size


async def test_when_retention_ends_a_messages_words_are_forgotten_and_how_to_answer_it_is_not(store: Store) -> None:
    def said(tx: Tx) -> list[int]:
        item = tx.conversations.add_item("post", "<1>", "Help")
        roles = {"inward": "who; what", "outward": "who; what", "start": "to whom"}
        return [tx.conversations.add_message(1, role, "j", item=item, memo=memo) for role, memo in roles.items()]

    with long_ago(store, 20 * DAY):
        old = await store.transact(said)
    young = await store.transact(lambda tx: tx.conversations.add_message(1, "inward", "j", item=1, memo="who; what"))
    asked: list[str] = []

    def fade(connector: str, memo: str) -> str:
        asked.append(connector)
        return memo.partition(";")[0]

    before = time.time() - 10 * DAY
    assert await store.prune(before, fade, dry=True) == Pruned(words=2)
    assert await store.prune(before, fade) == Pruned(words=2)
    asked.clear()
    assert await store.prune(before + 1, fade) == Pruned()
    assert asked == []  # each is looked at once
    memos = [(await store.transact(lambda tx, n=each: tx.conversations.message(n))).memo for each in (*old, young)]
    assert memos == ["who", "who", "to whom", "who; what"]


def test_of_a_mail_there_stays_whom_to_answer() -> None:
    memo = Memo(Address("jane@customer.example", "Jane"), to=(Address("support@company.example"),), text="Please help.")
    assert Memo.load(Mail.without_words(memo.dump())) == replace(memo, text="")
    assert Mail.without_words("not ours") == ""


async def test_much_that_is_over_is_removed_in_small_commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "BATCH", 10)
    await store.transact(lambda tx: [tx.db.execute("INSERT INTO seen VALUES (?, 0)", (f"{n}",)) for n in range(95)])
    commits: list[str] = []
    await store._writer.outside_transaction(lambda db: db.set_trace_callback(commits.append))
    assert (await store.prune(1.0, whole)).arrivals == 95
    assert sum(each.startswith("DELETE FROM seen") for each in commits) == 11


def test_the_database_has_one_name() -> None:
    assert database.NAME == "passerelle.db"  # the command line says it, and backups hold it
