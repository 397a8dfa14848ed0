"""The Roundup that the other tests lean on does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
import pytest

from tests.peers.roundup import BRIDGE, Refused, Roundup
from tests.peers.world import Sink

VETO = """
def refuse(db, cl, nodeid, newvalues):
    if newvalues.get("status") == db.status.lookup("resolved"):
        raise ValueError("write down the cause first")

def init(db):
    db.issue.audit("set", refuse)
"""


async def test_people_work_on_an_issue(tmp_path: Path) -> None:
    async with Roundup(tmp_path) as tracker:
        other = await tracker.open("The same, later")
        issue = await tracker.open("No heating", "It is cold.", by="carol", priority="urgent", assignedto="alice")
        said = await tracker.comment(issue, "Since ☃ when?", files=[("plan.txt", b"\xff\x00plan", "text/plain")])
        await tracker.change(issue, "bob", status="resolved", title="Heating", superseder=[other])
        await tracker.change(issue, "bob", "add", nosy=["bob"])
        shown = await tracker.read(issue)
        assert (shown.title, shown.status, shown.priority) == ("Heating", "resolved", "urgent")
        assert (shown.assignedto, shown.actor, shown.superseder) == ("alice", "bob", (other,))
        assert sorted(shown.nosy) == ["alice", "bob", "carol"]
        assert [(each.author, each.content) for each in shown.messages] == [
            ("carol", "It is cold."),
            ("alice", "Since ☃ when?"),
        ]
        assert shown.messages[1].id == said
        assert shown.messages[1].inreplyto == ""
        assert [await tracker.download(each) for each in shown.files] == [("plan.txt", b"\xff\x00plan", "text/plain")]
        assert [change.user for change in tracker.history(issue)] == ["carol", "alice", "bob", "bob"]
        assert "status" in tracker.history(issue)[-2].was
        assert "It is cold." in tracker.mails()


async def test_a_tracker_remembers_what_it_knew_before_it_was_down(tmp_path: Path) -> None:
    async with Roundup(tmp_path) as tracker:
        issue = await tracker.open("Before", "marker-1")
        await tracker.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await tracker.read(issue)
        await tracker.start()
        assert (await tracker.read(issue)).title == "Before"
        tracker.kill()
        await tracker.start()
        assert await tracker.count("marker-1") == 1


async def test_a_tracker_seeded_once_starts_quickly(tmp_path: Path) -> None:
    async with Roundup(tmp_path / "first"):
        started = time.monotonic()
        async with Roundup(tmp_path / "second"):
            assert time.monotonic() - started < 20  # 0.6 s when nothing else runs


async def test_two_trackers_know_nothing_of_each_other(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        here, there = await asyncio.gather(
            *[stack.enter_async_context(Roundup(tmp_path / name)) for name in ("here", "there")]
        )
        await here.open("Only here")
        assert (await here.issues(title="Only here"), await there.issues()) == (["1"], [])


async def test_a_retired_issue_is_found_no_more(tmp_path: Path) -> None:
    async with Roundup(tmp_path) as tracker:
        issue = await tracker.open("Spam")
        await tracker.retire("issue", issue)
        assert await tracker.issues() == []


async def test_the_bridges_account_writes_for_others_and_knows_their_addresses(tmp_path: Path) -> None:
    async with Roundup(tmp_path) as tracker:
        issue = await tracker.open("Help")
        await tracker.comment(issue, "Coming", by=BRIDGE, author="alice", messageid="<marker-2@bridge>")
        stray = await tracker.write("Never linked", by=BRIDGE, messageid="<marker-2b@bridge>")
        shown = await tracker.read(issue)
        assert [(each.author, each.messageid) for each in shown.messages] == [("alice", "<marker-2@bridge>")]
        assert shown.actor == BRIDGE
        assert [each.id for each in await tracker.messages("marker-2b")] == [stray]
        assert (await tracker.count("marker-2"), await tracker.count("marker-2b")) == (1, 0)
        found = await tracker.call("GET", "user", BRIDGE, params={"address:": "carol@outside.example"})
        assert found["@total_size"] == 1
        with pytest.raises(Refused, match="403"):
            await tracker.call("GET", "user", "alice", params={"address:": "carol@outside.example"})


async def test_a_trackers_own_rules_refuse_a_change(tmp_path: Path) -> None:
    async with Roundup(tmp_path, detectors={"veto.py": VETO}) as tracker:
        issue = await tracker.open("Outage")
        with pytest.raises(Refused, match="write down the cause first"):
            await tracker.change(issue, status="resolved")
        assert (await tracker.read(issue)).status == "unread"


async def test_a_tracker_mails_those_who_watch_an_issue(tmp_path: Path, sink: Sink) -> None:
    async with Roundup(tmp_path, smtp=(sink.host, sink.port)) as tracker:
        await tracker.open("Mail me", "By mail too", nosy=["carol"])
        mail = await sink.wait_for(lambda each: "By mail too" in each.text)
        assert mail.recipients == ("carol@outside.example",)


async def test_a_tracker_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    tracker = Roundup(tmp_path, settings={"rdbms": {"backend": "papyrus"}})
    with pytest.raises(AssertionError, match="papyrus"):
        await tracker.start()
    assert not tracker.child.running
