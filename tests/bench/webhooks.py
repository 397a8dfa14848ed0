"""Webhooks → Matrix: how fast, at what price, how late, and whether each item's events stay in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import sys
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.bench.calls import SECRET
from tests.bench.rig import ROOMS, SETTLE, Rig, cpu_of, percentile, rig
from tests.peers import ROOT, Child, free_port, until

COLUMNS = {
    "per_second": "a second",
    "alone": "aiohttp that only commits, a second",
    "ratio": "ratio",
    "disorder": "out of order",
    "cpu_ms": "CPU ms each",
    "alone_cpu_ms": "aiohttp that only commits, CPU ms",
    "requests": "homeserver requests each",
    "p50_ms": "p50 ms late",
    "p99_ms": "p99 ms late",
    "memory_mb": "MB",
}
MARK = re.compile(r"this is event (\d+) of (\w+)-(\d+)\.")
WARM_UP = 30  # items with as many events
RULE = {
    "scope": "floor{{ body.place }}", "item": "{{ body.machine.id }}", "title": "{{ body.machine.name }}",
    "state": "{{ body.machine.state }}", "once": "{{ body.id }}", "text": "{{ body.said }}",
}  # fmt: skip
FLOORS = {f"floor{number}": room for number, room in enumerate(ROOMS.values())}
HOOK = {"plugin": "webhook", "version": 1, "scopes": [*FLOORS], "proof": {"secret": SECRET}, "rules": [RULE]}


async def nothing(folder: Path, items: int, events: int, connections: int) -> dict[str, Any]:
    """The same webhooks to an aiohttp that commits them and does nothing else."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread(folder.mkdir, parents=True)
    port, count = free_port(), items * events
    command = [sys.executable, "-m", "tests.bench.keeper", "--port", str(port), "--database", str(folder / "kept.db")]
    child = Child(command, ROOT, folder / "keeper.log")
    child.start()

    async def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        await until(listens, "the aiohttp that only commits", every=0.02)
        url = f"http://127.0.0.1:{port}/hooks/floor"
        await call(url, "warm", WARM_UP, events, connections)
        cpu = cpu_of(child)
        done = await call(url, "nothing", items, events, connections)
        cpu = cpu_of(child) - cpu
    finally:
        await child.stop()
    return {"per_second": count / (max(done["taken"].values()) - done["began"]), "cpu_ms": 1000 * cpu / count}


async def fresh(folder: Path, items: int, events: int, connections: int) -> dict[str, Any]:
    """A bridge that has warmed up, and knows none of the items. After a failure its folder stays, with the logs."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    async with rig(folder, floor={**HOOK, "rooms": FLOORS}) as running:
        url = f"{running.bridge.url}/hooks/floor"
        await call(url, "warm", WARM_UP, events, connections)
        before = (await running.homeserver.wait_for_sends(WARM_UP * (events + 1)))["sends"]
        await asyncio.sleep(SETTLE)
        return await _measured(running, before, url, items, events, connections)


async def _measured(
    running: Rig, before: int, url: str, items: int, events: int, connections: int
) -> dict[str, Any]:  # fmt: skip
    run, count = uuid.uuid4().hex[:12], items * events
    cpu, requests = running.cpu(), await running.requests()
    done = await call(url, run, items, events, connections)
    after = await running.homeserver.wait_for_sends(before + count + items, timeout=120)  # a card for each item
    await asyncio.sleep(SETTLE)
    cpu = running.cpu() - cpu
    came = await _came(running, run)
    assert sum(map(len, came.values())) == count, f"{sum(map(len, came.values()))} of {count} events arrived"
    at = {f"{item} {number}": when for item, events_ in came.items() for number, when in events_}
    late = [1000 * max(0.0, at[name] - when) for name, when in done["taken"].items()]
    return {
        "per_second": count / (max(at.values()) - done["began"]),
        "taken": count / (max(done["taken"].values()) - done["began"]),
        "cpu_ms": 1000 * cpu / count,
        "requests": (sum(after["requests"].values()) - requests) / count,
        "disorder": sum(_disorder([number for number, _ in each]) for each in came.values()),
        "p50_ms": percentile(late, 0.5),
        "p99_ms": percentile(late, 0.99),
        "memory_mb": running.memory(),
    }


async def _came(running: Rig, run: str) -> dict[str, list[tuple[int, float]]]:
    """By item: the numbers of its events in the order of its thread, and when each was at the homeserver."""
    found: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for event in await running.homeserver.sends():
        mark = MARK.search(str(event["content"].get("body", "")))
        if mark and mark[2] == run:
            found[mark[3]].append((int(mark[1]), float(event["at"])))
    return found


def _disorder(numbers: list[int]) -> int:
    """How many stand behind one that was said later."""
    return sum(number < max(numbers[:place], default=-1) for place, number in enumerate(numbers))


async def call(url: str, run: str, items: int, events: int, connections: int) -> dict[str, Any]:
    """Run the load generator; when it began, and when each event was taken."""
    command = ["-m", "tests.bench.calls", "--url", url, "--run", run, "--items", str(items)]
    command += ["--events", str(events), "--connections", str(connections)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the load generator failed; the bridge's log is beside its data in .work/bench")
    return dict(json.loads(said))
