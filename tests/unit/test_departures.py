"""What operators can find out about what left, and about what could not."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import payload, store
from bridge.config import Config
from bridge.departures import ConnectorDestination, abandon
from bridge.model import Address, Change, Delivery, Draft, Lifecycle, Recipients, Sent
from bridge.payload import Alter, Look, Mark, Post
from bridge.places import Places
from bridge.rules import Rules
from bridge.store import Tx
from bridge.texts import Texts
from bridge.watch.logs import Lines

TO = Recipients((Address("jane@customer.example"),))
DRAFT = Draft("mail", "support@company.example", 1, "Title", "@alice:company.example", "Alice", TO, room="!room")
ROW = Delivery(1, "abcdefghij234567abcd", "mail:1", "mail", "draft", payload.dump(DRAFT), "ready", 1, 0.0)


class Smarthost:
    """A connector whose server takes everything."""

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        return Sent("<id@company.example>", reply="250 2.0.0 queued as 4XyZ")


CONFIG = Config.model_validate(
    {
        "homeserver": {"url": "http://hs", "server_name": "company.example"},
        "appservice": {"as_token": "a", "hs_token": "h"},
        "connectors": {"mail": {}},
    }
)


def places() -> Places:
    made = Places(CONFIG, Texts("en"))
    made.management = "!operators"
    return made


async def test_the_log_says_what_the_server_called_a_message_and_nobodys_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there = ConnectorDestination.__new__(ConnectorDestination)
    there.name, there._connector, there._deferred = "mail", Smarthost(), set()  # type: ignore[assignment]
    with caplog.at_level(logging.INFO, "bridge.departures"):
        await there.deliver(ROW)
    (line,) = map(Lines().format, caplog.records)
    assert f"uid={ROW.uid}" in line
    assert line.endswith('reply="250 2.0.0 queued as 4XyZ"')
    assert "@" not in line


@pytest.mark.parametrize(("uid", "named"), [("", ROW.uid), ("kept", "kept")])
async def test_operators_hear_of_a_dead_letter_by_the_name_it_is_kept_under(
    tmp_path: Path, uid: str, named: str
) -> None:
    def rule(tx: Tx) -> list[Post]:
        places().tell_dead_letter(tx, ROW, "!room", "550 no such user", uid)
        return [payload.load(Post, row.payload) for row in tx.queue.fresh]

    async with store.opened(tmp_path) as memory:
        (post,) = await memory.transact(rule)
    assert post.room == "!operators"
    assert "draft to mail" in post.body
    assert "550 no such user (passerelle dead-letters show " + named in post.body


async def test_what_waits_for_a_tool_that_is_configured_no_more_is_given_up_and_who_asked_hears_so(
    tmp_path: Path,
) -> None:
    rules = Rules(CONFIG)
    rules.places.management = "!operators"
    states: tuple[Lifecycle, ...] = ("asked", "held", "paused", "ready")

    def waiting(tx: Tx) -> None:
        for state in states:
            for tool in ("mail", "gone"):
                draft = payload.dump(replace(DRAFT, connector=tool, source=f"$words {tool} {state}"))
                uid = tx.queue.add_draft(f"{tool}:1", tool, draft, 1, DRAFT.author, f"$words {tool} {state}", "$cause")
                tx.queue.move(uid, state)
        change = Alter("!room", 1, Change("job1", "state", "done", "", "Alice"), "$asked")
        tx.queue.add("gone:1", "gone", "change", payload.dump(change), conversation=1)
        look = Look("!room", "job2", "jobs", "$mentioned", follow=False)
        tx.queue.add("gone:1:look", "gone", "look", payload.dump(look), conversation=1)
        tx.queue.fresh.clear()

    def start(tx: Tx) -> list[Delivery]:
        abandon(tx, {"mail"}, rules.outward, rules.places, rules.say)
        return tx.queue.fresh

    async with store.opened(tmp_path) as memory:
        await memory.transact(waiting)
        said = await memory.transact(start)
        dead = await memory.transact(lambda tx: tx.queue.in_state("dead"))
        left = await memory.transact(
            lambda tx: [row for row in tx.queue.in_state("ready") if row.destination == "gone"]
        )
        assert not await memory.transact(start)
    assert [(row.kind, row.destination) for row in dead] == [("draft", "gone")] * len(states)
    assert not left
    posts = [payload.load(Post, row.payload) for row in said if row.kind == "post"]
    assert [post.mentions for post in posts if "gone is not configured" in post.body and post.answers] == [
        *[(DRAFT.author,)] * len(states), (),
    ]  # fmt: skip
    assert sum(post.room == "!operators" for post in posts) == len(states)
    marks = {payload.load(Mark, row.payload).event for row in said if row.kind == "mark"}
    assert marks == {f"$words gone {state}" for state in states}
