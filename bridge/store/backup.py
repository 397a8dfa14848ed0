"""Backups: one file with a copy of the database and every file of the spool that it refers to; and the way back.

The file is a tar of plain files (any tar lists and unpacks it). The manifest comes last, with the size and the SHA-256
of each part: one that was cut short has none. Everything in a backup counts as hostile until it is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge import __version__
from bridge.store import alone
from bridge.store.database import NAME, private, scripts
from bridge.store.keeping import reading, referred
from bridge.store.spool import CHUNK, settled_folder

MANIFEST = "manifest.json"
SPOOL = "spool"
_LARGEST_MANIFEST = 256 * 2**20  # bytes: two million parts
_PART = re.compile(rf"{re.escape(NAME)}|{re.escape(MANIFEST)}|{SPOOL}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})")
_OURS = ("lock", "lost+found", "restoring")  # what an empty data folder may hold


class Unusable(Exception):
    """No backup can be made, or that one cannot be restored; says why, and what to do."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int  # bytes
    sha256: str  # hex


class Manifest(BaseModel):
    """What a backup holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    version: str = __version__  # of the passerelle that made it
    schema_: int = Field(alias="schema", ge=1)  # of its database
    made: float  # seconds since the epoch: when its database was copied
    parts: dict[str, Part]  # by name in the tar
    gone: int = 0  # files that messages refer to and that are no longer kept
    damaged: tuple[str, ...] = ()  # files of the spool that are not what their names say: left out

    @property
    def files(self) -> int:
        """How many files of the spool."""
        return sum(name.startswith(f"{SPOOL}/") for name in self.parts)


# --- making one


def write(data: Path, target: Path) -> tuple[Path, Manifest]:
    """Back up the data folder, a bridge running on it or not, into `target` or a new file in it.

    Deliveries go on meanwhile. Raises `Unusable`, `sqlite3.Error`, `OSError`; nothing is then left at the target.
    """
    if not (data / NAME).exists():
        raise Unusable(f"there is no database in {data}: has a bridge ever run with this configuration?")
    if target.is_dir():
        target /= f"passerelle-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar"
    if target.exists():
        raise Unusable(
            f"{target} exists already, and a backup never overwrites anything: give another name, or a folder"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="passerelle-backup-") as folder:  # mode 0700
        work = Path(folder)
        manifest = _packed(data, work)
        _named(work / "backup.tar", target)
    return target, manifest


def _packed(data: Path, work: Path) -> Manifest:
    """`backup.tar` in the folder `work`."""
    made, copy = time.time(), work / NAME
    schema, wanted = _copied(data / NAME, copy)
    parts: dict[str, Part] = {}
    damaged: list[str] = []
    with _new(work / "backup.tar") as out:
        with copy.open("rb") as source:
            parts[NAME] = _append(out, NAME, source)
        for digest in sorted(wanted):
            name, begin = f"{SPOOL}/{digest[:2]}/{digest}", out.tell()
            with contextlib.suppress(FileNotFoundError), (data / name).open("rb") as source:
                part = _append(out, name, source)
                if part.sha256 == digest:
                    parts[name] = part
                else:  # it would spoil the backup
                    damaged.append(name)
                    out.truncate(out.seek(begin))
        gone = len(wanted) + 1 - len(parts) - len(damaged)
        manifest = Manifest(schema=schema, made=made, parts=parts, gone=gone, damaged=tuple(damaged))
        _append_bytes(out, MANIFEST, manifest.model_dump_json(by_alias=True, indent=1).encode())
        out.write(bytes(2 * tarfile.BLOCKSIZE))
        out.flush()
        os.fsync(out.fileno())
    return manifest


def _copied(database: Path, copy: Path) -> tuple[int, set[str]]:
    """Copy the database as it is at one moment; returns its schema, and what it refers to that is not in it.

    The copy has no room for what was deleted: what retention has ended is in no later backup.
    """
    private(copy)
    with reading(database) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        schema = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if not schema:
            raise Unusable(f"{database} is empty: has a bridge ever run with this configuration?")
        small = {digest for (digest,) in connection.execute("SELECT hash FROM blob")}
        return schema, referred(connection) - small


def _append(out: BinaryIO, name: str, source: BinaryIO) -> Part:
    """A member of the tar; the source does not change any more."""
    size = os.fstat(source.fileno()).st_size
    out.write(_header(name, size))
    digest, left = hashlib.sha256(), size
    while left:
        chunk = source.read(min(CHUNK, left))
        if not chunk:
            raise OSError(f"{name} became shorter while it was read")
        digest.update(chunk)
        out.write(chunk)
        left -= len(chunk)
    out.write(bytes(-size % tarfile.BLOCKSIZE))
    return Part(size=size, sha256=digest.hexdigest())


def _append_bytes(out: BinaryIO, name: str, data: bytes) -> None:
    out.write(_header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(time.time())
    return info.tobuf(tarfile.GNU_FORMAT)  # sizes from 8 GiB fit, too


def _named(whole: Path, target: Path) -> None:
    """It appears whole, under a name that nobody else has taken meanwhile."""
    try:
        os.link(whole, target)
    except FileExistsError:
        raise Unusable(f"{target} exists already, and a backup never overwrites anything") from None
    except OSError:  # a file system without links
        whole.rename(target)
    settled_folder(target.parent)


def _new(path: Path) -> BinaryIO:
    """A file that is not there yet, for our own user alone."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")


# --- restoring one


def restore(source: Path, data: Path) -> Manifest:
    """Make a data folder of a backup. All of it is checked before any of it is in its place.

    Raises `Unusable`, `StoreBusy` while a bridge runs there, `sqlite3.Error`, `OSError`; the folder is then as before.
    """
    with source.open("rb") as archive, alone(data):
        if found := sorted(each.name for each in data.iterdir() if each.name not in _OURS):
            raise Unusable(
                f"{data} is not empty ({', '.join(found[:3])} …), and nothing is overwritten. Move it away, "
                f"for example to {data}.old, and restore again"
            )
        work = data / "restoring"
        shutil.rmtree(work, ignore_errors=True)  # of an earlier try
        work.mkdir(mode=0o700)
        try:
            manifest = _checked(archive, work)
            _belongs_to_the_owner(data)
            os.sync()  # once, not for each of many files
            (work / SPOOL).rename(data / SPOOL)
            settled_folder(data)
            (work / NAME).rename(data / NAME)  # last: with it, all is there
            settled_folder(data)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return manifest


def _checked(archive: BinaryIO, work: Path) -> Manifest:
    """Everything in the folder `work`, and known to be what the manifest says. Raises `Unusable`."""
    (work / SPOOL).mkdir(mode=0o700)
    parts: dict[str, Part] = {}
    for name, size in _members(archive):
        if name == MANIFEST:
            return _vouched(_manifest(archive, size), parts, work)
        parts[name] = _extracted(archive, name, size, work)
    raise Unusable("it has no manifest: it was cut short, or is no backup of passerelle")


def _members(archive: BinaryIO) -> Iterator[tuple[str, int]]:
    """Name and size of each member; whoever takes it reads its content. Only what `write` makes passes.

    Not `tarfile.open`: it also understands links, devices and headers as large as the file.
    """
    while len(block := archive.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE:
        if not any(block):  # the end
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            raise Unusable("it is no backup of passerelle, or is damaged: a member's header makes no sense") from None
        if info.type != tarfile.REGTYPE or info.size < 0 or not _PART.fullmatch(info.name):
            raise Unusable(f"it holds what no backup holds: {info.name!r}")
        yield info.name, info.size
        archive.seek(-info.size % tarfile.BLOCKSIZE, os.SEEK_CUR)


def _extracted(archive: BinaryIO, name: str, size: int, work: Path) -> Part:
    place = work / name
    place.parent.mkdir(mode=0o700, exist_ok=True)
    digest, left = hashlib.sha256(), size
    try:
        out = _new(place)
    except FileExistsError:
        raise Unusable(f"it holds {name} twice") from None
    with out:
        while left:
            chunk = archive.read(min(CHUNK, left))
            if not chunk:
                raise Unusable(f"it was cut short within {name}")
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
    return Part(size=size, sha256=digest.hexdigest())


def _manifest(archive: BinaryIO, size: int) -> Manifest:
    if size > _LARGEST_MANIFEST:
        raise Unusable("its manifest is too large to be one")
    try:
        return Manifest.model_validate_json(archive.read(size))
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        raise Unusable(f"its manifest cannot be read ({what}): it is damaged, or of a newer version") from None


def _vouched(manifest: Manifest, parts: dict[str, Part], work: Path) -> Manifest:
    """The parts are those of the manifest, files what their names say; the database is sound, its schema known."""
    wrong = [name for name in {**manifest.parts, **parts} if manifest.parts.get(name) != parts.get(name)]
    wrong += [name for name, part in parts.items() if name != NAME and not name.endswith(part.sha256)]
    if wrong:
        raise Unusable(f"it is damaged: {wrong[0]} is not what its manifest says ({len(wrong)} such parts)")
    if NAME not in parts:
        raise Unusable("it holds no database")
    if manifest.schema_ > len(scripts()):
        raise Unusable(
            f"it was made by passerelle {manifest.version}, whose schema {manifest.schema_} is newer than this one's "
            f"({len(scripts())}): install that version, or a newer one, and restore again"
        )
    _note(work / NAME, manifest)
    return manifest


def _note(database: Path, manifest: Manifest) -> None:
    """The bridge that starts on it must know that it may have done things since which it cannot remember."""
    try:
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            _sound(connection, manifest)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('restored', ?)", (repr(time.time()),))
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('restored from', ?)", (repr(manifest.made),))
    except sqlite3.DatabaseError as error:
        raise Unusable(f"its database is damaged: {error}") from None


def _sound(connection: sqlite3.Connection, manifest: Manifest) -> None:
    """Tables as our migrations make them, and nothing that would act by itself."""
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise Unusable("its database is damaged")
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript("\n".join(each.read_text(encoding="utf-8") for each in scripts()[: manifest.schema_]))
        schema, known = connection.execute("PRAGMA user_version").fetchone()[0], _tables(fresh)
    if schema != manifest.schema_ or _tables(connection) != known:
        raise Unusable(f"its database is not one of schema {manifest.schema_} as passerelle makes it")


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """All that is defined, indexes left out."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type <> 'index' AND name <> 'sqlite_stat1'")
    return set(rows.fetchall())


def _belongs_to_the_owner(data: Path) -> None:
    """Restored as root, it belongs to whom the folder belongs to: the user the bridge runs as."""
    if os.geteuid() == 0:
        owner = data.stat()
        for path in (data / "lock", *(data / "restoring").rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
