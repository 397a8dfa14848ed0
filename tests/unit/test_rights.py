"""Which rights are missing in a room, whatever its power levels look like, and when that is said."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import payload, store
from bridge.config import Config
from bridge.matrix.rights import creators, missing, needed_to_map, power, powerful
from bridge.payload import Post
from bridge.places import Places
from bridge.store import Store, Tx
from bridge.texts import CATALOGUE, Texts

BOT, ALICE = "@passerelle:company.example", "@alice:company.example"
ROOM, OPERATORS = "!room", "!operators"


def lacks(*, makers: frozenset[str] = frozenset(), **levels: Any) -> list[str]:
    """But for announcing, for which most rooms' levels are too low."""
    return [right for right in missing(levels, makers, BOT) if right != "right-announce"]


def test_in_a_room_without_power_levels_everybody_may_do_everything() -> None:
    assert missing({}, (), BOT) == []


@pytest.mark.parametrize(
    ("levels", "lacking"),
    [
        ({"events_default": 50}, ["right-speak", "right-react", "right-ghosts"]),
        ({"events_default": 50, "users": {BOT: 50}}, ["right-ghosts"]),
        ({"events_default": 50, "users_default": 50}, []),
        ({"events": {"m.room.message": 50}, "users": {BOT: 49}}, ["right-speak", "right-ghosts"]),
        ({"events_default": 50, "events": {"m.room.message": 0}}, ["right-react"]),
        ({"events_default": 50, "events": {"m.room.message": 0, "m.reaction": 0}}, []),
        ({"invite": 50, "users": {BOT: 49}}, ["right-invite"]),
        ({"invite": 50, "users": {BOT: 50}}, []),
        ({"users": {BOT: -1}}, ["right-speak", "right-react", "right-invite"]),
        ({"users_default": -1, "users": {BOT: 0}}, ["right-ghosts"]),
        ({"users": {ALICE: 100}, "state_default": 100, "redact": 100, "kick": 100}, []),
    ],
)
def test_each_right_is_compared_with_the_level_that_it_needs(levels: dict[str, Any], lacking: list[str]) -> None:
    assert lacks(**levels) == lacking


@pytest.mark.parametrize(
    ("levels", "lacking"),
    [
        ({}, False),
        ({"users": {BOT: 49}}, True),
        ({"users": {BOT: 50}}, False),
        ({"users": {BOT: 50}, "state_default": 51}, True),
        ({"state_default": 0}, False),
        ({"events": {"m.bridge": 0}}, True),
        ({"events": {"m.bridge": 0, "uk.half-shot.bridge": 0}}, False),
        ({"users": {BOT: 50}, "events": {"m.bridge": 100}}, True),
        ({"users": {BOT: 50}, "state_default": "garbage"}, False),
    ],
)
def test_to_announce_what_is_mapped_the_bot_must_be_allowed_both_of_its_events(
    levels: dict[str, Any], lacking: bool
) -> None:
    assert ("right-announce" in missing(levels, (), BOT)) is lacking


@pytest.mark.parametrize(
    ("levels", "makers", "level", "needed", "who"),
    [
        ({"users": {ALICE: 100, BOT: 50}}, frozenset(), 100, 50, [ALICE, BOT]),
        ({"users": {BOT: 50}}, frozenset(), 0, 50, [BOT]),
        ({"users": {BOT: 50}, "users_default": 50}, frozenset(), 50, 50, [BOT]),
        ({"users": {ALICE: 50}, "state_default": 75}, frozenset(), 50, 75, []),
        ({"users": {ALICE: 50}, "state_default": None}, frozenset(), 50, 50, [ALICE]),
        ({}, frozenset(), 0, 50, []),
        ({"state_default": 0}, frozenset(), 0, 0, []),
        ({"users": {BOT: 100}}, frozenset([ALICE]), math.inf, 50, [ALICE, BOT]),
    ],
)
def test_to_map_somebody_needs_the_power_to_change_settings(
    levels: dict[str, Any], makers: frozenset[str], level: float, needed: float, who: list[str]
) -> None:
    assert (power(levels, makers, ALICE), needed_to_map(levels)) == (level, needed)
    assert powerful(levels, makers) == who


@pytest.mark.parametrize("level", ["50", " 50 ", "+50", 50.0, 50.9])
def test_old_rooms_have_levels_that_are_no_integers(level: Any) -> None:
    assert lacks(invite=level) == ["right-invite"]
    assert lacks(invite=50, users={BOT: level}) == []


@pytest.mark.parametrize(
    "garbage", [None, "", "high", "5 0", "٥٠", True, [], {}, float("nan"), float("inf"), 10**400, "9" * 5000]
)
def test_a_level_that_makes_no_sense_counts_as_not_given(garbage: Any) -> None:
    assert lacks(invite=garbage, events_default=garbage, users_default=garbage) == []
    assert lacks(invite=50, users={BOT: garbage}) == ["right-invite"]
    assert lacks(invite=50, users=garbage, events=garbage) == ["right-invite"]
    assert [right for right in missing(garbage, (), BOT) if right != "right-announce"] == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["users", "events", "invite", BOT]), inner)
    ),
)


@given(_JSON)
def test_no_content_is_too_odd_to_be_judged(content: Any) -> None:
    assert set(missing(content, (), BOT)) <= set(CATALOGUE)
    assert power(content, (), ALICE) + needed_to_map(content) is not None
    assert all(isinstance(mxid, str) for mxid in powerful(content, ()))
    creators(content)
    creators({"content": content, "sender": content})


def test_whoever_made_a_room_of_version_12_is_above_all_levels_and_the_ghosts_are_not() -> None:
    made = {"sender": BOT, "content": {"room_version": "12"}}
    assert creators(made) == {BOT}
    assert lacks(makers=creators(made), events_default=100, invite=100) == ["right-ghosts"]
    also = {"sender": ALICE, "content": {"room_version": "12", "additional_creators": [BOT, 7, None]}}
    assert creators(also) == {ALICE, BOT}
    assert lacks(makers=creators({"sender": ALICE, "content": {"room_version": "12"}}), invite=50) == ["right-invite"]


@pytest.mark.parametrize("version", ["11", "1", None, 12, "org.example.12", "", "9" * 5000])
def test_whoever_made_an_older_room_has_the_level_that_is_written(version: Any) -> None:
    assert creators({"sender": BOT, "content": {"room_version": version, "additional_creators": [BOT]}}) == frozenset()
    assert creators({"sender": BOT}) == creators({}) == creators(None) == frozenset()


# --- what is said


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Store]:
    async with store.opened(tmp_path) as opened:
        yield opened


def places() -> Places:
    config = Config.model_validate(
        {
            "homeserver": {"url": "http://hs", "server_name": "company.example"},
            "appservice": {"as_token": "a", "hs_token": "h"},
            "connectors": {"mail": {}},
            "mappings": [{"connector": "mail", "scope": "support", "room": ROOM}],
        }
    )
    made = Places(config, Texts("en"))
    made.resolve(ROOM, ROOM)
    made.management = OPERATORS
    return made


async def told(memory: Store, *rights: str, room: str = ROOM) -> list[Post]:
    """What is said of these missing rights, by a bridge that has just started."""

    def rule(tx: Tx) -> list[Post]:
        places().tell_rights(tx, room, list(rights))
        return [payload.load(Post, each.payload) for each in tx.queue.fresh]

    return await memory.transact(rule)


async def test_a_missing_right_is_said_once_in_the_room_and_once_to_operators_also_over_restarts(memory: Store) -> None:
    said = await told(memory, "right-ghosts", "right-invite")
    assert sorted(post.room for post in said) == [OPERATORS, ROOM]
    assert all("to invite" in post.body and "everybody" in post.body for post in said)
    assert await told(memory, "right-invite", "right-ghosts") == []
    assert len(await told(memory, "right-invite")) == 2


async def test_nothing_is_said_when_all_is_well_and_a_right_lost_again_is_said_again(memory: Store) -> None:
    assert await told(memory) == []
    assert len(await told(memory, "right-invite")) == 2
    assert await told(memory) == []
    assert len(await told(memory, "right-invite")) == 2


async def test_where_the_bot_may_not_speak_only_operators_are_told(memory: Store) -> None:
    (post,) = await told(memory, "right-speak", "right-ghosts")
    assert post.room == OPERATORS


async def test_in_the_operators_own_room_it_is_said_once(memory: Store) -> None:
    assert [post.room for post in await told(memory, "right-invite", room=OPERATORS)] == [OPERATORS]
