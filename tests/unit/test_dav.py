"""What CalDAV and WebDAV plugins read: dates that people type, tasks and answers that are hostile."""

from __future__ import annotations

import time
from datetime import date, datetime
from typing import Any

import pytest

from bridge.connector import Reply
from bridge.model import Change, File, Rejected, Unavailable
from plugins import vtodo
from plugins.caldav import CalDav
from plugins.dav import Dav, _read
from plugins.webdav import _harmless

BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]><D:multistatus xmlns:D="DAV:">&b;</D:multistatus>'
FILES = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><D:multistatus xmlns:D="DAV:">&a;</D:multistatus>'
SUNDAY = date(2026, 11, 22)


class Answers:
    """A server that says always the same, and takes nothing."""

    def __init__(self, status: int, body: bytes, **headers: str) -> None:
        self.reply = Reply(status, headers, body)

    async def request(self, method: str, path: str, **what: Any) -> Reply:
        assert method != "PUT"
        return self.reply

    async def download(self, path: str, name: str, type: str) -> File:
        raise NotImplementedError


def multistatus(inner: bytes) -> bytes:
    return b'<D:multistatus xmlns:D="DAV:">%s</D:multistatus>' % inner


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-12-01", date(2026, 12, 1)), ("today", SUNDAY), ("Demain", date(2026, 11, 23)),
        ("aujourd’hui", SUNDAY), ("monday", date(2026, 11, 23)), ("dimanche", date(2026, 11, 29)),
        ("Friday", date(2026, 11, 27)), ("vendredi", date(2026, 11, 27)), ("+3d", date(2026, 11, 25)),
        ("+2w", date(2026, 12, 6)), ("+3j", date(2026, 11, 25)), ("-", None),
        ("2026-12-01 14:00", datetime(2026, 12, 1, 14)),
    ],
)  # fmt: skip
def test_a_day_is_what_people_mean(text: str, day: date | None) -> None:
    assert vtodo.due(text, SUNDAY) == day


@pytest.mark.parametrize("text", ["", "someday", "2026-13-01", "+99999d", "+d", "01/12/2026", "x" * 2000])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="a day is"):
        vtodo.due(text, SUNDAY)


async def test_a_task_that_cannot_be_read_or_is_too_large_is_none() -> None:
    around = b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\n%s\r\nEND:VTODO\r\nEND:VCALENDAR\r\n"
    for data in (b"", b"<html>", b"{}", b"BEGIN:VTODO\r\n", b"END:VTODO", around % b"DUE:yesterday",
                 around % (b"COMMENT:" + b"x" * 200_000), b"BEGIN:VCALENDAR\n" + b"BEGIN:VTODO\n" * 5000):  # fmt: skip
        assert (await vtodo.parsed(data))[1] is None
    assert (await vtodo.parsed(around % b"SUMMARY:x"))[1] is not None


@pytest.mark.parametrize("body", [BOMB, FILES, b"", b"<html>", b"<x/>", b"\xff\xfe", b"<a>" * 1000])
def test_hostile_xml_is_the_servers_trouble(body: bytes) -> None:
    with pytest.raises(Unavailable):
        _read(Reply(207, {}, body))


async def test_deep_and_wide_answers_are_read_at_once() -> None:
    one = b"<D:response><D:href>/team/ops/x</D:href><D:propstat>"
    end = b"</D:propstat></D:response>"
    for inner, count in ((b"<x>" * 100_000 + b"</x>" * 100_000, 0), (one * 5_000 + end * 5_000, 1),
                         ((one + end) * 5_000, 5_000)):  # fmt: skip
        began = time.process_time()
        assert len(await Dav(Answers(207, multistatus(inner)), "https://c.example/team/").inside("ops")) == count
        assert time.process_time() - began < 1


async def test_what_an_answer_names_elsewhere_or_cannot_be_asked_for_is_left_out() -> None:
    hrefs = ("/team/ops/a.ics", "/team/other/b.ics", "/team/ops/../c.ics", "/team/ops/.d.ics", "/team/ops/e%0A.ics",
             "https://evil.example/team/ops/f.ics")  # fmt: skip
    rows = "".join(f"<D:response><D:href>{href}</D:href></D:response>" for href in hrefs)
    dav = Dav(Answers(207, multistatus(f"{rows}<D:sync-token>t2</D:sync-token>".encode())), "https://c.example/team/")
    assert await dav.since("ops", "t1") == (
        "t2",
        ["ops/a.ics", "ops/f.ics"],
    )  # the host is not looked at: ours is asked
    with pytest.raises(Unavailable, match="another path"):
        await Dav(dav.http, "https://c.example/other/").since("ops", "t1")


@pytest.mark.parametrize("tag", ["", 'W/"1"'])
async def test_a_task_is_not_written_where_versions_cannot_be_told_apart(tag: str) -> None:
    task = b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nUID:a\r\nEND:VTODO\r\nEND:VCALENDAR\r\n"
    port: Any = type("Port", (), {"http": lambda self, url, **how: Answers(200, task, etag=tag)})()
    plugin = CalDav("tasks", CalDav.Config(url="https://c.example/", username="b", password="p"), port)  # type: ignore[arg-type]
    with pytest.raises(Rejected, match="versions"):
        await plugin.change(Change("ops/a.ics", "state", "done", "", "Alice"))


def test_paths_lead_nowhere_else() -> None:
    nothing: Any = None
    dav = Dav(nothing, "https://files.example/dav/", "https://people.example/f")
    assert dav.named("https://people.example/f/A/b%20c.pdf?d=1") == dav.named("https://files.example/dav/A/b c.pdf")
    assert dav.named("A/b c.pdf") == "A/b c.pdf"
    assert dav.url("A/b c.pdf") == "https://people.example/f/A/b%20c.pdf"
    for text in ("https://elsewhere.example/A/b", "../x", "A/../x", "A/%2e%2e/../x", "/A/b", "A//b", "A/.x", "a\x00"):
        assert dav.named(text) == "" or ".." not in dav.named(text).split("/")
    assert dav.named("https://files.example/dav/A/%2e%2e/x") == ""


def test_a_name_of_a_file_is_harmless() -> None:
    names = {
        "../../etc/passwd": "_.._etc_passwd",
        "a\r\nb.pdf": "a b.pdf",
        ".hidden": "hidden",
        "": "file",
        "~$x.doc": "$x.doc",
    }
    assert {name: _harmless(name) for name in names} == names
