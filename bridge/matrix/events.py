"""Matrix events as they come, parsed at the edge into `RoomEvent`. Pure; nothing in an event is trusted to be there."""

from __future__ import annotations

import re
from typing import Any

from bridge.matrix.content import DELIVERY
from bridge.model import File, RoomEvent

_FALLBACK = re.compile(r"\A(?:> .*\n?)+\n?")
_MX_REPLY = re.compile(r"\A\s*<mx-reply>.*?</mx-reply>", re.DOTALL | re.IGNORECASE)
_MXC = re.compile(r"mxc://[A-Za-z0-9.:\[\]-]{1,255}/[A-Za-z0-9_-]{1,255}")  # it becomes part of a path
_VARIATION = "\ufe0f"
FILE_TYPES = {"m.file", "m.image", "m.audio", "m.video"}


def parse(raw: Any) -> RoomEvent | None:
    """A room event, or None when it is none (ephemeral, malformed)."""
    event_id, room, sender, type_ = (_text(raw, key) for key in ("event_id", "room_id", "sender", "type"))
    if not (event_id and room and sender and type_):
        return None
    content = _dict(raw, "content")
    relates = _dict(content, "m.relates_to")
    relation = _text(relates, "rel_type")
    new = _dict(content, "m.new_content") if relation == "m.replace" else content
    answers = _answers(relates, relation)
    return RoomEvent(
        id=event_id,
        room=room,
        sender=sender,
        type=type_,
        when=_number(raw, "origin_server_ts") / 1000,
        msgtype=_text(new, "msgtype"),
        body=_without_fallback(_text(new, "body"), bool(_dict(relates, "m.in_reply_to"))),
        html=_html(new),
        thread=_text(relates, "event_id") if relation == "m.thread" else "",
        answers=answers,
        replaces=_text(relates, "event_id") if relation == "m.replace" else "",
        target=_target(raw, content, relates, relation),
        key=_text(relates, "key").replace(_VARIATION, "") if relation == "m.annotation" else "",
        file=_file(new),
        state_key=_text(raw, "state_key") if isinstance(raw.get("state_key"), str) else None,
        membership=_text(content, "membership") if type_ == "m.room.member" else "",
        name=_text(content, "displayname") if type_ == "m.room.member" else "",
        delivery=_text(content, DELIVERY),
    )


def _dict(raw: Any, key: str) -> dict[str, Any]:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}


def _text(raw: Any, key: str) -> str:
    value = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()  # without lone surrogates


def _number(raw: Any, key: str) -> float:
    value = raw.get(key) if isinstance(raw, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(2**53) < value < 2**53:
        return 0.0  # infinities and NaN too; larger integers are no canonical JSON (spec, appendix "Canonical JSON")
    return value


def _answers(relates: dict[str, Any], relation: str) -> str:
    """In a thread every message carries m.in_reply_to; it is a real reply only when it says so (spec 11.39)."""
    if relation == "m.thread" and relates.get("is_falling_back") is True:
        return ""
    return _text(_dict(relates, "m.in_reply_to"), "event_id")


def _target(raw: Any, content: dict[str, Any], relates: dict[str, Any], relation: str) -> str:
    if relation == "m.annotation":
        return _text(relates, "event_id")
    return _text(content, "redacts") or _text(raw, "redacts")  # room versions 11 and later, and before


def _without_fallback(body: str, is_reply: bool) -> str:
    return _FALLBACK.sub("", body) if is_reply and body.startswith("> <") else body


def _html(content: dict[str, Any]) -> str:
    if content.get("format") != "org.matrix.custom.html":
        return ""
    return _MX_REPLY.sub("", _text(content, "formatted_body"))


def _file(content: dict[str, Any]) -> File | None:
    if _text(content, "msgtype") not in FILE_TYPES or not _MXC.fullmatch(_text(content, "url")):
        return None
    info = _dict(content, "info")
    name = _text(content, "filename") or _text(content, "body") or "file"
    type_ = _text(info, "mimetype") or "application/octet-stream"
    return File(name[:200], type_[:100], int(_number(info, "size")), mxc=_text(content, "url"))
