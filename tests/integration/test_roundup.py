"""The Roundup plugin on a real tracker: what it tells, what it writes, and that nothing is told or written twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from bridge import store
from bridge.config import load
from bridge.connector import Http
from bridge.http import ToolHttp, new_session
from bridge.model import (
    Answered,
    Author,
    Change,
    Deferred,
    Delivery,
    Draft,
    Envelope,
    File,
    Gone,
    Recipients,
    Rejected,
    Unavailable,
    Unconfirmed,
)
from bridge.port import BridgePort
from plugins.roundup import Roundup
from tests.peers import ROOT, free_port
from tests.peers.faults import Kind, Proxy
from tests.peers.roundup import BRIDGE, NAME
from tests.peers.roundup import Roundup as Peer
from tests.peers.world import Sink
from tests.unit.test_config import SECRETS, example

DESK = "desk"
TROUBLE = (Unavailable, Unconfirmed)
UID = "a2b3c4d5e6f7g2h3i4j5"
VETO = """
def refuse(db, cl, nodeid, newvalues):
    if newvalues.get("status") == db.status.lookup("resolved"):
        raise ValueError("write down the cause first")
    if newvalues.get("status") == db.status.lookup("testing"):
        del newvalues["status"]

def init(db):
    db.issue.audit("set", refuse)
"""
SLOW = """
import time

def wait(db, cl, nodeid, oldvalues):
    time.sleep(3)

def init(db):
    db.issue.react("create", wait)
"""
BROKEN = """
def fail(db, cl, nodeid, newvalues):
    raise OSError("the mail server is away")

def init(db):
    db.issue.audit("set", fail)
"""


class HastyPort(BridgePort):
    """A port whose requests give up after a second."""

    def http(self, url: str, **how: Any) -> Http:
        return ToolHttp(self._session, self.spool, url, max_file=self._max_file, timeout=1.0, **how)


@dataclass
class Desk:
    """A tracker, the plugin on it through a proxy that can fail, and where the plugin's last poll ended."""

    tracker: Peer
    proxy: Proxy
    plugin: Roundup
    store: store.Store
    cursor: str = ""
    plain: ClassVar[Peer]

    async def begin(self) -> None:
        """The first poll, which only finds where to begin; what happens in that very second is not told."""
        assert await self.news() == []
        await asyncio.sleep(1.1)

    async def news(self, most: int = 20) -> list[Envelope]:
        """What polls bring until there is no more."""
        found: list[Envelope] = []
        for _ in range(most):
            page = await self.plugin.poll(self.cursor)
            self.cursor = page.cursor
            found += page.envelopes
            if not page.more:
                return found
        raise AssertionError("polls come to no end")

    async def texts(self) -> list[tuple[str, str]]:
        """Who said what in the news."""
        return [(each.author.account, each.text) for each in await self.news() if each.text]

    @property
    def requests(self) -> int:
        return self.proxy.requests.total()

    async def keep(self, name: str, type: str, data: bytes) -> File:
        """A file as it lies in the spool."""
        file = await self.plugin.port.spool.keep(name, type, data)
        await self.store.transact(lambda tx: tx.keep(file))
        return replace(file, data=None)


@pytest.fixture(scope="module", autouse=True)
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One tracker for all tests that want nothing special of it; each finds it as on its first day."""
    Desk.plain = Peer(tmp_path_factory.mktemp("tracker"))
    asyncio.run(Desk.plain.start())
    yield
    asyncio.run(Desk.plain.stop())


@contextlib.asynccontextmanager
async def desk(folder: Path, hasty: bool = False, max_file: int = 1_000_000, **how: Any) -> AsyncIterator[Desk]:
    async with contextlib.AsyncExitStack() as stack:
        if how:
            tracker = await stack.enter_async_context(Peer(folder / "peer", **how))
        else:
            tracker = Desk.plain
            tracker.reset()
        proxy = await stack.enter_async_context(Proxy(tracker.origin))
        memory = await stack.enter_async_context(store.opened(folder / "data"))
        session = await stack.enter_async_context(new_session())
        nothing: Any = None
        kind = HastyPort if hasty else BridgePort
        port = kind(DESK, memory, nothing, nothing, b"secret", session, max_file)
        yield Desk(tracker, proxy, Roundup(DESK, config(tracker, proxy), port), memory)


def config(tracker: Peer, proxy: Proxy, **changes: Any) -> Roundup.Config:
    settings = {"url": f"{proxy.url}/{NAME}/", "web": tracker.url, "username": BRIDGE}
    return Roundup.Config(**{**settings, "password": tracker.password(BRIDGE), **changes})


def delivery(attempts: int = 1, uid: str = UID) -> Delivery:
    return Delivery(1, uid, "lane", DESK, "draft", "", "ready", 1, time.time(), attempts=attempts)


def draft(remote: str = "begun:$event", **fields: Any) -> Draft:
    given = {"title": "No heating", "text": "It is cold.", "account": "alice", **fields}
    people: dict[str, Any] = {"author": "@alice:c.example", "author_name": "Alice", "recipients": Recipients(())}
    return Draft(DESK, "issue", 1, remote=remote, **people, **given)


def change(item: str, word: str, value: str, account: str = "alice") -> Change:
    return Change(item, word, value, account, "Alice")


def fields(envelope: Envelope) -> dict[str, str]:
    assert envelope.card
    return dict(envelope.card.fields)


# --- what comes in


async def test_a_new_issue_is_told_once_with_its_card_and_first_message(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.tracker.open("An old one", "Long ago.")
        await at.begin()
        issue = await at.tracker.open("No heating\r\nat all", "It is cold.", by="carol", priority="urgent")
        [told] = await at.news()
        assert (told.begins, told.text, told.title) == (True, "It is cold.", "No heating at all")
        assert told.author == Author(DESK, "carol", "Carol Customer", verified=True)
        assert (told.item, told.scopes, told.connector) == (f"issue{issue}", ("issue",), DESK)
        assert fields(told) == {"status": "unread", "priority": "urgent", "assigned to": ""}
        assert told.card
        assert (told.card.item, told.card.key, told.card.url) == (told.item, told.item, f"{at.tracker.url}{told.item}")
        assert await at.news() == []


async def test_an_issue_without_a_message_begins_with_its_card_alone(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.begin()  # of a tracker where nothing has happened yet
        await at.tracker.open("Only a title", by="bob")
        [told] = await at.news()
        assert (told.begins, told.text, told.author.account) == (True, "", "bob")
        assert told.card


async def test_comments_of_an_old_issue_are_told_without_those_before(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("Old", "said before")
        age(at.tracker, issue)
        await at.tracker.open("Newer")
        await at.begin()
        await at.tracker.comment(issue, "said now", by="carol")
        told = [each for each in await at.news() if each.text]
        assert [(each.text, each.begins) for each in told] == [("said now", False)]
        assert told[0].key == "msg2"


async def test_a_customer_comment_made_while_we_were_down_is_told_with_all_others_in_order(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating", by="carol")
        await at.begin()
        for number in range(12):
            await at.tracker.comment(issue, f"number {number}", by="carol" if number % 2 else "bob")
        told = await at.texts()
        assert told == [("carol" if number % 2 else "bob", f"number {number}") for number in range(12)]


async def test_two_changes_in_one_second_are_both_told(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await asyncio.sleep(1 - time.time() % 1)
        await at.tracker.change(issue, "alice", status="resolved")
        first = await at.news()
        await at.tracker.change(issue, "bob", status="testing")
        second = await at.news()
        assert [(each.author.account, fields(each)["status"]) for each in first + second] == [
            ("alice", "resolved"),
            ("bob", "testing"),
        ]
        assert first[0].key != second[0].key
        assert first[0].when < second[0].when


async def test_a_change_is_told_as_who_made_it_did_not_as_who_wrote_before(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await at.tracker.comment(issue, "I am on it", by="alice")
        await at.tracker.change(issue, "bob", status="resolved")
        told = await at.news()
        assert [(each.author.account, each.text) for each in told] == [("bob", ""), ("alice", "I am on it")]
        assert {fields(each)["status"] for each in told} == {"resolved"}


async def test_words_put_into_somebody_elses_mouth_are_not_verified(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        message = await at.tracker.call("POST", "msg", "carol", {"author": "alice", "content": "passerelle-code"})
        await at.tracker.change(issue, "carol", "add", messages=[message["id"]])
        told = {each.text: each.author for each in await at.news()}
        assert (told["passerelle-code"].account, told["passerelle-code"].verified) == ("alice", False)
        assert (told[""].account, told[""].verified) == ("carol", True)


async def test_our_own_comments_do_not_come_back(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await at.plugin.send(delivery(), draft(f"issue{issue}", text="From a room"))
        await at.plugin.create(delivery(uid=UID[::-1]), draft())
        told = await at.news()
        assert [each for each in told if each.text or each.begins] == []
        assert await at.news() == []


async def test_a_mark_that_others_have_copied_hides_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        sent = await at.plugin.send(delivery(), draft(f"issue{issue}", text="From a room"))
        await at.tracker.comment(issue, "copied", by="bob", messageid=sent.id)
        await at.tracker.comment(issue, "made up", by="bob", messageid=f"<passerelle.{UID}.{'a' * 16}@127.0.0.1>")
        assert await at.texts() == [("bob", "copied"), ("bob", "made up")]


async def test_an_answer_by_mail_refers_to_the_message_as_we_know_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        sent = await at.plugin.send(delivery(), draft(f"issue{issue}", text="How cold?"))
        await at.tracker.comment(issue, "Very", by="carol", messageid="<7@outside.example>", inreplyto=sent.id)
        told = [each for each in await at.news() if each.text]
        assert [(each.refs, each.id) for each in told] == [((sent.id,), "<7@outside.example>")]
        answered = Answered(told[0].id, told[0].refs, told[0].title, told[0].memo, "carol", "issue")
        await at.plugin.send(delivery(uid=UID[::-1]), draft(f"issue{issue}", text="I see", answered=answered))
        assert (await at.tracker.read(issue)).messages[-1].inreplyto == "<7@outside.example>"


async def test_the_cursor_survives_a_restart(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await at.tracker.comment(issue, "before")
        assert await at.texts() == [("alice", "before")]
        await at.tracker.restart()
        at.plugin = Roundup(DESK, at.plugin.config, at.plugin.port)
        await at.tracker.comment(issue, "after")
        assert await at.texts() == [("alice", "after")]


async def test_a_page_that_was_not_written_down_comes_again_the_same(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.begin()
        await at.tracker.open("No heating", "It is cold.")
        pages = [await at.plugin.poll(at.cursor) for _ in range(2)]
        assert [each.key for each in pages[0].envelopes] == [each.key for each in pages[1].envelopes] == ["msg1"]
        assert pages[0].cursor == pages[1].cursor


async def test_a_quiet_poll_costs_one_request_and_leaves_the_cursor(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await at.tracker.comment(issue, "news")
        await at.news()
        before, cursor = at.requests, at.cursor
        assert await at.news() == []
        assert (at.requests - before, at.cursor) == (1, cursor)


async def test_many_changes_of_one_second_come_to_an_end(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.tracker.open("First")
        await at.begin()
        await at.tracker.open("Second", "said")
        copy(at.tracker, 130)
        told = await at.news()
        assert len({each.item for each in told}) == 131
        assert len({each.key for each in told}) == len(told)
        assert await at.news() == []
        assert len(at.cursor) < 20_000


async def test_an_answer_to_another_question_is_not_taken(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.tracker.open("First")
        await at.begin()
        odd = json.loads(at.cursor)
        odd["place"] = odd["since"].replace("20", "99", 1).replace(".", " ")
        with pytest.raises(Unavailable, match="older"):
            await at.plugin.poll(json.dumps(odd))


@pytest.mark.parametrize("zone", ["9", "-5"])
async def test_the_time_zone_of_our_account_does_not_matter(tmp_path: Path, zone: str) -> None:
    async with desk(tmp_path) as at:
        await at.tracker.open("First")
        [us] = (await at.tracker.call("GET", "user", BRIDGE, params={"username:": BRIDGE}))["collection"]
        tag = (await at.tracker.call("GET", f"user/{us['id']}", BRIDGE))["@etag"]
        await at.tracker.call("PATCH", f"user/{us['id']}", BRIDGE, {"timezone": zone, "@etag": tag})
        await at.begin()
        issue = await at.tracker.open("No heating", "It is cold.")
        assert await at.texts() == [("alice", "It is cold.")]
        await at.plugin.send(delivery(), draft(f"issue{issue}", text="From a room"))
        await at.tracker.comment(issue, "Still")
        assert await at.texts() == [("alice", "Still")]


async def test_a_message_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await at.tracker.comment(issue, "lost")
        await at.tracker.comment(issue, "kept")
        next((at.tracker.home / "db" / "files" / "msg").rglob("msg1")).unlink()
        told = [each for each in await at.news() if each.text or each.problem]
        assert [each.key for each in told] == ["msg1", "msg2"]
        assert "msg1" in told[0].problem or told[0].text
        assert told[1].text == "kept"


async def test_a_removed_message_is_not_told(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await at.tracker.retire("msg", await at.tracker.comment(issue, "spam"))
        assert await at.texts() == []


# --- files


async def test_files_go_both_ways(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        await at.tracker.comment(issue, "the plan", files=[("../a b.txt", b"\xff\x00plan", "text/plain")])
        told = [each for each in await at.news() if each.text]
        [file] = told[0].files
        assert (file.name, file.type, file.size) == ("../a b.txt", "text/plain", 6)
        assert await at.plugin.port.spool.read(file) == b"\xff\x00plan"

        out = [await at.keep("ä.png", "image/png", b"\x89PNG"), File("empty.txt", "text/plain", 0, "0" * 64)]
        await at.plugin.send(delivery(), draft(f"issue{issue}", text="", files=tuple(out)))
        shown = await at.tracker.read(issue)
        said = shown.messages[-1]
        assert [await at.tracker.download(each) for each in said.files] == [("ä.png", b"\x89PNG", "image/png")]
        assert set(said.files) <= set(shown.files)
        assert "empty.txt" in said.content


async def test_a_file_that_is_too_large_is_told_with_its_message(tmp_path: Path) -> None:
    async with desk(tmp_path, max_file=100) as at:
        issue = await at.tracker.open("No heating")
        await at.begin()
        files = [("large.bin", b"x" * 101, "application/x-test"), ("small.bin", b"x", "application/x-test")]
        await at.tracker.comment(issue, "two files", files=files)
        [told] = [each for each in await at.news() if each.text]
        assert [file.name for file in told.files] == ["small.bin"]
        assert "large.bin" in told.problem
        assert f"{at.tracker.url}msg1" in told.problem


# --- what leaves


async def test_a_comment_is_its_authors_and_moves_the_card(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating", "It is cold.", by="carol")
        before = at.requests
        sent = await at.plugin.send(delivery(), draft(f"issue{issue}", text=" On my way \ud800", account="bob"))
        assert at.requests - before == 4
        said = (await at.tracker.read(issue)).messages[-1]
        assert (said.author, said.content, said.messageid) == ("bob", "On my way", sent.id)
        assert sent.card
        assert dict(sent.card.fields)["status"] == "chatting"


async def test_who_has_no_account_there_is_named_in_the_text(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.plugin.send(delivery(), draft(f"issue{issue}", account="", text="On my way"))
        said = (await at.tracker.read(issue)).messages[-1]
        assert (said.author, said.content) == (BRIDGE, "Alice:\n\nOn my way")


async def test_a_new_issue_has_the_words_the_transcript_the_link_and_the_files(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        file = await at.keep("a.txt", "text/plain", b"a")
        link = "https://matrix.to/#/!r/$e"
        whole: dict[str, Any] = {"transcript": "Carol: it is cold", "link": link, "files": (file,)}
        made = draft(title=" No\nheating ", **whole)
        before = at.requests
        sent = await at.plugin.create(delivery(), made)
        assert at.requests - before == 4
        assert sent.card
        issue = await at.tracker.read(sent.card.item.removeprefix("issue"))
        assert (issue.title, sent.card.title) == ("No heating", "No heating")
        assert issue.messages[0].content == "It is cold.\n\nCarol: it is cold\n\nhttps://matrix.to/#/!r/$e"
        assert (issue.messages[0].author, issue.files) == ("alice", issue.messages[0].files)


async def test_nothing_at_all_is_still_something_to_the_tracker(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        sent = await at.plugin.create(delivery(), draft(title="\ud800", text=" \ud800"))
        assert sent.card
        assert sent.card.title


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "rest/data/msg"), ("GET", "rest/data/issue/"), ("PATCH", "rest/data/issue/")]
)
@pytest.mark.parametrize("kind", ["cut", "refuse"])
async def test_a_comment_in_doubt_is_not_written_twice(tmp_path: Path, kind: Kind, method: str, path: str) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        file = await at.keep("a.txt", "text/plain", b"a")
        at.proxy.add(kind, f"/{NAME}/{path}", method=method, times=3 if method == "GET" else 1)
        with pytest.raises(TROUBLE):
            await at.plugin.send(delivery(), draft(f"issue{issue}", text="once", files=(file,)))
        sent = await at.plugin.send(delivery(2), draft(f"issue{issue}", text="once", files=(file,)))
        await at.plugin.send(delivery(3), draft(f"issue{issue}", text="once", files=(file,)))
        assert [each.content for each in await at.tracker.messages(sent.id)] == ["once"]
        shown = await at.tracker.read(issue)
        assert [each.messageid for each in shown.messages] == [sent.id]
        assert len(shown.files) == 1
        assert [each.action for each in at.tracker.history(issue)] == ["create", "set"]


@pytest.mark.parametrize("path", ["rest/data/msg", "rest/data/issue"])
@pytest.mark.parametrize("kind", ["cut", "refuse"])
async def test_an_issue_in_doubt_is_not_made_twice(tmp_path: Path, kind: Kind, path: str) -> None:
    async with desk(tmp_path) as at:
        at.proxy.add(kind, f"/{NAME}/{path}", method="POST", times=1)
        with pytest.raises(TROUBLE):
            await at.plugin.create(delivery(), draft())
        sent = [await at.plugin.create(delivery(attempts), draft()) for attempts in (2, 3)]
        assert {each.card.item for each in sent if each.card} == {"issue1"}
        assert await at.tracker.issues() == ["1"]
        assert await at.tracker.count(sent[0].id) == 1


async def test_an_issue_that_is_still_being_made_is_waited_for(tmp_path: Path) -> None:
    async with desk(tmp_path, hasty=True, detectors={"slow.py": SLOW}) as at:
        with pytest.raises(TROUBLE):
            await at.plugin.create(delivery(), draft())
        for attempts in range(2, 9):
            with contextlib.suppress(*TROUBLE, Deferred):
                sent = await at.plugin.create(delivery(attempts), draft())
                break
        assert sent.card
        assert await at.tracker.issues() == ["1"]


async def test_a_comment_goes_on_when_others_are_quicker(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        texts = [f"comment {number}" for number in range(4)]
        drafts = [(delivery(uid=f"{UID}{text[-1]}"), draft(f"issue{issue}", text=text)) for text in texts]
        await asyncio.gather(*(at.plugin.send(*each) for each in drafts))
        assert sorted(each.content for each in (await at.tracker.read(issue)).messages) == texts


async def test_the_trackers_own_trouble_is_waited_out(tmp_path: Path) -> None:
    async with desk(tmp_path, detectors={"broken.py": BROKEN}) as at:
        issue = await at.tracker.open("No heating")
        with pytest.raises(Deferred, match="An error occurred"):
            await at.plugin.send(delivery(), draft(f"issue{issue}", text="once"))
        (at.tracker.home / "detectors" / "broken.py").write_text("def init(db): pass")
        await at.tracker.stop()
        with pytest.raises(Unavailable):
            await at.plugin.send(delivery(2), draft(f"issue{issue}", text="once"))
        del at.tracker.detectors["broken.py"]  # type: ignore[attr-defined]
        await at.tracker.start()
        await at.plugin.send(delivery(3), draft(f"issue{issue}", text="once"))
        assert [each.content for each in (await at.tracker.read(issue)).messages] == ["once"]


async def test_a_mail_server_that_is_away_delays_a_comment_and_loses_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path, smtp=("127.0.0.1", free_port())) as at:
        issue = await at.tracker.open("No heating", nosy=["carol"])
        with pytest.raises(Deferred):
            await at.plugin.send(delivery(), draft(f"issue{issue}", text="once"))
        async with Sink() as sink:
            await at.tracker.stop()
            at.tracker.smtp = (sink.host, sink.port)
            await at.tracker.start()
            sent = await at.plugin.send(delivery(2), draft(f"issue{issue}", text="once"))
            assert await at.tracker.count(sent.id) == 1


async def test_a_removed_issue_refuses_comments_for_good(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        await at.tracker.retire("issue", issue)
        with pytest.raises(Gone, match="retired"):
            await at.plugin.send(delivery(), draft(f"issue{issue}"))


async def test_an_author_that_the_tracker_no_longer_knows_is_told(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = await at.tracker.open("No heating")
        with pytest.raises(Rejected, match="gone"):
            await at.plugin.send(delivery(), draft(f"issue{issue}", account="gone"))


async def test_a_wrong_password_is_the_trackers_trouble_and_is_never_shown(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        wrong = config(at.tracker, at.proxy, password="wrong-4711")
        plugin = Roundup(DESK, wrong, at.plugin.port)
        with pytest.raises(Unavailable) as told:
            await plugin.fetch("issue1")
        assert "4711" not in str(told.value) + repr(wrong)
        [finding] = await plugin.check()
        assert not finding.ok
        assert "4711" not in str(finding)


# --- items


async def test_a_change_is_made_by_name_and_read_back(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        issue = f"issue{await at.tracker.open('No heating')}"
        wanted = [("state", "resolved"), ("assign-item", "alice"), ("priority", "urgent"), ("state", "resolved")]
        for word, value in wanted:
            card = await at.plugin.change(change(issue, word, value))
        assert dict(card.fields) == {"status": "resolved", "priority": "urgent", "assigned to": "alice"}
        assert card == await at.plugin.fetch(issue)
        nobody = await at.plugin.change(change(issue, "assign-item", "-1"))
        assert dict(nobody.fields)["assigned to"] == ""
        with pytest.raises(Rejected, match="'closed' is not a status"):
            await at.plugin.change(change(issue, "state", "closed"))
        with pytest.raises(Rejected, match="99"):
            await at.plugin.change(change("issue99", "state", "resolved"))


async def test_a_veto_is_told_with_its_reason(tmp_path: Path) -> None:
    async with desk(tmp_path, detectors={"veto.py": VETO}) as at:
        issue = f"issue{await at.tracker.open('No heating')}"
        with pytest.raises(Rejected, match="write down the cause first"):
            await at.plugin.change(change(issue, "state", "resolved"))
        with pytest.raises(Rejected, match="has not changed status"):
            await at.plugin.change(change(issue, "state", "testing"))


async def test_an_item_that_is_not_there_cannot_be_shown(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        with pytest.raises(Gone, match="has no issue99"):
            await at.plugin.fetch("issue99")


@pytest.fixture
def unplugged() -> Roundup:
    settings = {"url": "http://127.0.0.1:8080/desk", "web": "https://Tracker.company.example/it/desk/"}
    nothing: Any = None
    port = BridgePort(DESK, nothing, nothing, nothing, b"secret", nothing, 1)
    port.http = lambda *_, **how: how  # type: ignore[assignment, method-assign]
    return Roundup(DESK, Roundup.Config(**settings, username="bridge", password="x"), port)


@pytest.mark.parametrize(
    "text",
    [
        "issue12",
        "Issue 12",
        "issue#12",
        "ISSUE #12",
        "https://tracker.company.example/it/desk/issue12",
        "HTTPS://TRACKER.company.example/it/desk/issue12?@template=item#top",
        "https://tracker.company.example/it/desk/rest/data/issue/12",
        "http://127.0.0.1:8080/desk/rest/data/issue/12/messages",
    ],
)
def test_items_are_known_by_their_name_and_their_addresses(unplugged: Roundup, text: str) -> None:
    assert unplugged.match(text) == "issue12"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "issue",
        "issue0",
        "issue١٢",
        "tissue12",
        "issue12a",
        "begun:$event",
        "msg12",
        "https://tracker.company.example/it/desk/msg12",
        "https://tracker.company.example/it/DESK/issue12",
        "https://tracker.company.example/it/desk/../issue12",
        "https://tracker.company.example.evil/it/desk/issue12",
        "https://evil@tracker.company.example/it/desk/issue12",
        "http://tracker.company.example/it/desk/issue12",
        "https://trackerXcompany.example/it/desk/issue12",
    ],
)
def test_what_is_not_an_item_of_this_tracker_is_not_taken_for_one(unplugged: Roundup, text: str) -> None:
    assert unplugged.match(text) == ""


def test_recipients_are_the_item_itself(unplugged: Roundup) -> None:
    assert str(unplugged.audience("issue", "issue12", None).to[0]) == "desk <issue12>"
    with pytest.raises(Rejected, match="not made yet"):
        unplugged.audience("issue", "begun:$event", None)
    assert unplugged.scopes() == ("issue",)
    assert unplugged.recipients(()).all


def test_the_origin_is_that_of_the_trackers_own_address(unplugged: Roundup) -> None:
    headers: Any = unplugged.http
    assert headers["headers"]["Origin"] == "https://Tracker.company.example"


# --- how it is set up


async def test_the_check_tells_what_is_wrong(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        [finding] = await at.plugin.check()
        assert finding.ok
        assert "in-progress, testing" in finding.what
        assert await at.tracker.messages("") == []
        for wrong in ({"web": "https://elsewhere.example/desk/"}, {"url": f"{at.proxy.url}/other/"}):
            [finding] = await Roundup(DESK, config(at.tracker, at.proxy, **wrong), at.plugin.port).check()
            assert not finding.ok
            assert finding.remedy


def test_the_example_is_whole_and_loads(tmp_path: Path) -> None:
    sample = yaml.safe_load((ROOT / "config" / "roundup.yaml").read_text())
    settings = example()
    settings["connectors"] |= sample["connectors"]
    settings["mappings"] += sample["mappings"]
    (tmp_path / "passerelle.yaml").write_text(yaml.safe_dump(settings))
    _, connectors = load(tmp_path / "passerelle.yaml", SECRETS | {"PASSERELLE_ROUNDUP_PASSWORD": "roundup-secret"})
    kind, loaded = connectors["helpdesk"]
    assert kind is Roundup
    assert "roundup-secret" not in repr(loaded)


def test_every_setting_is_explained() -> None:
    text = (ROOT / "config" / "roundup.yaml").read_text()
    page = (ROOT / "docs" / "plugins" / "roundup.md").read_text()
    for name, field in Roundup.Config.model_fields.items():
        assert field.description
        assert re.search(rf"^ *#?{name}: ", text, re.MULTILINE), name
        assert f"`{name}`" in page


# --- the tracker's database, where REST does not reach


def age(tracker: Peer, issue: str) -> None:
    """Make an issue and its messages years older."""
    with contextlib.closing(sqlite3.connect(tracker.home / "db" / "db")) as database, database:
        for table, where in (("_issue", f"id = {issue}"), ("_msg", "1")):
            for when in ("_activity", "_creation"):
                database.execute(f"UPDATE {table} SET {when} = '2025' || substr({when}, 5) WHERE {where}")


def copy(tracker: Peer, times: int) -> None:
    """Give the newest issue many twins of the very same time."""
    with contextlib.closing(sqlite3.connect(tracker.home / "db" / "db")) as database, database:
        database.row_factory = sqlite3.Row
        row = dict(database.execute("SELECT * FROM _issue ORDER BY id DESC LIMIT 1").fetchone())
        for number in range(row["id"] + 1, row["id"] + 1 + times):
            twin = row | {"id": number}
            marks = ", ".join("?" * len(twin))
            database.execute(f"INSERT INTO _issue ({', '.join(twin)}) VALUES ({marks})", tuple(twin.values()))
