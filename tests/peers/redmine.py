"""A real Redmine on loopback: the Debian package on SQLite, seeded once and copied for each server. It needs root.

The system's own Redmine is neither used nor changed; only its program and its empty database are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.peers import Child, free_port
from tests.peers.server import Seed, Server

PROGRAM = Path("/usr/share/redmine")
INSTANCES = Path("/var/lib/redmine")
EMPTY = Path("/var/lib/dbconfig-common/sqlite3/redmine/instances/default/redmine_default")
BRIDGE, CLERK = "bridge", "clerk"  # accounts for a bridge: an administrator, and one who is none
PROJECT, OTHER = "ops", "lab"
# The package's Gemfile names no web server. Its Gemfile.lock is of the bundler that Debian has patched.
GEMFILE = f"eval_gemfile '{PROGRAM}/Gemfile'\ngem 'webrick'\n"
BUNDLER = {"BUNDLER_VERSION": "2.3.15", "RAILS_ENV": "production", "LC_ALL": "C.UTF-8"}
# What nobody asks for is neither loaded nor written down: that is half of a start.
LOAD = f"""
require '{PROGRAM}/config/application'
Rails.application.config.before_initialize do |app|
  app.config.eager_load, Rails.logger.level = false, :warn
end
require '{PROGRAM}/config/environment'
"""
# An answer is written in two parts; without this the second waits for the first to be acknowledged, 40 ms each time.
AT_ONCE = """
require 'webrick'
WEBrick::GenericServer.prepend(Module.new do
  def accept_client(server) = super.tap { |socket| socket&.setsockopt(:TCP, :NODELAY, true) }
end)
"""
SEED = """
Setting.rest_api_enabled = '1'
Setting.login_required = '1'
Setting.attachment_max_size = '64'
Setting.notified_events = []
ops = Project.create!(name: 'Operations', identifier: 'ops', is_public: false, trackers: Tracker.all,
                      enabled_module_names: %w[issue_tracking])
lab = Project.create!(name: 'Laboratory', identifier: 'lab', is_public: false, trackers: Tracker.all,
                      enabled_module_names: %w[issue_tracking])
Project.create!(name: 'Wiki only', identifier: 'pages', is_public: false, enabled_module_names: %w[wiki])
{ 'alice' => 'Manager', 'bob' => 'Developer', 'carol' => 'Reporter', 'clerk' => 'Manager', 'bridge' => nil,
  'guest' => nil }.each do |login, role|
  user = User.new(firstname: login.capitalize, lastname: 'Example', mail: "#{login}@company.example",
                  admin: login == 'bridge', language: 'en')
  user.login, user.password = login, "#{login}-secret"
  user.save!
  Member.create!(project: ops, principal: user, roles: [Role.find_by_name(role)]) if role
  Member.create!(project: lab, principal: user, roles: [Role.find_by_name(role)]) if role == 'Manager'
end
IssueCustomField.create!(name: 'Matrix', field_format: 'string', is_for_all: true, is_filter: true,
                         trackers: Tracker.all)
"""
FIELD = 1  # the id of that custom field
Attached = tuple[str, bytes, str]  # name, content, MIME type


class Refused(Exception):
    """It answered with an error."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status


class Redmine(Server):
    """A ticket desk, and people who use it."""

    door = "/login"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "redmine"
        self.port = free_port()
        self.origin = self.url = f"http://127.0.0.1:{self.port}"
        address = ["-o", "127.0.0.1", "-p", str(self.port)]
        command = ["rackup", "-s", "webrick", *address, "-E", "production", str(self.folder / "config.ru")]
        quick = {"RUBYOPT": "--yjit"}  # compiled as it runs: after some requests each costs half
        self.child = Child(command, PROGRAM, folder / "redmine.log", _environment(self.folder) | quick)

    def prepare(self) -> None:
        PLANTED.copy(self.folder)
        _configure(self.folder)

    async def stop(self) -> None:
        self.child.kill()

    def password(self, user: str) -> str:
        return f"{user}-secret"

    # --- people at work

    async def open(self, title: str, text: str = "", by: str = "carol", **fields: Any) -> int:
        """Somebody makes an issue; returns its number."""
        issue = {"project_id": PROJECT, "subject": title, "description": text, **fields}
        return int((await self.call("POST", "issues.json", by, {"issue": issue}))["issue"]["id"])

    async def comment(
        self, issue: int, text: str, by: str = "carol", files: Sequence[Attached] = (), **more: Any
    ) -> int:
        """Somebody writes a note, with files; returns its number."""
        uploads = [await self.upload(*file, by=by) for file in files]
        await self.change(issue, by, notes=text, **({"uploads": uploads} if uploads else {}), **more)
        return int((await self.read(issue))["journals"][-1]["id"])

    async def upload(self, name: str, data: bytes, type: str, by: str) -> dict[str, str]:
        made = await self.call("POST", f"uploads.json?filename={name}", by, data)
        return {"token": made["upload"]["token"], "filename": name, "content_type": type}

    async def change(self, issue: int, by: str = "alice", **fields: Any) -> None:
        await self.call("PUT", f"issues/{issue}.json", by, {"issue": fields})

    async def remove(self, issue: int) -> None:
        await self.call("DELETE", f"issues/{issue}.json", BRIDGE)

    async def read(self, issue: int) -> Any:
        """The issue with journals and attachments, as an administrator sees it."""
        found = await self.call("GET", f"issues/{issue}.json?include=journals,attachments", BRIDGE)
        return found["issue"]

    async def titles(self) -> list[str]:
        """The titles of the newest hundred issues."""
        found = await self.call("GET", "issues.json?status_id=*&limit=100&sort=id:desc", BRIDGE)
        return [each["subject"] for each in found["issues"]]

    async def named(self, kind: str, name: str) -> int:
        """The id of a status, priority or tracker (`issue_statuses`, `enumerations/issue_priorities`, `trackers`)."""
        found = await self.call("GET", f"{kind}.json", BRIDGE)
        return int(next(each["id"] for each in found[kind.rpartition("/")[2]] if each["name"] == name))

    async def call(self, method: str, path: str, by: str, body: Mapping[str, Any] | bytes | None = None) -> Any:
        """Ask its REST interface as this user. Raises `Refused`."""
        headers = {"Authorization": aiohttp.encode_basic_auth(by, self.password(by))}
        headers |= {"Content-Type": "application/octet-stream"} if isinstance(body, bytes) else {}
        what: Any = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"{self.url}/{path}", **what) as answer,
        ):
            if not answer.ok:
                raise Refused(answer.status, await answer.text())
            return await answer.json() if await answer.read() else None


def _plant(home: Path) -> None:
    for part in ("config", "files", "log", "tmp", "public/plugin_assets"):
        (home / part).mkdir(parents=True)
    (home / "config" / "configuration.yml").write_text(
        "default:\n  email_delivery:\n    delivery_method: :test\n", encoding="utf-8"
    )
    (home / "config" / "secret_key.txt").write_text("0" * 64)
    (home / "Gemfile").write_text(GEMFILE)
    shutil.copy(INSTANCES / "Gemfile.lock", home)
    shutil.copy(EMPTY, home / "redmine.db")
    _configure(home)
    said = subprocess.run(
        ["ruby", "-"], cwd=PROGRAM, env=os.environ | _environment(home), input=LOAD + SEED,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if said.returncode:
        raise RuntimeError(f"Redmine could not be seeded:\n{said.stdout}{said.stderr}")


def _configure(home: Path) -> None:
    settings = f"production:\n  adapter: sqlite3\n  database: {home}/redmine.db\n  timeout: 10000\n"
    (home / "config" / "database.yml").write_text(settings)
    (home / "config.ru").write_text(f"{LOAD}{AT_ONCE}run Rails.application\n")


def _environment(home: Path) -> dict[str, str]:
    """An instance has its place below `INSTANCES`, which is a link; ours is named by the way up from there and down."""
    way = "../" * 8 + str(home.resolve()).lstrip("/")
    return {"REDMINE_INSTANCE": way, "BUNDLE_GEMFILE": str(home / "Gemfile"), **BUNDLER}


PLANTED = Seed("redmine", (SEED, BUNDLER, GEMFILE, LOAD), _plant)
