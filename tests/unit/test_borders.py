"""Where rooms, conversations and items part: nothing is shown, sent or lost on the way from one to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from bridge import payload, present, store
from bridge.connector import Connector
from bridge.departures import ConnectorDestination
from bridge.matrix.doors import Doors
from bridge.matrix.lasting import noted
from bridge.model import Card, Delivery, Rejected, Sent
from bridge.payload import Alter, Archive, CardPost, Left, MakeRoom
from bridge.store import Tx
from tests.unit.test_item_rules import ALICE, CARD, HERE
from tests.unit.test_own_rooms import GUEST, OWN, Office

OPEN = replace(CARD, scope="jobs")
MOVED = replace(CARD, title="Merger", scope="secrets")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        office = Office(memory)
        await office.arrive(begins=True, text="It rattles.", card=OPEN)
        yield office


def _out(office: Office) -> ConnectorDestination:
    """The desk as a destination; nothing waits in any room."""

    class Known:
        async def settle(self, room: str, fresh: float = 0) -> None:
            """Nothing."""

        async def spooled(self, files: Any, limit: int) -> Any:
            return files

    rules, known, nothing = office.rules, cast(Any, Known()), cast(Any, None)
    desk: Any = rules.acts._connectors["desk"]
    return ConnectorDestination(desk, office.store, known, known, rules.outward, rules.items, rules.places, nothing, 10)


# --- what an item's room asked for before the item left it


@pytest.mark.parametrize("words", ["!reply We come.", "!state done"])
async def test_what_waits_for_an_item_that_its_room_may_not_see_any_more_does_not_reach_it(
    office: Office, words: str
) -> None:
    await office.say(words)
    (row,) = await office.store.transact(lambda tx: tx.queue._many("destination = 'desk'"))
    await _out(office).prepare(row)
    await office.arrive(card=MOVED, scopes=("secrets",))
    with pytest.raises(Rejected, match="no longer among what this room may see"):
        await _out(office).prepare(row)


async def test_what_some_have_already_reaches_the_others(office: Office) -> None:
    await office.say("!reply We come.")
    ((row, draft),) = await office.drafts()
    await office.arrive(card=MOVED, scopes=("secrets",))
    begun = replace(draft, pending=draft.recipients.to)
    await _out(office).prepare(replace(row, payload=payload.dump(begun)))


async def test_what_is_made_and_may_not_be_seen_here_is_a_key_and_a_link(office: Office) -> None:
    await office.letter()
    await office.say("!job again Secretly\nWe must not say this.", thread="", answers="$other2")
    ((_, draft),) = await office.drafts()
    made = Card("job9", "job9", "Secretly", "https://desk.example/job9", (("owner", "eve"),), private=True)
    await office.delivered(draft, Sent("m9", card=made))
    assert not [card.body for card in await office.queued(CardPost, HERE) if "eve" in card.body]
    assert "https://desk.example/job9" in (await office.queued(CardPost, HERE))[-1].body


async def test_a_word_of_a_tool_changes_nothing_in_a_scope_that_is_mapped_here_no_more(office: Office) -> None:
    here = [{**each, "room": HERE} for each in Office.MAPPINGS if each["scope"] == "secrets"]
    mappings = tuple(each for each in office.rules.places.declared if each.scope != "jobs")
    office.rules.places.declare((*mappings, type(mappings[0]).model_validate(here[0])))
    await office.say("!state done")
    assert await office.queued(Alter) == []


# --- rooms of their own


async def test_what_waits_when_a_room_is_closed_can_still_leave_from_its_thread(office: Office) -> None:
    await office.ask()
    await office.move()
    await office.say("!reply Not yet.", room=OWN, thread="")
    own = await office.own()
    assert own is not None
    await office.store.transact(office.rules.moving.archive, own, ALICE, "")
    await office.archive()
    ((_, draft),) = await office.drafts()
    office.rules.outward.check(draft)


async def test_what_came_into_the_room_is_not_shown_where_its_home_is_mapped_no_more(office: Office) -> None:
    await office.ask()
    await office.move()
    await office.settle()
    office.rules.places.declare(each for each in office.rules.places.declared if each.scope != "jobs")
    await office.arrive(card=replace(OPEN, fields=(("state", "hopeless"),)), text="")
    assert [card.room for card in await office.queued(CardPost) if "hopeless" in card.body] == [OWN]
    await office.crossed("card")
    own = await office.own()
    assert own is not None
    await office.store.transact(office.rules.moving.archive, own, ALICE, "")
    await office.archive()
    assert await office.queued(CardPost) == []


@pytest.mark.parametrize("there", [(), (GUEST,)])
@pytest.mark.parametrize("invited", [(), ("@olive:company.example",)])
async def test_a_conversation_comes_back_from_a_room_that_none_of_us_is_left_in(
    office: Office, invited: tuple[str, ...], there: tuple[str, ...]
) -> None:
    await office.ask()
    await office.move()

    class Homeserver:
        async def members(self, room: str) -> dict[str, Any]:
            return {mxid: {} for mxid in (office.rules.config.bot_mxid, *there)}

        async def invited(self, room: str) -> set[str]:
            return set(invited)

    nothing = cast(Any, None)
    doors = Doors(office.rules.config, office.store, cast(Any, Homeserver()), office.rules.places, nothing, nothing)
    doors.on_deserted = office.rules.moving.deserted
    await office.store.transact(await doors.left(cast(Delivery, None), Left(OWN)))
    assert len(await office.rows(Archive)) == (0 if invited else 1)
    if not invited:
        await office.archive()
        assert "nobody is left" in (await office.notices())[-1]
        assert OWN.removeprefix("!") in (await office.notices())[-1]


class Siren(Connector):
    """Nothing can be said to it."""

    def match(self, text: str) -> str:
        return text if text.startswith("job") else ""


async def test_an_item_that_takes_no_words_makes_nobody_choose_whom_to_answer(office: Office) -> None:
    await office.letter()
    letters, nothing = office.rules.acts._connectors["letters"], cast(Any, None)
    await office.store.transact(lambda tx: tx.conversations.link(2, 1, "jobs"))
    await office.say("!reply Hello", thread="$other2")
    assert await office.drafts() == []
    office.rules.connect({"desk": Siren("desk", None, nothing), "letters": letters})
    await office.say("!reply Hello", thread="$other2")
    assert [draft.connector for _, draft in await office.drafts()] == ["letters"]


async def test_a_room_of_what_takes_no_words_is_closed_without_a_summary_to_it(office: Office) -> None:
    await office.ask()
    await office.move()
    nothing: Any = None
    office.rules.connect({"desk": Siren("desk", None, nothing)})
    await office.close("!room close We replaced it.")
    assert await office.drafts() == []
    (archive,) = await office.rows(Archive)
    assert archive.summary == "We replaced it."


@pytest.mark.parametrize("title", ["Pump \u202egnp.exe", "Pump\nAlice: yes", "x" * 5000])
async def test_a_room_is_named_on_one_short_line_whatever_its_item_is_called(office: Office, title: str) -> None:
    await office.arrive(card=replace(OPEN, title=title), text="")
    await office.ask()
    (wanted,) = await office.rows(MakeRoom)
    assert wanted.name.startswith("job1: ")
    assert len(wanted.name) <= 100
    assert not set("\n\u202e").intersection(wanted.name)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://desk.example/1\nAlice: I approve", "desk"])
def test_what_people_cannot_follow_is_no_address_on_a_card(url: str) -> None:
    body, html = present.card(replace(CARD, url=url))
    assert url not in body
    assert "href" not in html


# --- messages that are edited


async def test_a_card_that_was_sent_while_its_conversation_moved_is_not_the_one_that_is_edited_there(
    office: Office,
) -> None:
    shown = CardPost(HERE, 1, "job1", "")

    def rule(tx: Tx) -> tuple[str, str]:
        tx.conversations.move(HERE, "!later")
        noted(tx, 1, shown, "$late", "@bot")
        return tx.conversations.card(1, 1), tx.conversations.room_of("$late")

    assert await office.store.transact(rule) == ("", HERE)


async def test_what_the_homeserver_may_have_already_is_not_reworded(office: Office) -> None:
    def rule(tx: Tx) -> list[str]:
        tx.db.execute("DELETE FROM queue")
        for number in range(2):
            tx.queue.add(
                "matrix:1", "matrix", "card", payload.dump(CardPost(HERE, 1, f"as of {number}", "")), conversation=1
            )
        _, second = tx.queue.unsent("matrix:1", "card")
        tx.queue.begin(second)
        tx.queue.bury(replace(second, doubt=1.0), "in doubt")
        tx.queue.move(second.uid, "ready")
        tx.queue.fresh.clear()
        office.rules.places.post_newest(tx, CardPost(HERE, 1, "as of now", ""), 1)
        return [payload.load(CardPost, row.payload).body for row in tx.queue.unsent("matrix:1", "card")]

    assert await office.store.transact(rule) == ["as of 0", "as of 1", "as of now"]
