"""Rules that wait are committed together, and none of them pays for another's failure."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.store import database
from bridge.store.database import Writer


@pytest_asyncio.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    opened = await database.opened(tmp_path / "passerelle.db")
    yield opened
    await opened.close()


def note(db: sqlite3.Connection, key: str) -> None:
    db.execute("INSERT INTO meta (key, value) VALUES (?, '')", (key,))


def noted(db: sqlite3.Connection) -> list[str]:
    return [key for (key,) in db.execute("SELECT key FROM meta ORDER BY key")]


async def test_a_rule_that_fails_undoes_itself_and_no_other(writer: Writer) -> None:
    def fails(db: sqlite3.Connection) -> None:
        note(db, "half done")
        raise ValueError("no")

    rules = [lambda db: note(db, "a"), fails, lambda db: note(db, "b"), fails, lambda db: note(db, "c")]
    outcomes = await asyncio.gather(*(writer.transact(rule) for rule in rules), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None), ValueError, type(None)]
    assert await writer.transact(noted) == ["a", "b", "c"]


async def test_a_rule_that_fails_alone_leaves_nothing_behind(writer: Writer) -> None:
    await writer.transact(lambda db: note(db, "a"))
    with pytest.raises(sqlite3.IntegrityError):
        await writer.transact(lambda db: (note(db, "b"), note(db, "a")))
    assert await writer.transact(noted) == ["a"]


async def test_rules_that_wait_are_announced_once_and_in_order(writer: Writer) -> None:
    heard: list[int] = []
    rules = [writer.transact(lambda db: None, lambda n=n: heard.append(n)) for n in range(5)]  # type: ignore[misc]
    await asyncio.gather(*rules, writer.transact(lambda db: 1 // 0, lambda: heard.append(99)), return_exceptions=True)
    assert heard == [0, 1, 2, 3, 4]


async def test_who_cannot_bear_to_hear_of_his_commit_keeps_nobody_from_hearing_of_theirs(writer: Writer) -> None:
    heard: list[int] = []
    first = writer.transact(lambda db: None, lambda: heard.append(1))  # the next two share the commit after it
    deaf = writer.transact(lambda db: 7, lambda: heard.append(1 // 0))
    assert await asyncio.gather(first, deaf, writer.transact(lambda db: None, lambda: heard.append(3))) == [
        None,
        7,
        None,
    ]
    assert heard == [1, 3]


async def test_a_patient_rule_is_committed_with_the_next_one(writer: Writer) -> None:
    commits: list[str] = []
    await writer.outside_transaction(lambda db: db.set_trace_callback(commits.append))
    patient = asyncio.create_task(writer.transact(lambda db: note(db, "patient"), patient=True))
    await asyncio.sleep(0)
    await writer.transact(lambda db: note(db, "next"))
    await patient
    assert commits.count("COMMIT") == 1
    assert await writer.transact(noted) == ["next", "patient"]


async def test_a_patient_rule_without_company_is_committed_soon(writer: Writer) -> None:
    async with asyncio.timeout(1):
        await writer.transact(lambda db: note(db, "alone"), patient=True)
    assert await writer.transact(noted) == ["alone"]
