"""Raw messages and files named by the SHA-256 of their content: small ones in the database, others as fsynced files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from pathlib import Path
from typing import Any

from bridge.model import File, Rejected
from bridge.text.plain import spoken

SMALL = 64 * 1024  # below this a row of the same commit is cheaper than a file with its own fsync
CHUNK = 256 * 1024
INCOMING = "incoming-"  # begins the names of files that are not whole yet

Transact = Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]]


class DiskSpool:
    """The spool of one bridge, in a folder and in the `blob` table."""

    def __init__(self, folder: Path, transact: Transact) -> None:
        self.folder = folder
        self._transact = transact
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        for unfinished in folder.glob(f"{INCOMING}*"):  # of a life that was cut short
            unfinished.unlink(missing_ok=True)

    async def keep(self, name: str, type: str, data: bytes) -> File:
        """Keep `data`. A small file is written with the commit of the envelope that carries it."""
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= SMALL:
            return File(name, type, len(data), digest, data=data)
        await asyncio.to_thread(self._write, digest, data)
        return File(name, type, len(data), digest)

    async def keep_stream(self, name: str, type: str, chunks: AsyncIterator[bytes], limit: int) -> File:
        """Keep what comes in chunks, never whole in memory. Raises `Rejected` above `limit` bytes."""
        digest, size = hashlib.sha256(), 0
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=INCOMING)
        try:
            with os.fdopen(handle, "wb") as out:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise Rejected(f"{name} is larger than the {spoken(limit)} that are taken")
                    digest.update(chunk)
                    await asyncio.to_thread(out.write, chunk)
                await asyncio.to_thread(_settle, out)
            await asyncio.to_thread(self._adopt, Path(temporary), digest.hexdigest())
        finally:
            await asyncio.to_thread(Path(temporary).unlink, missing_ok=True)
        return File(name, type, size, digest.hexdigest())

    async def read(self, file: File) -> bytes:
        """The whole content. Raises `FileNotFoundError` when it is gone."""
        return b"".join([chunk async for chunk in self.stream(file)])

    async def stream(self, file: File) -> AsyncIterator[bytes]:
        """The content in chunks. Raises `FileNotFoundError` when retention has removed it."""
        small = file.data if file.data is not None else await self._blob(file.hash)
        if small is not None:
            yield small
            return
        with await asyncio.to_thread(self._place(file.hash).open, "rb") as stream:
            while chunk := await asyncio.to_thread(stream.read, CHUNK):
                yield chunk

    async def path(self, file: File) -> Path:
        """A readable file on disk with the content."""
        place = self._place(file.hash)
        if not place.exists():
            await asyncio.to_thread(self._write, file.hash, await self.read(file))
        return place

    def remove(
        self, before: float, kept: Container[str] = (), *, since: float = 0.0, dry: bool = False
    ) -> tuple[int, int]:
        """Remove files last kept from `since` until `before`, but those of a hash in `kept`: (how many, bytes).

        Blocking: call it in a thread.
        """
        removed = size = 0
        for path in self.folder.glob("??/*"):
            with self._lock, contextlib.suppress(FileNotFoundError):  # else it might be kept again before it is removed
                state = path.stat()
                if since <= state.st_mtime < before and path.name not in kept:
                    removed, size = removed + 1, size + state.st_size
                    if not dry:
                        path.unlink()
        return removed, size

    async def _blob(self, digest: str) -> bytes | None:
        def find(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute("SELECT data FROM blob WHERE hash = ?", (digest,)).fetchone()
            return row[0] if row else None

        found: bytes | None = await self._transact(find)
        return found

    def _place(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def _write(self, digest: str, data: bytes) -> None:
        place = self._place(digest)
        if self._touched(place):  # the same content again: it lives as long as the newer message
            settled_folder(place.parent)  # whoever wrote it may not have come so far yet
            return
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=INCOMING)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                _settle(out)
            self._adopt(Path(temporary), digest)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _touched(self, place: Path) -> bool:
        with self._lock, contextlib.suppress(FileNotFoundError):
            os.utime(place, (time.time(), time.time()))
            return True
        return False

    def _adopt(self, temporary: Path, digest: str) -> None:
        place = self._place(digest)
        if not place.parent.exists():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            settled_folder(self.folder)
        with self._lock:
            temporary.replace(place)
        settled_folder(place.parent)  # the name must survive a power cut as well


def _settle(out: Any) -> None:
    out.flush()
    os.fsync(out.fileno())


def settled_folder(folder: Path) -> None:
    """What was named in the folder so far has its name after a power cut, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
