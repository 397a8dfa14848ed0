"""The words of the bridge as frozen values: what arrives, what leaves, who said it. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bridge.text.plain import clean, one_line


class Rejected(Exception):
    """The other side refused this message for good: it becomes a dead letter and people are told why."""


class Gone(Rejected):
    """The tool has no such item any more: its card says so, and it is followed no longer."""


class Unavailable(Exception):
    """The other side is in trouble (down, slow, refuses our login): wait and try again, whatever the message.

    `retry_after` is the number of seconds the other side asked us to wait, or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Deferred(Exception):
    """The other side took nothing and asks to come again later with this message; others may go on."""


class Unconfirmed(Exception):
    """No clear answer came: the other side may have taken it or not. It is tried again, recognisable as the same."""


FAILURES = (Rejected, Deferred, Unavailable, Unconfirmed)


@dataclass(frozen=True, slots=True)
class Author:
    """A person on the other side: an account in a realm (the tool, or "mail" for an address everywhere the same)."""

    realm: str
    account: str  # a mail address, lower-cased; or the account's name in the tool
    name: str = ""
    verified: bool = False  # the other side vouches for the account; an unverified one never counts as inside
    domain: str = field(default="", compare=False)  # the account's, where accounts have one (mail); as it is compared


@dataclass(frozen=True, slots=True)
class File:
    """A file that is in the spool (`hash`), in the homeserver's media repository (`mxc`), or in both.

    `data` carries the bytes of a small file on their way into the spool; it is never written to a queue row.
    """

    name: str
    type: str  # media type, RFC 6838
    size: int  # bytes
    hash: str = ""  # SHA-256 of the content, hex
    mxc: str = ""
    data: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Report:
    """What the other side says later of something we sent: a bounce, a delivery status (RFC 3464)."""

    about: str  # uid of the delivery, or the remote id of the message
    recipient: str
    reason: str
    failed: bool = True


@dataclass(frozen=True, slots=True)
class Card:
    """How an item of a tool stands, for people: the one message about it that is edited in place."""

    item: str  # the tool's own name of it
    key: str  # how people call it: "issue12"
    title: str
    url: str = ""  # where people see it in the tool
    fields: tuple[tuple[str, str], ...] = ()  # label and value, the most important first; four are shown
    scope: str = ""  # which scope it belongs to; "": the connector's only one
    private: bool = False  # only for rooms that may see the tool's private notes
    gone: bool = False  # deleted in the tool: said once, and followed no longer


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message, or one change of an item, as it arrived from a tool; parsed at the edge.

    `refs` names the messages or items it answers, nearest first; `item` the item itself where the tool has a name for
    it (a ticket's number), "" where the item is known by its messages only (a mail thread). `memo` comes back to the
    plugin when somebody answers this message.
    """

    connector: str
    scopes: tuple[str, ...]
    key: str  # the other side's own identity of this message, for deduplication
    id: str  # how later messages will refer to it
    author: Author
    when: float  # seconds since the epoch, by the tool's clock; when it was asked, if the tool does not say
    title: str = ""
    topic: str = ""  # the title without what marks it as an answer: what a conversation is called; "": the title
    text: str = ""
    html: str = ""  # safe Matrix HTML, or ""
    item: str = ""
    refs: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()  # those of `refs` that it proves to answer: nobody else knows our signed ids
    people: tuple[Author, ...] = ()  # whom else it was sent to, ourselves left out
    files: tuple[File, ...] = ()
    original: File | None = None
    folded: int = 0  # lines of quoted text left out of `text` and `html`
    automatic: bool = False
    problem: str = ""  # what could not be read, for people
    report: Report | None = None
    memo: str = ""
    card: Card | None = None  # how the item stands now; `author` ("": nobody knows) has changed what differs
    begins: bool = False  # the item is new: worth a conversation although nothing is said yet
    private: bool = False  # only for rooms that may see the tool's private notes
    probe: str = ""  # uid of a trial of ours that comes back by it; nothing else of it matters then
    facts: tuple[tuple[str, str], ...] = ()  # by what mappings may choose, besides the card's fields: name and value
    urgent: bool = False  # it asks for a person: whoever has the conversation should notice


@dataclass(frozen=True, slots=True)
class Page:
    """What a poll brought: envelopes in the order in which they happened, and where the next poll goes on."""

    envelopes: tuple[Envelope, ...]
    cursor: str
    more: bool = False  # the tool has more of it now


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook as it came: header names lower-cased, the body whole."""

    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False  # brought again by an administrator: it must be genuine, however old it is


@dataclass(frozen=True, slots=True)
class Address:
    """Somebody an outward message goes to. Two addresses are equal when they reach the same account."""

    account: str
    name: str = field(default="", compare=False)
    domain: str = field(default="", compare=False)  # what `outward.domains` limits; "" where accounts have none

    def __str__(self) -> str:
        return f"{self.name} <{self.account}>" if self.name else self.account


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who would receive an outward message."""

    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()

    @property
    def all(self) -> tuple[Address, ...]:
        return self.to + self.cc


@dataclass(frozen=True, slots=True)
class Answered:
    """The message that an outward one answers, as its connector remembers it."""

    id: str
    refs: tuple[str, ...]  # what that message answered itself, nearest first
    title: str
    memo: str
    author: str
    scope: str


@dataclass(frozen=True, slots=True)
class History:
    """Which messages that were written before go with a draft, as a transcript."""

    root: str = ""  # of their thread; "": the room's main timeline
    last: int = 0  # only so many; 0: all
    only: str = ""  # just this one
    files: bool = False  # their files too
    whole: bool = False  # of the whole room, threads in it too


@dataclass(frozen=True, slots=True)
class Draft:
    """An outward message of an employee, on its way to one item of one connector."""

    connector: str
    scope: str
    item: int  # our number of the item
    title: str
    author: str  # Matrix user id of the employee who sends it
    author_name: str
    recipients: Recipients
    remote: str = ""  # the tool's own name of the item; for one that is still to be made, a name that we gave it
    account: str = ""  # the author's account in the tool, where that is proven
    link: str = ""  # to the message in Matrix that it is about: for colleagues who see the item in the tool
    text: str = ""
    html: str = ""  # Matrix HTML as the employee's client made it, not yet cleaned
    files: tuple[File, ...] = ()
    transcript: str = ""
    answered: Answered | None = None
    room: str = ""
    source: str = ""  # the event that holds the words
    trigger: str = ""  # the event that asked to send them
    asked: float = 0.0  # when, seconds since the epoch
    history: History | None = None
    parts: tuple[str, ...] = ()  # other events whose words or files are in it: a transcript's, joined files', edits
    reached: tuple[Address, ...] = ()  # those who have it already
    pending: tuple[Address, ...] = ()  # when some have it already: those still to be reached
    moved: str = ""  # where it is shown now, when its conversation went on in another room

    @property
    def rooms(self) -> tuple[str, ...]:
        """Where it can be stopped."""
        return tuple(dict.fromkeys(filter(None, (self.room, self.moved))))

    @property
    def whole(self) -> bool:
        """Whether it takes a message as it stands, whoever wrote it: that can be answered and sent as before."""
        return self.history is not None and self.history.only == self.source

    @property
    def plain(self) -> str:
        """All that it says, as plain text, never empty; and who says it, where the tool does not know that by the
        account.
        """
        who = "" if self.account else self.author_name or self.author
        text = self.text.strip() or ("" if self.transcript else ", ".join(file.name for file in self.files))
        begin, end = (f"{who}:" if text and who else "", "" if text or not who else f"— {who}")
        empty = [f"({file.name}: 0 bytes)" for file in self.files if not file.size]  # few tools take such a file
        said = "\n\n".join(filter(None, (begin, text, *empty, self.transcript.strip(), end, self.link)))
        return clean(said).strip() or "…"

    @property
    def heading(self) -> str:
        """What something new that is made of it is called: one line of at most 200 characters, never empty."""
        return (one_line(self.title) or one_line(self.plain))[:200]


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side's yes: the id it will be known by, and what became of single recipients."""

    id: str
    reply: str = ""  # what the other side said, without addresses: for the log, to find it there
    deferred: tuple[Address, ...] = ()  # not accepted yet: to be tried again
    refused: tuple[tuple[Address, str], ...] = ()  # refused for good, with the reason
    card: Card | None = None  # how the item stands now; for one that was made, its name too


@dataclass(frozen=True, slots=True)
class Change:
    """What an employee wants changed of an item: one of the connector's `words`, and what was typed after it.

    Instead of "me" the value is the employee's account in the tool.
    """

    item: str
    word: str
    value: str
    account: str  # the employee's account in the tool, where that is proven
    name: str  # the employee's name


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a connector's self-check."""

    ok: bool
    what: str
    remedy: str = ""
    most: int = 0  # bytes of files that one message to the tool may have, 0: it does not say


Lifecycle = Literal["ready", "asked", "held", "paused", "dead"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of the queue: one thing on its way to one destination.

    `uid` is its identity at the other side and never changes; `id` is its place in the lane. `payload` is JSON of what
    the destination delivers. `doubt` is when an attempt began of which we do not know how it ended.
    """

    id: int
    uid: str
    lane: str
    destination: str  # "matrix", or a connector's name
    kind: str
    payload: str
    state: Lifecycle
    conversation: int | None
    created: float
    attempts: int = 0
    due: float = 0.0
    doubt: float | None = None
    error: str = ""
    hold: float = 0.0  # seconds still to be held

    @property
    def again(self) -> bool:
        """Whether an earlier attempt may have succeeded unnoticed."""
        return self.attempts > 1


@dataclass(frozen=True, slots=True)
class RoomEvent:
    """A Matrix event of a room, parsed at the edge; what does not apply is "" or None."""

    id: str
    room: str
    sender: str
    type: str
    when: float = 0.0  # seconds since the epoch, as the homeserver says
    msgtype: str = ""
    body: str = ""  # without the fallback of a rich reply
    html: str = ""  # formatted_body without the fallback
    thread: str = ""  # root of the thread it is in
    answers: str = ""  # event it is a rich reply to (never a thread's fallback)
    replaces: str = ""  # event whose words this one replaces
    target: str = ""  # event a reaction or a redaction is about
    key: str = ""  # of a reaction, without U+FE0F
    file: File | None = None
    state_key: str | None = None
    membership: str = ""
    name: str = ""  # display name in a membership
    delivery: str = ""  # uid of the delivery that an event of ours came from


@dataclass(frozen=True, slots=True)
class Question:
    """What `passerelle init` asks: in the terminal, or as the flag --NAME.

    `text` says in a line what is wanted. `default` may name earlier answers, as {domain}; "" is an answer only when it
    fits `pattern`, which the whole answer must. `example` is shown when it does not.
    """

    name: str
    text: str
    default: str = ""
    pattern: str = r"\S+"
    example: str = ""
    secret: bool = False  # not shown while it is typed


@dataclass(frozen=True, slots=True)
class Starter:
    """What `passerelle init` makes of the answers: `section` is the connector's part of the configuration, as YAML with
    comments; `scope` is what a room is mapped to first; `steps` are lines that tell what is to be done in the tool.
    """

    section: str
    scope: str
    steps: Sequence[str] = ()
