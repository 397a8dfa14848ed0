"""Reading a command out of a message. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.model import RoomEvent

_COMMAND = re.compile(r"!([a-zà-ÿ-]{2,20})(?=\s|$)", re.IGNORECASE)
_HTML_COMMAND = re.compile(
    r"\A((?:\s|<(?:p|div|span|font)(?:\s[^<>]{0,200})?>)*)!([a-zà-ÿ-]{2,20})(?=\s|&nbsp;|<|\Z)(?:\s|&nbsp;|<br\s*/?>)*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Command:
    """A word after "!" and what follows it; `html` is that in Matrix HTML, or ""."""

    name: str
    rest: str
    html: str = ""

    @property
    def first_line(self) -> str:
        return self.rest.partition("\n")[0].strip()

    @property
    def following(self) -> str:
        return self.rest.partition("\n")[2].strip()


def command_of(event: RoomEvent) -> Command | None:
    """The command a message is, or None. Only the very start of what a person typed counts.

    Notices come from bots, code is shown and not meant, a quoted command is somebody else's: where there is formatted
    text, that too must begin with the command, bare.
    """
    if event.type != "m.room.message" or event.msgtype != "m.text" or event.replaces:
        return None
    match = _COMMAND.match(event.body)
    if match is None:
        return None
    html = _HTML_COMMAND.match(event.html)
    if event.html and (html is None or html[2].lower() != match[1].lower()):
        return None
    rest = html[1] + event.html[html.end() :] if html else ""
    return Command(match[1].lower(), event.body[match.end() :].strip(), rest)
