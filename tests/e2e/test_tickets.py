"""Tickets on a real tracker beside mail: cards, comments, new issues out of conversations, changes, the tool away."""

from __future__ import annotations

from tests.conftest import Company, company_with
from tests.e2e.leaking import about, rewords
from tests.e2e.looking import Event, Look, marks, says, shows_file
from tests.peers import until
from tests.peers.employee import body, relation, thread_of
from tests.peers.roundup import Roundup
from tests.peers.world import letter

JANE = "Jane Doe <jane@customer.example>"
QUICK = company_with(outward={"hold": 0.5})


def card_of(issue: str) -> Look:
    """The card of an issue, as it was first shown."""
    return lambda seen: body(seen).startswith(f"issue{issue}: ") and relation(seen).get("rel_type") != "m.replace"


async def followed(
    company: Company, desk: Roundup, title: str = "Printer on fire", text: str = "It burns."
) -> tuple[str, Event]:
    """An issue that a customer has opened, and its card in the room."""
    issue = await desk.open(title, text, by="carol")
    return issue, await company.alice.see(company.room, card_of(issue))


async def said(desk: Roundup, issue: str, text: str) -> bool:
    return any(text in message.content for message in (await desk.read(issue)).messages)


@QUICK
async def test_a_new_issue_is_a_thread_with_a_card_that_is_edited_in_place(company: Company, desk: Roundup) -> None:
    issue, card = await followed(company, desk)
    assert body(card) == f"issue{issue}: Printer on fire\nstatus: unread\n{desk.url}issue{issue}"
    comment = await company.alice.see(company.room, says("It burns."))
    assert thread_of(comment) == card["event_id"]
    assert comment["sender"].startswith("@_passerelle_helpdesk_carol:")

    await desk.change(issue, by="bob", priority="urgent", assignedto="alice")
    await company.alice.see(company.room, rewords(card["event_id"], "priority: urgent"))
    line = await company.alice.see(company.room, says(f"changed issue{issue}:", company.bot))
    assert thread_of(line) == card["event_id"]
    assert "priority: – → urgent" in body(line)
    assert "assigned to: – → alice" in body(line)
    await desk.change(issue, by="carol", priority="critical")
    await company.alice.see(company.room, rewords(line["event_id"], "priority: – → critical"))
    lines = [each for each in company.alice.timeline(company.room) if f"changed issue{issue}:" in body(each)]
    assert [relation(each).get("event_id") for each in lines[1:]] == [line["event_id"]] * (len(lines) - 1)


@QUICK
async def test_a_comment_comes_as_its_author_and_a_reply_becomes_a_comment(company: Company, desk: Roundup) -> None:
    issue, card = await followed(company, desk)
    thread = card["event_id"]
    await company.bob.say(company.room, "Between us: again?", thread=thread)
    asked = await company.alice.say(company.room, "!reply We are on our way.", thread=thread)
    preview = await company.alice.see(company.room, about(asked))
    assert f"issue{issue}" in body(preview)
    await company.alice.see(company.room, marks(asked, "✉️"))
    (comment,) = [each for each in (await desk.read(issue)).messages if "on our way" in each.content]
    assert comment.content.startswith("Alice")
    assert not await said(desk, issue, "Between us")

    await desk.comment(issue, "Thank you!", by="carol")
    thanks = await company.alice.see(company.room, says("Thank you!"))
    assert thread_of(thanks) == thread
    assert thanks["content"]["m.mentions"] == {"user_ids": [company.alice.mxid]}
    ours = [each for each in company.alice.timeline(company.room) if "on our way" in body(each)]
    assert not [each for each in ours if "_passerelle_" in each["sender"]], "our own comment came back"


@QUICK
async def test_a_mail_becomes_an_issue_with_its_words_its_files_and_a_link_back(
    company: Company, desk: Roundup
) -> None:
    mail = letter(
        JANE, company.mailbox, "Printer on fire", "It burns.", attachments=[("photo.txt", b"smoke", "text/plain")]
    )
    await company.deliver(mail)
    root = await company.alice.see(company.room, says("It burns."))
    await company.alice.see(company.room, shows_file("photo.txt"))
    await company.bob.say(company.room, "I will look at it.", thread=root["event_id"])
    asked = await company.alice.say(company.room, "!ticket Printer burns", thread=root["event_id"])
    preview = await company.alice.see(company.room, about(asked))
    assert "It burns." in body(preview)
    assert "I will look at it." in body(preview), "internal words are shown before they go"
    assert "photo.txt" in body(preview)
    await company.alice.see(company.room, marks(asked, "✉️"))
    (issue,) = await desk.issues()
    made = await desk.read(issue)
    assert made.title == "Printer burns"
    (message,) = made.messages
    for words in ("It burns.", "I will look at it.", "https://matrix.to/#/"):
        assert words in message.content
    assert len(message.files) == 1
    assert (await desk.download(message.files[0]))[1] == b"smoke"
    card = await company.alice.see(company.room, card_of(issue))
    assert thread_of(card) == root["event_id"]

    await company.alice.say(company.room, "!ticket", thread=root["event_id"])
    await company.alice.see(company.room, says("!ticket again", company.bot))
    assert await desk.issues() == [issue]


@QUICK
async def test_a_reaction_makes_an_issue_of_that_very_message(company: Company, desk: Roundup) -> None:
    event = await company.bob.say(company.room, "The coffee machine is broken.")
    await company.alice.see(company.room, says("coffee machine"))
    await company.alice.react(company.room, event, "🎫")

    async def made() -> list[str]:
        return await desk.issues()

    (issue,) = await until(made, "the issue")
    found = await desk.read(issue)
    assert found.title == "The coffee machine is broken."
    assert event.replace("$", "%24") in found.messages[0].content
    card = await company.alice.see(company.room, card_of(issue))
    assert thread_of(card) == event


@QUICK
async def test_mail_and_issue_share_a_thread_and_nothing_crosses_by_itself(company: Company, desk: Roundup) -> None:
    issue = await desk.open("Printer on fire", by="bob")
    await company.alice.see(company.room, card_of(issue))
    await company.deliver(letter(JANE, company.mailbox, "Smoke", "It burns."))
    root = (await company.alice.see(company.room, says("It burns.")))["event_id"]
    await company.alice.say(company.room, f"!link {desk.url}issue{issue}", thread=root)
    card = await company.alice.see(company.room, lambda seen: card_of(issue)(seen) and thread_of(seen) == root)
    await desk.comment(issue, "Only for the desk", by="bob")
    await company.alice.see(company.room, lambda seen: "Only for the desk" in body(seen) and thread_of(seen) == root)
    ambiguous = await company.alice.say(company.room, "!reply Which of you?", thread=root)
    refusal = await company.alice.see(
        company.room,
        lambda seen: (
            relation(seen).get("m.in_reply_to", {}).get("event_id") == ambiguous and company.bot in seen["sender"]
        ),
    )
    assert "Smoke" in body(refusal)
    assert not company.sink.mails

    asked = await company.alice.say(company.room, "!reply To the desk.", thread=root, reply_to=card["event_id"])
    await company.alice.see(company.room, marks(asked, "✉️"))
    assert await said(desk, issue, "To the desk.")
    asked = await company.alice.say(company.room, "!reply To Jane.", thread=root, reply_to=root)
    await company.alice.see(company.room, marks(asked, "✉️"))
    (mail,) = company.sink.mails
    assert "To Jane." in mail.text
    assert not await said(desk, issue, "To Jane.")
    assert not await said(desk, issue, "It burns.")

    await company.alice.say(company.room, "!unlink", thread=root)
    await company.alice.see(company.room, says("no longer followed", company.bot))


@QUICK
async def test_a_key_in_the_talk_gets_a_card_and_is_not_followed(company: Company, desk: Roundup) -> None:
    issue = await desk.open("Quiet", by="bob")
    await company.alice.see(company.room, card_of(issue))
    event = await company.bob.say(company.room, f"Have you seen issue{issue}?")
    shown = await company.alice.see(
        company.room, lambda seen: body(seen).startswith(f"issue{issue}: Quiet") and thread_of(seen) == event
    )
    assert company.bot in shown["sender"]


@QUICK
async def test_a_state_is_set_read_back_and_a_refusal_is_told_with_its_reason(company: Company, desk: Roundup) -> None:
    issue, card = await followed(company, desk)
    thread = card["event_id"]
    await company.alice.say(company.room, "!state resolved", thread=thread)
    await company.alice.see(company.room, rewords(thread, "status: resolved"))
    await company.alice.see(company.room, says("Alice set state", company.bot))
    assert (await desk.read(issue)).status == "resolved"
    await company.alice.say(company.room, "!assign-item bob", thread=thread)
    await company.alice.see(company.room, rewords(thread, "assigned to: bob"))
    await company.alice.say(company.room, "!state finished", thread=thread)
    refusal = await company.alice.see(company.room, says("helpdesk says no", company.bot))
    assert "finished" in body(refusal)


@QUICK
async def test_an_account_is_proven_by_a_code_and_then_speaks_for_its_owner(company: Company, desk: Roundup) -> None:
    issue, card = await followed(company, desk)
    thread = card["event_id"]
    await company.alice.say(company.room, "!me helpdesk alice", thread=thread)
    told = await company.alice.see(company.room, says("passerelle-", company.bot))
    await desk.comment(issue, body(told).split()[-1], by="alice")
    await company.alice.see(company.room, says("You are alice in helpdesk", company.bot))
    asked = await company.alice.say(company.room, "!reply In my own name.", thread=thread)
    await company.alice.see(company.room, marks(asked, "✉️"))
    (comment,) = [each for each in (await desk.read(issue)).messages if "own name" in each.content]
    assert (comment.author, comment.content) == ("alice", "In my own name.")


@QUICK
async def test_while_the_desk_is_away_its_lanes_wait_others_do_not_and_all_is_caught_up_in_order(
    company: Company, desk: Roundup
) -> None:
    management = await company.alice.create_room("management", invite=[company.bot], powers={company.bot: 50})
    await company.reconfigure(management_room=management)
    issue, card = await followed(company, desk)
    await company.deliver(letter(JANE, company.mailbox, "Smoke", "It burns too."))
    mailed = (await company.alice.see(company.room, says("It burns too.")))["event_id"]
    await desk.stop()
    waiting = await company.alice.say(company.room, "!reply To the desk.", thread=card["event_id"])
    await company.alice.see(company.room, about(waiting))
    await company.alice.see(management, says("helpdesk does not answer", company.bot))
    asked = await company.alice.say(company.room, "!reply To Jane.", thread=mailed)
    await company.alice.see(company.room, marks(asked, "✉️"))
    assert not [mark for mark in company.alice.reactions(company.room, waiting) if mark[1] == "✉️"]

    await desk.start()
    for number in range(3):
        await desk.comment(issue, f"Comment {number}", by="carol")
    await company.alice.see(company.room, marks(waiting, "✉️"))
    await company.alice.see(company.room, says("Comment 2"))
    await company.alice.see(management, says("helpdesk answers again", company.bot))
    comments = [body(each) for each in company.alice.timeline(company.room) if body(each).startswith("Comment ")]
    assert comments == [f"Comment {number}" for number in range(3)]
    notices = [each for each in company.alice.timeline(management) if "helpdesk does not answer" in body(each)]
    assert len(notices) == 1
    assert sum("To the desk." in each.content for each in (await desk.read(issue)).messages) == 1
