"""Matrix → mail: how fast, at what price and how late answers from threads leave the company."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.rig import SETTLE, Rig, load, percentile, rig
from tests.peers import until

PACED = 100  # answers, so many seconds apart, to see how late one is when nothing waits
APART = 0.05


async def replies(folder: Path, count: int) -> dict[str, Any]:
    """`count` answers at once, for the speed; then some one after the other, for the delay. Nothing is held."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    async with rig(folder) as running:
        await load(running.smtp, "met", None, 8, 100)
        await running.homeserver.wait_for_sends(200)
        threads = [(send["room_id"], send["event_id"]) for send in await running.homeserver.sends()]
        await _answered(running, threads, PACED)  # warms up
        return await _burst(running, threads, count) | await _one_by_one(running, threads)


async def _burst(running: Rig, threads: Sequence[tuple[str, str]], count: int) -> dict[str, Any]:
    cpu, requests, began = running.cpu(), await running.requests(), time.monotonic()
    _, came = await _answered(running, threads, count)
    await asyncio.sleep(SETTLE)
    return {
        "per_second": count / (max(came) - began),
        "cpu_ms": 1000 * (running.cpu() - cpu) / count,
        "requests": (await running.requests() - requests) / count,
        "memory_mb": running.memory(),
    }


async def _one_by_one(running: Rig, threads: Sequence[tuple[str, str]]) -> dict[str, Any]:
    heard, came = await _answered(running, threads, PACED, APART)
    late = [1000 * (there - here) for here, there in zip(heard, came, strict=True)]
    return {"p50_ms": percentile(late, 0.5), "p99_ms": percentile(late, 0.99)}


async def _answered(
    running: Rig, threads: Sequence[tuple[str, str]], count: int, apart: float = 0
) -> tuple[list[float], list[float]]:
    """Say `!reply` so often; when the bridge acknowledged each event, and when each mail was at the smarthost."""
    run = uuid.uuid4().hex[:12]
    events = [_reply(*threads[number % len(threads)], number, run) for number in range(count)]
    said: list[str] = []
    for batch in [events] if not apart else [[event] for event in events]:
        said += await running.homeserver.push(*batch)
        await asyncio.sleep(apart)

    async def all_came() -> dict[str, float] | None:
        came = await running.smarthost.came()
        return came if sum(name.startswith(run) for name in came) == count else None

    came = await until(all_came, f"{count} mails at the smarthost", timeout=120, every=0.1)
    heard = dict(await running.homeserver.acknowledged())
    return [heard[event] for event in said], [came[f"{run} {number}"] for number in range(count)]


def _reply(room: str, root: str, number: int, run: str) -> dict[str, Any]:
    thread = {
        "rel_type": "m.thread",
        "event_id": root,
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": root},
    }
    body = f"!reply Hello,\n\nthis is number {number} of {run}.\nThe parts left yesterday and arrive tomorrow."
    content = {"msgtype": "m.text", "body": body, "m.relates_to": thread}
    return {"room_id": room, "sender": "@alice:company.example", "type": "m.room.message", "content": content}
