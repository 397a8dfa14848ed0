"""The pages of a wiki as its API gives them, and writing to them once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.connector import Http
from bridge.model import FAILURES, Deferred, Delivery, Gone, Rejected, Unconfirmed
from plugins.mediawiki import wikitext
from plugins.mediawiki.session import Refused, Session, part

OVERLAP = timedelta(minutes=5)  # a change bears the time it began at, and is seen once it is committed
ROW = {
    "list": "recentchanges", "rctype": "edit|new|log", "rclimit": "50",
    "rcprop": "ids|title|timestamp|user|userid|comment|sizes|flags|loginfo",
}  # fmt: skip
LOGS = {"delete", "move", "protect", "import", "merge", "contentmodel"}
STANDS = {"prop": "info|revisions", "rvprop": "ids|timestamp|user|comment|size"}
WORDS = {"prop": "revisions", "rvprop": "ids|content", "rvslots": "main"}
STAMP = "%Y-%m-%dT%H:%M:%SZ"
MAIN = "Main"  # what people call the namespace without a name
CLASHES = {"editconflict", "articleexists", "missingtitle", "pagedeleted"}  # somebody was quicker
DAY = timedelta(days=1)  # more than clocks differ


class Wiki(Session):
    """What its pages are, and what we have written. Values are joined by "|" where there are many."""

    def __init__(self, name: str, http: Http, login: tuple[str, str]) -> None:
        super().__init__(name, http, login)
        self.spaces: dict[int, str] = {}  # names of namespaces, once asked for

    async def namespaces(self, *, anew: bool = False) -> dict[int, str]:
        if anew or not self.spaces:
            said = await self.query({"meta": "siteinfo", "siprop": "namespaces"})
            found = part(said, "query", "namespaces").values()
            self.spaces = {each["id"]: each["name"] or MAIN for each in sorted(found, key=lambda each: each["id"])}
        return self.spaces

    async def pages(self, by: str, values: Sequence[str], **more: str) -> list[Any]:
        """How they stand, by "titles", "pageids" or "revids"; those that are not there have no "revisions"."""
        if not values:
            return []
        said = await self.query({**STANDS, by: "|".join(dict.fromkeys(values)), **more}, long=True)
        return list(said["query"].get("pages", ()))

    async def page(self, by: str, value: str, **more: str) -> Any:
        """One; of a talk page the page it is about. Raises `Gone`."""
        spaces, found = await self.namespaces(), await self.pages(by, [value], **more)
        if found and found[0].get("ns", -1) not in spaces:
            await self.namespaces(anew=True)
        if found and "revisions" in found[0] and found[0]["ns"] % 2:
            found = await self.pages("titles", [self.subject(found[0])])
        if not found or "revisions" not in found[0]:
            raise Gone(f"{self._name} has no such page: it was deleted, or never made")
        return found[0]

    async def search(self, words: str, scopes: Sequence[str]) -> list[Any]:
        """At most ten pages, by their titles first. Lower-case words are no operators of any of its search engines."""
        spaces = [str(number) for number, name in (await self.namespaces()).items() if name in scopes]
        asked, found = " ".join(re.findall(r"[^\W_]+", words.lower())), dict[int, Any]()
        for where in ("title", "text") if asked and spaces else ():
            what = {"generator": "search", "gsrsearch": asked, "gsrwhat": where, "gsrnamespace": "|".join(spaces)}
            try:
                said = await self.query({**STANDS, **what, "gsrlimit": "10"}, long=True)
            except Refused:
                if where == "text":
                    raise
                continue  # not every engine can look into titles alone
            pages = sorted(said["query"].get("pages", ()), key=lambda page: page["index"])
            found |= {page["pageid"]: page for page in pages if "revisions" in page and page["pageid"] not in found}
        return list(found.values())[:10]

    async def added(self, old: int, new: int) -> str:
        """What a revision has that the one before has not. Raises `Rejected` where one of them is hidden."""
        pages = await self.pages("revids", [str(number) for number in (old, new) if number], **WORDS)
        texts = {each["revid"]: each for page in pages for each in page.get("revisions", ())}
        if not all("content" in texts.get(number, {}).get("slots", {}).get("main", {}) for number in (old or new, new)):
            raise Rejected(f"{self._name} does not show what was changed")
        return wikitext.added(_text(texts.get(old)), _text(texts.get(new)))

    # --- writing: each summary ends with a mark

    async def add(self, delivery: Delivery, mark: str, title: str, compose: Callable[[str], tuple[str, str]]) -> int:
        """Write a page anew from how it stands; `compose` gives text and summary. Returns the revision's number.

        It is written only over what was read, so that nobody's words are lost, and never twice.
        """
        again = delivery.again
        for _ in range(5):
            if again and (done := await self._written(delivery, mark)):
                return int(done["revid"])
            page = (await self.pages("titles", [title], **WORDS))[0]
            found = page.get("revisions")
            if found and found[0]["slots"]["main"]["contentmodel"] != "wikitext":
                raise Rejected(f"{title} is no page of wikitext: nothing can be added to it")
            text, summary = compose(_text(found[0]) if found else "")
            place = {"nocreate": "1", "baserevid": str(found[0]["revid"])} if found else {"createonly": "1"}
            try:
                done = await self.edit({"title": title, "text": text, "summary": f"{summary} ({mark})", **place})
                return int(done.get("newrevid") or found[0]["revid"])
            except Refused as error:
                if error.code not in CLASHES:
                    raise
                again = True  # perhaps it was an earlier attempt of ours
        raise Deferred(f"{title} is being changed by others all the time")

    async def free(self, scope: str, title: str) -> str:
        """The title that a new page gets, as the wiki writes it. Raises `Rejected` when it would be elsewhere."""
        spaces = await self.namespaces()
        wanted = title if scope == MAIN else f"{scope}:{title}"
        found = [] if "|" in title else await self.pages("titles", [wanted])  # to the API it parts two titles
        same = found and _plain(found[0]["title"]) == _plain(wanted)  # else it has cut off "#12", or an entity
        if not same or "invalid" in found[0] or spaces.get(found[0]["ns"]) != scope:
            raise Rejected(f"{title} cannot be the title of a page in {scope}: take another")
        return str(found[0]["title"])

    async def make(self, delivery: Delivery, mark: str, title: str, text: str, summary: str) -> Any:
        """The page that this has made, now or before. Raises `Rejected` when there is another."""
        done = await self._written(delivery, mark) if delivery.again else None
        if done is None:
            what = {"title": title, "text": text, "summary": f"{summary} ({mark})", "createonly": "1"}
            try:
                done = await self.edit(what)
            except Refused as error:
                done = await self._written(delivery, mark) if error.code == "articleexists" else None
                if done is None:
                    raise
        try:
            return await self.page("pageids", str(done["pageid"]))
        except FAILURES as error:
            raise Unconfirmed(str(error)) from None  # it is made

    async def _written(self, delivery: Delivery, mark: str) -> Any:
        """What an earlier attempt has written: its pageid and revid; None: nothing."""
        since = (datetime.fromtimestamp(delivery.created, UTC) - DAY).strftime(STAMP)
        await self._entered()  # we know our name
        what = {"list": "usercontribs", "ucuser": self.account, "ucprop": "ids|comment", "uclimit": "max"}
        what |= {"ucend": since}
        while True:
            said = await self.query(what)
            for each in part(said, "query", "usercontribs"):
                if mark in each.get("comment", ""):
                    return each
            if "continue" not in said:
                return None
            what |= said["continue"]

    # --- titles

    def subject(self, page: Any) -> str:
        """The title of the page that a talk page is about."""
        return self.titled(page["ns"] - 1, page["title"].partition(":")[2])

    def talk(self, page: Any) -> str:
        """The title of its talk page."""
        return self.titled(page["ns"] + 1, page["title"].partition(":")[2] if page["ns"] else page["title"])

    def titled(self, space: int, title: str) -> str:
        return f"{self.spaces[space]}:{title}" if space else title


def _text(revision: Any) -> str:
    return str((revision or {}).get("slots", {}).get("main", {}).get("content", ""))


def _plain(title: str) -> str:
    """As the wiki compares titles, and more: the first letter may be another."""
    return unicodedata.normalize("NFC", title.replace("_", " ")).strip().casefold()


def places(row: Any) -> set[int]:
    """The namespaces of pages that a recent change is about; none when it is not about a page, or does not matter."""
    if not row.get("pageid") or row["ns"] < 0:
        return set()
    if row["type"] != "log":
        return {row["ns"] - row["ns"] % 2}
    if row["ns"] % 2 or row.get("logtype") not in LOGS:
        return set()
    return {row["ns"], row.get("logparams", {}).get("target_ns", row["ns"])}


def when(stamp: str) -> datetime:
    """A time as it writes them."""
    return datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)


def earlier(stamp: str) -> str:
    """By as much as a change may be seen late."""
    return (when(stamp) - OVERLAP).strftime(STAMP)
