"""Trouble on every side: the homeserver, the smarthost, the tools, the way to the bridge, its disk; and kills."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import sqlite3
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import psutil

from tests.crash.stage import Stage, Tool, listening
from tests.peers.faults import Fault, Kind, Proxy

STAGES: dict[str, Sequence[str]] = {
    "banner": ("421 4.3.2 closing", "554 5.3.2 no service here"),
    "ehlo": ("421 4.3.2 closing",),
    "mail": ("451 4.3.0 later", "421 4.3.2 closing", "550 5.7.1 not from you"),
    "rcpt": ("450 4.2.1 later", "550 5.1.1 nobody of that name"),
    "data": ("451 4.3.0 later", "554 5.6.0 no"),
    "after-data": ("451 4.3.0 later", "554 5.6.0 no", ""),
}


class Trouble:
    """Things that go wrong while the load runs. `struck` counts them."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.struck: Counter[str] = Counter()
        self._seed = seed
        self._killed: set[str] = set()

    async def work(self, over: Callable[[], bool]) -> None:
        """One trouble at a time on each side, with calm between, until `over`."""
        sides = (self._homeserver, self._appservice, self._smarthost, self._disk, self._tool, self._tool)
        async with asyncio.TaskGroup() as tasks:
            for number, side in enumerate(sides):
                tasks.create_task(self._haunt(side, random.Random(f"{self._seed} {number}"), over))

    async def _haunt(
        self, side: Callable[[random.Random], Awaitable[None]], dice: random.Random, over: Callable[[], bool]
    ) -> None:
        while not over():
            await asyncio.sleep(dice.uniform(0.5, 4))
            await side(dice)

    async def _homeserver(self, dice: random.Random) -> None:
        kind: Kind | str = dice.choice(["down", "refuse", "slow", "cut", "cut", 401, 403, 429, 500, 502])
        await self._proxied(self.stage.homeserver, kind, dice, "homeserver")

    async def _appservice(self, dice: random.Random) -> None:
        """ "cut" here is the same transaction again: the bridge has it, and the homeserver does not know."""
        kind: Kind | str = dice.choice(["down", "refuse", "slow", "cut", "cut", 500])
        await self._proxied(self.stage.appservice, kind, dice, "appservice")

    async def _tool(self, dice: random.Random) -> None:
        """ "cut" here is a request that was done, and the bridge does not know."""
        tool = dice.choice(self.stage.tools)
        kind: Kind | str = dice.choice(["down", "refuse", "slow", "cut", "cut", "cut", 429, 503, "killed"])
        if kind != "killed":
            await self._proxied(tool.way, kind, dice, tool.name)
        elif tool.family.lasting and tool.name not in self._killed:
            await self._kill(tool, dice.uniform(0, 1.5))

    async def _kill(self, tool: Tool, seconds: float) -> None:
        self.struck[f"{tool.name} killed"] += 1
        self._killed.add(tool.name)
        tool.family.server.child.kill()
        await asyncio.sleep(seconds)
        await tool.family.server.start()
        self._killed.discard(tool.name)

    async def _proxied(self, proxy: Proxy, kind: Kind | str, dice: random.Random, side: str) -> None:
        self.struck[f"{side} {kind}"] += 1
        seconds = dice.uniform(0.3, 2.5)
        if kind == "down":
            await proxy.down()
            await asyncio.sleep(seconds)
            await proxy.up()
            return
        fault: Fault = proxy.add(
            kind, method="PUT" if kind == 403 else "", chance=dice.uniform(0.3, 1),  # type: ignore[arg-type]
            delay=dice.uniform(0.2, 6) if kind == "slow" else 0, retry_after=dice.uniform(0.1, 1),
        )  # fmt: skip
        await asyncio.sleep(seconds)
        proxy.faults.remove(fault)

    async def _smarthost(self, dice: random.Random) -> None:
        sink, seconds = self.stage.sink, dice.uniform(0.3, 2.5)
        if dice.random() < 0.2:
            self.struck["smarthost down"] += 1
            await sink.stop()
            await asyncio.sleep(seconds)
            await sink.start()
            return
        stage = dice.choice(list(STAGES))
        reply = dice.choice(STAGES[stage])
        self.struck[f"smarthost {stage} {reply[:3] or 'cut'}"] += 1
        sink.faults.add(stage, reply, cut=not reply, times=None, chance=dice.uniform(0.4, 1))  # type: ignore[arg-type]
        await asyncio.sleep(seconds)
        sink.faults.clear()

    async def _disk(self, dice: random.Random) -> None:
        await asyncio.sleep(dice.uniform(0, 3))
        if dice.random() < 0.5:
            self.struck["database locked"] += 1
            await asyncio.to_thread(self._lock, 6.5 if dice.random() < 0.15 else dice.uniform(0.2, 1.5), dice)
        else:
            self.struck["disk full"] += 1
            await self._full(dice.uniform(0.2, 2))

    def _lock(self, seconds: float, dice: random.Random) -> None:
        """Another process (this one) holds the database."""
        import time

        with contextlib.suppress(sqlite3.Error):
            connection = sqlite3.connect(self.stage.data / "passerelle.db", timeout=1, isolation_level=None)
            try:
                connection.execute("BEGIN EXCLUSIVE")
                time.sleep(seconds)
                connection.execute("ROLLBACK")
            finally:
                connection.close()

    async def _full(self, seconds: float) -> None:
        """The bridge can write to no file any more, as if the disk were full. Needs no root."""
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(self.stage.bridge.child.pid)
            _, hard = process.rlimit(resource.RLIMIT_FSIZE)
            process.rlimit(resource.RLIMIT_FSIZE, (0, hard))
            await asyncio.sleep(seconds)
            process.rlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def end(self) -> None:
        """Everything goes well from now on."""
        self.stage.sink.faults.clear()


class Killer:
    """Starts the bridge and kills it, so many times."""

    def __init__(self, stage: Stage, kills: int, seconds: float, seed: int, say: Callable[[str], None]) -> None:
        self.stage = stage
        self.done = 0
        self.ended = 0  # times it ended by itself
        self._kills = kills
        self._each = seconds / kills if kills else 0
        self._dice = random.Random(f"{seed} kill")
        self._say = say

    async def work(self) -> None:
        restarts = {2 * self._kills // 3: self._crash_homeserver}
        if self._kills >= 20:
            restarts[self._kills // 3] = self._restart
        clock = asyncio.get_running_loop().time
        for number in range(self._kills):
            began = clock()
            if not self.stage.bridge.running:
                self.stage.bridge.child.start()
            if number in restarts and number:
                await restarts[number]()
            if self._dice.random() < 0.75:
                await listening(self.stage)
                await self._some_time(self._dice.uniform(0, 2) * max(1.5, self._each - (clock() - began)))
            else:  # it may not even have come to its senses
                await asyncio.sleep(self._dice.uniform(0, 1.5))
            if not self.stage.bridge.running:
                self.ended += 1
                said = self.stage.bridge.child.tail(1)
                self._say(f"the bridge ended by itself, within {clock() - began:.1f} s; its log ends: {said}")
            self.stage.bridge.kill()
            self.done += 1
            if self.done % 10 == 0 or self.done == self._kills:
                self._say(
                    f"{self.done} kills, {len(self.stage.sink.mails)} mails out, {self._written()} into the tools"
                )

    async def _some_time(self, seconds: float) -> None:
        """So long; half the times only until it has just begun to write to one of the tools, if it does."""
        clock = asyncio.get_running_loop().time
        end, tool = clock() + seconds, self._dice.choice(self.stage.tools)
        written = tool.written() if self._dice.random() < 0.5 else sys.maxsize
        while clock() < end and tool.written() <= written:
            await asyncio.sleep(0.01)
        if tool.written() > written:
            await asyncio.sleep(self._dice.uniform(0, 0.2))

    def _written(self) -> int:
        """Requests that may have changed something in the tools."""
        return sum(tool.written() for tool in self.stage.tools)

    async def _restart(self) -> None:
        self._say("the homeserver is restarted")
        await self.stage.synapse.restart()

    async def _crash_homeserver(self) -> None:
        self._say("the homeserver is killed too")
        self.stage.synapse.kill()
        await self.stage.synapse.start()
