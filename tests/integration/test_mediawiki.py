"""The MediaWiki plugin on a real wiki: what it tells of pages and talk pages, and what it writes there."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bridge import store
from bridge.http import new_session
from bridge.model import Answered, Author, Card, Delivery, Draft, Envelope, Gone, Recipients, Rejected, Unavailable
from bridge.port import BridgePort
from bridge.store import new_uid
from plugins.mediawiki import MediaWiki, wiki
from tests.peers.mediawiki import BRIDGE, CLERK, OTHER, PRESENT, SPACE, talk_of
from tests.peers.mediawiki import MediaWiki as Server

pytestmark = pytest.mark.debian("mediawiki", PRESENT)


class Port(BridgePort):
    """Rooms are mapped to these scopes."""

    mapped: frozenset[str] = frozenset({SPACE, "Main"})

    def scopes(self) -> frozenset[str]:
        return self.mapped


@dataclass
class Desk:
    """The wiki, the plugin on it, and where its last poll ended."""

    server: Server
    plugin: MediaWiki
    cursor: str = ""

    async def news(self) -> list[Envelope]:
        """What polls bring until there is no more; from now on, the first time."""
        found: list[Envelope] = []
        for _ in range(50):
            page = await self.plugin.poll(self.cursor)
            self.cursor = page.cursor
            found += page.envelopes
            if not page.more:
                return found
        raise AssertionError("polls come to no end")

    async def page(self, title: str, text: str = "Offer.", by: str = "Alice") -> str:
        """Somebody makes it; returns its name, once its news is told."""
        made = await self.server.edit(title, text, by)
        await self.news()
        return f"mediawiki{made['pageid']}"

    def connector(self, **changes: Any) -> MediaWiki:
        """The same with other settings, and a session of its own."""
        return MediaWiki("wiki", config(self.server, **changes), self.plugin.port)


def config(server: Server, **changes: Any) -> MediaWiki.Config:
    settings = {"url": server.url, "username": BRIDGE, "article_path": "/wiki/$1", **changes}
    return MediaWiki.Config(**{"password": server.password(settings["username"]), **settings})


@pytest.fixture
async def at(mediawiki: Server, tmp_path: Path) -> AsyncIterator[Desk]:
    server = mediawiki
    async with contextlib.AsyncExitStack() as stack:
        memory = await stack.enter_async_context(store.opened(tmp_path))
        session = await stack.enter_async_context(new_session())
        nothing: Any = None
        port = Port("wiki", memory, nothing, nothing, b"secret", session, 1_000_000)
        desk = Desk(server, MediaWiki("wiki", config(server), port))
        assert await desk.news() == []
        yield desk


def delivery() -> Delivery:
    """Another one each time."""
    return Delivery(1, new_uid(), "lane", "wiki", "draft", "", "ready", 1, time.time(), attempts=1)


def again(first: Delivery) -> Delivery:
    return replace(first, attempts=2)


def draft(item: str = "begun:$event", text: str = "We agree.", **more: Any) -> Draft:
    given = {"title": "", "scope": SPACE, "author_name": "Carol Martin", **more}
    return Draft("wiki", item=1, author="@carol:c.example", recipients=Recipients(()), remote=item, text=text, **given)


def fields(card: Card | None) -> dict[str, str]:
    assert card
    return dict(card.fields)


# --- what comes in


async def test_a_page_is_told_with_its_card_and_a_change_with_the_difference(at: Desk) -> None:
    made = await at.server.edit("Deals:Told", "Offer.", summary="First draft")
    await at.server.edit("Laboratory:Told", "Not for this room.")
    await at.server.edit("Deals:Told", "Offer, cheaper.", "Bob", summary="/* Prices */ lowered", minor="1")
    first, second = await at.news()
    name = f"mediawiki{made['pageid']}"
    url = f"{at.server.url}/index.php"
    assert (first.item, first.scopes, first.begins, first.title) == (name, (SPACE,), True, "Deals:Told")
    assert (first.author, first.text) == (Author("wiki", "Alice", "Alice", verified=True), "")
    assert (first.card or Card("", "", "")).url == f"{url}?curid={made['pageid']}"
    assert fields(first.card) | {"changed": ""} == {"changed": "", "by": "Alice", "size": "6 bytes", "diff": ""}
    assert fields(first.card)["changed"].endswith(": First draft")
    assert (second.item, second.begins, second.author.account) == (name, False, "Bob")
    assert fields(second.card)["diff"].startswith(f"{url}?diff=")
    assert fields(second.card)["changed"].endswith(": Prices: lowered")
    assert dict(first.facts) == {"kind": "new", "minor": "no"}
    assert dict(second.facts) == {"kind": "edit", "minor": "yes"}
    assert await at.plugin.fetch(name) == second.card
    assert await at.news() == []


async def test_a_comment_is_a_message_of_its_author_without_signature_and_without_harm(at: Desk) -> None:
    item = await at.page("Deals:Talk")
    hostile = (
        "<script>alert(1)</script> {{:Deals:Talk}} [[File:x.png]] <div style='display:none'>secret</div> [//a.b c]"
    )
    await at.server.talk("Deals:Talk", "Is that all?", "Bob", heading="Price & time")
    await at.server.talk("Deals:Talk", f"'''No.''' See [[Deals:Talk]]. {hostile}", "Alice")
    await at.server.talk("Deals:Talk", "passerelle-abcdefghijkl", "Bob")
    first, second, code = await at.news()
    assert (first.item, first.author.account, first.scopes) == (item, "Bob", (SPACE,))
    assert (first.text.split(), first.memo) == (["Price", "&", "time", "Is", "that", "all?"], "Price & time")
    assert (second.author.account, second.begins, dict(second.facts)["kind"]) == ("Alice", False, "talk")
    assert "<strong>No.</strong>" in second.html
    assert f'<a href="{at.server.url}/wiki/Deals:Talk">' in second.html
    assert not any(word in second.html for word in ("<script", "<img", "style=", "secret", "(UTC)", 'href="/'))
    assert code.text == "passerelle-abcdefghijkl"  # as `!me` wants it


async def test_of_a_changed_comment_what_differs_is_told_and_of_one_taken_away_nothing(at: Desk) -> None:
    await at.page("Changed", "In the namespace without a name.")
    await at.server.edit("Talk:Changed", "== A ==\none\n\ntwo\n\nthree")
    await at.news()
    await at.server.edit("Talk:Changed", "== A ==\none\n\nthree")
    assert await at.news() == []
    await at.server.edit("Talk:Changed", "== A ==\none\n\nthree, or four", "Bob")
    (told,) = await at.news()
    assert (told.text, told.author.account, told.scopes) == ("three, or four", "Bob", ("Main",))


async def test_a_page_keeps_its_name_when_it_is_moved_and_its_card_says_when_it_is_gone(at: Desk) -> None:
    item = await at.page("Deals:Old name")
    await at.server.act("Bob", "move", **{"from": "Deals:Old name", "to": "Deals:New name"})
    (moved,) = await at.news()
    assert (moved.item, moved.title, moved.author.account) == (item, "Deals:New name", "Bob")
    await at.server.act("Admin", "delete", title="Deals:New name")
    (gone,) = await at.news()
    assert (gone.item, bool(gone.card and gone.card.gone)) == (item, True)
    with pytest.raises(Gone):
        await at.plugin.fetch(item)
    with pytest.raises(Gone):
        await at.plugin.send(delivery(), draft(item))
    await at.server.act("Admin", "undelete", title="Deals:New name")
    (back,) = await at.news()
    assert (back.item, "state" in fields(back.card)) == (item, False)
    await at.server.act("Bob", "move", **{"from": "Deals:New name", "to": f"{OTHER}:Secret name"})
    (away,) = await at.news()
    assert fields(away.card) == {"state": "moved away", "by": "Bob"}
    assert "Secret" not in repr(away), "rooms see the namespaces that they are mapped to"
    await at.server.act("Bob", "move", **{"from": f"{OTHER}:Secret name", "to": "Deals:Again"})
    (come,) = await at.news()
    assert (come.item, come.begins, come.title) == (item, True, "Deals:Again")


async def test_many_changes_at_once_come_in_order_and_once(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await at.page("Deals:Many")
    monkeypatch.setitem(wiki.ROW, "rclimit", "2")
    for number in range(5):
        await at.server.edit("Deals:Many", f"Offer {number}", summary=f"n{number}")
    told = await at.news()
    assert [fields(each.card)["changed"][-2:] for each in told] == ["n0", "n1", "n2", "n3", "n4"]
    assert await at.news() == []


# --- items


async def test_a_page_is_known_by_everything_that_people_paste(at: Desk) -> None:
    item = await at.page("Deals:Über uns")
    last = (await at.server.history("Deals:Über uns"))[0]["revid"]
    await at.server.edit(talk_of("Deals:Über uns"), "Talk.")
    await at.server.edit("Deals:Us", "#REDIRECT [[Deals:Über uns]]")
    url, title = at.server.url, "Deals:%C3%9Cber_uns"
    for text in (
        item, f"wiki#{item[9:]}", "wiki:Deals:Über uns", "wiki:Deals:Us", f"{url}/wiki/{title}",
        f"{url}/wiki/{title}#Top", f"{url}/wiki/Deals_talk:%C3%9Cber_uns", f"{url.upper()}/index.php/{title}",
        f"{url}/index.php?title={title}&action=edit", f"{url}/index.php?curid={item[9:]}",
        f"{url}/index.php?diff={last}&oldid=prev", f"{url}/?oldid={last}",
    ):  # fmt: skip
        name = at.plugin.match(text)
        assert at.plugin.match(name) == name != "", text
        assert (await at.plugin.fetch(name)).item == item, text
    for text in (url, f"{url}/wiki/", f"{url}/load.php?title=x", f"{url}.evil/wiki/X", "wiki#0", "wiki:[[x]]", "wiki:"):
        assert at.plugin.match(text) == "", text
    for name in (
        "mediawiki:Deals:Nobody",
        "mediawiki:Special:Version",
        "mediawiki-rev99999999",
        "mediawiki:Talk:Nobody",
    ):
        with pytest.raises(Rejected):
            await at.plugin.fetch(name)


async def test_what_an_administrator_has_hidden_stays_hidden_and_stops_nothing(at: Desk) -> None:
    await at.page("Deals:Hidden"), await at.page("Deals:Log")
    await at.server.edit("Deals talk:Hidden", "Secret words.")
    await at.news()
    await at.server.edit("Deals talk:Hidden", "Secret words.\n\nNext.")
    await at.server.act("Admin", "move", **{"from": "Deals:Log", "to": "Deals:Slander"})
    wiki = at.server.folder / "db" / "wiki.sqlite"
    with contextlib.closing(sqlite3.connect(wiki)) as pages:  # as Special:RevisionDelete does
        first = (await at.server.history("Deals talk:Hidden"))[1]["revid"]
        pages.execute("UPDATE revision SET rev_deleted = 1 WHERE rev_id = ?", [first])
        pages.execute("UPDATE recentchanges SET rc_deleted = 1 WHERE rc_log_type = 'move'")
        pages.commit()
    [told] = await at.news()
    assert "Secret" not in told.text
    assert "index.php?diff=" in told.problem


async def test_our_own_words_do_not_come_back_whatever_the_heading_is_called(at: Desk) -> None:
    item = await at.page("Deals:Echo")
    await at.server.edit("Deals talk:Echo", "== passerelle.x ==\nWhat?")
    [asked] = await at.news()
    await at.plugin.send(delivery(), draft(item, answered=Answered(asked.id, (), "", asked.memo, "Alice", SPACE)))
    assert await at.news() == []


# --- what leaves


async def test_a_message_stands_signed_in_the_section_that_it_answers_as_it_was_written(at: Desk) -> None:
    item, talk = await at.page("Deals:Reply"), "Deals talk:Reply"
    await at.server.edit(talk, "== Price ==\nToo high?\n\n== Time ==\nWhen?")
    answered = Answered("rev1", (), "", "Price", "Alice", SPACE)
    words = "No & {{delete}} ~~~~ <b>\n* see https://a.example/x_y?z=[1]\n== Time =="
    await at.plugin.send(delivery(), draft(item, words, answered=answered, account="Bob"))
    await at.plugin.send(delivery(), draft(item, "And that."))
    text = await at.server.text(talk)
    assert text.startswith("== Price ==\nToo high?\n\n:<nowiki>No &amp; {{delete}} ~~~~ &lt;b&gt;</nowiki>\n:")
    assert "https://a.example/x_y?z=" in text
    assert text.index("[[User:Bob|Carol Martin]], ") < text.index(
        "\n== Time ==\nWhen?\n\n== Matrix ==\n:And that.\n:— Carol"
    )
    assert text.count("(UTC)") == 2
    assert "~" not in text.replace("~~~~ &lt;", "")
    newest = (await at.server.history(talk))[0]
    assert newest["comment"].startswith("/* Matrix */ Carol Martin (passerelle.")
    assert await at.news() != []  # what Alice wrote
    assert not any("And that" in each.text for each in await at.news())


async def test_nobodys_words_are_lost_and_ours_stand_once_when_somebody_is_quicker(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, talk, edit = await at.page("Deals:Race"), "Deals talk:Race", at.plugin.wiki.edit
    await at.server.edit(talk, "== Matrix ==\nBefore.")
    races = iter([lambda: at.server.edit(talk, "\n\nQuicker.", append=True), lambda: edit(seen)])
    seen: dict[str, str] = {}

    async def late(what: dict[str, str]) -> Any:
        seen.update(what)
        if race := next(races, None):
            await race()  # type: ignore[no-untyped-call]
        return await edit(what)

    monkeypatch.setattr(at.plugin.wiki, "edit", late)
    first = delivery()
    sent = [await at.plugin.send(each, draft(item, "Ours.")) for each in (first, again(first))]
    text = await at.server.text(talk)
    assert [text.count(word) for word in ("Before.", "Quicker.", "Ours.")] == [1, 1, 1]
    assert sent[0].id == sent[1].id


async def test_a_new_page_is_where_it_was_wanted_and_takes_nobodys_place(at: Desk) -> None:
    words, first = "''Terms'' {{x}}\nsecond line", delivery()
    sent = await at.plugin.create(first, draft(text=words, title="Contract"))
    assert sent.card
    assert (sent.card.title, sent.card.scope) == ("Deals:Contract", SPACE)
    text = "Carol Martin:\n\n<nowiki>''Terms'' {{x}}</nowiki>\n\nsecond line"
    assert await at.server.text("Deals:Contract") == text
    assert await at.news() == []  # our own
    assert await at.plugin.create(again(first), draft(text=words, title="Contract")) == sent
    for title in ("Contract", "a[b]", "Order #12", "Other|Third"):
        with pytest.raises(Rejected):
            await at.plugin.create(delivery(), draft(title=title))
    with pytest.raises(Rejected, match="cannot be the title of a page in Main"):
        await at.plugin.create(delivery(), draft(title="Deals:Elsewhere", scope="Main"))


async def test_a_wiki_that_only_reads_has_us_wait_and_a_lost_session_is_begun_again(at: Desk) -> None:
    item = await at.page("Deals:Waits")
    with at.server.read_only("Backup until noon."), pytest.raises(Unavailable, match="Backup until noon"):
        await at.plugin.send(delivery(), draft(item))
    with contextlib.closing(sqlite3.connect(at.server.folder / "db" / "wikicache.sqlite")) as sessions:
        sessions.execute("DELETE FROM objectcache")
        sessions.commit()
    at.server.forget()
    await at.plugin.send(delivery(), draft(item))
    assert (await at.server.text("Deals talk:Waits")).count("We agree.") == 1


async def test_the_self_check_names_what_is_missing_and_no_secret(at: Desk) -> None:
    (good,) = await at.plugin.check()
    assert (good.ok, "MediaWiki 1." in good.what, SPACE in good.what) == (True, True, True)
    clerk = at.connector(username=CLERK, article_path="")
    lacking, path = await clerk.check()
    assert (lacking.ok, lacking.what) == (False, "Clerk may not edit, createpage, createtalk")
    assert path.remedy == "set article_path: /wiki/$1"
    with pytest.raises(Unavailable):
        await clerk.send(delivery(), draft(await at.page("Deals:Clerk")))
    (wrong,) = await at.connector(password="0123456789abcdef0123456789abcdef").check()
    assert (wrong.ok, "does not let Bridge@passerelle in" in wrong.what, "0123456789" in wrong.what) == (
        False,
        True,
        False,
    )
    at.plugin.port.mapped = frozenset({"Nowhere"})  # type: ignore[attr-defined]
    (lost,) = await at.plugin.check()
    assert (lost.ok, lost.what) == (False, "there is no namespace Nowhere")
