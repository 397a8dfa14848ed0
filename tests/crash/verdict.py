"""What became of everything: the rooms as the homeserver has them, the sink, and what was promised, compared."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.crash.desks import MailDesk, Reply, marks_in_sink
from tests.crash.load import MAIL_MARK, Customer
from tests.crash.stage import Stage
from tests.peers.employee import body, relation, thread_of

STUB = "cannot be shown here"


@dataclass
class Count:
    """The figures, and the evidence for those that should be zero; lost, duplicated, reordered: the tools' too."""

    kills: int = 0
    accepted: int = 0  # mails
    lost: int = 0
    duplicated: int = 0
    mail_repeats: int = 0
    reordered: int = 0
    astray: int = 0  # in the wrong room or thread, or to the wrong recipient
    replies: int = 0  # by mail
    comments: int = 0  # in the tools: of customers, to be shown here, and ours, asked for here
    comments_lost: int = 0
    comments_doubled: int = 0
    items: int = 0  # in the tools, likewise
    items_lost: int = 0
    items_doubled: int = 0
    rescued: int = 0  # replies that a person had to send or try again, visibly asked to
    seconds: int = 0
    seed: int = 0
    more: dict[str, Any] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered or self.astray)

    def line(self) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self).items() if name not in ("more", "evidence")}
        return plain | self.more

    def blame(self, figure: str, what: str, *also: str) -> None:
        for each in (figure, *also):
            setattr(self, each, getattr(self, each) + 1)
        self.evidence.append(f"{figure}: {what}")

    def once(self, what: str, kind: str, found: Sequence[object]) -> None:
        """Of this `kind` ("comments", "items") there should be one."""
        if not found:
            self.blame("lost", f"{what} is nowhere", f"{kind}_lost")
        for _ in found[1:]:
            self.blame("duplicated", f"{what}: {found}", f"{kind}_doubled")


@dataclass
class Shown:
    """A mail as a room shows it."""

    room: str
    place: int
    event: str
    thread: str


async def judge(stage: Stage, customers: list[Customer], desks: list[MailDesk], count: Count) -> None:
    """Fill in the figures."""
    timelines = await stage.timelines()
    shown = _shown(timelines, {stage.ghost(each.address) for each in customers})
    for customer in customers:
        _mails(stage, customer, shown, count)
        _order(customer, shown, count)
    _deliveries(timelines, count)
    _replies(stage, desks, count)


def _shown(timelines: dict[str, list[dict[str, Any]]], ghosts: set[str]) -> dict[str, list[Shown]]:
    found: defaultdict[str, list[Shown]] = defaultdict(list)
    for room, events in timelines.items():
        for place, event in enumerate(events):
            mark = MAIL_MARK.search(body(event)) if event["type"] == "m.room.message" else None
            if mark and event["sender"] in ghosts:
                thread = thread_of(event) or event["event_id"]
                found[mark[0]].append(Shown(room, place, event["event_id"], thread))
    return found


def _mails(stage: Stage, customer: Customer, shown: dict[str, list[Shown]], count: Count) -> None:
    for mail in customer.written:
        if mail.refused or not mail.accepted:
            count.blame("lost", f"{mail.mark} was never accepted: {mail.refused}")
            continue
        count.accepted += 1
        there = shown.get(mail.mark, [])
        if not there:
            count.blame("lost", f"{mail.mark} is nowhere")
        for _ in there[1:]:
            count.blame("duplicated", f"{mail.mark}: {[each.event for each in there]}")
        if any(each.room != stage.rooms[mail.mailbox] for each in there):
            count.blame("astray", f"{mail.mark} is in {there[0].room}")
        parent = shown.get(mail.parent, [])
        if parent and there and parent[0].thread != there[0].thread:
            count.blame("astray", f"{mail.mark} is not in the thread of {mail.parent}")


def _order(customer: Customer, shown: dict[str, list[Shown]], count: Count) -> None:
    """In each thread, a customer's mails stand in the order in which they were written down."""
    last: dict[str, tuple[int, str]] = {}
    large = {mail.mark for mail in customer.written if mail.large}  # shown again at the end, on request
    for mark in customer.order:
        for each in shown.get(mark, [])[:1] if mark not in large else []:
            before = last.get(each.thread)
            if before and before[0] > each.place:
                count.blame("reordered", f"{mark} stands before {before[1]}")
            last[each.thread] = (each.place, mark)


def _deliveries(timelines: dict[str, list[dict[str, Any]]], count: Count) -> None:
    """Whoever speaks: one delivery, one event."""
    uids = Counter(
        event["content"]["org.passerelle.delivery"]
        for events in timelines.values()
        for event in events
        if "org.passerelle.delivery" in event["content"]
    )
    for uid, times in uids.items():
        if times > 1:
            count.blame("duplicated", f"the delivery {uid} is {times} events")


def _replies(stage: Stage, desks: Iterable[MailDesk], count: Count) -> None:
    arrived = marks_in_sink(stage)
    known: set[str] = set()
    for desk in desks:
        for reply in desk.replies():
            count.replies += 1
            known.add(reply.mark)
            _reply(reply, desk, arrived.get(reply.mark, []), count)
    for mark in set(arrived) - known:
        count.blame("astray", f"{mark} left and nobody asked for it")


def _reply(reply: Reply, desk: MailDesk, mails: list[Any], count: Count) -> None:
    said = [body(each)[:80] for each in desk.answers(reply)]
    if not mails:
        count.blame("lost", f"{reply.mark} by {reply.author} never left; the bot said {json.dumps(said)}")
        return
    count.rescued += bool(desk.troubles(reply))
    count.mail_repeats += len(mails) - 1
    if len({mail["Message-ID"] for mail in mails}) > 1:
        count.blame("duplicated", f"{reply.mark} left under several Message-IDs")
    for mail in mails:
        if mail.recipients != (reply.partner,):
            count.blame("astray", f"{reply.mark} went to {mail.recipients}, not to {reply.partner}")


def stubs(timelines: dict[str, list[dict[str, Any]]], address: str) -> int:
    """How many mails of a customer are announced as too large to be shown."""
    return sum(
        STUB in body(event) and address in body(event) and relation(event).get("rel_type") != "m.replace"
        for events in timelines.values()
        for event in events
    )
