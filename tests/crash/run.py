"""One run: load and trouble and kills together, then calm, then the count."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.crash.load import Customer, Desk, marks_in_sink
from tests.crash.stage import Stage, staged
from tests.crash.trouble import Killer, Trouble
from tests.crash.verdict import Count, judge, stubs
from tests.peers import until


@dataclass(frozen=True)
class Plan:
    """How bad it gets."""

    kills: int
    seed: int
    seconds: float  # that the kills are spread over
    customers: int = 6
    writing: float = 4  # seconds between two visits of a customer to our mail server, about
    calm: float = 300  # seconds in which all must have arrived once nothing goes wrong any more
    answering: float = 3  # seconds between two answers of an employee, about


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Count:
    """Do all of it; what happened stays in `folder`."""
    began = time.monotonic()
    count = Count(seed=plan.seed)
    async with staged(folder, plan.seed) as stage:
        say(f"seed {plan.seed}: {plan.kills} kills within about {plan.seconds:.0f} s")
        stage.small()
        customers = [
            Customer(stage, f"c{number}", random.Random(f"{plan.seed} c{number}")) for number in range(plan.customers)
        ]
        desks = [Desk(stage, each, customers, random.Random(f"{plan.seed} {each.name}")) for each in stage.staff]
        await _storm(plan, stage, customers, desks, count, say)
        await _calm(plan, stage, customers, desks, count, say)
        await judge(stage, customers, desks, count)
    count.seconds = round(time.monotonic() - began)
    for line in count.evidence[:50]:
        say(line)
    return count


async def _storm(
    plan: Plan, stage: Stage, customers: list[Customer], desks: list[Desk], count: Count, say: Callable[[str], None]
) -> None:
    trouble = Trouble(stage, plan.seed)
    killer = Killer(stage, plan.kills, plan.seconds, plan.seed, say)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(each.work(over.is_set, plan.writing)) for each in customers]
        for desk in desks:
            tasks.create_task(desk.work(over.is_set, plan.answering))
            tasks.create_task(_attend(desk, over))
        await _first_words(stage, desks)
        say("now the storm")
        troubling = tasks.create_task(trouble.work(over.is_set))
        await killer.work()
        over.set()
        await troubling
        trouble.end()
        stage.bridge.child.start()
        say("calm: nothing goes wrong any more")
        await asyncio.wait(working, timeout=plan.calm)
        for task in working:
            task.cancel()
    count.kills = killer.done
    count.more |= {"attempts": sum(each.attempts for each in customers), "ended": killer.ended}
    count.more["faults"] = sum(trouble.struck.values())
    say(f"went wrong: {dict(sorted(trouble.struck.items()))}")


async def _first_words(stage: Stage, desks: list[Desk]) -> None:
    """Employees have something to answer before anything goes wrong."""
    await stage.bridge.start()

    async def heard() -> bool:
        return all(desk.threads() >= 3 for desk in desks)

    await until(heard, "the first mails in the rooms", timeout=60)


async def _attend(desk: Desk, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.sleep(5)
        await desk.look_after()


async def _calm(
    plan: Plan, stage: Stage, customers: list[Customer], desks: list[Desk], count: Count, say: Callable[[str], None]
) -> None:
    """Wait until everything has arrived; then show what was too large, too."""
    await stage.bridge.ready(60)
    await _drain(stage, desks, plan.calm, say)
    timelines = {room: await stage.timeline(room) for room in stage.rooms.values()}
    large = 0
    for each in customers:
        wanted = sum(mail.large and mail.accepted for mail in each.written)
        announced = stubs(timelines, each.address)
        large += wanted
        if announced < wanted:
            count.blame("lost", f"{each.name} sent {wanted} large mails, {announced} are announced")
    count.more["too_large"] = large
    stage.homeserver.clear()
    if large:
        await stage.dead_letters("replay", "all")
        await _drain(stage, desks, plan.calm, say)


async def _drain(stage: Stage, desks: list[Desk], seconds: float, say: Callable[[str], None]) -> None:
    """Until nothing waits in the bridge and every reply has left; what cannot, shows in the count."""
    end = time.monotonic() + seconds
    told = 0.0
    while time.monotonic() < end:
        assert stage.bridge.running, f"the bridge ended by itself; its log ends:\n{stage.bridge.child.tail()}"
        queue = (await stage.status()).get("queue")
        known = {"what the bridge does not tell": 1} if queue is None else queue
        waiting = {name: rows for name, rows in known.items() if not name.endswith(" dead")}
        missing = {reply.mark for desk in desks for reply in desk.replies()} - set(marks_in_sink(stage))
        if not waiting and not missing:
            return
        if time.monotonic() - told > 5:
            told = time.monotonic()
            say(f"waiting for {waiting or 'nothing in the queue'}, {len(missing)} replies")
            for desk in desks:
                await desk.look_after()
        await asyncio.sleep(0.2)
    say("not everything arrived in time")
