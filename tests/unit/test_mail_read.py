"""Mail bytes → value, however hostile the mail."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures.process import BrokenProcessPool
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.model import Address
from plugins.mail import read as module
from plugins.mail.read import Mail, Reader, read, risky, unreadable

HANG = 20.0  # seconds of CPU; the point is that it ends

HEADER = (
    "From: Alice <alice@example.org>\r\nTo: support@example.com\r\nSubject: A question\r\n"
    "Message-ID: <1@example.org>\r\nDate: Mon, 3 Jan 2022 10:00:00 +0100\r\nMIME-Version: 1.0\r\n"
)


def mail(fields: str = "", body: str | bytes = "", header: str = HEADER) -> bytes:
    head = (
        (header + fields.replace("\r\n", "\n").replace("\n", "\r\n")).rstrip("\r\n").encode("utf-8", "surrogateescape")
    )
    return head + b"\r\n\r\n" + (body.encode() if isinstance(body, str) else body)


def multipart(kind: str, *parts: str, parameters: str = "") -> str:
    """A part of type multipart/`kind`: its header and its body."""
    mark = f"={kind}={len(parts)}="
    inner = "".join(f"--{mark}\r\n{part}\r\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{mark}"{parameters}\r\n\r\n{inner}--{mark}--\r\n'


def built(kind: str, *parts: str, parameters: str = "") -> bytes:
    return HEADER.encode() + multipart(kind, *parts, parameters=parameters).encode()


PLAIN = "Content-Type: text/plain; charset=utf-8\r\n\r\nHello plain\r\n"
RICH = "Content-Type: text/html; charset=utf-8\r\n\r\n<p>Hello <b>rich</b></p>\r\n"
IMAGE = (
    'Content-Type: image/png; name="logo.png"\r\nContent-Disposition: inline\r\nContent-ID: <logo>\r\n'
    "Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n"
)
PDF = (
    'Content-Type: application/pdf\r\nContent-Disposition: attachment; filename="offer.pdf"\r\n'
    "Content-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n"
)


# Ordinary mail


def test_a_plain_mail_is_read() -> None:
    seen = read(
        mail("Cc: Bob <BOB@example.org>, carol@example.org\nReply-To: help@example.org", "Hello\r\n\r\nAlice\r\n")
    )
    assert seen.problem == ""
    assert seen.message_id == "<1@example.org>"
    assert (seen.sender, seen.sender.name) == (Address("alice@example.org"), "Alice")
    assert seen.to == (Address("support@example.com"),)
    assert seen.cc == (Address("bob@example.org"), Address("carol@example.org"))
    assert seen.reply_to == (Address("help@example.org"),)
    assert (seen.subject, seen.date, seen.text, seen.html) == ("A question", 1641200400.0, "Hello\n\nAlice", "")
    assert not seen.automatic
    assert (seen.parts, seen.report, seen.token, seen.refs) == ((), None, "", ())


def test_the_quoted_part_is_folded() -> None:
    seen = read(mail(body="Thanks!\r\n\r\nOn 3 Jan 2022, Bob wrote:\r\n> old\r\n> words\r\n"))
    assert (seen.text, seen.folded) == ("Thanks!", 3)


def test_a_mail_forwarded_in_the_way_of_outlook_is_shown_whole() -> None:
    body = "FYI\r\n\r\nFrom: Bob\r\nSent: Monday\r\nTo: Alice\r\nSubject: Offer\r\n\r\nwords"
    header = HEADER.replace("A question", "FW: Offer")
    assert read(mail(body=body, header=header)).text.endswith("words")
    assert read(mail(body=body)).text == "FYI"


def test_only_html_gives_text_as_well() -> None:
    seen = read(mail("Content-Type: text/html", "<p>Hello <b>you</b></p><div class=gmail_quote>old</div>"))
    assert (seen.text, seen.html, seen.folded) == ("Hello you", "<p>Hello <strong>you</strong></p>", 1)


def test_of_alternatives_both_forms_are_taken() -> None:
    seen = read(built("alternative", PLAIN, RICH))
    assert (seen.text, seen.html, seen.parts) == ("Hello plain", "<p>Hello <strong>rich</strong></p>", ())


def test_an_empty_plain_alternative_does_not_hide_the_html() -> None:
    seen = read(built("alternative", "Content-Type: text/plain\r\n\r\n \r\n", RICH))
    assert (seen.text, seen.html) == ("Hello rich", "<p>Hello <strong>rich</strong></p>")


def test_alternative_related_and_mixed_together_lose_nothing() -> None:
    seen = read(built("mixed", multipart("alternative", PLAIN, multipart("related", RICH, IMAGE)), PDF))
    assert (seen.text, seen.html) == ("Hello plain", "<p>Hello <strong>rich</strong></p>")
    assert [(part.name, part.type) for part in seen.parts] == [
        ("logo.png", "image/png"),
        ("offer.pdf", "application/pdf"),
    ]
    assert seen.parts[1].data == b"%PDF-"


def test_several_texts_follow_each_other() -> None:
    seen = read(built("mixed", PLAIN, PDF, "Content-Type: text/plain\r\n\r\nsecond\r\n"))
    assert seen.text == "Hello plain\n\nsecond"
    seen = read(built("mixed", PLAIN, RICH))
    assert seen.text == "Hello plain\n\nHello rich"
    assert seen.html == "Hello plain<p>Hello <strong>rich</strong></p>"


def test_flowed_text_is_joined() -> None:
    assert read(mail("Content-Type: text/plain; format=flowed", "one \r\ntwo\r\n")).text == "one two"


def test_an_empty_mail_is_an_empty_mail() -> None:
    for raw in (b"", b"\r\n", mail(), HEADER.encode()):
        assert (read(raw).text, read(raw).problem) == ("", "")


def test_what_is_missing_is_empty() -> None:
    seen = read(b"Subject: x\n\nHello")
    assert (seen.sender, seen.date, seen.message_id, seen.text) == (Address(""), None, "", "Hello")


# Header fields


@pytest.mark.parametrize(
    ("field", "account", "name"),
    [
        ('"Martin, Alice" <Alice@Example.org>', "alice@example.org", "Martin, Alice"),
        ("=?utf-8?Q?Al=C3=ADce_Martin?= <alice@example.org>", "alice@example.org", "Alíce Martin"),
        ("=?utf-8?Q?Boss_=3Cboss=40example.com=3E?= <eve@example.org>", "eve@example.org", "Boss <boss@example.com>"),
        ("=?utf-8?Q?Eve=0D=0ABcc:_x=40example.org?= <eve@example.org>", "eve@example.org", "Eve Bcc: x@example.org"),
        ("=?utf-8?Q?Eve,_<boss@example.com>:?= <eve@example.org>", "eve@example.org", "Eve, <boss@example.com>:"),
        ("alice@example.org (Alice)", "alice@example.org", "Alice"),
        ('"A \\"B\\" C" <a@example.org>', "a@example.org", 'A "B" C'),
        ("Zoé <zoe@example.org>", "zoe@example.org", "Zoé"),
        ("undisclosed-recipients:;", "", ""),
        ("nobody", "", ""),
        ("", "", ""),
    ],
)
def test_a_sender_is_read(field: str, account: str, name: str) -> None:
    sender = read(mail(header=f"From: {field}\r\nSubject: x\r\n")).sender
    assert (sender.account, sender.name) == (account, name)


def test_a_name_in_eight_bit_characters_is_read_whatever_their_charset() -> None:
    assert read("From: Zoé <z@example.org>\n\n".encode("latin-1")).sender.name == "Zoé"


def test_an_ambiguous_sender_is_never_authenticated() -> None:
    checked = "Authentication-Results: mx.example.com; dmarc=pass header.from=example.org\r\n"
    sure = read(mail(header=f"{checked}From: Alice <alice@example.org>\r\n"))
    assert sure.authentication == ("mx.example.com; dmarc=pass header.from=example.org",)
    for field in (
        "alice@example.org, eve@example.net",
        "alice@example.org\r\nFrom: eve@example.net",
        "alice@example.org]<eve@example.net>",
        "alice@example.org <eve@example.net>",
    ):
        assert read(mail(header=f"{checked}From: {field}\r\n")).authentication == ()


def test_authentication_results_stay_in_order_and_are_unfolded() -> None:
    fields = "Authentication-Results: a;\n\tspf=pass\nAuthentication-Results: b; dkim=fail"
    assert read(mail(fields)).authentication == ("a; spf=pass", "b; dkim=fail")


def test_references_come_nearest_first_and_once() -> None:
    fields = "References: <a@x> <b@x>\n <c@x>\nIn-Reply-To: <c@x>"
    assert read(mail(fields)).refs == ("<c@x>", "<b@x>", "<a@x>")


def test_references_that_others_damaged_are_still_found() -> None:
    assert read(mail("In-Reply-To: Your message of Monday <a@x>")).refs == ("<a@x>",)
    assert read(mail("In-Reply-To: a@x")).refs == ("<a@x>",)
    assert read(mail("References: =?utf-8?q?=3Ca=40x=3E?=\n =?utf-8?q?_=3Cb=40x=3E?=")).refs == ("<b@x>", "<a@x>")
    assert read(mail("References: <a\n @x> <> <b c@x> <1@example.org>")).refs == ("<bc@x>", "<a@x>")


def test_endless_references_are_bounded_and_the_nearest_are_kept() -> None:
    refs = read(mail("References: " + "\n ".join(f"<{i}@x>" for i in range(5000)) + f"\n <{'y' * 2000}@x>")).refs
    assert len(refs) == 50
    assert refs[0] == "<4999@x>"


def test_a_message_id_without_brackets_gets_them() -> None:
    assert read(b"Message-ID: abc@x\n\n").message_id == "<abc@x>"
    assert read(b"Message-ID:\n <abc@x>\n\n").message_id == "<abc@x>"
    assert read(b"Message-ID: what ever\n\n").message_id == ""


def test_a_subject_is_one_bounded_line() -> None:
    assert read(b"Subject: =?utf-8?B?w4kg?=\n =?utf-8?Q?t=C3=A9=0Ax?=\n\n").subject == "É té x"
    assert len(read(b"Subject: " + b"x" * 10_000 + b"\n\n").subject) == 500


@pytest.mark.parametrize("date", ["", "yesterday", "3 Jan 99999 10:00", "1 Jan 1900 00:00", "9" * 5000, "\x00"])
def test_a_date_that_is_none_is_none(date: str) -> None:
    assert read(f"Date: {date}\n\nx".encode()).date is None


@pytest.mark.parametrize(
    ("field", "automatic"),
    [
        ("Auto-Submitted: auto-replied", True),
        ("Auto-Submitted: auto-generated; x=y", True),
        ("Auto-Submitted: no", False),
        ("Precedence: Bulk", True),
        ("Precedence: list", True),
        ("Precedence: first-class", False),
        ("List-Id: <list.example.org>", True),
        ("X-Autoreply: yes", True),
        ("X-Auto-Response-Suppress: All", True),
        ("X-Mailer: x", False),
    ],
)
def test_automatic_mail_is_known(field: str, automatic: bool) -> None:
    assert read(mail(field)).automatic is automatic


def test_our_own_token_is_found() -> None:
    assert read(mail("X-Passerelle-Id: abc.def")).token == "abc.def"
    assert read(mail("X-Passerelle-Id: abc def")).token == ""


# Charsets and encodings


@pytest.mark.parametrize(
    ("fields", "body", "text"),
    [
        ("Content-Type: text/plain; charset=iso-8859-1", b"caf\xe9 \x80", "café €"),
        ("Content-Type: text/plain; charset=x-unknown", "café".encode(), "café"),
        ("Content-Type: text/plain; charset=punycode", b"caf-dma", "caf-dma"),
        ('Content-Type: text/plain; charset="a\x00b"', b"abc", "abc"),
        ("Content-Type: text/plain; charset=utf-8", b"ok \xff", "ok \ufffd"),
        ("Content-Type: text/plain", b"caf\xe9", "café"),
        ("Content-Type: text/plain; charset=gb2312", "你好".encode("gbk"), "你好"),
        ("Content-Transfer-Encoding: base64", b"SGVsbG8", "Hello"),
        ("Content-Transfer-Encoding: BASE64 ", b"SGVs\r\n***bG8=\r\n____\r\nlist footer", "Hello"),
        ("Content-Transfer-Encoding: base64", b"S", ""),
        ("Content-Transfer-Encoding: quoted-printable", b"a=3Db =\r\nc=ZZ", "a=b c=ZZ"),
        ("Content-Transfer-Encoding: base64\nContent-Type: text/plain; charset=punycode", b"SGV\xe9sbG8=", "Hello"),
        ("Content-Transfer-Encoding: nonsense", b"plain", "plain"),
        ("Content-Type: multipart/mixed", b"no boundary", "no boundary"),
        ("Content-Type: nonsense", b"plain", "plain"),
        ("", b"lone \xed\xa0\x80 surrogate \x00", None),
    ],
)
def test_a_body_is_decoded_as_well_as_can_be(fields: str, body: bytes, text: str | None) -> None:
    seen = read(mail(fields, body))
    assert seen.problem == ""
    seen.text.encode()
    assert text is None or seen.text == text


# Files


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('filename="plain.pdf"', "plain.pdf"),
        ("filename*=utf-8''r%C3%A9sum%C3%A9.pdf", "résumé.pdf"),
        ('filename*0="long "; filename*1="name.pdf"', "long name.pdf"),
        ("filename*0*=utf-8''na%C3%AFve%20; filename*1=x.pdf", "naïve x.pdf"),
        ('filename="=?utf-8?Q?r=C3=A9sum=C3=A9.pdf?="', "résumé.pdf"),
        ('filename="résumé.pdf"', "résumé.pdf"),
        ('filename="../../etc/passwd"', "passwd"),
        ('filename="C:\\\\temp\\\\x.pdf"', "x.pdf"),
        ("filename*=utf-8''a%00%0Ab%E2%80%AEc.pdf", "abc.pdf"),
        ("filename*=nonsense'%00'x.pdf", "x.pdf"),
        ('filename=".."', "application-1.pdf"),
        ("", "application-1.pdf"),
        (f'filename="{"x" * 500}.pdf"', "x" * 100 + ".pdf"),
    ],
)
def test_the_name_of_a_file_is_harmless(disposition: str, name: str) -> None:
    part = f"Content-Type: application/pdf\r\nContent-Disposition: attachment; {disposition}\r\n\r\nx"
    (found,) = read(built("mixed", PLAIN, part)).parts
    assert found.name == name


def test_a_calendar_part_is_kept_as_a_file() -> None:
    calendar = "Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n"
    seen = read(built("alternative", PLAIN, RICH, calendar))
    assert seen.text == "Hello plain"
    assert [(part.name, part.type) for part in seen.parts] == [("text-1.ics", "text/calendar")]


def test_an_enclosed_mail_is_a_file_of_its_own() -> None:
    inner = "Subject: Inner/one\r\nFrom: b@example.org\r\n" + multipart("alternative", PLAIN, RICH)
    seen = read(built("mixed", PLAIN, f"Content-Type: message/rfc822\r\n\r\n{inner}"))
    assert seen.text == "Hello plain"
    (found,) = seen.parts
    assert (found.name, found.type) == ("Inner-one.eml", "message/rfc822")
    again = read(found.data)
    assert (again.subject, again.text, again.html) == (
        "Inner/one",
        "Hello plain",
        "<p>Hello <strong>rich</strong></p>",
    )


def test_winmail_dat_is_kept_and_explained() -> None:
    part = 'Content-Type: application/ms-tnef; name="winmail.dat"\r\n\r\nx'
    seen = read(built("mixed", PLAIN, part))
    assert seen.parts[0].name == "winmail.dat"
    assert "winmail.dat" in seen.problem


def test_the_signature_of_a_signed_mail_is_no_attachment() -> None:
    signature = "Content-Type: application/pgp-signature; name=signature.asc\r\n\r\n-----BEGIN PGP SIGNATURE-----"
    seen = read(built("signed", multipart("mixed", PLAIN, PDF), signature))
    assert (seen.text, [part.name for part in seen.parts]) == ("Hello plain", ["offer.pdf"])


def test_an_encrypted_mail_says_so() -> None:
    parts = (
        "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1",
        "Content-Type: application/octet-stream\r\n\r\nx",
    )
    assert "encrypted" in read(built("encrypted", *parts)).problem


def test_a_text_file_is_a_file_and_a_named_body_is_the_body() -> None:
    part = 'Content-Type: text/plain; name="notes.txt"\r\n\r\nnotes'
    seen = read(built("mixed", PLAIN, part))
    assert (seen.text, seen.parts[0].name, seen.parts[0].data.strip()) == ("Hello plain", "notes.txt", b"notes")
    assert read(mail('Content-Type: text/plain; name="body.txt"', "words")).text == "words"
    assert read(mail("Content-Type: text/plain\nContent-Disposition: attachment", "words")).parts[0].data == b"words"


# Reports


STATUS = (
    "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
    "Final-Recipient: rfc822; ok@example.net\r\nAction: delivered\r\nStatus: 2.0.0\r\n\r\n"
    "Final-Recipient: rfc822; Gone@Example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    "Diagnostic-Code: smtp; 550 5.1.1\r\n no such user\r\n"
)


@pytest.mark.parametrize(
    "returned",
    [
        "Content-Type: message/rfc822\r\n\r\nMessage-ID: <ours@example.com>\r\nSubject: x\r\n\r\nbody",
        "Content-Type: text/rfc822-headers\r\n\r\nMessage-ID: <ours@example.com>\r\nSubject: x\r\n",
        "Content-Type: text/plain\r\n\r\nYour message:\r\n  Message-Id: <ours@example.com>\r\n",
    ],
)
def test_a_delivery_status_tells_what_it_is_about(returned: str) -> None:
    human = "Content-Type: text/plain\r\n\r\nSorry\r\n"
    report = read(built("report", human, STATUS, returned, parameters="; report-type=delivery-status")).report
    assert report is not None
    assert (report.about, report.recipient, report.failed) == ("<ours@example.com>", "gone@example.net", True)
    assert report.reason == "550 5.1.1 no such user"


def test_a_delayed_mail_has_not_failed() -> None:
    status = STATUS.replace("failed", "delayed").replace("delivered", "delayed")
    report = read(built("report", PLAIN, status)).report
    assert report is not None
    assert not report.failed


def test_a_bounce_without_a_status_part_is_known_by_its_field() -> None:
    report = read(
        mail("X-Failed-Recipients: gone@example.net", "No such user\r\nMessage-ID: <ours@example.com>")
    ).report
    assert report is not None
    assert (report.about, report.recipient, report.reason) == ("<ours@example.com>", "gone@example.net", "No such user")


def test_ordinary_mail_is_no_report() -> None:
    assert read(mail(body="Message-ID: <ours@example.com> failed")).report is None


# Hostile mail


def deep(levels: int) -> bytes:
    head = "".join(f"Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n" for i in range(levels))
    return HEADER.encode() + head.encode() + b"\r\nHello"


HOSTILE: dict[str, bytes] = {
    "brackets in an address": mail(header="From: " + "(" * 1000 + "\r\nMessage-ID: <1@example.org>\r\n", body="Hello"),
    "groups in an address": mail("Cc: " + "a:" * 8000 + "\nBcc: " + "<" * 9000, "Hello"),
    "quotes in an address": mail("Cc: " + '"' * 15_999 + "\nReply-To: " + "\\" * 15_999, "Hello"),
    "commas in an address": mail("Cc: " + "a@example.org," * 50_000, "Hello"),
    "parameters": mail("Content-Type: text/plain" + "".join(f"; a{i}=b" for i in range(20_000)), "Hello"),
    "folded parameters": mail("Content-Type: text/plain" + "".join(f";\n a{i}=b" for i in range(20_000)), "Hello"),
    "parameters in a part": built(
        "mixed", PLAIN, "Content-Type: text/plain" + "".join(f'; a="{i}' for i in range(20_000)) + "\r\n\r\nHello"
    ),
    "disposition": mail("Content-Disposition: inline" + "; filename*0*=x" * 20_000, "Hello"),
    "a header of 1 MB": mail("X-Long: " + "x" * 1_000_000 + "\nX-Folded: " + "\n x" * 300_000, "Hello"),
    "a subject of 1 MB": mail(header="Subject: " + "=?utf-8?q?" * 100_000 + "\r\n" + HEADER, body="Hello"),
    "10,000 headers": mail("".join(f"X-{i}: y\n" for i in range(10_000)), "Hello"),
    "50,000 divs": mail("Content-Type: text/html", "<div>" * 50_000 + "Hello"),
    "50,000 words": mail("Subject: " + "=?utf-8?q?a?= " * 50_000, "Hello"),
    "many empty parts": HEADER.encode() + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 5000,
    "a long line": mail(body="Hello" + "x" * 2_000_000),
    "surrogates": mail("Content-Type: text/html", b"Hello&#xD800;" + b"\xed\xa0\x80"),
    "nul bytes": HEADER.encode() + b"X: \x00\r\nContent-Type: text/plain; charset=\x00\r\n\r\nHello\x00",
    "bare returns": HEADER.replace("\r\n", "\r").encode()
    + b"Content-Type: text/plain"
    + b";\r a=b" * 20_000
    + b"\r\rHello",
    "a boundary of nothing": HEADER.encode()
    + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nHello\r\n----',
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_mail_is_read_in_bounded_time(raw: bytes) -> None:
    start = time.process_time()
    seen = read(raw)
    assert time.process_time() - start < HANG
    assert seen.message_id in ("<1@example.org>", "")
    if b"Hello" in raw:
        assert "Hello" in seen.text
    check(seen)


def test_a_mail_nested_too_deeply_says_so_and_keeps_its_header() -> None:
    seen = read(deep(1000))
    assert "nested too deeply" in seen.problem
    assert (seen.message_id, seen.subject, seen.sender.account) == (
        "<1@example.org>",
        "A question",
        "alice@example.org",
    )


def test_a_mail_of_a_few_levels_is_read() -> None:
    assert read(deep(30)).text == "Hello"


def test_html_that_is_too_large_is_shown_as_text() -> None:
    seen = read(mail("Content-Type: text/html", "<p>Hello</p>" + "<p>x</p>" * 60_000))
    assert (seen.text[:5], seen.html) == ("Hello", "")
    assert "HTML" in seen.problem


def test_attachments_without_number_are_bounded() -> None:
    seen = read(built("mixed", PLAIN, *[PDF] * 300))
    assert len(seen.parts) == 100
    assert "100" in seen.problem


def test_a_boundary_in_a_charset_that_python_refuses_gives_the_header() -> None:
    seen = read(mail("Content-Type: multipart/mixed; boundary*=a%00b''x; boundary*0*=a%00b''x", "Hello"))
    assert seen.message_id == "<1@example.org>"


def test_control_characters_never_make_an_address() -> None:
    seen = read(b"From: alice@exa\x00mple.org\r\nTo: Bob\x07 <bob@example.org>\r\n\r\n")
    assert seen.sender == Address("")
    assert seen.to == (Address("bob@example.org"),)


def test_any_fault_of_a_parser_gives_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise KeyError

    monkeypatch.setattr(module, "_read", fail)
    seen = read(mail(body="Hello"))
    assert (seen.subject, seen.text) == ("A question", "")
    assert "KeyError" in seen.problem


def check(seen: Mail) -> None:
    """What holds for every mail."""
    texts = [seen.message_id, seen.subject, seen.text, seen.html, seen.token, seen.problem, *seen.refs]
    people = (seen.sender, *seen.reply_to, *seen.to, *seen.cc)
    texts += [text for person in people for text in (person.account, person.name)]
    texts += [text for part in seen.parts for text in (part.name, part.type)]
    for text in texts:
        text.encode()
        assert "\x00" not in text
    for line in (seen.subject, seen.message_id, *seen.refs, *(str(person) for person in people)):
        assert "\n" not in line
        assert "\r" not in line
    assert all(len(ref) <= 998 for ref in seen.refs)
    assert len(seen.refs) <= 50
    assert all("/" not in part.name and part.name for part in seen.parts)


PIECES = [
    *(
        b"From: ",
        b"To: a@b",
        b"Subject: =?utf-8?q?",
        b"?=",
        b"Message-ID: <a@b>",
        b"Date: 1 Jan 2022 00:00",
        b"\r\n",
        b"\n",
    ),
    *(
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Type: text/html",
        b"--b",
        b"--b--",
        b"\r\n\r\n",
        b"\xff",
        b"\r",
    ),
    *(
        b"Content-Type: message/rfc822",
        b"Content-Type: message/delivery-status",
        b"Final-Recipient: x",
        b"Action: failed",
    ),
    *(
        b"Content-Transfer-Encoding: base64",
        b"Content-Disposition: attachment; filename*0*=''%",
        b"charset=",
        b";",
        b"(",
        b'"',
    ),
    *(
        b"Content-Type: multipart/alternative; boundary=b",
        b"Content-Type: text/plain; format=flowed",
        b"<p>",
        b"> x",
        b"=?",
        b" ",
    ),
    *(
        b"Content-Type: multipart/report; boundary=b",
        b"Content-Type: text/rfc822-headers",
        b"X-Failed-Recipients: a@b",
        b"\x00",
    ),
]


@settings(max_examples=400)
@given(
    st.one_of(
        st.binary(), st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=40).map(b"".join)
    )
)
@example(b"Content-Type: message/delivery-status\n\n")
@example(b"Content-Type: message/external-body\n\n")
@example(b"Content-Type: message/rfc822\n\nContent-Type: text/plain; charset=punycode\n\n\x80")
def test_reading_never_raises(raw: bytes) -> None:
    seen = read(raw)
    check(seen)
    check(unreadable(raw, "why"))
    risky(raw)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=60))
def test_what_the_standard_library_writes_is_read(word: str) -> None:
    written = EmailMessage()
    written["From"] = Mailbox(word, "alice", "example.org")
    written["Subject"] = word
    written.set_content("Grüße\n")
    written.add_attachment(b"data", "application", "pdf", filename="offre été.pdf")
    seen = read(written.as_bytes())
    assert (seen.subject, seen.sender.name, seen.sender.account) == (word, word, "alice@example.org")
    assert (seen.text, seen.parts[0].name, seen.parts[0].data) == ("Grüße", "offre été.pdf", b"data")


# The reader


async def test_the_reader_reads_harmless_mail_at_once() -> None:
    async with Reader() as reader:
        assert (await reader.read(mail(body="Hello"))).text == "Hello"
        assert reader._pool is None


async def test_the_reader_reads_risky_mail_apart() -> None:
    async with Reader(limit=60) as reader:
        raw = mail(body="Hello\r\n" * 20_000)
        assert risky(raw)
        first, second = await asyncio.gather(reader.read(raw), reader.read(deep(1000)))
        assert first == read(raw)
        assert "nested too deeply" in second.problem


def hang(raw: bytes) -> Mail:
    time.sleep(60)
    return read(raw)


def crash(raw: bytes) -> Mail:
    os._exit(3)


async def test_a_mail_that_takes_too_long_is_given_up_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = mail(body="Hello\r\n" * 20_000)
    async with Reader(limit=0.5, workers=1) as reader:
        with monkeypatch.context() as patched:
            patched.setattr(module, "read", hang)
            seen = await reader.read(raw)
        assert (seen.subject, seen.text) == ("A question", "")
        assert "0.5 seconds" in seen.problem
        reader._limit = 60
        assert (await reader.read(raw)).text.startswith("Hello")


async def test_a_mail_that_kills_its_process_is_given_up_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = mail(body="Hello\r\n" * 20_000)
    async with Reader(limit=60, workers=1) as reader:
        with monkeypatch.context() as patched:
            patched.setattr(module, "read", crash)
            seen = await reader.read(raw)
        assert seen.subject == "A question"
        assert "made the parser fail" in seen.problem
        assert (await reader.read(raw)).text.startswith("Hello")


async def test_a_broken_pool_of_processes_is_replaced() -> None:
    raw = mail(body="Hello\r\n" * 20_000)
    async with Reader(limit=60, workers=1) as reader:
        await reader.read(raw)
        assert reader._pool is not None
        broken = reader._pool
        broken._pool_manager.handle_broken_pool(BrokenProcessPool())
        assert (await reader.read(raw)).text.startswith("Hello")
        assert reader._pool is not broken
        broken.stop()


@pytest.mark.parametrize("raw", [deep(60), HOSTILE["50,000 divs"], HOSTILE["10,000 headers"], HOSTILE["parameters"]])
def test_hostile_mail_is_risky(raw: bytes) -> None:
    assert risky(raw)


def test_an_ordinary_mail_is_not_risky() -> None:
    assert not risky(built("mixed", multipart("alternative", PLAIN, RICH), PDF))
    assert not risky(mail(body="words " * 1000))
