"""The Redmine plugin on a real server: what it tells, what it writes, and what that server does in silence."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge import store
from bridge.config import load
from bridge.http import new_session
from bridge.model import Author, Change, Delivery, Draft, Envelope, File, Recipients, Rejected, Unavailable, Unconfirmed
from bridge.port import BridgePort
from plugins.redmine import Redmine
from plugins.redmine_json import MARK
from tests.peers import ROOT, until
from tests.peers.faults import Proxy
from tests.peers.redmine import BRIDGE, CLERK, FIELD, OTHER, PROJECT
from tests.peers.redmine import Redmine as Server
from tests.unit.test_config import SECRETS, example

pytestmark = pytest.mark.debian("redmine", "/usr/share/redmine/bin/rails")
UID = "a2b3c4d5e6f7g2h3i4j5"


@dataclass
class Desk:
    """The server, the plugin on it through a proxy that can fail, and where the plugin's last poll ended."""

    server: Server
    proxy: Proxy
    plugin: Redmine
    store: store.Store
    cursor: str = ""

    async def begin(self) -> None:
        """The first poll, which only finds where to begin."""
        assert await self.news() == []

    async def news(self) -> list[Envelope]:
        """What polls bring until there is no more."""
        found: list[Envelope] = []
        for _ in range(20):
            page = await self.plugin.poll(self.cursor)
            self.cursor = page.cursor
            found += page.envelopes
            if not page.more:
                return found
        raise AssertionError("polls come to no end")

    async def hears(self, count: int) -> list[Envelope]:
        """So many: what happens in the same second as a poll, the next ones bring."""
        found: list[Envelope] = []

        async def all_of_them() -> bool:
            found.extend(await self.news())
            return len(found) >= count

        await until(all_of_them, f"{count} envelopes", every=0.3)
        return found

    async def keep(self, name: str, type: str, data: bytes) -> File:
        """A file as it lies in the spool."""
        file = await self.plugin.port.spool.keep(name, type, data)
        await self.store.transact(lambda tx: tx.keep(file))
        return replace(file, data=None)

    def connector(self, **changes: Any) -> Redmine:
        """The same with other settings."""
        return Redmine("desk", config(self.server, self.proxy.url, **changes), self.plugin.port)


def config(server: Server, url: str, **changes: Any) -> Redmine.Config:
    settings = {"url": url, "web": server.url, "username": BRIDGE, **changes}
    return Redmine.Config(**{"password": server.password(settings["username"]), **settings})


@pytest.fixture
async def at(redmine: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    server = redmine
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(server.origin))
        memory = await stack.enter_async_context(store.opened(tmp_path))
        session = await stack.enter_async_context(new_session())
        nothing: Any = None
        port = BridgePort("desk", memory, nothing, nothing, b"secret", session, 1_000_000)
        yield Desk(server, proxy, Redmine("desk", config(server, proxy.url), port), memory)


def delivery(attempts: int = 1, uid: str = UID) -> Delivery:
    return Delivery(1, uid, "lane", "desk", "draft", "", "ready", 1, time.time(), attempts=attempts)


def draft(issue: int = 0, **fields: Any) -> Draft:
    given = {"title": "No heating", "text": "It is cold.", "account": "alice", "author_name": "Alice", **fields}
    remote = f"redmine{issue}" if issue else "begun:$event"
    return Draft("desk", PROJECT, 1, author="@alice:c.example", recipients=Recipients(()), remote=remote, **given)


def fields(envelope: Envelope) -> dict[str, str]:
    assert envelope.card
    return dict(envelope.card.fields)


async def journals(at: Desk, issue: int) -> list[Any]:
    return list((await at.server.read(issue))["journals"])


# --- what comes in


async def test_a_new_issue_is_told_once_with_its_card_scope_and_files(at: Desk) -> None:
    await at.begin()
    upload = await at.server.upload("plan.txt", b"\xff\x00plan", "text/plain", "carol")
    issue = await at.server.open("No heating", "It is cold.", uploads=[upload])
    later = [("later.txt", b"x", "text/plain")]
    await at.server.comment(issue, "more", "bob", files=later)
    begun, more = await at.news()
    assert (begun.begins, begun.text, begun.title, begun.private) == (True, "It is cold.", "No heating", False)
    assert begun.author == Author("desk", "carol", "Carol Example", verified=True)
    assert (begun.item, begun.scopes, begun.key) == (f"redmine{issue}", (PROJECT,), f"redmine{issue}")
    assert fields(begun) == {"state": "New", "priority": "Normal", "assigned to": "", "tracker": "Bug"}
    assert begun.card
    assert (begun.card.key, begun.card.scope, begun.card.private) == (f"redmine#{issue}", PROJECT, False)
    assert begun.card.url == f"{at.server.url}/issues/{issue}"
    assert [file.name for file in begun.files] == ["plan.txt"]
    assert await at.plugin.port.spool.read(begun.files[0]) == b"\xff\x00plan"
    assert [file.name for file in more.files] == ["later.txt"]
    assert await at.news() == []


async def test_each_change_is_told_as_it_was_made_and_by_whom(at: Desk) -> None:
    issue = await at.server.open("No heating")
    await at.begin()
    await at.server.change(issue, "alice", status_id=2, subject="Heating")
    await at.server.change(issue, "bob", status_id=3)
    await at.server.comment(issue, "done", "bob")
    told = await at.hears(3)
    assert [(each.author.account, fields(each)["state"], each.title, each.text) for each in told] == [
        ("alice", "In Progress", "Heating", ""),
        ("bob", "Resolved", "Heating", ""),
        ("bob", "Resolved", "Heating", "done"),
    ]


async def test_a_second_note_of_the_same_second_is_not_missed(at: Desk) -> None:
    issue = await at.server.open("No heating")
    await at.begin()
    told: list[Envelope] = []
    for text in ("one", "two", "three"):
        await at.server.change(issue, "bob", notes=text)
        told += await at.news()
    told += await at.hears(3 - len(told))
    assert [each.text for each in told] == ["one", "two", "three"]


async def test_status_and_private_note_in_one_change_are_two_journals_and_only_the_note_is_private(at: Desk) -> None:
    issue = await at.server.open("No heating")
    await at.begin()
    await at.server.change(issue, "alice", notes="he always says that", private_notes=True, status_id=2)
    told = await at.hears(2)
    assert [(each.text, each.private, fields(each)["state"]) for each in told] == [
        ("", False, "In Progress"),
        ("he always says that", True, "In Progress"),
    ]


async def test_all_of_a_private_issue_is_private(at: Desk) -> None:
    await at.begin()
    issue = await at.server.open("Pay", "secret", by="alice", is_private=True)
    await at.server.comment(issue, "more", "alice")
    told = await at.news()
    assert [each.private for each in told] == [True, True]
    assert (await at.plugin.fetch(f"redmine{issue}")).private


async def test_projects_are_offered_and_each_issue_is_of_its_own(at: Desk) -> None:
    assert set(await at.plugin.offers()) == {PROJECT, OTHER}
    issue = await at.server.open("In the lab", by="alice", project_id=OTHER)
    assert (await at.plugin.fetch(f"redmine{issue}")).scope == OTHER


async def test_a_quiet_poll_costs_one_request_once_things_have_settled(at: Desk) -> None:
    await at.server.open("No heating")
    await at.begin()

    async def quiet() -> bool:
        cursor, before = at.cursor, at.proxy.requests.total()
        assert await at.news() == []
        return (at.proxy.requests.total() - before, at.cursor) == (1, cursor)

    await until(quiet, "polls of one request", every=0.5)
    assert await quiet()


async def test_our_own_words_do_not_come_back_but_copies_of_them_do(at: Desk) -> None:
    issue = await at.server.open("No heating")
    other = await at.server.open("Other")
    await at.begin()
    await at.plugin.send(delivery(), draft(issue, text="From a room"))
    made = await at.plugin.create(delivery(uid=UID[::-1]), draft())
    assert [each for each in await at.news() if each.text or each.begins] == []
    copied = (await journals(at, issue))[-1]["notes"]
    await at.server.change(issue, "bob", notes=copied)
    await at.server.change(other, "bob", notes=copied)
    assert made.card
    description = (await at.server.read(int(made.card.item.removeprefix("redmine"))))["description"]
    await at.server.open("A copy", description, by="bob")
    told = [each for each in await at.hears(3) if each.text]
    assert [each.author.account for each in told] == ["bob", "bob", "bob"]


# --- what leaves


async def test_a_note_is_its_authors_public_and_bears_a_mark_out_of_sight(at: Desk) -> None:
    issue = await at.server.open("No heating")
    sent = await at.plugin.send(delivery(), draft(issue, text="On my way", account="bob"))
    [note] = await journals(at, issue)
    assert (note["user"]["name"], note["private_notes"], sent.id) == ("Bob Example", False, f"note{note['id']}")
    assert MARK.sub("", note["notes"]).strip() == "On my way"


@pytest.mark.parametrize(("username", "account"), [(BRIDGE, ""), (CLERK, "alice")])
async def test_whom_it_cannot_speak_as_is_named_in_the_text(at: Desk, username: str, account: str) -> None:
    """Without a proven account; or where the bridge's own is no administrator's, and the header is ignored."""
    issue = await at.server.open("No heating")
    plugin = at.connector(username=username)
    await plugin.send(delivery(), draft(issue, text="On my way", account=account))
    [note] = await journals(at, issue)
    assert (note["user"]["name"], note["notes"].startswith("Alice:")) == (f"{username.title()} Example", True)
    made = await plugin.create(delivery(), draft(account=account))
    assert made.card
    shown = await at.server.read(int(made.card.item.removeprefix("redmine")))
    assert shown["description"].startswith("Alice:")


async def test_who_may_not_write_there_is_told_and_nothing_else_waits(at: Desk) -> None:
    issue = await at.server.open("No heating")
    for account, reason in (("guest", "does not let guest"), ("gone", "no active account gone")):
        with pytest.raises(Rejected, match=reason):
            await at.plugin.send(delivery(), draft(issue, account=account))
    with pytest.raises(Rejected, match="does not let the bridge"):
        await at.connector(username="guest").send(delivery(), draft(issue, account=""))
    assert await journals(at, issue) == []


async def test_a_note_with_a_file_in_doubt_is_written_once(at: Desk) -> None:
    issue = await at.server.open("No heating")
    file = await at.keep("ä b.txt", "text/plain", b"a")
    empty = File("empty.txt", "text/plain", 0, "0" * 64)
    words = draft(issue, text="once", files=(file, empty))
    at.proxy.add("cut", "/issues/", method="PUT", times=1)
    with pytest.raises(Unconfirmed):
        await at.plugin.send(delivery(), words)
    sent = [await at.plugin.send(delivery(attempts), words) for attempts in (2, 3)]
    [note] = await journals(at, issue)
    assert {each.id for each in sent} == {f"note{note['id']}"}
    [attached] = (await at.server.read(issue))["attachments"]
    assert (attached["filename"], attached["filesize"], attached["content_type"]) == ("ä b.txt", 1, "text/plain")
    assert "(empty.txt: 0 bytes)" in note["notes"]


async def test_an_issue_in_doubt_is_made_once_and_a_field_can_keep_its_mark(at: Desk) -> None:
    plugin, uid = at.connector(custom_field=FIELD), f"{UID[:-1]}7"
    at.proxy.add("cut", "/issues.json", method="POST", times=1)
    with pytest.raises(Unconfirmed):
        await plugin.create(delivery(uid=uid), draft(title="Only once"))
    sent = [await plugin.create(delivery(attempts, uid), draft(title="Only once")) for attempts in (2, 3)]
    assert len({each.card.item for each in sent if each.card}) == 1
    assert (await at.server.titles()).count("Only once") == 1
    shown = await at.server.read(int(sent[0].id.removeprefix("redmine")))
    assert "passerelle" not in shown["description"]
    assert shown["author"]["name"] == "Alice Example"


async def test_nothing_is_called_gone_by_whoever_else_answers(at: Desk) -> None:
    number = await at.server.open("Here", "It is.")
    at.proxy.add(404)
    with pytest.raises(Unavailable):
        await at.plugin.fetch(f"redmine{number}")


async def test_a_file_that_is_too_large_is_refused_before_anything_is_written(at: Desk) -> None:
    issue = await at.server.open("No heating")
    large = await at.keep("large.bin", "application/x-test", b"x" * 70_000)
    with pytest.raises(Rejected, match="maximum allowed file size"):
        await at.plugin.send(delivery(), draft(issue, files=(large,)))
    assert await journals(at, issue) == []


# --- changes


async def test_a_change_that_the_workflow_forbids_is_not_called_done(at: Desk) -> None:
    issue = await at.server.open("No heating")
    with pytest.raises(Rejected, match="has not changed state; carol may set: New"):
        await at.plugin.change(Change(f"redmine{issue}", "state", "closed", "carol", "Carol"))
    card = await at.plugin.change(Change(f"redmine{issue}", "state", "closed", "alice", "Alice"))
    assert dict(card.fields)["state"] == "Closed"
    assert (await journals(at, issue))[-1]["user"]["name"] == "Alice Example"


async def test_people_are_assigned_by_account_and_taken_off_again(at: Desk) -> None:
    issue = await at.server.open("No heating")
    for value, shown in (("Bob", "Bob Example"), ("-1", "")):
        card = await at.plugin.change(Change(f"redmine{issue}", "assign-item", value, "alice", "Alice"))
        assert dict(card.fields)["assigned to"] == shown
    with pytest.raises(Rejected, match="knows no nobody-such"):
        await at.plugin.change(Change(f"redmine{issue}", "assign-item", "nobody-such", "", "Alice"))
    with pytest.raises(Rejected, match="only when the bridge's account"):
        await at.connector(username=CLERK).change(Change(f"redmine{issue}", "assign-item", "bob", "", "Alice"))


async def test_what_only_a_private_note_says_is_found_for_those_only_who_may_see_it(at: Desk) -> None:
    issue = await at.server.open("Xylophone", "out of tune")
    street = await at.server.open("Straße", "wet")
    assert [card.item for card in await at.plugin.find("straße WET", [PROJECT])] == [f"redmine{street}"]
    await at.server.comment(issue, "the marimba too")
    await at.server.comment(issue, "they never paid for the vibraphone", "alice", private_notes=True)
    found = {words: [(card.item, card.private) for card in await at.plugin.find(words, [PROJECT])]
             for words in ("tune XYLO", "marimba too", "vibraphone paid", "tune marimba", "xylo_hone")}  # fmt: skip
    public = [(f"redmine{issue}", False)]
    assert found == {
        "tune XYLO": public, "marimba too": public, "vibraphone paid": [(f"redmine{issue}", True)],
        "tune marimba": [], "xylo_hone": [],
    }  # fmt: skip


def test_items_are_known_by_key_and_address_and_a_bare_number_is_not(redmine: Server) -> None:
    port: Any = type("Port", (), {"http": lambda self, url, **how: None})()
    plugin = Redmine("desk", config(redmine, redmine.url, web="https://r.example/pm", prefix="OPS"), port)
    for text in ("ops#12", "redmine12", "https://R.example/pm/issues/12#note-3", f"{redmine.url}/issues/12?tab=x"):
        assert plugin.match(text) == "redmine12"
    for text in (
        "#12",
        "12",
        "redmine#12x",
        "ops#0",
        "https://r.example/issues/12",
        "https://r.example.evil/pm/issues/1",
    ):
        assert plugin.match(text) == ""


# --- how it is set up


async def test_the_check_tells_what_is_wrong(at: Desk) -> None:
    [finding] = await at.plugin.check()
    assert (finding.ok, "may speak as people" in finding.what) == (True, True)
    [finding] = await at.connector(username=CLERK).check()
    assert (finding.ok, "is no administrator" in finding.what) == (True, True)
    [finding] = await at.connector(password="wrong-4711").check()
    assert (finding.ok, "4711" in repr(finding)) == (False, False)
    assert [each.ok for each in await at.connector(custom_field=FIELD).check()] == [True]
    assert [each.ok for each in await at.connector(custom_field=99).check()] == [True, False]


def test_the_example_is_whole_and_loads(tmp_path: Path) -> None:
    text = (ROOT / "config" / "redmine.yaml").read_text()
    sample, settings = yaml.safe_load(text), example()
    settings["connectors"] |= sample["connectors"]
    settings["mappings"] += sample["mappings"]
    (tmp_path / "passerelle.yaml").write_text(yaml.safe_dump(settings))
    _, connectors = load(tmp_path / "passerelle.yaml", SECRETS | {"PASSERELLE_REDMINE_PASSWORD": "redmine-secret"})
    assert connectors["projects"][0] is Redmine
    for name in Redmine.Config.model_fields:
        assert f"{name}: " in text
