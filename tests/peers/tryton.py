"""A real Tryton on loopback: opportunities on SQLite, made once and copied for each use.

People act on it through its own JSON-RPC, as the desktop and web clients do. It is only ever spoken to over HTTP; what
makes the first database runs in processes of its own.
"""

from __future__ import annotations

import base64
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.peers import Child, free_port
from tests.peers.server import Seed, Server

DATABASE = "crm"
BRIDGE = "bridge"
MODEL = "sale.opportunity"
VERSIONS = [importlib.metadata.version(name) for name in ("trytond", "trytond_sale_opportunity")]
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
# As its own commands, but cheaper: a password is verified in no time (their Argon2 takes a second), and a thread keeps
# its connections to the database, each of which reads the whole schema when it is opened.
PROGRAM = """
import functools, sys, threading
from pwdlib.hashers import argon2
from trytond.backend.sqlite.database import Database
from werkzeug.serving import WSGIRequestHandler

argon2.Argon2Hasher = functools.partial(argon2.Argon2Hasher, time_cost=1, memory_cost=8, parallelism=1)
WSGIRequestHandler.protocol_version = "HTTP/1.1"
kept, connect = threading.local(), Database.connect

def reuse(self):
    free = vars(kept).setdefault(self.name, [])
    self._conn = self._conn or (free.pop() if free else None)
    return connect(self)

def put(self, connection=None):
    vars(kept).setdefault(self.name, []).append(connection)
    self._conn = None

Database.connect, Database.put_connection = reuse, put
from {module} import main
main()
"""
SETTINGS = """[database]
uri = sqlite://
path = {home}
[web]
listen = 127.0.0.1:{port}
hostname = 127.0.0.1:{port}
[email]
uri = smtp://127.0.0.1:9
"""
SEED = (
    PROGRAM.partition("from {")[0]
    + """
from trytond import config
config.update_etc(sys.argv[1])
from trytond.pool import Pool
from trytond.transaction import Transaction
Pool.start()
pool = Pool("crm")
pool.init()
with Transaction().start("crm", 1):
    get = pool.get
    Party, User, Group = get("party.party"), get("res.user"), get("res.group")
    rates = [("create", [dict(rate=1)])]
    [euro] = get("currency.currency").create(
        [dict(name="Euro", symbol="€", code="EUR", numeric_code="978", rates=rates)])
    [firm, acme] = Party.create([dict(name="Our Firm"), dict(
        name="Acme GmbH", addresses=[("create", [dict(street="Main 1")])],
        contact_mechanisms=[("create", [dict(type="email", value="buyer@acme.example")])])])
    [company] = get("company.company").create([dict(party=firm.id, currency=euro.id)])
    sales = Group.search([("name", "like", "Sale%")]) + Group.search([("name", "=", "Party Administration")])
    [bridges] = Group.create([dict(name="Bridge")])
    get("ir.model.access").create([dict(
        model="ir.chat.channel", group=bridges.id,
        perm_read=True, perm_write=False, perm_create=False, perm_delete=False)])
    for login, name in (("alice", "Alice Martin"), ("bob", "Bob Durand"), ("bridge", "Matrix bridge")):
        [person] = Party.create([dict(name=name)])
        [employee] = get("company.employee").create([dict(party=person.id, company=company.id)])
        groups = sales + ([bridges] if login == "bridge" else [])
        User.create([dict(
            login=login, name=name, password=login + "-password-1", email=login + "@company.example",
            companies=[("add", [company.id])], company=company.id, employees=[("add", [employee.id])],
            employee=employee.id, groups=[("add", [each.id for each in groups])])])
"""
)


class Refused(Exception):
    """Tryton answered with an error."""


class Tryton(Server):
    """Opportunities, and people who work on them."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.home = folder / "database"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        command = [*_program("trytond.cli"), "-c", str(folder / "trytond.conf"), "-d", DATABASE]
        self.child = Child(command, folder, folder / "trytond.log", ENVIRONMENT)
        self._sessions: dict[str, str] = {}
        self._context: dict[str, Any] = {}

    def password(self, user: str) -> str:
        return f"{user}-password-1"

    async def open(self, title: str, comment: str = "", by: str = "alice", **values: Any) -> int:
        """Somebody makes a lead of Acme's; returns its id."""
        [party] = await self.call("party.party", "search", [["name", "=", "Acme GmbH"]], 0, 1, None, by=by)
        given = {"description": title, "comment": comment, "party": party, **values}
        return int((await self.call(MODEL, "create", [given], by=by))[0])

    async def change(self, id: int, by: str = "alice", **values: Any) -> None:
        await self.call(MODEL, "write", [id], values, by=by)

    async def press(self, id: int, button: str, by: str = "alice") -> Any:
        return await self.call(MODEL, button, [id], by=by)

    async def quote(self, id: int, by: str = "bob") -> None:
        """What converting it has made is completed, and offered."""
        [sale] = await self.call("sale.sale", "search", [["origin", "=", f"{MODEL},{id}"]], 0, 1, None, by=by)
        line = {"type": "comment", "description": "as discussed"}
        await self.call("sale.sale", "write", [sale], {"lines": [["create", [line]]]}, by=by)
        await self.call("sale.sale", "quote", [sale], by=by)

    async def delete(self, id: int, by: str = "bob") -> None:
        """Cancelled first: nothing else can be deleted."""
        await self.press(id, "cancel", by)
        await self.call(MODEL, "delete", [id], by=by)

    async def chat(self, id: int, text: str, by: str = "alice", audience: str = "public", **context: Any) -> int:
        """Somebody says something in the chat; `user=…` in the context claims to be another."""
        post = self.call("ir.chat.channel", "post", f"{MODEL},{id}", text, audience, by=by, context=context)
        return int(await post)

    async def note(self, id: int, text: str, by: str = "alice") -> None:
        await self.call("ir.note", "create", [{"resource": f"{MODEL},{id}", "message": text}], by=by)

    async def attach(self, id: int, name: str, data: bytes, by: str = "alice") -> None:
        content = {"__class__": "bytes", "base64": base64.b64encode(data).decode()}
        values = {"resource": f"{MODEL},{id}", "name": name, "data": content}
        await self.call("ir.attachment", "create", [values], by=by)

    async def said(self, id: int) -> list[dict[str, Any]]:
        """The chat: who (`author`), what (`content`), for whom (`audience`)."""
        found: list[dict[str, Any]] = await self.call("ir.chat.channel", "get", f"{MODEL},{id}")
        return found

    async def files(self, id: int) -> list[tuple[str, bytes]]:
        domain, fields = [["resource", "=", f"{MODEL},{id}"]], ["name", "data"]
        found = await self.call("ir.attachment", "search_read", domain, 0, None, [["id", "ASC"]], fields)
        return [(each["name"], base64.b64decode(each["data"]["base64"])) for each in found]

    async def read(self, id: int, *fields: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.call(MODEL, "read", [id], list(fields)))[0]
        return found

    async def all(self, *fields: str) -> list[dict[str, Any]]:
        """Every opportunity, oldest first."""
        order = [["id", "ASC"]]
        found: list[dict[str, Any]] = await self.call(MODEL, "search_read", [], 0, None, order, list(fields))
        return found

    async def call(
        self, model: str, method: str, *params: Any, by: str = "alice", context: Mapping[str, Any] | None = None
    ) -> Any:
        """Ask as this user. Raises `Refused` with what it says."""
        if by not in self._sessions:
            login = [by, {"password": self.password(by)}, "en"]
            user, token, *_ = await self._post("common.db.login", login, {})
            self._sessions[by] = base64.b64encode(f"{by}:{user}:{token}".encode()).decode()
        headers = {"Authorization": f"Session {self._sessions[by]}"}
        if not self._context:
            known = await self._post("model.res.user.get_preferences", [True, {}], headers)
            self._context = {"company": known["company"], "language": "en"}
        return await self._post(f"model.{model}.{method}", [*params, {**self._context, **(context or {})}], headers)

    async def _post(self, method: str, params: list[Any], headers: Mapping[str, str]) -> Any:
        body = {"id": 0, "method": method, "params": params}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}{DATABASE}/rpc/", json=body, headers=headers) as answer,
        ):
            if answer.status != 200:
                raise Refused(f"{answer.status} {await answer.text()}")
            said = await answer.json()
            if "error" in said:
                raise Refused(str(said["error"]))
            return said["result"]

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        PLANTED.copy(self.home)
        (self.folder / "trytond.conf").write_text(SETTINGS.format(home=self.home, port=self.port))


def _plant(home: Path) -> None:
    folder, settings = home.parent, home.parent / "trytond.conf"
    home.mkdir()
    (home / f"{DATABASE}.sqlite").touch()
    settings.write_text(SETTINGS.format(home=home, port=free_port()))
    (folder / "password").write_text("admin-password-1\n")
    admin = [*_program("trytond.cli.admin"), "-c", str(settings), "-d", DATABASE, "--email", "admin@company.example"]
    _run([*admin, "-u", "sale_opportunity", "--activate-dependencies"], folder)
    _run([sys.executable, "-c", SEED, str(settings)], folder)


def _program(module: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(module=module)]


def _run(command: list[str], folder: Path) -> None:
    environment = os.environ | ENVIRONMENT | {"TRYTONPASSFILE": str(folder / "password")}
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if said.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{said.stdout}{said.stderr}")


PLANTED = Seed("tryton", (VERSIONS, SETTINGS, SEED), _plant)
