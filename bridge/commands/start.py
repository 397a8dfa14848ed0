"""Beginning something in a tool from a thread, a room or a single message: each connector has its own word for it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from bridge import payload
from bridge.commands.acts import asked_at
from bridge.commands.parse import Command
from bridge.connector import Connector
from bridge.model import Draft, History, Rejected, RoomEvent
from bridge.outward import Outward, Refusal, beginning, everyone
from bridge.payload import Post
from bridge.places import Places, link
from bridge.store import Conversation, Tx
from bridge.text.plain import one_line
from bridge.texts import Texts

_FROM = re.compile(r"\A(from|de)\s+(\S+)\s*", re.IGNORECASE)
_AGAIN = re.compile(r"\A(again|encore)\b\s*", re.IGNORECASE)
_HISTORY = re.compile(r"\A(with history|avec historique)\b\s*(\d{1,3}\b)?\s*", re.IGNORECASE)
_RECIPIENT = re.compile(
    r"\A((?:to|cc):|(?:\"[^\"\n]{0,100}\"\s*)?<[^<>\s]{3,254}>|[^\s,;<>]{1,64}@[^\s,;<>]{1,255})\s*[,;]?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody typed after the command, taken apart."""

    scope: str
    again: bool  # although there is one already
    recipients: tuple[str, ...]
    history: str  # "", "thread", or how many messages
    title: str


def read(line: str, offered: Collection[str] = (), *, addressed: bool = True) -> Request:
    """Take the first line of the command apart: [from scope] [again] recipients [with history [n]] title.

    "from" may be left out before one of the scopes `offered`.
    """
    scope, history, recipients = "", "", []
    first = line.partition(" ")[0]
    if match := _FROM.match(line):
        scope, line = match[2].lower(), line[match.end() :]
    elif first.lower() in offered:
        scope, line = first.lower(), line[len(first) :].lstrip()
    again = _AGAIN.match(line)
    line = line[again.end() :] if again else line
    while addressed and (match := _RECIPIENT.match(line)):
        recipients.append(match[1])
        line = line[match.end() :]
    if match := _HISTORY.match(line):
        history, line = match[2] or "thread", line[match.end() :]
    return Request(scope, again is not None, tuple(recipients), history, line.strip()[:300])


class Starts:
    """The rule behind every connector's own command that begins something outside."""

    def __init__(self, places: Places, outward: Outward, connectors: dict[str, Connector], say: Texts) -> None:
        self._places = places
        self._outward = outward
        self._connectors = connectors
        self._say = say

    def words(self) -> set[str]:
        """The commands that begin something, as the connectors name them."""
        return {connector.command for connector in self._connectors.values() if connector.command}

    def usages(self) -> dict[str, str]:
        """What to type after each."""
        return {each.command: each.usage for each in self._connectors.values() if each.command}

    def word_of(self, reaction: str) -> str:
        """The command that a reaction means, "" when it means none."""
        known = ((each.reaction.replace("\ufe0f", ""), each.command) for each in self._connectors.values())
        return next((command for key, command in known if key == reaction), "")  # as `RoomEvent.key` has it

    def start(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """Begin what was typed; with a text, or with history, ask to send it. Raises `Refusal`."""
        offered = self._offered(event.room, command.name)
        names = {name for connector, scope in offered for name in (connector.name, scope)}
        addressed = any(connector.addressed for connector, _ in offered)
        request = read(command.first_line, () if addressed else names, addressed=addressed)
        connector, scope = self._chosen(offered, command.name, request.scope)
        if connector.addressed:
            self._write_to(tx, event, command, conversation, connector, scope, request)
        else:
            self._make(tx, event, command, conversation, connector, scope, request)

    def react(self, tx: Tx, event: RoomEvent, word: str, conversation: Conversation) -> None:
        """A reaction on a message: the same for that message. Raises `Refusal`."""
        if any(payload.load(Draft, each.payload).whole for each in tx.queue.from_source(event.target)):
            return  # asked already
        offered = self._offered(event.room, word)
        if not offered:
            return  # where it can mean nothing it is just a reaction
        connector, scope = self._chosen(offered, word, "")
        self._once(tx, conversation, connector)
        draft = self._draft(tx, event, connector, scope, Request("", False, (), "", conversation.title))
        history = History(only=event.target, files=True)
        draft = replace(draft, source=event.target, history=history, link=link(event.room, event.target))
        self._ask(tx, draft, conversation)

    # --- somebody new to write to

    def _write_to(
        self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None, connector: Connector,
        scope: str, request: Request,
    ) -> None:  # fmt: skip
        root, whole = self._thread(event, conversation)
        if request.history == "thread" and not (root or whole):
            raise Refusal(self._say("history-needs-thread"))
        draft = self._draft(tx, event, connector, scope, request)
        self._outward.check(draft)  # before anything is written down
        conversation = conversation or thread_of(tx, event, request.title, self._say)
        if request.history:
            draft = replace(draft, history=History(root, int(request.history.removeprefix("thread") or 0), whole=whole))
        item = self._begun(tx, draft, conversation)
        tx.conversations.dismiss(item)  # an edited command may name other people
        tx.conversations.admit(item, (address.account for address in draft.recipients.all))
        tx.conversations.add_message(
            conversation.id, "start", event.sender, item=item, title=request.title, memo=payload.dump(draft.recipients)
        )
        if command.following or request.history:
            self._outward.ask(tx, replace(draft, item=item, text=command.following), conversation)
        else:
            body = self._say("started", to=everyone(draft.recipients), scope=scope)
            self._places.post(tx, Post(event.room, body, notice=True, answers=event.id), conversation.id)

    # --- something new to make

    def _make(
        self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None, connector: Connector,
        scope: str, request: Request,
    ) -> None:  # fmt: skip
        """Of the text that follows, else of the message it answers, else of the thread."""
        wanted = request.history or not command.following
        history = self._about(event, conversation, request) if wanted else None
        if not command.following and history is None:
            raise Refusal(self._say("make-usage", command=command.name))
        conversation = conversation or thread_of(tx, event, request.title, self._say)
        if not request.again:
            self._once(tx, conversation, connector)
        about = event.answers or conversation.root or event.id
        title = request.title or conversation.title or command.following.partition("\n")[0][:80]
        draft = self._draft(tx, event, connector, scope, replace(request, title=title))
        draft = replace(draft, text=command.following, history=history, link=link(event.room, about))
        self._ask(tx, draft, conversation)

    def _about(self, event: RoomEvent, conversation: Conversation | None, request: Request) -> History | None:
        if event.answers and not request.history:
            return History(only=event.answers, files=True)
        root, whole = self._thread(event, conversation)
        last = int(request.history.removeprefix("thread") or 0)
        return History(root, last, files=True, whole=whole) if root or whole or last else None

    def _once(self, tx: Tx, conversation: Conversation, connector: Connector) -> None:
        made = [item for item in tx.conversations.items_of(conversation.id) if item.connector == connector.name]
        if made and not connector.many:
            raise Refusal(self._say("made-already", title=made[0].title, command=connector.command))

    def _ask(self, tx: Tx, draft: Draft, conversation: Conversation) -> None:
        self._outward.check(draft)
        self._outward.ask(tx, replace(draft, item=self._begun(tx, draft, conversation)), conversation)

    # --- what they share

    def _thread(self, event: RoomEvent, conversation: Conversation | None) -> tuple[str, bool]:
        """The thread it is said in, "" in the room: also when it is the command itself that a thread began with. And
        whether the whole room is one conversation.
        """
        if self._places.is_own(event.room):
            return "", True
        root = (conversation.root if conversation else "") or event.thread
        return ("" if root == event.id else root), False

    def begun(self, tx: Tx, event: RoomEvent, word: str) -> Conversation | None:
        """The conversation that this person's command has begun outside and in which nothing was said there yet."""
        for connector in (each for each in self._connectors.values() if each.command == word):
            item = tx.conversations.item_named(connector.name, beginning(event.id))
            conversation = tx.conversations.of_item(item, event.room) if item is not None else None
            if item is None or conversation is None or tx.conversations.answerable(conversation.id, item):
                continue
            start = tx.conversations.start_of(conversation.id, item)
            if start is not None and start.sender == event.sender:
                return conversation
        return None

    def _begun(self, tx: Tx, draft: Draft, conversation: Conversation) -> int:
        """Our number of the item, under the name it has until the tool gives it another."""
        item = tx.conversations.item_named(draft.connector, draft.remote)
        item = tx.conversations.add_item(draft.connector, draft.remote, draft.title) if item is None else item
        tx.conversations.link(conversation.id, item, draft.scope)
        return item

    def _offered(self, room: str, word: str) -> list[tuple[Connector, str]]:
        """The connectors of that word whose scopes are mapped here."""
        mapped = ((self._connectors[each.connector], each.scope) for each in self._places.mappings_of(room))
        return list(dict.fromkeys((connector, scope) for connector, scope in mapped if connector.command == word))

    def _chosen(self, offered: list[tuple[Connector, str]], word: str, wanted: str) -> tuple[Connector, str]:
        if not offered:
            raise Refusal(self._say("no-scope", command=word))
        chosen = [(each, scope) for each, scope in offered if wanted in ("", scope.lower(), each.name.lower())]
        if len(chosen) != 1:
            scopes = [scope for _, scope in offered]
            raise Refusal(self._say("which-scope", scopes=", ".join(scopes), command=word, example=scopes[0]))
        return chosen[0]

    def _draft(self, tx: Tx, event: RoomEvent, connector: Connector, scope: str, request: Request) -> Draft:
        try:
            recipients = connector.recipients(request.recipients)
        except Rejected as error:
            usage = self._say("start-usage", command=connector.command, usage=connector.usage, reason=error)
            raise Refusal(usage) from None
        return Draft(
            connector=connector.name, scope=scope, item=0, title=one_line(request.title)[:300], author=event.sender,
            author_name=tx.people.name(event.sender), recipients=recipients, remote=beginning(event.id),
            account=tx.people.account(event.sender, connector.name), room=event.room, source=event.id,
            trigger=event.id, asked=asked_at(event),
        )  # fmt: skip


def thread_of(tx: Tx, event: RoomEvent, title: str, say: Texts) -> Conversation:
    """A conversation in the thread the event is in, else in one that begins with it."""
    if event.thread and tx.conversations.of_root(event.thread):  # only a forged relation points into another room
        raise Refusal(say("thread-elsewhere"))
    conversation = tx.conversations.add(event.room, title, event.thread or event.id)
    tx.conversations.shown(conversation.id, event.id)
    return conversation
