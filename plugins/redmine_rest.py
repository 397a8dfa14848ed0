"""Redmine's REST interface: asking it as ourselves or as an employee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from bridge.connector import Http, Reply
from bridge.model import Author, File, Gone, Rejected, Unavailable
from plugins import redmine_json as raw

PAGE = 100  # the most that it gives at once
SETTLED = timedelta(seconds=2)  # times are whole seconds: what was younger is looked at again, once
SWITCH = "X-Redmine-Switch-User"
LISTS = {"status": "issue_statuses", "priority": "enumerations/issue_priorities", "tracker": "trackers"}


class Rest:
    """The interface of one server; `name` is what people know it by, `prefix` is of its keys."""

    def __init__(self, name: str, prefix: str, http: Http) -> None:
        self.name, self.prefix, self.http = name, prefix, http
        self._projects: dict[int, str] = {}  # identifiers by number
        self._people: dict[int, tuple[str, str]] = {}  # login and name by number

    async def ask(self, method: str, path: str, by: str = "", accept: Sequence[int] = (), **what: Any) -> Reply:
        """As the account `by`. A 403 or 404 is a refusal; but it is trouble when we may not even ask who we are."""
        headers = {SWITCH: by} if by else {}
        reply = await self.http.request(method, path, headers=headers, accept=(403, 404, *accept), **what)
        if reply.status == 404 or (reply.status == 403 and not by and 403 not in accept):
            await self._alive()
        if reply.status in {403, 404} - set(accept):
            why = "has not what was asked for" if reply.status == 404 else f"does not let {by or 'the bridge'} do that"
            raise Rejected(f"{self.name} {why}")
        return reply

    async def _alive(self) -> None:
        """Raises `Unavailable` when it is not Redmine that answers, or not to us: then no 403 or 404 means anything."""
        self.part(await self.http.request("GET", "users/current.json", accept=(404,)), "user")

    def part(self, reply: Reply, part: str) -> Any:
        """What it gave under that name. Raises `Unavailable` when it is not there."""
        found = reply.json()
        if not isinstance(found, dict) or part not in found:
            raise Unavailable(f"{self.name} answered without {part}: {reply.reason or reply.status}")
        return found[part]

    async def get(self, path: str, part: str, query: Mapping[str, str] | None = None) -> Any:
        return self.part(await self.ask("GET", path, query=query), part)

    async def issues(self, query: Mapping[str, str]) -> Any:
        """Those of any status that fit, without journals; a page."""
        return await self.get("issues.json", "issues", {"status_id": "*", "limit": str(PAGE), **query})

    async def since(self, place: str, skip: int) -> tuple[Any, datetime]:
        """A page of those changed since then, the oldest first, and until when no more can come before its end."""
        query = {"status_id": "*", "sort": "updated_on,id", "updated_on": f">={place}", "offset": str(skip)}
        reply = await self.ask("GET", "issues.json", query={**query, "limit": str(PAGE)})
        rows = self.part(reply, "issues")
        # A filter that it cannot read is left out; parts of a second may bring what is one older.
        if rows and raw.when(rows[0]["updated_on"]) < raw.when(place) - SETTLED:
            raise Unavailable(f"{self.name} was asked for changes since {place} and answered with older ones")
        return rows, raw.clock(reply) - SETTLED

    async def issue(self, number: str, by: str = "") -> Any:
        """One, its journals oldest first (people may have it the other way). Raises `Gone`."""
        query = {"include": "journals,attachments,allowed_statuses"}
        reply = await self._one("GET", number, by, query=query)
        issue = self.part(reply, "issue")
        return issue | {"journals": sorted(issue["journals"], key=lambda each: each["id"])}

    async def put(self, number: str, by: str, change: Mapping[str, Any]) -> None:
        """Change one. It says 204 whether or not it has done it. Raises `Gone`."""
        await self._one("PUT", number, by, json={"issue": change})

    async def _one(self, method: str, number: str, by: str, **what: Any) -> Reply:
        reply = await self.ask(method, f"issues/{number}.json", by, accept=(404,), **what)
        if reply.status == 404:
            raise Gone(f"{self.prefix}#{number} is not there: it was removed, or never made")
        return reply

    async def found(self, words: Sequence[str], scopes: Sequence[str]) -> list[tuple[Any, bool]]:
        """At most ten issues of these projects that have all the words in their title and description, or in a note;
        and whether all that has them is private notes.
        """
        rows: list[Any] = []
        for scope in scopes:
            query = {"q": " ".join(words), "all_words": "1", "issues": "1", "limit": str(PAGE)}
            reply = await self.ask("GET", f"projects/{quote(scope, safe='')}/search.json", query=query, accept=(404,))
            rows += self.part(reply, "results") if reply.status == 200 else ()
        words = [word.casefold() for word in words]  # it was asked for them as they were written: "ß" is no "ss" to it
        rows.sort(key=lambda row: (raw.has(row["title"], words), row["id"]), reverse=True)
        found = []
        for issue in [await self.issue(row["id"]) for row in rows[:10]]:
            notes = [(each["notes"], each.get("private_notes", False)) for each in issue["journals"]]
            said = [(f"{issue['subject']} {issue['description']}", False), *notes]
            if hidden := [private for text, private in said if raw.has(text, words)]:  # it reads % and _ as anything
                found.append((issue, all(hidden)))
        return found

    async def acting_as(self, account: str) -> str:
        """As whom it lets us write: that account, or "" (our own) when ours is no administrator's."""
        if not account:
            return ""
        reply = await self.http.request("GET", "users/current.json", headers={SWITCH: account}, accept=(412,))
        if reply.status == 412:
            raise Rejected(f"{self.name} has no active account {account}")
        return account if self.part(reply, "user")["login"].casefold() == account.casefold() else ""

    async def upload(self, file: File, by: str) -> dict[str, str]:
        """Give it a file first; returns what a note says to have it. It takes no other type."""
        raw = replace(file, type="application/octet-stream")
        reply = await self.ask("POST", "uploads.json", by, query={"filename": file.name}, body=raw)
        return {"token": self.part(reply, "upload")["token"], "filename": file.name, "content_type": file.type}

    async def listed(self, field: str) -> Any:
        """All statuses, priorities or trackers."""
        return await self.get(f"{LISTS[field]}.json", LISTS[field].rpartition("/")[2])

    async def choice(self, field: str, value: str) -> str:
        """The number of what has this name. Raises `Rejected` with the names that it knows."""
        if field != "assigned_to":
            found = [(each["name"], each) for each in await self.listed(field)]
        elif value == "-1":
            return ""
        else:
            reply = await self.ask("GET", "users.json", query={"name": value, "limit": str(PAGE)}, accept=(403,))
            if reply.status == 403:
                raise Rejected("people can be looked for only when the bridge's account is an administrator's")
            found = [(each["login"], each) for each in self.part(reply, "users")]
        number = next((each["id"] for name, each in found if name.casefold() == value.casefold()), None)
        if number is None:
            raise Rejected(f"{self.name} knows no {value}; it has: {', '.join(name for name, _ in found) or 'nobody'}")
        return str(number)

    async def projects(self) -> list[str]:
        """Identifiers of its open projects that have issues."""
        found: list[Any] = []
        query = {"include": "enabled_modules", "limit": str(PAGE)}
        while len(found) % PAGE == 0:
            more = await self.get("projects.json", "projects", {**query, "offset": str(len(found))})
            if not more:
                break
            found += more
        self._projects = {each["id"]: each["identifier"] for each in found}
        having = [each for each in found if "issue_tracking" in {part["name"] for part in each["enabled_modules"]}]
        return [each["identifier"] for each in having if each["status"] == 1]

    async def identifier(self, project: int) -> str:
        if project not in self._projects:
            await self.projects()
        return self._projects.get(project, f"project {project}")

    async def person(self, number: int) -> tuple[str, str]:
        """Login and name; "" where it names none (a group, somebody anonymous)."""
        if number not in self._people:
            reply = await self.ask("GET", f"users/{number}.json", accept=(404,))
            found = self.part(reply, "user") if reply.status == 200 else {}
            name = f"{found.get('firstname', '')} {found.get('lastname', '')}".strip()
            self._people[number] = found.get("login") or "", name
        return self._people[number]

    async def author(self, user: Any) -> Author:
        """Whom it names no account of proves nothing."""
        login, name = await self.person(user["id"]) if user else ("", "")
        account = login or (f"user{user['id']}" if user else "")
        return Author(self.name, account, user.get("name") or name if user else "", verified=bool(login))

    async def before(self, issue: Any, journal: Any, fields: Sequence[str]) -> Any:
        """The issue as it was before what the journal tells of these fields, and of its title."""
        for each in [each for each in journal["details"] if each["property"] == "attr"]:
            field, old = each["name"].removesuffix("_id"), each["old_value"]
            if field in fields:
                issue = issue | {field: {"name": await self._called(field, old)} if old else None}
            elif field == "subject":
                issue = issue | {field: old}
        return issue

    async def _called(self, field: str, number: str) -> str:
        if field == "assigned_to":
            return (await self.person(int(number)))[1]
        return next((each["name"] for each in await self.listed(field) if str(each["id"]) == number), "")
