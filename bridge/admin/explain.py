"""Why something goes where it goes, in words for operators: an arrival, an address, an item, an event, a delivery.

What people wrote is not told, but for titles; and the first lines of what an arrival would show, when it is rehearsed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

from bridge import payload
from bridge.admin.plan import spoken
from bridge.choice import facts_of
from bridge.config import Mapping as Mapped
from bridge.connector import Connector
from bridge.model import Address, Delivery, Draft, Envelope, Recipients, Rejected, RoomEvent, Unavailable
from bridge.outward import RECENT, Refusal, everyone
from bridge.payload import Post
from bridge.permissions import EVERY_ROOM
from bridge.places import link
from bridge.rules import Rules
from bridge.store import Conversation, Tx
from bridge.store.search import MOST, Search
from bridge.text.plain import one_line

LINES = 3  # of a message that are shown
_UID = re.compile(r"[a-z2-7]{20}")
_LINK = re.compile(r"https://matrix\.to/#/([^/?\s]+)(?:/([^/?\s]+))?(?:\?\S*)?")
_ROLES = {
    "inward": "somebody outside who belongs to the conversation",
    "stranger": "a stranger to the conversation it names: shown, and said so",
    "colleague": "a colleague, proven",
    "automatic": "written by a program: nobody is mentioned, and nothing pauses",
}

_ASIDE = {
    "outside": "that room may not see it where it is now, or as private as it is",
    "gone": "its tool has it no more",
}


class Explain:
    """Each method is a rule. None is to be kept: run them with `Store.rehearse`."""

    def __init__(self, rules: Rules, connectors: Mapping[str, Connector]) -> None:
        self._rules = rules
        self._places = rules.places
        self._config = rules.config
        self._connectors = connectors

    # --- what arrives

    def arrival(self, tx: Tx, envelope: Envelope) -> list[str]:
        """Accept it, and say what that did."""
        lines = [f"“{one_line(envelope.title)}” from {_who(envelope)}, for {', '.join(envelope.scopes)}"]
        newest, before = Search(tx.db).newest_conversation(), len(tx.queue.fresh)
        waiting = [row.uid for row in (*tx.queue.in_state("asked"), *tx.queue.in_state("held"))]
        try:
            self._rules.hub.accept(tx, envelope)
        except Rejected as error:
            return [*lines, *self._mappings_of(envelope), f"refused: {error}"]
        except Unavailable as error:
            return [*lines, f"asked to come later: {error}"]
        rows = tx.queue.fresh[before:]
        for number in dict.fromkeys(row.conversation for row in rows if row.conversation):
            posts = [row for row in rows if row.conversation == number]
            lines += self._into(tx, envelope, number, posts, new=number > newest)
        if not rows:
            lines += [*self._mappings_of(envelope), "nothing would be shown: it came before, or says nothing new"]
        paused = [uid for uid in waiting if (row := tx.queue.get(uid)) is not None and row.state == "paused"]
        return lines + ([f"pauses what waits to leave there: {', '.join(paused)}"] if paused else [])

    def _into(self, tx: Tx, envelope: Envelope, number: int, rows: list[Delivery], *, new: bool) -> Iterator[str]:
        conversation = tx.conversations.get(number)
        assert conversation is not None
        yield from self._why_there(envelope, conversation.room)
        yield f"  a new conversation, “{conversation.title}”" if new else f"  goes on in {_linked(conversation)}"
        posts = [payload.load(Post, row.payload) for row in rows if row.kind == "post"]
        for post in (post for post in posts if post.message):
            message = tx.conversations.message(post.message)
            if message is not None and message.role in _ROLES:
                yield f"  by {_ROLES[message.role]}"
            yield from (f"  | {line[:200]}" for line in post.body.splitlines()[:LINES])
            if post.mentions:
                yield f"  mentions {', '.join(post.mentions)}"
        if files := [post.file.name for post in posts if post.file]:
            yield f"  with {', '.join(files)}"
        if any(row.kind == "card" for row in rows):
            yield "  its card is shown, or brought up to date"

    def _why_there(self, envelope: Envelope, room: str) -> Iterator[str]:
        yield f"in {self._places.name(room)}"
        mappings = [each for scope in envelope.scopes for each in self._places.mappings_to(envelope.connector, scope)]
        here = [each for each in mappings if self._places.room_of(each) == room]
        if not here:
            yield "  because somebody there follows it"
        for each in here:
            yield f"  {spoken(each)}{self._chosen(each, mappings)}"

    def _chosen(self, mapping: Mapped, mappings: list[Mapped]) -> str:
        if not mapping.new:
            return " (somebody linked or mentioned it there before)"
        if mapping.only:
            return " (its filter fits, or the conversation was there before)"
        return " (no filter of another mapping fits)" if any(each.only for each in mappings) else ""

    def _mappings_of(self, envelope: Envelope) -> Iterator[str]:
        """What might have taken it, and by what it would choose."""
        mappings = [each for scope in envelope.scopes for each in self._places.mappings_to(envelope.connector, scope)]
        yield from (f"  {spoken(each)}" for each in mappings)
        if any(each.only for each in mappings):
            names = {name for each in mappings for name in each.only}
            facts = facts_of(envelope)
            yield "  it has " + "; ".join(f"{name}: {', '.join(facts.get(name, ())) or '-'}" for name in sorted(names))

    # --- what somebody asks about

    def look(self, tx: Tx, text: str) -> list[str]:
        """What the bridge knows of an address, a tool's key or address, an event or its link, a delivery."""
        text = text.strip()
        linked = _LINK.fullmatch(text)
        if linked and linked[2]:
            return self._event(tx, unquote(linked[2]))
        if text.startswith("$"):
            return self._event(tx, text)
        if _UID.fullmatch(text) and (found := self._delivery(tx, text)):
            return found
        if text.startswith(("!", "#")) or linked:
            return self._room(unquote(linked[1]) if linked else text)
        if text.startswith("@"):
            return self._person(text)
        found = [line for name, each in self._connectors.items() for line in self._item(tx, name, each.match(text))]
        found = found or [line for each in self._connectors.values() for line in self._address(tx, each, text)]
        return found or [
            f"Nothing here knows {text}. Give an address, a key or web address of a tool, a link to a message, or the "
            "id of a delivery as logs and dead letters name it."
        ]

    def _room(self, name: str) -> list[str]:
        mappings = [each for each in self._places.mappings if name in (each.room, self._places.room_of(each))]
        return [spoken(each) for each in mappings] or [f"nothing is mapped to {name}"]

    def _person(self, mxid: str) -> list[str]:
        permits = self._rules.permits
        levels = (("use", "reply"), ("map", "map"), ("administer", EVERY_ROOM))
        may = [word for word, act in levels if permits.may(mxid, act)]
        inside = "inside" if self._config.is_inside(mxid) else "outside: what they type is not obeyed"
        return [f"{mxid} is {inside}", f"may: {', '.join(may) or 'nothing'}"]

    # --- addresses

    def _address(self, tx: Tx, connector: Connector, text: str) -> Iterator[str]:
        if scope := connector.scope_of(text):
            yield f"what arrives for {text} comes to {connector.name} as {scope}"
            mappings = self._places.mappings_to(connector.name, scope)
            yield from (f"  {spoken(each)}" for each in mappings)
            if not mappings:
                yield "  it is mapped to no room: it is refused"
            return
        try:
            recipients = connector.recipients([text]) if connector.addressed else Recipients(())
        except Rejected:
            return
        for address in recipients.all:
            yield f"{address.account} is outside, reached by {connector.name}"
            yield from self._policy(tx, connector, address)
            yield from self._takes_part(tx, connector.name, address.account)

    def _policy(self, tx: Tx, connector: Connector, address: Address) -> Iterator[str]:
        draft = Draft(connector.name, "", 0, "", "", "", Recipients((address,)))
        try:
            self._rules.outward.check(draft)
            yield "  messages may go there"
        except Refusal as refusal:
            yield f"  {refusal}"
        if address.domain in self._config.inside.domains:
            yield "  it is an address of the company: who writes from it is a colleague, when the sender is proven"
        most, since = self._config.outward.per_address, time.time() - RECENT
        for scope in connector.scopes():
            if count := tx.queue.recent_to(connector.name, scope, address.account, since, but=""):
                yield f"  {count} left for it from {scope} in {RECENT // 60} minutes; people are asked from {most} on"

    def _takes_part(self, tx: Tx, connector: str, account: str) -> Iterator[str]:
        found = [item for item, name in Search(tx.db).items_with(account) if name == connector]
        for item in found[:MOST]:
            yield from (f"  takes part in {_linked(each)}" for each, _ in tx.conversations.all_of_item(item))
        if not found:
            yield "  takes part in no conversation"
        elif len(found) > MOST:
            yield "  …"

    # --- items

    def _item(self, tx: Tx, connector: str, remote: str) -> Iterator[str]:
        if not remote:
            return
        yield f"{remote} of {connector}"
        item = tx.conversations.item_named(connector, remote)
        items = tx.cards.with_key(connector, remote) if item is None else [item]
        found = [(each, *following) for each in items for following in tx.conversations.all_of_item(each)]
        for item, conversation, scope in found:
            yield f"  followed in {_linked(conversation)} in {self._places.name(conversation.room)}, as {scope}"
            if not self._places.carries(conversation.room, connector):
                yield "  but that room is mapped to nothing of it any more: it hears nothing"
            elif why := tx.cards.aside(conversation.id, item)[0]:
                yield f"  but {_ASIDE[why]}: it hears nothing"
            yield from self._on_their_way(Search(tx.db).waiting(conversation.id))
        if not found:
            yield "  no conversation follows it; in a room: !link"

    # --- events

    def _event(self, tx: Tx, event: str) -> list[str]:
        conversation, message = tx.conversations.of_event(event), tx.conversations.message_of_event(event)
        drafts = tx.queue.touched_by(event)
        if conversation is None and drafts and drafts[0].conversation:
            conversation = tx.conversations.get(drafts[0].conversation)
        if conversation is None:
            return [f"{event} belongs to no conversation of the bridge, or was never heard"]
        lines = [f"in {_linked(conversation)} in {self._places.name(conversation.room)}"]
        if message is not None:
            lines.append(
                f"{message.role} message of {message.sender}" + (f", sent as {message.uid}" * bool(message.uid))
            )
        for item in tx.conversations.items_of(conversation.id):
            lines.append(f"about “{one_line(item.title)}” of {item.connector}, in the name of {item.scope}")
        lines += self._on_their_way(drafts or Search(tx.db).waiting(conversation.id))
        return [*lines, self._reply(tx, event, conversation)]

    def _reply(self, tx: Tx, event: str, conversation: Conversation) -> str:
        """Who would receive a !reply to it: asked for just as people do, and undone with all of this."""
        asked = RoomEvent("$explained", conversation.room, self._config.bot_mxid, "m.room.message", answers=event)
        try:
            self._rules.acts.reply(tx, asked, conversation, "…", "")
        except Refusal as refusal:
            return f"a !reply: {refusal}"
        draft = payload.load(Draft, tx.queue.from_source(asked.id)[0].payload)
        return f"a !reply goes to {everyone(draft.recipients)} by {draft.connector}, in the name of {draft.scope}"

    # --- deliveries

    def _delivery(self, tx: Tx, uid: str) -> list[str]:
        """[] when there is no trace of it."""
        row, message = tx.queue.get(uid), tx.conversations.message_of_uid(uid)
        conversation = tx.conversations.get((row.conversation if row else message.conversation if message else 0) or 0)
        lines = list(self._on_their_way([row] if row else []))
        if message is not None and row is None:
            lines.append(f"{uid} has left; the other side knows it as {message.remote}")
        return lines + ([f"  in {_linked(conversation)}"] if conversation and lines else [])

    def _on_their_way(self, rows: Iterable[Delivery]) -> Iterator[str]:
        for row in rows:
            yield f"  {row.kind} {row.uid} to {row.destination}: {_STATES[row.state]}, {row.attempts} attempts"
            if row.kind == "draft":
                yield f"    for {everyone(payload.load(Draft, row.payload).recipients)}"
            if row.due > time.time():
                yield f"    again at {time.strftime('%H:%M:%S', time.localtime(row.due))}"
            if row.error:
                yield f"    last: {row.error}"


_STATES = {
    "ready": "on its way",
    "asked": "waits until its preview is shown",
    "held": "held, can still be cancelled",
    "paused": "paused until somebody says !send",
    "dead": "given up (dead letter)",
}


def _who(envelope: Envelope) -> str:
    author = envelope.author
    proof = "verified" if author.verified else "not verified"
    return f"{author.name} <{author.account}> ({proof})" if author.account else "somebody unknown"


def _linked(conversation: Conversation) -> str:
    where = link(conversation.room, conversation.root) if conversation.root else "(its first message is on its way)"
    return f"“{one_line(conversation.title)}” {where}"
