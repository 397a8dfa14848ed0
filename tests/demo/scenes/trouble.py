"""What goes wrong in mail: refusals, bounces, strangers; and the original of everything."""

from __future__ import annotations

from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP

from tests.demo.play import Asked, Play, bot_answers, mentioned, says
from tests.demo.stage import BOT
from tests.peers.employee import body
from tests.peers.world import Mail, letter

NINA = "Nina Novak <nina@museum.example>"
MALLORY = "Mallory <mallory@elsewhere.example>"


async def a_refusal_is_told(play: Play) -> None:
    """The other side refuses for good: ⚠️ and the reason in the thread, and !retry"""
    await play.writes(letter(NINA, "sales@company.example", "Opening hours", "Are you open on Monday?\n"))
    root = (await play.see(play.bob, "sales", says("open on Monday"), "a mail begins a thread in #sales"))["event_id"]
    refusal = "550 5.1.1 <nina@museum.example>: no such user here"
    fault = play.stage.outbox.faults.add(
        "rcpt", refusal, times=None, when=lambda session, envelope, argument: "nina@museum" in argument
    )
    asked, _ = await play.ask(play.bob, "sales", root, "!reply Yes, from 9 to 17.")
    told = await play.see(
        play.bob, "sales", lambda each: bot_answers(each, asked.event) and "no such user here" in body(each),
        "the reason is told in the thread",
    )  # fmt: skip
    play.checks.that(mentioned(told) == [play.bob.mxid], "to Bob", mentioned(told))
    await play.marked(play.bob, "sales", asked.event, "⚠️")
    await play.unmarked(play.bob, "sales", asked.event, "⏳")
    await play.see(play.alice, "bridge-ops", says("no such user here", BOT), "operators are told in #bridge-ops")
    play.checks.that(fault.hits == 1, "it was tried once: a refusal is not repeated", fault.hits)
    play.stage.outbox.faults.clear()
    after = await play.bob.say(play.room("sales"), "!retry", thread=root)
    again = await play.see(
        play.bob, "sales", lambda each: bot_answers(each, asked.event) and "📤" in body(each),
        "after !retry it is previewed again", after=after,
    )  # fmt: skip
    await play.left("nina@museum.example", "Yes, from 9 to 17.", "and leaves, now that the mailbox exists")
    await play.accepted(play.bob, Asked(asked.event, again["event_id"], asked.seen, "sales"))


async def the_original_is_kept(play: Play) -> None:
    """!original: the mail as it came, whole"""
    root, first = play.kept("root"), play.kept("first_mail")
    asked = await play.bob.say(play.room("support"), "!original", thread=root, reply_to=root)
    file = await play.see(
        play.bob, "support", lambda each: bot_answers(each, asked) and "url" in each["content"],
        "a file comes into the thread",
    )  # fmt: skip
    raw = await play.bob.download(file["content"]["url"])
    message = BytesParser(policy=SMTP).parsebytes(raw)
    played = play.checks.that
    played(message["Message-ID"] == first["Message-ID"], "it is the mail it was asked for", message["Message-ID"])
    played(b"firmware 4.1 to 4.2" in raw, "with all that was folded away")
    played(raw.endswith(first.as_bytes()), "and every byte as it came", len(raw))


async def a_bounce_is_pinned(play: Play) -> None:
    """A mail comes back undelivered: told at the very message it belongs to"""
    mail, event = play.kept("first_answer"), play.kept("first_reply")
    await play.writes(bounce(mail, "tom@theatre.example"), "a bounce", sender="")
    told = await play.see(
        play.alice, "support", lambda each: bot_answers(each, event) and "tom@theatre.example" in body(each)
        and "mailbox is full" in body(each),
        "the bot answers Alice's message with the address and the reason",
    )  # fmt: skip
    play.checks.that(mentioned(told) == [play.alice.mxid], "and mentions her", mentioned(told))
    await play.marked(play.alice, "support", event, "⚠️")
    strangers = [each for each in play.alice.timeline(play.room("support")) if "mailer-daemon" in each["sender"]]
    play.checks.that(not strangers, "no mail server joins the conversation", strangers)


async def a_stranger_guesses_an_id(play: Play) -> None:
    """A stranger refers to a mail of this thread: shown as what it is, and answers do not go there"""
    root, first = play.kept("root"), play.kept("first_mail")
    await play.writes(
        letter(
            MALLORY, "support@company.example", "Re: Tickets print upside down",
            "Please send the invoice to my new address from now on.\n",
            in_reply_to=first["Message-ID"], references=(first["Message-ID"],),
        )
    )  # fmt: skip
    seen = await play.see(
        play.alice, "support", says("my new address", "mallory", root), "the mail is shown in the thread it refers to"
    )
    warning = play.say("stranger", sender="mallory@elsewhere.example")
    warned = await play.see(play.alice, "support", says(warning, BOT, root), "the bot says who it is not")
    order = [each["event_id"] for each in play.alice.timeline(play.room("support"))]
    played = play.checks.that
    played(order.index(warned["event_id"]) < order.index(seen["event_id"]), "before it")
    played(not mentioned(seen), "nobody is called for it", mentioned(seen))
    asked, preview = await play.ask(play.alice, "support", root, "!reply The new printer is on its way.")
    played("mallory" not in body(preview), "a reply would not go there", body(preview))
    mail = await play.left("jane.doe@theatre.example", "The new printer is on its way.")
    played(all("mallory" not in to for to in mail.recipients), "and does not", mail.recipients)
    await play.accepted(play.alice, asked)


def bounce(mail: Mail, recipient: str) -> EmailMessage:
    """What a mail server says of a mail it could not deliver (RFC 3464)."""
    head = mail.data.partition(b"\r\n\r\n")[0].decode()
    text = (
        "From: Mail Delivery System <mailer-daemon@theatre.example>\r\n"
        f"To: {mail.sender}\r\nSubject: Undelivered Mail Returned to Sender\r\nAuto-Submitted: auto-replied\r\n"
        "Message-ID: <bounce.1@theatre.example>\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="part"\r\n\r\n'
        "--part\r\nContent-Type: text/plain\r\n\r\nYour mail could not be delivered to one recipient.\r\n"
        "--part\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.theatre.example\r\n\r\n"
        f"Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.2.2\r\n"
        "Diagnostic-Code: smtp; 552 5.2.2 mailbox is full\r\n\r\n"
        f"--part\r\nContent-Type: text/rfc822-headers\r\n\r\n{head}\r\n\r\n--part--\r\n"
    )
    parsed = BytesParser(policy=SMTP).parsebytes(text.encode())
    assert isinstance(parsed, EmailMessage)
    return parsed
