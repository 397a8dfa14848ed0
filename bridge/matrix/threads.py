"""Which room and thread a delivery appears in, also when its conversation has gone on elsewhere since."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from bridge import payload
from bridge.items import look
from bridge.model import Deferred, Delivery
from bridge.payload import CardPost, LinePost, Mark, Post, Preview, Reword, Unmark
from bridge.places import Places, link
from bridge.store import Conversation, Store, Tx
from bridge.texts import Texts

MOST_THREADS = 50_000


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store knows of a message's place: its conversation, where that was before, what it answers."""

    conversation: Conversation | None
    former: tuple[str, str] | None
    answers: str


class Threads:
    """Where conversations are. `begin` sends a notice that begins a thread, and returns its event."""

    def __init__(
        self, store: Store, places: Places, say: Texts, begin: Callable[[Delivery, Post], Awaitable[str]]
    ) -> None:
        self._store = store
        self._places = places
        self._say = say
        self._begin = begin
        self._threads: OrderedDict[tuple[int, str], tuple[str, str]] = OrderedDict()  # by room too: it may change

    async def here(self, found: Any, conversation: int | None = None) -> Any:
        """The payload as it is to be delivered now: where its conversation is, or where its event is."""
        moved = self._places.has_moved(conversation)
        if not (moved or self._places.any_upgraded):
            return found
        if isinstance(found, Mark | Unmark | Reword):  # about an event, which stays where it is
            event = found.event
            room = await self._store.transact(lambda tx: tx.conversations.room_of(event))
            return replace(found, room=room or found.room)
        if not isinstance(found, Post | CardPost | LinePost | Preview):
            return found
        now = await self._store.transact(lambda tx: tx.conversations.get(conversation or 0)) if moved else None
        room = self._places.successor(now.room if now else found.room)
        if room != found.room and isinstance(found, Post):
            return replace(found, room=room, answers="")  # a relation does not reach into another room
        return replace(found, room=room)

    def is_over(self, found: Any) -> bool:
        """Whether it is about an event in a room that was upgraded: what comes after it must not wait for that."""
        return isinstance(found, Mark | Unmark | Reword) and self._places.is_upgraded(found.room)

    async def of(self, delivery: Delivery, post: Post) -> tuple[str, str, str]:
        """(root, latest, event answered) for a message of a conversation, "" where there is none.

        A conversation that goes on in another room begins a thread there, unless that whole room is its thread. Raises
        as `begin`, and `Deferred`.
        """
        if not delivery.conversation:
            return post.thread, post.thread, post.answers
        if self._places.is_own(post.room):
            return await self._in_own(delivery.conversation, post)
        thread = self._threads.get((delivery.conversation, post.room))
        moved = bool(post.answers) and self._places.succeeds(post.room)
        if thread is not None and not moved and (post.answers or not post.answers_message):
            return *thread, post.answers
        known = await self._store.transact(self._look_up, delivery.conversation, post)
        conversation = known.conversation
        if conversation is None:
            return "", "", known.answers
        if conversation.room != post.room and self._places.is_upgraded(post.room):
            raise Deferred("the room was upgraded just now")
        if not conversation.root and known.former:
            root = await self._go_on(delivery, conversation, link(*known.former))
            return root, root, known.answers
        return conversation.root, conversation.latest, known.answers

    async def _in_own(self, number: int, post: Post) -> tuple[str, str, str]:
        """The whole room is the thread; but what answers something in a thread there must be in that one, too."""
        if not (post.answers or post.answers_message):
            return "", "", ""
        answers = (await self._store.transact(self._look_up, number, post)).answers
        root = await self._store.transact(lambda tx: tx.own.thread_of(answers)) if answers else ""
        return root, answers, answers

    def _look_up(self, tx: Tx, number: int, post: Post) -> _Known:
        answers = post.answers
        if not answers and post.answers_message:
            message = tx.conversations.message(post.answers_message)
            answers = message.event if message else ""
        if answers and tx.conversations.room_of(answers) not in ("", post.room):  # said before the room was upgraded
            answers = ""
        return _Known(tx.conversations.get(number), tx.conversations.former(number), answers)

    async def _go_on(self, delivery: Delivery, conversation: Conversation, before: str) -> str:
        """Begin the thread in the new room, and say where it was. Again after a crash: the same event."""
        body = self._say("goes-on", title=conversation.title, link=before)
        post = Post(conversation.room, body, notice=True)
        event = await self._begin(replace(delivery, uid=f"{delivery.uid}.goes-on"), post)
        shown = payload.load(CardPost, delivery.payload).item if delivery.kind == "card" else 0
        await self._store.transact(self._went_on, conversation, event, shown)
        self.remember(conversation.id, conversation.room, event, event)
        return event

    def _went_on(self, tx: Tx, conversation: Conversation, event: str, shown: int) -> None:
        """The thread has begun: its cards come too, but for the one that is `shown` next anyway."""
        tx.conversations.shown(conversation.id, event, conversation.room)
        for item in tx.conversations.items_of(conversation.id):
            body, html = look(tx, conversation.id, item.id)
            if body and item.id != shown:
                self._places.post(tx, CardPost(conversation.room, item.id, body, html), conversation.id)

    def remember(self, conversation: int, room: str, root: str, latest: str) -> None:
        """An event of the thread is in the room."""
        self._threads[conversation, room] = (root, latest)
        self._threads.move_to_end((conversation, room))
        if len(self._threads) > MOST_THREADS:
            self._threads.popitem(last=False)
