"""Acts on items that tools have names for: follow and leave them, change them, and whose accounts are whose."""

from __future__ import annotations

from collections.abc import Callable

from bridge import payload
from bridge.commands.acts import Acts
from bridge.commands.parse import Command
from bridge.commands.start import thread_of
from bridge.config import Mapping
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

Named = tuple[Connector, str, str]  # connector, the tool's name of the item, scope
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
        if not found:
            raise Refusal(self._say("link-usage", text=command.first_line or "…"))
        if len(found) > 1:
            tools = ", ".join(connector.name for connector, _, _ in found)
            raise Refusal(self._say("link-which", text=command.first_line, tools=tools))
        conversation = conversation or thread_of(tx, event, command.first_line, self._say)
        self._look(tx, event, conversation, *found[0], follow=True)

    def pasted(self, tx: Tx, event: RoomEvent, conversation: Conversation | None) -> None:
        """Keys and addresses of items in what somebody says: their cards are shown, once each."""
        followed = {item.remote for item in tx.conversations.items_of(conversation.id)} if conversation else set()
        places = self._places.mappings_of(event.room)
        words = event.body.split()[:200] if places else ()
        named = dict.fromkeys(found for word in words for found in self._match(places, word))
        wanted = [found for found in named if found[1] not in followed][:MOST_CARDS]
        for connector, remote, scope in wanted:
            conversation = conversation or thread_of(tx, event, event.body[:80], self._say)
            self._look(tx, event, conversation, connector, remote, scope, follow=False)

    def _named(self, room: str, text: str) -> list[Named]:
        """What a key or URL may mean, where this room may see that tool."""
        return self._match(self._places.mappings_of(room), text)

    def _match(self, mappings: list[Mapping], text: str) -> list[Named]:
        found: dict[str, Named] = {}
        for mapping in mappings:
            connector = self._connectors[mapping.connector]
            if connector.name not in found and (remote := connector.match(text.strip(_AROUND)[:2000])):
                found[connector.name] = connector, remote, mapping.scope
        return list(found.values())

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
        if command.first_line and not found:
            raise Refusal(self._say("link-usage", text=command.first_line))
        wanted = {(connector.name, remote) for connector, remote, _ in found}
        items = [
            item
            for item in self._acts.items(tx, conversation)
            if self._is_named(item) and (not found or (item.connector, item.remote) in wanted)
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
            for item in self._acts.items(tx, conversation)
            if command.name in self._connectors[item.connector].words
            and self._places.carries(conversation.room, item.connector)
        ]
        if not items:
            raise Refusal(self._say("not-linked"))
        if not command.first_line:
            raise Refusal(self._say("change-usage", word=command.name, usage=self.changes()[command.name]))
        item = self._acts.item(items, self._acts.meant(tx, event.answers, conversation))
        account = tx.people.account(event.sender, item.connector)
        value = account if command.first_line.lower() in ("me", "moi") else command.first_line
        if not value:
            raise Refusal(self._say("who-are-you", connector=item.connector))
        change = Change(item.remote, command.name, value, account, tx.people.name(event.sender))
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
        if connector not in self._with_accounts() or not account.strip():
            raise Refusal(self._say("me-usage", connectors=", ".join(self._with_accounts())))
        if account.strip() == "-":
            tx.people.disowns(event.sender, connector)
            return self._acts.answer(tx, event, conversation, self._say("account-forgotten", connector=connector))
        number = conversation.id if conversation else 0
        code = self._items.claim(tx, event.sender, connector, account.strip(), event.room, number)
        body = self._say("account-code", code=code, connector=connector, account=account.strip())
        return self._acts.answer(tx, event, conversation, body)

    def _with_accounts(self) -> list[str]:
        """The tools in which people have accounts; where recipients are named, anybody can write in any name."""
        return sorted(name for name, connector in self._connectors.items() if not connector.addressed)

    def _accounts(self, tx: Tx, mxid: str) -> str:
        accounts = tx.people.accounts(mxid)
        if not accounts:
            return self._say("no-accounts", connectors=", ".join(self._with_accounts()))
        return "\n".join(self._say("account", connector=name, account=known) for name, known in accounts.items())


def _enqueue(tx: Tx, connector: Connector, conversation: Conversation, asked: Look | Alter) -> None:
    """Behind what already goes to that tool from this conversation."""
    kind = payload.kind_of(asked)
    lane = f"{connector.name}:{conversation.id}"
    if isinstance(asked, Look) and not asked.follow:  # nobody waits for it, and nothing waits behind it
        lane += ":look"
    tx.queue.add(lane, connector.name, kind, payload.dump(asked), conversation=conversation.id)
