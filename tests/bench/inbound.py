"""Mail → Matrix: how fast, at what price, how late."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import Any

from tests.bench import seed
from tests.bench.rig import SETTLE, Outside, Rig, cpu_of, load, percentile, rig

WARM_UP = 300


async def nothing(folder: Path, count: int, connections: int, kept: int) -> dict[str, Any]:
    """The same mails to an aiosmtpd that takes and drops them."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    outside = Outside(folder)
    await outside.start()
    try:
        cpu = cpu_of(outside.child)
        done = await load(outside.port, "nothing", count, connections, kept)
        cpu = cpu_of(outside.child) - cpu
    finally:
        await outside.child.stop()
    return {"per_second": count / (max(done["taken"].values()) - done["began"]), "cpu_ms": 1000 * cpu / count}


async def fresh(folder: Path, count: int, connections: int, kept: int) -> dict[str, Any]:
    """A bridge that knows nothing but the senders' ghosts. After a failure its folder stays, with the logs."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    async with rig(folder) as running:
        return await measured(running, count, connections, kept)


async def seeded(folder: Path, count: int, connections: int, kept: int, known: int, queued: int) -> dict[str, Any]:
    """A bridge that knows so many messages and has so many rows queued; the seeded data stays for the next run."""
    data = folder / f"seeded-{known}-{queued}"
    if not data.exists():
        await asyncio.to_thread(seed.make, data, known, queued)
    async with rig(folder, data, smarthost=not queued) as running:
        return await measured(running, count, connections, kept)


async def measured(running: Rig, count: int, connections: int, kept: int) -> dict[str, Any]:
    """One run on a bridge that has met every sender and has warmed up."""
    run = uuid.uuid4().hex[:12]
    await load(running.smtp, f"met{run}", None, 8, 100)
    await load(running.smtp, f"warm{run}", WARM_UP, 8, 100)
    before = (await running.homeserver.wait_for_sends(200 + WARM_UP))["sends"]
    await asyncio.sleep(SETTLE)
    cpu, requests = running.cpu(), await running.requests()
    done = await load(running.smtp, run, count, connections, kept)
    after = await running.homeserver.wait_for_sends(before + count, timeout=120)
    await asyncio.sleep(SETTLE)
    cpu = running.cpu() - cpu
    came = await running.arrivals(run)
    assert len(came) == count, f"{len(came)} of {count} mails arrived"
    late = [1000 * max(0.0, came[number] - at) for number, at in done["taken"].items()]
    return {
        "per_second": count / (max(came.values()) - done["began"]),
        "cpu_ms": 1000 * cpu / count,
        "requests": (sum(after["requests"].values()) - requests) / count,
        "p50_ms": percentile(late, 0.5),
        "p99_ms": percentile(late, 0.99),
        "memory_mb": running.memory(),
    }
