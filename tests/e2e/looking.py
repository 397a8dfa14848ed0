"""What to look for in a room, in a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.peers.employee import body, relation

Event = dict[str, Any]
Look = Callable[[Event], bool]


def says(text: str, sender: str = "") -> Look:
    """A message with this text, by somebody whose id contains `sender`."""
    return lambda event: text in body(event) and sender in event["sender"]


def marks(event_id: str, key: str) -> Look:
    """A reaction on that event."""
    return lambda event: (
        event["type"] == "m.reaction" and relation(event).get("event_id") == event_id and relation(event)["key"] == key
    )


def shows_file(name: str) -> Look:
    """A message that shows a file of that name."""
    return lambda event: event["content"].get("filename") == name


def membership(mxid: str, state: str) -> Look:
    """Somebody's membership becomes that: join, leave …"""
    return lambda event: event.get("state_key") == mxid and event["content"].get("membership") == state
