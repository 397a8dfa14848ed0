"""Matrix as a destination: each delivery becomes one event, exactly once, in the right thread, by the right user."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from mautrix.errors import MatrixRequestError

from bridge import payload
from bridge.config import Config
from bridge.matrix import content
from bridge.matrix.charts import Charts
from bridge.matrix.doors import Doors
from bridge.matrix.fetch import Fetch
from bridge.matrix.ghosts import Ghosts
from bridge.matrix.lasting import Lasting, newest, noted
from bridge.matrix.own import OwnRooms
from bridge.matrix.rooms import Rooms
from bridge.matrix.sending import Annotated, Forbidden, Sending, transaction
from bridge.matrix.threads import Threads
from bridge.model import Deferred, Delivery, Draft, File, Rejected, RoomEvent
from bridge.moving import Moving
from bridge.outward import Outward, Refusal
from bridge.payload import (
    Announce,
    Archive,
    CardPost,
    Chart,
    Decline,
    Enter,
    Follow,
    Gather,
    Left,
    LinePost,
    Locate,
    MakeRoom,
    Mark,
    Pin,
    Post,
    Preview,
    Reword,
    Rights,
    Unmark,
)
from bridge.places import Places, Standing
from bridge.present import preview, short_preview
from bridge.queue import Crossing
from bridge.store import Store, Tx
from bridge.text.plain import spoken
from bridge.texts import Texts

MOST_ECHOES = 10_000


class MatrixDestination:
    """Deliveries into rooms."""

    name = "matrix"
    careful = False

    def __init__(
        self, config: Config, store: Store, ghosts: Ghosts, rooms: Rooms, fetch: Fetch, places: Places,
        outward: Outward, say: Texts, located: Callable[[Tx, RoomEvent, RoomEvent], None],
        charted: Callable[[Tx, Chart, Standing], None], moving: Moving,
    ) -> None:  # fmt: skip
        self.parallel = config.homeserver.in_flight
        self._store = store
        self._ghosts = ghosts
        self._rooms = rooms
        self._places = places
        self._outward = outward
        self._say = say
        self._fetch = fetch
        self._located = located
        self._charts = Charts(config, store, ghosts, places)
        self._charted = charted
        self._echoes: OrderedDict[str, None] = OrderedDict()  # uids of what was sent at the first attempt, of late
        self._sending = Sending(store, ghosts, rooms, say)
        self._threads = Threads(store, places, say, self._begin)
        self._doors = Doors(config, store, ghosts, places, rooms, say)
        self._moving = moving
        self._own = OwnRooms(config, store, ghosts, places, fetch, moving, say, rooms.look)
        rooms.upgrades.on_own = moving.show_cards
        self._doors.on_deserted = moving.deserted
        self._kinds = {
            "post": (Post, self._post),
            "card": (CardPost, self._card),
            "line": (LinePost, self._card),
            "reword": (Reword, self._reword),
            "mark": (Mark, self._mark),
            "unmark": (Unmark, self._unmark),
            "preview": (Preview, self._preview),
            "enter": (Enter, self._doors.enter),
            "decline": (Decline, self._doors.decline),
            "left": (Left, self._doors.left),
            "follow": (Follow, rooms.upgrades.follow),
            "locate": (Locate, self._locate),
            "rights": (Rights, self._rights),
            "chart": (Chart, self._chart),
            "announce": (Announce, self._announce),
            "room": (MakeRoom, self._own.make),
            "gather": (Gather, self._own.gather),
            "pin": (Pin, self._own.pin),
            "archive": (Archive, self._own.archive),
        }

    async def deliver(self, delivery: Delivery) -> Crossing:
        """Send the event. Raises `Rejected`, `Deferred`, `Unavailable` (see `queue.Destination`)."""
        kind, act = self._kinds[delivery.kind]
        found = await self._threads.here(payload.load(kind, delivery.payload), delivery.conversation)
        try:
            crossing: Crossing = await act(delivery, found)  # type: ignore[operator]
        except Deferred:
            if not self._threads.is_over(found):
                raise
            return lambda tx: None
        if not delivery.attempts and delivery.doubt is None:
            self._echoes[delivery.uid] = None
            if len(self._echoes) > MOST_ECHOES:
                self._echoes.popitem(last=False)
        return crossing

    def is_echo(self, uid: str) -> bool:
        """Whether an event of ours that comes back says nothing new: its id is being written down already, before
        anything that is heard from now on. After another attempt it may come back before we know its id.
        """
        return uid in self._echoes

    async def prepare(self, delivery: Delivery) -> None:
        """What belongs to a conversation waits when its room is encrypted: never in plaintext. And nothing is shown in
        a room that was upgraded: it waits until the new one can be entered.
        """
        encrypted, awaiting = self._places.encrypted, self._places.awaiting()
        if not (encrypted or awaiting):
            return
        room = self._places.successor(json.loads(delivery.payload)["room"])
        if delivery.conversation and room in encrypted:
            raise Deferred("the room is encrypted")
        if room in awaiting and delivery.kind in ("post", "card", "line", "preview"):
            raise Deferred("the room was upgraded, and the one that replaces it is not entered yet")

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """Whoever could be told is in the room that does not take it; but of an upgrade operators hear."""
        if delivery.kind == "follow":
            self._rooms.upgrades.waits(tx, delivery, reason)

    async def came_back(self) -> None:
        """What happened in the rooms meanwhile must be known before anything leaves."""
        self._rooms.distrust()

    # --- kinds

    def _is_hidden(self, post: Post) -> bool:
        """Whether its room may not see it any more; what waited for the homeserver may have waited for long.

        Raises `Deferred` while nobody knows: a guest may have come meanwhile.
        """
        if self._places.is_own(post.room) and not self._rooms.is_caught_up(post.room):
            raise Deferred("who may see it there is not known yet")
        return self._places.sees(post.room, post.private, private=True) is None

    async def _post(self, delivery: Delivery, post: Post) -> Crossing:
        if post.private and self._is_hidden(post):
            return lambda tx: None
        root, latest, answers = await self._threads.of(delivery, post)
        sender = await self._ghosts.speaker(content.speaker(post), post.room)
        try:
            if post.file and not post.file.mxc:
                post = await self._sending.uploaded(delivery, post, sender)
            body = content.message(post, delivery.uid, root, latest, answers)
            event = await self._sending.send(sender, delivery, post.room, "m.room.message", body)
        except Rejected as error:
            return await self._stub(delivery, post, str(error), (root, latest))
        return self._shown(delivery, post, root, event)

    async def _card(self, delivery: Delivery, shown: Lasting) -> Crossing:
        """The card of an item, or a line about its changes: sent once in each conversation, edited ever after."""
        number = delivery.conversation or 0

        def judged(tx: Tx) -> tuple[str, Lasting, bool]:
            event, latest = newest(tx, delivery, shown)
            return event, latest, self._shows(tx, number, latest)

        known, card, visible = await self._store.transact(judged)
        if not visible:
            return lambda tx: None
        if known:
            body = content.edit(card.body, card.html, known, delivery.uid)
            await self._sending.send(self._ghosts.bot, delivery, card.room, "m.room.message", body)
            return lambda tx: None
        post = Post(card.room, card.body, card.html, notice=True)
        root, latest, _ = await self._threads.of(delivery, post)
        body = content.message(post, delivery.uid, root, latest, "")
        event = await self._sending.send(self._ghosts.bot, delivery, card.room, "m.room.message", body)
        to_room = self._shown(delivery, post, root, event)

        def crossing(tx: Tx) -> None:
            to_room(tx)
            noted(tx, number, card, event, self._ghosts.bot.mxid)
            if isinstance(card, CardPost) and self._places.is_own(card.room):
                self._moving.pin(tx, card.room, number)

        return crossing

    def _shows(self, tx: Tx, conversation: int, card: Lasting) -> bool:
        """Whether the room has anything of the tool: what a conversation brings into another one may be of none. And
        nothing is told of changes to what it may not see any more.
        """
        if isinstance(card, LinePost) and tx.cards.aside(conversation, card.item)[0] == "outside":
            return False
        return self._places.carries(self._places.successor(card.room), tx.cards.connector_of(card.item))

    async def _stub(self, delivery: Delivery, post: Post, reason: str, thread: tuple[str, str]) -> Crossing:
        """A notice in its very place says what cannot be shown, so that the conversation goes on; the row is kept."""
        body = content.message(
            Post(post.room, self._unshown(post, reason), notice=True, mentions=post.mentions), delivery.uid, *thread, ""
        )
        stubbed = replace(delivery, uid=f"{delivery.uid}.stub")
        event = await self._sending.send(self._ghosts.bot, stubbed, post.room, "m.room.message", body)
        to_room = self._shown(delivery, post, thread[0], event)

        def crossing(tx: Tx) -> None:
            to_room(tx)
            uid = tx.queue.keep_dead(delivery, payload.dump(post), reason)
            self._places.tell_dead_letter(tx, delivery, post.room, reason, uid)

        return crossing

    def _unshown(self, post: Post, reason: str) -> str:
        if post.file:
            return self._say("file-too-large", name=post.file.name, size=spoken(post.file.size), reason=reason)
        return self._say("unshown", sender=post.author.account if post.author else "", reason=reason)

    def _shown(self, delivery: Delivery, post: Post, root: str, event: str) -> Crossing:
        def crossing(tx: Tx) -> None:
            if post.message:
                tx.conversations.in_matrix(post.message, event, post.room)
            if delivery.conversation:
                tx.conversations.shown(delivery.conversation, event, post.room)

        if delivery.conversation:
            self._threads.remember(delivery.conversation, post.room, root or event, event)
        return crossing

    async def _begin(self, delivery: Delivery, post: Post) -> str:
        """A message outside any thread, by the bot: one begins with it."""
        body = content.message(post, delivery.uid, "", "", "")
        return await self._sending.send(self._ghosts.bot, delivery, post.room, "m.room.message", body)

    async def _reword(self, delivery: Delivery, new: Reword) -> Crossing:
        body = content.edit(new.body, new.html, new.event, delivery.uid)
        with contextlib.suppress(Forbidden):  # what comes behind it in the lane matters more
            await self._sending.send(self._ghosts.bot, delivery, new.room, "m.room.message", body)
        return lambda tx: None

    async def _mark(self, delivery: Delivery, mark: Mark) -> Crossing:
        body = content.reaction(mark.event, mark.key, delivery.uid)
        try:
            event = await self._sending.send(self._ghosts.bot, delivery, mark.room, "m.reaction", body)
        except (Annotated, Forbidden):
            return lambda tx: None
        return lambda tx: tx.conversations.marked(mark.event, mark.key, event)

    async def _unmark(self, delivery: Delivery, mark: Unmark) -> Crossing:
        event = await self._store.transact(lambda tx: tx.conversations.mark(mark.event, mark.key))
        if event:
            path = f"_matrix/client/v3/rooms/{mark.room}/redact/{event}/{transaction(delivery, self._ghosts.bot)}"
            try:
                await self._ghosts.bot.call("PUT", path, {})
            except MatrixRequestError as error:
                if error.http_status not in (403, 404):
                    raise Rejected(str(error)) from None
        return lambda tx: tx.conversations.unmarked(mark.event, mark.key)

    async def _preview(self, delivery: Delivery, shown: Preview) -> Crossing:
        draft = await self._completed(shown)
        row = await self._store.transact(lambda tx: tx.queue.get(shown.draft))
        if draft is None or row is None:
            return lambda tx: None
        body, html = preview(draft, self._say, self._outward.footer(row))
        post = Post(shown.room, body, html, notice=True, answers=draft.source)
        root, latest, answers = await self._threads.of(delivery, post)
        if len(body.encode()) > content.MOST_BYTES:
            await self._whole(delivery, shown.room, body, (root, latest))
            post = replace(post, body=short_preview(draft, self._say, self._outward.footer(row)), html="")
        event = await self._sending.send(
            self._ghosts.bot, delivery, shown.room, "m.room.message",
            content.message(post, delivery.uid, root, latest, answers),
        )  # fmt: skip
        to_room = self._shown(delivery, post, root, event)

        def crossing(tx: Tx) -> None:
            to_room(tx)
            self._outward.shown(tx, shown.draft, event)

        return crossing

    async def _whole(self, delivery: Delivery, room: str, body: str, thread: tuple[str, str]) -> None:
        """What is too long for one event is shown as a file, before the preview that asks about it."""
        data = body.encode()
        bot = self._ghosts.bot

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        mxc = await bot.upload("preview.txt", "text/plain; charset=utf-8", len(data), chunks())
        file = File("preview.txt", "text/plain; charset=utf-8", len(data), mxc=mxc)
        whole = replace(delivery, uid=f"{delivery.uid}.whole")  # in the event too: it is not the preview
        body_ = content.message(Post(room, file.name, file=file), whole.uid, *thread, "")
        await self._sending.send(bot, whole, room, "m.room.message", body_)

    async def _locate(self, delivery: Delivery, wanted: Locate) -> Crossing:
        event = await self._fetch.event(wanted.room, wanted.request.target)
        return lambda tx: self._located(tx, wanted.request, event) if event else None

    async def _rights(self, delivery: Delivery, changed: Rights) -> Crossing:
        if self._places.is_upgraded(changed.room):  # nobody need mend what the upgrade has closed
            return lambda tx: None
        missing = await self._rooms.missing_rights(changed.room)

        def crossing(tx: Tx) -> None:
            self._places.tell_rights(tx, changed.room, missing)
            if "right-announce" not in missing:
                self._places.announce(tx)

        return crossing

    async def _chart(self, delivery: Delivery, chart: Chart) -> Crossing:
        standing = await self._charts.standing(chart)

        def crossing(tx: Tx) -> None:
            self._charted(tx, chart, standing)
            tx.committed.append(self._rooms.look)

        return crossing

    async def _announce(self, delivery: Delivery, announce: Announce) -> Crossing:
        return await self._charts.announce(announce)

    async def _completed(self, shown: Preview) -> Draft | None:
        """The draft with its words, files and transcript; None when it is gone or cannot be sent."""
        row = await self._store.transact(lambda tx: tx.queue.get(shown.draft))
        if row is None:
            return None
        before = payload.load(Draft, row.payload)
        try:
            after = await self._fetch.completed(before)
            return await self._store.transact(self._outward.filled, shown.draft, before, after)
        except (Rejected, Refusal) as error:
            await self._store.transact(self._unfit, shown.draft, str(error))
            return None

    def _unfit(self, tx: Tx, uid: str, reason: str) -> None:
        self._outward.unfit(tx, uid, reason)
        self._moving.dropped(tx, uid)

    # --- giving up

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> bool:
        """A mark, a new wording or a look at rights may go; anything with words stays, and people are told."""
        if delivery.kind in ("mark", "unmark", "reword", "rights", "announce", "decline", "left", "pin"):
            return True
        if delivery.kind == "room":
            self._own.gave_up(tx, delivery, payload.load(MakeRoom, delivery.payload), reason)
            return True
        shown: Any = payload.load(self._kinds[delivery.kind][0], delivery.payload)
        room = shown.room
        if isinstance(shown, Preview):
            self._unasked(tx, shown.draft, reason)
        if isinstance(shown, Post) and shown.author:
            self._places.post(tx, Post(room, self._unshown(shown, reason), notice=True), delivery.conversation)
        self._places.tell_dead_letter(tx, delivery, room, reason)
        return False

    def _unasked(self, tx: Tx, uid: str, reason: str) -> None:
        """Nobody can see what would leave: its author is told to ask again."""
        draft = tx.queue.get(uid)
        if draft is not None and draft.state in ("asked", "held", "paused"):
            self._unfit(tx, uid, reason)
