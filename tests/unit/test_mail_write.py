"""Outward mail as bytes, the ids in it, who an answer goes to, and the configuration of a mail system."""

from __future__ import annotations

import email
import email.policy
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.connector import Spool
from bridge.model import Address, Answered, Draft, Envelope, File, Recipients, Rejected
from plugins.mail import Mail, identity
from plugins.mail.config import Config, Mailbox, Smarthost, size, spoken
from plugins.mail.write import Memo, eml_name, write

UID = "abcdefghij234567abcd"
ASKED = 1_790_000_000.0
SUPPORT = Mailbox(address="support@company.example", name="Company Support")
CUSTOMER = Address("claire@customer.example", "Claire Dupont")


def sign(text: str) -> str:
    digest = hashlib.sha256(b"key" + text.encode()).digest()
    return "".join("abcdefghijklmnopqrstuvwxyz234567"[byte % 32] for byte in digest[:16])


def draft(**changes: Any) -> Draft:
    made = Draft(
        connector="mail",
        scope="support@company.example",
        item=1,
        title="Printer on fire",
        author="@alice:company.example",
        author_name="Alice Martin",
        recipients=Recipients((CUSTOMER,)),
        text="Hello,\n\nwe are on our way.",
        asked=ASKED,
    )
    return replace(made, **changes)


def answered(**changes: Any) -> Answered:
    memo = Memo(
        CUSTOMER, to=(Address("support@company.example"),), date=ASKED - 3600, text="It burns.\n\n> since when?"
    )
    made = Answered("<q2@customer.example>", (), "Printer on fire", memo.dump(), "Claire", "support@company.example")
    return replace(made, **changes)


def written(made: Draft, mailbox: Mailbox = SUPPORT, files: Any = ()) -> bytes:
    return write(made, UID, mailbox, files, sign, ASKED)


def parsed(made: Draft, mailbox: Mailbox = SUPPORT, files: Any = ()) -> EmailMessage:
    message = email.message_from_bytes(written(made, mailbox, files), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def content(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


# --- header ---


def test_a_mail_is_from_the_employee_at_the_mailbox_and_answers_come_to_a_signed_address() -> None:
    message = parsed(draft())
    assert message["From"] == "Alice Martin <support@company.example>"
    assert message["Reply-To"] == f"Company Support <support+r{identity.signed(UID, sign)}@company.example>"
    assert message["To"] == "Claire Dupont <claire@customer.example>"
    assert message["Subject"] == "Printer on fire"
    assert message["Message-ID"] == f"<{identity.signed(UID, sign)}@company.example>"
    assert message["X-Passerelle-Id"] == identity.signed(UID, sign)
    assert message["Date"].datetime.timestamp() == ASKED
    assert message["Auto-Submitted"] is None
    assert message["Precedence"] is None


def test_a_plain_mailbox_has_no_reply_to() -> None:
    assert parsed(draft(), replace_mailbox(reply_address="plain"))["Reply-To"] is None


def replace_mailbox(**changes: Any) -> Mailbox:
    return SUPPORT.model_copy(update=changes)


def test_the_same_delivery_gives_the_same_bytes_at_every_attempt() -> None:
    files = [(File("a.pdf", "application/pdf", 3), b"%PD")]
    made = draft(answered=answered(), transcript="Alice: hm", html="<b>Hello</b>")
    assert written(made, files=files) == written(made, files=files)


def test_a_mail_is_ascii_in_lines_that_end_with_crlf_and_are_short_enough() -> None:
    made = draft(
        title="Imprimante en feu 🔥 " * 40,
        author_name="Zoë Müller-Łukasiewicz",
        text="é" * 5000 + "\n" + "x" * 3000 + "\n.\n..\nFrom here\ntrailing  \n",
        html="<p>" + "long " * 1000 + "</p>",
        answered=answered(),
    )
    raw = written(made, files=[(File("é" * 300 + ".pdf", "application/pdf", 1), b"\x00" * 5000)])
    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    "name",
    [
        "Alice\r\nBcc: x@evil.example",
        "Alice\nBcc: x@evil.example",
        "A\x00\u2028Bcc: x@evil.example",
        "é\r\nBcc: x@e.example",
    ],
)
def test_nothing_in_a_name_or_a_title_becomes_a_header_field(name: str) -> None:
    made = draft(
        author_name=name,
        title=name,
        recipients=Recipients((Address("a@b.example", name),), (Address("c@d.example", name),)),
    )
    message = parsed(made, replace_mailbox(name=name))
    assert message["Bcc"] is None
    assert [key for key in message if key.lower() == "bcc"] == []
    assert message["To"].addresses[0].addr_spec == "a@b.example"


@pytest.mark.parametrize(
    "name",
    [
        'Alice "Al" Martin',
        "Martin, Alice",
        "Alice\\",
        "=?utf-8?q?Boss?=",
        "Émile Zoë",
        "O'Neil <ceo@x.example>",
        "李雷",
    ],
)
def test_a_name_arrives_as_it_was_given(name: str) -> None:
    message = parsed(draft(author_name=name, recipients=Recipients((Address("a@b.example", name),))))
    for header in ("From", "To"):
        assert message[header].addresses[0].display_name == name
    assert message["From"].addresses[0].addr_spec == "support@company.example"


def test_an_answer_begins_with_re_once() -> None:
    for title in ("Printer", "Re: Printer", "RE: re: Printer", "AW: Re : Printer", "Re[2]: Printer"):
        assert parsed(draft(title=title, answered=answered()))["Subject"] == "Re: Printer"
    assert parsed(draft(title="", answered=answered()))["Subject"] == "Re: Printer on fire"
    assert parsed(draft(title="Reply: Printer"))["Subject"] == "Reply: Printer"


def test_references_are_the_thread_from_its_beginning_one_id_a_line() -> None:
    made = draft(answered=answered(refs=("<q1@customer.example>", "<q0@customer.example>")))
    raw = written(made)
    expected = b"References: <q0@customer.example>\r\n <q1@customer.example>\r\n <q2@customer.example>\r\n"
    assert expected in raw
    assert b"In-Reply-To: <q2@customer.example>\r\n" in raw


def test_long_references_are_never_folded_into_encoded_words() -> None:
    long = "<" + "x" * 300 + "@customer.example>"
    raw = written(draft(answered=answered(id=long, refs=("<" + "y" * 200 + "@a.example>",))))
    assert f"In-Reply-To: {long}\r\n".encode() in raw
    assert f"\r\n {long}\r\n".encode() in raw
    assert b"=?" not in raw.partition(b"\r\n\r\n")[0]


def test_a_long_thread_keeps_its_first_and_its_last_ids() -> None:
    refs = tuple(f"<{n}@a.example>" for n in range(100, 0, -1))
    ids = parsed(draft(answered=answered(refs=refs)))["References"].split()
    assert len(ids) == 20
    assert ids[0] == "<1@a.example>"
    assert ids[-2:] == ["<100@a.example>", "<q2@customer.example>"]


def test_ids_that_cannot_be_written_or_were_made_up_are_left_out() -> None:
    refs = ("<a b@c.example>", "<x@y.example>\r\nBcc: <z@evil.example>", "<é@a.example>", "<ok@a.example>", "")
    message = parsed(draft(answered=answered(id="<123@passerelle.invalid>", refs=refs)))
    assert message["References"] == "<ok@a.example>"
    assert message["In-Reply-To"] is None
    assert message["Bcc"] is None


def test_a_domain_with_accents_is_written_as_dns_knows_it() -> None:
    message = parsed(draft(recipients=Recipients((Address("zoe@müller.example", "Zoë"),))))
    assert message["To"].addresses[0].addr_spec == "zoe@xn--mller-kva.example"


@pytest.mark.parametrize(
    "account", ["zoë@a.example", "a b@c.example", "a@b.example>, <c@d.example", "nobody", "a@b@c", "", "@"]
)
def test_an_address_that_mail_cannot_go_to_is_refused(account: str) -> None:
    with pytest.raises(Rejected):
        written(draft(recipients=Recipients((Address(account),))))


# --- body ---


def test_the_body_is_plain_text_and_html_with_the_same_words() -> None:
    message = parsed(draft(text="Hello Zoë", html="<p>Hello <strong>Zoë</strong></p>"))
    assert message.get_content_type() == "multipart/alternative"
    assert content(message, "plain") == "Hello Zoë\n"
    assert "<strong>Zoë</strong>" in content(message, "html")


def test_text_is_escaped_in_html() -> None:
    assert "1 &lt; 2 &amp; 3" in content(parsed(draft(text="1 < 2 & 3")), "html")


def test_nothing_internal_leaves_with_the_words() -> None:
    made = draft(
        text="Ask [Bob](https://matrix.to/#/@bob:company.example)",
        html='Ask <a href="https://matrix.to/#/@bob:company.example">Bob</a><script>x</script>',
        transcript="see https://matrix.to/#/!room:company.example/$event",
    )
    assert b"matrix.to" not in written(made)
    assert b"script" not in written(made)


def test_signature_transcript_and_quote_stand_beneath_the_words_in_this_order() -> None:
    mailbox = replace_mailbox(signature="Company\nwww.company.example")
    message = parsed(draft(transcript="Alice: I looked.\nBob: me too.", answered=answered()), mailbox)
    assert content(message, "plain") == (
        "Hello,\n\nwe are on our way.\n\n-- \nCompany\nwww.company.example\n\n"
        "From our conversation so far:\n\nAlice: I looked.\nBob: me too.\n\n"
        "On 2026-09-21 13:13 UTC, Claire Dupont wrote:\n> It burns.\n>\n>> since when?\n"
    )
    html = content(message, "html")
    parts = [
        "we are on our way",
        "-- <br>Company",
        "From our conversation",
        "wrote:",
        '<blockquote type="cite">It burns.',
    ]
    assert [html.index(part) for part in parts] == sorted(html.index(part) for part in parts)


def test_a_mailbox_can_have_its_own_words_above_a_quote() -> None:
    mailbox = replace_mailbox(quote_line="Le {date}, {name} a écrit :")
    assert "Le 2026-09-21 13:13 UTC, Claire Dupont a écrit :" in content(
        parsed(draft(answered=answered()), mailbox), "plain"
    )


@pytest.mark.parametrize("date", [None, 1e30, -1e30, 0])
def test_a_memo_with_an_odd_date_is_quoted_all_the_same(date: float | None) -> None:
    memo = Memo(CUSTOMER, date=date, text="It burns.").dump()
    assert "> It burns." in content(parsed(draft(answered=answered(memo=memo))), "plain")


@pytest.mark.parametrize("memo", ["", "{}", "[]", "null", "not json", '{"from": 3}', '{"from": ["a", "b", "c"]}'])
def test_an_answer_to_what_left_no_memo_has_no_quote(memo: str) -> None:
    assert "wrote:" not in content(parsed(draft(answered=answered(memo=memo))), "plain")


def test_a_memo_keeps_two_thousand_characters_and_comes_back() -> None:
    memo = Memo(
        CUSTOMER, (Address("r@a.example"),), (Address("t@a.example", "T"),), (Address("c@a.example"),), 12.0, "short"
    )
    assert Memo.load(memo.dump()) == memo
    long = Memo.load(replace(memo, text="x" * 5000).dump())
    assert long is not None
    assert long.text == "x" * 2000 + " […]"


def test_attachments_arrive_whole_with_their_names() -> None:
    files = [
        (File("report.pdf", "application/pdf", 3), b"%PD" * 1000),
        (File('ré"su\r\nmé.txt', "text/plain; charset=utf-8", 2), b"\xff\x00\r\n.\r\n"),
        (File("mail.eml", "message/rfc822", 2), b"Subject: x\r\n\r\nhello"),
        (File("", "nonsense", 0), b""),
    ]
    message = parsed(draft(answered=answered()), files=files)
    assert message.get_content_type() == "multipart/mixed"
    attached = list(message.iter_attachments())
    assert [part.get_filename() for part in attached] == ["report.pdf", 'ré"su mé.txt', "mail.eml", "file"]
    assert [part.get_payload(decode=True) for part in attached] == [data for _, data in files]
    kinds = ["application/pdf", "text/plain", "application/octet-stream", "application/octet-stream"]
    assert [part.get_content_type() for part in attached] == kinds
    assert "we are on our way" in content(message, "plain")


def test_the_file_name_of_a_mail_comes_from_its_subject() -> None:
    assert eml_name("Re: a/b\\c\r\n?") == "Re a b c.eml"
    assert eml_name("...") == "message.eml"


# --- identity ---


def test_our_ids_are_recognised_in_any_case_and_forged_ones_are_not() -> None:
    ours = identity.message_id(UID, "support@company.example", sign)
    assert identity.uid_of(ours, sign) == identity.uid_of(ours.upper(), sign) == UID
    assert identity.verified(identity.signed(UID, sign).upper(), sign) == UID
    forged = ours.replace("abcdefghij", "abcdefghik")
    assert identity.uid_of(forged, sign) == ""
    for odd in ("", "<>", "<@>", "x", "<a.b@c>", "é.é@é", "." * 1000):
        assert identity.uid_of(odd, sign) == ""


def test_answer_and_bounce_addresses_name_the_delivery() -> None:
    answer = identity.plus_address("r", UID, "support@company.example", sign)
    bounce = identity.plus_address("b", UID, "support@company.example", sign)
    assert len(answer.partition("@")[0]) <= 64
    tokens = identity.tokens([answer.upper(), bounce, answer, "support+r@company.example", "x"], sign)
    assert tokens == [identity.Token("r", UID), identity.Token("b", UID)]
    assert identity.mailbox_of(answer.upper(), {"support@company.example"}) == "support@company.example"


def test_an_address_too_long_to_be_signed_stays_as_it_is() -> None:
    longest = "x" * identity.LONGEST + "@company.example"
    assert "+r" in identity.plus_address("r", UID, longest, sign)
    assert identity.plus_address("r", UID, "x" + longest, sign) == "x" + longest


def test_a_plus_address_belongs_to_its_mailbox() -> None:
    boxes = {"support@company.example", "sales+fr@company.example"}
    assert identity.mailbox_of("Support+Anything+More@Company.Example", boxes) == "support@company.example"
    assert identity.mailbox_of("sales+fr+x@company.example", boxes) == "sales+fr@company.example"
    for other in ("sales@company.example", "support@other.example", "support", "", "+@company.example", "+" * 10_000):
        assert identity.mailbox_of(other, boxes) == ""


RESULTS = "mx.company.example; spf=pass smtp.mailfrom=a.example; dmarc=pass (p=none) header.from=customer.example"


@pytest.mark.parametrize(
    ("fields", "vouched"),
    [
        ([RESULTS], True),
        ([RESULTS.upper().replace("MX.COMPANY", "mx.Company")], True),
        (["other.example; dmarc=fail header.from=customer.example", RESULTS], True),
        (["mx.company.example 1; dmarc = pass header.from = customer.example"], True),
        ([], False),
        ([RESULTS.replace("mx.company.example", "mx.evil.example")], False),
        ([RESULTS.replace("header.from=customer.example", "header.from=evil.example")], False),
        ([RESULTS.replace(" header.from=customer.example", "")], False),
        ([RESULTS.replace("dmarc=pass", "dmarc=fail")], False),
        (["mx.company.example; none", RESULTS], False),
        (["mx.company.example; dmarc=fail header.from=customer.example", RESULTS], False),
        (
            ['mx.company.example; spf=fail smtp.mailfrom="; dmarc=pass header.from=customer.example; "@evil.example'],
            False,
        ),
        (["mx.company.example; spf=fail (; dmarc=pass header.from=customer.example; )"], False),
        (['mx.company.example; a=b (x ") c="; dmarc=pass header.from=customer.example;"'], False),
        ([RESULTS + "; dmarc=fail header.from=customer.example"], False),
        (["mx.company.example; spf=pass (((((" + "(" * 5000 + "; dmarc=pass header.from=customer.example"], False),
        ([""], False),
    ],
)
def test_a_sender_is_verified_only_by_what_our_mail_server_wrote_last(fields: list[str], vouched: bool) -> None:
    assert identity.vouched("claire@customer.example", fields, "mx.company.example") is vouched


def test_no_sender_is_verified_when_no_mail_server_is_named() -> None:
    assert not identity.vouched("claire@customer.example", [RESULTS.replace("mx.company.example", "")], "")


# --- who an answer goes to, and what an employee types ---


class Idle:
    """A port that is never used."""

    spool: Spool

    async def accept(self, envelope: Envelope) -> None:
        raise NotImplementedError

    def scopes(self) -> frozenset[str]:
        return frozenset()

    def sign(self, text: str) -> str:
        return sign(text)


class NoSpool:
    async def keep(self, name: str, type: str, data: bytes) -> File:
        raise NotImplementedError

    async def read(self, file: File) -> bytes:
        raise NotImplementedError

    def stream(self, file: File) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def path(self, file: File) -> Path:
        raise NotImplementedError


def config(**changes: Any) -> Config:
    boxes = [{"address": "Support@company.example"}, {"address": "sales@company.example"}]
    return Config.model_validate({"mailboxes": boxes, "smarthost": {"host": "mail.company.example"}} | changes)


@pytest.fixture
def mail() -> Mail:
    return Mail("mail", config(), Idle())


def audience(mail: Mail, memo: Memo) -> tuple[list[str], list[str]]:
    found = mail.audience("support@company.example", "", answered(memo=memo.dump()))
    return [str(one) for one in found.to], [str(one) for one in found.cc]


def test_an_answer_goes_to_the_sender_with_copies_to_the_others_but_never_to_us(mail: Mail) -> None:
    memo = Memo(
        CUSTOMER,
        to=(
            Address("SUPPORT+x@company.example"),
            Address("bob@customer.example", "Bob"),
            Address("claire@customer.example"),
        ),
        cc=(Address("sales@company.example"), Address("BOB@customer.example"), Address("eve@customer.example")),
    )
    to, cc = audience(mail, memo)
    assert to == ["Claire Dupont <claire@customer.example>"]
    assert cc == ["Bob <bob@customer.example>", "eve@customer.example"]


def test_reply_to_comes_before_from_unless_it_is_ours(mail: Mail) -> None:
    assert audience(mail, Memo(CUSTOMER, (Address("team@customer.example"),)))[0] == ["team@customer.example"]
    assert audience(mail, Memo(CUSTOMER, (Address("support@company.example"),)))[0] == [str(CUSTOMER)]


def test_an_answer_to_our_own_mail_goes_to_those_it_was_sent_to(mail: Mail) -> None:
    memo = Memo(Address("support@company.example"), to=(CUSTOMER,))
    assert audience(mail, memo) == ([str(CUSTOMER)], [])


def test_when_nobody_is_left_the_recipients_must_be_named(mail: Mail) -> None:
    with pytest.raises(Rejected, match="name the recipients"):
        audience(mail, Memo(Address("support+x@company.example"), to=(Address("sales@company.example"),)))
    with pytest.raises(Rejected, match="name the recipients"):
        mail.audience("support@company.example", "", answered(memo=""))


def test_recipients_are_read_as_people_type_them(mail: Mail) -> None:
    words = 'a@b.example, Alice Martin <Alice@c.example>; "Smith, Bob" <bob@d.example> mailto:x@y.example'
    found = mail.recipients(f"{words} cc: Z <z@z.example> a@b.example".split(" "))
    expected = ["a@b.example", "Alice Martin <alice@c.example>", "Smith, Bob <bob@d.example>", "x@y.example"]
    assert [str(one) for one in found.to] == expected
    assert [str(one) for one in found.cc] == ["Z <z@z.example>"]


@pytest.mark.parametrize(
    "word", ["alice", "alice@", "<>", "a@b@c.example", "zoë@a.example", "Alice Martin", "<a b@c.example>"]
)
def test_a_word_that_is_no_recipient_is_named(mail: Mail, word: str) -> None:
    with pytest.raises(Rejected):
        mail.recipients(["ok@a.example", *word.split(" ")])


def test_somebody_must_receive_a_mail(mail: Mail) -> None:
    for words in ([], ["cc:a@b.example"]):
        with pytest.raises(Rejected, match="at least one"):
            mail.recipients(words)


# --- configuration ---


def test_mailboxes_are_the_scopes_in_lower_case(mail: Mail) -> None:
    assert mail.scopes() == ["support@company.example", "sales@company.example"]


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("25 MB", 25_000_000),
        ("25mb", 25_000_000),
        ("1.5 GB", 1_500_000_000),
        (5000, 5000),
        ("5000", 5000),
        ("10k", 10_000),
    ],
)
def test_sizes_are_written_as_people_write_them(given: Any, count: int) -> None:
    assert config(max_size=given).max_size == count


def test_sizes_are_spoken_as_people_speak_of_them() -> None:
    said = ["25 MB", "1.5 kB", "100 bytes", "3 GB", "26.2 MB"]
    assert [spoken(count) for count in (25_000_000, 1536, 100, 3_000_000_000, 26_214_400)] == said


def test_whoever_a_mail_may_go_to_has_a_domain_as_policy_compares_it(mail: Mail) -> None:
    memo = Memo(Address("Zoe@Müller.Example"), cc=(Address("bob@B.example"),)).dump()
    answer = mail.audience("support@company.example", "", answered(memo=memo))
    begun = mail.recipients(["Ann@A.Example", "cc:", '"Zoe"', "<zoe@Müller.Example>"])
    assert [one.domain for one in (*answer.all, *begun.all)] == [
        "xn--mller-kva.example", "b.example", "a.example", "xn--mller-kva.example",
    ]  # fmt: skip


@pytest.mark.parametrize("said", ["25 MB", "1.5 kB", "3 GB"])
def test_a_size_is_read_as_it_is_spoken(said: str) -> None:
    assert spoken(size(said)) == said


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_size": "large"}, "a size such as"),
        ({"mailboxes": []}, "at least 1"),
        ({"mailboxes": [{"address": "support"}]}, "must be a mail address"),
        ({"mailboxes": [{"address": "a@b.example"}, {"address": "A@b.example"}]}, "listed twice"),
        ({"mailboxes": [{"address": "a@b.example", "quote_line": "{when}"}]}, "may use {date} and {name}"),
        ({"listen": "localhost"}, "must be host:port"),
        ({"key": "key.pem"}, "needs certificate"),
        ({"listen": "0.0.0.0:25", "authserv_id": "mx.company.example"}, "trusted_relays"),
        ({"smarthost": {"host": "x", "username": "u"}}, "go together"),
        ({"smarthost": {"host": "x", "password": "p"}}, "go together"),
        ({"smarthost": {"host": "x", "username": "u", "password": "p", "password_env": "P"}}, "one of"),
        ({"smarthost": {"host": "x", "security": "none", "username": "u", "password": "p"}}, "unencrypted"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_a_mistake_in_the_configuration_is_explained(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        config(**changes)


def test_the_password_comes_from_where_the_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from file\n")
    monkeypatch.setenv("MAIL_PASSWORD", "from environment")
    login = {"host": "x", "username": "u"}
    assert Smarthost.model_validate(login | {"password": "given"}).secret() == "given"
    assert Smarthost.model_validate(login | {"password_file": tmp_path / "secret"}).secret() == "from file"
    assert Smarthost.model_validate(login | {"password_env": "MAIL_PASSWORD"}).secret() == "from environment"
    monkeypatch.delenv("MAIL_PASSWORD")
    with pytest.raises(ValueError, match="MAIL_PASSWORD is not set"):
        Smarthost.model_validate(login | {"password_env": "MAIL_PASSWORD"}).secret()


def test_every_key_of_the_configuration_is_described() -> None:
    for model in (Config, Mailbox, Smarthost):
        assert [name for name, key in model.model_fields.items() if not key.description] == []


def test_only_trusted_relays_are_trusted() -> None:
    trusting = config(trusted_relays=["10.0.0.0/8", "::1/128"])
    assert [trusting.trusts(peer) for peer in ("10.1.2.3", "::ffff:10.1.2.3", "::1")] == [True] * 3
    assert [trusting.trusts(peer) for peer in ("192.0.2.1", "", "fe80::1%eth0")] == [False] * 3
    assert config().trusts("192.0.2.1")
