"""What leaves on purpose: previewed, held, marked, retried, answered; seen in the room and at the other mail server."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable

from tests.conftest import Company, company_with
from tests.e2e.leaking import JANE, Thread, about, rewords
from tests.e2e.looking import Event, Look, marks, says
from tests.peers import until
from tests.peers.employee import body, relation, thread_of
from tests.peers.world import Mail, letter


def answers(event: str, text: str) -> Look:
    """The bot's answer to a message."""
    return lambda seen: text in body(seen) and relation(seen).get("m.in_reply_to", {}).get("event_id") == event


def unmarked(thread: Thread, event: str, key: str) -> Look:
    return lambda _: (thread.company.bot, key) not in thread.alice.reactions(thread.room, event)


async def answered(company: Company, mail: Mail, text: str, sender: str = JANE) -> Event:
    """The customer answers a mail of ours; returns what the room sees of it."""
    await company.post(
        to=str(mail["Reply-To"]), sender=sender, subject=mail["Subject"], body=text,
        in_reply_to=mail["Message-ID"], references=(mail["Message-ID"],),
    )  # fmt: skip
    return await company.alice.see(company.room, says(text))


@company_with(outward={"hold": 1})
async def test_a_reply_is_previewed_held_sent_and_marked(company: Company) -> None:
    await company.deliver(
        letter(
            JANE, [company.mailbox, "tom@customer.example"], "Printer on fire", "Please help!",
            cc=["Cleo <cleo@customer.example>"], message_id="<m1@customer.example>",
        ),
        recipients=[company.mailbox],
    )  # fmt: skip
    root = await company.alice.see(company.room, says("Please help!"))
    thread = Thread(company, root["event_id"], company.room)
    asked = await thread.say("!reply We are **coming**.", html="!reply We are <strong>coming</strong>.")
    preview = await thread.preview(asked)
    assert thread_of(preview) == thread.root
    for line in (
        "📤 To: Jane Doe <jane@customer.example>",
        "Cc: tom@customer.example, Cleo <cleo@customer.example>",
        "Subject: Re: Printer on fire",
        "> We are **coming**.",
        "Leaves in 1 s.",
    ):
        assert line in body(preview)
    await thread.alice.see(company.room, marks(asked, "⏳"))
    assert not company.sink.mails  # the hold began when the preview was there
    await thread.left(asked)
    await thread.alice.see(
        company.room, rewords(preview["event_id"], "Accepted by mail for jane@customer.example, tom@")
    )
    await thread.alice.see(company.room, unmarked(thread, asked, "⏳"))
    (mail,) = company.sink.mails
    assert mail.recipients == ("jane@customer.example", "tom@customer.example", "cleo@customer.example")
    assert (mail["From"], mail["To"]) == ("Alice <support@company.example>", "Jane Doe <jane@customer.example>")
    assert mail["Cc"] == "tom@customer.example, Cleo <cleo@customer.example>"
    assert mail["In-Reply-To"] == mail["References"] == "<m1@customer.example>"
    assert mail["Subject"] == "Re: Printer on fire"
    assert "<strong>coming</strong>" in mail.html

    await company.alice.edit(company.room, asked, "!reply We are not coming.")
    await company.alice.see(company.room, answers(asked, "has left already"))
    await company.alice.redact(company.room, asked)
    first = await company.alice.see(company.room, answers(asked, "has left already"))
    await company.alice.see(company.room, says("has left already"), after=first["event_id"])
    await thread.prove_nothing_more(1)


@company_with(outward={"hold": 0.2})
async def test_a_rich_reply_answers_the_message_it_points_at(company: Company) -> None:
    thread = await Thread.begin(company)
    await thread.left(await thread.say("!reply Which printer?"))
    ours = company.sink.mails[0]
    await answered(company, ours, "The red one, says Carl.")
    carl = await answered(company, ours, "I am Carl, it is blue.", "Carl <carl@customer.example>")
    await thread.left(await thread.say("!reply To the last one."))
    await thread.left(await thread.say("!reply To the first one.", reply_to=thread.root))
    message = await thread.say("To the first one, by reaction.", reply_to=thread.root)
    await thread.outward(message)
    await thread.left(message)
    to = [mail.recipients for mail in company.sink.mails]
    assert to == [(f"{name}@customer.example",) for name in ("jane", "carl", "jane", "jane")]
    assert company.sink.mails[2]["In-Reply-To"] == company.sink.mails[3]["In-Reply-To"]
    assert carl["content"]["m.mentions"]["user_ids"] == [company.alice.mxid]


@company_with(outward={"hold": 0.2})
async def test_a_refusal_is_told_with_the_servers_words_and_tried_again_only_when_asked(company: Company) -> None:
    thread = await Thread.begin(company)
    company.sink.faults.add("rcpt", "550 5.1.1 no such mailbox here")
    asked = await thread.say("!reply Hello")
    told = await thread.alice.see(company.room, answers(asked, "550 5.1.1 no such mailbox here"))
    assert "!retry" in body(told)
    assert told["content"]["m.mentions"]["user_ids"] == [company.alice.mxid]
    await thread.alice.see(company.room, marks(asked, "⚠️"))
    await thread.left(await thread.say("!reply Something else"))
    assert len(company.sink.mails) == 1

    retry = await thread.say("!retry")
    preview = await thread.alice.see(company.room, about(asked), after=retry)
    assert "> Hello" in body(preview)
    await thread.left(asked)
    await thread.alice.see(company.room, unmarked(thread, asked, "⚠️"))
    assert "Hello" in company.sink.mails[1].text
    await thread.say("!retry")
    await thread.alice.see(company.room, says("Nothing failed here"))


@company_with(outward={"hold": 0.2})
async def test_a_passing_refusal_is_waited_out_with_the_same_identity(company: Company) -> None:
    thread = await Thread.begin(company)
    company.sink.faults.add("data", "451 4.7.1 come back later", times=2)
    company.sink.faults.add("after-data", cut=True)  # taken, and we never hear so
    await thread.left(await thread.say("!reply Patience"))
    first, second = company.sink.mails
    assert not first.answered
    assert first.data == second.data
    assert first["Message-ID"] == second["Message-ID"]


@company_with(outward={"hold": 0.2})
async def test_only_recipients_that_were_put_off_are_tried_again(company: Company) -> None:
    await company.post(
        sender=JANE, cc=["slow@customer.example", "gone@customer.example"], subject="Three", body="We are three."
    )
    root = await company.alice.see(company.room, says("We are three."))
    thread = Thread(company, root["event_id"], company.room)
    company.sink.faults.add("rcpt", "450 4.2.1 greylisted", when=lambda _, __, to: "slow@" in to)
    company.sink.faults.add("rcpt", "550 5.1.1 gone", times=None, when=lambda _, __, to: "gone@" in to)
    asked, preview = await thread.asked("Hello all")
    await thread.alice.see(company.room, answers(asked, "Not accepted for gone@customer.example: 550 5.1.1 gone"))
    waiting = await thread.alice.see(company.room, rewords(preview, "Not yet for slow@customer.example"))
    assert "Accepted by mail for jane@customer.example." in body(waiting)
    await thread.alice.edit(company.room, asked, "!reply Goodbye all")
    await thread.alice.see(company.room, answers(asked, "has left already"))
    await thread.alice.see(
        company.room, rewords(preview, "for jane@customer.example, slow@customer.example"), timeout=40
    )
    first, second = company.sink.mails
    assert (first.recipients, second.recipients) == (("jane@customer.example",), ("slow@customer.example",))
    assert first.data == second.data


@company_with(outward={"hold": 0.2})
async def test_a_social_thread_goes_on_by_mail_and_answers_come_back_into_it(company: Company) -> None:
    alice, room = company.alice, company.room
    root = await alice.say(room, "Lunch? Also, our supplier is late.")
    await company.bob.say(room, "Let us ask them.", thread=root)
    thread = Thread(company, root, room)
    begun = await thread.say('!mail "Sue" <sue@supplier.example> cc: sam@supplier.example Delivery 77\nWhere is it?')
    preview = await thread.preview(begun)
    assert "📤 To: Sue <sue@supplier.example>\nCc: sam@supplier.example\nSubject: Delivery 77" in body(preview)
    await thread.left(begun)
    mail = company.sink.mails[0]
    assert mail["Subject"] == "Delivery 77"
    assert "Lunch" not in mail.data.decode()
    back = await answered(company, mail, "On its way.", "Sue <sue@supplier.example>")
    assert thread_of(back) == root
    assert back["content"]["m.mentions"]["user_ids"] == [alice.mxid]

    reply = await thread.say("!reply Thank you.", who=company.bob)
    await thread.left(reply)
    assert company.sink.mails[1]["From"] == "Bob <support@company.example>"
    assert company.sink.mails[1].recipients == ("sue@supplier.example",)
    assert company.sink.mails[1]["References"].split()[0] == mail["Message-ID"]


@company_with(outward={"hold": 0.2})
async def test_a_mail_begins_in_the_room_and_the_history_goes_with_it_on_request(company: Company) -> None:
    alice, room = company.alice, company.room
    begun = await alice.say(room, "!mail jane@customer.example An offer\nDear Jane,\nten percent.")
    thread = Thread(company, begun, room)
    await thread.left(begun)
    assert "Dear Jane,\nten percent.\n" in company.sink.mails[0].text
    answer = await answered(company, company.sink.mails[0], "Fifteen!")
    assert thread_of(answer) == begun

    await thread.say("Too long ago")
    await thread.say("She wants fifteen", who=company.bob)
    await thread.say("!help")
    asked = await thread.say("!mail boss@partner.example with history 2 Fifteen percent?\nMay we?")
    preview = await thread.preview(asked)
    assert "She wants fifteen" in body(preview)
    await thread.left(asked)
    mail = company.sink.mails[-1]
    assert mail.recipients == ("boss@partner.example",)
    assert "May we?" in mail.text
    assert "Bob, " in mail.text
    assert "Too long ago" in mail.text
    assert "Fifteen!" not in mail.text
    assert "!help" not in mail.text

    ambiguous = await thread.say("!reply To whom?")
    await alice.see(room, answers(ambiguous, "goes to several places"))
    await thread.left(await thread.say("!reply To Jane.", reply_to=answer["event_id"]))
    assert company.sink.mails[-1].recipients == ("jane@customer.example",)


@company_with(outward={"hold": 0.2, "max_size": 5000})
async def test_a_file_leaves_when_its_author_reacts_to_it_and_policy_allows_it(company: Company) -> None:
    thread = await Thread.begin(company)
    name, data = "Zeichnung ä.bin", bytes(range(256)) * 10
    file = await thread.alice.upload_file(company.room, name, data, thread=thread.root, caption="inside words")
    await thread.outward(file)
    assert f"Files: {name} (2.6 kB)" in body(await thread.preview(file))
    await thread.left(file)
    assert company.sink.mails[0].files == {name: data}
    assert "inside words" not in company.sink.mails[0].text

    large = await thread.alice.upload_file(company.room, "large.bin", b"x" * 6000, thread=thread.root)
    await thread.outward(large)
    await thread.alice.see(company.room, answers(large, "at most 5 kB may leave"))
    lying = {"msgtype": "m.file", "body": "small.bin", "filename": "small.bin", "info": {"size": 6}}
    lying["url"] = await thread.alice.upload("small.bin", b"x" * 6000)
    small = await thread.send(lying)
    await thread.outward(small)
    await thread.alice.see(company.room, answers(small, "at most 5 kB may leave"))
    await thread.prove_nothing_more(1)


@company_with(outward={"hold": 0.2, "domains": ["customer.example"]})
async def test_what_may_not_be_done_is_told_with_what_to_type_instead(company: Company) -> None:
    thread = await Thread.begin(company)
    for text, told in {
        "!reply": "Type !reply followed by the text",
        "!send": "Nothing is waiting to leave here",
        "!cancel": "Nothing is waiting to leave here",
        "!retry": "Nothing failed here",
        "!answer them": "I do not know !answer. !help lists",
        "!mail": "Type: !mail someone@outside.example Subject",
        "!mail not-an-address Hello": "Type: !mail someone@outside.example Subject",
        "!mail eve@evil.example Hello\nHi": "may not go to eve@evil.example: only to customer.example",
        "!help": "!reply text — answers the outside",
    }.items():
        asked = await thread.say(text)
        notice = await thread.alice.see(company.room, answers(asked, told))
        assert notice["content"]["msgtype"] == "m.notice"
        assert thread_of(notice) == thread.root
    lone = await company.alice.say(company.room, "!reply Hello")
    await company.alice.see(company.room, answers(lone, "belongs in the thread of a conversation"))
    await thread.prove_nothing_more(0)


@company_with(outward={"hold": 0.2})
async def test_a_bounce_is_pinned_to_the_message_it_is_about(company: Company) -> None:
    thread = await Thread.begin(company)
    asked = await thread.say("!reply Hello")
    await thread.left(asked)
    mail = company.sink.mails[0]
    await company.deliver(_bounce(mail), "", [mail.sender])
    told = await thread.alice.see(company.room, answers(asked, "did not reach jane@customer.example"))
    assert "5.1.1" in body(told) or "mailbox is full" in body(told)
    assert thread_of(told) == thread.root
    await thread.alice.see(company.room, marks(asked, "⚠️"))
    await thread.prove_nothing_more(1)


# What meets an attempt in flight is told so; this makes attempts rare.
@company_with(outward={"hold": 0.2}, retry={"first": 1.5, "longest": 1.5})
async def test_while_the_mail_server_is_away_a_message_can_still_be_stopped_or_changed(company: Company) -> None:
    thread = await Thread.begin(company)
    await company.sink.stop()
    stopped, preview = await thread.asked("never mind")
    changed, shown = await thread.asked("helo")
    await until(_tried_in_vain(company, stopped), "the bridge to find no mail server")
    assert "mail is down" in company.bridge.log_text()
    await thread.alice.react(company.room, stopped, "❌")
    await thread.alice.see(company.room, rewords(preview, "Not sent: cancelled"))
    await until(_tried_in_vain(company, changed), "the bridge to find none for the other message")
    await thread.alice.edit(company.room, changed, "!reply Hello!")
    await thread.alice.see(company.room, rewords(shown, "Hello!"))
    await company.sink.start()
    await thread.left(changed)
    (mail,) = company.sink.mails
    assert "Hello!" in mail.text


def _tried_in_vain(company: Company, message: str) -> Callable[[], Awaitable[bool]]:
    """An attempt at it has just failed: for a while nothing of it is in flight."""
    attempts: list[int] = []

    async def look() -> bool:
        with contextlib.closing(sqlite3.connect(company.bridge.config.parent / "data" / "passerelle.db")) as database:
            query = "SELECT attempts FROM queue WHERE source = ? AND state = 'ready' AND doubt IS NULL"
            attempts.extend(made for (made,) in database.execute(query, (message,)))
        return bool(attempts) and attempts[-1] > attempts[0]

    return look


def _bounce(mail: Mail) -> bytes:
    """A delivery status notification, RFC 3464."""
    return f"""\
From: MAILER-DAEMON@customer.example
To: {mail.sender}
Subject: Undelivered
Message-ID: <dsn@customer.example>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

This mail could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.customer.example

Final-Recipient: rfc822; jane@customer.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 mailbox is full
--b--
""".replace("\n", "\r\n").encode()
