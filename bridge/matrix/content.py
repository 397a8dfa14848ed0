"""What our events contain (Matrix spec 11, Client-Server API: m.room.message, threads, rich replies). Pure."""

from __future__ import annotations

from html import escape
from typing import Any

from bridge.model import Author, File
from bridge.payload import EVERYBODY, Post
from bridge.text.plain import clean, text_to_html, trim

DELIVERY = "org.passerelle.delivery"  # our delivery's uid, so that one in doubt can be found in the room
MOST_BYTES = 40_000  # of body and formatted_body together; the homeserver takes 65,536 for the whole event


def message(post: Post, uid: str, root: str, latest: str, answers: str) -> dict[str, Any]:
    """The content of a message: in the thread of `root`, answering the event `answers`; both may be ""."""
    content = attachment(post.file) if post.file else words(post.body, post.html, notice=post.notice)
    content |= {DELIVERY: uid, "m.mentions": mentions(post)}
    relation = relates(root, latest, answers)
    return content | {"m.relates_to": relation} if relation else content


def speaker(post: Post) -> Author | None:
    """Who says it, None for the bot: so with what calls a whole room, which takes a level that ghosts do not have
    (Matrix spec, m.room.power_levels, notifications).
    """
    return None if EVERYBODY in post.mentions else post.author


def mentions(post: Post) -> dict[str, Any]:
    """Who should notice (Matrix spec, "User and room mentions"): nobody has to be named in the words for that."""
    people = [each for each in post.mentions if each != EVERYBODY]
    return ({"user_ids": people} if people else {}) | ({"room": True} if EVERYBODY in post.mentions else {})


def words(body: str, html: str, *, notice: bool, most: int = MOST_BYTES) -> dict[str, Any]:
    """Text, cut to what an event can hold; a formatted part too large is left out, the plain one says all."""
    body = clean(body)
    if len(body.encode()) > most:
        body = trim(body, most // 4, 10_000)[0]
    content: dict[str, Any] = {"msgtype": "m.notice" if notice else "m.text", "body": body}
    html = clean(html) or (text_to_html(body) if "\n" in body else "")
    if html and html != escape(body) and len(body.encode()) + len(html.encode()) <= most:
        content |= {"format": "org.matrix.custom.html", "formatted_body": html}
    return content


def attachment(file: File) -> dict[str, Any]:
    """A file or an image that is in the media repository."""
    kind = file.type.partition("/")[0]
    msgtype = f"m.{kind}" if kind in ("image", "audio", "video") and file.type != "image/svg+xml" else "m.file"
    name = clean(file.name) or "file"
    info = {"mimetype": file.type, "size": file.size}
    return {"msgtype": msgtype, "body": name, "filename": name, "url": file.mxc, "info": info}


def relates(root: str, latest: str, answers: str) -> dict[str, Any]:
    """A thread with the fallback for clients that know none, and a rich reply where it answers something."""
    reply = {"m.in_reply_to": {"event_id": answers or latest or root}}
    if root:
        return {"rel_type": "m.thread", "event_id": root, "is_falling_back": not answers, **reply}
    return reply if answers else {}


def edit(body: str, html: str, event: str, uid: str) -> dict[str, Any]:
    """New words for a notice of the bot."""
    new = words(body, html, notice=True, most=MOST_BYTES // 2) | {"m.mentions": {}}  # they are in it twice
    return {
        **new,
        "body": f"* {new['body']}",
        "m.new_content": new,
        DELIVERY: uid,
        "m.relates_to": {"rel_type": "m.replace", "event_id": event},
    }


def reaction(event: str, key: str, uid: str) -> dict[str, Any]:
    return {"m.relates_to": {"rel_type": "m.annotation", "event_id": event, "key": key}, DELIVERY: uid}
