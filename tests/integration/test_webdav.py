"""The WebDAV plugin on a real WsgiDAV: what it tells, what it saves, and that nothing is told or saved twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import store
from bridge.http import new_session
from bridge.model import Delivery, Draft, Envelope, File, Recipients, Rejected, Unavailable, Unconfirmed
from bridge.port import BridgePort
from plugins.webdav import WebDav
from tests.peers.dav import BRIDGE, WsgiDav
from tests.peers.faults import Proxy

UID = "a2b3c4d5e6f7g2h3i4j5"


class Port(BridgePort):
    """Rooms are mapped to these scopes."""

    mapped: frozenset[str] = frozenset({"Deals"})

    def scopes(self) -> frozenset[str]:
        return self.mapped


class Office:
    """The plugin on a server, and where its last poll ended."""

    def __init__(self, server: WsgiDav, port: Port, memory: store.Store) -> None:
        password = server.password(BRIDGE)
        self.server, self.port, self.store, self.cursor = server, port, memory, ""
        self.folder = server.files / "Deals"
        self.plugin = WebDav("documents", WebDav.Config(url=server.url, username=BRIDGE, password=password), port)  # type: ignore[arg-type]

    async def news(self) -> list[Envelope]:
        page = await self.plugin.poll(self.cursor)
        self.cursor = page.cursor
        return list(page.envelopes)

    async def keep(self, name: str, data: bytes) -> File:
        file = await self.port.spool.keep(name, "text/plain", data)
        await self.store.transact(lambda tx: tx.keep(file))
        return replace(file, data=None)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@contextlib.asynccontextmanager
async def opened(server: WsgiDav, folder: Path) -> AsyncIterator[Office]:
    async with contextlib.AsyncExitStack() as stack:
        memory = await stack.enter_async_context(store.opened(folder))
        session = await stack.enter_async_context(new_session())
        nothing: Any = None
        yield Office(server, Port("documents", memory, nothing, nothing, b"secret", session, 1_000_000), memory)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WsgiDav]:
    """One server for all tests: it starts slowly."""
    server = WsgiDav(tmp_path_factory.mktemp("server"))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def at(shared: WsgiDav, tmp_path: Path) -> AsyncIterator[Office]:
    server = shared
    if not server.child.running:
        await server.start()
    await server.call("DELETE", "/Deals/")
    await server.call("MKCOL", "/Deals/")
    async with opened(server, tmp_path) as office:
        yield office


def delivery(uid: str = UID, attempts: int = 1) -> Delivery:
    return Delivery(1, uid, "lane", "documents", "draft", "", "ready", 1, time.time(), attempts=attempts)


def draft(*files: File, **fields: Any) -> Draft:
    given = {"title": "Offer: a/b", "text": "As agreed.", "link": "https://matrix.to/#/!room/$event", **fields}
    return Draft("documents", "Deals", 1, author="@alice:c.example", author_name="Alice", recipients=Recipients(()),
                 remote="begun:$event", files=files, **given)  # fmt: skip


def states(news: list[Envelope]) -> dict[str, str]:
    """How each file stands: gone, moved, or "" when it is there."""
    cards = [each.card for each in news if each.card]
    return {card.item: "gone" if card.gone else dict(card.fields).get("state", "") for card in cards}


async def test_files_are_told_once_when_they_come_change_move_and_go(at: Office) -> None:
    await at.server.write("Deals/old.txt", "old")
    assert await at.news() == []
    (at.folder / "2026 é").mkdir()
    await at.server.write("Deals/2026 é/offer #1.pdf", b"%PDF")
    await at.server.write("Deals/.lock", "hidden")
    [new] = await at.news()
    assert new.card
    assert (new.item, new.begins, new.text) == ("Deals/2026 é/offer #1.pdf", True, "")
    assert dict(new.card.fields) | {"changed": ""} == {
        "type": "application/pdf", "size": "4 bytes", "changed": "", "by": ""
    }  # fmt: skip
    assert at.plugin.match(new.card.url) == new.item
    before = at.cursor
    assert (await at.news(), at.cursor) == ([], before)
    await at.server.write("Deals/old.txt", "old and more")
    [changed] = await at.news()
    assert (changed.item, changed.begins) == ("Deals/old.txt", False)
    (at.folder / "old.txt").rename(at.folder / "new.txt")
    (at.folder / "2026 é" / "offer #1.pdf").unlink()
    told = states(await at.news())
    gone = {"Deals/2026 é/offer #1.pdf": "gone", "Deals/old.txt": "moved to Deals/new.txt"}
    assert told == {**gone, "Deals/new.txt": ""}


async def test_a_file_is_saved_once_beside_what_has_its_name_and_is_no_news(at: Office) -> None:
    await at.server.write("Deals/plan.txt", "mine")
    await at.news()
    file = await at.keep("plan.txt", b"theirs" * 100_000)
    for attempts in (1, 2, 3):
        sent = await at.plugin.create(delivery(attempts=attempts), draft(file))
    assert sent.card
    assert sent.card.item == "Deals/plan (2).txt"
    assert at.names() == ["plan (2).txt", "plan.txt"]
    assert ((at.folder / "plan.txt").read_text(), (at.folder / "plan (2).txt").stat().st_size) == ("mine", 600_000)
    assert [(each.item, each.begins) for each in await at.news()] == [("Deals/plan (2).txt", False)]
    await at.plugin.create(delivery("b2b3c4d5e6f7g2h3i4j5"), draft(file))
    assert at.names() == ["plan (2).txt", "plan (3).txt", "plan.txt"]


async def test_words_become_a_text_file_with_the_link_back(at: Office) -> None:
    sent = await at.plugin.create(delivery(), draft(transcript="Bob: yes"))
    assert sent.card
    assert at.names() == ["Offer_ a_b.txt"]
    assert (at.folder / at.names()[0]).read_text() == (
        "Alice:\n\nAs agreed.\n\nBob: yes\n\nhttps://matrix.to/#/!room/$event"
    )


async def test_a_server_without_properties_is_asked_for_the_same_content(tmp_path: Path) -> None:
    async with WsgiDav(tmp_path, properties=False) as server, opened(server, tmp_path / "data") as at:
        file = await at.keep("plan.txt", b"theirs")
        for attempts in (1, 2):
            await at.plugin.create(delivery(attempts=attempts), draft(file))
        assert at.names() == ["plan.txt"]


async def test_a_folder_that_is_gone_stops_no_other(at: Office) -> None:
    at.port.mapped = frozenset({"Deals", "Nothing"})
    await at.news()
    assert list(at.plugin.troubles()) == ["documents Nothing"]
    await at.server.write("Deals/a.txt", "a")
    assert [each.item for each in await at.news()] == ["Deals/a.txt"]
    assert [each.ok for each in await at.plugin.check()] == [False, True]
    with pytest.raises(Rejected):
        await at.plugin.create(delivery(), replace(draft(), scope="Nothing"))


async def test_of_folders_inside_each_other_each_hears_of_a_file_and_the_inner_one_has_it(at: Office) -> None:
    at.port.mapped = frozenset({"Deals", "Deals/2026"})
    (at.folder / "2026").mkdir()
    await at.news()
    await at.server.write("Deals/2026/offer.txt", "x")
    told = await at.news()
    assert {(each.key, each.scopes) for each in told} == {(told[0].key, ("Deals/2026", "Deals"))}
    assert told[0].card
    assert told[0].card.scope == "Deals/2026"


async def test_files_are_found_by_their_names_and_then_by_their_folders(at: Office) -> None:
    for path in ("Offers/plan.txt", "a/Offer & plan.txt", "offer.txt"):
        (at.folder / path).parent.mkdir(exist_ok=True)
        await at.server.write(f"Deals/{path}", path)
    assert [card.item for card in await at.plugin.find("PLAN offer", ["nofolder", "Deals"])] == [
        "Deals/a/Offer & plan.txt", "Deals/Offers/plan.txt",
    ]  # fmt: skip
    assert list(await at.plugin.find(" ", ["Deals"])) == []


async def test_only_files_in_folders_that_are_mapped_are_known(at: Office) -> None:
    assert at.plugin.match(f"{at.server.url}Deals/a%20b.txt") == "Deals/a b.txt"
    assert at.plugin.match(f"{at.server.url}Other/a.txt") == "Other/a.txt"  # the room says what may be seen of it
    for text in ("Other/a.txt", "Deals", "Deals/../Other/a.txt", f"{at.server.url}Deals/%2e%2e/Other/a.txt", "hello"):
        assert at.plugin.match(text) == ""
    (at.folder / "inner").mkdir()
    with pytest.raises(Rejected):
        await at.plugin.fetch("Deals/inner")


async def test_a_file_that_goes_and_comes_back_is_told_each_time(at: Office) -> None:
    await at.news()
    await at.server.write("Deals/offer.txt", "10")
    keys = [each.key for each in await at.news()]
    for _ in range(2):
        os.rename(at.folder / "offer.txt", at.server.folder / "aside")
        keys += [each.key for each in await at.news()]
        os.rename(at.server.folder / "aside", at.folder / "offer.txt")
        keys += [each.key for each in await at.news()]
    assert len(set(keys)) == 5


async def test_a_folder_that_may_only_be_read_refuses_and_holds_nobody_up(at: Office) -> None:
    file = await at.keep("offer.txt", b"10")
    with pytest.raises(Rejected, match="does not let the bridge write to fixed"):
        await at.plugin.create(delivery(), replace(draft(file), scope="fixed"))


async def test_nothing_is_called_gone_by_whoever_else_answers_and_what_is_saved_is_not_called_untaken(
    at: Office,
) -> None:
    file = await at.keep("offer.txt", b"10")
    async with Proxy(at.server.origin) as proxy:
        settings = {"username": BRIDGE, "password": at.server.password(BRIDGE)}
        plugin = WebDav("documents", WebDav.Config(url=f"{proxy.url}/", **settings), at.port)  # type: ignore[arg-type]
        strange = proxy.add(404)
        with pytest.raises(Unavailable):
            await plugin.fetch("Deals/offer.txt")
        strange.times = 0
        proxy.add(503, method="PROPFIND")
        with pytest.raises(Unconfirmed):
            await plugin.create(delivery(), draft(file))
        assert at.names() == ["offer.txt"]
