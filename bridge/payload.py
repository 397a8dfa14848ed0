"""What deliveries carry, as JSON: what is to appear in a room, and drafts on their way outward."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from bridge.config import Mapping
from bridge.model import Author, Card, Change, Draft, Envelope, File, Recipients, RoomEvent

T = TypeVar("T")

EVERYBODY = "@room"  # among the mentions of a post: all who are there


@dataclass(frozen=True, slots=True)
class Post:
    """A message to show in a room, in the thread of its conversation if it has one; by a ghost or the bot."""

    room: str
    body: str
    html: str = ""
    author: Author | None = None  # None: the bot
    notice: bool = False
    mentions: tuple[str, ...] = ()
    file: File | None = None
    answers: str = ""  # event it is a rich reply to
    answers_message: int = 0  # or our number of that message, while its event is not known
    message: int = 0  # our number of the message it shows
    thread: str = ""  # root of a thread that is no conversation's (any more)
    private: str = ""  # the connector of whose private notes it is: judged once more when it is shown


@dataclass(frozen=True, slots=True)
class Reword:
    """New words for a message of the bot."""

    room: str
    event: str
    body: str
    html: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A reaction of the bot."""

    room: str
    event: str
    key: str


@dataclass(frozen=True, slots=True)
class Unmark:
    """Taking back a reaction of the bot."""

    room: str
    event: str
    key: str


@dataclass(frozen=True, slots=True)
class CardPost:
    """How an item stands: a message of the bot, edited in place from then on."""

    room: str
    item: int  # our number of it
    body: str
    html: str


@dataclass(frozen=True, slots=True)
class LinePost:
    """What was changed of an item within a minute: a message of the bot, edited in place."""

    room: str
    item: int  # our number of it
    line: int  # our number of this line
    body: str
    html: str = ""


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """Somebody wants a conversation to have a room of its own."""

    room: str  # where it is so far
    conversation: int
    name: str
    sender: str
    event: str  # where it was asked for


@dataclass(frozen=True, slots=True)
class Gather:
    """Invite people into a room."""

    room: str
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pin:
    """The cards of a conversation are what its own room has pinned."""

    room: str


@dataclass(frozen=True, slots=True)
class Archive:
    """A conversation leaves its own room, which is kept to be read."""

    room: str
    sender: str  # who closed it; "": nobody is left there
    summary: str


@dataclass(frozen=True, slots=True)
class Look:
    """Somebody named an item of a tool: look at it, and show how it stands."""

    room: str
    remote: str  # the tool's own name of it
    scope: str
    event: str  # where it was named
    follow: bool  # from now on the conversation hears of it
    text: str = ""  # how it was named


@dataclass(frozen=True, slots=True)
class Alter:
    """Somebody wants an item changed."""

    room: str
    item: int  # our number of it
    change: Change
    event: str  # where it was asked for
    sender: str = ""  # who asked


@dataclass(frozen=True, slots=True)
class Preview:
    """Show an outward message before it leaves; what it is made of is fetched first."""

    room: str
    draft: str  # uid of its delivery


@dataclass(frozen=True, slots=True)
class Enter:
    """Somebody of the company invited the bot into a room."""

    room: str
    sender: str


@dataclass(frozen=True, slots=True)
class Locate:
    """Somebody wants a message sent that was written before its thread became a conversation: find its thread."""

    room: str
    request: RoomEvent


@dataclass(frozen=True, slots=True)
class Rights:
    """The power levels of a room were changed: see which rights are missing there."""

    room: str


@dataclass(frozen=True, slots=True)
class Survey:
    """Somebody wants a part of a tool mapped to a room: see whether the tool has that; without a scope, what it has."""

    room: str
    sender: str
    event: str  # where it was asked for
    mapping: Mapping


@dataclass(frozen=True, slots=True)
class Find:
    """Somebody looks for words, over all that may be seen where it is asked."""

    room: str
    sender: str
    event: str  # where it was asked
    words: str  # on one line


@dataclass(frozen=True, slots=True)
class Trial:
    """Somebody tries a mapping: what is sent through it must come back."""

    room: str
    scope: str
    event: str  # where it was asked for
    step: Literal["look", "send", "wait"] = "look"
    sent: float = 0.0  # when it left
    back: Author | None = None  # it came back, from whom, before we heard that it had left


@dataclass(frozen=True, slots=True)
class Chart:
    """Somebody wants a mapping made, or undone: see whether who asks has power in the room, and what the bot may do."""

    room: str
    sender: str
    event: str
    mapping: Mapping
    undo: bool = False


@dataclass(frozen=True, slots=True)
class Announce:
    """What is mapped to a room is not what it was told last."""

    room: str


@dataclass(frozen=True, slots=True)
class Follow:
    """A room was upgraded: go to the room that replaces it."""

    room: str
    sender: str = ""  # whose homeserver is certainly in the new one


@dataclass(frozen=True, slots=True)
class Decline:
    """Somebody invited one of our users to where it does not go."""

    room: str
    mxid: str
    sender: str


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody has left a room: see whether anybody is still there."""

    room: str


KINDS: dict[str, type[Any]] = {
    "post": Post,
    "reword": Reword,
    "mark": Mark,
    "unmark": Unmark,
    "card": CardPost,
    "line": LinePost,
    "look": Look,
    "change": Alter,
    "preview": Preview,
    "room": MakeRoom,
    "gather": Gather,
    "pin": Pin,
    "archive": Archive,
    "stands": Card,
    "enter": Enter,
    "locate": Locate,
    "rights": Rights,
    "survey": Survey,
    "find": Find,
    "trial": Trial,
    "chart": Chart,
    "announce": Announce,
    "follow": Follow,
    "decline": Decline,
    "left": Left,
    "draft": Draft,
    "recipients": Recipients,
    "event": RoomEvent,
    "envelope": Envelope,
}
_names = {kind: name for name, kind in KINDS.items()}
_adapters = {name: TypeAdapter(kind) for name, kind in KINDS.items()}
_file = TypeAdapter(File)


def kind_of(value: object) -> str:
    """The `kind` of a delivery that carries this payload."""
    return _names[type(value)]


def dump(value: object) -> str:
    """The payload as JSON; the bytes of small files stay out of it."""
    return _adapters[kind_of(value)].dump_json(value, exclude=_WITHOUT_DATA.get(type(value))).decode()


def dump_anyway(value: object) -> str:
    """As `dump`; what is no text (lone surrogates) becomes question marks."""
    try:
        return dump(value)
    except PydanticSerializationError:
        plain = _adapters[kind_of(value)].dump_python(value, exclude=_WITHOUT_DATA.get(type(value)))
        return json.dumps(plain, ensure_ascii=False).encode(errors="replace").decode()


def load(kind: type[T], text: str) -> T:
    """The payload from JSON. Raises `pydantic.ValidationError` when it is no such payload."""
    value: T = _adapters[_names[kind]].validate_json(text)
    return value


def dump_file(file: File | None) -> str:
    return _file.dump_json(file, exclude={"data"}).decode() if file else ""


def load_file(text: str) -> File:
    return _file.validate_json(text)


_FILES = {"files": {"__all__": {"data"}}}
_WITHOUT_DATA: dict[type, Any] = {
    Post: {"file": {"data"}},
    Draft: _FILES,
    Envelope: {**_FILES, "original": {"data"}},
}
