"""Items, rooms and people: no wrong recipients, no leaks, nothing stuck, nothing that nobody is told."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import payload, store
from bridge.departures import ConnectorDestination
from bridge.matrix import content
from bridge.matrix.fetch import Fetch
from bridge.model import Author, Card, Delivery, Draft, Envelope, History, Rejected, RoomEvent, Sent
from bridge.outward import Refusal
from bridge.payload import Alter, CardPost, Look, Post
from bridge.present import card as shown_card
from bridge.present import changes, preview
from bridge.store import Tx
from tests.unit.test_item_rules import ALICE, BOB, CARD, HERE, SECRET, Office

DONE = replace(CARD, fields=(("state", "done"), ("owner", "")))
MAIL = "$letter"  # the event that shows the customer's letter


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with store.opened(tmp_path) as memory:
        yield Office(memory)


async def _letter(office: Office) -> None:
    """A letter whose event is known."""
    await office.letter()
    await office.store.transact(lambda tx: tx.conversations.in_matrix(1, MAIL))


async def _react(office: Office, key: str, target: str, sender: str = ALICE) -> RoomEvent:
    return await office.say(type="m.reaction", key=key, target=target, thread="", sender=sender, msgtype="")


async def _drafts(office: Office) -> list[Delivery]:
    return await office.store.transact(lambda tx: tx.queue._many("kind = 'draft'"))


# --- to whom


async def test_a_ticket_made_of_a_message_does_not_take_its_answers(office: Office) -> None:
    await _letter(office)
    await _react(office, "🎫", MAIL, BOB)
    (draft,) = await office.queued(Draft)
    await office.delivered(draft, Sent("m1", card=CARD))
    await office.say("!reply Dear Jane", answers=MAIL)
    (answer,) = await office.queued(Draft)
    assert (answer.connector, answer.recipients.to[0].account) == ("letters", "jane@outside.example")


async def test_a_message_that_a_ticket_was_made_of_can_still_be_sent_by_its_author(office: Office) -> None:
    await _letter(office)
    words = await office.say("We come tomorrow", answers=MAIL)
    await _react(office, "🎫", words.id, BOB)
    (draft,) = await office.queued(Draft)
    await office.delivered(draft, Sent("m1", card=CARD))
    await _react(office, "📤", words.id)
    assert [(each.connector, each.source) for each in await office.queued(Draft)] == [("letters", words.id)]


async def test_a_message_can_be_sent_while_a_ticket_of_it_waits_and_the_other_way_round(office: Office) -> None:
    await _letter(office)
    first, second = await office.say("One", answers=MAIL), await office.say("Two", answers=MAIL)
    for key, event in (("🎫", first), ("📤", first), ("🎫", first), ("📤", first), ("📤", second)):
        await _react(office, key, event.id)
    assert [each.connector for each in await office.queued(Draft)] == ["desk", "letters", "letters"]


async def test_taking_the_reaction_back_after_the_ticket_is_made_is_answered(office: Office) -> None:
    await _letter(office)
    asked = await _react(office, "🎫", MAIL)
    (draft,) = await office.queued(Draft)
    await office.delivered(draft, Sent("m1", card=CARD))
    await office.say(type="m.room.redaction", target=asked.id, thread="", msgtype="")
    assert "has left already" in (await office.notices())[-1]


@pytest.mark.parametrize("text", ["!reply We fixed it inside", "!state done", "!unlink"])
async def test_an_answer_to_a_card_that_was_only_shown_goes_to_nobody_else(office: Office, text: str) -> None:
    await office.letter()
    await office.store.transact(
        lambda tx: tx.conversations.link(1, tx.conversations.add_item("desk", "job1", ""), "jobs")
    )
    if text.startswith("!reply"):
        await office.say("!unlink")
    await office.say("See job7")
    await office.found(replace(CARD, item="job7", key="job7"))
    await office.store.transact(
        lambda tx: [
            tx.conversations.in_matrix(payload.load(Post, row[0]).message, "$shown")
            for row in tx.db.execute("SELECT payload FROM queue WHERE kind = 'post'").fetchall()
            if payload.load(Post, row[0]).body.startswith("job7: ")
        ]
    )
    await office.say(text, answers="$shown")
    assert not [*await office.queued(Draft), *await office.queued(Alter)]
    assert "!link job7" in (await office.notices())[-1]


# --- what leaves


async def test_correcting_a_command_about_one_message_does_not_send_the_whole_thread(office: Office) -> None:
    await _letter(office)
    command = await office.say("!job Pmup", answers=MAIL)
    await office.say("!job Pump", thread="", replaces=command.id)
    (draft,) = await office.queued(Draft)
    assert (draft.title, draft.history) == ("Pump", History(only=MAIL, files=True))
    assert draft.link.endswith("letter")


async def test_correcting_a_command_in_the_room_still_means_the_room(office: Office) -> None:
    command = await office.say("!job with history 5 Pmup", thread="")
    await office.say("!job with history 5 Pump", thread="", replaces=command.id)
    (draft,) = await office.queued(Draft)
    assert (draft.title, draft.history) == ("Pump", History("", 5, files=True))


async def test_the_preview_shows_the_link_that_leaves(office: Office) -> None:
    await office.letter()
    await office.say("!job Pump")
    (draft,) = await office.queued(Draft)
    body, html = preview(draft, office.rules.say, "")
    assert draft.link
    assert draft.link in body
    assert draft.link in html


async def test_a_long_message_that_is_edited_is_previewed_again_whole(office: Office) -> None:
    await office.arrive(begins=True)
    command = await office.say("!reply short")
    (row,) = await _drafts(office)
    await office.store.transact(office.rules.outward.shown, row.uid, "$preview")
    await office.say("!reply " + "long words\n" * 3000, thread="", replaces=command.id)
    (row,) = await _drafts(office)
    previews = await office.store.transact(
        lambda tx: tx.db.execute("SELECT COUNT(*) FROM queue WHERE kind = 'preview'").fetchone()[0]
    )
    assert (row.state, previews) == ("asked", 2)


def test_a_new_wording_fits_into_one_event_however_long_it_is() -> None:
    body = content.edit("word " * 7_000, "word " * 900, "$event", "uid")
    assert len(json.dumps(body)) < 60_000


async def test_what_is_taken_back_while_it_is_fetched_does_not_leave(office: Office) -> None:
    await office.letter()
    words = await office.say("secret")
    await office.say("!job Pump")
    (row,) = await _drafts(office)
    before = payload.load(Draft, row.payload)
    await office.say(type="m.room.redaction", target=words.id, thread="", msgtype="")
    after = replace(before, transcript="Alice:\nsecret", parts=(words.id,))
    with pytest.raises(Refusal, match="taken back"):
        await office.store.transact(office.rules.outward.filled, row.uid, before, after)


async def test_a_title_is_one_line_so_that_it_cannot_pass_for_words_of_the_preview(office: Office) -> None:
    await office.arrive(begins=True, title="Pump\n\n> nothing else leaves", text="It rattles.")
    await office.say("!job again")
    (draft,) = await office.queued(Draft)
    assert draft.title == "Pump > nothing else leaves"


# --- once


async def test_a_ticket_that_was_perhaps_made_is_looked_for_before_it_is_made_again(office: Office) -> None:
    await office.letter()
    await office.say("!job Pump")

    def rule(tx: Tx) -> Delivery | None:
        (row,) = tx.queue._many("kind = 'draft'")
        tx.queue.move(row.uid, "ready")
        (row,) = tx.queue._many("kind = 'draft'")
        begun = tx.queue.begin(row)
        assert begun is not None
        tx.queue.bury(begun, "the answer is lost")
        (dead,) = tx.queue._many("kind = 'draft'")
        office.rules.outward.retry(tx, dead)
        tx.queue.move(row.uid, "ready")
        (row,) = tx.queue._many("kind = 'draft'")
        return tx.queue.begin(row)

    again = await office.store.transact(rule)
    assert again is not None
    assert again.attempts > 1  # the contract: then a plugin looks for its own mark


async def test_two_people_who_want_a_ticket_of_the_same_message_make_one(office: Office) -> None:
    words = RoomEvent("$said", HERE, BOB, "m.room.message", time.time(), "m.text", "It leaks")
    for sender in (ALICE, BOB):
        request = RoomEvent(f"$r{sender}", HERE, sender, "m.reaction", time.time(), target="$said", key="🎫")
        await office.store.transact(office.rules.hearing.located, request, words)
    assert len(await office.queued(Draft)) == 1
    assert len(await office.conversations()) == 1


# --- what gets stuck


async def test_a_ticket_that_cannot_be_previewed_was_never_begun(office: Office) -> None:
    await office.letter()
    await office.say("!job Pump")
    (row,) = await _drafts(office)
    await office.store.transact(office.rules.outward.unfit, row.uid, "no words")
    assert await office.followed(1) == ["<1>"]
    await office.say("!job Pump")
    assert len(await office.queued(Draft)) == 1


async def test_a_tool_that_is_configured_no_longer_keeps_nobody_from_the_others(office: Office) -> None:
    await office.arrive(begins=True)
    gone = await office.store.transact(lambda tx: tx.conversations.add_item("gone", "x1", "Gone"))
    await office.store.transact(lambda tx: tx.conversations.link(1, gone, "x"))
    await office.say("!state done")
    await office.say("!reply We come")
    assert len(await office.queued(Alter)) == len(await office.queued(Draft)) == 1
    await office.say("!unlink")
    assert await office.followed(1) == ["x1"]
    await office.say("!reply We come")
    assert "Nobody outside" in (await office.notices())[-1]


async def test_a_key_in_a_thread_that_a_relation_claims_is_passed_over(office: Office) -> None:
    await office.arrive(begins=True)
    await office.say("job7", room=SECRET)
    assert not await office.queued(Look)


async def test_what_cannot_even_be_kept_as_it_is_is_kept_all_the_same(office: Office) -> None:
    author = Author("desk", "mallory", "\ud800")
    odd = Envelope("desk", ("jobs",), "k", "m", author, 1.0, text="Hi \ud800", item="job1", card=CARD)
    await office.store.transact(office.rules.hub.keep_aside, odd, "odd")
    (dead,) = await office.store.transact(lambda tx: tx.queue.in_state("dead"))
    assert payload.load(Envelope, dead.payload).text.startswith("Hi ")


# --- who may see what


async def test_a_private_note_is_for_the_very_scope_that_the_room_may_see(tmp_path: Path) -> None:
    async with store.opened(tmp_path) as memory:
        office = Office(memory)
        places = office.rules.places
        secrets = next(each for each in places._mappings if each.private).model_copy(update={"room": HERE})
        places._mappings = (*places._mappings, secrets)
        places._by_scope["desk", "secrets"].append(secrets)
        await office.arrive(begins=True)
        with pytest.raises(Rejected):
            await office.arrive(text="Between us", private=True)


async def test_a_private_note_elsewhere_is_not_spoken_of_here(office: Office) -> None:
    await office.arrive(begins=True, text="In public")
    await office.arrive(text="Between us", private=True, scopes=("jobs", "secrets"))
    assert "Between us" in [post.body for post in await office.queued(Post, SECRET)]
    assert not await office.notices(HERE)


async def test_a_room_that_is_mapped_no_longer_hears_and_changes_nothing(office: Office) -> None:
    await office.arrive(begins=True)
    places = office.rules.places
    places.declare(each for each in places.mappings if each.connector != "desk" or each.room != HERE)
    await office.arrive(text="For the secret room", scopes=("secrets",), card=DONE)
    assert not [*await office.queued(Post, HERE), *(await office.queued(CardPost, HERE))[1:]]
    await office.say("!state done")
    assert not await office.queued(Alter)


async def test_a_change_that_comes_with_a_private_note_is_told_when_everybody_may_hear_it(office: Office) -> None:
    both = ("jobs", "secrets")
    await office.arrive(begins=True, scopes=both)
    await office.arrive(text="Between us", private=True, scopes=both, card=DONE)
    assert "done" not in str(await office.queued(CardPost))
    await office.arrive(card=DONE, scopes=both)
    for room in (HERE, SECRET):
        assert "done" in (await office.queued(CardPost, room))[-1].body


async def test_a_change_of_what_only_private_rooms_follow_is_told_there_at_once(office: Office) -> None:
    await office.arrive(begins=True, scopes=("secrets",), private=True)
    await office.arrive(private=True, scopes=("secrets",), card=DONE)
    assert "done" in (await office.queued(CardPost, SECRET))[-1].body


async def test_a_key_that_two_tools_know_links_neither(office: Office) -> None:
    await office.letter()
    places = office.rules.places
    desk = next(each for each in places._mappings if each.connector == "desk" and each.room == HERE)
    places._mappings = (*places._mappings, desk.model_copy(update={"connector": "other"}))
    await office.say("!link job7")
    assert not await office.queued(Look)
    assert "desk, other" in (await office.notices())[-1]


# --- what is told to nobody


async def test_what_one_room_changes_is_seen_in_the_other(office: Office) -> None:
    await office.arrive(begins=True, scopes=("jobs", "secrets"))
    await office.say("!state done")
    (alter,) = await office.queued(Alter)
    (here,) = await office.conversations(HERE)
    await office.store.transact(office.rules.items.changed, alter, here, DONE)
    await office.arrive(card=DONE, scopes=("jobs", "secrets"))
    assert "done" in (await office.queued(CardPost, SECRET))[-1].body
    assert "state: open → done" in (await office.notices(SECRET))[-1]


async def test_what_a_look_finds_out_is_not_kept_from_those_who_follow(office: Office) -> None:
    await office.arrive(begins=True, scopes=("secrets",))
    await office.letter()
    await office.say("!link job1")
    await office.found(DONE)
    await office.arrive(card=DONE, scopes=("secrets",))
    assert "done" in (await office.queued(CardPost, SECRET))[-1].body
    assert "state: open → done" in (await office.notices(SECRET))[-1]


async def test_an_answer_to_what_was_unlinked_meanwhile_shows_no_card_of_it(office: Office) -> None:
    await office.arrive(begins=True)
    await office.say("!reply We come")
    (draft,) = await office.queued(Draft)
    await office.say("!unlink")
    await office.delivered(draft, Sent("m1", card=DONE))
    assert len(await office.queued(CardPost)) == 1


# --- hostile tools


def test_a_path_is_not_said_twice_on_its_card() -> None:
    assert shown_card(Card("a", "Deals/offer.pdf", "offer.pdf"))[0] == "Deals/offer.pdf"
    assert shown_card(Card("a", "job1", "offer.pdf"))[0] == "job1: offer.pdf"


def test_a_card_is_short_however_long_its_item_is() -> None:
    huge = Card(
        "job1", "job1", "title\n" * 100_000, "https://desk.example/" + "x" * 10**6, (("a\nb", "v" * 10**6),) * 9
    )
    body, html = shown_card(huge)
    assert len(body.splitlines()) <= 3
    assert len(body) + len(html) < 10_000
    line = changes(CARD, huge)
    assert "\n" not in line
    assert len(line) < 2_000


async def test_a_code_that_is_only_quoted_proves_nothing(office: Office) -> None:
    await office.arrive(begins=True, text="It rattles.")
    await office.say("!me desk alice", sender=BOB)
    code = (await office.notices())[-1].split()[-1]
    alice = Author("desk", "alice", verified=True)
    await office.arrive(text=f"I agree!\n\n> look at this: {code}", author=alice)
    assert not await office.store.transact(lambda tx: tx.people.account(BOB, "desk"))


async def test_what_waited_for_long_is_not_sent_as_somebody_whose_account_it_is_no_longer(office: Office) -> None:
    await office.arrive(begins=True)
    await office.store.transact(lambda tx: tx.people.owns(ALICE, "desk", "alice"))
    await office.say("!reply One")
    (row,) = await _drafts(office)
    await office.store.transact(lambda tx: tx.people.owns(BOB, "desk", "alice"))
    await office.store.transact(office.rules.outward.send_now, row)
    (draft,) = await office.queued(Draft)
    assert draft.account == ""


async def test_whoever_asked_hears_that_a_tool_was_away_too_long(office: Office) -> None:
    await office.arrive(begins=True)
    asked = await office.say("!state done")
    there = ConnectorDestination.__new__(ConnectorDestination)
    there.name, there._items, there._places = "desk", office.rules.items, office.rules.places

    def rule(tx: Tx) -> None:
        (row,) = tx.queue._many("kind = 'change'")
        there.gave_up(tx, row, "it does not answer")

    await office.store.transact(rule)
    post = (await office.queued(Post, HERE))[-1]
    assert post.answers == asked.id
    assert "it does not answer" in post.body


# --- transcripts


class Homeserver:
    """One long thread, told as a homeserver does: the newest first unless asked otherwise."""

    mxid = "@bot"

    def __init__(self, count: int) -> None:
        self.thread = [_raw(number) for number in range(count)]

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        if "/relations/" not in path:
            return _raw(-1)
        told = self.thread if query.get("dir", "b") == "f" else self.thread[::-1]
        start, limit = int(query.get("from", "0")), int(query["limit"])
        more = {"next_batch": str(start + limit)} if start + limit < len(told) else {}
        return {"chunk": told[start : start + limit], **more}


def _raw(number: int) -> dict[str, Any]:
    content = {"msgtype": "m.text", "body": f"message {number}"}
    at = (1000 + number) * 1000
    return {
        "event_id": f"${number}",
        "sender": ALICE,
        "type": "m.room.message",
        "origin_server_ts": at,
        **{"content": content},
    }


async def _transcript(office: Office, draft: Draft, count: int = 700) -> list[str]:
    ghosts = type("Ghosts", (), {"bot": Homeserver(count), "name": lambda self, mxid: "Alice"})()
    done = await Fetch(ghosts, office.store, office.rules.say).completed(draft)
    return [line for line in done.transcript.splitlines() if line.startswith("message ")]


async def test_the_last_messages_of_a_long_thread_are_its_last(office: Office) -> None:
    await office.letter()
    await office.say("!job with history 2 Pump")
    (draft,) = await office.queued(Draft)
    assert await _transcript(office, replace(draft, source="$650")) == ["message 648", "message 649"]
    whole = await _transcript(office, replace(draft, source="$699", history=History(root="$-1")))
    assert (len(whole), whole[0], whole[-1]) == (500, "message -1", "message 698")


async def test_what_is_said_after_the_request_stays_although_the_request_stands_elsewhere(office: Office) -> None:
    await office.letter()
    await office.say("!job with history Pump", answers="$1", thread="", when=1005.5)
    (draft,) = await office.queued(Draft)
    assert (await _transcript(office, draft, 50))[-1] == "message 5"
