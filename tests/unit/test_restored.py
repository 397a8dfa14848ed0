"""A bridge on a restored backup: what it may have done since the backup was made, it does not do again by itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge import payload, store
from bridge.model import Change
from bridge.outward import HELD, LEFT
from bridge.payload import Alter
from bridge.restored import look_back
from bridge.store import Tx
from tests.unit.test_outward_rules import ALICE, HERE, Office, _end_hold, reaction

MADE = time.mktime((2026, 11, 20, 10, 0, 0, 0, 0, -1))
WHY = "restored from a backup of 2026-11-20 10:00"
BOT = "@passerelle:company.example"
AGO = 30  # seconds: young enough for everything but a restore


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        office = Office(memory)
        await office.open()
        yield office


async def restore(office: Office) -> None:
    """All that is in the store is from a backup."""

    def rule(tx: Tx) -> None:
        rows = [("restored", repr(time.time())), ("restored from", repr(MADE))]
        tx.db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    await office.store.transact(rule)


async def start(office: Office) -> None:
    await office.store.transact(look_back, office.rules.items, office.rules.say, office.outward.pause)


async def reason(office: Office) -> str:
    rows = await office.store.transact(lambda tx: tx.queue.in_state("paused"))
    return rows[0].error if rows else ""


@pytest.mark.parametrize("state", ["asked", "held", "ready"])
async def test_what_was_on_its_way_when_the_backup_was_made_waits_for_its_author(office: Office, state: str) -> None:
    await office.hear("!reply Hello", when=time.time() - AGO)
    if state != "asked":
        await office.shown()
    if state == "ready":
        await office.store.transact(_end_hold, office.outward)
        (row,) = await office.store.transact(lambda tx: tx.queue.drafts_ready())
        await office.store.transact(lambda tx: tx.queue.begin(row))  # it may even have been under way
    assert await office.state() == state
    await start(office)
    assert await office.state() == state  # a start like any other
    await restore(office)
    await start(office)
    assert WHY in await reason(office)
    if state != "asked":
        (notice,) = await office.posts(1)
        assert WHY in notice.body
        assert notice.mentions == (ALICE,)


async def test_what_its_author_sends_again_after_a_restore_leaves(office: Office) -> None:
    await office.hear("!reply Hello", when=time.time() - AGO)
    await office.shown()
    await restore(office)
    await start(office)
    await office.hear("!send")
    assert await office.state() == "ready"
    await start(office)  # and another start stops it no more
    assert await office.state() == "ready"


async def test_what_catch_up_hears_again_is_previewed_and_does_not_leave_by_itself(office: Office) -> None:
    await restore(office)
    await office.hear("!reply Hello", when=time.time() - AGO)
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    assert WHY in await reason(office)
    await office.hear("!send", when=time.time() - AGO + 1)  # typed then, too
    assert WHY in await reason(office)
    (notice,) = await office.posts(1)
    assert "type it again" in notice.body
    await office.hear("!send")
    assert await office.state() == "ready"


async def test_what_is_asked_after_a_restore_leaves_as_ever(office: Office) -> None:
    await restore(office)
    await office.hear("!reply Hello", when=time.time() + 1)
    await office.shown()
    await office.store.transact(_end_hold, office.outward)
    assert await office.state() == "ready"


async def test_a_dead_letter_is_not_tried_again_because_somebody_once_asked_for_that(office: Office) -> None:
    await office.hear("!reply Hello", when=time.time() - AGO)
    await office.shown()
    await office.store.transact(lambda tx: tx.queue.bury(tx.queue.held()[0], "550"))
    await restore(office)
    await office.hear("!retry", when=time.time() - AGO)
    assert await office.state() == "dead"
    await office.hear("!retry")
    assert await office.state() == "asked"


async def test_what_was_stopped_since_the_backup_is_stopped_again(office: Office) -> None:
    asked = await office.hear("!reply Hello", when=time.time() - AGO)
    await office.shown()
    await restore(office)
    await start(office)
    await office.store.transact(office.hearing.hear, reaction(asked.id, "❌", when=time.time() - AGO))
    assert await office.drafts() == []


async def test_the_bots_own_mark_in_the_room_says_that_it_had_left(office: Office) -> None:
    asked = await office.hear("!reply Hello", when=time.time() - AGO)
    other = await office.hear("!reply And this", when=time.time() - AGO)
    await office.shown()
    await restore(office)
    await start(office)
    mark = reaction(asked.id, LEFT.removesuffix("\ufe0f"), sender=BOT, when=time.time() - AGO)
    assert office.hearing.matters(mark)
    await office.store.transact(office.hearing.hear, mark)
    assert [draft.source for draft in await office.drafts()] == [other.id]
    rows = await office.store.transact(lambda tx: tx.queue.in_state("ready"))
    kinds = [row.kind for row in rows[-2:]]
    assert kinds == ["reword", "unmark"]
    assert "had left before" in rows[-2].payload
    assert HELD in payload.load(payload.Unmark, rows[-1].payload).key


async def test_a_mark_of_today_or_of_anybody_else_says_nothing(office: Office) -> None:
    asked = await office.hear("!reply Hello", when=time.time() - AGO)
    key = LEFT.removesuffix("\ufe0f")
    await office.store.transact(office.hearing.hear, reaction(asked.id, key, sender=BOT))
    await restore(office)
    await office.store.transact(office.hearing.hear, reaction(asked.id, key, sender=BOT, when=time.time() + 1))
    await office.store.transact(office.hearing.hear, reaction(asked.id, key, when=time.time() - AGO))
    assert len(await office.drafts()) == 1


async def test_changes_of_items_from_before_the_restore_are_not_made_and_people_hear_so(office: Office) -> None:
    change = Alter(HERE, 1, Change("7", "state", "closed", "", "Alice"), "$asked")

    def rule(tx: Tx) -> None:
        tx.queue.add("post:1", "post", "change", payload.dump(change), conversation=1)

    await office.store.transact(rule)
    await restore(office)
    await start(office)
    rows = await office.store.transact(lambda tx: tx.queue.in_state("ready"))
    assert [row.kind for row in rows if row.destination == "post"] == []
    (notice,) = await office.posts(1)
    assert WHY in notice.body
    assert notice.answers == "$asked"


async def test_help_that_somebody_asked_for_then_is_not_given_twice(office: Office) -> None:
    await restore(office)
    await office.hear("!help", when=time.time() - AGO)
    (notice,) = await office.posts(1)
    assert "type it again" in notice.body
