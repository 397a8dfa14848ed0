"""The transcript: what an employee's client shows, what crosses the company's border, what the tools have."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

from tests.peers.employee import Employee, body, relation, thread_of
from tests.peers.world import Mail

Event = dict[str, Any]

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
HEADERS = ("From", "Reply-To", "To", "Cc", "Subject", "Message-ID", "In-Reply-To", "References")
IDS = {"Message-ID", "In-Reply-To", "References"}
_LEAD = re.compile(r"[\s>]*")
_STYLE = re.compile(r"\x1b\[[\d;]*m")
MOST_LINES = 26  # of one message; the rest is counted


class Printer:
    """Lines on the terminal, coloured only when it is one."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._width = min(120, shutil.get_terminal_size((110, 24)).columns)
        self.began = time.monotonic()

    def style(self, text: str, *styles: str) -> str:
        codes = ";".join(STYLES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m" if self._colour and styles else text

    def line(self, text: str = "", *styles: str) -> None:
        print(self.style(text, *styles), flush=True)

    def scene(self, number: int, title: str) -> None:
        seconds = f" {time.monotonic() - self.began:.1f} s"
        text = f"━━ {number}. {title} "
        self.line(f"\n{text}{'━' * max(3, self._width - len(text) - len(seconds))}{seconds}", "bold", "blue")

    def block(self, first: str, text: str, *styles: str, rest: str = "", most: int = MOST_LINES) -> None:
        """`first`, then the text beside it, its other lines indented by `rest` (default: as wide as `first`)."""
        rest = rest or " " * len(first)
        begun = max(0, len(_STYLE.sub("", first)) - len(rest))  # what `first` takes of the first line
        said = enumerate(text.splitlines() or [""])
        lines = [part for place, line in said for part in self._wrapped(line, len(rest), 0 if place else begun)]
        if len(lines) > most:
            lines = [*lines[: most - 1], f"[… {len(lines) - most + 1} more lines]"]
        for place, line in enumerate(lines):
            print(f"{rest if place else first}{self.style(line, *styles)}".rstrip(), flush=True)

    def _wrapped(self, line: str, indent: int, begun: int) -> list[str]:
        """The line in pieces that fit; a quote stays a quote."""
        lead = _LEAD.match(line)
        inner = lead[0] if lead else ""
        width = max(40, self._width - indent)
        pieces = textwrap.wrap(
            line[len(inner) :], width, initial_indent=" " * begun + inner, subsequent_indent=inner,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        return [pieces[0][begun:], *pieces[1:]] if pieces else [line]

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """One line for something that takes a while, with its seconds once it is done."""
        began = time.monotonic()
        print(f"  {doing} …", end="", flush=True)
        try:
            yield
        except BaseException:
            print(flush=True)
            raise
        print(self.style(f" {time.monotonic() - began:.1f} s", "dim"), flush=True)

    def facts(self, facts: Sequence[str]) -> None:
        self.line()
        self.block(f"  ✓ {len(facts)} checked: ", "; ".join(facts), "dim", rest="    ", most=100)

    def failure(self, fact: str, seen: str) -> None:
        self.block("  ✗ ", fact, "bold", "red")
        if seen:
            self.block("    ", seen, "red", most=40)


class Transcript:
    """Prints the events of the rooms as they come, once `on`, and mails as they cross the border."""

    def __init__(self, printer: Printer) -> None:
        self.printer = printer
        self.on = False
        self.last = time.monotonic()  # when the last event came
        self.rooms: dict[str, str] = {}  # room id: name
        self._names: dict[str, str] = {}
        self._known: dict[str, Event] = {}
        self._said: dict[str, str] = {}  # event id: what a message says now
        self._place: tuple[str, str | None] | None = None

    # --- rooms

    def hear(self, room: str, event: Event) -> None:
        """Any event that the watching employee's client was given."""
        content = event.get("content", {})
        if event["type"] == "m.room.member" and content.get("membership") == "join":
            self._names[event["state_key"]] = content.get("displayname") or event["state_key"]
        known = {**event, "content": dict(content)}
        if self.on and room in self.rooms and not event.get("unsigned", {}).get("redacted_because"):
            self.last = time.monotonic()
            self._print(room, known)
        self._known[event["event_id"]] = known
        if event["type"] == "m.room.message":
            self._said[relation(event).get("event_id", "") if _edits(event) else event["event_id"]] = body(event)

    def _print(self, room: str, event: Event) -> None:
        if event["type"] == "m.room.redaction":
            self._taken_back(room, str(event["content"].get("redacts") or event.get("redacts")))
        elif event["type"] == "m.reaction":
            self._at(room, thread_of(self._target(event)) or self._root_of(relation(event)["event_id"]))
            words = self._short(relation(event)["event_id"])
            self.printer.line(f"{self._margin}{relation(event)['key']}  {self.name(event['sender'])} on “{words}”")
        elif event["type"] == "m.room.message" and _edits(event):
            self._edited(room, event)
        elif event["type"] == "m.room.message":
            self._at(room, thread_of(event))
            self._message(event)

    def _message(self, event: Event) -> None:
        content = event["content"]
        first = f"{self._margin}{self.printer.style(self.name(event['sender']), 'bold')}: "
        words = body(event)
        if "url" in content:
            info = content.get("info", {})
            words = f"📎 {words} ({info.get('mimetype')}, {info.get('size')} bytes)"
        answered = event["content"].get("m.relates_to", {})
        if answered.get("m.in_reply_to") and not answered.get("is_falling_back"):
            words = f"↩ “{self._short(answered['m.in_reply_to']['event_id'])}”\n{words}"
        named = [self.name(mxid) for mxid in content.get("m.mentions", {}).get("user_ids", [])]
        if named:
            words += f"\n[mentions {', '.join(named)}]"
        style = ("yellow",) if content.get("msgtype") == "m.notice" else ()
        self.printer.block(first, words, *style, rest=f"{self._margin}  ")

    def _edited(self, room: str, event: Event) -> None:
        """Of an edited message only the lines that are new."""
        original = relation(event)["event_id"]
        self._at(room, thread_of(self._known.get(original, {})))
        before = self._said.get(original, "").splitlines()
        new = [line for line in body(event).splitlines() if line not in before]
        who = self.printer.style(self.name(event["sender"]), "bold")
        first = f"{self._margin}✎ {who} changes “{self._short(original)}”: "
        self.printer.block(first, "\n".join(new) or "(nothing new)", "yellow", rest=f"{self._margin}  ")

    def _taken_back(self, room: str, redacted: str) -> None:
        event = self._known.get(redacted, {})
        key = relation(event).get("key", "a message")
        on = relation(event).get("event_id", redacted)
        self._at(room, self._root_of(on))
        self.printer.line(f"{self._margin}{key}  taken back from “{self._short(on)}”", "dim")

    def _at(self, room: str, root: str | None) -> None:
        """Name the place when it is another than before."""
        if (room, root) != self._place:
            self._place = (room, root)
            where = self.printer.style(self.rooms[room], "bold", "cyan")
            self.printer.line(f"\n  {where}" + (f" · thread “{self._short(root)}”" if root else ""))

    def left_place(self) -> None:
        """Something else was printed: name the place again."""
        self._place = None

    @property
    def _margin(self) -> str:
        return "      │ " if self._place and self._place[1] else "    "

    def _target(self, event: Event) -> Event:
        return self._known.get(relation(event).get("event_id", ""), {})

    def _root_of(self, event_id: str | None) -> str | None:
        """The thread of an event; of a root, its own once the thread exists."""
        event = self._known.get(event_id or "", {})
        inside = any(thread_of(each) == event_id for each in self._known.values())
        return thread_of(event) or (event_id if inside else None)

    def _short(self, event_id: str | None) -> str:
        line = next(iter(self._said.get(event_id or "", "a message").splitlines()), "")
        return line if len(line) <= 44 else f"{line[:43]}…"

    def name(self, mxid: str) -> str:
        return self._names.get(mxid, mxid)

    # --- the border

    def arrives(self, message: EmailMessage, why: str = "") -> None:
        """Somebody outside writes to the company."""
        self.left_place()
        self.printer.line(f"\n  ✉ mail comes in{f' ({why})' if why else ''}", "bold", "green")
        self._headers((name, str(message[name] or "")) for name in HEADERS)
        for part in message.iter_attachments():
            data = part.get_payload(decode=True) or b""
            size = f" ({len(data)} bytes)" if isinstance(data, bytes) else ""
            self.printer.line(f"      📎 {part.get_filename() or part.get_content_type()}{size}")

    def leaves(self, mail: Mail, file: str) -> None:
        """A mail has left the company."""
        self.left_place()
        self.printer.line(f"\n  ▶ left the company, to {', '.join(mail.recipients)} ({file})", "bold", "green")
        self._headers((name, mail[name]) for name in HEADERS)
        self.printer.block("      ┊ ", mail.text.strip(), rest="      ┊ ", most=24)
        for name, data in mail.files.items():
            self.printer.line(f"      📎 {name} ({len(data)} bytes)")

    def tool(self, name: str, what: str, text: str = "", headers: Iterable[tuple[str, str]] = ()) -> None:
        """Somebody does something in a tool, or it is read."""
        self.left_place()
        self.printer.line(f"\n  ◆ in {name}, {what}", "bold", "green")
        self._headers(headers)
        if text:
            self.printer.block("      ┊ ", text.strip(), rest="      ┊ ", most=24)

    def _headers(self, headers: Iterable[tuple[str, str]]) -> None:
        for name, value in headers:
            for place, line in enumerate(value.split() if name in IDS else [value] if value else []):
                label = f"{name}:" if not place else ""
                self.printer.line(f"      {self.printer.style(f'{label:12}', 'dim')} {line}")


class Watcher(Employee):
    """An employee whose client feeds the transcript."""

    transcript: Transcript | None = None

    def _hear(self, room: str, event: Event) -> None:
        if self.transcript is not None:
            self.transcript.hear(room, event)
        super()._hear(room, event)


def _edits(event: Event) -> bool:
    return relation(event).get("rel_type") == "m.replace"
