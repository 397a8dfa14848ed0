"""The Tryton plugin on a real server: what it tells, what it writes, and that nothing is told or written twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bridge import store
from bridge.http import new_session
from bridge.model import Answered, Author, Change, Delivery, Draft, Envelope, Gone, Recipients, Rejected, Unavailable
from bridge.port import BridgePort
from plugins.tryton import Tryton
from plugins.tryton_deals import SOURCES
from tests.peers.tryton import BRIDGE, DATABASE
from tests.peers.tryton import Tryton as Peer

UID = "a2b3c4d5e6f7g2h3i4j5"


@dataclass
class Crm:
    """A Tryton, the plugin on it, and where the plugin's last poll ended."""

    server: Peer
    plugin: Tryton
    store: store.Store
    cursor: str = ""

    async def news(self) -> list[Envelope]:
        """What polls bring until there is no more."""
        found: list[Envelope] = []
        for _ in range(20):
            page = await self.plugin.poll(self.cursor)
            self.cursor = page.cursor
            found += page.envelopes
            if not page.more:
                return found
        raise AssertionError("polls come to no end")

    async def lead(self, title: str = "Roof", **values: Any) -> tuple[int, str]:
        """Somebody's lead, that polls have told of: its id, and our name of it."""
        number = await self.server.open(title, **values)
        await self.news()
        return number, f"opportunity/{number}"


@pytest.fixture
async def crm(tryton: Peer, tmp_path: Path) -> AsyncIterator[Crm]:
    async with contextlib.AsyncExitStack() as stack:
        memory = await stack.enter_async_context(store.opened(tmp_path / "data"))
        session = await stack.enter_async_context(new_session())
        nothing: Any = None
        port = BridgePort("crm", memory, nothing, nothing, b"secret", session, 1_000_000)
        at = Crm(tryton, Tryton("crm", config(tryton), port), memory)
        assert await at.news() == []
        yield at


def config(server: Peer, **changes: Any) -> Tryton.Config:
    settings = {"url": server.url, "database": DATABASE, "username": BRIDGE, "password": server.password(BRIDGE)}
    return Tryton.Config(**{**settings, **changes})


def delivery(attempts: int = 1, uid: str = UID) -> Delivery:
    return Delivery(1, uid, "lane", "crm", "draft", "", "ready", 1, time.time(), attempts=attempts)


def draft(remote: str = "begun:$event", **fields: Any) -> Draft:
    given = {"title": "Roof", "text": "It is leaking.", "account": "alice", **fields}
    people: dict[str, Any] = {"author": "@alice:c.example", "author_name": "Alice", "recipients": Recipients(())}
    return Draft("crm", "opportunities", 1, remote=remote, **people, **given)


def change(item: str, word: str, value: str) -> Change:
    return Change(item, word, value, "alice", "Alice")


async def test_a_new_lead_is_told_once_with_its_card_in_four_lines(crm: Crm) -> None:
    amount = {"__class__": "Decimal", "decimal": "12500.50"}
    number = await crm.server.open("Roof of the hall", "They called.", amount=amount, conversion_probability=0.3)
    [told] = await crm.news()
    assert (told.begins, told.text, told.title) == (True, "They called.", "Roof of the hall")
    assert told.author == Author("crm", "alice", "Alice Martin", verified=True)
    assert told.card
    assert told.card.fields == (
        ("stage", "lead"),
        ("amount", "12500.50 EUR"),
        ("probability", "30 %"),
        ("party", "Acme GmbH"),
    )
    assert told.facts == (("company", "Our Firm"),)
    assert crm.plugin.match(f"{crm.server.url}#crm/model/sale.opportunity/{number}") == f"opportunity/{number}"
    assert crm.plugin.match(told.card.url) == told.item == f"opportunity/{number}"
    assert (await crm.plugin.fetch(crm.plugin.match(told.card.key))).item == told.item
    assert await crm.news() == []


async def test_two_opportunities_with_one_number_are_two_items(crm: Crm) -> None:
    for title in ("Roof", "Wall"):
        await crm.server.open(title, number="2026/77")
    roof, wall = await crm.news()
    assert roof.card
    assert wall.card
    assert (roof.card.key, roof.title) == (wall.card.key, "Roof") == ("opportunity#2026/77", "Roof")
    for told, card in ((roof, roof.card), (wall, wall.card)):
        assert crm.plugin.match(card.url) == told.item
        assert (await crm.plugin.fetch(told.item)).title == told.title
    with pytest.raises(Rejected, match="several opportunities 2026/77: give the address of one"):
        await crm.plugin.fetch(crm.plugin.match("opportunity#2026/77"))


async def test_those_that_are_made_at_once_have_numbers_of_their_own(crm: Crm) -> None:
    made = [crm.plugin.create(delivery(uid=letter * 20), draft()) for letter in "defgh"]
    cards = [sent.card for sent in await asyncio.gather(*made)]
    assert len({card.key for card in cards if card}) == 5
    await crm.news()


async def test_many_that_are_made_in_one_moment_are_told_once_and_cost_nothing_more(crm: Crm, monkeypatch: Any) -> None:
    many = [{"description": f"Window {nth}"} for nth in range(60)]
    await crm.server.call("sale.opportunity", "create", many)
    told = await crm.news()
    assert [each.title for each in told] == [each["description"] for each in many]
    call, asked = crm.plugin.rpc._call, []
    monkeypatch.setattr(crm.plugin.rpc, "_call", lambda *given: (asked.append(given[0]), call(*given))[1])
    assert await crm.news() == []
    assert len(asked) == len(SOURCES)
    late = Crm(crm.server, crm.plugin, crm.store)
    assert await late.news() == []


async def test_who_changed_an_opportunity_is_told_with_the_card(crm: Crm) -> None:
    number, item = await crm.lead()
    await crm.server.press(number, "lost", "bob")
    [told] = await crm.news()
    assert (told.author.account, told.item, told.text) == ("bob", item, "")
    assert told.card
    assert dict(told.card.fields)["stage"] == "lost"


async def test_chat_notes_and_attachments_are_told_in_order_and_what_is_internal_is_private(crm: Crm) -> None:
    number, item = await crm.lead()
    await crm.server.chat(number, "to all")
    await crm.server.chat(number, "among us", "bob", audience="internal")
    await crm.server.note(number, "a note")
    await crm.server.attach(number, "plan.txt", b"\xffplan", "bob")
    told = await crm.news()
    assert [(each.author.account, each.text, each.private, each.item) for each in told] == [
        ("alice", "to all", False, item),
        ("bob", "among us", True, item),
        ("alice", "a note", True, item),
        ("bob", "", False, item),
    ]
    [file] = told[-1].files
    assert (file.name, file.type, file.data) == ("plan.txt", "text/plain", b"\xffplan")
    assert await crm.news() == []


async def test_whoever_names_another_as_who_speaks_proves_nothing(crm: Crm) -> None:
    number, _ = await crm.lead()
    [bob] = await crm.server.call("res.user", "search", [["login", "=", "bob"]], 0, 1, None)
    await crm.server.chat(number, "passerelle-abc", "alice", user=bob)
    [told] = await crm.news()
    assert (told.author.account, told.author.verified) == ("bob", False)


async def test_a_message_is_said_once_in_its_authors_name_with_its_file_and_does_not_come_back(crm: Crm) -> None:
    number, item = await crm.lead()
    file = await crm.plugin.port.spool.keep("offer.pdf", "application/pdf", b"%PDF")
    await crm.store.transact(lambda tx: tx.keep(file))
    ours = draft(item, files=(replace(file, data=None),))
    first = await crm.plugin.send(delivery(), ours)
    again = await crm.plugin.send(delivery(attempts=2), ours)
    assert first.id == again.id
    [said] = await crm.server.said(number)
    assert (said["author"], said["audience"]) == ("Alice Martin", "public")
    assert said["content"].startswith("It is leaking.\n\n[passerelle.")
    assert await crm.server.files(number) == [("offer.pdf", b"%PDF")]
    assert await crm.news() == []


async def test_an_answer_to_what_is_internal_stays_internal(crm: Crm) -> None:
    number, item = await crm.lead()
    await crm.server.note(number, "they hesitate")
    [told] = await crm.news()
    answered = Answered(told.id, (), told.title, told.memo, "alice", "opportunities")
    await crm.plugin.send(delivery(uid="b" * 20), draft(item, answered=answered))
    assert [each["audience"] for each in await crm.server.said(number)] == ["internal"]


async def test_a_conversation_becomes_one_lead_with_transcript_link_and_files(crm: Crm) -> None:
    file = await crm.plugin.port.spool.keep("photo.jpg", "image/jpeg", b"jpeg")
    await crm.store.transact(lambda tx: tx.keep(file))
    ours = draft(transcript="Carol: it rains in", link="https://matrix.to/#/!a/$b", files=(replace(file, data=None),))
    uid = "c" * 20
    made = await crm.plugin.create(delivery(uid=uid), ours)
    assert await crm.plugin.create(delivery(2, uid), ours) == made
    assert made.card
    shown = await crm.plugin.rpc.search("sale.opportunity", [["reference", "like", f"passerelle.{uid}%"]], ["comment"])
    assert [each["comment"] for each in shown] == ["It is leaking.\n\nCarol: it rains in\n\nhttps://matrix.to/#/!a/$b"]
    whole = await crm.server.read(shown[0]["id"], "state", "description", "employee.rec_name")
    assert (whole["state"], whole["description"], whole["employee."]["rec_name"]) == ("lead", "Roof", "Alice Martin")
    assert await crm.server.files(shown[0]["id"]) == [("photo.jpg", b"jpeg")]
    assert [each.begins for each in await crm.news()] == [False]


async def test_stages_are_tryton_s_own_and_it_is_won_only_by_its_sale(crm: Crm) -> None:
    number, item = await crm.lead(employee=1)
    for word, value in (
        ("amount", "1 250,5"),
        ("probability", "70%"),
        ("stage", "opportunity"),
        ("stage", "converted"),
    ):
        card = await crm.plugin.change(change(item, word, value))
    assert [value for _, value in card.fields][:3] == ["converted", "1250.5 EUR", "70 %"]
    with pytest.raises(Rejected, match='You can not call "lead" on'):
        await crm.plugin.change(change(item, "stage", "lead"))
    with pytest.raises(Rejected, match="won as soon as its sale is confirmed"):
        await crm.plugin.change(change(item, "stage", "won"))
    await crm.server.quote(number)
    card = await crm.plugin.change(change(item, "stage", "won"))
    assert dict(card.fields)["stage"] == (await crm.server.read(number, "state"))["state"] == "won"


async def test_what_is_deleted_is_told_by_whom_with_how_it_stood_and_is_gone(crm: Crm) -> None:
    number, item = await crm.lead("Wall")
    other, _ = await crm.lead("Floor")
    await crm.server.chat(number, "last words")
    await crm.server.delete(number)
    await crm.server.delete(other, "alice")
    told = await crm.news()
    assert [(each.author.account, each.title, each.text) for each in told] == [
        ("bob", "Wall", ""),
        ("alice", "Floor", ""),
    ]
    assert told[0].item == item
    assert told[0].card
    assert told[0].card.gone
    assert await crm.news() == []
    for wanted in (item, f"opportunity/{number}"):
        with pytest.raises(Gone, match="no opportunity"):
            await crm.plugin.fetch(wanted)
    with pytest.raises(Gone):
        await crm.plugin.send(delivery(), draft(item))


async def test_opportunities_are_found_by_description_party_reference_and_number(crm: Crm) -> None:
    _, item = await crm.lead("Facade 100%_green", reference="PO-4711")
    await crm.lead("Facade 1000 green")
    for words in ("100%_", "acme FACADE po-47", f"facade {item.partition('#')[2]} 4711"):
        assert [card.item for card in await crm.plugin.find(words, ["opportunities"])] == [item], words
    assert [card.title for card in await crm.plugin.find("facade", ["opportunities"])] == [
        "Facade 1000 green",
        "Facade 100%_green",
    ]


@pytest.mark.parametrize(
    ("word", "value", "why"),
    [
        ("stage", "sold", "there is no stage sold: lead, opportunity"),
        ("amount", "plenty", "plenty is no amount"),
        ("amount", "1.2345", "exceeds the limit"),
        ("probability", "700", "is not valid according to its domain"),
    ],
)
async def test_a_refusal_says_what_tryton_says(crm: Crm, word: str, value: str, why: str) -> None:
    _, item = await crm.lead()
    with pytest.raises(Rejected, match=why):
        await crm.plugin.change(change(item, word, value))


async def test_a_refusal_that_quotes_our_mark_is_told_without_it(crm: Crm) -> None:
    values = {"name": f"1\n[{crm.plugin.mark(UID)}]", "type": "cloud"}
    with pytest.raises(Rejected, match='record "1" ') as refused:
        await crm.plugin.rpc.ask("ir.attachment", "create", [values], do=True)
    assert "passerelle" not in str(refused.value)


async def test_a_change_in_between_is_seen_and_the_own_one_done_on_it(crm: Crm, monkeypatch: Any) -> None:
    number, item = await crm.lead()
    read, times = crm.plugin._row, []

    async def slow(item: str) -> Any:
        row = await read(item)
        if not times:
            await crm.server.change(number, "bob", description="Bob was quicker")
        times.append(1)
        return row

    monkeypatch.setattr(crm.plugin, "_row", slow)
    card = await crm.plugin.change(change(item, "probability", "80"))
    assert (card.title, dict(card.fields)["probability"], len(times)) == ("Bob was quicker", "80 %", 3)


async def test_a_session_that_has_ended_is_begun_again(crm: Crm) -> None:
    _, item = await crm.lead()
    crm.plugin.rpc._session = "YnJpZGdlOjE6eA=="
    assert (await crm.plugin.fetch(item)).item == item


async def test_who_may_not_read_the_chat_is_told_by_the_self_check_and_polls_nothing(crm: Crm) -> None:
    secret = crm.server.password("alice")
    plugin = Tryton("crm", config(crm.server, username="alice", password=secret), crm.plugin.port)
    [finding] = await plugin.check()
    assert (finding.ok, finding.what) == (False, "alice may not read ir.chat.channel")
    with pytest.raises(Unavailable, match="not allowed to access"):
        await plugin.poll("")
    assert [each.ok for each in await crm.plugin.check()] == [True]
