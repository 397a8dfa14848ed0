"""What people can type, and the reactions that mean the same: each calls one typed act."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from bridge import payload
from bridge.commands.accounts import Accounts
from bridge.commands.acts import Acts
from bridge.commands.find import Finds
from bridge.commands.items import ItemActs
from bridge.commands.maps import WORDS, Maps
from bridge.commands.parse import Command, command_of
from bridge.commands.rooms import RoomActs
from bridge.commands.start import Starts
from bridge.model import Delivery, Draft, RoomEvent
from bridge.outward import Outward, Refusal
from bridge.permissions import Permits
from bridge.restored import ONCE, typed_before
from bridge.store import Conversation, Tx
from bridge.texts import Texts

Act = Callable[[Tx, RoomEvent, Conversation], None]
Anywhere = Callable[[Tx, RoomEvent, Command, Conversation | None], None]

SEND, CANCEL = "📤", "❌"  # as `RoomEvent.key` has them, without U+FE0F


class Commands:
    """The words the bot obeys, and from whom. Each method is a rule: it runs inside one transaction."""

    def __init__(
        self, permits: Permits, acts: Acts, starts: Starts, items: ItemActs, finds: Finds, accounts: Accounts,
        maps: Maps, rooms: RoomActs, outward: Outward, say: Texts,
    ) -> None:  # fmt: skip
        self._permits = permits
        self._items = items
        self._anywhere: dict[str, Anywhere] = {"room": rooms.room, "find": finds.find, "me": accounts.me}
        self._maps = maps
        self._rooms = rooms
        self._outward = outward
        self._acts = acts
        self._starts = starts
        self._say = say
        self._in_thread: dict[str, Act] = {
            "send": acts.send,
            "cancel": acts.cancel,
            "retry": acts.retry,
            "original": acts.original,
        }

    def words(self) -> list[str]:
        """Every command, for help and for the docs."""
        words = {"help", "reply", *WORDS, *self._anywhere, *self._in_thread}
        return sorted({*words, *self._starts.words(), *self._items.words()})

    def obey(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """Do what was asked, or say why not and what to type instead."""
        if command.name not in self.words() and conversation is None:
            return  # elsewhere in the room "!word" may be meant for another bot
        try:
            self._permitted(event.sender, command.name)
            self._dispatch(tx, event, command, conversation)
        except Refusal as refusal:
            self._acts.answer(tx, event, conversation, str(refusal))

    def _dispatch(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        once = command.name in ONCE or command.name in self._items.changes()
        if once and (why := typed_before(tx, self._say, event)):
            raise Refusal(why)
        if command.name == "help":
            self._acts.answer(tx, event, conversation, self.help(event.sender))
        elif command.name in WORDS:
            self._maps.obey(tx, event, command, conversation)
        elif command.name in self._anywhere:
            self._anywhere[command.name](tx, event, command, conversation)
        elif command.name in self._starts.words():
            self._starts.start(tx, event, command, conversation)
        elif command.name in self._items.words():
            self._items.obey(tx, event, command, conversation)
        elif command.name not in self.words():
            raise Refusal(self._say("unknown-command", command=command.name))
        elif conversation is None:
            raise Refusal(self._say("not-a-conversation", command=command.name))
        elif command.name == "reply":
            self._acts.reply(tx, event, conversation, command.rest, command.html)
        else:
            self._in_thread[command.name](tx, event, conversation)

    def dropped(self, tx: Tx, uid: str) -> None:
        """What somebody has said or done here is why that draft does not leave."""
        self._rooms.dropped(tx, uid)

    def may_use(self, mxid: str) -> bool:
        """Whether somebody may ask for anything at all, as permissions are now."""
        return self._permits.may(mxid, "reply")

    def react(self, tx: Tx, event: RoomEvent, conversation: Conversation) -> None:
        """A reaction that asks for something; any other is just a reaction."""
        if not self.asks(event.key) or not self._permits.may(event.sender, "help"):
            return  # a guest's reaction is just a reaction, too
        try:
            self._permitted(event.sender, self._word_of(event.key))
            if event.key == SEND:
                self._acts.send_outward(tx, event, conversation)
            elif event.key == CANCEL:
                self._acts.stop(tx, event)
            else:
                self._starts.react(tx, event, self._starts.word_of(event.key), conversation)
        except Refusal as refusal:
            self._acts.answer(tx, event, conversation, str(refusal))

    def asks(self, key: str) -> bool:
        """Whether a reaction asks for something."""
        return key in (SEND, CANCEL) or bool(self._starts.word_of(key))

    def _word_of(self, key: str) -> str:
        """The command that a reaction means."""
        return {SEND: "reply", CANCEL: "cancel"}.get(key) or self._starts.word_of(key)

    def pasted(self, tx: Tx, event: RoomEvent, conversation: Conversation | None) -> None:
        """What somebody of the company says may name items of tools."""
        if self._permits.may(event.sender, "link"):
            with contextlib.suppress(Refusal):  # nothing was asked for
                self._items.pasted(tx, event, conversation)

    def edited(self, tx: Tx, event: RoomEvent, delivery: Delivery) -> None:
        """The author changed words that are on their way outward: the change goes with them, or they stay."""
        draft = payload.load(Draft, delivery.payload)
        if draft.author != event.sender:
            return  # homeservers accept such an edit and clients do not show it
        answers = draft.history.only if draft.history and draft.trigger == draft.source else ""  # an edit does not say
        again = replace(event, id=event.replaces, replaces="", answers=answers)
        command = command_of(again)
        changed = _changed(draft, event, command)
        try:
            if changed is not None:
                self._outward.edit(tx, delivery, changed)
                return
        except Refusal as refusal:
            self._acts.answer(tx, again, tx.conversations.get(delivery.conversation or 0), str(refusal))
            command = None
        if self._outward.cancel(tx, delivery) and command is not None and delivery.conversation:
            self.obey(tx, again, command, tx.conversations.get(delivery.conversation))

    def corrected(self, tx: Tx, event: RoomEvent) -> None:
        """The author changed a command that has begun something, but nothing has left yet: it begins as it says now."""
        again = replace(event, id=event.replaces, replaces="")
        command = command_of(again)
        if command is not None and command.name in self._starts.words():
            conversation = self._starts.begun(tx, again, command.name)
            if conversation is not None:
                self.obey(tx, again, command, conversation)

    def help(self, sender: str) -> str:
        """What this person can type, a line each."""
        lines = {"reply": self._say("help-reply")}
        for word, usage in self._starts.usages().items():
            lines[word] = self._say("help-start", command=word, usage=usage)
        for word, usage in self._items.changes().items():
            lines[word] = self._say("help-change", word=word, usage=usage)
        for word in (*self._in_thread, "link", "unlink", *self._anywhere, *WORDS, "help"):
            lines[word] = self._say(f"help-{word}")
        mine = [line for word, line in lines.items() if self._permits.may(sender, word)]
        return "\n".join([self._say("help"), *mine, self._say("help-inside")])

    def _permitted(self, sender: str, word: str) -> None:
        if why := self._permits.why_not(sender, word):
            raise Refusal(why)


def _changed(draft: Draft, event: RoomEvent, command: Command | None) -> Draft | None:
    """The draft as an edit of its source makes it; None when nothing is to leave any more, or something else."""
    draft = replace(draft, parts=(*draft.parts, event.id))
    if draft.history and draft.trigger != draft.source:  # somebody's message, whole: read yet, or still to be read
        return None if draft.transcript else draft
    if draft.trigger == draft.source:  # a command
        kept = command is not None and command.name == "reply" and command.rest
        return replace(draft, text=command.rest, html=command.html) if command and kept else None
    joined = draft.files if draft.text else draft.files[1:]  # other messages' files; the first may be its own
    if event.file is not None:
        return replace(draft, text="", html="", files=(event.file, *joined))
    return replace(draft, text=event.body, html=event.html, files=joined) if event.body.strip() else None
