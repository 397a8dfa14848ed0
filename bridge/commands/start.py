"""Beginning something with people outside from a thread or a room: `!mail someone@outside.example Subject`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bridge import payload
from bridge.commands.acts import asked_at
from bridge.commands.parse import Command
from bridge.connector import Connector
from bridge.model import Draft, Recipients, Rejected, RoomEvent
from bridge.outward import Outward, Refusal, beginning, everyone
from bridge.payload import Post
from bridge.places import Places
from bridge.store import Conversation, Tx
from bridge.texts import Texts

_FROM = re.compile(r"\A(from|de)\s+(\S+)\s*", re.IGNORECASE)
_HISTORY = re.compile(r"\A(with history|avec historique)\b\s*(\d{1,3}\b)?\s*", re.IGNORECASE)
_RECIPIENT = re.compile(
    r"\A((?:to|cc):|(?:\"[^\"\n]{0,100}\"\s*)?<[^<>\s]{3,254}>|[^\s,;<>]{1,64}@[^\s,;<>]{1,255})\s*[,;]?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody typed after the command, taken apart."""

    scope: str
    recipients: tuple[str, ...]
    history: str  # "", "thread", or how many messages
    title: str


def read(line: str) -> Request:
    """Take the first line of the command apart: [from scope] recipients [with history [n]] title."""
    scope, history, recipients = "", "", []
    if match := _FROM.match(line):
        scope, line = match[2].lower(), line[match.end() :]
    while match := _RECIPIENT.match(line):
        recipients.append(match[1])
        line = line[match.end() :]
    if match := _HISTORY.match(line):
        history, line = match[2] or "thread", line[match.end() :]
    return Request(scope, tuple(recipients), history, line.strip()[:300])


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

    def start(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """Tie the thread to people outside; with a text, or with history, ask to send it. Raises `Refusal`."""
        request = read(command.first_line)
        connector, scope = self._scope(event.room, command.name, request.scope)
        recipients = self._recipients(connector, request, command.name)
        in_thread = bool(event.thread) or conversation is not None
        if request.history == "thread" and not in_thread:
            raise Refusal(self._say("history-needs-thread"))
        draft = self._draft(tx, event, connector.name, scope, recipients, request)
        self._outward.check(draft)  # before anything is written down
        conversation = conversation or self._conversation(tx, event, request.title)
        if request.history and in_thread:
            count = request.history.removeprefix("thread")
            draft = replace(draft, history=f"{conversation.root or event.thread}/{count}")
        begun = beginning(event.id)
        item = tx.conversations.item_named(connector.name, begun) or tx.conversations.add_item(
            connector.name, begun, request.title
        )
        tx.conversations.dismiss(item)  # an edited command may name other people
        tx.conversations.link(conversation.id, item, scope)
        tx.conversations.admit(item, (address.account for address in recipients.all))
        tx.conversations.add_message(
            conversation.id, "start", event.sender, item=item, title=request.title, memo=payload.dump(recipients)
        )
        if command.following or request.history:
            self._outward.ask(tx, replace(draft, item=item, text=command.following), conversation)
        else:
            body = self._say("started", to=everyone(recipients), scope=scope)
            self._places.post(tx, Post(event.room, body, notice=True, answers=event.id), conversation.id)

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

    def _scope(self, room: str, word: str, wanted: str) -> tuple[Connector, str]:
        offered = [
            (self._connectors[mapping.connector], mapping.scope)
            for mapping in self._places.mappings_of(room)
            if self._connectors[mapping.connector].command == word
        ]
        chosen = [pair for pair in offered if wanted in ("", pair[1])]
        if not offered:
            raise Refusal(self._say("no-scope", command=word))
        if len(chosen) != 1:
            scopes = [scope for _, scope in offered]
            raise Refusal(self._say("which-scope", scopes=", ".join(scopes), command=word, example=scopes[0]))
        return chosen[0]

    def _recipients(self, connector: Connector, request: Request, word: str) -> Recipients:
        try:
            return connector.recipients(request.recipients)
        except Rejected as error:
            raise Refusal(self._say("start-usage", command=word, reason=error)) from None

    def _conversation(self, tx: Tx, event: RoomEvent, title: str) -> Conversation:
        """The thread the command is in, else one that begins with the command itself."""
        if event.thread and tx.conversations.of_root(event.thread):  # only a forged relation points into another room
            raise Refusal(self._say("thread-elsewhere"))
        conversation = tx.conversations.add(event.room, title, event.thread or event.id)
        tx.conversations.shown(conversation.id, event.id)
        return conversation

    def _draft(
        self, tx: Tx, event: RoomEvent, connector: str, scope: str, recipients: Recipients, request: Request
    ) -> Draft:
        return Draft(
            connector=connector, scope=scope, item=0, title=request.title, author=event.sender,
            author_name=tx.people.name(event.sender), recipients=recipients, room=event.room, source=event.id,
            trigger=event.id, asked=asked_at(event), history=request.history,
        )  # fmt: skip
