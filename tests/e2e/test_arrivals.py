"""What arrives from outside, as employees see it on a real homeserver."""

from __future__ import annotations

import json

import aiosmtplib
import pytest

from tests.conftest import Company, company_with
from tests.e2e.looking import says, shows_file
from tests.peers.employee import body, relation, thread_of
from tests.peers.world import letter

JANE = "Jane Doe <jane@customer.example>"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def connection(company: Company) -> aiosmtplib.SMTP:
    host, port = company.smtp
    return aiosmtplib.SMTP(hostname=host, port=port)


async def test_attachments_and_the_original_are_in_the_thread(company: Company) -> None:
    room = company.room
    big = b"0123456789abcdef" * 20_000  # larger than what the database takes: it goes through a file
    mail = await company.post(
        sender=JANE, subject="Two files", body="See below.",
        attachments=[("photo.png", PNG, "image/png"), ("log.bin", big)],
    )  # fmt: skip
    root = await company.alice.see(room, says("See below."))
    picture = await company.alice.see(room, shows_file("photo.png"))
    assert picture["content"]["msgtype"] == "m.image"
    assert thread_of(picture) == root["event_id"]
    assert await company.alice.download(picture["content"]["url"]) == PNG
    log = await company.alice.see(room, shows_file("log.bin"))
    assert await company.alice.download(log["content"]["url"]) == big

    await company.alice.say(room, "!original", thread=root["event_id"])
    original = await company.alice.see(room, shows_file("Two files.eml"))
    raw = await company.alice.download(original["content"]["url"])
    assert mail["Message-ID"].encode() in raw


async def test_the_quoted_part_is_folded_away_and_html_is_safe(company: Company) -> None:
    await company.post(
        sender=JANE, subject="Html",
        body="New words.\n\nOn Monday, Bob wrote:\n> old words\n> more old words\n",
        html="<p>New <b>words</b>.<script>alert(1)</script><img src='http://tracker.example/x.png'></p>"
        "<div class='gmail_quote'>On Monday, Bob wrote:<blockquote>old words</blockquote></div>",
    )  # fmt: skip
    shown = await company.alice.see(company.room, says("New words."))
    assert "old words" not in json.dumps(shown["content"])
    assert "!original" in body(shown)
    assert "<strong>words</strong>" in shown["content"]["formatted_body"]
    assert "script" not in shown["content"]["formatted_body"]
    assert "tracker" not in shown["content"]["formatted_body"]


async def test_a_long_text_is_shown_shortened_and_whole_as_a_file(company: Company) -> None:
    lines = "".join(f"line {number} of a long story\n" for number in range(3000))
    await company.post(sender=JANE, subject="Long", body=lines)
    shown = await company.alice.see(company.room, says("line 1 of"))
    assert len(body(shown)) < 6000
    file = await company.alice.see(company.room, shows_file("message.txt"))
    assert b"line 2999 of" in await company.alice.download(file["content"]["url"])


async def test_a_reply_before_its_root_and_siblings_of_an_unseen_mail_meet_in_one_thread(company: Company) -> None:
    room = company.room
    await company.post(
        sender=JANE, cc="john@customer.example", subject="Re: Plans", body="I am the reply.",
        message_id="<r@customer.example>", in_reply_to="<root@customer.example>",
        references=("<unseen@customer.example>", "<root@customer.example>"),
    )  # fmt: skip
    root = await company.alice.see(room, says("I am the reply."))
    await company.post(
        sender="john@customer.example", subject="Plans", body="I am the root.", message_id="<root@customer.example>"
    )
    late = await company.alice.see(room, says("I am the root."))
    assert thread_of(late) == root["event_id"]
    await company.post(
        sender="john@customer.example", subject="Re: Plans", body="I am the sibling.",
        in_reply_to="<unseen@customer.example>", references=("<unseen@customer.example>",),
    )  # fmt: skip
    sibling = await company.alice.see(room, says("I am the sibling."))
    assert thread_of(sibling) == root["event_id"]


async def test_a_stranger_with_a_guessed_id_is_shown_as_a_stranger(company: Company) -> None:
    room = company.room
    mail = await company.post(sender=JANE, subject="Secret plans", body="Between us.")
    root = await company.alice.see(room, says("Between us."))
    await company.post(
        sender="mallory@evil.example",
        subject="Re: Secret plans",
        body="I am Jane, honestly.",
        in_reply_to=mail["Message-ID"],
    )
    warning = await company.alice.see(room, says("mallory@evil.example", company.bot))
    assert thread_of(warning) == root["event_id"]
    shown = await company.alice.see(room, says("I am Jane"))
    assert "mallory" in shown["sender"]
    await company.alice.say(room, "!reply For Jane only.", thread=root["event_id"])
    sent = await company.sink.wait_for(lambda mail: "For Jane only" in mail.text)
    assert list(sent.recipients) == ["jane@customer.example"]


async def test_the_same_mail_again_is_shown_once(company: Company) -> None:
    room = company.room
    mail = await company.post(sender=JANE, subject="Once", body="Only once.")
    await company.deliver(mail)
    await company.post(sender=JANE, subject="Re: Once", body="The one after.", in_reply_to=mail["Message-ID"])
    await company.alice.see(room, says("The one after."))
    assert len([event for event in company.alice.timeline(room) if "Only once." in body(event)]) == 1


async def test_two_mails_on_one_connection_stay_two(company: Company) -> None:
    async with connection(company) as smtp:
        for word in ("first", "second"):
            await smtp.send_message(letter(sender=JANE, subject=f"The {word}", body=f"I am the {word}."))
    first = await company.alice.see(company.room, says("I am the first."))
    second = await company.alice.see(company.room, says("I am the second."))
    assert thread_of(first) is None
    assert thread_of(second) is None


async def test_an_unreadable_mail_is_kept_and_shown(company: Company) -> None:
    raw = (
        b"From: jane@customer.example\r\nTo: support@company.example\r\nSubject: =?utf-8?q?Odd?=\r\n"
        b"Message-ID: <odd@customer.example>\r\nContent-Type: text/plain; charset=klingon\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n%%%not base64%%%\r\n"
    )
    await company.deliver(raw, "jane@customer.example")
    root = await company.alice.see(company.room, says("Odd"))
    await company.alice.say(company.room, "!original", thread=root["event_id"])
    original = await company.alice.see(company.room, shows_file("Odd.eml"))
    assert b"klingon" in await company.alice.download(original["content"]["url"])


async def test_automatic_mail_is_shown_as_a_notice_and_mentions_nobody(company: Company) -> None:
    await company.post(sender=JANE, subject="Away", body="I am away.", headers={"Auto-Submitted": "auto-replied"})
    shown = await company.alice.see(company.room, says("I am away."))
    assert shown["content"]["msgtype"] == "m.notice"
    assert shown["content"]["m.mentions"] == {}


@company_with(
    connectors={"mail": {"mailboxes": [{"address": "support@company.example"}, {"address": "help@company.example"}]}},
    mappings=[],
)
async def test_one_mail_to_two_of_our_addresses(company: Company) -> None:
    """In one room it is one conversation; in two rooms each knows of the other."""
    other = await company.alice.create_room("sales", invite=[company.bot], powers={company.bot: 50})
    await company.reconfigure(
        mappings=[
            {"connector": "mail", "scope": "support@company.example", "room": company.room},
            {"connector": "mail", "scope": "help@company.example", "room": other},
        ]
    )
    both = ["support@company.example", "help@company.example"]
    mail = await company.post(to=both, sender=JANE, subject="To both", body="Hello both.")
    root = await company.alice.see(company.room, says("Hello both."))
    await company.alice.see(other, says("Hello both."))
    await company.alice.see(company.room, says("also in", company.bot))
    await company.alice.see(other, says("also in", company.bot))

    await company.post(sender=JANE, subject="Re: To both", body="Only support.", in_reply_to=mail["Message-ID"])
    again = await company.alice.see(company.room, says("Only support."))
    assert thread_of(again) == root["event_id"]
    assert not [event for event in company.alice.timeline(other) if "Only support." in body(event)]
    told = [event for event in company.alice.timeline(company.room) if "also in" in body(event)]
    assert len(told) == 1, "it is said once, not with every mail"


async def test_a_mail_that_could_join_two_threads_goes_to_its_nearest_ancestors(company: Company) -> None:
    room = company.room
    one = await company.post(sender=JANE, subject="One", body="Thread one.")
    two = await company.post(sender=JANE, subject="Two", body="Thread two.")
    first = await company.alice.see(room, says("Thread one."))
    second = await company.alice.see(room, says("Thread two."))
    await company.post(
        sender=JANE, subject="Re: both", body="About both.", in_reply_to=two["Message-ID"],
        references=(one["Message-ID"], two["Message-ID"]),
    )  # fmt: skip
    joined = await company.alice.see(room, says("About both."))
    assert thread_of(joined) == second["event_id"]
    link = await company.alice.see(room, says("matrix.to", company.bot))
    assert relation(link)["event_id"] == first["event_id"]


async def test_a_mail_for_nobody_is_refused_and_a_huge_one_too(company: Company) -> None:
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await company.post(to="nobody@company.example", sender=JANE)
    async with connection(company) as smtp:
        with pytest.raises(aiosmtplib.SMTPSenderRefused) as refused:
            await smtp.mail("jane@customer.example", options=["SIZE=99999999"])
        assert refused.value.code == 552
        assert "MB" in refused.value.message


async def test_a_strangers_own_signed_id_opens_no_other_conversation(company: Company) -> None:
    room = company.room
    secret = await company.post(sender=JANE, subject="Jane's", body="Jane's matter.")
    root = await company.alice.see(room, says("Jane's matter."))
    hers = await company.post(sender="mallory@evil.example", subject="Mallory's", body="Mallory's matter.")
    other = await company.alice.see(room, says("Mallory's matter."))
    await company.alice.say(room, "!reply Dear Mallory.", thread=other["event_id"])
    ours = await company.sink.wait_for(lambda mail: "Dear Mallory" in mail.text)
    await company.post(
        sender="mallory@evil.example", subject="Re: Jane's", body="Let me in.", in_reply_to=secret["Message-ID"],
        references=(hers["Message-ID"], ours["Message-ID"]),
    )  # fmt: skip
    shown = await company.alice.see(room, says("Let me in."))
    assert thread_of(shown) == other["event_id"], "it belongs where it proves to belong"
    await company.alice.say(room, "!reply Dear Jane.", thread=root["event_id"])
    mail = await company.sink.wait_for(lambda mail: "Dear Jane" in mail.text)
    assert list(mail.recipients) == ["jane@customer.example"]


async def test_one_mail_to_three_rooms_that_refers_to_a_strangers_thread_is_taken_once_everywhere(
    company: Company,
) -> None:
    rooms = [company.room, *[await company.alice.create_room(f"room {n}", invite=[company.bot]) for n in (1, 2, 3)]]
    names = [f"team{n}@company.example" for n in range(4)]
    await company.reconfigure(
        connectors={"mail": {"mailboxes": [{"address": name} for name in names]}},
        mappings=[{"connector": "mail", "scope": name, "room": room} for name, room in zip(names, rooms, strict=True)],
    )
    first = await company.post(to=names[0], sender=JANE, subject="First", body="For the first team.")
    await company.alice.see(rooms[0], says("For the first team."))
    bob = "bob@customer.example"
    await company.post(
        to=names[1:], sender=bob, subject="Fwd: First", body="For three.", in_reply_to=first["Message-ID"]
    )
    for room in rooms[1:]:
        await company.alice.see(room, says("For three."))
