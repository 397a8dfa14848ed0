"""Polling tools whose items are followed and do not change: what a look costs, beside the same tool without items."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web

from tests.bench.rig import ROOMS, Rig, percentile, rig
from tests.peers import until
from tests.peers.dav import Radicale, WsgiDav
from tests.peers.faults import Proxy

APART = 0.6  # seconds without a request that part one look from the next
EVERY = 2.0  # seconds between two looks
ROOM = next(iter(ROOMS.values()))
COLUMNS = {
    "cpu_ms": "CPU ms a look",
    "empty_cpu_ms": "without items",
    "requests": "requests a look",
    "database_ms": "ms in the database a look",
    "took_ms": "p50 ms until the tool has answered",
    "memory_mb": "MB",
    "empty_mb": "MB without items",
}


class Tool:
    """A server with items that nobody touches."""

    name: ClassVar[str]
    scope: ClassVar[str]
    server: Any
    path: ClassVar[str] = "/"  # below which the plugin asks
    slower: ClassVar[int] = 1  # so many times fewer items are enough to see what each costs

    def config(self, origin: str) -> dict[str, Any]:
        login = {"username": "bridge", "password": self.server.password("bridge")}
        return {"plugin": self.name, "url": f"{origin}{self.path}", "every": EVERY, **login}

    async def make(self, count: int) -> None:
        """So many items, in the quickest way that the server knows."""
        raise NotImplementedError


class Tasks(Tool):
    name, scope, path = "caldav", "ops", "/team/"

    def __init__(self, folder: Path) -> None:
        self.server = Radicale(folder)

    async def make(self, count: int) -> None:
        await asyncio.to_thread(self._write, count)

    def _write(self, count: int) -> None:
        ops = self.server.folder / "collections" / "collection-root" / "team" / "ops"
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        for number in range(count):
            task = [f"UID:t{number}", f"CREATED:{now}", f"DTSTAMP:{now}", f"SUMMARY:Task {number}"]
            around = (
                ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:bench", "BEGIN:VTODO"],
                ["END:VTODO", "END:VCALENDAR", ""],
            )
            (ops / f"t{number}.ics").write_text("\r\n".join([*around[0], *task, *around[1]]), newline="")


class Documents(Tool):
    """A hundred in a folder."""

    name, scope, slower = "webdav", "Deals", 10

    def __init__(self, folder: Path) -> None:
        self.server = WsgiDav(folder)

    async def make(self, count: int) -> None:
        await asyncio.to_thread(self._write, count)

    def _write(self, count: int) -> None:
        for number in range(count):
            folder = self.server.files / "Deals" / f"{number // 100}"
            folder.mkdir(exist_ok=True)
            (folder / f"offer {number}.txt").write_text(f"offer {number}")


class Watched(Proxy):
    """Notes when each request came and was answered: those with no long pause between them are one look."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.asked: list[tuple[float, float]] = []

    async def _pass_on(self, request: web.Request, cut: bool = False) -> web.StreamResponse:
        began = time.monotonic()
        answer = await super()._pass_on(request, cut)
        self.asked.append((began, time.monotonic()))
        return answer

    def looks(self, since: float) -> list[tuple[float, float]]:
        """Begin and end of each that began since then."""
        found: list[tuple[float, float]] = []
        for began, ended in self.asked:
            if began >= since:
                if found and began - found[-1][1] < APART:
                    found[-1] = found[-1][0], ended
                else:
                    found.append((began, ended))
        return found


@contextlib.asynccontextmanager
async def _standing(tool: Tool, folder: Path) -> AsyncIterator[tuple[Rig, Watched]]:
    async with tool.server, Watched(tool.server.origin) as way:
        connector = {**tool.config(way.url), "rooms": {tool.scope: ROOM}}
        async with rig(folder, **{tool.name: connector}) as running:
            yield running, way


async def items(kind: type[Any], folder: Path, count: int, looked: int) -> dict[str, Any]:
    """All items come into the room; then so many looks at nothing new."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread((folder / "tool").mkdir, parents=True)
    tool = kind(folder / "tool")
    async with _standing(tool, folder) as (running, way):
        empty = await _quiet(running, way, looked)
        before = (await running.homeserver.statistics())["sends"]
        await tool.make(count)
        await running.homeserver.wait_for_sends(before + count, timeout=900)
        await _quiet(running, way, 1)
        found = await _quiet(running, way, looked)
        return found | {"empty_cpu_ms": empty["cpu_ms"], "empty_mb": empty["memory_mb"]}


async def _quiet(running: Rig, way: Watched, count: int) -> dict[str, Any]:
    """What so many looks cost, from the beginning of one to that of another."""

    async def begun(number: int, since: float) -> float | None:
        found = way.looks(since)
        return found[number][0] if len(found) > number else None

    since = time.monotonic()
    first = await until(lambda: begun(1, since), "a look at the tool", timeout=180, every=0.02)
    cpu, database, asked = running.cpu(), await running.database(), len(way.asked)
    await until(lambda: begun(count, first), f"{count} looks at the tool", timeout=180 * count, every=0.02)
    cpu, asked = running.cpu() - cpu, len(way.asked) - asked
    spans = way.looks(first)[:count]
    return {
        "cpu_ms": 1000 * cpu / count,
        "requests": asked / count,
        "database_ms": 1000 * (await running.database() - database) / count,
        "took_ms": percentile([1000 * (end - begin) for begin, end in spans], 0.5),
        "memory_mb": running.memory(),
    }
