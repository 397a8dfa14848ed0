"""Mail bytes → value. Whatever arrives gives a `Mail`, in bounded time; what is risky is parsed in a process apart."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from threading import Lock
from types import TracebackType
from typing import Any, Self

from pebble import ProcessExpired, ProcessPool

from bridge.model import Address, Report
from bridge.text import clean
from plugins.mail.header import (
    ONE_BOX,
    addresses,
    automatic,
    date,
    fields_of,
    last,
    message_id,
    refs,
    subject_of,
)
from plugins.mail.identity import HEADER
from plugins.mail.parts import Found, Part, bodies_of, complete_report, written
from plugins.mail.subject import is_forward

_STRUCTURED = re.compile(
    r"(?:^|(?<=\r))content-(?:type|disposition)[ \t]*:[^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+",
    re.IGNORECASE | re.MULTILINE,
)
_TOKEN = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it arrived, read."""

    message_id: str  # "<…>", or ""
    refs: tuple[str, ...]  # Message-IDs it answers, nearest first, at most 50
    subject: str  # one line, at most 500 characters
    sender: Address  # account "" if there is none
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    date: float | None  # seconds since the epoch
    text: str  # folded
    html: str  # folded, safe Matrix HTML, or ""
    folded: int  # lines of quoted text left out
    parts: tuple[Part, ...]
    automatic: bool  # made by a program (RFC 3834), a list or a mass mailing; the null return path is the caller's
    authentication: tuple[str, ...]  # Authentication-Results as they came, unfolded, in order; () if From is ambiguous
    report: Report | None  # of a delivery status notification (RFC 3464); a VERP address is the caller's
    token: str  # our own X-Passerelle-Id, or ""
    problem: str  # what could not be read, for people, or ""


def read(raw: bytes) -> Mail:
    """The mail in `raw`. Never raises; what cannot be parsed gives `unreadable`."""
    try:
        return _read(raw)
    except RecursionError:
        return unreadable(raw, "the mail is nested too deeply to be read")
    # The one guard: parsers of mail fail on hostile input in ways that no list of exceptions covers.
    except Exception as fault:  # noqa: BLE001
        return unreadable(raw, f"the mail could not be read ({type(fault).__name__})")


def unreadable(raw: bytes, problem: str) -> Mail:
    """What the header of a mail says, by bounded means only, where the rest cannot be read. Never raises."""
    fields, _ = fields_of(raw[:1_000_000].decode("ascii", "surrogateescape"))
    return _mail(fields, "", "", 0, Found(problems=[problem]))


def risky(raw: bytes) -> bool:
    """Whether reading `raw` may take long or break: it is big, or has many parts, tags, parameters or header lines.

    Text is read at 10 kB a millisecond, HTML at 1 kB.
    """
    ends = [end for end in (raw.find(b"\n\n"), raw.find(b"\n\r\n")) if end >= 0]
    return (
        len(raw) > 64_000
        or min(ends, default=len(raw)) > 24_000
        or raw.count(b"\n--") > 40
        or raw.count(b"<") > 1000
        or (len(raw) > 24_000 and b"html" in raw.lower())
        or raw.count(b";") > 3000
    )


class Reader:
    """Reads mails: harmless ones here, risky ones in a process of their own that is ended after `limit` seconds.

    An async context manager; the processes start with the first risky mail.
    """

    def __init__(self, limit: float = 5.0, workers: int = 2) -> None:
        self._limit = limit
        self._workers = workers
        self._pool: ProcessPool | None = None
        self._lock = Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(pool.join)

    async def read(self, raw: bytes) -> Mail:
        """The mail in `raw`, however hostile. Raises only when no process can be started: our own trouble."""
        if not risky(raw):
            return read(raw)
        try:
            return await self._apart(raw)
        except TimeoutError:
            return unreadable(raw, f"the mail could not be read within {self._limit:g} seconds")
        except ProcessExpired:
            return unreadable(raw, "the mail could not be read: it made the parser fail")
        except BrokenProcessPool:  # the pool, not the mail: once more, with a new one
            return await self._apart(raw)

    async def _apart(self, raw: bytes) -> Mail:
        future = await asyncio.to_thread(self._schedule, raw)  # starting a process takes half a second
        mail: Mail = await asyncio.wrap_future(future)
        return mail

    def _schedule(self, raw: bytes) -> Future[Mail]:
        with self._lock:
            if self._pool is None or not self._pool.active:
                self._pool = ProcessPool(max_workers=self._workers, max_tasks=1000, context=_context())
            future: Future[Mail] = self._pool.schedule(read, args=(raw,), timeout=self._limit)
            return future


def _context() -> Any:
    """How processes start: never by forking this one, which has threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _read(raw: bytes) -> Mail:
    source = raw.decode("ascii", "surrogateescape")
    fields, end = fields_of(source)
    root = _parsed(fields.get("content-*", []), _body_of(source, end))
    found = Found(root=root)
    bodies = bodies_of(root, found)
    complete_report(fields, bodies, found)
    text, html, folded = written(bodies, found, forward=is_forward(subject_of(fields)))
    return _mail(fields, text, html, folded, found)


def _parsed(fields: list[str], body: str) -> Message:
    """The parts of a mail, from the fields that say how it is built; most mails have only one and need no parser."""
    root = Message()
    for field in fields:
        root.set_raw(*root.policy.header_source_parse([_bounded(field)]))
    if root.get_content_maintype() in ("multipart", "message"):
        return Parser().parsestr(_bounded("".join([*fields, "\n", body])))
    root.set_payload(body)
    return root


def _body_of(source: str, end: int) -> str:
    """What follows the empty line after the header; or the line that ended the header, being no field."""
    return source[end:].removeprefix("\r").removeprefix("\n")


def _bounded(source: str) -> str:
    """`source` without endless Content-Type and Content-Disposition fields: parsing parameters is quadratic."""
    if source.count(";") < 200:
        return source
    return _STRUCTURED.sub(
        lambda found: found[0] if len(found[0]) < 4000 else found[0][:4000].rpartition(";")[0], source
    )


def _mail(fields: Mapping[str, list[str]], text: str, html: str, folded: int, found: Found) -> Mail:
    senders = fields.get("from", [])
    sender = next(iter(addresses(senders)), Address(""))
    own = message_id(fields)
    # Who checked a From that can be read in two ways may have read another address than we do.
    certain = len(senders) == 1 and ONE_BOX.fullmatch(senders[0]) is not None
    token = last(fields, HEADER.lower())
    return Mail(
        message_id=own,
        refs=refs(fields, own),
        subject=subject_of(fields),
        sender=sender,
        reply_to=addresses(fields.get("reply-to", [])),
        to=addresses(fields.get("to", [])),
        cc=addresses(fields.get("cc", [])),
        date=date(last(fields, "date")),
        text=text,
        html=html,
        folded=folded,
        parts=tuple(found.parts),
        automatic=automatic(fields),
        authentication=tuple(clean(value) for value in fields.get("authentication-results", ())) if certain else (),
        report=found.report,
        token=token if _TOKEN.fullmatch(token) else "",
        problem="; ".join(dict.fromkeys(found.problems)),
    )
