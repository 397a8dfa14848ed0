"""MediaWiki by its action API: recent changes are polled; talk pages and threads are one conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import Field

from bridge import model
from bridge.connector import Connector, Port, ServerConfig
from bridge.model import Author, Card, Deferred, Delivery, Draft, Envelope, Finding, Rejected, Sent
from bridge.text import clean, html_to_text, one_line, safe_html
from bridge.text.plain import spoken
from plugins.mediawiki import wikitext
from plugins.mediawiki.session import part
from plugins.mediawiki.wiki import ROW, Wiki, earlier, places, when

RIGHTS = ("read", "edit", "createpage", "createtalk")


class MediaWiki(Connector):
    class Config(ServerConfig):
        article_path: str = Field("", pattern=r"^(/\S*\$1\S*)?$", description="Its $wgArticlePath, such as /wiki/$1")
        prefix: str = Field("wiki", pattern=r"^[A-Za-z][\w-]*$", description="What keys begin with: PREFIX#12")
        section: str = Field("Matrix", pattern=r"^[^=\n]+$", description="Heading on talk pages for what rooms say")

    command, usage, reaction = "page", "[title]", "📝"
    filters: ClassVar[Mapping[str, str]] = {
        "by": "who changed it", "kind": "new, edit, talk, move, delete or protect", "minor": "yes or no",
    }  # fmt: skip

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.every, self.prefix, self.section = config.every, config.prefix, one_line(config.section)
        self.web = f"{config.site}/"
        self.names = wikitext.Titles(config.prefix, config.article_path, self.web, f"{config.url.rstrip('/')}/")
        self.wiki = Wiki(name, port.http(config.url, ca_file=config.ca_file), config.login)

    async def offers(self) -> Sequence[str]:
        spaces = await self.wiki.namespaces(anew=True)
        return [name for number, name in spaces.items() if number >= 0 and number % 2 == 0]

    # --- what comes in

    async def poll(self, cursor: str) -> model.Page:
        """Goes on by the time of the last change; `seen` is what the overlap brings again, by its number."""
        if not cursor:
            newest = part(await self.wiki.query({**ROW, "rclimit": "1"}), "query", "recentchanges")
            since, begun = (newest[0]["timestamp"], newest[0]["rcid"]) if newest else ("1970-01-01T01:00:00Z", 0)
            return model.Page((), json.dumps({"since": earlier(since), "begun": begun, "seen": {}}))
        at = json.loads(cursor)
        since, seen, more = at["since"], at["seen"], at.pop("more", None)
        place = {"rcdir": "newer", "rcstart": since} | ({"rccontinue": more} if more else {})
        said = await self.wiki.query({**ROW, **place})
        rows = part(said, "query", "recentchanges")
        news = await self._news([row for row in rows if row["rcid"] > at["begun"] and str(row["rcid"]) not in seen])
        seen |= {str(row["rcid"]): row["timestamp"] for row in rows}
        if "continue" in said:
            at["more"] = part(said, "continue", "rccontinue")
        elif rows:
            at["since"] = edge = max(since, earlier(rows[-1]["timestamp"]))
            at["seen"] = {number: stamp for number, stamp in seen.items() if stamp >= edge}
        return model.Page(tuple(news), json.dumps(at), "more" in at)

    async def _news(self, rows: Sequence[Any]) -> list[Envelope]:
        rows = [row for row in rows if "ns" in row]  # else it hides what was done
        spaces = await self.wiki.namespaces(anew=any(row["ns"] not in self.wiki.spaces for row in rows))
        mapped = {number for number, name in spaces.items() if name in self.port.scopes()}
        told = [row for row in rows if places(row) & mapped and not self._is_ours(row)]
        titles = [self.wiki.subject(row) for row in told if row["ns"] % 2]
        moved = [str(row["pageid"]) for row in told if row["type"] == "log"]
        pages = [*await self.wiki.pages("titles", titles), *await self.wiki.pages("pageids", moved)]
        known = {name: page for page in pages if "revisions" in page for name in (page["title"], page["pageid"])}
        return [each for row in told for each in await self._told(row, known, mapped)]

    async def _told(self, row: Any, known: Mapping[Any, Any], mapped: set[int]) -> list[Envelope]:
        """What one of the recent changes says; nothing of a talk page whose page is not there."""
        kind, page = row.get("logtype", row["type"]), known.get(row["pageid"])
        if row["ns"] % 2:
            about = known.get(self.wiki.subject(row))
            return await self._said(row, self._envelope(row, "talk", self._card(about))) if about else []
        if kind in ("new", "edit"):
            last = {**row, "size": row["newlen"], "parentid": row["old_revid"]}
            return [replace(self._envelope(row, kind, self._card(row, last)), begins=kind == "new")]
        if page and page["ns"] in mapped:
            come = kind == "move" and row["ns"] not in mapped
            return [replace(self._envelope(row, kind, self._card(page)), begins=come)]
        if state := {"move": "moved away" if page else "", "delete": "" if page else "deleted"}.get(kind):
            card = self._card(row, {"state": state, "user": row.get("user")})
            return [self._envelope(row, kind, replace(card, gone=kind == "delete"))]
        return []

    def _envelope(self, row: Any, kind: str, card: Card) -> Envelope:
        key = f"log{row['logid']}" if row["type"] == "log" else f"rev{row['revid']}"
        user = one_line(row.get("user", ""))  # "": hidden
        author = Author(self.name, user, user, verified=bool(row.get("userid")) and not row.get("temp"))
        facts = (("kind", kind), ("minor", "yes" if row.get("minor") else "no"))
        at = when(row["timestamp"]).timestamp()
        return Envelope(
            self.name, (card.scope,), key, key, author, at, card.title, item=card.item, card=card, facts=facts
        )

    async def _said(self, row: Any, bare: Envelope) -> list[Envelope]:
        """What somebody has added to a talk page; what only takes something away says nothing."""
        asked = row["old_revid"], row["revid"]
        added, problem = await self.read(lambda: self.wiki.added(*asked), self._diff(row["revid"]))
        if not added and not problem:
            return []
        heading = wikitext.heading_of(added, row.get("comment", ""))
        words = wikitext.unsigned(added, bare.author.account)
        try:
            html = wikitext.absolute(await self.wiki.html(words, row["title"]), self.web)
        except (Rejected, Deferred):  # some page of somebody's that cannot be shown
            return [replace(bare, text=clean(words), memo=heading, problem=problem)]
        return [replace(bare, text=html_to_text(html), html=safe_html(html), memo=heading, problem=problem)]

    # --- pages

    def _diff(self, revision: int) -> str:
        return f"{self.web}index.php?diff={revision}"

    def _card(self, page: Any, last: Any = None) -> Card:
        """`last`: another than its last revision; or a "state" that is more important."""
        last = last or page["revisions"][0]
        by = ("by", one_line(last.get("user") or ""))
        if "state" in last:
            fields = [("state", last["state"]), by]
        else:
            why = wikitext.reason(last.get("comment", ""))
            changed = f"{last['timestamp'][:16].replace('T', ' ')} UTC{f': {why}' if why else ''}"
            diff = self._diff(last["revid"]) if last["parentid"] else ""
            fields = [("changed", changed), by, ("size", spoken(last["size"])), ("diff", diff)]
        item, key = f"mediawiki{page['pageid']}", f"{self.prefix}#{page['pageid']}"
        title, scope = one_line(page["title"]), self.wiki.spaces.get(page["ns"], "")
        return Card(item, key, title, f"{self.web}index.php?curid={page['pageid']}", tuple(fields), scope)

    def match(self, text: str) -> str:
        return self.names.find(text)

    async def fetch(self, item: str) -> Card:
        await self.wiki.namespaces()
        number, revision = item.removeprefix("mediawiki"), item.removeprefix("mediawiki-rev")
        if number.isdecimal():
            page = await self.wiki.page("pageids", number)
        elif revision.isdecimal():
            page = await self.wiki.page("revids", revision)
            page = await self.wiki.page("pageids", str(page["pageid"]))  # it gave that revision, not the last
        else:
            page = await self.wiki.page("titles", item.partition(":")[2].replace("_", " "), redirects="1")
        return self._card(page)

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        return [self._card(page) for page in await self.wiki.search(words, scopes)]

    # --- what leaves

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        """At the end of a section of the talk page: the one that is answered, else ours."""
        page = await self.wiki.page("pageids", draft.remote.removeprefix("mediawiki"))
        who = one_line(draft.author_name or draft.author)[:100]
        said = wikitext.comment(wikitext.words(draft), who, draft.account)
        asked = draft.answered.memo if draft.answered else ""

        def compose(old: str) -> tuple[str, str]:
            text, heading = wikitext.placed(old, said, asked, self.section)
            return text, f"/* {heading.replace('*/', '')[:150]} */ {who}"

        number = await self.wiki.add(delivery, self.mark(delivery.uid), self.wiki.talk(page), compose)
        return Sent(f"rev{number}", card=self._card(page))

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        """A page of what is said, each line a paragraph."""
        lines = wikitext.words(draft, named=True).split("\n")
        text = "\n\n".join(wikitext.literal(line) for line in lines if line.strip())
        who = one_line(draft.author_name or draft.author)[:100]
        title = await self.wiki.free(draft.scope, draft.heading)
        page = await self.wiki.make(delivery, self.mark(delivery.uid), title, text or "…", who)
        return Sent(f"rev{page['revisions'][0]['revid']}", card=self._card(page))

    def _is_ours(self, row: Any) -> bool:
        return row.get("user") == self.wiki.account and self.is_mark(wikitext.mark_in(row.get("comment", "")))

    async def check(self) -> list[Finding]:
        asked = {"meta": "siteinfo|userinfo", "siprop": "general", "uiprop": "rights|blockinfo"}
        try:
            said, spaces = (await self.wiki.query(asked))["query"], await self.offers()
        except model.FAILURES as error:
            return [Finding(False, str(error), "see url (what api.php is in), username and password (a bot password)")]
        site, user, us = said["general"], said["userinfo"], self.wiki.account
        away = abs((datetime.now(UTC) - when(site["time"])).total_seconds())
        lacking = ", ".join(right for right in RIGHTS if right not in user["rights"])
        lost = ", ".join(sorted(self.port.scopes() - set(spaces)))
        path = site["articlepath"].replace(self.config.article_path or "/index.php?title=$1", "")
        wrong = (
            (lacking, f"{us} may not {lacking}", "give it these rights, and its bot password too"),
            ("blockid" in user, f"{us} is blocked", "unblock it"),
            (lost, f"there is no namespace {lost}", f"map one of: {', '.join(spaces)}"),
            (away > 300, f"its clock differs by {away:.0f} s", "let both keep time by NTP"),
            (path, f"links such as {path} are not recognised", f"set article_path: {path}"),
        )
        found = [Finding(False, what, remedy) for so, what, remedy in wrong if so]
        return found or [Finding(True, f"{site['generator']}, {us}; namespaces: {', '.join(spaces)}")]
