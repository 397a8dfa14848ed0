"""The bridge itself, run for a test: as a process that can be killed, or inside the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from bridge.app import Bridge, opened
from bridge.config import load
from tests.peers import ROOT, Child, Process, die_with_parent, until
from tests.peers.secrets import watch
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


class Forked(Child):
    """The bridge's command line, forked from a process that has imported it: a start costs no imports.

    That process is the standard library's fork server; it ends with us, and its children with it.
    """

    def _spawned(self) -> Process:
        environment = dict(os.environ) | self.environment
        forked = _forks().Process(target=_command_line, args=(self.command, self.folder, self.log, environment))
        forked.start()
        return _AsPopen(forked)


class _AsPopen:
    """A multiprocessing.Process that answers as a subprocess.Popen."""

    def __init__(self, forked: ForkServerProcess) -> None:
        self.forked = forked

    @property
    def pid(self) -> int:
        assert self.forked.pid is not None
        return self.forked.pid

    @property
    def returncode(self) -> int:
        assert self.forked.exitcode is not None
        return self.forked.exitcode

    def poll(self) -> int | None:
        return self.forked.exitcode

    def wait(self) -> int:
        self.forked.join()
        return self.returncode


@functools.cache
def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bridge.cli", "plugins.mail"])
    return context


def prepare() -> None:
    """Let the imports begin, so that the first bridge of a run need not wait for them."""
    _forks()
    forkserver.ensure_running()


def _command_line(command: list[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
    """Runs in the fork: become what a shell would have started."""
    os.setsid()
    die_with_parent()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for standard in (1, 2):
        os.dup2(file, standard)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from bridge.cli import main

    main(command)


class BridgeProcess:
    """The bridge as a process, ready to be killed. Started again it goes on with the same data.

    `fresh` starts `python -m bridge`, as an admin does, instead of the quicker fork.
    """

    def __init__(
        self, config: Path, log: Path | None = None, environment: dict[str, str] | None = None, fresh: bool = False
    ) -> None:
        self.config = config
        self.log = log or config.with_suffix(".log")
        watch.started(config, self.log)
        listen = yaml.safe_load(config.read_text())["appservice"]["listen"]
        self.url = f"http://{listen}"
        arguments = ["run", "--config", str(config)]
        more = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | (environment or {})
        self.child = (
            Child([sys.executable, "-m", "bridge", *arguments], config.parent, self.log, more)
            if fresh
            else Forked(arguments, config.parent, self.log, more)
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
        try:
            await _ready(self.url, lambda: self.running, timeout)
        except (AssertionError, RuntimeError) as error:
            raise type(error)(f"{error}; its log ends:\n{self.child.tail()}") from None

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


@contextlib.asynccontextmanager
async def running_bridge(config_path: Path) -> AsyncIterator[Bridge]:
    """The bridge in this very loop, ready, for tests that look inside."""
    settings, connectors = load(config_path)
    watch.configured(config_path)
    async with opened(settings, connectors) as bridge:
        running = asyncio.create_task(bridge.run(), name="bridge")
        try:
            await _ready(f"http://{settings.appservice.listen}", lambda: not running.done())
            yield bridge
        finally:
            bridge.stop()
            await running


async def _ready(url: str, alive: Callable[[], bool], timeout: float = 30) -> None:
    """Wait until the bridge says that it is ready. Raises `RuntimeError` when it has ended instead."""
    async with aiohttp.ClientSession() as http:

        async def answers() -> bool:
            if not alive():
                raise RuntimeError("the bridge ended while starting")
            try:
                async with http.get(f"{url}/ready") as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        await until(answers, "the bridge to be ready", timeout)


def _name(address: str) -> str:
    return address.partition("@")[0].replace(".", " ").title()
