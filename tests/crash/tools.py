"""The load on the tools: customers who make items and speak there, employees who answer, act, and ask for new items."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from tests.crash.desks import Desk
from tests.crash.families import AWAY, mark_in
from tests.crash.stage import Stage, Tool
from tests.peers.employee import Employee, body, relation, thread_of


@dataclass
class Spoken:
    """When somebody began to say something, and when the tool said that it has it; None: it never said."""

    began: float
    ended: float | None = None


@dataclass
class Caller:
    """A customer with an account in a tool. What the tool does not confirm is not said again."""

    tool: Tool
    number: int
    dice: random.Random
    account: str = ""
    spoken: dict[str, Spoken] = field(default_factory=dict)  # by mark

    @property
    def name(self) -> str:
        return f"{self.tool.name}{self.number}"

    async def register(self) -> None:
        self.account = await self.tool.family.person(self.number)

    async def work(self, over: Callable[[], bool], pause: float) -> None:
        while not over():
            try:
                await self._visit()
            except (*AWAY, AssertionError):  # the tool is away, or said no
                await asyncio.sleep(0.2)
            await asyncio.sleep(self.dice.uniform(0.1, 2) * pause)

    async def _visit(self) -> None:
        """A new item, or a few words on one of the newer ones, whoever made it."""
        there = await self.tool.family.there()
        items = self.tool.family.open_to_talk(there)
        if len(items) < 2 or self.dice.random() < 0.12:
            await self._say("")
            return
        item = self.dice.choice(items[-10:])
        for _ in range(self.dice.choice((1, 1, 1, 2, 3))):
            await self._say(item)

    async def _say(self, item: str) -> None:
        mark = f"[k-{self.name}-{len(self.spoken)}-{self.dice.randrange(16**6):06x}]"
        words = f"Hello,\nit does not work.\n{mark}"
        spoken = self.spoken[mark] = Spoken(time.monotonic())
        if item:
            await self.tool.family.say(item, words, self.account)
        else:
            await self.tool.family.open(f"Trouble {len(self.spoken)} of {self.name}", words, self.account)
        spoken.ended = time.monotonic()


class ToolDesk(Desk):
    """Answers and acts in the threads of items, and asks for new ones out of talk."""

    def __init__(self, stage: Stage, tool: Tool, employee: Employee, dice: random.Random) -> None:
        super().__init__(stage, employee, [tool.room], dice)
        self.tool = tool
        self._acted: set[str] = set()
        known = map(re.escape, filter(None, ("!reply", tool.family.begins, tool.family.acts)))
        self.asks = re.compile(rf"(?:{'|'.join(known)}) .*(\[[rts]-[a-z0-9-]+\])")

    async def ask(self) -> None:
        family = self.tool.family
        if not family.begins or (family.acts and self._dice.random() < 0.8):
            await self._act(family.acts)
            return
        root = await self.employee.say(self.tool.room, "The coffee machine makes tea.")
        await self.employee.say(self.tool.room, f"{family.begins} Machine {self.mark('t')}", thread=root)

    async def _act(self, words: str) -> None:
        """Replies are many; an act that lasts is done once to an item, by one of the employees."""
        if words.startswith("!reply"):
            await super().ask()
            return
        mine = [root for root in self.roots if (ord(root[-1]) + ord(self.employee.name[0])) % 2]
        free = [root for root in mine if root not in self._acted]
        if free:
            self._acted.add(free[0])
            await self.employee.say(self.tool.room, f"{words} {self.mark('s')}", thread=free[0])

    def root_of(self, event: dict[str, Any]) -> tuple[str, str] | None:
        """Only where there is a card the item has a name, and can be acted on."""
        card = card_in(self.stage, self.tool, event)
        if card and self.tool.family.takes_acts(body(event)):
            return thread_of(event) or event["event_id"], card
        return None

    async def arrived(self) -> Collection[str]:
        return (await self.tool.family.there()).marks()


def card_in(stage: Stage, tool: Tool, event: dict[str, Any]) -> str:
    """The item whose card the event is, as it was first shown; "" for every other event."""
    ours = event["sender"] == stage.bot and event["type"] == "m.room.message"
    card = re.match(tool.family.card, body(event)) if ours else None
    return card[1] if card and relation(event).get("rel_type") != "m.replace" else ""


async def untold(stage: Stage) -> set[str]:
    """Marks of what customers said in the tools, and items, that the rooms do not show."""
    return {each for tool in stage.tools for each in await _untold(stage, tool)}


async def _untold(stage: Stage, tool: Tool) -> set[str]:
    there, timeline = await tool.family.there(), stage.staff[0].timeline(tool.room)
    shown = {mark_in(body(event)) for event in timeline} | {card_in(stage, tool, event) for event in timeline}
    said = {each.mark for each in there.comments if not each.ours} | set(there.titles)
    old = {item for item, words in there.shows.items() if words not in last_card(stage, tool, timeline, item)}
    return (said - shown) | old


def last_card(stage: Stage, tool: Tool, timeline: list[dict[str, Any]], item: str) -> str:
    """What the card of an item says now."""
    said = ""
    for event in timeline:
        if event["sender"] == stage.bot and event["type"] == "m.room.message":
            card = re.match(tool.family.card, body(event))
            said = body(event) if card and card[1] == item else said
    return said
