"""What is heard in rooms: each Matrix event is written down once, found its conversation, and acted on if it asks."""

from __future__ import annotations

from bridge import payload
from bridge.commands import CANCEL, SEND, Commands
from bridge.commands.parse import command_of
from bridge.commands.start import thread_of
from bridge.config import Config
from bridge.model import Delivery, Draft, RoomEvent
from bridge.outward import Outward
from bridge.payload import Enter, Locate, Post, Preview
from bridge.places import Places
from bridge.store import Conversation, Tx
from bridge.texts import Texts

MESSAGES = {"m.room.message", "m.sticker"}


class Hearing:
    """The rules for events of rooms. `hear` is a rule: it runs inside one transaction."""

    def __init__(self, config: Config, places: Places, commands: Commands, outward: Outward, say: Texts) -> None:
        self._config = config
        self._places = places
        self._commands = commands
        self._outward = outward
        self._say = say

    def hear(self, tx: Tx, event: RoomEvent) -> bool:
        """Take note of an event; False when it was heard before, or is our own."""
        if self._config.is_ours(event.sender):
            self._came_back(tx, event)
            return False
        if not tx.conversations.first_time(event.id):
            return False
        self.understand(tx, event)
        return True

    def matters(self, event: RoomEvent) -> bool:
        """Whether it must be heard at all; of our own events only those that people may answer."""
        return not self._config.is_ours(event.sender) or (event.type == "m.room.message" and bool(event.delivery))

    def _came_back(self, tx: Tx, event: RoomEvent) -> None:
        """Our own event, perhaps of a delivery not crossed out yet: people may have answered it before we note it."""
        delivery = tx.queue.get(event.delivery) if event.delivery else None
        if delivery is None or not delivery.conversation:
            return
        if delivery.kind == "post" and (number := payload.load(Post, delivery.payload).message):
            tx.conversations.in_matrix(number, event.id)
        if delivery.kind == "preview":
            tx.queue.previewed(payload.load(Preview, delivery.payload).draft, event.id)
        if delivery.kind in ("post", "preview", "card"):
            tx.conversations.shown(delivery.conversation, event.id)

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
        elif event.type == "m.room.power_levels":
            if event.room in self._places.mapped():
                self._places.check_rights(tx, event.room)
        elif event.type == "m.room.encryption":
            tx.people.is_encrypted(event.room)
            self._places.encrypted.add(event.room)
            self._places.post(tx, Post(event.room, self._say("encrypted"), notice=True))
            self._places.tell_operators(tx, self._say("encrypted") + f" ({self._places.name(event.room)})")

    def _said(self, tx: Tx, event: RoomEvent) -> None:
        conversation = self._conversation(tx, event)
        command = command_of(event)
        if conversation is not None:
            self._note(tx, conversation, event)
            tx.conversations.shown(conversation.id, event.id)
        if command is not None:
            self._commands.obey(tx, event, command, conversation)
        elif event.msgtype == "m.text":
            self._commands.pasted(tx, event, conversation)

    def _note(self, tx: Tx, conversation: Conversation, event: RoomEvent) -> None:
        refs = (event.answers,) if event.answers else ()  # whom it answers, should it be sent with 📤
        tx.conversations.add_message(conversation.id, "internal", event.sender, refs=refs, event=event.id)

    def _member(self, tx: Tx, event: RoomEvent, mxid: str) -> None:
        if mxid == self._config.bot_mxid:
            if event.membership == "invite" and self._config.is_inside(event.sender):
                self._places.post(tx, Enter(event.room, event.sender))
            elif event.membership in ("leave", "ban"):
                tx.people.left(mxid, event.room)
                self._places.tell_operators(tx, self._say("kicked", room=self._places.name(event.room)))
        elif event.membership == "join":
            tx.people.named(mxid, event.name or mxid[1:].partition(":")[0])

    def _conversation(self, tx: Tx, event: RoomEvent) -> Conversation | None:
        """The conversation whose thread it is in, or whose message it answers; of this room only."""
        found = tx.conversations.of_root(event.thread) if event.thread else None
        found = found or (tx.conversations.of_event(event.answers) if event.answers else None)
        return found if found and found.room == event.room else None

    def _edited(self, tx: Tx, event: RoomEvent) -> None:
        """Only the author's edit counts, and only of what is on its way outward, has left, or began something."""
        waiting = _of_room(tx.queue.from_source(event.replaces), event.room)
        for delivery in waiting:
            self._commands.edited(tx, event, delivery)
        if not waiting:
            self._commands.corrected(tx, event)
        for delivery in _containing(tx, event.replaces, event.room):
            self._outward.spoil(tx, delivery)
        message = tx.conversations.message_of_event(event.replaces)
        if message and message.role == "outward" and message.sender == event.sender:
            self._left_already(tx, event, event.replaces, message.conversation)

    def _reacted(self, tx: Tx, event: RoomEvent) -> None:
        conversation = tx.conversations.of_event(event.target)
        touched = tx.queue.touched_by(event.target)
        if conversation is None and touched and touched[0].conversation:
            conversation = tx.conversations.get(touched[0].conversation)
        wanted = self._commands.asks(event.key) and event.key != CANCEL
        if conversation is None and wanted and self._config.is_inside(event.sender):
            self._places.post(tx, Locate(event.room, event))
        elif conversation is not None and conversation.room == event.room:
            self._commands.react(tx, event, conversation)

    def located(self, tx: Tx, request: RoomEvent, event: RoomEvent) -> None:
        """The message that a request is on was written before its thread became a conversation, or begins one."""
        conversation = tx.conversations.of_root(event.thread or event.id) or tx.conversations.of_event(event.id)
        if conversation is None and request.key != SEND and request.room == event.room:
            conversation = thread_of(tx, event, event.body[:80], self._say)
        taken_back = tx.conversations.taken_back(request.id)
        if conversation is not None and conversation.room == request.room == event.room and not taken_back:
            if tx.conversations.message_of_event(event.id) is None:
                self._note(tx, conversation, event)
            self._commands.react(tx, request, conversation)

    def _redacted(self, tx: Tx, event: RoomEvent) -> None:
        """Taking back the words, or the request to send them, stops what has not left."""
        tx.conversations.take_back(event.target)
        for delivery in _of_room(tx.queue.touched_by(event.target), event.room):
            self._outward.cancel(tx, delivery)
        for delivery in _containing(tx, event.target, event.room):
            self._outward.spoil(tx, delivery)
        message = tx.conversations.message_of_event(event.target)
        if message and message.role == "outward":
            self._left_already(tx, event, "", message.conversation)

    def _left_already(self, tx: Tx, event: RoomEvent, answers: str, conversation: int) -> None:
        post = Post(event.room, self._say("left-already"), notice=True, answers=answers, mentions=(event.sender,))
        self._places.post(tx, post, conversation)


def _of_room(drafts: list[Delivery], room: str) -> list[Delivery]:
    """Events of another room are none of theirs, whatever a relation claims."""
    return [each for each in drafts if payload.load(Draft, each.payload).room == room]


def _containing(tx: Tx, part: str, room: str) -> list[Delivery]:
    """Drafts with words or files of that event, besides their own words."""
    return [each for each in _of_room(tx.queue.made_of(part), room) if part in payload.load(Draft, each.payload).parts]
