"""What is on this host: the data folder, the database, the spool; and the running bridge, asked how it is."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from pathlib import Path
from pwd import getpwuid

import aiohttp

from bridge.doctor.line import Line, note, ok, reason, trouble
from bridge.store.glance import Glance, glance
from bridge.text.plain import spoken

SPARE = 500 * 10**6  # bytes that should be free
CHECKING = 5.0  # seconds to look for damage in the database
LATE = 900.0  # seconds that a delivery waits before it is worth a word


def looked_at(folder: Path, running: bool) -> tuple[list[Line], Glance | None]:
    """The folder and what is in it. Blocks: for a thread."""
    try:
        if not folder.exists():
            return [_to_be_made(folder)], None
        lines = [*_folder(folder), *([] if running else _lock(folder)), _spool(folder), _space(folder)]
    except OSError as error:
        what = f"{folder} cannot be used: {reason(error)}"
        return [trouble("data folder", what, f"it must belong to the bridge's user: {_chown(folder)}")], None
    if not (folder / "passerelle.db").exists():
        return [*lines, ok("database", "is made at the first start")], None
    try:
        seen = glance(folder, CHECKING)
    except sqlite3.Error as error:
        remedy = "stop the bridge and restore a backup (passerelle restore); keep the damaged folder"
        return [*lines, trouble("database", f"cannot be read: {error}", remedy)], None
    return [*lines, *_database(seen)], seen


def _to_be_made(folder: Path) -> Line:
    parent = next(each for each in folder.absolute().parents if each.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return ok("data folder", f"{folder} is made at the first start")
    remedy = f"make it for the bridge's user: install -d -m 0700 -o {_me()} {folder}"
    return trouble("data folder", f"{folder} is not there and cannot be made in {parent}", remedy)


def _folder(folder: Path) -> list[Line]:
    found = folder.stat()
    lines = []
    if not stat.S_ISDIR(found.st_mode):
        return [trouble("data folder", f"{folder} is no folder", "see `data`")]
    if found.st_uid != os.geteuid():
        remedy = f"run doctor as the user that the bridge runs as, or: {_chown(folder)}"
        lines.append(trouble("data folder", f"{folder} belongs to {_name(found.st_uid)}, we are {_me()}", remedy))
    if found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        lines.append(trouble("data folder", f"others may enter {folder} (mode {mode})", f"chmod 0700 {folder}"))
    return lines or [ok("data folder", f"{folder} is ours alone")]


def _lock(folder: Path) -> list[Line]:
    """No bridge answers; nobody should hold its lock then."""
    lock = folder / "lock"
    if not lock.exists():
        return []
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = f"wait a moment (it may be starting or stopping), or find it: fuser -v {lock}"
            return [trouble("data folder", "another process has it, and does not answer", remedy)]
    return []


def _spool(folder: Path) -> Line:
    spool = folder / "spool"
    place = spool if spool.exists() else folder
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = f"nothing can be written into {place}: {reason(error)}"
        return trouble(
            "spool", what, f"it must be a folder of the bridge's user, on a disk that has room: {_chown(folder)}"
        )
    return ok("spool", "can be written")


def _space(folder: Path) -> Line:
    free = shutil.disk_usage(folder).free
    if free < SPARE:
        return trouble("disk", f"only {spoken(free)} free for {folder}", "make room; `retention` says what is kept")
    return ok("disk", f"{spoken(free)} free")


def _database(seen: Glance) -> list[Line]:
    lines = [_damage(seen)]
    if seen.version > seen.newest:
        what = f"it is of a newer bridge (schema {seen.version}, this one knows {seen.newest})"
        lines.append(trouble("database", what, "install the newer version again"))
    elif seen.version < seen.newest:
        lines.append(note("database", f"is upgraded at the next start (schema {seen.version} to {seen.newest})"))
    if seen.dead:
        what = f"{seen.dead} given up (dead letters)"
        lines.append(note("deliveries", what, "passerelle dead-letters list; then show, and replay"))
    waits = time.time() - seen.oldest if seen.oldest else 0.0
    if waits > LATE:
        lines.append(
            note("deliveries", f"{seen.waiting} wait, one for {waits / 60:.0f} minutes", "see what is !! here")
        )
    return lines


def _damage(seen: Glance) -> Line:
    if seen.damage:
        remedy = "stop the bridge and restore a backup (passerelle restore); keep the damaged folder"
        return trouble("database", f"is damaged: {seen.damage}", remedy)
    if seen.damage is None:
        return ok("database", f"can be read; too large to be looked through in {CHECKING:.0f} s")
    return ok("database", f"whole (schema {seen.version})")


async def asked(running: aiohttp.ClientSession | None) -> list[Line]:
    """How the running bridge says it is."""
    if running is None:
        return [note("bridge", "does not run; the rest is looked at all the same", "passerelle run")]
    try:
        async with running.get("/status", timeout=aiohttp.ClientTimeout(total=5)) as answer:
            status = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return [trouble("bridge", f"runs, but does not answer: {type(error).__name__}", "see its log; start it anew")]
    found = status.get("trouble", {}) if isinstance(status, dict) else {}
    lines = [trouble("bridge", f"{name}: {why}", "see its log, and what is !! here") for name, why in found.items()]
    return lines or [ok("bridge", "runs and is ready")]


def _name(user: int) -> str:
    try:
        return getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _me() -> str:
    return _name(os.geteuid())


def _chown(folder: Path) -> str:
    return f"chown -R {_me()} {folder}"
