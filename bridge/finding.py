"""Searches as deliveries: every tool that can, and the homeserver, are asked at the same time, for a few seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from bridge import payload
from bridge.commands.find import DESTINATION, MOST, Finds, Found
from bridge.connector import Connector
from bridge.matrix.search import Said, Search
from bridge.model import Card, Deferred, Delivery, Rejected, Unavailable, Unconfirmed
from bridge.payload import Find
from bridge.places import Places
from bridge.queue import Crossing
from bridge.store import Error, Store, Tx
from bridge.store.titles import Titles
from bridge.text.plain import one_line
from bridge.texts import Texts
from bridge.watch.logs import described

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that each of them has
MOST_CARDS = 50  # of one tool that are looked at, whatever it promises
_SILENT = (Unavailable, Deferred, Unconfirmed, OSError, TimeoutError)


class Finding:
    """Each search is tried once: what comes of it is an answer to whoever asked."""

    name = DESTINATION
    careful = True
    parallel = 4

    def __init__(
        self, connectors: dict[str, Connector], store: Store, search: Search, finds: Finds, places: Places, say: Texts
    ) -> None:
        self._connectors = {name: each for name, each in connectors.items() if type(each).find is not Connector.find}
        self._store = store
        self._search = search
        self._finds = finds
        self._places = places
        self._say = say

    async def prepare(self, delivery: Delivery) -> None:
        """Nothing."""

    async def deliver(self, delivery: Delivery) -> Crossing:
        """Raises nothing that is not a mistake of ours."""
        asked = payload.load(Find, delivery.payload)
        if delivery.attempts > 1:  # an earlier attempt ended with the bridge
            return lambda tx: self._finds.broken(tx, delivery, asked)
        notes: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE):
                direct, rooms = await self._seen_by(asked)
        except (*_SILENT, Rejected) as error:
            log.warning("nobody knows what may be seen: %s", described(error))
            return lambda tx: self._finds.broken(tx, delivery, asked)
        if not rooms:
            return lambda tx: self._finds.nowhere(tx, delivery, asked, direct)
        titled, said, cards = await asyncio.gather(
            self._titled(asked.words, rooms, notes),
            self._said(asked.words, rooms, notes),
            asyncio.gather(*(self._cards(each, asked.words, rooms, notes) for each in self._connectors.values())),
        )
        found = Found(rooms, direct, dict(zip(self._connectors, cards, strict=True)), said, titled, sorted(notes))
        return lambda tx: self._finds.answer(tx, delivery, asked, found)

    async def _seen_by(self, asked: Find) -> tuple[bool, frozenset[str]]:
        """Whether it is a direct chat, and the rooms of which everybody there may hear."""
        mapped = self._places.mapped() | self._places.own_rooms
        if asked.room in mapped:
            return False, frozenset([asked.room])
        if asked.room == self._places.management or not await self._search.is_alone_with(asked.sender, asked.room):
            return False, frozenset()
        return True, await self._search.rooms_of(asked.sender, mapped)

    async def _titled(self, words: str, rooms: Collection[str], notes: list[str]) -> Sequence[tuple[int, float]]:
        try:
            return await self._store.look_through(
                lambda db: Titles(db).find(words.split(), sorted(rooms), 2 * MOST), PATIENCE
            )
        except (OSError, Error) as error:
            log.warning("titles are not looked through: %s", described(error))
            notes.append(self._say("find-untitled"))
            return ()

    async def _said(self, words: str, rooms: Collection[str], notes: list[str]) -> Sequence[Said]:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._search.said(words, rooms)
        except (*_SILENT, Rejected) as error:  # it may be switched off there
            log.warning("the homeserver does not search: %s", described(error))
            notes.append(self._say("find-unheard"))
            return ()

    async def _cards(
        self, connector: Connector, words: str, rooms: Collection[str], notes: list[str]
    ) -> Sequence[Card]:
        scopes = {each.scope for room in rooms for each in self._places.mappings_of(room)
                  if each.connector == connector.name}  # fmt: skip
        if not scopes:
            return ()
        try:
            async with asyncio.timeout(PATIENCE):
                return list(await connector.find(words, sorted(scopes)))[:MOST_CARDS]
        except Rejected as error:
            notes.append(self._say("find-refused", connector=connector.name, reason=one_line(str(error))[:200]))
        except Exception as error:  # noqa: BLE001 - what nobody foresaw in one plugin keeps no other from being told
            log.warning("%s does not search: %s", connector.name, described(error))
            notes.append(self._say("find-silent", connector=connector.name))
        return ()

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> bool:
        """Whoever asked hears it; nothing is left to try again."""
        self._finds.broken(tx, delivery, payload.load(Find, delivery.payload))
        return True

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """Nothing: it is not asked again."""

    async def came_back(self) -> None:
        """Nothing."""
