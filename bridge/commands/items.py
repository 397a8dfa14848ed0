"""Acts on items that tools have names for: follow and leave them, change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bridge import payload
from bridge.commands.acts import Acts
from bridge.commands.parse import Command
from bridge.commands.start import thread_of
from bridge.config import Mapping
from bridge.connector import Connector
from bridge.items import card_of
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

    def __init__(self, places: Places, acts: Acts, connectors: dict[str, Connector], say: Texts) -> None:
        self._places = places
        self._acts = acts
        self._connectors = connectors
        self._say = say
        self._acts_of: dict[str, ItemAct] = {"link": self._link, "unlink": self._unlink}

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
        found = [named for named in self._named(event.room, command.first_line) if not named[0].last]
        if not found:
            raise Refusal(self._say("link-usage", text=command.first_line or "…"))
        if len(found) > 1:
            tools = ", ".join(connector.name for connector, _, _ in found)
            raise Refusal(self._say("link-which", text=command.first_line, tools=tools))
        conversation = conversation or thread_of(tx, event, command.first_line, self._say)
        self._look(tx, event, conversation, found[0], command.first_line, follow=True)

    def pasted(self, tx: Tx, event: RoomEvent, conversation: Conversation | None) -> None:
        """Keys and addresses of items in what somebody says: their cards are shown, once each."""
        places = self._places.mappings_of(event.room)
        words = event.body.split()[:200] if places else ()
        named: dict[Named, str] = {}
        for word in words:
            for found in self._match(places, word):
                named.setdefault(found, word)
        items = tx.conversations.items_of(conversation.id) if conversation and named else ()
        followed = {(item.connector, name) for item in items for name in _called(tx, conversation, item)}
        wanted = [found for found in named if (found[0].name, found[1]) not in followed][:MOST_CARDS]
        for found in wanted:
            conversation = conversation or thread_of(tx, event, event.body[:80], self._say)
            self._look(tx, event, conversation, found, named[found], follow=False)

    def _named(self, room: str, text: str) -> list[Named]:
        """What a key or URL may mean for people in a room."""
        return self._match(self._places.mappings_of(room), text)

    def _match(self, mappings: list[Mapping], text: str) -> list[Named]:
        """By the tools that are mapped, in the order of their mappings; else an address by the first tool that is
        mapped elsewhere: what the room may see of it is decided when the tool has said which scope it is of. What only
        looks (`Connector.last`) comes last, and only where it is mapped.
        """
        text = text.strip(_AROUND)[:2000]
        scopes = {mapping.connector: mapping.scope for mapping in reversed(mappings)}
        here = dict.fromkeys(mapping.connector for mapping in mappings)
        found = self._matching(here, text, scopes)
        apt = [named for named in found if not named[0].last]
        if not apt and mappings and "://" in text:
            others = (name for name in self._connectors if name not in here and self._places.scopes_of(name))
            elsewhere = self._matching(others, text, scopes)
            apt = [named for named in elsewhere if not named[0].last][:1]
        return apt or found[:1]

    def _matching(self, names: Iterable[str], text: str, scopes: dict[str, str]) -> list[Named]:
        connectors = (self._connectors[name] for name in names)
        return [(each, remote, scopes.get(each.name, "")) for each in connectors if (remote := each.match(text))]

    def _look(
        self, tx: Tx, event: RoomEvent, conversation: Conversation, named: Named, text: str, *, follow: bool
    ) -> None:  # fmt: skip
        connector, remote, scope = named
        look = Look(event.room, remote, scope, event.id, follow, text.strip(_AROUND)[:2000])
        _enqueue(tx, connector, conversation, look)

    def _unlink(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!unlink [KEY]`: the thread no longer hears of that item."""
        conversation = self._in_thread(command, conversation)
        items = [item for item in self._acts.items(tx, conversation) if self._is_named(item)]
        if text := command.first_line:
            found = self._named(event.room, text)
            wanted = {(connector.name, remote) for connector, remote, _ in found}
            wanted |= {(item.connector, text) for item in items}
            items = [
                each for each in items if wanted & {(each.connector, it) for it in _called(tx, conversation, each)}
            ]
            if not items and not found:
                raise Refusal(self._say("link-usage", text=text))
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
            and self._places.serves(conversation.room, item.connector, item.scope)
        ]
        if not items:
            raise Refusal(self._say("not-linked"))
        if not command.first_line:
            raise Refusal(self._say("change-usage", word=command.name, usage=self.changes()[command.name]))
        meant = self._acts.meant(tx, event.answers, conversation)
        item = self._acts.item(self._acts.live(items, meant), meant)
        account = tx.people.account(event.sender, item.connector)
        value = account if command.first_line.lower() in ("me", "moi") else command.first_line
        if not value:
            raise Refusal(self._say("who-are-you", connector=item.connector))
        change = Change(item.remote, command.name, value, account, tx.people.name(event.sender))
        alter = Alter(event.room, item.id, change, event.id, event.sender)
        _enqueue(tx, self._connectors[item.connector], conversation, alter)

    def _in_thread(self, command: Command, conversation: Conversation | None) -> Conversation:
        if conversation is None:
            raise Refusal(self._say("not-a-conversation", command=command.name))
        return conversation


def _called(tx: Tx, conversation: Conversation | None, item: Item) -> set[str]:
    """What an item goes by in a conversation: the tool's own name of it, and the key on its card."""
    card = card_of(tx, conversation.id, item.id) if conversation else None
    return {item.remote, card.key} if card else {item.remote}


def _enqueue(tx: Tx, connector: Connector, conversation: Conversation, asked: Look | Alter) -> None:
    """Behind what already goes to that tool from this conversation."""
    kind = payload.kind_of(asked)
    lane = f"{connector.name}:{conversation.id}"
    if isinstance(asked, Look) and not asked.follow:  # nobody waits for it, and nothing waits behind it
        lane += ":look"
    tx.queue.add(lane, connector.name, kind, payload.dump(asked), conversation=conversation.id)
