"""Reading a command out of a message. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.model import RoomEvent

_COMMAND = re.compile(r"!([a-zà-ÿ-]{2,20})(?=\s|$)", re.IGNORECASE)
_HTML_COMMAND = re.compile(r"\A((?:\s|<p>|<div>)*)!([a-zà-ÿ-]{2,20})(?:\s|&nbsp;|<br\s*/?>)*", re.IGNORECASE)
_CODE = re.compile(r"\A\s*<(pre|code)\b", re.IGNORECASE)


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

    Notices come from bots, code is shown and not meant, a quoted command is somebody else's.
    """
    if event.type != "m.room.message" or event.msgtype != "m.text" or event.replaces:
        return None
    match = _COMMAND.match(event.body)
    if match is None or _CODE.match(event.html):
        return None
    return Command(match[1].lower(), event.body[match.end() :].strip(), _rest_of_html(event.html, match[1]))


def _rest_of_html(html: str, name: str) -> str:
    match = _HTML_COMMAND.match(html)
    return match[1] + html[match.end() :] if match and match[2].lower() == name.lower() else ""
