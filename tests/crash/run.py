"""One run: load and trouble and kills together, then calm, then the count."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.desks import Desk, MailDesk
from tests.crash.families import ABSENT, AWAY, FAMILIES
from tests.crash.load import Customer
from tests.crash.stage import Stage, staged
from tests.crash.tool_verdict import judge_tool
from tests.crash.tools import Caller, ToolDesk, untold
from tests.crash.trouble import Killer, Trouble
from tests.crash.verdict import Count, judge, stubs
from tests.peers import until

LOADED = 0.7  # of the kills happen while there is new load
PATIENCE = 60  # seconds with nothing to do for the bridge, until what has not arrived is taken for lost


@dataclass(frozen=True)
class Plan:
    """How bad it gets."""

    kills: int
    seed: int
    seconds: float  # that the kills are spread over
    customers: int = 4
    writing: float = 4  # seconds between two visits of a customer to our mail server, about
    calm: float = 900  # seconds in which all must have arrived once nothing goes wrong any more
    answering: float = 3  # seconds between two answers of an employee by mail, about
    callers: int = 2  # customers with an account in a tool
    calling: float = 15  # seconds between two visits of a customer to a tool, or answers of an employee there, about
    tools: Collection[str] = tuple(each.name for each in FAMILIES)


@dataclass(frozen=True)
class Cast:
    """Everybody who does something."""

    customers: list[Customer]
    callers: list[Caller]
    mail_desks: list[MailDesk]
    tool_desks: list[ToolDesk]

    @property
    def desks(self) -> Sequence[Desk]:
        return [*self.mail_desks, *self.tool_desks]


def cast(plan: Plan, stage: Stage) -> Cast:
    def dice(name: str) -> random.Random:
        return random.Random(f"{plan.seed} {name}")

    customers = [Customer(stage, f"c{number}", dice(f"c{number}")) for number in range(plan.customers)]
    return Cast(
        customers,
        [Caller(tool, number, dice(f"{tool.name} {number}")) for tool in stage.tools for number in range(plan.callers)],
        [MailDesk(stage, each, customers, dice(each.name)) for each in stage.staff],
        [ToolDesk(stage, tool, each, dice(f"{each.name} {tool.name}")) for tool in stage.tools for each in stage.staff],
    )


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Count:
    """Do all of it; what happened stays in `folder`."""
    began = time.monotonic()
    count = Count(seed=plan.seed)
    async with staged(folder, plan.seed, plan.tools) as stage:
        say(f"seed {plan.seed}: {plan.kills} kills within about {plan.seconds:.0f} s")
        for name in ABSENT:
            say(f"{name} takes no part: its Debian package is not installed")
        stage.small()
        people = cast(plan, stage)
        await _storm(plan, stage, people, count, say)
        await _calm(plan, stage, people, count, say)
        await judge(stage, people.customers, people.mail_desks, count)
        for tool in stage.tools:
            callers = [each for each in people.callers if each.tool is tool]
            await judge_tool(stage, tool, callers, [each for each in people.tool_desks if each.tool is tool], count)
    count.seconds = round(time.monotonic() - began)
    for line in count.evidence[:50]:
        say(line)
    return count


async def _storm(plan: Plan, stage: Stage, people: Cast, count: Count, say: Callable[[str], None]) -> None:
    trouble = Trouble(stage, plan.seed)
    killer = Killer(stage, plan.kills, plan.seconds, plan.seed, say)
    over = asyncio.Event()

    def enough() -> bool:
        """The last kills hit what still waits to leave."""
        return over.is_set() or killer.done > LOADED * plan.kills

    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(each.work(enough, plan.writing)) for each in people.customers]
        await stage.bridge.start()
        await until(stage.polled, "the first looks into the tools")
        for caller in people.callers:
            await caller.register()
            tasks.create_task(caller.work(enough, plan.calling))
        for desk in people.desks:
            tasks.create_task(desk.work(enough, plan.answering if desk in people.mail_desks else plan.calling))
            tasks.create_task(_attend(desk, over))
        await _first_words(people)
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
    count.more |= {"attempts": sum(each.attempts for each in people.customers), "ended": killer.ended}
    count.more["faults"] = sum(trouble.struck.values())
    say(f"went wrong: {dict(sorted(trouble.struck.items()))}")


async def _first_words(people: Cast) -> None:
    """Employees have something to answer before anything goes wrong."""

    async def heard() -> bool:
        few = [desk.threads() >= 3 for desk in people.mail_desks]
        return all([*few, *(desk.threads() > 0 for desk in people.tool_desks)])

    await until(heard, "the first mails and items in the rooms", timeout=180)


async def _attend(desk: Desk, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.sleep(5)
        with contextlib.suppress(*AWAY, AssertionError):  # the tool is away
            await desk.look_after()


async def _calm(plan: Plan, stage: Stage, people: Cast, count: Count, say: Callable[[str], None]) -> None:
    """Wait until everything has arrived; then show what was too large, too."""
    await stage.bridge.ready(60)
    await _drain(stage, people, plan.calm, say)
    timelines = {room: await stage.timeline(room) for room in stage.rooms.values()}
    large = 0
    for each in people.customers:
        wanted = sum(mail.large and mail.accepted for mail in each.written)
        announced = stubs(timelines, each.address)
        large += wanted
        if announced < wanted:
            count.blame("lost", f"{each.name} sent {wanted} large mails, {announced} are announced")
    count.more["too_large"] = large
    stage.homeserver.clear()
    if large:
        await stage.dead_letters("replay", "all")
        await _drain(stage, people, plan.calm, say)


async def _drain(stage: Stage, people: Cast, seconds: float, say: Callable[[str], None]) -> None:
    """Until nothing waits in the bridge, and every reply has left; what cannot, shows in the count."""
    end = time.monotonic() + seconds
    told = busy = time.monotonic()
    while time.monotonic() < min(end, busy + PATIENCE):
        assert stage.bridge.running, f"the bridge ended by itself; its log ends:\n{stage.bridge.child.tail()}"
        waiting = await _waiting(stage)
        busy = time.monotonic() if waiting else busy
        waiting = waiting or await _missing(stage, people)
        if not waiting:
            return
        if time.monotonic() - told > 3:
            told = time.monotonic()
            say(f"waiting for {waiting}")
            for desk in people.desks:
                await desk.look_after()
        await asyncio.sleep(0.2)
    say("not everything arrived in time")


async def _waiting(stage: Stage) -> dict[str, int]:
    """What the bridge has still to deliver."""
    queue = (await stage.status()).get("queue")
    known = {"what the bridge does not tell": 1} if queue is None else queue
    return {name: rows for name, rows in known.items() if not name.endswith(" dead")}


async def _missing(stage: Stage, people: Cast) -> dict[str, int]:
    """What has not arrived, although the bridge may not even know of it."""
    replies = sum([len(await desk.missing()) for desk in people.desks])
    missing = {"replies and new items": replies, "items and comments": len(await untold(stage))}
    return {name: number for name, number in missing.items() if number}
