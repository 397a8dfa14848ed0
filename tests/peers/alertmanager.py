"""A real Alertmanager on loopback: groups by alertname and service, and a webhook for every change of a group.

What has the label team=night goes to a receiver of its own.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from tests.peers import Child, free_port
from tests.peers.server import Server

RECEIVER, NIGHT, LOGIN, TOKEN = "bridge", "night", ("bridge", "bridge-pw"), "hook-secret"
# bcrypt of the password, as quick as it gets.
USERS = "basic_auth_users:\n  bridge: $2b$05$bnrEGSg9x8q95fyXH1fywu/3Atu4RVt.fNttNqpCgM59QXjpUxkOW\n"


class Alertmanager(Server):
    """One server in one folder. `hook` is where its webhooks go; "" sends none."""

    door = "-/ready"

    def __init__(self, folder: Path, hook: str = "") -> None:
        self.folder, self.hook, self.port = folder, hook, free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._started: dict[tuple[str, str], str] = {}
        program = shutil.which("prometheus-alertmanager") or "prometheus-alertmanager"
        options = {
            "config.file": "am.yml", "web.config.file": "web.yml", "storage.path": "data",
            "web.listen-address": f"127.0.0.1:{self.port}", "web.external-url": self.url, "cluster.listen-address": "",
        }  # fmt: skip
        command = [program, *(f"--{name}={value}" for name, value in options.items())]
        self.child = Child(command, folder, folder / "alertmanager.log")

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "web.yml").write_text(USERS)
        (self.folder / "am.yml").write_text(json.dumps(self._settings()))  # JSON is YAML

    async def fire(self, name: str, summary: str = "", instance: str = "n1", **more: str) -> None:
        """An alert fires: `more` are labels, and `value` the annotation of that name."""
        await self._alert(name, instance, summary, None, more)

    async def resolve(self, name: str, instance: str = "n1", **more: str) -> None:
        """That alert ends, with the same labels."""
        await self._alert(name, instance, "", datetime.now(UTC), more)

    async def silences(self) -> list[Any]:
        """Those that hold."""
        found = await self.call("GET", "silences")
        return [each for each in found if each["status"]["state"] == "active"]

    async def reload(self, hook: str) -> None:
        """From now on webhooks go there."""
        self.hook = hook
        (self.folder / "am.yml").write_text(json.dumps(self._settings()))
        async with self._session() as http:
            (await http.post("-/reload")).raise_for_status()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with self._session() as http, http.request(method, f"api/v2/{path}", json=body) as answer:
            answer.raise_for_status()
            return json.loads(await answer.read() or b"null")

    async def _alert(self, name: str, instance: str, summary: str, end: datetime | None, more: dict[str, str]) -> None:
        said = {"summary": summary, "value": more.pop("value", "")}
        start = more.pop("start", "") or self._started.get((name, instance)) or datetime.now(UTC).isoformat()
        labels = {"alertname": name, "service": "shop", "instance": instance, "severity": "warning", **more}
        times = {"startsAt": start, "endsAt": (end or datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        await self.call("POST", "alerts", [{"labels": labels, "annotations": said, **times}])
        self._started[name, instance] = "" if end else start  # as Prometheus does: the same until it has ended

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.url, headers={"Authorization": aiohttp.encode_basic_auth(*LOGIN)})

    def _settings(self) -> dict[str, Any]:
        bearer = {"authorization": {"type": "Bearer", "credentials": TOKEN}}
        hooks = [{"url": self.hook, "http_config": bearer}] if self.hook else []
        times = {"group_wait": "50ms", "group_interval": "100ms", "repeat_interval": "1h"}
        return {
            "route": {
                "receiver": RECEIVER, "group_by": ["alertname", "service"], **times,
                "routes": [{"matchers": ['team="night"'], "receiver": NIGHT}],
            },
            "receivers": [{"name": name, "webhook_configs": hooks} for name in (RECEIVER, NIGHT)],
        }  # fmt: skip
