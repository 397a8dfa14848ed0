"""The load outward: employees who answer in threads, and look after what did not leave by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from tests.crash.load import Customer
from tests.crash.stage import Stage
from tests.peers.employee import Employee, body, relation, thread_of
from tests.peers.world import Mail

REPLY_MARK = re.compile(r"\[r-[a-z0-9-]+\]")
REMEDIES = {"Paused:": "!send", "Not sent to": "!retry", "Not confirmed for": "!retry"}  # by what the bot says


@dataclass
class Reply:
    """What an employee asked to send, as the room shows it."""

    mark: str
    event: str
    room: str
    root: str
    author: str
    partner: str  # who must get it, and nobody else: an address, an item; "" for an item still to be made


class Desk:
    """An employee at one kind of threads."""

    asks = re.compile(r"!reply .*(\[r-[a-z0-9-]+\])")  # what goes outward, and the mark in it

    def __init__(self, stage: Stage, employee: Employee, rooms: Collection[str], dice: random.Random) -> None:
        self.stage = stage
        self.employee = employee
        self.roots: dict[str, tuple[str, str]] = {}  # thread: (room, partner)
        self._rooms = rooms
        self._dice = dice
        self._read: dict[str, int] = {}
        self._asked = 0
        self._asked_for: dict[str, int] = {}  # mark: how many troubles had been told when something was done

    async def work(self, over: Callable[[], bool], pause: float) -> None:
        while not over():
            await asyncio.sleep(self._dice.uniform(0.2, 2) * pause)
            self._look_around()
            with contextlib.suppress(Exception):  # the homeserver is away: whether it took it, the room will show
                await self.ask()

    async def ask(self) -> None:
        """Answer in one of the newer threads."""
        if self.roots:
            root = self._dice.choice(list(self.roots)[-15:])
            await self.employee.say(self.roots[root][0], f"!reply Dear customer, {self.mark('r')}", thread=root)

    def mark(self, kind: str) -> str:
        self._asked += 1
        return f"[{kind}-{self.employee.name}-{self._asked}-{self._dice.randrange(16**6):06x}]"

    def root_of(self, event: dict[str, Any]) -> tuple[str, str] | None:
        """(thread, partner) when the event shows that there is a thread with somebody outside."""
        raise NotImplementedError

    async def arrived(self) -> Collection[str]:
        """The marks of what has left."""
        raise NotImplementedError

    def threads(self) -> int:
        """How many conversations there are to answer in."""
        self._look_around()
        return len(self.roots)

    async def missing(self) -> set[str]:
        """Marks of what was asked and has not left."""
        return {reply.mark for reply in self.replies()} - set(await self.arrived())

    async def look_after(self) -> None:
        """What is visibly paused is sent, what visibly failed is tried again. What is invisible stays lost."""
        missing = await self.missing()
        for reply in self.replies():
            if reply.mark in missing and (command := self._remedy(reply)):
                with contextlib.suppress(Exception):
                    await self.employee.say(reply.room, command, thread=reply.root)
                    self._asked_for[reply.mark] = len(self.troubles(reply))

    def replies(self) -> list[Reply]:
        """What this employee asked to send and the homeserver has."""
        self._look_around()
        found = []
        for room in self._rooms:
            for event in self.employee.timeline(room):
                asked, root = self.asks.match(body(event)), thread_of(event)
                if asked and root and event["sender"] == self.employee.mxid:
                    partner = "" if asked[1].startswith("[t-") else self.roots[root][1]
                    found.append(Reply(asked[1], event["event_id"], room, root, event["sender"], partner))
        return found

    def _remedy(self, reply: Reply) -> str:
        """The last thing the bot said about it decides; "" while it says nothing new that calls for a person."""
        troubles = self.troubles(reply)
        if len(troubles) <= self._asked_for.get(reply.mark, 0):
            return ""
        return next(remedy for words, remedy in REMEDIES.items() if words in troubles[-1])

    def troubles(self, reply: Reply) -> list[str]:
        """What the bot said about it that calls for a person."""
        said = [body(each) for each in self.answers(reply)]
        return [text for text in said if any(words in text for words in REMEDIES)]

    def answers(self, reply: Reply) -> list[dict[str, Any]]:
        """What the bot said in answer to the command."""
        return [
            event
            for event in self.employee.timeline(reply.room)
            if relation(event).get("m.in_reply_to", {}).get("event_id") == reply.event
            and not relation(event).get("is_falling_back")
            and event["sender"] == self.stage.bot
        ]

    def _look_around(self) -> None:
        for room in self._rooms:
            events = self.employee.timeline(room)
            for event in events[self._read.get(room, 0) :]:
                if event["type"] == "m.room.message" and (found := self.root_of(event)):
                    self.roots[found[0]] = (room, found[1])
            self._read[room] = len(events)


class MailDesk(Desk):
    """Answers customers who wrote mails."""

    def __init__(self, stage: Stage, employee: Employee, customers: list[Customer], dice: random.Random) -> None:
        super().__init__(stage, employee, stage.rooms.values(), dice)
        self._ghosts = {stage.ghost(each.address): each.address for each in customers}

    def root_of(self, event: dict[str, Any]) -> tuple[str, str] | None:
        if event["sender"] in self._ghosts and not relation(event):
            return event["event_id"], self._ghosts[event["sender"]]
        return None

    async def arrived(self) -> Collection[str]:
        return marks_in_sink(self.stage)


def marks_in_sink(stage: Stage) -> dict[str, list[Mail]]:
    """The mails that left, by the mark of the reply in them."""
    found: dict[str, list[Mail]] = {}
    for mail in stage.sink.mails:
        if mark := REPLY_MARK.search(mail.text):
            found.setdefault(mark[0], []).append(mail)
    return found
