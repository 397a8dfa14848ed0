"""What Redmine's JSON means. No network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from bridge.connector import Reply

STAMP = "%Y-%m-%dT%H:%M:%SZ"
MARK = re.compile(r"<!-- (passerelle\.\S{1,100}) -->\s*\Z")  # a comment of HTML: Textile and CommonMark leave it out


def has(text: str | None, words: Sequence[str]) -> bool:
    return all(word in (text or "").casefold() for word in words)


def mark_in(text: str | None) -> str:
    found = MARK.search(text or "")
    return found[1] if found else ""


def kept(issue: Any, number: int) -> str:
    """The mark of an issue, whoever made it: in the custom field of that number, or (0) in its description."""
    fields = {each["id"]: each.get("value") for each in issue.get("custom_fields", ())}
    return str(fields.get(number) or "") if number else mark_in(issue.get("description"))


def value(issue: Any, field: str) -> str:
    """The number of its status, assignee …; "" for none."""
    return str((issue.get(field) or {}).get("id", ""))


def files(journal: Any) -> set[str]:
    """Numbers of the files that came with it."""
    return {each["name"] for each in journal["details"] if each["property"] == "attachment" and each["new_value"]}


def when(stamp: str) -> datetime:
    return datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)


def clock(reply: Reply) -> datetime:
    """What time it is for the tool."""
    try:
        return parsedate_to_datetime(reply.headers.get("date", ""))
    except ValueError:
        return datetime.now(UTC)
