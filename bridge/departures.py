"""Tools as destinations: a released draft is handed to its connector once its room is known without a gap."""

from __future__ import annotations

from dataclasses import replace

from bridge import payload
from bridge.connector import Connector
from bridge.matrix.fetch import Fetch
from bridge.matrix.rooms import Rooms
from bridge.model import Deferred, Delivery, Draft, Rejected
from bridge.outward import Outward, Refusal
from bridge.places import Places
from bridge.queue import Crossing
from bridge.store import Store, Tx
from bridge.texts import Texts

FRESH = 1.0  # seconds: a hold that has just ended has looked into the room already


class ConnectorDestination:
    """Deliveries of one connector. Each attempt is written down first: until then a draft can be cancelled."""

    careful = True
    parallel = 4

    def __init__(
        self, connector: Connector, store: Store, rooms: Rooms, fetch: Fetch, outward: Outward, places: Places,
        say: Texts, limit: int,
    ) -> None:  # fmt: skip
        self.name = connector.name
        self._connector = connector
        self._store = store
        self._rooms = rooms
        self._fetch = fetch
        self._outward = outward
        self._places = places
        self._say = say
        self._limit = limit
        self._deferred: set[str] = set()  # what the other side asked to bring again later

    async def prepare(self, delivery: Delivery) -> None:
        """See that nothing waits in the room that would stop it; bring its files into the spool; apply the policy."""
        draft = payload.load(Draft, delivery.payload)
        await self._rooms.settle(draft.room, FRESH)
        if self._outward.is_old(draft) and delivery.uid not in self._deferred:  # an outage: then it is asked again
            await self._store.transact(self._outward.look_again, delivery.uid)
        files = await self._fetch.spooled(draft.files, self._limit)
        try:
            self._outward.check(replace(draft, files=files))  # now that the files' real sizes are known
        except Refusal as refusal:
            raise Rejected(str(refusal)) from None
        if files != draft.files:
            await self._store.transact(self._spooled, delivery.uid, {file.mxc: file for file in files})

    def _spooled(self, tx: Tx, uid: str, files: dict[str, object]) -> None:
        row = tx.queue.get(uid)
        if row is not None:
            draft = payload.load(Draft, row.payload)
            kept = tuple(files.get(file.mxc, file) for file in draft.files)
            tx.queue.amend(uid, payload.dump(replace(draft, files=kept)))  # type: ignore[arg-type]

    async def deliver(self, delivery: Delivery) -> Crossing:
        """Hand it over. Raises what the connector raises."""
        draft = payload.load(Draft, delivery.payload)
        self._deferred.discard(delivery.uid)
        try:
            sent = await self._connector.send(delivery, draft)
        except Deferred:
            self._deferred.add(delivery.uid)
            raise
        return lambda tx: self._outward.sent(tx, delivery, draft, sent)

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> bool:
        """The author is told in the thread, operators in their room."""
        self._outward.gave_up(tx, delivery, reason)
        room = self._places.name(payload.load(Draft, delivery.payload).room)
        self._places.tell_operators(
            tx,
            self._say(
                "dead-letter", kind=delivery.kind, destination=self.name, room=room, reason=reason, uid=delivery.uid
            ),
        )
        return False

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """The preview says that it waits, and why."""
        self._outward.waits(tx, delivery, reason)

    async def came_back(self) -> None:
        """Nothing to do: its lanes go on by themselves."""
