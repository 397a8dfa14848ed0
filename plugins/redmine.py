"""Redmine by its REST interface: issues are polled, and their journals tell who did what; what leaves is marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field

from bridge import model
from bridge.connector import Connector, Port, ServerConfig, doubt
from bridge.model import Card, Delivery, Draft, Envelope, Finding, Gone, Rejected, Sent, Unavailable
from bridge.text import Names, clean, one_line
from plugins import redmine_json as raw
from plugins.redmine_json import STAMP
from plugins.redmine_rest import PAGE, Rest

OVERLAP = timedelta(minutes=2)  # a change bears the time it began at, and is seen once it is committed
FIELDS = {"state": "status", "priority": "priority", "assigned to": "assigned_to", "tracker": "tracker"}
PROPERTIES = {"state": "status", "assign-item": "assigned_to", "priority": "priority"}


class Redmine(Connector):
    class Config(ServerConfig):
        prefix: str = Field("redmine", pattern=r"^[A-Za-z][\w-]*$", description="What keys begin with: PREFIX#12")
        custom_field: int = Field(0, ge=0, description="A field of issues for our mark; 0: it is in the description")

    command, usage, reaction, silent = "ticket", "[title]", "🎫", True
    filters: ClassVar[Mapping[str, str]] = {
        "state": "its status", "priority": "its priority", "tracker": "its tracker", "assigned-to": "who",
    }  # fmt: skip
    words: ClassVar[Mapping[str, str]] = {"state": "resolved", "assign-item": "alice (or me)", "priority": "urgent"}

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.every, self.web = config.every, config.site
        key = rf"(?:redmine|{config.prefix}#)([1-9]\d*)"
        self.names = Names(key, r"issues/([1-9]\d*)", self.web, config.url)
        self.http = port.http(config.url, login=config.login, ca_file=config.ca_file)
        self.rest = Rest(name, config.prefix, self.http)
        self.prefix, self.field, self.account = config.prefix, config.custom_field, config.username

    async def offers(self) -> Sequence[str]:
        return await self.rest.projects()

    # --- what comes in

    async def poll(self, cursor: str) -> model.Page:
        """Goes on by the time of the last change; `seen` is what the overlap brings again, with its last journal."""
        at: dict[str, Any] = json.loads(cursor or "{}")
        if not cursor:
            newest = await self.rest.issues({"sort": "updated_on:desc", "limit": "1"})
            at = {"since": newest[0]["updated_on"] if newest else "1970-01-01T00:00:00Z", "seen": {}}
        since, seen, (place, skip) = at["since"], at["seen"], at.get("place", (at["since"], 0))
        rows, settled = await self.rest.since(place, skip)
        news = [envelope for row in rows for envelope in await self._news(row, since, seen, settled.strftime(STAMP))]
        last = rows[-1]["updated_on"] if rows else place
        edge = max(since, (raw.when(last) - OVERLAP).strftime(STAMP))
        at = {"since": edge, "seen": {number: each for number, each in seen.items() if each[0] >= edge}}
        if more := len(rows) == PAGE:  # perhaps all of one second
            at |= {"since": since, "seen": seen, "place": (last, skip + PAGE if last == place else 0)}
        news.sort(key=lambda envelope: envelope.when)
        return model.Page(tuple(news) if cursor else (), json.dumps(at), more)

    async def _news(self, row: Any, since: str, seen: dict[str, Any], settled: str) -> list[Envelope]:
        """An issue if it is new, and its new journals, each with the card as it was then."""
        number, stamp, known = str(row["id"]), row["updated_on"], seen.get(str(row["id"]))
        if stamp < since or (known and known[0] == stamp and (known[2] or stamp >= settled)):
            return []
        try:
            issue = await self.rest.issue(number)
        except Gone:  # removed meanwhile
            return []
        journals, after = issue["journals"], known[1] if known else 0
        fresh = [each for each in journals if each["id"] > after and (known or each["created_on"] >= since)]
        new = not known and issue["created_on"] >= since
        seen[number] = [stamp, max([after, *(each["id"] for each in journals)]), stamp < settled]
        cards = await self._cards(issue, fresh if new else fresh[1:])
        told = [None, *fresh] if new else fresh
        ours = [each["id"] for each in self._marked(issue).values()]
        ours += [0] if new and await self._is_ours(issue) else []
        pairs = [pair for pair in zip(told, cards, strict=False) if (pair[0] or {"id": 0})["id"] not in ours]
        return [await self._said(issue, *pair) for pair in pairs]

    async def _said(self, issue: Any, journal: Any, card: Card) -> Envelope:
        """What a journal says (None: the issue's own description), with the files that came with it."""
        item = f"redmine{issue['id']}"
        came = journal or {**issue, "user": issue.get("author"), "notes": issue["description"]}
        added = {number for each in issue["journals"] for number in raw.files(each)}
        mine = raw.files(journal) if journal else {str(each["id"]) for each in issue["attachments"]} - added
        files = [each for each in issue["attachments"] if str(each["id"]) in mine]
        wanted = [(f"attachments/download/{each['id']}", each["filename"], each.get("content_type")) for each in files]
        kept, problem = await self.collect(self.http, wanted, card.url)
        key = f"note{journal['id']}" if journal else item
        when, text = raw.when(came["created_on"]).timestamp(), clean(came["notes"] or "").strip()
        who, hidden = await self.rest.author(came.get("user")), bool(issue["is_private"] or came.get("private_notes"))
        said = Envelope(self.name, (card.scope,), key, key, who, when, card.title, text=text, item=item, card=card)
        return replace(said, files=kept, problem=problem, begins=journal is None, private=hidden)

    async def _cards(self, issue: Any, journals: Sequence[Any]) -> list[Card]:
        """How it stood before the first of these, and after each: what they tell is taken back, the newest first."""
        cards = [await self._card(issue)]
        for journal in reversed(journals):
            issue = await self.rest.before(issue, journal, tuple(FIELDS.values()))
            cards.insert(0, await self._card(issue))
        return cards

    # --- marks: a note's is in its text, and good for that issue only; an issue's in a field or its description

    def _marked(self, issue: Any) -> dict[str, Any]:
        """Our notes by their marks. What somebody copied of one comes later, and is theirs."""
        found: dict[str, Any] = {}
        for journal in issue["journals"]:
            mark = raw.mark_in(journal["notes"])
            if self.is_mark(mark) and mark.split(".")[1].endswith(f"-{issue['id']}"):
                found.setdefault(mark, journal)
        return found

    async def _made(self, mark: str) -> Any:
        """The issue that bears it: the oldest, since people can copy issues with all they have."""
        query = {f"cf_{self.field}": mark} if self.field else {"description": f"~{mark}"}
        rows = await self.rest.issues({"sort": "id", **query})
        if any(mark not in f"{raw.kept(row, self.field)} {row.get('description')}" for row in rows):
            raise Unavailable(f"{self.name} does not search for our mark: let custom_field be a filter in all projects")
        return next((row for row in rows if raw.kept(row, self.field) == mark), None)

    async def _is_ours(self, issue: Any) -> bool:
        mark = raw.kept(issue, self.field)
        return self.is_mark(mark) and (await self._made(mark) or issue)["id"] == issue["id"]

    # --- items

    def match(self, text: str) -> str:
        return f"redmine{number}" if (number := self.names.find(text)) else ""

    async def _card(self, issue: Any) -> Card:
        scope = await self.rest.identifier(issue["project"]["id"])
        fields = tuple((label, one_line((issue.get(name) or {}).get("name", ""))) for label, name in FIELDS.items())
        title, url = one_line(issue["subject"] or ""), f"{self.web}/issues/{issue['id']}"
        number, hidden = issue["id"], bool(issue["is_private"])
        return Card(f"redmine{number}", f"{self.prefix}#{number}", title, url, fields, scope, hidden)

    async def fetch(self, item: str) -> Card:
        return await self._card(await self.rest.issue(item.removeprefix("redmine")))

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        """What only private notes have is private."""
        found = await self.rest.found(clean(words).split(), scopes)
        cards = [(await self._card(issue), hidden) for issue, hidden in found]
        return [replace(card, private=card.private or hidden) for card, hidden in cards]

    async def change(self, change: model.Change) -> Card:
        """It says 204 whether or not it has done it, so it is read back."""
        number, field = change.item.removeprefix("redmine"), PROPERTIES[change.word]
        by = await self.rest.acting_as(change.account)
        issue = await self.rest.issue(number, by)
        wanted = await self.rest.choice(field, one_line(change.value))
        if raw.value(issue, field) != wanted:
            await self.rest.put(number, by, {f"{field}_id": wanted})
            with doubt():
                issue = await self.rest.issue(number, by)
        if raw.value(issue, field) == wanted:
            return await self._card(issue)
        allowed = ", ".join(each["name"] for each in issue.get("allowed_statuses", ()))
        may = f"; {by or self.account} may set: {allowed}" if field == "status" else ""
        raise Rejected(f"{self.name} said yes and has not changed {change.word}{may}")

    # --- what leaves

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        number = draft.remote.removeprefix("redmine")
        mark = self.mark(f"{delivery.uid}-{number}")
        if not delivery.again or mark not in self._marked(await self.rest.issue(number)):
            by, said = await self._written(draft, mark)
            note = {"notes": said["description"], "private_notes": False, "uploads": said["uploads"]}
            await self.rest.put(number, by, note)
        with doubt():
            issue = await self.rest.issue(number)
        if mark not in self._marked(issue):
            raise Rejected(f"{self.name} said yes and has not written it")
        return Sent(f"note{self._marked(issue)[mark]['id']}", card=await self._card(issue))

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        mark = self.mark(delivery.uid)
        made = await self._made(mark) if delivery.again else None
        if made is None:
            by, said = await self._written(draft, "" if self.field else mark)
            said |= {"subject": draft.heading, "project_id": draft.scope}
            said |= {"custom_fields": [{"id": self.field, "value": mark}]} if self.field else {}
            reply = await self.rest.ask("POST", "issues.json", by, json={"issue": said})
            with doubt():
                made = self.rest.part(reply, "issue")
        with doubt():
            return Sent(f"redmine{made['id']}", card=await self._card(made))

    async def _written(self, draft: Draft, mark: str) -> tuple[str, dict[str, Any]]:
        """As whom, and what: the words, and the files, which it takes first."""
        by = await self.rest.acting_as(draft.account)
        text = (draft if by else replace(draft, account="")).plain
        uploads = [await self.rest.upload(file, by) for file in draft.files if file.size]
        return by, {"description": f"{text}\n\n<!-- {mark} -->" if mark else text, "uploads": uploads}

    async def check(self) -> list[Finding]:
        try:
            us, projects = await self.rest.get("users/current.json", "user"), await self.offers()
            states = ", ".join(each["name"] for each in await self.rest.listed("status"))
            fields = await self.rest.get("custom_fields.json", "custom_fields") if self.field and us["admin"] else []
        except model.FAILURES as error:
            return [Finding(False, str(error), "see url, username, password; is REST enabled (Settings, API)?")]
        may = "may speak as people" if us["admin"] else "is no administrator: notes are its own, and name who wrote"
        found = [Finding(True, f"{us['login']} {may}; projects: {', '.join(projects)}; states: {states}")]
        if fields and not any(each["id"] == self.field and each.get("is_filter") for each in fields):
            found.append(Finding(False, f"field {self.field} is no filter", "tick 'Used as a filter' for it"))
        return found
