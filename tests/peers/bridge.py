"""The bridge itself, run for a test: as a process that can be killed, or inside the test's own loop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from tests.peers import ROOT, Child, until
from tests.peers.synapse import Registration


def configuration(
    homeserver: str,
    registration: Registration,
    listen: str,
    *,
    smtp: str,
    smarthost: tuple[str, int],
    rooms: Mapping[str, str],
    data: Path,
    server_name: str = "company.example",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A bridge's configuration with one mail connector, `support`; `rooms` maps its mailboxes to rooms."""
    host, port = smarthost
    mailboxes = [{"address": each, "name": _name(each), "signature": f"{_name(each)} at Company"} for each in rooms]
    plain: dict[str, Any] = {
        "homeserver": {"url": homeserver, "server_name": server_name},
        "appservice": {
            "listen": listen,
            "id": registration.id,
            "as_token": registration.as_token,
            "hs_token": registration.hs_token,
            "bot": registration.bot,
            "ghosts": registration.ghosts,
        },
        "data": str(data),
        "inside": {"domains": [server_name]},
        "outward": {"hold": 0.5},
        "retry": {"first": 0.2, "longest": 2},
        "connectors": {
            "mail": {
                "plugin": "mail",
                "listen": smtp,
                "hostname": f"bridge.{server_name}",
                "mailboxes": mailboxes,
                "smarthost": {"host": host, "port": port, "security": "none"},
            }
        },
        "mappings": [{"connector": "mail", "scope": address, "room": room} for address, room in rooms.items()],
    }
    return merged(plain, overrides or {})


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, sections merged key by key."""
    mixed = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        mixed[key] = merged(base[key], value) if both else value
    return mixed


def write(path: Path, config: Mapping[str, Any]) -> Path:
    """Write the configuration where `bridge run` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    return path


class BridgeProcess:
    """`python -m bridge run CONFIG` as a child. Killed and started again it goes on with the same data."""

    def __init__(self, config: Path, log: Path | None = None, environment: dict[str, str] | None = None) -> None:
        self.config = config
        self.log = log or config.with_suffix(".log")
        listen = yaml.safe_load(config.read_text())["appservice"]["listen"]
        self.url = f"http://{listen}"
        self.child = Child(
            [sys.executable, "-m", "bridge", "run", "--config", str(config)],
            config.parent,
            self.log,
            {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | (environment or {}),
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def running(self) -> bool:
        return self.child.running

    async def start(self, wait: bool = True, timeout: float = 30) -> None:
        """Start it; returns when it says that it is ready, or at once without `wait`."""
        self.child.start()
        if wait:
            await self.ready(timeout)

    async def ready(self, timeout: float = 30) -> None:
        """Wait until it says that it is ready."""
        async with aiohttp.ClientSession() as http:
            try:
                await until(lambda: self._answers(http), "the bridge to be ready", timeout)
            except AssertionError as error:
                raise AssertionError(f"{error}; its log ends:\n{self.child.tail()}") from None

    async def stop(self) -> int:
        """SIGTERM: let it finish what it holds. Returns the exit code."""
        return await self.child.stop(timeout=30)

    def kill(self) -> None:
        """SIGKILL: let it finish nothing."""
        self.child.kill()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def _answers(self, http: aiohttp.ClientSession) -> bool:
        if not self.running:
            raise RuntimeError(f"the bridge ended while starting:\n{self.child.tail()}")
        try:
            async with http.get(f"{self.url}/ready") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


@contextlib.asynccontextmanager
async def running_bridge(config_path: Path) -> AsyncIterator[Any]:
    """The bridge in this very loop, for tests that look inside; yields the `App`."""
    from bridge.app import App
    from bridge.config import load

    config, connectors = load(config_path)
    app = App(config, connectors)
    async with app.running():
        yield app


def _name(address: str) -> str:
    return address.partition("@")[0].replace(".", " ").title()
