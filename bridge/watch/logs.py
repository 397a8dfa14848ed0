"""What the log says: each step of a message by its id, as text or JSON; never what people wrote, never a secret.

Whatever may repeat what somebody wrote stays out: the text of an error is shown only where it is about a server, the
disk or the database; of any other error its kind and the place in our code. The whole text of a refusal is in the
thread that it concerns and in `passerelle dead-letters show`.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bridge.model import FAILURES, Unavailable

# What a line may say besides its words (`extra=`), in the order in which it says it.
FIELDS = {
    "uid": "the delivery: its one id from the commit that asked for it to the other side's yes",
    "uids": "the deliveries that came of it",
    "arrival": "what arrived: as the answer to its sender names it, or the tool's own id of it",
    "event": "the Matrix event it is about",
    "connector": "the connector it came from",
    "destination": "where it goes: matrix, or a connector",
    "kind": "what is delivered: post, draft, preview, mark …",
    "state": "where a draft stands now: asked, held, paused, ready (released), dead, gone (cancelled or unfit)",
    "conversation": "our number of the conversation",
    "seconds": "how long it took since it was written down, or until the next attempt",
    "attempts": "attempts so far",
    "reply": "what the other side said to it, to be found in its log",
    "error": "what went wrong: the kind of error; its text only where that is about a server, the disk or the database",
    "at": "where in the code, outermost first",
}

OURS = ("bridge", "plugins")
_ROOT = Path(__file__).parents[2]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_PLAIN = re.compile(r"[\w.:$!#@+/,-]+")
_HARMLESS = re.compile(r"[\w .,:'%-]{0,200}", re.ASCII)  # of others' messages: up to where values begin
_STATUS = re.compile(r"\b[2-5]\d\d\b(?:[ -][245]\.\d{1,3}\.\d{1,3}\b)?(?: M_[A-Z_]+\b)?")  # HTTP, RFC 3463, Matrix
MOST = 500  # characters of a value
_NOTHING: tuple[object, ...] = (None, "", [], ())


def start(form: str, level: str) -> None:
    """Let this process log to stderr: `form` is text or json. Libraries are heard from "warning" on.

    Their more talkative levels repeat SQL with its values, and requests. Errors that end the process, or a thread, are
    logged like all others.
    """
    lines = logging.StreamHandler()
    lines.setFormatter(Lines(form))
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown, so not worth their time
    logging.raiseExceptions = False  # else a line that cannot be written would be shown with its values
    logging.basicConfig(level=max(logging.WARNING, _number(level)), handlers=[lines], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(_number(level))
    log = logging.getLogger(__name__)
    sys.excepthook = lambda kind, error, trace: log.critical("ended by an error", exc_info=(kind, error, trace))
    threading.excepthook = lambda what: log.critical("a thread was ended by an error", exc_info=what.exc_value)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def described(error: BaseException) -> str:
    """What went wrong, for logs and operators: the kind, and its text or, where that may repeat content, the place."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(described(each) for each in error.exceptions[:3])
    kind, text = next(each.__name__ for each in type(error).__mro__ if not each.__name__.startswith("_")), ""
    if isinstance(error, ValidationError):
        text = ", ".join(_problem(each["loc"], each["type"]) for each in error.errors(include_input=False)[:5])
    elif isinstance(error, Unavailable | OSError | sqlite3.Error):
        text = str(error)
    else:
        text = _status(error)
        kind += f" ({place})" if (place := _place(error)) and not text else ""
    return flat(f"{kind}: {text}" if text else kind)


def told(error: BaseException) -> str:
    """What went wrong, for the people it concerns: a failure's own words; of any other error what is `described`."""
    return str(error) or type(error).__name__ if isinstance(error, FAILURES) else described(error)


def flat(text: str) -> str:
    """On one line, harmless to a terminal and to whoever reads the log by machine, and not endless."""
    return text[:MOST] if text.isprintable() else _CONTROL.sub(" ", text)[:MOST]


def _problem(where: tuple[int | str, ...], what: str) -> str:
    """A name in it may have come from outside when it is no name of ours."""
    return (
        ".".join(str(part) if str(part).isidentifier() or isinstance(part, int) else "…" for part in where) + f" {what}"
    )


def _status(error: BaseException) -> str:
    """The status with which the other side refused, if it gave one."""
    known = [str(each) for name in ("http_status", "errcode") if (each := getattr(error, name, None))]
    found = _STATUS.search(str(error)) if isinstance(error, FAILURES) else None
    return found[0] if found else " ".join(known)


def _place(error: BaseException) -> str:
    frames = [frame for frame in _frames(error) if frame.startswith(OURS)]
    return frames[-1] if frames else ""


def _frames(error: BaseException) -> Iterator[str]:
    """file:line function, outermost first."""
    for frame in traceback.extract_tb(error.__traceback__, limit=-40):
        path = Path(frame.filename)
        name = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else Path(*path.parts[-2:])
        yield f"{name.as_posix()}:{frame.lineno} {frame.name}"


def _trace(error: BaseException) -> str:
    """Our own frames, and the innermost one whosoever it is."""
    frames = list(_frames(error))
    return " > ".join([*(frame for frame in frames[:-1] if frame.startswith(OURS)), *frames[-1:]])


class Lines(logging.Formatter):
    """One line for each record, as text ("time LEVEL logger: message key=value …") or JSON."""

    def __init__(self, form: str = "text") -> None:
        super().__init__()
        self._json = form == "json"
        self._second = (0, "")  # the last one, as text

    def format(self, record: logging.LogRecord) -> str:
        message, fields = _message(record), _fields(record)
        if self._json:
            when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
            said = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": message}
            return json.dumps(said | fields, ensure_ascii=False)
        more = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        return f"{self._time(record.created)} {record.levelname} {record.name}: {message}{more}"

    def _time(self, when: float) -> str:
        """As logging has it; most lines are of the same second as the one before."""
        second = int(when)
        if self._second[0] != second:
            self._second = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._second[1]},{int((when - second) * 1000):03d}"


def _message(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] not in OURS:
        found = _HARMLESS.match(str(record.msg))
        return found[0] if found else ""
    args = record.args if isinstance(record.args, tuple) else ()
    return flat(str(record.msg) % tuple(map(_value, args)))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = record.__dict__
    found = {name: _value(given[name]) for name in FIELDS if given.get(name) not in _NOTHING}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        found["error"] = described(error) + (f", from {described(cause)}" if cause else "")
        found["at"] = flat(_trace(error))
    return found


def _value(value: Any) -> Any:
    """As it may be shown. What is neither a number, a text nor an error is only named."""
    if isinstance(value, BaseException):
        return described(value)
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, int):
        return value
    if isinstance(value, list | tuple):
        return [_value(each) for each in value[:20]]
    return flat(str(value)) if isinstance(value, str | Path) else f"<{type(value).__name__}>"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
