"""What every cell stands on: the bridge, the homeserver stand-in and a smarthost as processes, and their clocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.bench.mails import MAILBOXES, MARK
from tests.peers import ROOT, Child, free_port, until
from tests.peers.bridge import BridgeProcess, configuration, write
from tests.peers.instant import Instant
from tests.peers.synapse import Registration

ROOMS = {mailbox: f"!bench{number:02d}:company.example" for number, mailbox in enumerate(MAILBOXES)}
COMMITS = "passerelle_commit_seconds_sum"
SETTLE = 0.3  # seconds after the last message in which the bridge finishes what belongs to it


@dataclass
class Rig:
    """A running bridge and all it speaks to."""

    folder: Path
    bridge: BridgeProcess
    homeserver: Instant
    smarthost: Outside
    smtp: int
    metrics: str

    def cpu(self) -> float:
        """Seconds of CPU that the bridge has used."""
        return cpu_of(self.bridge.child)

    def memory(self) -> float:
        """MB of memory that the bridge has now."""
        return float(psutil.Process(self.bridge.child.pid).memory_info().rss) / 1e6

    async def database(self) -> float:
        """Seconds that the bridge has spent in transactions."""
        async with aiohttp.ClientSession() as http, http.get(self.metrics) as answer:
            shown = await answer.text()
        return float(next(line.split()[1] for line in shown.splitlines() if line.startswith(COMMITS)))

    async def requests(self) -> int:
        """How many requests the homeserver has had from the bridge."""
        return sum((await self.homeserver.statistics())["requests"].values())

    async def arrivals(self, run: str) -> dict[int, float]:
        """When each mail of a run was at the homeserver, by its number."""
        found = {}
        for event in await self.homeserver.sends():
            mark = MARK.search(str(event["content"].get("body", "")))
            if mark and mark[2] == run:
                found.setdefault(int(mark[1]), float(event["at"]))
        return found


class Outside:
    """The mail server that takes everything, as a child."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.notes = folder / "came.json"
        command = [sys.executable, "-m", "tests.bench.outside", "--port", str(self.port), "--notes", str(self.notes)]
        self.child = Child(command, ROOT, folder / "outside.log")

    async def start(self) -> None:
        self.child.start()
        await until(self._listens, "the mail server that does nothing", every=0.02)

    async def came(self) -> dict[str, float]:
        """When each mail came, by "run number"."""
        self.notes.unlink(missing_ok=True)
        os.kill(self.child.pid, signal.SIGUSR1)
        await until(self._noted, "the mail server's notes", every=0.02)
        return dict(json.loads(self.notes.read_text()))

    async def _noted(self) -> bool:
        return self.notes.exists()

    async def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def cpu_of(child: Child) -> float:
    """Seconds of CPU that a child has used."""
    used = psutil.Process(child.pid).cpu_times()
    return used.user + used.system


@contextlib.asynccontextmanager
async def rig(
    folder: Path, data: Path | None = None, smarthost: bool = True, **more: Mapping[str, Any]
) -> AsyncIterator[Rig]:
    """A bridge with 50 mailboxes in 50 rooms, on the data in `data` if given; without `smarthost` that one is down.

    `more` are connectors by their names, each mapped with its `rooms` (by scope) and configured with the rest.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    listen, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    smtp, outside = free_port(), Outside(folder)
    homeserver = Instant(folder, f"http://{listen}")
    config = configuration(
        homeserver.url,
        Registration(f"http://{listen}"),
        listen,
        smtp=f"127.0.0.1:{smtp}",
        smarthost=("127.0.0.1", outside.port),
        rooms=ROOMS,
        data=data or folder / "data",
        overrides={
            "outward": {"hold": 0, "per_address": 0},
            "web": {"per_minute": 0},
            "metrics": {"listen": metrics},
        },
    )
    for name, connector in more.items():
        config["connectors"][name] = {key: value for key, value in connector.items() if key != "rooms"}
        config["mappings"] += [{"connector": name, "scope": s, "room": room} for s, room in connector["rooms"].items()]
    bridge = BridgeProcess(write(folder / "passerelle.yaml", config), fresh=True)
    async with contextlib.AsyncExitStack() as stack:
        if smarthost:
            stack.push_async_callback(outside.child.stop)
            await outside.start()
        await stack.enter_async_context(homeserver)
        stack.push_async_callback(bridge.stop)
        await bridge.start(wait=False)
        await until(lambda: _takes_mail(bridge.url), "the bridge to take mail", every=0.1)
        yield Rig(folder, bridge, homeserver, outside, smtp, f"http://{metrics}/metrics")


async def _takes_mail(url: str) -> bool:
    """Whether the bridge is ready, but for a smarthost that is down."""
    with contextlib.suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as http, http.get(f"{url}/ready") as answer:
            return set((await answer.json())["trouble"]) <= {"mail"}
    return False


async def load(port: int, run: str, count: int | None, connections: int, kept: int) -> dict[str, Any]:
    """Run the load generator; when it began, and when each mail was taken."""
    command = ["-m", "tests.bench.load", "--port", str(port), "--run", run]
    command += ["--connections", str(connections), "--kept", str(kept), *(["--count", str(count)] if count else [])]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the load generator failed; the bridge's log is beside its data in .work/bench")
    found: dict[str, Any] = json.loads(said)
    return {"began": found["began"], "taken": {int(number): at for number, at in found["taken"].items()}}


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))
