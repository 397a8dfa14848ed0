"""Items that their tool has a name for: how they stand, which rooms may see them, what was changed, what is gone."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from bridge import payload, present
from bridge.model import Card, Draft, Envelope
from bridge.payload import Alter, CardPost, LinePost, Look, Post
from bridge.places import Places, link
from bridge.store import Claim, Conversation, Tx
from bridge.texts import Texts

CLAIM = 3600  # seconds in which a code proves an account
MINUTE = 60.0  # seconds in which all changes of an item are one line
_CODE = re.compile(r"passerelle-[a-z2-7]{12}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

Scopes = Collection[str]  # those that an item belongs to; none: nobody can tell


@dataclass(frozen=True, slots=True)
class Turn:
    """What has become of an item: how it stood `before`, if differently; conversations that see it again (`back`)."""

    before: Card | None = None
    back: frozenset[int] = frozenset()


def card_of(tx: Tx, conversation: int, item: int) -> Card | None:
    """The card that a conversation shows of an item now; None when nobody knows how it stands."""
    text = tx.cards.aside(conversation, item)[1] or tx.conversations.stands(item)[0]
    return payload.load(Card, text) if text else None


def look(tx: Tx, conversation: int, item: int) -> tuple[str, str]:
    """(body, html) of that card; ("", "") when there is none."""
    card = card_of(tx, conversation, item)
    return present.card(card) if card else ("", "")


class Items:
    """The rules of named items. Each method is a rule: it runs inside one transaction."""

    def __init__(self, places: Places, say: Texts) -> None:
        self._places = places
        self._say = say

    # --- how they stand

    def stands(self, tx: Tx, item: int, card: Card, when: float = 0.0, scopes: Scopes = ()) -> Turn:
        """Note how an item stands, and show it again where it could not be seen; returns what is different from before.

        What is older than what we know (events may come in any order) changes nothing. `when` is by the tool's clock;
        0.0: this is how it stands now, and our own clock is not to be compared with the tool's. `scopes` are those
        that it belongs to now.
        """
        text, since = tx.conversations.stands(item)
        when = min(when, time.time()) or since  # a clock ahead of ours must not make it deaf
        if when < since:
            return Turn()
        tx.conversations.stood(item, card.title, payload.dump(card), when)
        before = payload.load(Card, text) if text else None
        back = self._come_back(tx, item, card, scopes) if text else frozenset[int]()
        return Turn(before if before and present.changes(before, card) else None, back)

    def _come_back(self, tx: Tx, item: int, card: Card, scopes: Scopes) -> frozenset[int]:
        """Where it was put aside and may be seen now, its card is shown again; what it was meanwhile is not told."""
        back = [
            follower
            for follower, _ in tx.conversations.all_of_item(item)
            if tx.cards.aside(follower.id, item)[0] and self._sees(tx, follower, item, card, scopes)
        ]
        for follower in back:
            tx.cards.take_back(follower.id, item)
            self.show(tx, follower, item)
            self._notice(tx, follower, self._say("item-back", key=card.key))
        return frozenset(follower.id for follower in back)

    def leave(self, tx: Tx, item: int, card: Card, when: float = 0.0, scopes: Scopes = ()) -> bool:
        """Where an item may not be seen as it stands now, no more than its key and link stay; whether that is news.

        To be asked before `stands`: what stays is what was known there.
        """
        text, since = tx.conversations.stands(item)
        if not text or (min(when, time.time()) or since) < since:
            return False
        leaving = [
            follower
            for follower, _ in tx.conversations.all_of_item(item)
            if self._carried(tx, follower, item)
            and not tx.cards.aside(follower.id, item)[0]
            and not self._sees(tx, follower, item, card, scopes)
        ]
        known = payload.load(Card, text)
        for follower in leaving:
            tx.cards.put_aside(follower.id, item, "outside", payload.dump(present.bare(known)))
            self.show(tx, follower, item)
            self._notice(tx, follower, self._say("item-outside", key=known.key))
        return bool(leaving)

    def hide_private(self, tx: Tx, conversation: Conversation) -> None:
        """From now on the room sees no private item: of those that it has no more than key and link stay."""
        for item in tx.conversations.items_of(conversation.id):
            text = tx.conversations.stands(item.id)[0]
            card = payload.load(Card, text) if text and not item.aside else None
            if card and card.private:
                tx.cards.put_aside(conversation.id, item.id, "outside", payload.dump(present.bare(card)))
                self.show(tx, conversation, item.id)

    def _sees(self, tx: Tx, follower: Conversation, item: int, card: Card, scopes: Scopes) -> bool:
        connector = tx.cards.connector_of(item)
        return self._places.sees(follower.room, connector, scopes, private=card.private) is not None

    def _carried(self, tx: Tx, follower: Conversation, item: int) -> bool:
        return self._places.carries(follower.room, tx.cards.connector_of(item))

    def out_of_sight(self, tx: Tx, conversation: int, item: int) -> str:
        """Why nothing can be asked of an item from there, in words, since the room may not see it any more; else ""."""
        why, text = tx.cards.aside(conversation, item)
        known = payload.load(Card, text) if why == "outside" else None
        return self._say("aside-outside", title=known.key) if known else ""

    def show(self, tx: Tx, conversation: Conversation, item: int) -> None:
        """The card of an item, made or brought up to date."""
        body, html = look(tx, conversation.id, item)
        self._places.post_newest(tx, CardPost(conversation.room, item, body, html), conversation.id)

    def tell_changes(
        self, tx: Tx, conversation: Conversation, item: int, who: str, before: Card, after: Card
    ) -> None:  # fmt: skip
        """One short line for all that was changed within a minute; `who` is "" when the tool does not tell."""
        told = tx.cards.begun(conversation.id, item, time.time() - MINUTE)
        if told is None:
            told = tx.cards.begin(conversation.id, item, payload.dump(before), who)
        else:
            told = tx.cards.joins(told, who)
        body = self.line(told.who, payload.load(Card, told.before), after)
        self._places.post_newest(tx, LinePost(conversation.room, item, told.id, body), conversation.id)

    def line(self, names: Sequence[str], before: Card, after: Card) -> str:
        """What these have changed, in words."""
        who = ", ".join(name or self._say("somebody") for name in names) if any(names) else ""
        changes = present.changes(before, after)
        if not changes:
            return self._say("item-as-before-by" if who else "item-as-before", key=after.key, who=who)
        return self._say("item-changed" if who else "item-differs", who=who, key=after.key, changes=changes)

    # --- named by somebody

    def found(
        self, tx: Tx, connector: str, look: Look, conversation: Conversation, card: Card, *, only_looks: bool = False
    ) -> None:
        """An item that somebody named: shown, and followed if that is wanted, as far as the room may see it.

        Of a connector that only looks, nothing is ever followed.
        """
        scopes = (card.scope,) if card.scope else ()
        mapping = self._places.sees(conversation.room, connector, scopes, private=card.private)
        known = self._is_followed(tx, connector, card, conversation)
        mentioned = self._places.is_own(conversation.room) and not (look.follow or known or only_looks)
        if mapping is None or mentioned:  # people are in a conversation's own room for that conversation
            self._only_named(tx, connector, look, conversation, card)
        elif look.follow or not (only_looks or mapping.new or known or self._places.is_own(conversation.room)):
            item = tx.conversations.item_named(connector, card.item)
            item = tx.conversations.add_item(connector, card.item, card.title) if item is None else item
            tx.conversations.link(conversation.id, item, mapping.scope)
            if tx.cards.take_back(conversation.id, item):
                tx.conversations.speak_for(conversation.id, item, mapping.scope)
                self.show(tx, conversation, item)
            self.update(tx, conversation, item, card)
        else:
            self._shown(tx, connector, look, conversation, card)

    def _is_followed(self, tx: Tx, connector: str, card: Card, conversation: Conversation) -> bool:
        item = tx.conversations.item_named(connector, card.item)
        return item is not None and tx.conversations.of_item(item, conversation.room) is not None

    def _shown(self, tx: Tx, connector: str, look: Look, conversation: Conversation, card: Card) -> None:
        body, html = present.card(card)
        number = tx.conversations.add_message(conversation.id, "look", connector, title=card.key)
        post = Post(conversation.room, body, html, notice=True, answers=look.event, message=number)
        self._places.post(tx, post, conversation.id)

    def _only_named(self, tx: Tx, connector: str, look: Look, conversation: Conversation, card: Card) -> None:
        """The room may not see it: whoever mentioned it sees its key and link; whoever wants to follow it hears why."""
        named = present.pointed_at(card, look.text or look.remote, look.remote)
        if not look.follow:
            return self._shown(tx, connector, look, conversation, named)
        scopes = (card.scope,) if card.scope else ()
        public = self._places.sees(conversation.room, connector, scopes)
        why = self._say("link-private" if public else "link-outside", item=named.key, connector=connector)
        return self._answer(tx, look, conversation, why)

    def made(self, tx: Tx, draft: Draft, conversation: Conversation, card: Card) -> int:
        """What we began has its name now; returns our number of the item, which may be known already."""
        known = tx.conversations.item_named(draft.connector, card.item)
        if known is None or known == draft.item:
            known = draft.item
            tx.conversations.rename_item(known, card.item, card.title)
        else:  # its tool told us of it before its answer reached us: that began a thread of its own
            tx.conversations.unlink(conversation.id, draft.item)
            for other, _ in tx.conversations.all_of_item(known):
                self._move(tx, other, conversation, known)
            tx.conversations.link(conversation.id, known, draft.scope)
        if not self._sees(tx, conversation, known, card, (card.scope,) if card.scope else ()):
            tx.cards.put_aside(conversation.id, known, "outside", payload.dump(present.bare(card)))
            self.show(tx, conversation, known)
        self.update(tx, conversation, known, card)
        return known

    def _move(self, tx: Tx, other: Conversation, conversation: Conversation, item: int) -> None:
        """A thread of the same room that has only this item ends; where it goes on is said there."""
        alone = [each.id for each in tx.conversations.items_of(other.id)] == [item]
        if alone and other.room == conversation.room and other.id != conversation.id:
            tx.conversations.unlink(other.id, item)
            self._notice(tx, other, self._say("related", links=link(conversation.room, conversation.root)))

    def update(self, tx: Tx, conversation: Conversation, item: int, card: Card) -> None:
        """How it stands after something of ours: who follows it elsewhere is told what is different."""
        scopes = (card.scope,) if card.scope else ()
        self.leave(tx, item, card, scopes=scopes)
        turn = self.stands(tx, item, card, scopes=scopes)
        for follower, _ in tx.conversations.all_of_item(item):
            if follower.id in turn.back or tx.cards.aside(follower.id, item)[0]:
                continue
            if follower.id == conversation.id:
                if turn.before or not tx.conversations.card(follower.id, item):
                    self.show(tx, follower, item)
            elif turn.before and self._carried(tx, follower, item):
                self.show(tx, follower, item)
                self.tell_changes(tx, follower, item, "", turn.before, card)

    def changed(self, tx: Tx, alter: Alter, conversation: Conversation, card: Card) -> None:
        """The tool did what somebody asked for."""
        if alter.sender:
            tx.cards.acts(alter.item, alter.sender)
        self.update(tx, conversation, alter.item, card)
        change, instead = alter.change, tx.cards.aside(conversation.id, alter.item)[1]
        key = payload.load(Card, instead).key if instead else card.key  # what it is called now may be none of ours
        self._notice(
            tx, conversation, self._say("item-set", who=change.name, key=key, word=change.word, value=change.value)
        )

    # --- refused, or gone

    def refused(self, tx: Tx, asked: Look | Alter, conversation: Conversation, connector: str, reason: str) -> None:
        """The tool did not do it, or has no such item: whoever asked hears why; who only mentioned it did not ask."""
        if not isinstance(asked, Look) or asked.follow:
            self._answer(tx, asked, conversation, self._say("tool-refused", connector=connector, reason=reason))

    def missed(self, tx: Tx, asked: Look | Alter, conversation: Conversation, connector: str, reason: str) -> None:
        """The tool has no such item, or no more: whoever asked hears it."""
        remote = asked.remote if isinstance(asked, Look) else asked.change.item
        told = self.gone(tx, connector, remote)
        if isinstance(asked, Alter) and conversation.id not in told:
            self.refused(tx, asked, conversation, connector, reason)
        elif isinstance(asked, Look) and asked.follow and conversation.id not in told:
            self._answer(tx, asked, conversation, self._say("link-none", item=remote, connector=connector))

    def gone(self, tx: Tx, connector: str, remote: str) -> set[int]:
        """The tool has it no more: its cards say so, and it is followed no longer; returns who was told just now."""
        item = tx.conversations.item_named(connector, remote)
        told: set[int] = set()
        if item is None:
            return told
        text, since = tx.conversations.stands(item)
        card = payload.load(Card, text) if text else Card(remote, remote, "")
        deleted = replace(card, fields=((self._say("label-state"), self._say("state-deleted")),))
        tx.conversations.stood(item, card.title, payload.dump(card), max(since, time.time()))  # older news are void
        for follower, _ in tx.conversations.all_of_item(item):
            if tx.cards.aside(follower.id, item)[0] or not self._carried(tx, follower, item):
                continue
            tx.cards.put_aside(follower.id, item, "gone", payload.dump(deleted))
            self.show(tx, follower, item)
            self._notice(tx, follower, self._say("item-gone", key=card.key, connector=connector))
            told.add(follower.id)
        return told

    def _answer(self, tx: Tx, asked: Look | Alter, conversation: Conversation, body: str) -> None:
        self._places.post(tx, Post(asked.room, body, notice=True, answers=asked.event), conversation.id)

    def _notice(self, tx: Tx, conversation: Conversation, body: str) -> None:
        self._places.post(tx, Post(conversation.room, body, notice=True), conversation.id)

    # --- whose accounts

    def claim(self, tx: Tx, mxid: str, connector: str, account: str, room: str, conversation: int) -> str:
        """A code that proves the account when that account writes it into the tool; returns it."""
        code = "passerelle-" + "".join(secrets.choice(_LETTERS) for _ in range(12))
        tx.people.claims(Claim(code, mxid, connector, account, room, conversation))
        return code

    def proven(self, tx: Tx, envelope: Envelope) -> None:
        """Whoever wrote the code of a claim into the tool, as the very account claimed, has proven it."""
        author = envelope.author
        code = envelope.text.strip().lower()  # and nothing else: who quotes it has not written it
        if author.verified and _CODE.fullmatch(code):
            claim = tx.people.proven(code, time.time() - CLAIM)
            if claim and (claim.connector, claim.account) == (envelope.connector, author.account):
                tx.people.owns(claim.mxid, claim.connector, claim.account)
                body = self._say("account-linked", account=claim.account, connector=claim.connector)
                post = Post(claim.room, body, notice=True, mentions=(claim.mxid,))
                self._places.post(tx, post, claim.conversation or None)
