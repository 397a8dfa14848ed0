"""What all real servers of tests have in common: a process on loopback that is started, waited for and stopped."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import aiohttp

from tests.peers import ROOT, Child, until


class Server:
    """One server in one folder; stopped, killed and started again it stays the same. Whoever inherits makes `child`."""

    url: str
    child: Child
    door: ClassVar[str] = ""  # what is asked of `url`, until there is an answer

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it on what its folder holds; returns when it answers. Raises `AssertionError` with its log."""
        await asyncio.to_thread(self.prepare)
        self.child.start()
        try:
            await until(self._up, f"{type(self).__name__} to answer", 90, every=0.03)
        except BaseException as error:
            self.child.kill()
            error.add_note(f"Its log ends:\n{self.child.tail()}")
            raise

    async def stop(self) -> None:
        await self.child.stop()

    def kill(self) -> None:
        self.child.kill()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def prepare(self) -> None:
        """Write what it reads; before each start, in a thread."""

    async def answers(self) -> bool:
        """Whether it is there now. Raises `OSError` or aiohttp's errors when it is not."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}{self.door}") as answer:
            return answer.status < 500

    async def _up(self) -> bool:
        assert self.child.running, f"{type(self).__name__} ended while starting"
        try:
            return await self.answers()
        except (aiohttp.ClientError, OSError):
            return False


class Seed:
    """What `plant` puts into a folder, once for this content; the runs after that find it. Servers start on copies."""

    def __init__(self, name: str, content: object, plant: Callable[[Path], None]) -> None:
        self.place = ROOT / ".work" / name
        self.made = self.place / hashlib.sha256(repr(content).encode()).hexdigest()[:12]
        self._plant = plant

    def copy(self, to: Path) -> None:
        """Make it if need be, for seconds or a minute; does nothing where there is a copy."""
        if to.exists():
            return
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the run may be making it
            if not self.made.exists():
                with tempfile.TemporaryDirectory(dir=self.place) as folder:
                    self._plant(Path(folder) / "home")
                    (Path(folder) / "home").rename(self.made)
        shutil.copytree(self.made, to)
