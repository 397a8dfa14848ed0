"""Acts on items that tools have names for: follow and leave them, change them, and whose accounts are whose."""

from __future__ import annotations

from collections.abc import Callable

from bridge import payload
from bridge.commands.acts import Acts
from bridge.commands.parse import Command
from bridge.commands.start import thread_of
from bridge.connector import Connector
from bridge.items import Items
from bridge.model import Change, RoomEvent
from bridge.outward import Refusal
from bridge.payload import Alter, Look
from bridge.places import Places
from bridge.store import Conversation, Item, Tx
from bridge.texts import Texts

MOST_CARDS = 3  # for the keys and addresses in one message
_AROUND = ".,;:!?()<>[]{}\"'«»"

ItemAct = Callable[[Tx, RoomEvent, Command, Conversation | None], None]


class ItemActs:
    """Each method is a rule: it runs inside one transaction. All raise `Refusal` with a sentence for who asked."""

    def __init__(self, places: Places, acts: Acts, items: Items, connectors: dict[str, Connector], say: Texts) -> None:
        self._places = places
        self._acts = acts
        self._items = items
        self._connectors = connectors
        self._say = say
        self._acts_of: dict[str, ItemAct] = {"link": self._link, "unlink": self._unlink, "me": self._me}

    def changes(self) -> dict[str, str]:
        """The tools' own words that change an item, and what to type after each."""
        return {word: usage for each in self._connectors.values() for word, usage in each.words.items()}

    def words(self) -> set[str]:
        """The commands that these acts answer to."""
        return {*self._acts_of, *self.changes()}

    def obey(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """Do what was asked. Raises `Refusal`."""
        self._acts_of.get(command.name, self._change)(tx, event, command, conversation)

    # --- following

    def _link(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!link KEY`: from now on the thread hears of that item, and can be sent to it."""
        found = self._named(event.room, command.first_line)
        if found is None:
            raise Refusal(self._say("link-usage", text=command.first_line or "…"))
        conversation = conversation or thread_of(tx, event, command.first_line, self._say)
        self._look(tx, event, conversation, *found, follow=True)

    def pasted(self, tx: Tx, event: RoomEvent, conversation: Conversation | None) -> None:
        """Keys and addresses of items in what somebody says: their cards are shown, once each."""
        followed = {item.remote for item in tx.conversations.items_of(conversation.id)} if conversation else set()
        named = {found: None for word in event.body.split()[:200] if (found := self._named(event.room, word))}
        wanted = [found for found in named if found[1] not in followed][:MOST_CARDS]
        for connector, remote, scope in wanted:
            conversation = conversation or thread_of(tx, event, event.body[:80], self._say)
            self._look(tx, event, conversation, connector, remote, scope, follow=False)

    def _named(self, room: str, text: str) -> tuple[Connector, str, str] | None:
        """(connector, the tool's name of the item, scope) of a key or URL, where this room may see that tool."""
        for mapping in self._places.mappings_of(room):
            connector = self._connectors[mapping.connector]
            if remote := connector.match(text.strip(_AROUND)[:2000]):
                return connector, remote, mapping.scope
        return None

    def _look(
        self, tx: Tx, event: RoomEvent, conversation: Conversation, connector: Connector, remote: str, scope: str,
        *, follow: bool,
    ) -> None:  # fmt: skip
        look = Look(event.room, remote, scope, event.id, follow)
        _enqueue(tx, connector, conversation, look)

    def _unlink(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!unlink [KEY]`: the thread no longer hears of that item."""
        conversation = self._in_thread(command, conversation)
        found = self._named(event.room, command.first_line)
        if command.first_line and found is None:
            raise Refusal(self._say("link-usage", text=command.first_line))
        items = [
            item
            for item in tx.conversations.items_of(conversation.id)
            if self._is_named(item) and (found is None or (item.connector, item.remote) == (found[0].name, found[1]))
        ]
        if not items:
            raise Refusal(self._say("not-linked"))
        item = self._acts.item(items, self._acts.meant(tx, event.answers, conversation))
        tx.conversations.unlink(conversation.id, item.id)
        self._acts.answer(tx, event, conversation, self._say("unlinked", title=item.title))

    def _is_named(self, item: Item) -> bool:
        return self._connectors[item.connector].match(item.remote) == item.remote

    # --- changing

    def _change(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!state resolved`: the tool is asked to change the item, and says how it stands then."""
        conversation = self._in_thread(command, conversation)
        items = [
            item
            for item in tx.conversations.items_of(conversation.id)
            if command.name in self._connectors[item.connector].words
        ]
        if not items:
            raise Refusal(self._say("not-linked"))
        if not command.first_line:
            raise Refusal(self._say("change-usage", word=command.name, usage=self.changes()[command.name]))
        item = self._acts.item(items, self._acts.meant(tx, event.answers, conversation))
        change = Change(
            item.remote, command.name, command.first_line, tx.people.account(event.sender, item.connector),
            tx.people.name(event.sender),
        )  # fmt: skip
        _enqueue(tx, self._connectors[item.connector], conversation, Alter(event.room, item.id, change, event.id))

    def _in_thread(self, command: Command, conversation: Conversation | None) -> Conversation:
        if conversation is None:
            raise Refusal(self._say("not-a-conversation", command=command.name))
        return conversation

    # --- accounts

    def _me(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!me`: one's accounts; `!me TOOL account`: a code that proves one; `!me TOOL -`: forget it."""
        connector, _, account = command.first_line.partition(" ")
        if not connector:
            return self._acts.answer(tx, event, conversation, self._accounts(tx, event.sender))
        if connector not in self._connectors or not account.strip():
            known = ", ".join(sorted(self._connectors))
            raise Refusal(self._say("me-usage", connectors=known))
        if account.strip() == "-":
            tx.people.disowns(event.sender, connector)
            return self._acts.answer(tx, event, conversation, self._say("account-forgotten", connector=connector))
        code = self._items.claim(tx, event.sender, connector, account.strip(), event.room)
        body = self._say("account-code", code=code, connector=connector, account=account.strip())
        return self._acts.answer(tx, event, conversation, body)

    def _accounts(self, tx: Tx, mxid: str) -> str:
        accounts = tx.people.accounts(mxid)
        if not accounts:
            return self._say("no-accounts", connectors=", ".join(sorted(self._connectors)))
        return "\n".join(self._say("account", connector=name, account=known) for name, known in accounts.items())


def _enqueue(tx: Tx, connector: Connector, conversation: Conversation, asked: Look | Alter) -> None:
    """Behind what already goes to that tool from this conversation."""
    kind = payload.kind_of(asked)
    lane = f"{connector.name}:{conversation.id}"
    tx.queue.add(lane, connector.name, kind, payload.dump(asked), conversation=conversation.id)
