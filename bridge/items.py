"""Items that their tool has a name for: how they stand, which conversations follow them, what was changed."""

from __future__ import annotations

import re
import secrets
import time

from bridge import payload, present
from bridge.model import Card, Draft, Envelope
from bridge.payload import Alter, CardPost, Look, Post
from bridge.places import Places, link
from bridge.store import Claim, Conversation, Tx
from bridge.texts import Texts

CLAIM = 3600  # seconds in which a code proves an account
_CODE = re.compile(r"passerelle-[a-z2-7]{12}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


class Items:
    """The rules of named items. Each method is a rule: it runs inside one transaction."""

    def __init__(self, places: Places, say: Texts) -> None:
        self._places = places
        self._say = say

    # --- how they stand

    def stands(self, tx: Tx, item: int, card: Card, when: float = 0.0) -> str:
        """Note how an item stands; returns what is different from before, in one line, "" when nothing is.

        What is older than what we know (events may come in any order) changes nothing. `when` is by the tool's clock;
        0.0: this is how it stands now, and our own clock is not to be compared with the tool's.
        """
        text, since = tx.conversations.stands(item)
        when = min(when, time.time()) or since  # a clock ahead of ours must not make it deaf
        if when < since:
            return ""
        tx.conversations.stood(item, card.title, payload.dump(card), when)
        return present.changes(payload.load(Card, text), card) if text else ""

    def show(self, tx: Tx, conversation: Conversation, item: int) -> None:
        """The card of an item, made or brought up to date."""
        text, _ = tx.conversations.stands(item)
        body, html = present.card(payload.load(Card, text))
        self._places.post(tx, CardPost(conversation.room, item, body, html), conversation.id)

    def tell_changes(self, tx: Tx, conversation: Conversation, who: str, card: Card, changes: str) -> None:
        """One short line for all that somebody changed at once; `who` is "" when the tool does not tell."""
        key = "item-changed" if who else "item-differs"
        self._notice(tx, conversation, self._say(key, who=who, key=card.key, changes=changes))

    def found(self, tx: Tx, connector: str, look: Look, conversation: Conversation, card: Card) -> None:
        """An item that somebody named: shown, and followed if that is wanted."""
        if not look.follow:
            body, html = present.card(card)
            number = tx.conversations.add_message(conversation.id, "look", connector, title=card.key)
            post = Post(look.room, body, html, notice=True, answers=look.event, message=number)
            self._places.post(tx, post, conversation.id)
            return
        item = tx.conversations.item_named(connector, card.item)
        item = tx.conversations.add_item(connector, card.item, card.title) if item is None else item
        tx.conversations.link(conversation.id, item, look.scope)
        self.update(tx, conversation, item, card)

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
        changes = self.stands(tx, item, card)
        for follower, _ in tx.conversations.all_of_item(item):
            if follower.id == conversation.id:
                if changes or not tx.conversations.card(follower.id, item):
                    self.show(tx, follower, item)
            elif changes and self._carried(tx, follower, item):
                self.show(tx, follower, item)
                self._notice(tx, follower, self._say("item-differs", key=card.key, changes=changes))

    def _carried(self, tx: Tx, follower: Conversation, item: int) -> bool:
        items = tx.conversations.items_of(follower.id)
        return any(each.id == item and self._places.carries(follower.room, each.connector) for each in items)

    def changed(self, tx: Tx, alter: Alter, conversation: Conversation, card: Card) -> None:
        """The tool did what somebody asked for."""
        self.update(tx, conversation, alter.item, card)
        change = alter.change
        self._notice(
            tx, conversation, self._say("item-set", who=change.name, key=card.key, word=change.word, value=change.value)
        )

    def refused(self, tx: Tx, asked: Look | Alter, conversation: Conversation, connector: str, reason: str) -> None:
        """The tool did not do it, or has no such item: whoever asked hears why; who only mentioned it did not ask."""
        if isinstance(asked, Look) and not asked.follow:
            return
        body = self._say("tool-refused", connector=connector, reason=reason)
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
