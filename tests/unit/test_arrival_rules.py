"""The rules for what arrives: a mail is named and vouched for by its plugin, and the hub only compares."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import payload, store
from bridge.choice import facts_of
from bridge.config import Config
from bridge.config import Mapping as ConfigMapping
from bridge.hub import Hub
from bridge.items import Items
from bridge.matrix.ghosts import display_name
from bridge.model import Author, Envelope, File, Rejected, Report
from bridge.outward import Outward
from bridge.payload import Post
from bridge.places import Places
from bridge.store import Store, Tx
from bridge.texts import Texts
from plugins.mail import Mail, read
from plugins.mail.arrival import Arrival, envelope
from plugins.mail.config import Config as MailConfig

ROOM = "!room"
SUPPORT = "support@company.example"
MAIL = MailConfig.model_validate(
    {"mailboxes": [{"address": SUPPORT}], "smarthost": {"host": "mail.company.example"}, "authserv_id": "mx"}
)


class Desk:
    """The rules of arrivals on a store of their own."""

    def __init__(self, memory: Store) -> None:
        self.store = memory
        config = Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "inside": {"domains": ["company.example", "xn--mller-kva.example"]},
                "connectors": {"mail": {}},
                "mappings": [{"connector": "mail", "scope": SUPPORT, "room": ROOM}],
                "inline_text": 200,
            }
        )
        say = Texts("en")
        places = self.places = Places(config, say)
        places.resolve(ROOM, ROOM)
        items = Items(places, say)
        self.hub = Hub(config, places, Outward(config, places, items, say), items, say)

    async def take(self, arrived: Envelope) -> None:
        await self.store.transact(self.hub.accept, arrived)

    async def posts(self) -> list[Post]:
        rows = await self.store.transact(
            lambda tx: tx.db.execute("SELECT payload FROM queue WHERE kind = 'post' ORDER BY id").fetchall()
        )
        return [payload.load(Post, row[0]) for row in rows]

    async def column(self, query: str) -> list[Any]:
        return [row[0] for row in await self.store.transact(lambda tx: tx.db.execute(query).fetchall())]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with store.opened(tmp_path) as memory:
        yield Desk(memory)


def mail(sender: str, subject: str = "Printer", **header: str) -> Envelope:
    """What the plugin makes of a mail."""
    fields = {"From": sender, "To": SUPPORT, "Subject": subject, "Message-ID": f"<{subject}@x>"} | header
    raw = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in fields.items()).encode() + b"\nHello"
    arrived = Arrival(raw, "x@y.example", (SUPPORT,), (SUPPORT,), 0.0)
    original = File("a.eml", "message/rfc822", 1, "00")
    return envelope("mail", MAIL, lambda text: "a" * 16, arrived, read.read(raw), original, ())


async def test_a_conversation_is_called_without_the_marks_of_answers_and_a_new_subject_is_shown(desk: Desk) -> None:
    await desk.take(mail("jane@customer.example", "AW: Printer", In_Reply_To="<root@x>"))
    await desk.take(mail("jane@customer.example", "Re: AW: Printer", In_Reply_To="<root@x>"))
    await desk.take(mail("jane@customer.example", "Fire brigade", In_Reply_To="<root@x>"))
    assert await desk.column("SELECT title FROM conversation") == ["Printer"]
    assert await desk.column("SELECT title FROM item") == ["Printer"]
    first, second, third = await desk.posts()
    assert first.body.startswith("AW: Printer\n")
    assert second.body == "Hello"
    assert third.body.startswith("Fire brigade\n")


async def test_what_is_called_re_in_a_tool_that_knows_no_answers_is_called_so_here(desk: Desk) -> None:
    await desk.take(
        Envelope("mail", (SUPPORT,), "k", "1", Author("tool", "jane"), 0.0, title="Re: engineering", text="Hi")
    )
    assert await desk.column("SELECT title FROM conversation") == ["Re: engineering"]


@pytest.mark.parametrize(
    ("sender", "passes", "role"),
    [
        ("bob@company.example", "company.example", "colleague"),
        ("bob@Company.Example", "company.example", "colleague"),
        ("bob@müller.example", "xn--mller-kva.example", "colleague"),
        ("bob@company.example", "evil.example", "inward"),
        ("bob@company.example.evil.example", "company.example.evil.example", "inward"),
        ("jane@customer.example", "customer.example", "inward"),
    ],
)
async def test_a_colleague_is_who_has_a_domain_of_ours_and_is_verified(
    desk: Desk, sender: str, passes: str, role: str
) -> None:
    await desk.take(mail(sender, Authentication_Results=f"mx; dmarc=pass header.from={passes}"))
    assert await desk.column("SELECT role FROM message") == [role]


@pytest.mark.parametrize(("verified", "role"), [(True, "colleague"), (False, "inward")])
async def test_who_is_proven_to_speak_as_the_mailbox_is_a_colleague_whatever_its_domain(
    desk: Desk, verified: bool, role: str
) -> None:
    author = Author("mail", SUPPORT, verified=verified)
    await desk.take(Envelope("mail", (SUPPORT,), "k", "1", author, 0.0, title="x", text="Hello"))
    assert await desk.column("SELECT role FROM message") == [role]


async def test_an_account_without_a_domain_is_no_colleague_by_its_looks(desk: Desk) -> None:
    author = Author("tool", "bob@company.example", verified=True)
    await desk.take(Envelope("mail", (SUPPORT,), "k", "1", author, 0.0, title="x", text="Hello"))
    assert await desk.column("SELECT role FROM message") == ["inward"]


@pytest.mark.parametrize(
    ("sender", "shown"),
    [
        ("Alice Martin <alice@customer.example>", "Alice Martin (customer.example)"),
        ("alice@customer.example", "alice (customer.example)"),
        ("ALICE <Alice@Customer.Example>", "ALICE (customer.example)"),
        ('"ceo@company.example" <eve@evil.example>', "ceo@company.example (evil.example)"),
    ],
)
def test_people_see_by_which_domain_a_sender_writes(sender: str, shown: str) -> None:
    assert display_name(mail(sender).author) == shown


def test_an_account_without_a_domain_is_shown_with_its_tool() -> None:
    assert display_name(Author("redmine", "jsmith", "John Smith")) == "John Smith (redmine)"
    assert display_name(Author("redmine", "jsmith")) == "jsmith (redmine)"


async def test_a_text_too_long_to_show_is_there_whole_as_a_file(desk: Desk) -> None:
    await desk.take(Envelope("mail", (SUPPORT,), "k", "1", Author("tool", "jane"), 0.0, text="words \ud800" * 200))
    shown, whole = await desk.posts()
    assert shown.file is None
    assert whole.file is not None

    def content(tx: Tx) -> bytes:
        data: bytes = tx.db.execute("SELECT data FROM blob WHERE hash = ?", (whole.file.hash,)).fetchone()[0]  # type: ignore[union-attr]
        return data

    data = await desk.store.transact(content)
    assert (whole.file.name, whole.file.size) == ("message.txt", len(data))
    assert data.startswith(b"words ?words ?")


def test_a_mail_can_be_chosen_by_whom_it_is_from_and_to_and_by_its_subject() -> None:
    arrived = mail(
        "Jane <JANE@customer.example>", "Your [Invoice]", Cc="Bob <bob@Partner.example>, info@company.example"
    )
    facts = facts_of(arrived)
    assert set(facts) == set(Mail.filters)
    assert (facts["sender"], facts["subject"]) == (["jane@customer.example"], ["Your [Invoice]"])
    assert {SUPPORT, "bob@partner.example", "info@company.example"} <= set(facts["address"])


async def test_a_report_about_our_own_mail_is_taken_although_no_filter_fits_it(desk: Desk) -> None:
    only = ConfigMapping(connector="mail", scope=SUPPORT, room=ROOM, only={"subject": ("*invoice*",)})
    desk.places.declare([only])
    await desk.take(mail("jane@customer.example", "Invoice"))

    def sent(tx: Tx) -> None:
        tx.conversations.add_message(1, "outward", "@alice:company.example", item=1, remote="<ours@x>", uid="ours")

    await desk.store.transact(sent)
    bounce = replace(mail("mailer-daemon@customer.example", "Undelivered"), report=Report("ours", "jane@x", "unknown"))
    await desk.take(bounce)
    assert "unknown" in (await desk.posts())[-1].body
    with pytest.raises(Rejected):
        await desk.take(replace(bounce, key="other", report=Report("nobody's", "jane@x", "unknown")))
