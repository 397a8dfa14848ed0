"""What earlier versions of the bridge left behind: data folders as their schemas had them, written by plain SQL."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from bridge.store import database

SECRET = "5ec4e7" * 10 + "beef"
JANE = "jane@customer.example"
SUPPORT = "support@company.example"
FIRST = "<1@customer.example>"  # Jane's first mail
SMALL, LARGE = b"a small file", b"a large file" * 10_000
POST, HELD, DEAD = (letter * 20 for letter in "phd")  # uids


def data_of_schema(number: int, data: Path, *, room: str = "!room", root: str = "$root", **more: Any) -> None:
    """A data folder as the bridge of schema `number` left it, in the middle of its work; see `_rows`."""
    data.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(data / "passerelle.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for at, script in enumerate(database.scripts()[:number], 1):
            connection.executescript(f"BEGIN;\n{script.read_text()}\nPRAGMA user_version = {at};\nCOMMIT;")
            if at == 1:  # what later schemas add, their migrations make of these
                for table, row in _rows(room, root, **more):
                    marks = ", ".join(f":{column}" for column in row)
                    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", row)
    digest = hashlib.sha256(LARGE).hexdigest()
    file = data / "spool" / digest[:2] / digest
    file.parent.mkdir(parents=True)
    file.write_bytes(LARGE)


def empty_of_schema(number: int, data: Path) -> None:
    """The same of a bridge that nothing has ever happened to."""
    data.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(data / "passerelle.db", isolation_level=None)) as connection:
        for at, script in enumerate(database.scripts()[:number], 1):
            connection.executescript(f"BEGIN;\n{script.read_text()}\nPRAGMA user_version = {at};\nCOMMIT;")


def _rows(
    room: str, root: str, *, author: str = "@alice:company.example", words: str = "$words", preview: str = "$preview",
    marker: str = "s1",
) -> list[tuple[str, dict[str, Any]]]:  # fmt: skip
    """A row at least of every table of schema 1: Jane's thread, what is still to be shown, a draft, a dead letter."""
    now = time.time()
    original = {"name": "a.eml", "type": "message/rfc822", "size": len(LARGE), "mxc": ""}
    original |= {"hash": hashlib.sha256(LARGE).hexdigest()}
    memo = {
        "from": [JANE, "Jane"],
        "reply_to": [],
        "to": [[SUPPORT, ""]],
        "cc": [],
        "date": now,
        "text": "Please help.",
    }
    messages = {
        1: {"role": "inward", "remote": FIRST, "event": root, "sender": JANE, "memo": json.dumps(memo)},
        2: {"role": "internal", "event": words, "sender": author},
        3: {
            "role": "inward",
            "remote": "<2@customer.example>",
            "refs": FIRST,
            "sender": JANE,
            "memo": json.dumps(memo),
        },
    }
    return [
        ("meta", {"key": "secret", "value": SECRET}),
        ("seen", {"key": "$heard", "at": now}),
        ("conversation", {"id": 1, "room": room, "root": root, "latest": words, "title": "Help", "created": now}),
        ("item", {"id": 1, "connector": "mail", "remote": FIRST, "title": "Help", "created": now}),
        ("conversation_item", {"conversation": 1, "item": 1, "scope": SUPPORT}),
        ("reference", {"connector": "mail", "remote": FIRST, "item": 1}),
        ("reference", {"connector": "mail", "remote": "<2@customer.example>", "item": 1}),
        ("participant", {"item": 1, "account": JANE}),
        *(
            ("message", {"id": number, "conversation": 1, "item": 1, "title": "Help", "created": now, **fields})
            for number, fields in messages.items()
        ),
        ("message", {"id": 4, "conversation": 1, "role": "bot", "event": preview, "sender": "@b", "memo": HELD,
                     "created": now}),
        ("message", {"id": 5, "conversation": 1, "item": 1, "role": "report", "sender": JANE,
                     "original": json.dumps(original), "created": now}),
        *_queue(room, author, words, preview, now),
        ("mark", {"target": words, "key": "⏳", "event": "$mark"}),
        ("ghost", {"mxid": "@_passerelle_mail_joe", "realm": "mail", "account": "joe@customer.example", "name": "Joe"}),
        ("membership", {"mxid": "@_passerelle_mail_joe", "room": "!other"}),
        ("profile", {"mxid": author, "name": "Alice"}),
        *([("room", {"room": room, "marker": marker})] if marker else []),
        ("blob", {"hash": hashlib.sha256(SMALL).hexdigest(), "data": SMALL, "at": now}),
        ("released_to", {"connector": "mail", "scope": SUPPORT, "account": JANE, "uid": "r" * 20, "at": now}),
        ("alias", {"alias": "#help:company.example", "room": "!other"}),
        ("cursor", {"connector": "helpdesk", "value": "2025-11-22.12:00:00"}),
        ("account", {"mxid": author, "connector": "helpdesk", "account": "alice"}),
        ("claim", {"code": "c", "mxid": author, "connector": "x", "account": "a", "room": room, "conversation": 1,
                   "at": now}),
        ("lacking", {"room": "!other", "rights": "right-invite"}),
        ("encrypted", {"room": "!secret"}),
    ]  # fmt: skip


def _queue(room: str, author: str, words: str, preview: str, now: float) -> list[tuple[str, dict[str, Any]]]:
    jane = {"account": JANE, "name": "Jane", "domain": "customer.example"}
    post = {
        "room": room,
        "body": "Are you there?",
        "html": "",
        "notice": False,
        "mentions": [],
        "file": None,
        "message": 3,
    }
    post |= {"author": {"realm": "mail", "account": JANE, "name": "Jane", "verified": False, "domain": ""}}
    draft = {
        "connector": "mail", "scope": SUPPORT, "item": 1, "title": "Re: Help", "author": author, "author_name": "Alice",
        "recipients": {"to": [jane], "cc": []}, "remote": FIRST, "text": "We come.", "html": "", "files": [],
        "transcript": "", "room": room, "source": words, "trigger": words, "asked": now, "parts": [], "history": None,
        "answered": {"id": FIRST, "refs": [], "title": "Help", "memo": "", "author": JANE, "scope": SUPPORT},
    }  # fmt: skip
    said = {"conversation": 1, "created": now, "author": author, "source": words, "cause": words}
    return [
        ("queue", {"uid": POST, "lane": "matrix:1", "destination": "matrix", "kind": "post", "state": "ready",
                   "payload": json.dumps(post), "conversation": 1, "created": now}),
        ("queue", {"uid": HELD, "lane": "mail:1", "destination": "mail", "kind": "draft", "state": "paused",
                   "payload": json.dumps(draft), "preview": preview, "error": "why", **said}),
        ("queue", {"uid": DEAD, "lane": "mail:1", "destination": "mail", "kind": "draft", "state": "dead",
                   "payload": json.dumps(draft | {"text": "Never left."}), "error": "550", **said}),
    ]  # fmt: skip
