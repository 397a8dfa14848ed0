"""The homeserver's part for a plugin's tests: a room that shows all that is to be shown, and what was said there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from bridge import payload
from bridge.matrix.fetch import Fetch
from bridge.matrix.ghosts import Ghosts
from bridge.matrix.lasting import noted
from bridge.model import Delivery, Draft, File, RoomEvent
from bridge.payload import CardPost, LinePost, Post, Preview
from bridge.queue import Crossing
from bridge.rules import Rules
from bridge.store import Store, Tx

BOT = "@bot"


@dataclass(frozen=True, slots=True)
class Shown:
    """Something in the room: by whom (None: the bot), and the words; of a file its name."""

    event: str
    conversation: int
    kind: str
    author: str | None
    body: str
    file: File | None = None


@dataclass
class Said:
    """What employees said, by event, and their files, by `mxc`: a homeserver keeps it while the bridge is away."""

    events: dict[str, RoomEvent] = field(default_factory=dict)
    media: dict[str, bytes] = field(default_factory=dict)


class Words(Fetch):
    """Reads what was said here, as the bridge asks a homeserver for it."""

    def __init__(self, said: Said, store: Store, rules: Rules) -> None:
        async def download(mxc: str) -> AsyncIterator[bytes]:
            yield said.media[mxc]

        ghosts = SimpleNamespace(bot=SimpleNamespace(mxid=BOT, download=download), name=lambda mxid: "")
        super().__init__(cast(Ghosts, ghosts), store, rules.say)
        self._said = said

    async def event(self, room: str, event: str) -> RoomEvent | None:
        return self._said.events.get(event)


class Room:
    """Shows at once what is to be shown, and confirms what is to leave."""

    name, parallel, careful = "matrix", 1, False

    def __init__(self, store: Store, rules: Rules, shown: dict[str, Shown], words: Words) -> None:
        self._store = store
        self._rules = rules
        self._shown = shown
        self._words = words

    async def prepare(self, delivery: Delivery) -> None:
        """Nothing."""

    async def deliver(self, delivery: Delivery) -> Crossing:
        row = await self._store.transact(lambda tx: tx.queue.get(delivery.uid))  # it may have been reworded
        found: Any = payload.load(payload.KINDS[delivery.kind], (row or delivery).payload)
        if isinstance(found, Preview):
            await self._fill(found.draft)
        author = getattr(found, "author", None)
        file = getattr(found, "file", None)
        body = file.name if file else getattr(found, "body", "")
        event, by = f"${delivery.uid}", author.account if author else None
        shown = Shown(event, delivery.conversation or 0, delivery.kind, by, body, file)
        self._shown.setdefault(delivery.uid, shown)
        return lambda tx: self._noted(tx, delivery, found, event)

    async def _fill(self, uid: str) -> None:
        """What an employee only pointed at is read before it leaves."""
        if row := await self._store.transact(lambda tx: tx.queue.get(uid)):
            before = payload.load(Draft, row.payload)
            after = await self._words.completed(before)
            await self._store.transact(self._rules.outward.filled, uid, before, after)

    def _noted(self, tx: Tx, delivery: Delivery, found: Any, event: str) -> None:
        number = delivery.conversation
        if number and isinstance(found, Post | CardPost | Preview):
            tx.conversations.shown(number, event)
        if isinstance(found, Post) and found.message:
            tx.conversations.in_matrix(found.message, event)
        if number and isinstance(found, CardPost) and not tx.conversations.card(number, found.item):
            noted(tx, number, found, event, BOT)
        if number and isinstance(found, LinePost) and not tx.cards.event_of(found.line):
            noted(tx, number, found, event, BOT)
        if isinstance(found, Preview):
            self._rules.outward.shown(tx, found.draft, event)
            if (draft := tx.queue.get(found.draft)) is not None and draft.state == "held":
                self._rules.outward.send_now(tx, draft)

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> bool:
        return True

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """Nothing."""

    async def came_back(self) -> None:
        """Nothing."""


class NoGap:
    """Of `Rooms` what deliveries to tools need: nothing waits in the room."""

    async def settle(self, room: str, fresh: float = 0) -> None:
        """Nothing."""
