"""The page plugin: what a page says of itself, made harmless; asked seldom; only for links that nobody else knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml
from pydantic import ValidationError

from bridge import payload, store
from bridge.config import Config, load
from bridge.connector import Connector, Port, Reply
from bridge.model import Card, Rejected, RoomEvent
from bridge.openweb import MOST, OpenWeb
from bridge.payload import Look, Post
from bridge.present import card as shown
from bridge.rules import Rules
from plugins import page
from plugins.page import Page, read, text_of
from tests.peers import ROOT
from tests.peers.pages import Pages
from tests.unit.test_item_rules import ALICE, Desk

HERE, THERE, DESKLESS = "!here", "!there", "!deskless"
GRAPH = (
    '<meta property="og:title" content="Pumps &amp; valves"><meta property=og:site_name content=Acme>'
    "<meta name=description content='plain'><META content='How pumps\nwork' PROPERTY='og:description'>"
)
LINK = '<link rel=alternate type="application/json+oembed" href="{}">'


class World:
    """Of the bridge a page needs nothing but the way out."""

    def web(self, *hosts: Any, **how: Any) -> OpenWeb:
        return OpenWeb(*hosts, **how)


def looking(pages: Pages, **settings: Any) -> Page:
    usual = {"ports": [80, 443, pages.port], "networks": ["127.0.0.1"], "seconds": 5}
    return Page("web", Page.Config.model_validate(usual | settings), cast(Port, World()))


def card(text: str, found: str = "https://acme.example/a", more: dict[str, str] | None = None) -> Card:
    made = page.card("https://acme.example/a", found, read(text), more or {})
    assert made is not None
    return made


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    async with Pages() as made:
        yield made


# --- what a page says


def test_a_card_has_title_site_and_description_in_four_lines() -> None:
    made = card(f"<title>Other</title>{GRAPH}")
    body, html = shown(made)
    assert body.splitlines() == [
        "Pumps & valves", "site: Acme (acme.example) · about: How pumps work", "https://acme.example/a"
    ]  # fmt: skip
    assert "<img" not in html
    assert made.scope == "web"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("<title>Pumps</title>", "Pumps"),
        ("<TITLE lang=en>\n Pumps\t&lt;3 </TITLE >", "Pumps <3"),
        ("<title></title><title>Second</title>", "Second"),
        ("<!-- <title>no</title> --><title>Pumps</title>", "Pumps"),
        ("<script>'<title>no</title>'</script><style><title>no</title></style><title>Pumps</title>", "Pumps"),
        ("<meta name=twitter:title content='Pumps'><title>no", "Pumps"),
        ('<meta property="og:title" content="a > b" /><title>x</title>', "a > b"),
        ("<meta property='og:title' content=''><title>Pumps</title>", "Pumps"),
        ("<title>Pumps</title><body><title>no</title><meta property=og:title content=no>", "Pumps"),
        ("<metadata property=og:title content=no><title>Pumps</title>", "Pumps"),
        ("<title>" + "x" * 9999 + "</title>", "x" * 199 + "…"),
    ],
)
def test_a_title_is_found_where_pages_have_it(text: str, title: str) -> None:
    assert card(text).title == title


@pytest.mark.parametrize("text", ["", "words", "<title> </title>", "<title>", "<meta property=og:site_name content=A>"])
def test_a_page_that_says_nothing_of_itself_has_no_card(text: str) -> None:
    assert page.card("https://acme.example/a", "https://acme.example/a", read(text), {}) is None


def test_nothing_that_cannot_be_seen_or_turns_the_text_around_is_shown() -> None:
    dirty = "Pa\u202ey\u2066\u200b \u200e\ufeffP\u00adal\x00\x1b[31m\x85\u2028!\U000e0041\ud800\u0600"
    assert card(f"<title>{dirty}</title>").title == "Pay Pal[31m !\u0600"
    assert card("<title>a&#x202e;b&#8203;c&#0;</title>").title == "abc\ufffd"
    assert card("<title>नमस्\u200dते</title>").title == "नमस्\u200dते"  # joiners are letters to many


def test_where_a_page_really_is_is_shown_whatever_it_calls_itself() -> None:
    text = "<title>Log in</title><meta property=og:site_name content='Your bank'>"
    text += "<meta property=og:url content='https://bank.example/'><link rel=canonical href='https://bank.example/'>"
    made = card(text, "https://evil.example/")
    assert made.fields == (("site", "Your bank (evil.example)"),)
    assert made.url == "https://acme.example/a"


def test_no_html_of_a_page_becomes_ours() -> None:
    text = "&lt;img src=x onerror=1&gt;&lt;/a&gt;"
    made = card(f"<title>{text}</title><meta name=description content='{text}'><meta name=author content='{text}'>")
    _, html = shown(made)
    assert html.count("<") == html.count("<strong>") * 2 + html.count("<br>") + 2  # ours, and the link


@pytest.mark.parametrize(
    ("body", "header"),
    [
        ("é €".encode(), "text/html; charset=utf-8"),
        ("é €".encode("cp1252"), "text/html; charset=ISO-8859-1"),
        ("é €".encode("cp1252"), "text/html"),
        (b"<meta charset='windows-1252'>" + "é €".encode("cp1252"), "text/html"),
        (b'<meta http-equiv=Content-Type content="text/html; charset=cp1252">' + "é €".encode("cp1252"), "text/html"),
        ("\ufeffé €".encode("utf-16-le"), "text/html; charset=utf-8"),
        ("\ufeffé €".encode(), "text/html; charset=cp1252"),
        ("é €".encode(), "text/html"),
        ("é €".encode(), "text/html; charset=punycode"),
        ("é €".encode(), "text/html; charset=hex"),
        ("é €".encode(), "text/html; charset=" + "x" * 5000),
    ],
)
def test_letters_are_read_as_they_are_meant(body: bytes, header: str) -> None:
    assert text_of(Reply(200, {"content-type": header}, body)).endswith("é €")


def test_a_page_that_is_cut_within_a_letter_is_read_all_the_same() -> None:
    assert text_of(Reply(200, {"content-type": "text/html"}, "<title>é</title>€".encode()[:-1])).startswith("<title>é<")


LARGE = [
    "<div>", "<meta ", "<meta '>", "<meta '><meta \">", "<!--", "<script>", "<title>", "<title></title>", "<meta a>",
    "<link type=x>", "<", "<!---->", "<meta " + "a " * 4000 + ">", "<meta " + "a" * 8100 + ">", "<meta a" + " " * 8000,
    "<meta " + '="' * 4000 + ">", "<meta " + "x" * 8000 + "'>",
    "<meta property=og:title content='" + "&amp;" * 1500 + "'>",
    "<meta property=og:title content='" + "x" * 10**6, "<title>" + "\u0301" * 10**6, "<meta a=b ", "&#" + "1" * 10**6,
]  # fmt: skip


@pytest.mark.parametrize("piece", LARGE, ids=lambda piece: piece[:20])
def test_whatever_is_in_a_page_is_read_quickly(piece: str) -> None:
    text = f"{piece * (MOST // len(piece) + 1)}<title>end</title>"[:MOST]
    began = time.process_time()
    made = page.card("https://acme.example/", "https://acme.example/", read(text), {})
    assert time.process_time() - began < 0.5
    assert made is None or all(len(each) <= 300 for each in (made.title, *dict(made.fields).values()))


def test_only_so_many_tags_and_attributes_are_read() -> None:
    assert read("<meta name=a content=b>" * 1999 + "<title>last</title>").title == "last"
    assert read("<meta name=a content=b>" * 2000 + "<title>late</title>").title == ""
    assert read(f"<meta {'x ' * 20} name=a content=b>").said.get("a") is None


# --- on a real server


async def test_a_page_gets_its_card(pages: Pages) -> None:
    url = pages.put("a", f"<title>x</title>{GRAPH}".encode(), "text/html")
    found = await looking(pages).fetch(url)
    assert (found.item, found.url, found.title) == (url, url, "Pumps & valves")


async def test_what_its_oembed_says_fills_the_gaps(pages: Pages) -> None:
    said = '{"title": "Film", "author_name": "Ann", "provider_name": "Films", "html": "<script>", "width": 1}'
    pages.put("oembed", said, "application/json")
    found = await looking(pages).fetch(pages.page("film", "Film - Films", LINK.format("/oembed?a=1&amp;b=2")))
    assert (found.title, found.fields) == ("Film", (("site", "Films (127.0.0.1)"), ("by", "Ann")))
    assert pages.paths == ["/film", "/oembed?a=1&b=2"]


@pytest.mark.parametrize(
    "said", ["", "{", "[]", "7", '{"title": 7}', '{"title": {}}', "[" * 100_000, '{"a": ' + "1" * 10_000, "<html>"]
)
async def test_oembed_that_makes_no_sense_does_no_harm(pages: Pages, said: str) -> None:
    pages.put("oembed", said, "application/json")
    found = await looking(pages).fetch(pages.page("film", "Film", LINK.format("/oembed")))
    assert found.title == "Film"


@pytest.mark.parametrize(
    "place", ["http://127.0.0.2:{port}/in", "http://localhost:{port}/in", "http://u:p@127.0.0.1:{port}/in", "file:///in",
              "http://[", "//127.0.0.2:{port}/in", "http://169.254.169.254/in"],
)  # fmt: skip
async def test_oembed_is_asked_under_the_same_guards(place: str) -> None:
    async with Pages("127.0.0.1", "127.0.0.2") as pages:
        pages.put("in", '{"author_name": "Inside"}', "application/json")
        url = pages.page("film", "Film", LINK.format(place.format(port=pages.port)))
        found = await looking(pages, hosts=["127.*", "169.*"], networks=["127.0.0.1"]).fetch(url)
        assert found.fields == (("site", "127.0.0.1"),)
        assert pages.paths == ["/film"]


async def test_trouble_of_a_page_is_an_answer_and_holds_up_nothing(pages: Pages) -> None:
    """`Unavailable` would hold all other pages of the internet until this one is well again."""
    web = looking(pages, seconds=0.3)
    troubles = [pages.put(f"s{status}", "x", status=status) for status in (401, 404, 429, 500, 502, 503)]
    troubles += [pages.drip("drip"), pages.put("image", b"x", "image/png"), "http://127.0.0.1:443/", f"{pages.url}none"]
    for url in troubles:
        with pytest.raises(Rejected):
            await web.fetch(url)


# --- seldom asked


async def test_a_page_that_is_linked_in_many_rooms_is_asked_once(pages: Pages) -> None:
    web, url = looking(pages), pages.page("a", "Pumps")
    cards = await asyncio.gather(*(web.fetch(url) for _ in range(20)))
    assert {each.title for each in cards} == {"Pumps"}
    await web.fetch(url)
    assert pages.paths == ["/a"]


async def test_a_page_in_trouble_is_asked_once_too(pages: Pages) -> None:
    web = looking(pages)
    for _ in range(3):
        with pytest.raises(Rejected):
            await web.fetch(f"{pages.url}none")
    assert pages.paths == ["/none"]


async def test_a_page_is_asked_again_after_a_while(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "KEPT", 0.0)
    web, url = looking(pages), pages.page("a", "Pumps")
    for _ in range(2):
        await web.fetch(url)
    assert pages.paths == ["/a", "/a"]


async def test_few_pages_are_remembered(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_KEPT", 2)
    web = looking(pages)
    for path in ("a", "b", "a", "c", "a", "b"):  # b was not asked for the longest time
        await web.fetch(pages.page(path, path))
    assert pages.paths == ["/a", "/b", "/c", "/b"]


# --- which links


@pytest.mark.parametrize(
    "text",
    ["https://matrix.to/#/@bob:company.example", "https://element.company.example/#/room/!a", "mxc://a/b",
     "acme.example", "http://u:p@acme.example/", "ftp://acme.example/", "http://acme.example:8080/", "acme"],
)  # fmt: skip
def test_what_is_no_link_to_a_page_is_left_alone(text: str) -> None:
    assert Page("web", Page.Config(), cast(Port, World())).match(text) == ""


def test_hosts_that_are_looked_at_can_be_chosen() -> None:
    web = Page("web", Page.Config(hosts=("acme.example", "*.Acme.example")), cast(Port, World()))
    links = ("https://acme.example/a", "https://www.acme.example/a", "https://acme.example.evil.example/")
    assert [web.match(each) for each in links] == [*links[:2], ""]


@pytest.mark.parametrize("wrong", [{"hosts": []}, {"networks": ["intranet"]}, {"ports": [0]}, {"seconds": 0}])
def test_mistakes_in_the_configuration_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Page.Config.model_validate(wrong)


def test_the_example_is_whole_and_loads(tmp_path: Path) -> None:
    sample = yaml.safe_load((ROOT / "config" / "page.yaml").read_text())
    settings = yaml.safe_load((ROOT / "config" / "passerelle.yaml").read_text())
    settings["appservice"] |= {"as_token": "a", "hs_token": "h"}
    settings |= {"connectors": sample["connectors"], "mappings": sample["mappings"]}
    (tmp_path / "passerelle.yaml").write_text(yaml.safe_dump(settings))
    kind, loaded = load(tmp_path / "passerelle.yaml", {})[1]["web"]
    assert kind is Page
    assert loaded == Page.Config()


# --- in rooms


class Rooms(NamedTuple):
    """Pages are mapped to HERE and DESKLESS, the desk to HERE and THERE; pages come first in the configuration."""

    memory: store.Store
    rules: Rules

    async def say(self, text: str, room: str = HERE) -> list[tuple[str, str, bool]]:
        """Alice says it; the looks that follow: of which tool, at what, whether it is followed from now on."""
        event = RoomEvent(f"${text}", room, ALICE, "m.room.message", time.time(), "m.text", text)
        await self.memory.transact(self.rules.hearing.hear, event)
        rows = await self.rows("look")
        return [(to, look.remote, look.follow) for to, text in rows for look in [payload.load(Look, text)]]

    async def rows(self, kind: str) -> list[Any]:
        query = "SELECT destination, payload FROM queue WHERE kind = ? ORDER BY id"
        return await self.memory.transact(lambda tx: tx.db.execute(query, (kind,)).fetchall())


@pytest.fixture
async def rooms(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rooms]:
    places = (("web", "web", HERE), ("web", "web", DESKLESS), ("desk", "jobs", HERE), ("desk", "jobs", THERE))
    config = {
        "homeserver": {"url": "http://hs", "server_name": "company.example"},
        "appservice": {"as_token": "a", "hs_token": "h"},
        "connectors": {"web": {}, "desk": {}},
        "mappings": [{"connector": name, "scope": scope, "room": room} for name, scope, room in places],
    }
    async with store.opened(tmp_path) as memory:
        rules = Rules(Config.model_validate(config))
        for room in (HERE, THERE, DESKLESS):
            rules.places.resolve(room, room)
        connectors: dict[str, Connector] = {
            "web": Page("web", getattr(request, "param", Page.Config()), cast(Port, World()))
        }
        rules.connect(connectors | {"desk": Desk("desk", None, cast(Any, None))})
        yield Rooms(memory, rules)


async def test_a_link_that_no_other_tool_knows_is_looked_at(rooms: Rooms) -> None:
    assert await rooms.say("see https://acme.example/a.") == [("web", "https://acme.example/a", False)]


@pytest.mark.parametrize("rooms", [Page.Config(), Page.Config(hosts=("acme.*", "desk.*"))], indirect=True)
async def test_other_tools_come_first(rooms: Rooms) -> None:
    assert await rooms.say("see https://desk.example/job7") == [("desk", "job7", False)]


async def test_a_tool_of_another_room_comes_first_too(rooms: Rooms) -> None:
    """What it shows of the item here, if anything, is its own matter; the page would show what its login page says."""
    assert await rooms.say("see https://desk.example/job7", DESKLESS) == [("desk", "job7", False)]


@pytest.mark.parametrize("rooms", [Page.Config(), Page.Config(hosts=("acme.*", "desk.*"))], indirect=True)
async def test_a_room_that_is_not_mapped_makes_nobody_look(rooms: Rooms) -> None:
    assert await rooms.say("see https://acme.example/a", THERE) == []


async def test_a_page_cannot_be_followed(rooms: Rooms) -> None:
    assert await rooms.say("!link https://acme.example/a") == []
    ((_, told),) = await rooms.rows("post")
    assert "https://acme.example/a" in payload.load(Post, told).body
    assert await rooms.say("!link https://desk.example/job7") == [("desk", "job7", True)]
