"""One customer, from a mail to an order: thread, ticket, opportunity, document, talk inside, answer, resolved."""

from __future__ import annotations

from typing import Any

from tests.demo import crm, documents
from tests.demo.crm import DORA
from tests.demo.play import Look, Play, in_thread, says, shows_file
from tests.demo.stage import BOT
from tests.demo.tracker import CONNECTOR as HELPDESK
from tests.peers.employee import body, relation
from tests.peers.world import letter

GRETA = "Greta Lind <greta@opera.example>"
GRETAS = "@_passerelle_mail_greta=40opera.example:"
DORAS = f"@_passerelle_{crm.CONNECTOR}_{DORA[0]}:"
PLAN = "new-wing.csv"
WISHES = b"door,turnstiles\nnorth,4\nsouth,8\n"


async def a_customer_wants_more(play: Play) -> None:
    """A customer writes about a fault and wants to buy: mail, thread, ticket"""
    text = (
        "Hello,\n\nturnstile 7 squeaks. And for the new wing we need twelve more, see the list.\n\n"
        "Greta Lind\nState Opera\n"
    )
    mail = letter(
        GRETA, "support@company.example", "Turnstiles at the opera", text, attachments=[(PLAN, WISHES, "text/csv")]
    )
    await play.writes(mail)
    seen = await play.see(play.bob, "support", says("turnstile 7 squeaks", GRETAS), "it is a thread in #support")
    root = seen["event_id"]
    file = await play.see(play.alice, "support", shows_file(PLAN, root, GRETAS), "with her list")
    await play.talk(play.bob, "support", "Turnstile 7 wants oil. And the opera has money until March!", root)
    how = {"reply_to": root}
    asked, preview = await play.ask(play.bob, "support", root, "!ticket Turnstile 7 at the opera squeaks", **how)
    play.checks.that("squeaks" in body(preview), "Bob makes a ticket of her mail alone", body(preview))
    play.checks.that("March" not in body(preview), "without what he said about it", body(preview))
    await play.accepted(play.bob, asked, HELPDESK, made=True)
    play.written.append("turnstile 7 squeaks")
    card = await play.see(play.alice, "support", _card("issue", root), "its card is in the thread")
    play.known_issues.append(body(card).partition(":")[0].removeprefix("issue"))
    play.keep(opera=root, wishes=file["event_id"], squeak=card["event_id"])


async def a_mail_becomes_an_opportunity(play: Play) -> None:
    """The same mail is an opportunity, too: !deal, in a real Tryton, with stage, amount and what Dora says there"""
    root, room, played = play.kept("opera"), play.room("support"), play.checks.that
    how = {"reply_to": root}
    asked, preview = await play.ask(play.alice, "support", root, "!deal Twelve turnstiles for the opera", **how)
    played("twelve more" in body(preview), "the preview shows what goes into the CRM", body(preview))
    await play.accepted(play.alice, asked, crm.CONNECTOR, made=True)
    card = await play.see(play.bob, "support", _card("opportunity#", root), "its card is in the same thread")
    number = int(body(card).partition(":")[0].removeprefix("opportunity#"))
    played("stage: lead" in body(card), "a lead", body(card))
    await play.sells_to(number, "State Opera")
    await play.see(play.bob, "support", _rewords(card["event_id"], "party: State Opera"), "Dora says whose it is")
    for command, words in (
        ("!amount 48000", "48000"),
        ("!probability 60%", "60 %"),
        ("!stage opportunity", "stage: opp"),
    ):
        await play.alice.say(room, command, thread=root)
        await play.see(play.bob, "support", _rewords(card["event_id"], words), f"{command} edits the card")
    found = await play.looks_up(number)
    stands = (found["state"], found["amount"].partition(".")[0], found["probability"])
    played(stands == ("opportunity", "48000", "60%"), "Tryton has it so", found)
    played("twelve more" in found["comment"], "with the customer's words", found["comment"])
    await play.tells(number, "Their board decides on Friday, 45,000 is their limit.")
    await play.see(
        play.alice,
        "support",
        says("45,000 is their limit", DORAS, root),
        "what Dora says inside Tryton is here: allowed",
    )
    elsewhere = [each for each in play.alice.timeline(play.room("sales")) if "45,000" in body(each)]
    played(not elsewhere, "and not in #sales, which may not see internal notes", elsewhere)
    play.keep(deal=number, deal_card=card["event_id"])


async def a_file_becomes_a_document(play: Play) -> None:
    """The customer's list is saved among the documents: !doc; somebody edits it there"""
    root, played = play.kept("opera"), play.checks.that
    asked, preview = await play.ask(play.carol, "support", root, "!doc", reply_to=play.kept("wishes"))
    played(PLAN in body(preview), "the preview names the file", body(preview))
    await play.accepted(play.carol, asked, documents.CONNECTOR, made=True)
    saved = play.documents.saved()
    played(saved == {PLAN: WISHES}, "it is there, byte for byte", saved)
    card = await play.see(play.bob, "support", _card(f"{documents.SCOPE}/{PLAN}", root), "its card is in the thread")
    played("type: text/csv" in body(card), "with its type and size", body(card))
    await play.saves(f"{documents.SCOPE}/{PLAN}", "door,turnstiles\nnorth,4\nsouth,8\nstage door,1\n")
    await play.see(play.bob, "support", _rewords(card["event_id"], "size: 45"), "the card follows what becomes of it")
    await play.see(
        play.alice, "support", says("size: 32 bytes → 45 bytes", BOT, root), "and one line says what is different"
    )


async def the_customer_is_answered(play: Play) -> None:
    """They talk among themselves; then one answer goes out, and everything is done"""
    root, room, played = play.kept("opera"), play.room("support"), play.checks.that
    await play.talk(play.carol, "support", "Offer 44,900 then, with oil for number 7 thrown in.", root)
    words = "!reply Dear Ms Lind, thank you. You have our offer tomorrow, and number 7 is oiled today."
    asked, preview = await play.ask(play.alice, "support", root, words, reply_to=root)
    played("greta@opera.example" in body(preview), "in reply to her mail it goes to her", body(preview))
    mail = await play.left("greta@opera.example", "our offer tomorrow")
    await play.accepted(play.alice, asked)
    inside = ("45,000", "44,900", "opportunity", "issue", "Deals")
    played(not any(word in mail.text for word in inside), "with nothing of CRM, tracker and documents", mail.text)
    await play.bob.say(room, "!state resolved", thread=root)
    await play.see(play.alice, "support", _rewords(play.kept("squeak"), "status: resolved"), "the ticket is resolved")
    await _nothing_inside(play)


async def _nothing_inside(play: Play) -> None:
    """What was said in the room is not in the CRM."""
    found = await play.looks_up(play.kept("deal"))
    there = "\n".join([found["comment"], *(each["content"] for each in await play.crm.said(1))])
    leaks = [words for words in play.secrets if words in there and "45,000" not in words]
    play.checks.that(not leaks, "nothing that was said inside is in Tryton", leaks)


def _card(begin: str, thread: str) -> Look:
    """The bot's message about an item, as it was first shown."""
    return lambda event: (
        event["sender"] == BOT
        and body(event).startswith(begin)
        and relation(event).get("rel_type") != "m.replace"
        and in_thread(thread)(event)
    )


def _rewords(event_id: str, words: str) -> Look:
    def fits(event: dict[str, Any]) -> bool:
        related = relation(event)
        return related.get("rel_type") == "m.replace" and related["event_id"] == event_id and words in body(event)

    return fits
