"""What leaves: a draft is asked, previewed, held, perhaps paused, released, sent; until then it can be stopped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bridge import payload
from bridge.config import Config
from bridge.items import Items
from bridge.model import Address, Card, Delivery, Draft, Recipients, Report, Sent
from bridge.payload import Mark, Post, Preview, Reword, Unmark
from bridge.places import Places
from bridge.present import MOST_REWORDED, leaving, preview
from bridge.restored import doubtful
from bridge.store import Conversation, Message, Tx
from bridge.text.plain import spoken
from bridge.texts import Texts

HELD, LEFT, FAILED = "⏳", "✉️", "⚠️"
_BEGUN = "begun:"
RECENT = 600  # seconds in which messages of one scope to one address are counted


class Refusal(Exception):
    """What was asked is not possible; the text says why and what to do instead."""


class Outward:
    """The rules of drafts. Each method is a rule: it runs inside one transaction."""

    def __init__(self, config: Config, places: Places, items: Items, say: Texts) -> None:
        self._config = config
        self._places = places
        self._items = items
        self._say = say

    # --- asked

    def ask(self, tx: Tx, draft: Draft, conversation: Conversation) -> str:
        """Write down a draft and ask the room for confirmation. Raises `Refusal` when policy forbids it."""
        draft = leaving(draft)
        self.check(draft)
        uid = tx.queue.add_draft(
            f"{draft.connector}:{conversation.id}", draft.connector, payload.dump(draft), conversation.id,
            draft.author, draft.source, draft.trigger,
        )  # fmt: skip
        self._places.post(tx, Preview(draft.room, uid), conversation.id)
        return uid

    def check(self, draft: Draft) -> None:
        """The policy, in one place for every way out. Raises `Refusal`."""
        if draft.rooms and not self._places.serves(draft.rooms[-1], draft.connector, draft.scope):
            raise Refusal(self._say("not-mapped-any-more", scope=draft.scope, connector=draft.connector))
        allowed = self._config.outward.domains
        for address in draft.recipients.all:
            reached_by_address = address.domain or "@" in address.account
            if allowed and reached_by_address and address.domain not in allowed:
                domains = ", ".join(sorted(allowed))
                raise Refusal(self._say("domain-not-allowed", address=address.account, domains=domains))
        total = sum(file.size for file in draft.files)
        if total > self._config.outward.max_size:
            limit = spoken(self._config.outward.max_size)
            raise Refusal(self._say("too-much", size=spoken(total), limit=limit))

    def shown(self, tx: Tx, uid: str, event: str) -> None:
        """The preview is in the room: the hold begins, and people see that something waits."""
        delivery = tx.queue.get(uid)
        if delivery is None:  # cancelled before anybody saw it
            return
        draft = payload.load(Draft, delivery.payload)
        if tx.queue.preview_of(uid) != event:
            self._reword(tx, delivery, draft, self._say("preview-newer"))
        tx.queue.previewed(uid, event)
        assert delivery.conversation is not None
        tx.conversations.add_message(delivery.conversation, "bot", self._config.bot_mxid, event=event, memo=uid)
        if delivery.state in ("asked", "held"):
            seconds = self._config.outward.hold
            tx.queue.move(uid, "held", hold=seconds)
            tx.timers.append((uid, seconds))
        elif delivery.state == "paused":  # perhaps while the preview was on its way: what it says may be too old
            self._say_paused(tx, delivery, draft)
        self._mark(tx, delivery, draft, HELD)

    def footer(self, delivery: Delivery) -> str:
        """The last line of a preview: when it leaves, or why it does not."""
        if delivery.state == "paused":
            return self._say("preview-paused", why=delivery.error)
        return self._say("preview-hold", seconds=round(self._config.outward.hold))

    def filled(self, tx: Tx, uid: str, before: Draft, after: Draft) -> Draft | None:
        """Content that was fetched; an edit that came meanwhile wins. None when there is nothing left to preview.

        Raises `Refusal` when policy forbids what it has become.
        """
        delivery = tx.queue.get(uid)
        if delivery is None or delivery.state not in ("asked", "held", "paused"):  # cancelled, or sent at once
            return None
        now = payload.load(Draft, delivery.payload)
        if now != before:
            files = after.files if now.files == before.files else now.files
            parts = tuple(dict.fromkeys((*now.parts, *after.parts)))
            after = replace(after, text=now.text, html=now.html, files=files, parts=parts)
        after = leaving(after)
        self.check(after)
        if any(map(tx.conversations.taken_back, after.parts)):  # while it was fetched
            raise Refusal(self._say("part-gone"))
        if not after.text and not after.history and after.files and self._joined(tx, delivery, after):
            return None
        tx.queue.amend(uid, payload.dump(after))
        return after

    def _joined(self, tx: Tx, delivery: Delivery, draft: Draft) -> bool:
        """A file sent while the author's own words wait for the same people goes with them, previewed again, whole."""
        assert delivery.conversation is not None
        for other in tx.queue.waiting(delivery.conversation, "asked", "held"):
            words = payload.load(Draft, other.payload)
            parts = (*words.parts, *draft.parts, draft.source, draft.trigger)
            joined = replace(words, files=(*words.files, *draft.files), parts=parts)
            same = (words.author, words.item, words.recipients) == (draft.author, draft.item, draft.recipients)
            if other.uid != delivery.uid and same and self._allows(joined):
                tx.queue.amend(other.uid, payload.dump(joined))
                tx.queue.move(other.uid, "asked")  # nobody has seen yet what leaves now: no hold runs
                tx.queue.drop(delivery.uid)
                self._places.post(tx, Preview(draft.room, other.uid), delivery.conversation)
                return True
        return False

    def _allows(self, draft: Draft) -> bool:
        try:
            self.check(draft)
        except Refusal:
            return False
        return True

    def unfit(self, tx: Tx, uid: str, reason: str) -> None:
        """What was to be sent cannot be: it is dropped and the room is told."""
        delivery = tx.queue.get(uid)
        if delivery is not None:
            tx.queue.drop(uid)
            draft = payload.load(Draft, delivery.payload)
            self._unbegin(tx, delivery, draft)
            self._notice(tx, delivery, draft, self._say("cannot-answer", reason=reason), mentions=(draft.author,))

    # --- stopped, changed, paused

    def cancel(self, tx: Tx, delivery: Delivery) -> bool:
        """Stop a draft, or forget a failed one; False (and the room is told) when it has left or may have."""
        draft = payload.load(Draft, delivery.payload)
        if delivery.state == "ready" and delivery.doubt is not None:
            self._notice(tx, delivery, draft, self._say("left-already"))
            return False
        stopped = self._say("preview-stopped", to=_named(draft.reached), others=_named(draft.pending))
        self._reword(tx, delivery, draft, stopped if draft.pending else self._say("preview-cancelled"))
        self._unmark(tx, delivery, draft, FAILED if delivery.state == "dead" else HELD)
        tx.queue.drop(delivery.uid)
        self._unbegin(tx, delivery, draft)
        return True

    def _unbegin(self, tx: Tx, delivery: Delivery, draft: Draft) -> None:
        """What its very command had begun with people outside is over, if they never got a word."""
        assert delivery.conversation is not None
        begun = tx.conversations.item_named(draft.connector, draft.remote)
        own = draft.remote in (beginning(draft.source), beginning(draft.trigger))
        if own and begun == draft.item and tx.conversations.answerable(delivery.conversation, draft.item) is None:
            tx.conversations.unlink(delivery.conversation, draft.item)

    def spoil(self, tx: Tx, delivery: Delivery) -> None:
        """Something that its author did not write himself was changed or taken back: it does not leave like this."""
        draft = payload.load(Draft, delivery.payload)
        if not draft.pending and self.cancel(tx, delivery):
            self._notice(tx, delivery, draft, self._say("spoiled"), mentions=(draft.author,))

    def edit(self, tx: Tx, delivery: Delivery, changed: Draft) -> None:
        """The author changed the words: so does what leaves, and the hold begins again. Raises `Refusal`."""
        if changed.pending:  # some have it as it was, so must the others
            return
        if delivery.state == "ready" and delivery.doubt is not None:
            self._notice(tx, delivery, changed, self._say("left-already"))
            return
        changed = leaving(changed)
        self.check(changed)
        tx.queue.amend(delivery.uid, payload.dump(changed))
        event = tx.queue.preview_of(delivery.uid)
        body, html = preview(changed, self._say, self.footer(delivery))
        if not event or len(body.encode()) > MOST_REWORDED:  # one in flight may show the old words, an edit not all
            if delivery.state in ("held", "ready"):
                tx.queue.move(delivery.uid, "asked")
            self._places.post(tx, Preview(changed.room, delivery.uid), delivery.conversation)
            return
        if delivery.state in ("held", "ready"):
            tx.queue.move(delivery.uid, "held", hold=self._config.outward.hold)
            tx.timers.append((delivery.uid, self._config.outward.hold))
        self._places.post(tx, Reword(changed.room, event, body, html), delivery.conversation)

    def pause(self, tx: Tx, delivery: Delivery, why: str) -> None:
        """It stays until somebody says `!send`."""
        tx.queue.move(delivery.uid, "paused", error=why)
        self._say_paused(tx, replace(delivery, state="paused", error=why), payload.load(Draft, delivery.payload))

    def _say_paused(self, tx: Tx, delivery: Delivery, draft: Draft) -> None:
        event = tx.queue.preview_of(delivery.uid)
        if event:  # else it is said when the preview is in the room
            body, html = preview(draft, self._say, self.footer(delivery))
            self._places.post(tx, Reword(draft.room, event, body, html), delivery.conversation)
            self._notice(tx, delivery, draft, self.footer(delivery), mentions=(draft.author,))

    def pause_all(self, tx: Tx, conversation: Conversation, why: str) -> None:
        """Somebody outside wrote meanwhile: what is asked or held in the conversation waits for a second look."""
        for delivery in tx.queue.waiting(conversation.id, "asked", "held"):
            self.pause(tx, delivery, why)

    # --- released

    def hold_over(self, tx: Tx, uid: str, held: str) -> None:
        """The hold of this very payload has run out: it leaves, unless something happened meanwhile."""
        delivery = tx.queue.get(uid)
        if delivery is None or delivery.state != "held" or delivery.payload != held:
            return
        draft = payload.load(Draft, delivery.payload)
        if why := self._second_look(tx, uid, draft):
            self.pause(tx, delivery, why)
        else:
            self._release(tx, uid, draft)

    def _release(self, tx: Tx, uid: str, draft: Draft) -> None:
        """It is counted now and not when it has left: many whose holds end together would all pass the breaker."""
        accounts = (address.account for address in draft.recipients.all)
        tx.queue.note_released(uid, draft.connector, draft.scope, accounts)
        tx.queue.move(uid, "ready")

    def _second_look(self, tx: Tx, uid: str, draft: Draft) -> str:
        if why := doubtful(tx, self._say, draft.asked):
            return why
        if self._places.awaits_successor(self._places.successor(draft.room)):
            return self._say("why-upgraded")
        if (age := time.time() - draft.asked) > self._config.outward.ask_again:
            return self._say("why-old", minutes=round(age / 60))
        most = self._config.outward.per_address
        for address in draft.recipients.all if most else ():
            since = time.time() - RECENT
            count = tx.queue.recent_to(draft.connector, draft.scope, address.account, since, but=uid)
            if count >= most:
                return self._say("why-often", count=count, scope=draft.scope, address=address.account)
        return ""

    def send_now(self, tx: Tx, delivery: Delivery) -> None:
        """Its author said `!send`: no more waiting."""
        draft = _anew(tx, delivery)
        tx.queue.amend(delivery.uid, payload.dump(draft))
        self._release(tx, delivery.uid, draft)

    def ask_again(self, tx: Tx) -> None:
        """After a start: what was released long ago and certainly has not left is asked again."""
        for delivery in tx.queue.drafts_ready():
            self.look_again(tx, delivery.uid)

    def look_again(self, tx: Tx, uid: str) -> None:
        """The same for one draft, as before an attempt after a long outage."""
        delivery = tx.queue.get(uid)
        if delivery is None or delivery.state != "ready" or delivery.doubt is not None:
            return
        draft = payload.load(Draft, delivery.payload)
        if self.is_old(draft):
            self.pause(tx, delivery, self._say("why-old", minutes=round((time.time() - draft.asked) / 60)))

    def is_old(self, draft: Draft) -> bool:
        """Asked so long ago that nobody expects any more that it leaves; what some have already is not stopped."""
        return not draft.pending and time.time() - draft.asked > self._config.outward.ask_again

    # --- left, or not

    def sent(self, tx: Tx, delivery: Delivery, draft: Draft, sent: Sent) -> float | None:
        """The other side said yes, at least for some: remember its id, tell the room, try the others again."""
        conversation = delivery.conversation
        assert conversation is not None
        made = begins(draft)
        if sent.card is not None:
            draft = self._carded(tx, draft, conversation, sent.card)
        if tx.conversations.message_of_uid(delivery.uid) is None:
            self._first_yes(tx, draft, sent, conversation, delivery.uid)
        for address, reason in sent.refused:
            self._notice(tx, delivery, draft, self._say("partly-refused", address=address.account, reason=reason))
        failed = {*sent.deferred, *(address for address, _ in sent.refused)}
        now = tuple(address for address in draft.pending or draft.recipients.all if address not in failed)
        draft = replace(draft, reached=(*draft.reached, *now), pending=sent.deferred)
        self._show_left(tx, delivery, draft, sent.card.key if sent.card and made else "")
        if not sent.deferred:
            return None
        tx.queue.amend(delivery.uid, payload.dump(draft))
        retry = self._config.retry
        return time.time() + min(retry.longest, retry.first * 2.0 ** min(delivery.attempts, 30))

    def _carded(self, tx: Tx, draft: Draft, number: int, card: Card) -> Draft:
        """The tool says how the item stands now, and what it is called if it is new."""
        conversation = tx.conversations.get(number)
        assert conversation is not None
        if begins(draft):
            return replace(draft, item=self._items.made(tx, draft, conversation, card), remote=card.item)
        self._items.update(tx, conversation, draft.item, card)
        return draft

    def _first_yes(self, tx: Tx, draft: Draft, sent: Sent, conversation: int, uid: str) -> None:
        refs = (draft.answered.id, *draft.answered.refs) if draft.answered else ()
        tx.conversations.add_message(
            conversation, "outward", draft.author, item=draft.item, remote=sent.id, refs=refs[:20],
            event=draft.trigger if draft.whole else draft.source, title=draft.title,
            memo=draft.answered.memo if draft.answered else "", uid=uid,
        )  # fmt: skip
        tx.conversations.refer(draft.connector, (sent.id,), draft.item)
        tx.conversations.admit(draft.item, (address.account for address in draft.recipients.all))
        tx.conversations.spoke(conversation, draft.author)

    def _show_left(self, tx: Tx, delivery: Delivery, draft: Draft, made: str) -> None:
        self._unmark(tx, delivery, draft, HELD)
        self._mark(tx, delivery, draft, LEFT)
        body = self._say("preview-sent", connector=draft.connector, to=_named(draft.reached))
        if made:
            body = self._say("preview-made", connector=draft.connector, key=made)
        if draft.pending:
            body += "\n" + self._say("preview-waiting", to=_named(draft.pending))
        self._reword(tx, delivery, draft, body)

    def waits(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """The other side asks to come again later: the preview says so, for that may take days."""
        draft = payload.load(Draft, delivery.payload)
        if not draft.pending:  # else it says already for whom
            self._reword(tx, delivery, draft, self._say("preview-deferred", connector=draft.connector, reason=reason))

    def gave_up(self, tx: Tx, delivery: Delivery, reason: str) -> None:
        """It will not leave by itself any more: the author is told why."""
        draft = payload.load(Draft, delivery.payload)
        self._unmark(tx, delivery, draft, HELD)
        self._mark(tx, delivery, draft, FAILED)
        to = _named(draft.pending or draft.recipients.all)
        body = self._say("failed" if delivery.doubt is None else "failed-perhaps", to=to, reason=reason)
        self._notice(tx, delivery, draft, body, mentions=(draft.author,))

    def retry(self, tx: Tx, delivery: Delivery) -> None:
        """A dead draft is asked again, with a new preview and a new hold."""
        draft = _anew(tx, delivery)
        tx.queue.revive(delivery.uid, "asked", payload.dump(draft))
        self._unmark(tx, delivery, draft, FAILED)
        self._places.post(tx, Preview(draft.room, delivery.uid), delivery.conversation)

    def bounced(self, tx: Tx, message: Message, report: Report, number: int) -> None:
        """The other side could not deliver what it had accepted; `number` is the report itself, for `!original`."""
        conversation = tx.conversations.get(message.conversation)
        assert conversation is not None
        body = self._say("bounced", recipient=report.recipient, reason=report.reason)
        post = Post(
            conversation.room, body, notice=True, answers=message.event, mentions=(message.sender,), message=number
        )
        self._places.post(tx, post, conversation.id)
        if message.event:
            self._places.post(tx, Mark(conversation.room, message.event, FAILED), conversation.id)

    # --- what the room sees

    def _notice(self, tx: Tx, delivery: Delivery, draft: Draft, body: str, mentions: Sequence[str] = ()) -> None:
        post = Post(draft.room, body, notice=True, answers=draft.source, mentions=tuple(mentions))
        self._places.post(tx, post, delivery.conversation)

    def _mark(self, tx: Tx, delivery: Delivery, draft: Draft, key: str) -> None:
        if draft.source:
            self._places.post(tx, Mark(draft.room, draft.source, key), delivery.conversation)

    def _unmark(self, tx: Tx, delivery: Delivery, draft: Draft, key: str) -> None:
        if draft.source:
            self._places.post(tx, Unmark(draft.room, draft.source, key), delivery.conversation)

    def _reword(self, tx: Tx, delivery: Delivery, draft: Draft, body: str) -> None:
        event = tx.queue.preview_of(delivery.uid)
        if event:
            self._places.post(tx, Reword(draft.room, event, body), delivery.conversation)


def _anew(tx: Tx, delivery: Delivery) -> Draft:
    """The draft as if it were asked now: whose account is whose may have changed."""
    draft = payload.load(Draft, delivery.payload)
    return replace(draft, asked=time.time(), account=tx.people.account(draft.author, draft.connector))


def beginning(event: str) -> str:
    """The name of the item that the command in this event begins, until the other side has named it."""
    return f"{_BEGUN}{event}"


def begins(draft: Draft) -> bool:
    """Whether the other side has no name yet for the item it goes to."""
    return draft.remote.startswith(_BEGUN)


def everyone(recipients: Recipients) -> str:
    return _named(recipients.all)


def _named(addresses: Iterable[Address]) -> str:
    return ", ".join(address.account for address in addresses)
