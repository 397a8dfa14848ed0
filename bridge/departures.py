"""Tools as destinations: a released draft is handed to its connector once its room is known without a gap."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from bridge import payload
from bridge.commands.maps import Maps
from bridge.connector import Connector
from bridge.items import Items
from bridge.matrix.fetch import Fetch
from bridge.matrix.rooms import Rooms
from bridge.model import FAILURES, Deferred, Delivery, Draft, Gone, Rejected, Sent, Unavailable, Unconfirmed
from bridge.outward import Outward, Refusal, begins
from bridge.payload import Alter, Look, Post, Survey, Trial
from bridge.places import Places
from bridge.queue import Crossing
from bridge.store import Conversation, Store, Tx
from bridge.texts import Texts

log = logging.getLogger(__name__)

FRESH = 1.0  # seconds: a hold that has just ended has looked into the room already


def abandon(tx: Tx, connectors: Iterable[str], outward: Outward, places: Places, say: Texts) -> None:
    """At a start: what waits for a tool that is configured no more goes nowhere, and whoever asked for it hears so."""
    for row in tx.queue.for_none_of((*connectors, "matrix")):
        reason, asked = say("connector-gone", connector=row.destination), json.loads(row.payload)
        if row.kind == "draft":
            outward.gave_up(tx, row, reason)
            tx.queue.bury(row, reason)
            places.tell_dead_letter(tx, row, asked["room"], reason)
            continue
        tx.queue.drop(row.uid)
        if asked.get("follow", True):  # who only mentioned an item did not ask for anything
            places.post(tx, Post(asked["room"], reason, notice=True, answers=asked["event"]), row.conversation)


class ConnectorDestination:
    """Deliveries of one connector. Each attempt is written down first: until then a draft can be cancelled."""

    careful = True
    parallel = 4

    def __init__(
        self, connector: Connector, store: Store, rooms: Rooms, fetch: Fetch, outward: Outward, items: Items,
        places: Places, maps: Maps, limit: int,
    ) -> None:  # fmt: skip
        self.name = connector.name
        self._connector = connector
        self._store = store
        self._rooms = rooms
        self._fetch = fetch
        self._outward = outward
        self._items = items
        self._places = places
        self._maps = maps
        self._limit = limit
        self._deferred: set[str] = set()  # what the other side asked to bring again later
        self.on_accepted: Callable[[Tx, str, Draft], None] = lambda tx, uid, draft: None  # the tool has a draft
        self.on_refused: Callable[[Tx, str], None] = lambda tx, uid: None  # it will never have it, by itself

    async def prepare(self, delivery: Delivery) -> None:
        """See that nothing waits in the room that would stop it; bring its files into the spool; apply the policy."""
        if delivery.kind == "change":
            await self._in_sight(delivery, payload.load(Alter, delivery.payload).item)
        if delivery.kind != "draft":
            return
        draft = payload.load(Draft, delivery.payload)
        for room in draft.rooms:
            await self._rooms.settle(room, FRESH)
        if not draft.pending:  # what some have already is not stopped
            await self._in_sight(delivery, draft.item)
        if self._outward.is_old(draft) and delivery.uid not in self._deferred:  # an outage: then it is asked again
            await self._store.transact(self._outward.look_again, delivery.uid)
        files = await self._fetch.spooled(draft.files, self._limit)
        try:
            self._outward.check(replace(draft, files=files))  # now that the files' real sizes are known
        except Refusal as refusal:
            raise Rejected(str(refusal)) from None
        if files != draft.files:
            await self._store.transact(self._spooled, delivery.uid, {file.mxc: file for file in files})

    async def _in_sight(self, delivery: Delivery, item: int) -> None:
        """Raises `Rejected` when the room may not see the item any more: then nothing that was asked there is done."""
        number = delivery.conversation or 0
        if why := await self._store.transact(lambda tx: self._items.out_of_sight(tx, number, item)):
            raise Rejected(why)

    def _spooled(self, tx: Tx, uid: str, files: dict[str, object]) -> None:
        row = tx.queue.get(uid)
        if row is not None:
            draft = payload.load(Draft, row.payload)
            kept = tuple(files.get(file.mxc, file) for file in draft.files)
            tx.queue.amend(uid, payload.dump(replace(draft, files=kept)))  # type: ignore[arg-type]

    async def deliver(self, delivery: Delivery) -> Crossing:
        """Hand it over. Raises what the connector raises."""
        if delivery.kind == "look":
            return await self._look(delivery, payload.load(Look, delivery.payload))
        if delivery.kind == "trial":
            return await self._trial(delivery, payload.load(Trial, delivery.payload))
        if delivery.kind == "survey":
            return await self._survey(payload.load(Survey, delivery.payload))
        if delivery.kind == "change":
            return await self._change(delivery, payload.load(Alter, delivery.payload))
        return await self._draft(delivery, payload.load(Draft, delivery.payload))

    async def _draft(self, delivery: Delivery, draft: Draft) -> Crossing:
        self._deferred.discard(delivery.uid)
        act = self._connector.create if begins(draft) else self._connector.send
        try:
            sent = await act(delivery, draft)
        except Deferred:
            self._deferred.add(delivery.uid)
            raise
        except Gone:  # of this draft people are told as of any that is refused for good
            if not begins(draft):
                await self._store.transact(self._items.gone, self.name, draft.remote)
            raise
        log.info("accepted", extra={"uid": delivery.uid, "destination": self.name, "reply": sent.reply})
        return lambda tx: self._sent(tx, delivery, draft, sent)

    def _sent(self, tx: Tx, delivery: Delivery, draft: Draft, sent: Sent) -> float | None:
        again = self._outward.sent(tx, delivery, draft, sent)
        if again is None:
            self.on_accepted(tx, delivery.uid, draft)
        return again

    async def _look(self, delivery: Delivery, look: Look) -> Crossing:
        try:
            card = await self._connector.fetch(look.remote)
        except Gone as error:
            return self._missed(delivery, look, str(error))
        except Rejected as error:
            return self._refused(delivery, look, str(error))
        last = self._connector.last
        return self._into_conversation(
            delivery,
            lambda tx, conversation: self._items.found(tx, self.name, look, conversation, card, only_looks=last),
        )

    async def _change(self, delivery: Delivery, alter: Alter) -> Crossing:
        try:
            card = await self._connector.change(alter.change)
        except Gone as error:
            return self._missed(delivery, alter, str(error))
        except Rejected as error:
            return self._refused(delivery, alter, str(error))
        return self._into_conversation(
            delivery, lambda tx, conversation: self._items.changed(tx, alter, conversation, card)
        )

    async def _trial(self, delivery: Delivery, trial: Trial) -> Crossing:
        """One step of it. A tool in trouble is an answer, too."""
        trials = self._maps.trials
        if trial.step == "wait":
            hint = self._connector.way(trial.scope)
            return lambda tx: trials.lost(tx, delivery, trial, hint)
        try:
            if trial.step == "look":
                missing, findings = await self._missing(trial.room), await self._connector.check()
                return lambda tx: trials.looked(tx, delivery, trial, missing, findings)
            sent = await self._connector.probe(trial.scope, delivery.uid)
            if sent is not None:
                return lambda tx: trials.sent(tx, delivery, trial, sent)
            news = await self._news()
            return lambda tx: trials.read(tx, delivery, trial, news)
        except (*FAILURES, OSError) as error:
            reason = str(error) or type(error).__name__
            return lambda tx: trials.refused(tx, delivery, trial, reason)

    async def _missing(self, room: str) -> list[str] | None:
        try:
            return await self._rooms.missing_rights(room)
        except (Unavailable, Deferred, OSError):
            return None

    async def _news(self) -> int | None:
        """How many changes a poll would bring now: none is taken. None where nothing is polled."""
        if type(self._connector).poll is Connector.poll:
            return None
        cursor = await self._store.transact(lambda tx: tx.conversations.cursor(self.name))
        return len((await self._connector.poll(cursor)).envelopes)

    async def _survey(self, survey: Survey) -> Crossing:
        """Whoever asked waits for an answer: a tool in trouble is one, too."""
        try:
            offers = tuple(await self._connector.offers())
        except (Rejected, Deferred, Unavailable, Unconfirmed) as error:
            reason = str(error)
            return lambda tx: self._maps.unknown(tx, survey, reason)
        return lambda tx: self._maps.offered(tx, survey, offers)

    def _refused(self, delivery: Delivery, asked: Look | Alter, reason: str) -> Crossing:
        """A no is an answer like any other: whoever asked hears it at once, and nothing is left to retry."""
        return self._into_conversation(
            delivery, lambda tx, conversation: self._items.refused(tx, asked, conversation, self.name, reason)
        )

    def _missed(self, delivery: Delivery, asked: Look | Alter, reason: str) -> Crossing:
        """There is no such item (any more)."""
        return self._into_conversation(
            delivery, lambda tx, conversation: self._items.missed(tx, asked, conversation, self.name, reason)
        )

    def _into_conversation(self, delivery: Delivery, rule: Callable[[Tx, Conversation], None]) -> Crossing:
        def crossing(tx: Tx) -> None:
            conversation = tx.conversations.get(delivery.conversation or 0)
            if conversation is not None:
                rule(tx, conversation)

        return crossing

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> bool:
        """The author is told in the thread, operators in their room."""
        if delivery.kind == "draft":
            self._outward.gave_up(tx, delivery, reason)
            self.on_refused(tx, delivery.uid)
        elif delivery.kind == "trial":
            self._maps.trials.refused(tx, delivery, payload.load(Trial, delivery.payload), reason)
        elif delivery.kind == "survey":
            self._maps.unknown(tx, payload.load(Survey, delivery.payload), reason)
            return True
        else:
            kinds: dict[str, type[Look | Alter]] = {"look": Look, "change": Alter}
            self._refused(delivery, payload.load(kinds[delivery.kind], delivery.payload), reason)(tx)
        room = json.loads(delivery.payload)["room"]
        self._places.tell_dead_letter(tx, delivery, room, reason)
        return False

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """The preview says that it waits, and why."""
        if delivery.kind == "draft":
            self._outward.waits(tx, delivery, reason)

    async def came_back(self) -> None:
        """Nothing to do: its lanes go on by themselves."""
