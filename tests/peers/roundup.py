"""A real Roundup on loopback: the classic tracker on SQLite, seeded once and copied for each test.

People act on it through its own REST interface. The journal, which that interface never shows, is
read from its database.
"""

from __future__ import annotations

import ast
import base64
import configparser
import contextlib
import importlib.metadata
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.peers import Child, free_port
from tests.peers.server import Seed, Server

VERSION = importlib.metadata.version("roundup")
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
NAME = "desk"
BRIDGE = "bridge"
PEOPLE = {
    "alice": ("alice@company.example", "Alice Martin", "User"),
    "bob": ("bob@company.example", "Bob Durand", "User"),
    "carol": ("carol@outside.example", "Carol Customer", "User"),
    BRIDGE: ("bridge@company.example", "Matrix bridge", "User,Bridge"),
}
# What a service account needs beyond a user's rights: to know people by their mail address.
RIGHTS = """
db.security.addRole(name="Bridge", description="Speaks for people elsewhere")
for each in ("View", "Search"):
    db.security.addPermissionToRole("Bridge", db.security.addPermission(
        name=each, klass="user", properties=("id", "username", "realname", "address", "alternate_addresses")))
"""
SETTINGS = {
    "main": {"admin_email": "admin@company.example", "password_pbkdf2_default_rounds": "1000"},  # else 0.2 s a request
    "tracker": {"name": "Help desk", "email": "issues"},
    "web": {"secret_key": "only-for-tests"},
    "rdbms": {"backend": "sqlite"},
    "mail": {"domain": "desk.example", "host": "127.0.0.1"},
}
File = tuple[str, bytes, str]  # name, content, MIME type


class Refused(Exception):
    """The tracker answered with an error."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Message:
    """A comment as the tracker has it; `linked` or not."""

    id: str
    author: str
    content: str
    date: str
    recipients: tuple[str, ...]
    messageid: str
    inreplyto: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Issue:
    """An issue as the tracker has it, links by name."""

    id: str
    title: str
    status: str
    priority: str
    assignedto: str
    nosy: tuple[str, ...]
    superseder: tuple[str, ...]
    keyword: tuple[str, ...]
    actor: str
    files: tuple[str, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Change:
    """A line of the journal: who did what, and the values before it."""

    date: str
    user: str
    action: str
    was: Any


class Roundup(Server):
    """One tracker in one folder.

    `detectors` are Python files that the tracker runs at each change, `smtp` is where its nosy mail goes (without:
    into a file, see `mails`), `settings` are sections of its config.ini.
    """

    door = "rest/"

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        smtp: tuple[str, int] | None = None,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        detectors: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.home = folder / "tracker"
        self.port = port or free_port()
        self.smtp = smtp
        self.settings = settings or {}
        self.detectors = detectors or {}
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/{NAME}/"
        address = ["-n", "127.0.0.1", "-p", str(self.port)]
        command = [sys.executable, "-m", "roundup.scripts.roundup_server", "-t", "thread", *address, *_user()]
        self.child = Child([*command, f"{NAME}={self.home}"], folder, folder / "roundup.log", ENVIRONMENT)

    def reset(self) -> None:
        """As on its first day, while it runs: it opens its database anew for each request."""
        old, new = self.home / "db-old", self.home / "db-new"
        shutil.copytree(PLANTED.made / "db", new)
        (self.home / "db").rename(old)
        new.rename(self.home / "db")
        shutil.rmtree(old)
        self._mails.unlink(missing_ok=True)

    def password(self, user: str) -> str:
        return f"{user}-secret"

    async def open(self, title: str, text: str | None = None, by: str = "alice", **fields: Any) -> str:
        """Somebody makes an issue, with a first message if there is a text; returns its id."""
        messages = {"messages": [await self.write(text, by)]} if text is not None else {}
        return str((await self.call("POST", "issue", by, {"title": title, **messages, **fields}))["id"])

    async def comment(self, issue: str, text: str, by: str = "alice", files: Sequence[File] = (), **fields: Any) -> str:
        """Somebody comments, with files; returns the message's id."""
        uploaded = [await self.upload(*file, by=by) for file in files]
        message = await self.write(text, by, files=uploaded, **fields)
        await self.change(issue, by, "add", messages=[message], **({"files": uploaded} if uploaded else {}))
        return message

    async def write(self, text: str, by: str = "alice", **fields: Any) -> str:
        """Make a message that no issue shows yet."""
        return str((await self.call("POST", "msg", by, {"author": by, "content": text, **fields}))["id"])

    async def upload(self, name: str, content: bytes, type: str = "application/octet-stream", by: str = "alice") -> str:
        form = aiohttp.FormData({"name": name, "type": type})
        form.add_field("content", content, filename=name)
        return str((await self.call("POST", "file", by, form))["id"])

    async def change(self, issue: str, by: str = "alice", op: str = "replace", **fields: Any) -> Any:
        """Somebody changes an issue: links by name or id; `op` may be add or remove for those that hold several."""
        while True:
            tag = (await self.call("GET", f"issue/{issue}", by))["@etag"]
            try:
                return await self.call("PATCH", f"issue/{issue}", by, {"@op": op, "@etag": tag, **fields})
            except Refused as error:
                if error.status != 412:  # somebody else was quicker
                    raise

    async def retire(self, kind: str, id: str) -> None:
        """The administrator removes an issue or a message (kind `issue` or `msg`)."""
        tag = (await self.call("GET", f"{kind}/{id}", "admin"))["@etag"]
        await self.call("DELETE", f"{kind}/{id}", "admin", headers={"If-Match": tag})

    async def read(self, issue: str) -> Issue:
        shown = (await self.call("GET", f"issue/{issue}?@verbose=2&@protected=true", "admin"))["attributes"]
        return Issue(
            id=issue,
            title=shown["title"] or "",
            status=_label(shown["status"], "name"),
            priority=_label(shown["priority"], "name"),
            assignedto=_label(shown["assignedto"], "username"),
            nosy=_labels(shown["nosy"], "username"),
            superseder=_labels(shown["superseder"], "id"),
            keyword=_labels(shown["keyword"], "name"),
            actor=_label(shown["actor"], "username"),
            files=_labels(shown["files"], "id"),
            messages=tuple([await self.message(each["id"]) for each in shown["messages"]]),
        )

    async def message(self, id: str) -> Message:
        shown = (await self.call("GET", f"msg/{id}?@verbose=3", "admin"))["attributes"]
        return Message(
            id=id,
            author=_label(shown["author"], "username"),
            content=shown["content"] or "",
            date=shown["date"] or "",
            recipients=_labels(shown["recipients"], "username"),
            messageid=shown["messageid"] or "",
            inreplyto=shown["inreplyto"] or "",
            files=_labels(shown["files"], "id"),
        )

    async def download(self, file: str) -> File:
        shown = (await self.call("GET", f"file/{file}", "admin"))["attributes"]
        async with (
            self._session("admin") as http,
            http.get(f"{self.url}rest/data/file/{file}/binary_content") as answer,
        ):
            return shown["name"], await answer.read(), shown["type"]

    async def issues(self, **having: str) -> list[str]:
        """The ids of the issues that have this, oldest first."""
        found = await self.call("GET", "issue", "admin", params={**having, "@sort": "id"})
        return [each["id"] for each in found["collection"]]

    async def messages(self, marker: str) -> list[Message]:
        """All messages that carry the marker in text or message id, whether an issue shows them or not."""
        found = await self.call("GET", "msg", "admin", params={"@sort": "id"})
        every = [await self.message(each["id"]) for each in found["collection"]]
        return [each for each in every if marker in each.content or marker in each.messageid]

    async def count(self, marker: str) -> int:
        """How often the marker is on issues: what people see of it."""
        shown = [each for issue in await self.issues() for each in (await self.read(issue)).messages]
        return sum(marker in each.content or marker in each.messageid for each in shown)

    def history(self, issue: str) -> list[Change]:
        """The journal of an issue, oldest first."""
        rows = "SELECT j.date, u._username, j.action, j.params FROM issue__journal j LEFT JOIN _user u ON u.id = j.tag"
        with contextlib.closing(sqlite3.connect(f"file:{self.home}/db/db?mode=ro", uri=True)) as database:
            found = database.execute(f"{rows} WHERE j.nodeid = ? ORDER BY j.date, j.rowid", (issue,)).fetchall()
        return [Change(date, user, action, ast.literal_eval(was)) for date, user, action, was in found]

    def mails(self) -> str:
        """What it has mailed, when it was given no `smtp`."""
        return self._mails.read_text(errors="replace") if self._mails.exists() else ""

    async def call(
        self,
        method: str,
        path: str,
        by: str,
        body: Mapping[str, Any] | aiohttp.FormData | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask its REST interface as this user. Raises `Refused` with what it says."""
        content = {"data": body} if isinstance(body, aiohttp.FormData) else {"json": body}
        url = f"{self.url}rest/data/{path}"
        async with (
            self._session(by) as http,
            http.request(method, url, params=params, headers=headers, **content) as answer,
        ):
            if not answer.ok:
                raise Refused(answer.status, await answer.text())
            return (await answer.json())["data"]

    def _session(self, user: str) -> aiohttp.ClientSession:
        """A write needs both headers, or it says 400 (csrf)."""
        secret = base64.b64encode(f"{user}:{self.password(user)}".encode()).decode()
        headers = {"X-Requested-With": "tests", "Origin": self.origin, "Authorization": f"Basic {secret}"}
        return aiohttp.ClientSession(headers=headers)

    @property
    def _mails(self) -> Path:
        return self.folder / "mails"

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        PLANTED.copy(self.home)
        for name, code in self.detectors.items():
            (self.home / "detectors" / name).write_text(code)
        host, port = self.smtp or ("127.0.0.1", 25)
        mail = {"host": host, "port": str(port)} | ({} if self.smtp else {"debug": str(self._mails)})
        _configure(self.home, {"tracker": {"web": self.url}, "mail": mail}, self.settings)


def _plant(home: Path) -> None:
    _admin(home, f"install classic sqlite tracker_web=http://127.0.0.1/{NAME}/,mail_domain=x,mail_host=x,admin_email=x")
    _configure(home, {"tracker": {"web": f"http://127.0.0.1/{NAME}/"}})
    with (home / "schema.py").open("a") as schema:
        schema.write(RIGHTS)
    _admin(home, "initialise admin-secret")
    lines = [
        f'create user username={name} password={name}-secret address={address} realname="{real}" roles={roles}'
        for name, (address, real, roles) in PEOPLE.items()
    ]
    _admin(home, *lines, "create keyword name=billing", "commit")


def _admin(home: Path, *lines: str) -> None:
    """Give commands to roundup-admin; it answers 0 whatever happens to those it reads from a pipe."""
    command = [sys.executable, "-m", "roundup.scripts.roundup_admin", "-i", str(home)]
    alone = lines[0].split() if len(lines) == 1 else []
    said = subprocess.run(
        [*command, *alone],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT,
        check=False,
    )
    if said.returncode or re.search(r"^(roundup> )?(Error|Traceback)", said.stdout + said.stderr, re.MULTILINE):
        raise RuntimeError(f"roundup-admin failed:\n{said.stdout}{said.stderr}")


def _configure(home: Path, *more: Mapping[str, Mapping[str, str]]) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    for sections in (SETTINGS, *more):
        parser.read_dict(sections)
    with (home / "config.ini").open("w") as file:
        parser.write(file)


def _user() -> list[str]:
    """Started by root it wants to be told as whom to run. It stays who we are, so that it can read our folders."""
    return ["-u", str(os.getuid())] if os.getuid() == 0 else []


def _label(link: Mapping[str, str] | None, name: str) -> str:
    return link[name] if link else ""


def _labels(links: Sequence[Mapping[str, str]], name: str) -> tuple[str, ...]:
    return tuple(link[name] for link in links)


PLANTED = Seed("roundup", (VERSION, PEOPLE, RIGHTS, SETTINGS), _plant)
