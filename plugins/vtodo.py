"""A task as iCalendar writes it (VTODO, RFC 5545 3.6.2): what of it is read and changed. No network."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

from icalendar import Calendar, Todo, vCalAddress

from bridge.model import Rejected
from bridge.text import one_line

MOST = 128 * 1024  # bytes of one task
ONCE = ("CLASS", "COMPLETED", "CREATED", "DESCRIPTION", "DTSTART", "DUE", "PERCENT-COMPLETE", "STATUS", "SUMMARY")
MARK = "X-PASSERELLE"
STATES = {
    "needs-action": "needs-action open todo reopen ouvert rouvrir à-faire", "in-process": "started doing en-cours",
    "completed": "done closed fait fini terminé", "cancelled": "canceled annulé",
}  # fmt: skip
STATE = {word: state for state, words in STATES.items() for word in (state, *words.split())}
DAYS = {"today": 0, "tomorrow": 1, "aujourd'hui": 0, "demain": 1}
WEEK = ("monday lundi", "tuesday mardi", "wednesday mercredi", "thursday jeudi", "friday vendredi", "saturday samedi",
        "sunday dimanche")  # fmt: skip


async def parsed(data: bytes) -> tuple[Any, Any]:
    """The calendar and its task (of one that repeats, the series); None for what is none, or is too large."""
    if not data or len(data) > MOST:
        return None, None
    try:
        calendar = await asyncio.to_thread(Calendar.from_ical, data)
        tasks = [each for each in calendar.subcomponents if each.name == "VTODO"]
        if any(isinstance(each.get(name), list) for each in tasks for name in ONCE):
            return None, None  # RFC 5545 3.6.2: nobody knows which one holds
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None, None
    return calendar, next((each for each in tasks if "RECURRENCE-ID" not in each), None)


def title(todo: Any) -> str:
    return one_line(str(todo.get("SUMMARY", "")))


def fields(todo: Any) -> tuple[tuple[str, str], ...]:
    """For its card."""
    until, people, done = todo.get("DUE"), every(todo, "ATTENDEE"), todo.get("PERCENT-COMPLETE")
    who = ", ".join(one_line(str(each.params.get("CN") or account(each))) for each in people[:5])
    day = until.dt if until else ""
    day = day.isoformat(" ", "minutes") if isinstance(day, datetime) else str(day)
    percent = f"{done} %" if done else ""
    return ("state", state_of(todo)), ("due", day), ("assigned to", who), ("done", percent)


def new(**values: str) -> Any:
    """A calendar with one task."""
    calendar, todo, now = Calendar(), Todo(), datetime.now(UTC)
    for name, value in {"DTSTAMP": now, "CREATED": now, "STATUS": "NEEDS-ACTION", **values}.items():
        put(todo, name, value or None)
    calendar.add("VERSION", "2.0")
    calendar.add("PRODID", "-//Passerelle//tasks//EN")
    calendar.add_component(todo)
    return calendar


def change(word: str, value: str, domain: str) -> Callable[[Any], bool]:
    """What does that to a task, and says whether there was anything to do. Raises `Rejected`: it makes no sense."""
    if word == "due":
        day = due(value, date.today())
        return lambda todo: set_due(todo, day)
    if word == "state":
        if (state := STATE.get(value.lower().replace(" ", "-"))) is None:
            raise Rejected(f"a state is one of {', '.join(STATES)}")
        return lambda todo: set_state(todo, state)
    who = f"{value}@{domain}" if domain and value != "-" and "@" not in value else value
    if who != "-" and not re.fullmatch(r"[^\s@:;,\"<>]+@[^\s@:;,\"<>]+", who):
        raise Rejected("assign it to a mail address, or to - for nobody")
    return lambda todo: assign(todo, "" if who == "-" else who)


def comment(todo: Any, text: str, mark: str) -> bool:
    todo.add("COMMENT", text, parameters={MARK: mark})
    return True


def touch(todo: Any) -> None:
    """It is changed now."""
    for name in ("LAST-MODIFIED", "DTSTAMP"):
        put(todo, name, datetime.now(UTC))


def due(text: str, today: date) -> date | None:
    """The day that people mean; None for none. Raises `Rejected`."""
    word = text.lower().replace("’", "'")
    if word in ("-", "none", "aucune"):
        return None
    if word in DAYS:
        return today + timedelta(days=DAYS[word])
    if found := re.fullmatch(r"\+(\d{1,4})([dwjs])", word):  # j, s: jours, semaines
        return today + timedelta(days=int(found[1]) * (7 if found[2] in "ws" else 1))
    for number, names in enumerate(WEEK):
        if word in names.split():
            return today + timedelta(days=(number - today.weekday() - 1) % 7 + 1)
    try:
        return datetime.fromisoformat(text) if len(text) > 10 else date.fromisoformat(text)
    except ValueError:
        raise Rejected("a day is 2026-12-01, tomorrow, friday, +3d or +2w; - takes it away") from None


def set_due(todo: Any, day: date | None) -> bool:
    start, now = todo.get("DTSTART"), todo.get("DUE")
    if day and start and isinstance(start.dt, datetime) and not isinstance(day, datetime):
        day = datetime.combine(day, start.dt.timetz())  # both are of one type, RFC 5545 3.8.2.3
    if day and start and str(day) < str(start.dt)[: len(str(day))]:
        raise Rejected(f"it begins on {start.dt}")
    if (now.dt if now else None) == day:
        return False
    todo.pop("DURATION", None)  # never beside DUE
    put(todo, "DUE", day)
    return True


def set_state(todo: Any, state: str) -> bool:
    if state_of(todo) == state:
        return False
    completed = state == "completed"
    put(todo, "STATUS", state.upper())
    put(todo, "COMPLETED", datetime.now(UTC) if completed else None)
    if completed or str(todo.get("PERCENT-COMPLETE", "")) == "100":
        put(todo, "PERCENT-COMPLETE", 100 if completed else None)
    return True


def assign(todo: Any, who: str) -> bool:
    if [account(each) for each in every(todo, "ATTENDEE")] == [who] * bool(who):
        return False
    put(todo, "ATTENDEE", vCalAddress(f"mailto:{who}") if who else None)
    return True


def put(todo: Any, name: str, value: Any) -> None:
    todo.pop(name, None)
    if value is not None:
        todo.add(name, value)


def state_of(todo: Any) -> str:
    return one_line(str(todo.get("STATUS") or ("COMPLETED" if "COMPLETED" in todo else "NEEDS-ACTION"))).lower()


def every(todo: Any, name: str) -> list[Any]:
    found = todo.get(name, [])
    return found if isinstance(found, list) else [found]


def account(address: Any) -> str:
    return re.sub("^mailto:", "", str(address), flags=re.IGNORECASE)


def comments(todo: Any) -> list[tuple[str, str, str]]:
    """Each comment: what it is known by, its text, and the mark it bears."""
    found, times = [], dict[str, int]()
    for each in every(todo, "COMMENT"):
        text = str(each)
        times[text] = times.get(text, 0) + 1
        name = sha256(f"{times[text]} {text}".encode("utf-8", "replace")).hexdigest()[:12]
        found.append((name, text, str(each.params.get(MARK, ""))))
    return found


def seen(todo: Any) -> list[Any]:
    """Its title, whether it is private, and what its comments are known by."""
    return [title(todo)[:100], private(todo), *(name for name, _, _ in comments(todo))]


def private(todo: Any) -> bool:
    """Whether it is not for everybody; a class that nobody knows means that, too (RFC 5545 3.8.1.3)."""
    return str(todo.get("CLASS", "")).strip().upper() not in ("", "PUBLIC")


def words(todo: Any) -> str:
    """All that it says, for a search."""
    said = [title(todo), str(todo.get("DESCRIPTION", "")), *(text for _, text, _ in comments(todo))]
    return "\n".join(said).casefold()


def when(value: Any) -> float:
    """Seconds since the epoch; now when it does not say; 0 long before it."""
    try:
        return value.dt.timestamp() if value and isinstance(value.dt, datetime) else time.time()
    except (ValueError, OverflowError):
        return 0.0
