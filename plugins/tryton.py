"""Tryton's opportunities by JSON-RPC: changes, chat, notes and files are polled; a mark tells what an attempt did."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mimetypes
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from bridge import model
from bridge.connector import Connector, Port, ServerConfig
from bridge.model import Author, Card, Delivery, Draft, Envelope, Gone, Rejected, Sent
from bridge.text import Names, clean, one_line
from plugins import tryton_deals as crm
from plugins.tryton_deals import DEAL, FILE, LOG, ROW
from plugins.tryton_rpc import Conflict, Rpc, just_before

LARGE = 10 * 2**20  # bytes of a file that is fetched: it comes whole, as base64 in JSON


class Tryton(Connector):
    class Config(ServerConfig):
        database: str = Field(pattern=r"^[\w.-]+$", description="Name of the database, as people choose it at login")

    command, usage, reaction, scope = "deal", "[title]", "💰", "opportunities"
    filters: ClassVar[Mapping[str, str]] = {"stage": "its stage", "party": "the customer", "company": "whose it is"}
    words: ClassVar[Mapping[str, str]] = crm.EXAMPLES

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.every, self.account = config.every, config.username
        web, number = f"{config.site}/", r"((?=[\w./-]*\d)[\w./-]{1,40})"
        self.page, sites = f"{web}#{config.database}/model/{DEAL}/", (web, config.url)
        place = re.escape(self.page.removeprefix(web))
        self.numbers = re.compile(rf"opportunity\s?#\s?{number}", re.IGNORECASE | re.ASCII)
        self.ids = Names(r"opportunity/(\d{1,9})", rf"{place}(\d{{1,9}})(?:;[^\s:]*)?", *sites)
        self.numbering = asyncio.Lock()  # two that are made at once may get the same number
        self.rpc = Rpc(port.http(config.url, ca_file=config.ca_file), config.database, config)

    async def poll(self, cursor: str) -> model.Page:
        found: list[tuple[str, str, Any]] = []
        at, now = json.loads(cursor or "{}"), time.time()
        try:
            for kind, source in crm.SOURCES.items():
                rows, at[kind] = await self.rpc.since(*source, at.get(kind))
                found += [(kind, stamp, row) for stamp, row in rows]
            more = any(each["rest"] for each in at.values())
            return model.Page(tuple(await self._news(found, now)) if cursor else (), json.dumps(at), more)
        except Rejected as error:  # a right is missing: that is no matter of one message
            raise model.Unavailable(str(error)) from None

    async def _news(self, found: list[tuple[str, str, Any]], now: float) -> list[Envelope]:
        """Changes come first, so that they are not taken for those of somebody who spoke."""
        deals = {row["id"]: row for kind, _, row in found if kind in ("made", "changed")}
        for _, stamp, row in (each for each in found if each[0] == "gone"):
            deals |= await self._former(stamp, row)
        missing = sorted({crm.about(kind, row) for kind, _, row in found} - deals.keys() - {0})
        more = await self.rpc.search(DEAL, [["id", "in", missing]], ROW) if missing else []
        deals |= {row["id"]: row for row in more}
        order = sorted(found, key=lambda each: (each[0] not in ("made", "changed"), each[1]))
        known = [(*each, deals.get(crm.about(each[0], each[2]))) for each in order]  # none: another company's
        return [envelope for each in known if each[3] and (envelope := await self._told(*each, now))]

    async def _former(self, stamp: str, row: dict[str, Any]) -> dict[int, Any]:
        """What has been deleted, by its id, as its history has it: what the log says of it can be read there only."""
        then = {"_datetime": just_before(stamp)}
        row |= (await self.rpc.ask(LOG, "read", [row["id"]], ["resource"], context=then))[0]
        mine = [["id", "=", crm.about("gone", row)]]
        return {each["id"]: each for each in await self.rpc.search(DEAL, mine, ROW, context=then)}

    async def _told(self, kind: str, stamp: str, row: Any, deal: Any, now: float) -> Envelope | None:
        shown = crm.card(deal, self.page)
        who = crm.author(self.name, row, "write_uid" if kind == "changed" else "create_uid")
        mark = (row.get("content") or row.get("description") or "").strip().rpartition("[")[2].rstrip("]")
        ours, key = who.account == self.account, f"{kind}{row['id']}{f' {stamp}' if kind == 'changed' else ''}"
        if ours and kind in ("chat", "file") and self.is_mark(mark):
            return None
        private = kind == "note" or row.get("audience", "public") != "public"
        told = Envelope(self.name, (self.scope,), key, key, who, now, shown.title, item=shown.item, private=private)
        told = replace(told, memo="internal" * private, card=shown, facts=(("company", crm.named(deal, "company")),))
        if kind == "made" and not ours:
            return replace(told, begins=True, text=clean(row["comment"] or ""))
        if kind == "chat":  # it may name any user as who speaks
            who = crm.author(self.name, row, "user") if row["user."] else Author("mail", (row["email"] or "").lower())
            who = replace(who, verified=bool(row["user."]) and row["user."] == row["create_uid."])
            return replace(told, author=who, text=clean(row["content"]))
        if kind == "file":
            return await self._stored(row, told, shown.url)
        if kind == "gone":
            return replace(told, card=replace(shown, gone=True))
        return replace(told, text=clean(row["message"] or "")) if kind == "note" else told

    async def _stored(self, row: Any, told: Envelope, where: str) -> Envelope:
        name, size = one_line(row["name"] or "") or "file", row["data_size"] or 0
        if row["type"] == "link":
            return replace(told, text=f"{name}: {one_line(row['link'] or '')}")
        if not 0 < size <= LARGE:
            return replace(told, problem=f"{name}: {'it is too large' if size else 'it is empty'} ({where})")
        data = b64decode((await self.rpc.ask(FILE, "read", [row["id"]], ["data"]))[0]["data"]["base64"])
        file = await self.port.spool.keep(name, mimetypes.guess_type(name)[0] or "application/octet-stream", data)
        return replace(told, files=(file,))

    def match(self, text: str) -> str:
        """By its id; or by its number, which is asked for: several may have the same."""
        if found := self.numbers.fullmatch(text.strip()):
            return f"opportunity#{found[1]}"
        return f"opportunity/{number}" if (number := self.ids.find(text)) else ""

    async def fetch(self, item: str) -> Card:
        return crm.card(await self._row(item), self.page)

    async def _row(self, item: str) -> Any:
        number, nth = item.partition("#")[2], item.partition("/")[2]
        rows = await self.rpc.search(DEAL, [["number", "=", number] if number else ["id", "=", int(nth)]], ROW, 2)
        if len(rows) > 1:
            raise Rejected(f"{self.name} has several opportunities {number}: give the address of one")
        if not rows:
            raise Gone(f"{self.name} has no opportunity {number or nth}")
        return rows[0]

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        """The newest first."""
        rows = await self.rpc.search(DEAL, crm.sought(words), ROW, 10, [["id", "DESC"]]) if self.scope in scopes else ()
        return [crm.card(row, self.page) for row in rows]

    async def change(self, change: model.Change) -> Card:
        """By Tryton's own buttons where it has them; read back, and again when somebody else was quicker."""
        word, value = change.word, crm.wanted(change.word, change.value.strip())

        async def act(row: Any) -> bool:
            context = {"_timestamp": {f"{DEAL},{row['id']}": row["_timestamp"]}}
            with contextlib.suppress(Conflict):
                await self.rpc.ask(*await self._act(row["id"], word, value), context=context, do=True)
                return True
            return False

        about = f"{word} of {change.item}"
        row = await self.ensure(lambda: self._row(change.item), lambda row: crm.has(row, word, value), act, about)
        return crm.card(row, self.page)

    async def _act(self, number: int, word: str, value: Any) -> tuple[Any, ...]:
        """What Tryton is asked to do, so that an opportunity gets this value."""
        if value == "won":
            mine = [["origin", "=", f"{DEAL},{number}"], ["state", "=", "quotation"]]
            if not (sales := await self.rpc.search(crm.SALE, mine, ["id"])):
                raise Rejected(
                    "it is won as soon as its sale is confirmed: `stage converted` makes one; quote that first"
                )
            return crm.SALE, "confirm", [each["id"] for each in sales]
        if word == "stage":
            return DEAL, crm.BUTTONS[value], [number]
        return DEAL, "write", [number], {crm.FIELDS[word]: value}

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        """Chat, which Tryton mails to who follows it from outside: internal only when it answers what is."""
        row, mark, again = await self._row(draft.remote), self.mark(delivery.uid), delivery.again
        place, who = f"{DEAL},{row['id']}", await self._user(draft)
        there = again and await self.rpc.search(FILE, [["resource", "=", place], ["description", "=", mark]], ["name"])
        if files := [] if there else await self._files(draft, mark):
            await self.rpc.ask(FILE, "create", [{**file, "resource": place} for file in files], do=True)
        said = await self.rpc.ask("ir.chat.channel", "get", place) if again else ()
        number = next((each["id"] for each in said if f"[{mark}]" in each["content"]), 0)
        if not number:
            text = f"{draft.plain}\n\n[{mark}]"
            audience = "internal" if draft.answered and draft.answered.memo == "internal" else "public"
            user = {"user": who["id"]} if who else {}
            number = await self.rpc.ask("ir.chat.channel", "post", place, text, audience, context=user, do=True)
        return Sent(f"chat{number}", card=crm.card(row, self.page))

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        """A lead, known again by its `reference`; its files come with it."""
        mark = self.mark(delivery.uid)
        made = await self.rpc.search(DEAL, [["reference", "=", mark]], ["id"]) if delivery.again else []
        if not made:
            values: dict[str, Any] = {"description": draft.heading, "comment": draft.plain, "reference": mark}
            values |= {name: value for name, value in (await self._user(draft)).items() if value and name == "employee"}
            values["attachments"] = [["create", await self._files(draft, mark)]] if draft.files else []
            async with self.numbering:
                made = [{"id": (await self.rpc.ask(DEAL, "create", [values], do=True))[0]}]
        return Sent(f"made{made[0]['id']}", card=await self.fetch(f"opportunity/{made[0]['id']}"))

    async def _files(self, draft: Draft, mark: str) -> list[dict[str, Any]]:
        kept = [(one_line(each.name), b64encode(await self.port.spool.read(each))) for each in draft.files if each.size]
        return [{"name": n, "description": mark, "data": {"__class__": "bytes", "base64": d.decode()}} for n, d in kept]

    async def _user(self, draft: Draft) -> dict[str, Any]:
        """Whose words they are, where that is proven; else the text tells."""
        domain = [["login", "=", draft.account]]
        found = await self.rpc.search("res.user", domain, ["employee"]) if draft.account else [{}]
        if not found:
            raise Rejected(f"{self.name} has no user {draft.account}")
        return dict(found[0])

    async def check(self) -> list[model.Finding]:
        needed = {DEAL: "write", "ir.chat.channel": "read", crm.NOTE: "read", FILE: "create"}
        try:
            rights = await self.rpc.ask("ir.model.access", "get_access", list(needed))
        except model.FAILURES as error:
            return [model.Finding(False, str(error), "see url, database, username and password")]
        missing = [f"{what} {name}" for name, what in needed.items() if not rights[name][what]]
        missing += [] if self.rpc.context.get("company") else ["work for any company"]
        if missing:
            return [model.Finding(False, f"{self.account} may not {', '.join(missing)}", "give that user these rights")]
        return [model.Finding(True, f"{self.account} may read and write")]
