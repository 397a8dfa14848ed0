"""Acts on a conversation: answer outward, send, cancel, retry, show the original. Commands and reactions call them."""

from __future__ import annotations

import time
from dataclasses import replace

from bridge import payload
from bridge.connector import Connector
from bridge.model import Answered, Delivery, Draft, Recipients, Rejected, RoomEvent
from bridge.outward import Outward, Refusal
from bridge.payload import Post
from bridge.places import Places
from bridge.store import Conversation, Item, Message, Tx
from bridge.texts import Texts

OUTSIDE = ("inward", "automatic", "stranger")  # roles of messages that came from outside


class Acts:
    """What people can do with a conversation. Each method is a rule: it runs inside one transaction.

    All raise `Refusal` with a sentence for the person who asked.
    """

    def __init__(self, places: Places, outward: Outward, connectors: dict[str, Connector], say: Texts) -> None:
        self._places = places
        self._outward = outward
        self._connectors = connectors
        self._say = say

    # --- answering

    def reply(self, tx: Tx, event: RoomEvent, conversation: Conversation, text: str, html: str) -> None:
        """`!reply text`: the words are in the command itself."""
        if not text.strip():
            raise Refusal(self._say("nothing-to-say"))
        draft = self._draft(tx, event, conversation, event.answers)
        self._outward.ask(
            tx, replace(draft, text=text, html=html, room=event.room, source=event.id, trigger=event.id), conversation
        )

    def send_outward(self, tx: Tx, event: RoomEvent, conversation: Conversation) -> None:
        """📤 on one's own message: its words, or its file, are fetched before the preview."""
        if any(not payload.load(Draft, each.payload).whole for each in tx.queue.from_source(event.target)):
            return  # asked already: a repeated request does nothing
        message = tx.conversations.message_of_event(event.target)
        if message is not None and message.sender != event.sender:
            raise Refusal(self._say("not-yours", author=tx.people.name(message.sender)))
        if message is not None and message.role == "outward":
            return  # it has left
        draft = self._draft(tx, event, conversation, message.refs[0] if message and message.refs else "")
        self._outward.ask(tx, replace(draft, room=event.room, source=event.target, trigger=event.id), conversation)

    def _draft(self, tx: Tx, event: RoomEvent, conversation: Conversation, answers: str) -> Draft:
        """An empty draft to whom an answer goes: of the message that `answers` is, else the last from outside."""
        meant = self.meant(tx, answers, conversation)
        items = self.items(tx, conversation)
        if meant is None:  # a file or an alert that is linked, too, makes nobody choose
            items = [each for each in items if takes_words(self._connectors[each.connector])] or items
        item = self.item(self.live(items, meant), meant)
        answered = meant if meant and meant.role in OUTSIDE else None
        last = answered or tx.conversations.last_inward(conversation.id, item.id)
        if answered is None and (last is None or last.role == "automatic"):  # no person outside has written
            start = tx.conversations.start_of(conversation.id, item.id)
        else:
            start = None
        connector = self._connectors[item.connector]
        if start is not None:
            recipients = payload.load(Recipients, start.memo)
            last = tx.conversations.answerable(conversation.id, item.id)
        else:
            recipients = self._audience(connector, item, last)
        title = (last.title if last else start.title if start else "") or item.title
        return Draft(
            connector=item.connector, scope=item.scope, item=item.id, remote=item.remote,
            title=connector.title(title) if last or not start else title, author=event.sender,
            author_name=tx.people.name(event.sender), account=tx.people.account(event.sender, item.connector),
            recipients=recipients, answered=_answered(last, item) if last else None, asked=asked_at(event),
        )  # fmt: skip

    def meant(self, tx: Tx, answers: str, conversation: Conversation) -> Message | None:
        """The message of an item that a rich reply to the event `answers` points at: its card, something said in it.

        Raises `Refusal` for the card of an item that is only shown: it is none of those that could be meant.
        """
        message = tx.conversations.message_of_event(answers) if answers else None
        if message and message.role == "look":
            raise Refusal(self._say("only-shown", key=message.title))
        return message if message and message.conversation == conversation.id and message.item else None

    def items(self, tx: Tx, conversation: Conversation) -> list[Item]:
        """What the conversation has outside, as far as it is still configured."""
        return [item for item in tx.conversations.items_of(conversation.id) if item.connector in self._connectors]

    def live(self, items: list[Item], meant: Message | None) -> list[Item]:
        """Those of them that can be asked for anything. Raises `Refusal` when what is meant is out of reach."""
        chosen = [item for item in items if meant is None or item.id == meant.item]
        live = [item for item in chosen if not item.aside]
        if chosen and not live:
            item = chosen[0]
            why = {"outside": "aside-outside", "gone": "aside-gone"}[item.aside]
            raise Refusal(self._say(why, title=item.title or item.remote, connector=item.connector))
        return live

    def item(self, items: list[Item], meant: Message | None) -> Item:
        """The one of these that is meant. Raises `Refusal` when there is none, or when it is not clear which."""
        chosen = [item for item in items if meant is None or item.id == meant.item]
        if not chosen:
            raise Refusal(self._nobody())
        if len(chosen) > 1:
            raise Refusal(
                self._say("which-item", items="; ".join(f"{item.title} ({item.connector})" for item in chosen))
            )
        return chosen[0]

    def _nobody(self) -> str:
        starts = [f"!{each.command}" for each in self._connectors.values() if each.command]
        return self._say("nothing-outward", start=starts[0] if starts else "!help")

    def _audience(self, connector: Connector, item: Item, last: Message | None) -> Recipients:
        try:
            return connector.audience(item.scope, item.remote, _answered(last, item) if last else None)
        except Rejected as error:
            raise Refusal(self._say("cannot-answer", reason=error)) from None

    # --- what is on its way

    def send(self, tx: Tx, event: RoomEvent, conversation: Conversation) -> None:
        """`!send`: one's own drafts that are paused, or held, leave now (in a rich reply: that one)."""
        shown = [each for each in tx.queue.waiting(conversation.id, "paused", "held") if tx.queue.preview_of(each.uid)]
        waiting = self._selected(tx, event, shown)
        mine = [each for each in waiting if payload.load(Draft, each.payload).author == event.sender]
        if not mine:
            raise Refusal(self._not_sendable(tx, waiting))
        for delivery in mine:
            self._outward.send_now(tx, delivery)

    def _not_sendable(self, tx: Tx, waiting: list[Delivery]) -> str:
        if not waiting:
            return self._say("nothing-held")
        author = payload.load(Draft, waiting[0].payload).author
        return self._say("not-yours", author=tx.people.name(author))

    def cancel(self, tx: Tx, event: RoomEvent, conversation: Conversation) -> None:
        """`!cancel`: what waits to leave the conversation is stopped (in a rich reply: that message)."""
        waiting = self._selected(tx, event, tx.queue.stoppable(conversation.id))
        if not waiting:
            raise Refusal(self._say("nothing-held"))
        for delivery in waiting:
            self._outward.cancel(tx, delivery)

    def stop(self, tx: Tx, event: RoomEvent) -> None:
        """❌ on a held message, or on its preview."""
        for delivery in self._touched(tx, event.target):
            self._outward.cancel(tx, delivery)

    def _touched(self, tx: Tx, event: str) -> list[Delivery]:
        """Drafts whose words, request or preview is that event, or an earlier preview."""
        touched = tx.queue.touched_by(event)
        message = tx.conversations.message_of_event(event)
        shown = tx.queue.get(message.memo) if message and message.role == "bot" and not touched else None
        return [shown] if shown else touched

    def _selected(self, tx: Tx, event: RoomEvent, waiting: list[Delivery]) -> list[Delivery]:
        """Those of `waiting` that a rich reply points at; all, when it points at none of them."""
        touched = {each.uid for each in self._touched(tx, event.answers)} if event.answers else set()
        return [each for each in waiting if each.uid in touched] or waiting

    def retry(self, tx: Tx, event: RoomEvent, conversation: Conversation) -> None:
        """`!retry`: dead letters of the conversation. What leaves the company is asked again first, by its author."""
        dead = tx.queue.waiting(conversation.id, "dead")
        authors = {each.uid: payload.load(Draft, each.payload).author for each in dead if each.kind == "draft"}
        mine = [each for each in dead if authors.get(each.uid, event.sender) == event.sender]
        if not dead:
            raise Refusal(self._say("nothing-failed"))
        if not mine:
            raise Refusal(self._say("not-yours", author=tx.people.name(authors[dead[0].uid])))
        for delivery in mine:
            self.replay(tx, delivery)
        self.answer(tx, event, conversation, self._say("retrying", count=len(mine)))

    def replay(self, tx: Tx, delivery: Delivery) -> None:
        """A dead letter goes to the end of its lane; a draft is asked again."""
        if delivery.kind == "draft":
            self._outward.retry(tx, delivery)
        else:
            tx.queue.move(delivery.uid, "ready")

    # --- reading

    def original(self, tx: Tx, event: RoomEvent, conversation: Conversation) -> None:
        """`!original`: the message as it came, as a file in the thread."""
        meant = tx.conversations.message_of_event(event.answers) if event.answers else None
        if meant is None or meant.conversation != conversation.id or not meant.original:
            meant = None
        message = meant or tx.conversations.last_original(conversation.id)
        if message is None:
            raise Refusal(self._say("no-original"))
        file = payload.load_file(message.original)
        post = Post(conversation.room, file.name, file=file, notice=True, answers=event.id)
        self._places.post(tx, post, conversation.id)

    def answer(self, tx: Tx, event: RoomEvent, conversation: Conversation | None, body: str) -> None:
        """What the bot says to somebody who asked for something."""
        answers = event.target if event.type == "m.reaction" else event.id
        post = Post(event.room, body, notice=True, answers=answers)
        self._places.post(tx, post, conversation.id if conversation else None)


def takes_words(connector: Connector) -> bool:
    """Whether anything can be said to its items: an alert or a file takes no words."""
    return type(connector).send is not Connector.send


def asked_at(event: RoomEvent) -> float:
    """When somebody asked: perhaps long before we hear of it."""
    return min(time.time(), event.when or time.time())


def _answered(message: Message, item: Item) -> Answered:
    return Answered(message.remote, message.refs, message.title, message.memo, message.sender, item.scope)
