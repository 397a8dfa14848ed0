"""What is heard in rooms: each Matrix event is written down once, found its conversation, and acted on if it asks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from bridge import payload
from bridge.commands import CANCEL, SEND, Commands
from bridge.commands.parse import command_of
from bridge.commands.start import thread_of
from bridge.config import Config
from bridge.model import Delivery, Draft, RoomEvent
from bridge.moving import Moving
from bridge.outward import HELD, LEFT, Outward
from bridge.payload import Enter, Locate, Post, Preview
from bridge.places import Places, link
from bridge.restored import had_left
from bridge.store import Conversation, OwnRoom, Tx
from bridge.texts import Texts

log = logging.getLogger(__name__)

MESSAGES = {"m.room.message", "m.sticker"}
_LEFT = LEFT.removesuffix("\ufe0f")  # as `RoomEvent.key` has it


class Hearing:
    """The rules for events of rooms. `hear` is a rule: it runs inside one transaction."""

    def __init__(
        self, config: Config, places: Places, commands: Commands, outward: Outward, moving: Moving, say: Texts
    ) -> None:
        self._config = config
        self._places = places
        self._commands = commands
        self._outward = outward
        self._moving = moving
        self._say = say
        self.on_hearing: Callable[[], None] = lambda: None

    def hear(self, tx: Tx, event: RoomEvent) -> bool:
        """Take note of an event; False when it was heard before, or is our own."""
        if self._config.is_ours(event.sender):
            self._came_back(tx, event)
            return False
        if not tx.conversations.first_time(event.id):
            return False
        rows, drafts = len(tx.queue.fresh), len(tx.queue.moved)
        self.understand(tx, event)
        for uid in [uid for uid, state in tx.queue.moved[drafts:] if state == "gone"]:
            self._commands.dropped(tx, uid)
        uids = [row.uid for row in tx.queue.fresh[rows:]] + [uid for uid, _ in tx.queue.moved[drafts:]]
        tx.committed.append(partial(self._heard, event.id, list(dict.fromkeys(uids))))
        return True

    def _heard(self, event: str, uids: list[str]) -> None:
        """It is committed. What people say among themselves asks for nothing: the log need not tell of it."""
        self.on_hearing()
        log.log(logging.INFO if uids else logging.DEBUG, "heard", extra={"event": event, "uids": uids})

    def keep_aside(self, tx: Tx, event: RoomEvent, reason: str) -> None:
        """An event that we fail to understand is kept as a dead letter: nothing is lost, and it can be replayed."""
        if tx.conversations.first_time(event.id):
            uid = tx.queue.keep_unknown("event", payload.dump(event), reason)
            body = self._say("event-failed", room=self._places.name(event.room), reason=reason, uid=uid)
            self._places.tell_operators(tx, body)

    def matters(self, event: RoomEvent) -> bool:
        """Whether it must be heard at all; of our own events only those that people may answer."""
        ours = self._config.is_ours(event.sender)
        return not ours or event.key == _LEFT or (event.type == "m.room.message" and bool(event.delivery))

    def _came_back(self, tx: Tx, event: RoomEvent) -> None:
        """Our own event, perhaps of a delivery not crossed out yet: people may have answered it before we note it."""
        if event.key == _LEFT:
            had_left(tx, self._places, self._say, event, HELD)
        delivery = tx.queue.get(event.delivery) if event.delivery else None
        if delivery is None or not delivery.conversation:
            return
        if delivery.kind == "post" and (number := payload.load(Post, delivery.payload).message):
            tx.conversations.in_matrix(number, event.id, event.room)
        if delivery.kind == "preview":
            tx.queue.previewed(payload.load(Preview, delivery.payload).draft, event.id)
        if delivery.kind in ("post", "preview", "card"):
            tx.conversations.shown(delivery.conversation, event.id, event.room)

    def understand(self, tx: Tx, event: RoomEvent) -> None:
        """Act on an event, whether it was heard before or not (a replay)."""
        if event.type in MESSAGES and event.replaces:
            self._edited(tx, event)
        elif event.type in MESSAGES:
            self._said(tx, event)
        elif event.type == "m.reaction":
            self._reacted(tx, event)
        elif event.type == "m.room.redaction":
            self._redacted(tx, event)
        elif event.type == "m.room.member" and event.state_key:
            self._member(tx, event, event.state_key)
        else:
            self._state(tx, event)

    def _state(self, tx: Tx, event: RoomEvent) -> None:
        """The room itself has changed. Whoever may speak can send these types as messages, too: they change nothing."""
        if event.state_key != "":
            return
        if event.type == "m.room.power_levels":
            if event.room in self._places.mapped() and not self._places.is_upgraded(event.room):
                self._places.check_rights(tx, event.room)
        elif event.type == "m.room.encryption":
            self._encrypted(tx, event.room)
        elif event.type == "m.room.tombstone" and self._places.is_ours(tx, event.room):
            self._places.follow(tx, event.room, event.sender)

    def _encrypted(self, tx: Tx, room: str) -> None:
        tx.people.is_encrypted(room)
        self._places.encrypted.add(room)
        self._places.post(tx, Post(room, self._say("encrypted"), notice=True))
        if self._places.is_ours(tx, room):
            self._places.tell_operators(tx, self._say("encrypted") + f" ({self._places.name(room)})")

    def _said(self, tx: Tx, event: RoomEvent) -> None:
        conversation = self._conversation(tx, event)
        command = command_of(event)
        if conversation is not None:
            self._note(tx, conversation, event)
            tx.conversations.shown(conversation.id, event.id, event.room)
        elif own := self._left(tx, self._meant(tx, event), event.room):
            return self._point(tx, event, own, always=command is not None)
        if command is not None:
            self._commands.obey(tx, event, command, conversation)
        elif event.msgtype == "m.text":
            self._commands.pasted(tx, event, conversation)

    def _note(self, tx: Tx, conversation: Conversation, event: RoomEvent) -> None:
        refs = (event.answers,) if event.answers else ()  # whom it answers, should it be sent with 📤
        elsewhere = "" if event.room == conversation.room else event.room
        tx.conversations.add_message(
            conversation.id, "internal", event.sender, refs=refs, event=event.id, room=elsewhere
        )
        if event.thread and self._places.is_own(conversation.room):
            tx.own.threaded(event.id, event.thread, conversation.id)

    def _member(self, tx: Tx, event: RoomEvent, mxid: str) -> None:
        ours, comes = self._config.is_ours(mxid), event.membership in ("invite", "join")
        if comes and self._places.is_own(event.room) and not ours and not self._config.is_inside(mxid):
            self._moving.visited(tx, event.room, mxid)
        if event.membership == "invite" and ours:
            self._invited(tx, event, mxid)
        elif mxid == self._config.bot_mxid and event.membership in ("leave", "ban"):
            tx.people.left(mxid, event.room)
            self._removed(tx, event)
        elif event.membership == "join":
            tx.people.named(mxid, event.name or mxid[1:].partition(":")[0])
        elif event.membership in ("leave", "ban") and not ours:
            self._places.check_presence(tx, event.room)

    def _invited(self, tx: Tx, event: RoomEvent, mxid: str) -> None:
        """The bot comes where something is mapped, and to whoever may ask it for anything. A ghost comes when it has
        something to say, invited by the bot.
        """
        wanted = event.room in self._places.wanted()
        if mxid == self._config.bot_mxid and (wanted or self._commands.may_use(event.sender)):
            self._places.post(tx, Enter(event.room, event.sender))
        elif not wanted:
            self._places.decline(tx, event.room, mxid, event.sender)

    def _removed(self, tx: Tx, event: RoomEvent) -> None:
        """Nobody need hear of a room that nothing is mapped to."""
        if event.room in self._places.mapped() and event.room != self._places.management:
            body = self._say(
                "banned" if event.membership == "ban" else "kicked", who=event.sender, bot=self._config.bot_mxid,
                room=self._places.name(event.room), scopes=self._places.spoken(event.room),
            )  # fmt: skip
            self._places.tell_operators(tx, body)

    def _conversation(self, tx: Tx, event: RoomEvent) -> Conversation | None:
        """The conversation whose thread it is in, or whose message it answers; of this room only. Where the whole room
        is one, that.
        """
        if own := self._own(tx, event.room):
            return own
        found = self._meant(tx, event)
        return found if found and self._is_in(found, event.room) else None

    def _meant(self, tx: Tx, event: RoomEvent) -> Conversation | None:
        found = tx.conversations.of_root(event.thread) if event.thread else None
        return found or (tx.conversations.of_event(event.answers) if event.answers else None)

    def _own(self, tx: Tx, room: str) -> Conversation | None:
        """The conversation whose own room it is."""
        room = self._places.successor(room)
        own = tx.own.in_room(room) if self._places.is_own(room) else None
        return tx.conversations.get(own.conversation) if own else None

    def _left(self, tx: Tx, conversation: Conversation | None, room: str) -> OwnRoom | None:
        """Where the conversation is now, if it was in `room` until it got a room of its own."""
        if conversation is None or not self._places.has_moved(conversation.id):
            return None
        own = tx.own.of(conversation.id)
        there = own is not None and own.room and self._places.successor(own.home) == self._places.successor(room)
        return own if there else None

    def _point(self, tx: Tx, event: RoomEvent, own: OwnRoom, *, always: bool) -> None:
        """What is said in the thread that a conversation has left belongs to nothing: everybody hears that once."""
        if tx.conversations.first_time(f"left {own.room} {event.sender}") or always:
            body = self._say("room-moved", link=link(own.room))
            answers = event.target or event.id
            self._places.post(tx, Post(event.room, body, notice=True, answers=answers, thread=event.thread or own.root))

    def _is_in(self, conversation: Conversation, room: str) -> bool:
        """Whether a room, or the one that came after it, is where the conversation is."""
        return conversation.room == self._places.successor(room)

    def _edited(self, tx: Tx, event: RoomEvent) -> None:
        """Only the author's edit counts, and only of what is on its way outward, has left, or began something."""
        waiting = self._of_room(tx.queue.from_source(event.replaces), event.room)
        for delivery in waiting:
            self._commands.edited(tx, event, delivery)
        if not waiting:
            self._commands.corrected(tx, event)
        for delivery in self._containing(tx, event.replaces, event.room):
            self._outward.spoil(tx, delivery)
        message = tx.conversations.message_of_event(event.replaces)
        if message and message.role == "outward" and message.sender == event.sender:
            self._left_already(tx, event, event.replaces, message.conversation)

    def _reacted(self, tx: Tx, event: RoomEvent) -> None:
        conversation = tx.conversations.of_event(event.target)
        touched = tx.queue.touched_by(event.target)
        if conversation is None and touched and touched[0].conversation:
            conversation = tx.conversations.get(touched[0].conversation)
        conversation = conversation or self._own(tx, event.room)
        wanted = self._commands.asks(event.key) and event.key != CANCEL
        left = self._left(tx, conversation, event.room)
        if left is not None and wanted and self._config.is_inside(event.sender):
            self._point(tx, event, left, always=True)
        elif conversation is None and wanted and self._config.is_inside(event.sender):
            self._places.post(tx, Locate(event.room, event))
        elif conversation is not None and (left is not None or self._is_in(conversation, event.room)):
            self._commands.react(tx, event, conversation)

    def located(self, tx: Tx, request: RoomEvent, event: RoomEvent) -> None:
        """The message that a request is on was written before its thread became a conversation, or begins one."""
        conversation = tx.conversations.of_root(event.thread or event.id) or tx.conversations.of_event(event.id)
        if request.room != event.room or tx.conversations.taken_back(request.id):
            return
        if conversation is None and request.key != SEND and not self._places.is_upgraded(event.room):
            conversation = thread_of(tx, event, event.body[:80], self._say)
        if conversation is not None and self._is_in(conversation, event.room):
            if tx.conversations.message_of_event(event.id) is None:
                self._note(tx, conversation, event)
            self._commands.react(tx, request, conversation)

    def _redacted(self, tx: Tx, event: RoomEvent) -> None:
        """Taking back the words, or the request to send them, stops what has not left."""
        tx.conversations.take_back(event.target)
        for delivery in self._of_room(tx.queue.touched_by(event.target), event.room):
            self._outward.cancel(tx, delivery)
        for delivery in self._containing(tx, event.target, event.room):
            self._outward.spoil(tx, delivery)
        message = tx.conversations.message_of_event(event.target)
        if message and message.role == "outward":
            self._left_already(tx, event, "", message.conversation)

    def _left_already(self, tx: Tx, event: RoomEvent, answers: str, conversation: int) -> None:
        post = Post(event.room, self._say("left-already"), notice=True, answers=answers, mentions=(event.sender,))
        self._places.post(tx, post, conversation)

    def _of_room(self, drafts: list[Delivery], room: str) -> list[Delivery]:
        """Events of another room are none of theirs, whatever a relation claims; of one before an upgrade they are."""
        now = self._places.successor(room)
        known = [(each, payload.load(Draft, each.payload).rooms) for each in drafts]
        return [each for each, rooms in known if now in map(self._places.successor, rooms)]

    def _containing(self, tx: Tx, part: str, room: str) -> list[Delivery]:
        """Drafts with words or files of that event, besides their own words."""
        found = self._of_room(tx.queue.made_of(part), room)
        return [each for each in found if part in payload.load(Draft, each.payload).parts]
