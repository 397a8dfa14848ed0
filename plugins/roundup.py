"""Roundup by its REST interface: issues are polled; what leaves bears a mark that tells what an earlier attempt did."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import Field

from bridge import model
from bridge.connector import Connector, Port, ServerConfig
from bridge.model import Card, Delivery, Draft, Envelope, Gone, Rejected, Sent
from bridge.text import Names, clean, one_line

PAGE, OVERLAP = 50, timedelta(minutes=10)  # a change bears the time it began at, and is seen once its mails have left
STAMP = "%Y-%m-%d.%H:%M:%S"  # times as the tracker writes them: UTC, whole seconds
CARD = "id,title,status,priority,assignedto,messages,files"
ROW = f"{CARD},activity,creation,creator.username,creator.realname,actor.username,actor.realname"
MESSAGE = "author.username,author.realname,creator.username,creator.realname,messageid,inreplyto,files"
LABELS = {"status": "status", "priority": "priority", "assigned to": "assignedto"}
PROPERTIES = {"state": "status", "assign-item": "assignedto", "priority": "priority"}


class Roundup(Connector):
    class Config(ServerConfig):
        tracker_class: str = Field("issue", pattern=r"^[A-Za-z_]+$", description="Class of items; a mapping's scope")

    command, usage, reaction, silent = "ticket", "[title]", "🎫", True
    filters: ClassVar[Mapping[str, str]] = {"state": "its status", "priority": "its priority", "assigned-to": "who"}
    words: ClassVar[Mapping[str, str]] = {"state": "resolved", "assign-item": "alice (or me)", "priority": "urgent"}

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.every, self.scope, self.account = config.every, config.tracker_class, config.username
        self.web, nth = f"{config.site}/", r"([1-9]\d*)"
        self.names = Names(rf"{self.scope}\s?#?{nth}", rf"(?:rest/data/)?{self.scope}/?{nth}", self.web, config.url)
        headers = {"X-Requested-With": "passerelle", "Origin": "/".join(self.web.split("/")[:3])}
        self.http = port.http(config.url, headers=headers, login=config.login, ca_file=config.ca_file)

    async def poll(self, cursor: str) -> model.Page:
        """Goes on by the time of the last change, since pages shift; `seen` is what the overlap brings again."""
        now, at = time.time(), json.loads(cursor or "{}")
        if not cursor:
            newest = await self._get(self.scope, "activity", {"@sort": "-activity", "@page_size": "1"})
            at = {"since": newest[0]["activity"] if newest else "1970-01-01.00:00:00", "size": PAGE, "seen": {}}
        since, size, seen, place = at["since"], at["size"], at["seen"], at.get("place", at["since"])
        rows = await self._get(f"{self.scope}?@sort=activity,id&@page_size={size}", ROW, {"activity": f"{place}+0000;"})
        if any(row["activity"] < place for row in rows):  # a filter that it cannot read is left out
            raise model.Unavailable(f"{self.name} was asked for changes since {place} and answered with older ones")
        news = [envelope for row in rows for envelope in await self._news(row, since, seen, now)]
        last = rows[-1]["activity"] if rows else place
        edge = max(since, (datetime.strptime(last, STAMP) - OVERLAP).strftime(STAMP))
        at = {"since": edge, "size": PAGE, "seen": {key: stamp for key, stamp in seen.items() if stamp >= edge}}
        if more := len(rows) == size:  # perhaps all of one second
            at |= {"since": since, "place": last, "size": size * 2 if last == place else PAGE}
        return model.Page(tuple(news) if cursor else (), json.dumps(at), more)

    async def _news(self, row: Any, since: str, seen: dict[str, str], now: float) -> list[Envelope]:
        """An issue's new messages, and before them the change, where somebody else made it."""
        item = f"{self.scope}{row['id']}"
        state = f"{item} {sha256(json.dumps(row).encode()).hexdigest()[:12]}"
        if state in seen:
            return []
        recent = [each["id"] for each in row["messages"] or () if each.get("activity", since) >= since][-1000:]
        new = row["creation"] >= since and row["creator.username"] != self.account and item not in seen
        who, title = self._author(row, "creator" if new else "actor"), one_line(row["title"] or "")
        facts = (("state", self._name(row["status"])),)
        bare = Envelope(self.name, (self.scope,), state, state, who, now, title, item=item, facts=facts, begins=new)
        bare = replace(bare, card=self._card(row))
        said = [each for number in recent if number not in seen for each in await self._said(number, since, bare)]
        seen |= dict.fromkeys([state, item, *recent], row["activity"])
        authors = {each.author for each in said}
        if new or authors <= {who}:
            return said or [bare]
        return [replace(bare, author=model.Author(self.name, "")) if who in authors else bare, *said]  # whose change?

    async def _said(self, number: str, since: str, bare: Envelope) -> list[Envelope]:
        """A message, if it is new and not ours; what cannot be read of it is told, and stops nothing."""
        found = await self._get(f"msg?id={number}", MESSAGE, {"activity": f"{since}+0000;"})
        mark = (found[0]["messageid"] or "")[1:].partition("@")[0] if found else ""
        if not found or (self.is_mark(mark) and found[0]["creator.username"] == self.account):
            return []
        message, key = found[0], f"msg{number}"
        ids = "&".join(f"id={each['id']}" for each in message["files"] or ())
        found = await self._get(f"file?{ids}", "name,type") if ids else ()
        files = [(f"rest/data/file/{one['id']}/binary_content", one["name"] or "file", one["type"]) for one in found]
        kept, missing = await self.collect(self.http, files, f"{self.web}msg{number}")
        text, problem = await self.read(lambda: self._text(number), f"{self.web}msg{number}")
        refs = tuple(filter(None, [message["inreplyto"]]))
        said = replace(bare, key=key, id=message["messageid"] or key, author=self._author(message, "author"), text=text)
        return [replace(said, refs=refs, files=kept, problem="; ".join(filter(None, [problem, missing])))]

    async def _text(self, number: str) -> str:
        return clean((await self._get(f"msg/{number}", "content"))["attributes"]["content"] or "")

    def _author(self, row: Any, role: str) -> model.Author:
        account, creator = row[f"{role}.username"] or row["creator.username"], row["creator.username"]
        verified = role == "actor" or account == creator  # whom a message names as its author may be anybody
        return model.Author(self.name, account, row.get(f"{role}.realname") or "", verified)

    def _mark(self, uid: str) -> str:  # the Message-ID, also of the mails that the tracker makes of it
        return f"<{self.mark(uid)}@{self.web.split('/')[2].replace(':', '.')}>"

    def _card(self, row: Any) -> Card:
        item = f"{self.scope}{row['id']}"
        fields = tuple((label, self._name(row[name])) for label, name in LABELS.items())
        return Card(item, item, one_line(row["title"] or ""), f"{self.web}{item}", fields)

    def match(self, text: str) -> str:
        return f"{self.scope}{number}" if (number := self.names.find(text)) else ""

    async def fetch(self, item: str) -> Card:
        for row in await self._get(f"{self.scope}?id={item.removeprefix(self.scope)}", CARD):
            return self._card(row)
        raise Gone(f"{self.name} has no {item}")  # any more: what is removed is shown only to who asks for it by name

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        wanted = urlencode([("title", word) for word in words.split()])
        path = f"{self.scope}?@sort=-activity&@page_size=10&{wanted}"
        return [self._card(row) for row in await self._get(path, CARD)] if self.scope in scopes else ()

    async def change(self, change: model.Change) -> Card:
        wanted = {PROPERTIES[change.word]: one_line(change.value)}
        return self._card(await self._set(change.item, "replace", wanted))

    async def _set(self, item: str, how: str, wanted: Mapping[str, str | list[str]]) -> Any:
        path = item.replace(self.scope, f"{self.scope}/", 1)

        def holds(found: Any) -> bool:
            return all(self._has(found["attributes"][name], value) for name, value in wanted.items())

        async def act(found: Any) -> bool:
            asked = {"@op": how, "@etag": found["@etag"], **wanted}
            return await self._ask("PATCH", path, json=asked) is not None

        found = await self.ensure(lambda: self._get(path, CARD), holds, act, f"{', '.join(wanted)} of {item}")
        return found["attributes"]

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        row = await self._set(draft.remote, "add", await self._written(delivery, draft))
        return Sent(self._mark(delivery.uid), card=self._card(row))

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        ours = await self._written(delivery, draft)
        made = await self._get(self.scope, "id", {"messages": ours["messages"][0]}) if delivery.again else ()
        asked = {"title": draft.heading, **ours}
        number = (made[0] if made else await self._ask("POST", self.scope, json=asked))["id"]
        return Sent(self._mark(delivery.uid), card=await self.fetch(f"{self.scope}{number}"))

    async def _written(self, delivery: Delivery, draft: Draft) -> dict[str, list[str]]:
        """Our message and its files, still to be linked; those of an earlier attempt, as they are meant now."""
        mark, text, files = self._mark(delivery.uid), draft.plain, []
        for found in await self._get("msg", "files", {"messageid:": mark}) if delivery.again else ():
            # A write there waits for what an earlier attempt is still making: after it, that can be seen.
            etag = (await self._get(f"msg/{found['id']}", "date"))["@etag"]
            await self._ask("PATCH", f"msg/{found['id']}", json={"@etag": etag, "date": ".", "content": text})
            return {"messages": [found["id"]], "files": [each["id"] for each in found["files"] or ()]}
        for file in filter(lambda file: file.size, draft.files):  # an empty one is refused, with the whole message
            made = await self._ask("POST", "file", form={"name": file.name, "type": file.type, "content": file})
            files.append(made["id"])
        said = {"author": draft.account or self.account, "content": text, "messageid": mark}
        said |= {"inreplyto": draft.answered.id} if draft.answered and draft.answered.id.startswith("<") else {}
        made = await self._ask("POST", "msg", json={**said, "date": ".", "files": files})
        return {"messages": [made["id"]], "files": files}

    async def check(self) -> list[model.Finding]:
        try:
            states = ", ".join(each["name"] for each in await self._get("status", "name", {"@sort": "order"}))
            await self._ask("POST", "msg", json={"passerelle": "?"})  # no such property: refused if all else is right
        except model.FAILURES as error:
            if "passerelle not found" not in str(error):
                return [model.Finding(False, str(error), "see url, web, username, password, and the account's rights")]
        return [model.Finding(True, f"{self.account} may read and write; states: {states}")]

    async def _get(self, path: str, fields: str, query: Mapping[str, str] | None = None) -> Any:
        data = await self._ask("GET", path, query={"@verbose": "3", "@fields": fields, **(query or {})})
        return data.get("collection", data)

    async def _ask(self, method: str, path: str, **what: Any) -> Any:
        """The data it answers with; None when others were quicker (412). Its own trouble is a 400 with a sentence."""
        reply = await self.http.request(method, f"rest/data/{path}", accept=(400, 403, 404, 405, 409, 412, 415), **what)
        said = reply.json() if reply.body[:1] == b"{" else {}
        if "data" in said or reply.status == 412:
            return said.get("data")
        reason = reply.reason or f"it answered {reply.status}"
        if path.startswith(f"{self.scope}/") and reason.startswith(("Requested item is retired", "no such")):
            raise Gone(reason)
        about_us = reply.status < 400 or reason.startswith(
            ("it answered", "Forbidden", "Required Header", "Client is not")
        )
        lost = reply.status < 300 and method != "GET"  # it has done something, and we do not know what
        meant = model.Unconfirmed if lost else model.Unavailable if about_us else Rejected
        raise (model.Deferred if "An error occurred" in reason else meant)(reason)

    def _name(self, link: Any) -> str:
        return str((link or {}).get("name", (link or {}).get("username", "")))

    def _has(self, value: Any, wanted: str | list[str]) -> bool:
        if isinstance(wanted, list):
            return {each["id"] for each in value or ()} >= set(wanted)
        return wanted in ((value or {"id": "-1"}).get("id"), self._name(value))
