"""Arrivals from tools: which conversation an envelope belongs to, who may speak in it, and what appears in the room."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from html import escape

from bridge import payload
from bridge.audience import Audience, scopes_of
from bridge.config import Config
from bridge.items import Items, Turn
from bridge.model import Card, Delivery, Envelope, File, Page, Rejected
from bridge.outward import Outward
from bridge.payload import EVERYBODY, Post
from bridge.places import Places, link
from bridge.present import arrival
from bridge.store import Conversation, Tx
from bridge.text.plain import one_line
from bridge.texts import Texts

log = logging.getLogger(__name__)

MOST_PEOPLE = 200  # participants taken from one message
_HARMLESS = re.compile(r"[\w.:/-]+", re.ASCII)


class Hub:
    """The rules for what comes in. Each method is a rule: it runs inside one transaction."""

    def __init__(self, config: Config, places: Places, outward: Outward, items: Items, say: Texts) -> None:
        self._config = config
        self._places = places
        self._audience = Audience(places)
        self._outward = outward
        self._items = items
        self._say = say
        self.on_arrival: Callable[[str], None] = lambda connector: None
        self.on_probe: Callable[[Tx, Envelope], None] = lambda tx, envelope: None

    def accept_page(self, tx: Tx, connector: str, page: Page) -> None:
        """What a poll brought, with its cursor. What no room takes is passed over."""
        self.accept_all(tx, page.envelopes)
        tx.conversations.moved_on(connector, page.cursor)

    def accept_all(self, tx: Tx, envelopes: Iterable[Envelope]) -> None:
        """What a webhook or a poll brought: all or nothing. What no room takes is passed over."""
        for envelope in envelopes:
            with contextlib.suppress(Rejected):
                self.accept(tx, envelope)

    def keep_aside(self, tx: Tx, envelope: Envelope, reason: str) -> None:
        """An envelope that we fail to understand is kept as a dead letter: nothing is lost, and it can be replayed."""
        for file in (*envelope.files, *filter(None, [envelope.original])):
            tx.keep(file)
        uid = tx.queue.keep_unknown("envelope", payload.dump_anyway(envelope), reason)
        body = self._say("envelope-failed", connector=envelope.connector, reason=reason, uid=uid)
        self._places.tell_operators(tx, body)

    def accept(self, tx: Tx, envelope: Envelope) -> None:
        """Write an envelope down and what is to be shown of it. Raises `Rejected` when no room takes it."""
        before = len(tx.queue.fresh)
        self._accept(tx, envelope)
        tx.committed.append(partial(self._arrived, envelope, tx.queue.fresh[before:]))

    def _arrived(self, envelope: Envelope, rows: list[Delivery]) -> None:
        """It is committed. Tools that are polled say again and again what we know already."""
        if rows:
            self.on_arrival(envelope.connector)
        about: dict[str, object] = {"arrival": _short(envelope.key), "connector": envelope.connector}
        about |= {"uids": [row.uid for row in rows], "conversation": rows[0].conversation} if rows else {}
        log.log(logging.INFO if rows else logging.DEBUG, "arrived", extra=about)

    def _accept(self, tx: Tx, envelope: Envelope) -> None:
        if envelope.probe:
            self.on_probe(tx, envelope)
            return
        if envelope.card and envelope.card.gone:
            self._gone(tx, envelope)
            return
        rooms = self._audience.rooms(tx, envelope)
        left = self._leave(tx, envelope)
        if not (rooms or left or envelope.report):  # a report needs no room: it is about something of ours
            raise _nobody(envelope)
        for file in (*envelope.files, *filter(None, [envelope.original])):
            tx.keep(file)
        if envelope.report and self._report(tx, envelope):
            return
        if not (rooms or left):
            raise _nobody(envelope)
        self._items.proven(tx, envelope)
        turn = self._stands(tx, envelope, rooms)
        news: list[Conversation] = []
        keys = {room: f"{envelope.connector} {self._places.origin(room)} {envelope.key}" for room in rooms}
        fresh = {key for key in dict.fromkeys(keys.values()) if tx.conversations.first_time(key)}
        for room, scope in rooms.items():
            if keys[room] in fresh:  # a room, and one that a conversation of it has gone to, have the same
                news += self._arrive(tx, envelope, room, scope, turn)
        self._name_each_other(tx, envelope, news)

    def _gone(self, tx: Tx, envelope: Envelope) -> None:
        """Its tool says that it was deleted, unless we know something later of it."""
        known = self._audience.named(tx, envelope)
        if known is not None and envelope.when >= tx.conversations.stands(known)[1]:
            self._items.gone(tx, envelope.connector, envelope.item)

    def _leave(self, tx: Tx, envelope: Envelope) -> bool:
        """Whether the item that it is about may no longer be seen somewhere, as the envelope has it."""
        known = self._audience.named(tx, envelope) if envelope.card else None
        if known is None or envelope.card is None:
            return False
        return self._items.leave(tx, known, envelope.card, envelope.when, scopes_of(envelope))

    def _stands(self, tx: Tx, envelope: Envelope, rooms: Collection[str]) -> Turn:
        """What the envelope's author has changed of an item that we know.

        What comes with a private note waits for the next that everybody who follows the item may see.
        """
        known = self._audience.named(tx, envelope) if envelope.card else None
        if known is None or envelope.card is None:
            return Turn()
        followers = {
            conversation.room
            for conversation, _ in tx.conversations.all_of_item(known)
            if tx.cards.aside(conversation.id, known)[0] != "outside"
        }
        if envelope.private and not followers.issubset(rooms):
            return Turn()
        owner = self._employee(tx, envelope)
        if owner:
            tx.cards.acts(known, owner)
        return self._items.stands(tx, known, envelope.card, envelope.when, scopes_of(envelope))

    def _employee(self, tx: Tx, envelope: Envelope) -> str:
        """Whose account its author is, "" for nobody's here."""
        author = envelope.author
        return tx.people.owner(envelope.connector, author.account) if author.verified else ""

    def _arrive(self, tx: Tx, envelope: Envelope, room: str, scope: str, turn: Turn) -> list[Conversation]:
        """Put it into its conversations in a room; returns the one that it begins."""
        if not (envelope.begins or _says_something(envelope)) and not self._followed(tx, envelope, room):
            return []
        item, others, belongs = self._item(tx, envelope, room)
        here = {each: its for each, its in tx.conversations.all_of_item(item) if each.room == room}
        known = [each for each in here if tx.cards.aside(each.id, item)[0] != "outside"]
        if here and not known:  # it is older than what put the item aside
            return []
        self._remember(tx, envelope, item, belongs)
        new = [] if known else [tx.conversations.add(room, _topic(envelope))]
        for conversation in known or new:
            tx.conversations.link(conversation.id, item, scope)
            if envelope.item and here.get(conversation, scope) not in scopes_of(envelope):  # it has moved
                tx.conversations.speak_for(conversation.id, item, scope)
            before = None if conversation.id in turn.back else turn.before
            if envelope.card and (new or before):
                self._show_card(tx, envelope, conversation, item, before, envelope.card)
            if _says_something(envelope):
                self._say_it(tx, envelope, conversation, item, belongs, first=bool(new))
            elif envelope.urgent and (new or before):
                self._call(tx, envelope, conversation, item, before)
            self._tell_related(tx, conversation, others)
        return new

    def _followed(self, tx: Tx, envelope: Envelope, room: str) -> bool:
        item = self._audience.named(tx, envelope)
        return item is not None and tx.conversations.of_item(item, room) is not None

    def _show_card(
        self, tx: Tx, envelope: Envelope, conversation: Conversation, item: int, before: Card | None, card: Card
    ) -> None:
        if not tx.conversations.stands(item)[0]:
            self._items.stands(tx, item, card, envelope.when)
        self._items.show(tx, conversation, item)
        says = _says_something(envelope)
        told = envelope.automatic if says else envelope.urgent  # by what a program says, or by a call of ours
        if before and not told:
            self._items.tell_changes(tx, conversation, item, _name(envelope), before, card)

    def _call(self, tx: Tx, envelope: Envelope, conversation: Conversation, item: int, before: Card | None) -> None:
        """It asks for a person, without words of its own."""
        card = envelope.card
        assert card is not None
        body = self._say("item-urgent", key=card.key, title=one_line(card.title))
        if before:
            body = self._items.line((_name(envelope),), before, card)
        mentions = self._whoever_has(tx, conversation, item)
        self._from(tx, envelope, conversation, Post(conversation.room, body, mentions=mentions))

    def _say_it(
        self, tx: Tx, envelope: Envelope, conversation: Conversation, item: int, belongs: bool, *, first: bool
    ) -> None:
        role = self._role(tx, envelope, belongs)
        number = tx.conversations.add_message(
            conversation.id, role, envelope.author.account, item=item, remote=envelope.id, refs=envelope.refs[:20],
            title=envelope.title, memo=envelope.memo, original=payload.dump_file(envelope.original),
        )  # fmt: skip
        mentions = self._mentions(tx, envelope, conversation, item, role)
        self._show(
            tx, envelope, conversation, number, first=first and envelope.card is None, role=role, mentions=mentions
        )
        if role == "inward" and not first:
            self._outward.pause_all(tx, conversation, self._say("why-new-message"))

    # --- where it belongs

    def _item(self, tx: Tx, envelope: Envelope, room: str) -> tuple[int, list[int], bool]:
        """(item, other items it refers to, whether the sender belongs to it)."""
        if envelope.item:  # the tool says which one: it knows who may write there
            return self._named(tx, envelope, envelope.item), [], True
        known = self._audience.known(tx, envelope)
        if known:
            item = known[0]
            proven = tx.conversations.items_referred(envelope.connector, envelope.proof)
            belongs = item in proven or tx.conversations.takes_part(item, envelope.author.account)
            if belongs or tx.conversations.of_item(item, room):
                return item, known[1:], belongs
        return self._new(tx, envelope), [], True

    def _new(self, tx: Tx, envelope: Envelope) -> int:
        """An item of its own; the one it was given in another room; another name when somebody has taken its id."""
        taken = tx.conversations.item_named(envelope.connector, envelope.id)
        if taken is None or tx.conversations.takes_part(taken, envelope.author.account):
            return self._named(tx, envelope, envelope.id)
        return self._named(tx, envelope, f"{envelope.id} {envelope.key}")

    def _named(self, tx: Tx, envelope: Envelope, name: str) -> int:
        found = tx.conversations.item_named(envelope.connector, name)
        return tx.conversations.add_item(envelope.connector, name, _topic(envelope)) if found is None else found

    def _remember(self, tx: Tx, envelope: Envelope, item: int, belongs: bool) -> None:
        """A stranger can neither claim others' ids nor bring people in."""
        refs = envelope.refs if belongs else ()
        tx.conversations.refer(envelope.connector, (envelope.id, *refs), item)
        if belongs:
            people = (envelope.author, *envelope.people)[:MOST_PEOPLE]
            tx.conversations.admit(item, (person.account for person in people))

    def _role(self, tx: Tx, envelope: Envelope, belongs: bool) -> str:
        if not belongs:
            return "stranger"
        author = envelope.author
        own = author.account in envelope.scopes  # who speaks as ourselves, and is proven to
        if author.verified and (own or author.domain in self._config.inside.domains):
            return "colleague"
        if author.verified and tx.people.owner(envelope.connector, author.account):
            return "colleague"
        return "automatic" if envelope.automatic else "inward"

    # --- what is shown

    def _show(
        self, tx: Tx, envelope: Envelope, conversation: Conversation, number: int, *, first: bool, role: str,
        mentions: tuple[str, ...],
    ) -> None:  # fmt: skip
        named = first or (envelope.card is None and _topic(envelope) != conversation.title)
        title = envelope.title if named else ""
        body, html, shortened = arrival(
            envelope, title or (self._say("no-subject") if first else ""), self._say, self._config.inline_text
        )
        if role == "stranger":
            self._notice(tx, conversation, self._say("stranger", sender=envelope.author.account))
        if EVERYBODY in mentions and envelope.author.name:  # then the bot says it: few others may call a whole room
            body, html = f"{envelope.author.name}: {body}", f"<strong>{escape(envelope.author.name)}</strong>{html}"
        answered_event, answered = self._answered(tx, envelope, conversation)
        self._from(
            tx, envelope, conversation,
            Post(
                conversation.room, body, html, envelope.author, notice=envelope.automatic and not envelope.urgent,
                mentions=mentions, answers=answered_event, answers_message=answered, message=number,
            ),
        )  # fmt: skip
        if shortened:
            self._file(tx, envelope, conversation, tx.keep_text("message.txt", envelope.text))
        for file in envelope.files:
            self._file(tx, envelope, conversation, file)
        if envelope.problem:
            told = Post(conversation.room, self._say("problem", problem=envelope.problem), notice=True)
            self._from(tx, envelope, conversation, told)

    def _answered(self, tx: Tx, envelope: Envelope, conversation: Conversation) -> tuple[str, int]:
        for ref in envelope.refs[:20]:
            for message in tx.conversations.messages_of_remote(ref):
                if message.conversation == conversation.id:
                    return message.event, message.id
        return "", 0

    def _mentions(
        self, tx: Tx, envelope: Envelope, conversation: Conversation, item: int, role: str
    ) -> tuple[str, ...]:
        """Somebody must notice: whoever spoke outward last."""
        if envelope.urgent and role != "stranger":
            return self._whoever_has(tx, conversation, item)
        return (conversation.speaker,) if conversation.speaker and role != "stranger" and not envelope.automatic else ()

    def _whoever_has(self, tx: Tx, conversation: Conversation, item: int) -> tuple[str, ...]:
        """Whoever has the conversation, or acted last on its item; the whole room when nobody did."""
        return (conversation.speaker or tx.cards.actor(item) or EVERYBODY,)

    def _from(self, tx: Tx, envelope: Envelope, conversation: Conversation, post: Post) -> None:
        """Show something of what has arrived."""
        private = envelope.connector if self._audience.is_private(tx, envelope) else ""
        self._post(tx, conversation, replace(post, private=private))

    def _file(self, tx: Tx, envelope: Envelope, conversation: Conversation, file: File) -> None:
        self._from(tx, envelope, conversation, Post(conversation.room, file.name, author=envelope.author, file=file))

    def _notice(self, tx: Tx, conversation: Conversation, body: str) -> None:
        self._post(tx, conversation, Post(conversation.room, body, notice=True))

    def _post(self, tx: Tx, conversation: Conversation, post: Post) -> None:
        self._places.post(tx, post, conversation.id)

    # --- conversations that know of each other

    def _name_each_other(self, tx: Tx, envelope: Envelope, news: list[Conversation]) -> None:
        """Conversations that an item has just begun in, and those it had: each is told of the others, once."""
        connector = envelope.connector
        new = {conversation.id for conversation in news}
        for conversation in news:
            items = [item for item in tx.conversations.items_of(conversation.id) if item.connector == connector]
            others = [
                other
                for item in items
                for other in tx.conversations.elsewhere(item.id, conversation.id)
                if not tx.cards.aside(other.id, item.id)[0]
            ]
            others = [other for other in others if self._places.carries(other.room, connector)]
            self._tell_elsewhere(tx, conversation, others)
            for other in others:
                if other.id not in new and not envelope.private:
                    self._tell_elsewhere(tx, other, [conversation])

    def _tell_elsewhere(self, tx: Tx, conversation: Conversation, others: list[Conversation]) -> None:
        if others:
            rooms = ", ".join(sorted({self._places.name(other.room) for other in others}))
            self._notice(tx, conversation, self._say("elsewhere", rooms=rooms))

    def _tell_related(self, tx: Tx, conversation: Conversation, items: list[int]) -> None:
        """A message that could join two conversations goes to its nearest ancestor's; the other gets a link."""
        for item in items:
            other = tx.conversations.of_item(item, conversation.room)
            if other and other.id != conversation.id and conversation.root:
                self._notice(tx, other, self._say("related", links=link(conversation.room, conversation.root)))

    # --- reports about what we sent

    def _report(self, tx: Tx, envelope: Envelope) -> bool:
        """Pin a bounce to the message it belongs to; False when it belongs to none of ours."""
        report = envelope.report
        assert report is not None
        message = tx.conversations.message_of_uid(report.about)
        candidates = tx.conversations.messages_of_remote(report.about)
        message = message or next((found for found in candidates if found.role == "outward"), None)
        if message is None or not report.failed:
            return False
        if tx.conversations.first_time(f"{envelope.connector} report {envelope.key}"):
            number = tx.conversations.add_message(
                message.conversation, "report", report.recipient, item=message.item, remote=envelope.id,
                title=envelope.title, original=payload.dump_file(envelope.original),
            )  # fmt: skip
            self._outward.bounced(tx, message, report, number)
        return True


def _short(key: str) -> str:
    """What the log calls an arrival: the tool's own id of it where that is harmless."""
    return key[:40] if _HARMLESS.fullmatch(key) else hashlib.sha256(key.encode(errors="replace")).hexdigest()[:16]


def _nobody(envelope: Envelope) -> Rejected:
    return Rejected(f"nobody here takes messages for {', '.join(envelope.scopes)}")


def _topic(envelope: Envelope) -> str:
    return envelope.topic or envelope.title


def _name(envelope: Envelope) -> str:
    return envelope.author.name or envelope.author.account


def _says_something(envelope: Envelope) -> bool:
    return bool(envelope.text or envelope.html or envelope.files or envelope.original or envelope.problem)
