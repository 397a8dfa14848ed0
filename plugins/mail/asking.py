"""What is asked of a folder that is open on an IMAP server, and what its answers say."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from plugins.mail.wire import BROKEN, TROUBLES

SPAN = 1000  # UIDs that are asked for at once


def newest(client: IMAPClient) -> float:
    """When the last mail of the open folder came."""
    facts = client.fetch(client.search("*"), ["RFC822.SIZE", "INTERNALDATE"])
    return max((facts_in(each)[1] for each in facts.values()), default=0.0)


def portions(client: IMAPClient, first: int, end: int, most: int) -> Iterator[list[int]]:
    """UIDs from `first` on and below `end`, at most `most` at a time, in order.

    They are asked for in ranges: of a large folder all of them are megabytes. Gaps may be wide: empty ranges grow.
    """
    span = SPAN
    while first < end:
        last = min(first + span, end) - 1
        found = sorted(uid for uid in client.search(f"UID {first}:{last}") if first <= uid <= last)
        for at in range(0, len(found), most):
            yield found[at : at + most]
        span = SPAN if found else span * 2
        first = last + 1


def facts_of(client: IMAPClient, uids: list[int]) -> dict[int, Mapping[bytes, Any]]:
    """Size, and when it came, of each that is there.

    One of which the server tells nothing that makes sense hides no other, and who is left out is asked for once more.
    """
    try:
        found = dict(client.fetch(uids, ["RFC822.SIZE", "INTERNALDATE"]))
    except BROKEN:
        raise
    except TROUBLES:
        found = {} if len(uids) > 1 else {uids[0]: {}}
    left = [uid for uid in uids if uid not in found] if len(uids) > 1 else []
    for uid in left:
        found |= facts_of(client, [uid])
    return found


def facts_in(facts: Mapping[bytes, Any]) -> tuple[int, float]:
    """Size, and when it came."""
    received = facts.get(b"INTERNALDATE")
    when = received.timestamp() if isinstance(received, datetime) else time.time()
    return int(facts.get(b"RFC822.SIZE", 0)), when


def content(client: IMAPClient, uid: int, part: str) -> bytes | None:
    """What the server has of a mail; None when it has gone."""
    facts = client.fetch([uid], [part]).get(uid)
    if facts is None:
        return None
    for key, value in facts.items():
        if key.startswith(b"BODY[") and isinstance(value, bytes):
            return value
    raise IMAPClientError("it says nothing of the content")
