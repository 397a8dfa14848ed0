"""The load on the tracker: customers who open issues and comment there, employees who reply and ask for tickets."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.crash.desks import Desk
from tests.crash.stage import Stage
from tests.peers.employee import Employee, body, relation, thread_of
from tests.peers.roundup import BRIDGE, Refused, Roundup

MARK = re.compile(r"\[[krt]-[a-z0-9-]+\]")  # of a customer's comment, of a reply, of a ticket asked for
CARD = re.compile(r"issue(\d+): ")


@dataclass(frozen=True)
class Comment:
    """A message that an issue of the tracker shows."""

    number: int
    issue: str
    creator: str
    mark: str

    @property
    def ours(self) -> bool:
        return self.creator == BRIDGE


@dataclass(frozen=True)
class Tracked:
    """All that the tracker holds: what each issue's title is marked with, and the comments on issues."""

    titles: dict[str, str]  # issue: mark, or ""
    comments: list[Comment]

    def marks(self) -> set[str]:
        return {mark for mark in (*self.titles.values(), *(each.mark for each in self.comments)) if mark}


async def tracked(tracker: Roundup) -> Tracked:
    """Ask the tracker itself, past all faults."""
    fields = {"@verbose": "3", "@page_size": "100000"}
    issues = await tracker.call("GET", "issue", "admin", params={**fields, "@fields": "title,messages"})
    found = await tracker.call("GET", "msg", "admin", params={**fields, "@fields": "content,creator.username"})
    messages = {each["id"]: each for each in found["collection"]}
    comments = [
        Comment(int(linked["id"]), issue["id"], message["creator.username"], mark_in(message["content"]))
        for issue in issues["collection"]
        for linked in issue["messages"]
        if (message := messages[linked["id"]])
    ]
    return Tracked({each["id"]: mark_in(each["title"]) for each in issues["collection"]}, comments)


def mark_in(text: str | None) -> str:
    found = MARK.search(text or "")
    return found[0] if found else ""


@dataclass
class Spoken:
    """When somebody began to comment, and when the tracker said that it has it; None: it never said."""

    began: float
    ended: float | None = None


@dataclass
class Caller:
    """A customer with an account in the tracker. What the tracker does not confirm is not said again."""

    stage: Stage
    name: str
    dice: random.Random
    spoken: dict[str, Spoken] = field(default_factory=dict)  # by mark

    async def register(self) -> None:
        address = f"{self.name}@outside.example"
        account = {"username": self.name, "password": self.stage.tracker.password(self.name), "address": address}
        await self.stage.tracker.call("POST", "user", "admin", {**account, "roles": "User"})

    async def work(self, over: Callable[[], bool], pause: float) -> None:
        while not over():
            try:
                await self._visit()
            except (aiohttp.ClientError, Refused, OSError):  # the tracker is away
                await asyncio.sleep(0.2)
            await asyncio.sleep(self.dice.uniform(0.1, 2) * pause)

    async def _visit(self) -> None:
        """A new issue, or a few comments on one of the newer ones, whoever opened it."""
        issues = await self.stage.tracker.issues()
        if len(issues) < 2 or self.dice.random() < 0.12:
            await self._say("")
            return
        issue = self.dice.choice(issues[-10:])
        for _ in range(self.dice.choice((1, 1, 1, 2, 3))):
            await self._say(issue)

    async def _say(self, issue: str) -> None:
        mark = f"[k-{self.name}-{len(self.spoken)}-{self.dice.randrange(16**6):06x}]"
        words = f"Hello,\nit does not work.\n{mark}"
        spoken = self.spoken[mark] = Spoken(time.monotonic())
        if issue:
            await self.stage.tracker.comment(issue, words, by=self.name)
        else:
            await self.stage.tracker.open(f"Trouble {len(self.spoken)} of {self.name}", words, by=self.name)
        spoken.ended = time.monotonic()


class TicketDesk(Desk):
    """Replies in the threads of issues, and asks for new ones out of talk."""

    asks = re.compile(r"(?:!reply|!ticket) .*(\[[rt]-[a-z0-9-]+\])")

    def __init__(self, stage: Stage, employee: Employee, dice: random.Random) -> None:
        super().__init__(stage, employee, [stage.tickets], dice)

    async def ask(self) -> None:
        if self._dice.random() < 0.8:
            await super().ask()
            return
        root = await self.employee.say(self.stage.tickets, "The coffee machine makes tea.")
        await self.employee.say(self.stage.tickets, f"!ticket Machine {self.mark('t')}", thread=root)

    def root_of(self, event: dict[str, Any]) -> tuple[str, str] | None:
        """Only where there is a card the issue has a name, and can be replied to."""
        if card := card_in(self.stage, event):
            return thread_of(event) or event["event_id"], card
        return None

    async def arrived(self) -> Collection[str]:
        return (await tracked(self.stage.tracker)).marks()


def card_in(stage: Stage, event: dict[str, Any]) -> str:
    """The issue whose card the event is, as it was first shown; "" for every other event."""
    card = CARD.match(body(event)) if event["sender"] == stage.bot and event["type"] == "m.room.message" else None
    return card[1] if card and relation(event).get("rel_type") != "m.replace" else ""


async def untold(stage: Stage) -> set[str]:
    """Marks of what customers said in the tracker and the room does not show."""
    shown = {mark_in(body(event)) for event in stage.staff[0].timeline(stage.tickets)}
    return {each.mark for each in (await tracked(stage.tracker)).comments if not each.ours} - shown
