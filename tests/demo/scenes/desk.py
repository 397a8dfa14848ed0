"""Tickets: a real Roundup beside mail and chat, and three ways into it."""

from __future__ import annotations

from urllib.parse import unquote

from tests.demo.play import Look, Play, bot_answers, in_thread, mentioned, says, shows_file
from tests.demo.stage import BOT
from tests.demo.tracker import CONNECTOR, ERIN, TOM
from tests.peers.employee import body, relation
from tests.peers.world import letter

RUTH = "Ruth Berg <ruth@library.example>"
RUTHS = "@_passerelle_mail_ruth=40library.example:"
ERINS, TOMS, ALICES = (f"@_passerelle_{CONNECTOR}_{user}:" for user in (ERIN, TOM, "alice"))
THEORY = "That is relay 2, it got wet. There is a spare one in the van."
LOG = b"08:02 lock: no answer from relay 2\n08:02 fail-safe: open\n"


async def a_mail_becomes_a_ticket(play: Play) -> None:
    """A customer's mail becomes a ticket in Roundup: !ticket, with what was said about it"""
    text = "Hello,\n\nturnstile 3 stays open since this morning. Its log is attached.\n\nRuth Berg\n"
    files = [("turnstile-3.log", LOG, "text/plain")]
    mail = letter(RUTH, "support@company.example", "Turnstile 3", text, attachments=files)
    await play.writes(mail)
    seen = await play.see(play.bob, "support", says("turnstile 3 stays open", RUTHS), "it is a thread in #support")
    root = seen["event_id"]
    await play.see(play.alice, "support", shows_file("turnstile-3.log", root, RUTHS), "with the file")
    await play.talk(play.bob, "support", THEORY, root)
    asked, preview = await play.ask(play.alice, "support", root, "!ticket Relay 2 of turnstile 3 is wet")
    shown, played = body(preview), play.checks.that
    played(
        "turnstile 3 stays open" in shown and "turnstile-3.log" in shown, "with the customer's words and file", shown
    )
    played(THEORY in shown, "and with Bob's: internal words are shown before they go", shown)
    played(not await play.tracker.issues(), "nothing is in Roundup yet")
    await play.accepted(play.alice, asked, CONNECTOR, made=True)
    issue = await _made(play)
    card = await play.see(play.bob, "support", _card(issue, root), "the ticket's card is in the same thread")
    played("status: unread" in body(card) and play.tracker.url in body(card), "with status and address", body(card))
    play.keep(library=root, ticket=issue, ticket_card=card["event_id"])
    play.shared.append(THEORY)
    play.written.append("turnstile 3 stays open")
    await _has_the_conversation(play, issue)


async def _has_the_conversation(play: Play, issue: str) -> None:
    found = await play.reads(issue)
    (message,), played = found.messages, play.checks.that
    played(found.title == "Relay 2 of turnstile 3 is wet", "its title is Alice's", found.title)
    played("turnstile 3 stays open" in message.content and THEORY in message.content, "it has what was previewed")
    played("https://matrix.to/#/" in message.content, "and a link back to the thread", message.content)
    files = [(await play.tracker.download(each))[1] for each in message.files]
    played(files == [LOG], "the file is there, byte for byte", files)


async def roundup_answers(play: Play) -> None:
    """Erin, who works in Roundup, comments there; Alice proves that she is alice there"""
    root, issue, room = play.kept("library"), play.kept("ticket"), play.room("support")
    await play.talk(play.bob, "support", "Let us not say “wet” to the library, the roof is ours.", root)
    asking = await play.alice.say(room, f"!me {CONNECTOR} alice", thread=root)
    told = await play.see(
        play.alice, "support", lambda each: bot_answers(each, asking), "the bot gives Alice a code to write in Roundup"
    )
    await play.comments(ERIN, issue, "Relay 2 is discontinued. Relay 2b fits, article 90-117.")
    seen = await play.see(play.alice, "support", says("Relay 2b fits", ERINS, root), "Erin's comment is in the thread")
    names = await play.alice.members(room)
    played = play.checks.that
    played(names.get(seen["sender"]) == f"Erin Voss ({CONNECTOR})", "under her name", names.get(seen["sender"]))
    played(mentioned(seen) == [play.alice.mxid], "Alice, who made the ticket, is mentioned", mentioned(seen))
    code = body(told).split()[-1]
    await play.comments("alice", issue, code)
    await play.see(play.alice, "support", says(f"You are alice in {CONNECTOR}", BOT), "Alice is known by her code")
    await play.see(play.alice, "support", says(code, ALICES, root), "which is a comment like any other")


async def alice_answers_both(play: Play) -> None:
    """The bot asks whom Alice means, the customer or the desk; she answers each, and nothing crosses"""
    root, room, played = play.kept("library"), play.room("support"), play.checks.that
    to_ruth, to_desk = "!reply We are there at noon with a new relay.", "!reply Please order two of 90-117."
    unclear = await play.alice.say(room, to_ruth, thread=root)
    told = await play.see(play.alice, "support", lambda each: bot_answers(each, unclear), "the bot does not guess")
    played("Turnstile 3" in body(told) and "Relay 2 of turnstile 3 is wet" in body(told), "it names both", body(told))
    mail_asked, preview = await play.ask(
        play.alice, "support", root, to_ruth, "in reply to the customer's mail it is clear", reply_to=root
    )
    played("ruth@library.example" in body(preview), "and goes to the customer", body(preview))
    asked, preview = await play.ask(
        play.alice, "support", root, to_desk, "so is a reply to the card", reply_to=play.kept("ticket_card")
    )
    played(f"issue{play.kept('ticket')}" in body(preview), "which goes to the issue", body(preview))
    mail = await play.left("ruth@library.example", "at noon with a new relay")
    await play.accepted(play.alice, mail_asked)
    await play.accepted(play.alice, asked, CONNECTOR)
    played(not any(word in mail.text for word in ("90-117", "issue", "wet")), "the mail has only its own", mail.text)
    play.written.append("Please order two of 90-117.")
    await _has_the_comment(play)


async def _has_the_comment(play: Play) -> None:
    *before, last = (await play.reads(play.kept("ticket"))).messages
    played = play.checks.that
    played(last.content == "Please order two of 90-117.", "the issue has a comment", last.content)
    played(last.author == "alice", "in Alice's own name", last.author)
    played(len(before) == 3, "and nothing of the mail", before)
    shown = [each for each in play.alice.timeline(play.room("support")) if "order two" in body(each)]
    played(not [each for each in shown if ALICES in each["sender"]], "it does not come back as an echo", shown)


async def a_message_becomes_an_issue(play: Play) -> None:
    """🎫 on a chat message makes an issue of it; !state resolves it"""
    room, words = play.room("support"), "The coffee machine at the north gate drips on the fuse box."
    said = await play.talk(play.bob, "support", words)
    play.shared.append(words)
    await play.carol.react(room, said, "🎫")
    asked, preview = await play.previewed(play.carol, "support", said, "the bot previews it")
    play.checks.that(words in body(preview), "with his words", body(preview))
    await play.accepted(play.carol, asked, CONNECTOR, made=True)
    play.written.append(words)
    issue = await _made(play)
    card = await play.see(play.bob, "support", _card(issue, said), "the issue's card begins a thread at the message")
    await play.alice.say(room, "!state resolved", thread=said)
    await play.see(play.bob, "support", _rewords(card["event_id"], "status: resolved"), "!state edits the card")
    await play.see(play.alice, "support", says("Alice Martin set state", BOT, said), "and a line says who resolved it")
    found = await play.reads(issue)
    play.checks.that(found.title == words, "the issue is in Roundup", found.title)
    play.checks.that(found.status == "resolved", "and resolved there", found.status)


async def a_customer_opens_an_issue(play: Play) -> None:
    """A customer opens an issue in Roundup: a thread of its own; a change there is one line here"""
    issue = await play.opens(TOM, "Badge reader is slow", "It takes ten seconds for each badge since Monday.")
    card = await play.see(play.bob, "support", _card(issue), "its card begins a thread in #support")
    root = card["event_id"]
    played = play.checks.that
    played("m.relates_to" not in card["content"], "of its own", card)
    await play.see(play.bob, "support", says("ten seconds for each badge", TOMS, root), "his words are in it, as his")
    await play.changes(ERIN, issue, priority="urgent", assignedto="bob")
    await play.see(play.bob, "support", _rewords(root, "priority: urgent"), "what Erin changes edits the card")
    line = await play.see(play.bob, "support", says("Erin Voss changed", BOT, root), "and is one line in the thread")
    expected = ("priority: – → urgent", "assigned to: – → bob")
    played(all(part in body(line) for part in expected), "for both changes", body(line))
    found = await play.reads(issue)
    played((found.priority, found.assignedto) == ("urgent", "bob"), "as Roundup has it", found)
    play.keep(reader=issue, reader_card=root)


async def an_issue_gets_a_room(play: Play) -> None:
    """An issue gets a room of its own: !room; the conversation goes on there, and !room close sums it up"""
    issue, root, played = play.kept("reader"), play.kept("reader_card"), play.checks.that
    await play.talk(play.bob, "support", "This takes more than a thread, let us get together.", root)
    asked = await play.alice.say(play.room("support"), "!room Badge readers", thread=root)
    told = await play.see(play.alice, "support", lambda each: bot_answers(each, asked), "the bot makes a room")
    await _enter(play, body(told))
    card = await play.see(play.bob, "readers", _card(issue), "the card is there")
    await play.see(play.bob, "readers", lambda each: each["content"].get("pinned") == [card["event_id"]], "and pinned")
    await play.talk(play.bob, "readers", "The cable of reader 2 is as old as I am.")
    await play.comments(ERIN, issue, "A new cable lies at the front desk.")
    seen = await play.see(play.alice, "readers", says("at the front desk", ERINS), "what Erin writes arrives there")
    played("m.relates_to" not in seen["content"], "in no thread: the room is the conversation", seen)
    closing = await play.alice.say(play.room("readers"), "!room close The cable is replaced, readers are fast again.")
    asked_, _ = await play.previewed(play.alice, "readers", closing, "!room close previews the summary")
    await play.accepted(play.alice, asked_, CONNECTOR)
    play.written.append("The cable is replaced")
    await play.see(play.alice, "support", says("closed its own room", BOT, root), "the thread goes on")
    last = (await play.reads(issue)).messages[-1]
    played("readers are fast again" in last.content, "the issue has the summary", last.content)


async def _enter(play: Play, told: str) -> None:
    """Alice and Bob accept the bot's invitation."""
    room = told.partition("https://matrix.to/#/")[2].partition("?")[0].split()[0].split("/")[0]
    room = unquote(room)
    play.stage.rooms["readers"] = room
    play.stage.transcript.rooms[room] = "Badge readers"
    for each in (play.alice, play.bob):
        await each.see_invite(room)
        await each.join(room)
    play.checks.that(room not in play.carol.invites, "and invites those who were in the thread: Alice and Bob")


async def what_was_said_is_found(play: Play) -> None:
    """!find looks through the room's conversations and tools"""
    asked = await play.bob.say(play.room("support"), "!find badge")
    told = await play.see(play.bob, "support", lambda each: bot_answers(each, asked), "the bot answers in one message")
    found, played = body(told), play.checks.that
    played(f"issue{play.kept('reader')}" in found, "with the issue", found)
    played(len(found.splitlines()) <= 11, "in at most ten lines", found)
    elsewhere = await play.carol.say(play.room("sales"), "!find badge")
    told = await play.see(play.carol, "sales", lambda each: bot_answers(each, elsewhere), "asked in #sales")
    played("issue" not in body(told), "it finds nothing of #support", body(told))


async def _made(play: Play) -> str:
    """The number of the issue that was made since the last look."""
    known = play.known_issues
    new = [each for each in await play.tracker.issues() if each not in known]
    known.extend(new)
    play.checks.that(len(new) == 1, "one issue is made in Roundup", new)
    return new[0]


def _card(issue: str, thread: str = "") -> Look:
    """The bot's message about an issue, as it was first shown."""
    return lambda event: (
        event["sender"] == BOT
        and body(event).startswith(f"issue{issue}: ")
        and relation(event).get("rel_type") != "m.replace"
        and (not thread or in_thread(thread)(event))
    )


def _rewords(event_id: str, words: str) -> Look:
    return lambda event: (
        relation(event).get("rel_type") == "m.replace"
        and relation(event)["event_id"] == event_id
        and words in body(event)
    )
