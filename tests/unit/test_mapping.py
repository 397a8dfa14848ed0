"""Mapping rooms by command: what is asked for, whose right is missing, what is made and undone, and who hears of it."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bridge import payload, store
from bridge.commands.maps import Wanted, read
from bridge.config import Config, Mapping, Permissions
from bridge.connector import Connector
from bridge.model import Address, Author, Card, Envelope, Recipients, Rejected, RoomEvent
from bridge.payload import Announce, Chart, Post, Survey
from bridge.permissions import ACTS, level_of, table
from bridge.places import Standing, state_key
from bridge.rules import Rules
from bridge.store import Store, Tx
from tests.peers import ROOT

HERE, THERE, FREE, OPS = "!here", "!there", "!free", "!ops"
ALICE, BOB, CAROL, GUEST = (f"@{name}:company.example" for name in ("alice", "bob", "carol", "guest"))
FINE = Standing(100, 50, (ALICE,), False, ())
_count = count(1)


class Desk(Connector):
    """A tool with two projects."""

    filters: ClassVar[dict[str, str]] = {"state": "how it stands", "subject": "what it is called"}
    words: ClassVar[dict[str, str]] = {"state": "done"}

    def scopes(self) -> Sequence[str]:
        return ("jobs", "Big Repairs")

    def match(self, text: str) -> str:
        return text if text.startswith("job") else ""


class Letters(Connector):
    """A tool that says nothing of filters."""

    command, addressed, scope = "letter", True, "post"

    def recipients(self, words: Sequence[str]) -> Recipients:
        return Recipients((Address("jane"),))


class Office:
    """Every rule on a store of its own. Alice may do everything, Bob may map the desk, Carol may only use it."""

    def __init__(self, memory: Store, **config: Any) -> None:
        self.store = memory
        self.rules = Rules(
            Config.model_validate(
                {
                    "homeserver": {"url": "http://hs", "server_name": "company.example"},
                    "appservice": {"as_token": "a", "hs_token": "h"},
                    "inside": {"except_users": [GUEST]},
                    "permissions": {"administer": [ALICE], "map": {"desk": [BOB]}},
                    "connectors": {"desk": {}, "letters": {}},
                    "mappings": [{"connector": "letters", "scope": "post", "room": HERE}],
                    **config,
                }
            )
        )
        self.rules.places.resolve(HERE, HERE)
        self.rules.places.management = OPS
        nothing: Any = None
        self.rules.connect({"desk": Desk("desk", None, nothing), "letters": Letters("letters", None, nothing)})

    async def say(self, text: str, sender: str = ALICE, room: str = FREE, **more: Any) -> list[str]:
        """Somebody types something; returns what the bot answers at once."""
        event = RoomEvent(f"$e{next(_count)}", room, sender, "m.room.message", time.time(), "m.text", text)
        await self.store.transact(self.rules.hearing.hear, replace(event, **more))
        return [post.body for post in await self.taken(Post)]

    async def taken(self, kind: type[Any]) -> list[Any]:
        """What waits of that kind, which is taken out of the queue."""

        def rule(tx: Tx) -> list[Any]:
            name = next(name for name, each in payload.KINDS.items() if each is kind)
            rows = [row for row in tx.queue.in_state("ready") if row.kind == name]
            for row in rows:
                tx.queue.drop(row.uid)
            return [payload.load(kind, row.payload) for row in rows]

        return await self.store.transact(rule)

    async def surveyed(self, offers: Sequence[str] = ("jobs", "Big Repairs")) -> list[str]:
        """The tools say what they have; returns what is said to people."""
        for survey in await self.taken(Survey):
            await self.store.transact(self.rules.maps.offered, survey, offers)
        return [post.body for post in await self.taken(Post)]

    async def charted(self, standing: Standing = FINE) -> list[str]:
        """The room is known; returns what is said to people."""
        for chart in await self.taken(Chart):
            await self.store.transact(self.rules.maps.settled, chart, standing)
        return [post.body for post in await self.taken(Post)]

    async def map(self, text: str = "!map desk jobs", sender: str = ALICE, room: str = FREE) -> list[str]:
        """All of it."""
        return await self.say(text, sender, room) + await self.surveyed() + await self.charted()

    async def made(self) -> list[Mapping]:
        return await self.store.transact(lambda tx: tx.mappings.made())

    async def arrive(self, **fields: Any) -> None:
        plain = Envelope(
            "desk", ("jobs",), f"k{next(_count)}", "m", Author("desk", "carol"), time.time(), text="Hi", item="job1",
            card=Card("job1", "job1", "Pump"), begins=True,
        )  # fmt: skip
        await self.store.transact(self.rules.hub.accept, replace(plain, **fields))

    async def rooms(self) -> list[str]:
        """Rooms with conversations, in the order in which they began."""
        return [
            row[0]
            for row in await self.store.transact(
                lambda tx: tx.db.execute("SELECT room FROM conversation ORDER BY id").fetchall()
            )
        ]


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Store]:
    async with store.opened(tmp_path) as opened:
        yield opened


@pytest.fixture
def office(memory: Store) -> Office:
    return Office(memory)


# --- what is typed


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", Wanted((), False, {})),
        ("desk jobs", Wanted(("desk", "jobs"), False, {})),
        ('desk "Big Repairs" private', Wanted(("desk", "Big Repairs"), True, {})),
        ("desk jobs privé state=open,new", Wanted(("desk", "jobs"), True, {"state": ("open", "new")})),
        ('jobs subject="*a, b*" Subject=c', Wanted(("jobs",), False, {"subject": ("*a, b*", "c")})),
        ("jobs subject=“*a b*”", Wanted(("jobs",), False, {"subject": ("*a b*",)})),
        ("jobs subject=«état»", Wanted(("jobs",), False, {"subject": ("état",)})),
        ("private", Wanted(("private",), False, {})),
        ("desk jobs linked", Wanted(("desk", "jobs"), False, {}, new=False)),
        ("desk jobs Privé LIÉ", Wanted(("desk", "jobs"), True, {}, new=False)),
        ("linked", Wanted(("linked",), False, {})),
        ("jobs state=", Wanted(("jobs", "state="), False, {})),
        ("jobs l'état", Wanted(("jobs", "l'état"), False, {})),
        ('jobs subject="not closed', Wanted(("jobs", "subject=", "not", "closed"), False, {})),
    ],
)
def test_the_line_is_taken_apart(line: str, wanted: Wanted) -> None:
    assert read(line) == wanted


async def test_without_words_everything_that_one_may_map_is_offered_with_what_to_type(office: Office) -> None:
    (which,) = await office.say("!map")
    assert "desk, letters" in which
    desk, letters = await office.surveyed()
    assert "jobs, Big Repairs" in desk
    assert desk.endswith("!map desk jobs")
    assert "!map letters jobs" in letters
    assert await office.made() == []


async def test_whoever_may_map_one_tool_only_is_asked_nothing_else(office: Office) -> None:
    assert await office.say("!map", BOB) == []
    (offer,) = await office.surveyed()
    assert offer.startswith("desk has:")


async def test_a_tool_without_a_scope_is_asked_for_what_it_has(office: Office) -> None:
    assert await office.say("!map Desk") == []
    assert (await office.surveyed())[0] == "desk has: jobs, Big Repairs. Type: !map desk jobs"


async def test_what_the_tool_has_not_is_answered_with_what_it_has(office: Office) -> None:
    await office.say("!map desk repairs")
    (answer,) = await office.surveyed()
    assert "no “repairs”" in answer
    assert "jobs, Big Repairs" in answer
    assert await office.charted() == []


async def test_a_scope_alone_is_enough_when_one_tool_has_it(office: Office) -> None:
    assert await office.say("!map BIG REPAIRS") != []  # two words: the second is not understood
    (said, *_) = await office.map('!map "big repairs"')
    assert said.startswith("✅ What comes from Big Repairs (desk)")
    (unclear,) = await office.say("!map elsewhere")
    assert "desk, letters" in unclear
    assert await office.say("!map elsewhere", BOB) == []


async def test_a_filter_that_the_tool_does_not_know_is_answered_with_those_it_knows(office: Office) -> None:
    (answer,) = await office.say("!map desk jobs priority=urgent")
    assert "“priority”" in answer
    assert "state (how it stands); subject" in answer
    assert await office.surveyed() == []


async def test_a_word_too_much_is_told(office: Office) -> None:
    assert "“now”" in (await office.say("!map desk jobs now"))[0]


async def test_a_tool_that_does_not_answer_maps_nothing(office: Office) -> None:
    await office.say("!map desk jobs")
    (survey,) = await office.taken(Survey)
    await office.store.transact(office.rules.maps.unknown, survey, "it is down")
    assert "it is down" in (await office.taken(Post))[0].body
    await office.say("!map desk jobs")
    assert "nothing that a room" in (await office.surveyed(()))[0]


# --- whose right


@pytest.mark.parametrize(
    ("sender", "text", "said"),
    [
        (GUEST, "!map desk jobs", "Only people of this company"),
        ("@eve:elsewhere.example", "!map desk jobs", "Only people of this company"),
        (GUEST, "!mappings", "Only people of this company"),
        (CAROL, "!map desk jobs", f"only {ALICE}, {BOB} may (permissions.map"),
        (CAROL, "!unmap post", "permissions.map"),
        (BOB, "!map letters post", f"Only {ALICE} may map letters: permissions.map"),
        (BOB, "!map post", f"Only {ALICE} may map letters"),
        (BOB, "!unmap post", f"Only {ALICE} may map letters"),
    ],
)
async def test_who_may_not_is_told_whose_right_it_is(office: Office, sender: str, text: str, said: str) -> None:
    (answer,) = await office.say(text, sender, HERE)
    assert said in answer
    assert not await office.taken(Survey)
    assert not await office.taken(Chart)


async def test_where_nobody_may_map_that_is_said(memory: Store) -> None:
    office = Office(memory, permissions={})
    assert "only nobody yet may" in (await office.say("!map desk jobs"))[0]


async def test_power_in_the_room_is_needed_too_and_the_bot_says_who_has_it(office: Office) -> None:
    await office.say("!map desk jobs", BOB)
    assert await office.surveyed() == []
    (answer,) = await office.charted(Standing(0, 50, (CAROL, ALICE), False, ()))
    assert answer == f"You need power level 50 in this room for that (you have 0). Ask: {CAROL}, {ALICE}"
    assert await office.made() == []
    assert office.rules.places.mappings_of(FREE) == []


async def test_whoever_made_a_room_of_the_newest_kind_has_all_power(office: Office) -> None:
    await office.say("!map desk jobs")
    await office.surveyed()
    assert "✅" in (await office.charted(replace(FINE, level=math.inf)))[0]


async def test_an_encrypted_room_is_not_mapped(office: Office) -> None:
    await office.say("!map desk jobs")
    await office.surveyed()
    assert "encrypted" in (await office.charted(replace(FINE, encrypted=True)))[0]
    assert await office.made() == []


async def test_a_right_that_was_taken_meanwhile_no_longer_counts(office: Office) -> None:
    await office.say("!map desk jobs", BOB)
    await office.surveyed()
    office.rules.permit(Permissions.model_validate({"administer": [ALICE]}))
    assert f"Only {ALICE} may map desk" in (await office.charted())[0]
    assert await office.made() == []


async def test_what_a_tool_has_is_not_told_to_whoever_may_not_map_it_any_more(office: Office) -> None:
    await office.say("!map desk", BOB)
    office.rules.permit(Permissions.model_validate({"administer": [ALICE]}))
    (said,) = await office.surveyed()
    assert f"Only {ALICE} may map desk" in said
    assert "Big Repairs" not in said


async def test_which_rights_the_bot_lacks_is_told(office: Office) -> None:
    await office.say("!map desk jobs")
    await office.surveyed()
    said = await office.charted(replace(FINE, missing=("right-invite",)))
    assert any("to invite" in each for each in said)


# --- made


async def test_a_mapping_takes_effect_at_once_and_after_a_restart(office: Office, memory: Store) -> None:
    confirmed, told = await office.map()
    assert confirmed.startswith("✅ What comes from jobs (desk) appears in this room from now on.")
    assert told == f"{ALICE} mapped jobs (desk) to https://matrix.to/#/%21free."
    assert office.rules.places.scopes_of("desk") == {"jobs"}
    assert await office.taken(Announce) == [Announce(FREE)]
    await office.arrive()
    assert await office.rooms() == [FREE]
    again = Office(memory)
    for alias, room in (await memory.transact(lambda tx: tx.people.aliases())).items():
        again.rules.places.recall(alias, room)
    again.rules.places.make(await again.made())
    assert again.rules.places.rooms_of("desk", ["jobs"]) == {FREE: "jobs"}


async def test_a_room_may_be_mapped_for_what_people_link_there_only(office: Office) -> None:
    (told, *_) = await office.map("!map desk jobs linked")
    assert told.startswith("✅ What people link or mention of jobs (desk) appears in this room from now on.")
    assert "every mapping" not in told.lower()
    assert "; nothing" not in told
    (listed,) = await office.say("!mappings")
    assert listed == "jobs (desk): only what people link or mention, nothing new by itself; mapped by alice"
    (made,) = await office.store.transact(lambda tx: tx.mappings.made())
    assert (made.new, made.private) == (False, False)


async def test_the_confirmation_names_conditions_private_notes_and_other_rooms(office: Office) -> None:
    (first, _) = await office.map("!map desk jobs private state=open,new", room=THERE)
    assert "only what fits: state = open | new; private notes, too" in first
    assert "all else is refused" in first
    (second, _) = await office.map("!map desk jobs")
    assert "It is also mapped to https://matrix.to/#/%21there." in second
    assert "refused" not in second


async def test_mapping_again_changes_how(office: Office) -> None:
    await office.map("!map desk jobs private")
    await office.map("!map desk jobs state=open")
    (mapping,) = await office.made()
    assert (mapping.private, mapping.only) == (False, {"state": ("open",)})
    assert [each.only for each in office.rules.places.mappings_of(FREE)] == [mapping.only]


async def test_what_is_done_twice_after_a_crash_is_done_once(office: Office) -> None:
    await office.say("!map desk jobs")
    (survey,) = await office.taken(Survey)
    for _ in range(2):
        await office.store.transact(office.rules.maps.offered, survey, ["jobs"])
    await office.charted()
    assert len(await office.made()) == 1
    assert len(office.rules.places.mappings_of(FREE)) == 1


async def test_a_rule_that_fails_leaves_memory_as_it_was(office: Office) -> None:
    await office.say("!map desk jobs")
    await office.surveyed()
    (chart,) = await office.taken(Chart)

    def failing(tx: Tx) -> None:
        office.rules.maps.settled(tx, chart, FINE)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await office.store.transact(failing)
    assert office.rules.places.mappings_of(FREE) == []


async def test_polling_and_reading_begin_now_when_nobody_wanted_the_tool_or_the_room_before(office: Office) -> None:
    def old(tx: Tx) -> None:
        tx.conversations.moved_on("desk", "long ago")
        tx.people.mark(FREE, "long ago")
        tx.people.mark(HERE, "lately")

    def since(tx: Tx) -> tuple[str, str, str]:
        return tx.conversations.cursor("desk"), tx.people.marker(FREE), tx.people.marker(HERE)

    await office.store.transact(old)
    await office.map()
    assert await office.store.transact(since) == ("", "", "lately")
    await office.store.transact(old)
    await office.map("!map desk jobs", room=HERE)
    assert await office.store.transact(since) == ("long ago", "long ago", "lately")


# --- filters at work


async def test_what_arrives_goes_where_its_condition_is_and_stays_there(office: Office) -> None:
    await office.map("!map desk jobs state=open", room=THERE)
    await office.map("!map desk jobs", room=FREE)
    await office.arrive(facts=(("state", "open"),))
    assert await office.rooms() == [THERE]
    await office.arrive(facts=(("state", "done"),), begins=False)
    assert await office.rooms() == [THERE]
    await office.arrive(facts=(("state", "done"),), item="job2", card=Card("job2", "job2", "Tap"))
    assert await office.rooms() == [THERE, FREE]


async def test_an_answer_stays_in_its_room_although_its_subject_fits_no_longer(office: Office) -> None:
    await office.map('!map desk jobs subject="*invoice*"', room=THERE)
    await office.map("!map desk jobs", room=FREE)
    nameless: dict[str, Any] = {"item": "", "card": None}
    await office.arrive(**nameless, id="<1>", facts=(("subject", "Your invoice"),))
    await office.arrive(**nameless, id="<2>", refs=("<1>",), facts=(("subject", "Thanks"),))
    assert await office.rooms() == [THERE]
    await office.arrive(**nameless, id="<3>", facts=(("subject", "Hello"),))
    assert await office.rooms() == [THERE, FREE]


async def test_what_fits_no_condition_is_refused_where_every_room_has_one(office: Office) -> None:
    await office.map("!map desk jobs state=open")
    with pytest.raises(Rejected, match="jobs"):
        await office.arrive(facts=(("state", "done"),))
    assert await office.rooms() == []


# --- undone


async def test_a_mapping_is_undone_and_its_threads_send_nothing_any_more(office: Office) -> None:
    await office.map()
    await office.arrive()
    await office.store.transact(lambda tx: tx.conversations.shown(1, "$root"))
    await office.taken(Post)
    assert await office.say("!unmap jobs", room=FREE) == []
    undone, told = await office.charted()
    assert "no longer mapped" in undone
    assert "ended the mapping of jobs (desk)" in told
    assert await office.made() == []
    assert office.rules.places.scopes_of("desk") == frozenset()
    with pytest.raises(Rejected):
        await office.arrive()
    (answer,) = await office.say("!reply Hello", thread="$root")
    assert "jobs (desk) is no longer mapped to this room" in answer
    assert "!map desk jobs" in answer


async def test_what_the_configuration_maps_is_neither_undone_nor_changed_in_the_room(office: Office) -> None:
    (answer,) = await office.say("!unmap letters post", room=HERE)
    assert "by the configuration" in answer
    await office.say("!map letters post private", room=HERE)
    await office.surveyed(["post"])
    assert "by the configuration" in (await office.charted())[0]
    assert not await office.taken(Chart)
    assert await office.made() == []


async def test_to_undo_power_in_the_room_is_needed_but_no_plain_text(office: Office) -> None:
    await office.map()
    await office.say("!unmap desk jobs")
    assert "power level 50" in (await office.charted(replace(FINE, level=0)))[0]
    await office.say("!unmap desk jobs")
    assert "no longer" in (await office.charted(replace(FINE, encrypted=True)))[0]


async def test_what_is_not_mapped_here_is_answered_with_what_is(office: Office) -> None:
    await office.map()
    assert (await office.say("!unmap")) == ["Which one? !unmap desk jobs"]
    assert "Nothing is mapped here" in (await office.say("!unmap jobs", room=THERE))[0]


# --- seen


async def test_mappings_lists_those_of_the_room_and_for_administrators_all_in_their_own(office: Office) -> None:
    await office.map("!map desk jobs private state=open", BOB)
    (here,) = await office.say("!mappings", CAROL)
    assert here == "jobs (desk): only what fits: state = open; private notes, too; mapped by bob"
    (everywhere,) = await office.say("!mappings", ALICE, OPS)
    assert everywhere.splitlines()[0] == "post (letters) → https://matrix.to/#/%21here: mapped by the configuration"
    assert "jobs (desk) → https://matrix.to/#/%21free" in everywhere
    assert await office.say("!mappings", CAROL, OPS) == ["Nothing is mapped here. !map does it."]


async def test_a_long_list_ends_readably(memory: Store) -> None:
    many = [{"connector": "letters", "scope": f"post{number}", "room": HERE} for number in range(100)]
    (answer,) = await Office(memory, mappings=many).say("!mappings", CAROL, HERE)
    assert answer.count("\n") == 40
    assert answer.endswith("… and 60 more")


async def test_rooms_are_told_of_what_changed_while_the_bridge_was_away(office: Office) -> None:
    def rule(tx: Tx) -> None:
        tx.mappings.announce(THERE, "passerelle://letters/gone")
        tx.mappings.announce(HERE, state_key(office.rules.places.mappings[0]))
        office.rules.places.announce(tx)

    await office.store.transact(rule)
    assert await office.taken(Announce) == [Announce(THERE)]


def test_the_name_of_an_announcement_is_never_too_long() -> None:
    assert state_key(Mapping(connector="a/b", scope="ü@c d", room=HERE)) == "passerelle://a%2Fb/%C3%BC@c%20d"
    assert len(state_key(Mapping(connector="a", scope="ü" * 200, room=HERE))) <= 255


# --- permissions


async def test_help_lists_only_what_one_may_do(memory: Store) -> None:
    office = Office(memory, permissions={"use": [CAROL], "administer": [ALICE]})
    lists = {who: (await office.say("!help", who))[0] for who in (ALICE, BOB, CAROL)}
    assert "\n!map " in lists[ALICE]
    assert "\n!map " not in lists[CAROL]
    assert all(f"\n!{word} " in lists[CAROL] for word in ("reply", "mappings", "letter", "state", "help"))
    assert "\n!reply" not in lists[BOB]
    assert all(f"\n!{word} " in lists[BOB] for word in ("cancel", "help"))


async def test_who_may_not_use_it_is_told_and_can_still_stop_what_leaves(memory: Store) -> None:
    office = Office(memory, permissions={"use": [CAROL]})
    (answer,) = await office.say("!letter jane Hello\nHi", BOB, HERE)
    assert answer == f"!letter is not for you: only {CAROL} may (permissions.use in the configuration)."
    await office.say("!letter jane Hello\nHi", CAROL, HERE)

    def drafts(tx: Tx) -> int:
        return len(tx.queue.in_state("asked"))

    assert await office.store.transact(drafts) == 1
    root = await office.store.transact(lambda tx: tx.db.execute("SELECT root FROM conversation").fetchone()[0])
    await office.say("!cancel", BOB, HERE, thread=root)
    assert await office.store.transact(drafts) == 0


async def test_a_reaction_needs_the_right_of_its_command(memory: Store) -> None:
    office = Office(memory, permissions={"use": [CAROL]})
    await office.say("!letter jane Hello", CAROL, HERE)
    root = await office.store.transact(lambda tx: tx.db.execute("SELECT root FROM conversation").fetchone()[0])
    await office.say("My words", BOB, HERE, thread=root, id="$words")
    (answer,) = await office.say("", BOB, HERE, type="m.reaction", key="📤", target="$words")
    assert "!reply is not for you" in answer
    assert not await office.say("", GUEST, HERE, type="m.reaction", key="📤", target="$words")


def test_the_table_of_permissions_in_the_documentation_is_the_one_in_the_code() -> None:
    page = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
    assert page.partition("<!-- permissions -->\n")[2].partition("\n<!-- /permissions -->")[0] == table()


async def test_every_command_of_the_bridge_itself_has_its_level(office: Office) -> None:
    commands = office.rules.hearing._commands
    assert set(commands.words()) - {"letter", "state"} <= set(ACTS)
    assert level_of("letter") == "use"
