"""Fixtures: one Synapse for the whole run, and for each test a company of its own on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from bridge.watch.logs import OURS
from tests import spread
from tests.peers import free_port
from tests.peers.bridge import BridgeProcess, configuration, merged, prepare, write
from tests.peers.employee import Employee
from tests.peers.mediawiki import MediaWiki
from tests.peers.redmine import Redmine
from tests.peers.roundup import BRIDGE, Roundup
from tests.peers.secrets import listen, watch
from tests.peers.server import Server
from tests.peers.synapse import Account, Registration, Synapse
from tests.peers.tryton import Tryton
from tests.peers.world import Sink, letter, post

BOT = "passerelle"
MAILBOX = "support@company.example"
SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"  # where Debian puts daemons, and no PATH of a user looks
ABSENT = "needs the Debian package"  # why a test was not run


def company_with(**config: Any) -> pytest.MarkDecorator:
    """Mark a test: its company's bridge is configured like this. `bridge=False` leaves it stopped."""
    return pytest.mark.parametrize("company", [config], indirect=True, ids=["configured"])


@dataclass
class Staff:
    """The session's accounts, and where each one's sync ended: a test need not hear of earlier tests' rooms."""

    accounts: dict[str, Account] = field(default_factory=dict)
    since: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Company:
    """Everything a test needs: two employees in a room, a mailbox, the outside world, and the bridge between."""

    synapse: Synapse
    alice: Employee
    bob: Employee
    room: str
    mailbox: str
    sink: Sink
    bridge: BridgeProcess
    config: dict[str, Any]
    folder: Path
    bot: str
    staff: Staff
    stack: contextlib.AsyncExitStack

    @property
    def smtp(self) -> tuple[str, int]:
        """Where the bridge takes mail."""
        host, _, port = self.config["connectors"]["mail"]["listen"].rpartition(":")
        return host, int(port)

    async def post(self, to: str | list[str] | None = None, **fields: Any) -> EmailMessage:
        """Somebody outside writes a letter to the bridge; returns it once the bridge has taken it."""
        written = letter(to=to or self.mailbox, **fields)
        await self.deliver(written)
        return written

    async def deliver(
        self, message: EmailMessage | bytes, sender: str | None = None, recipients: list[str] | None = None
    ) -> str:
        """Hand a mail over by SMTP as it is; the envelope is read from its headers unless given."""
        if isinstance(message, EmailMessage):
            sender = parseaddr(str(message["From"]))[1] if sender is None else sender
            recipients = recipients or [address.addr_spec for address in message["To"].addresses]
        return await post(*self.smtp, sender or "", recipients or [self.mailbox], message)

    async def reconfigure(self, **changes: Any) -> None:
        """Start the bridge again with these changes, on the same data."""
        await self.bridge.stop()
        self.config = merged(self.config, changes)
        write(self.bridge.config, self.config)
        await self.bridge.start()

    async def hire(self, localpart: str) -> Employee:
        """Another employee, logged in and syncing until the test's end."""
        return await _at_work(self.synapse, self.staff, localpart, self.stack)


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that a test runs in this process sets up the log for the whole of it."""
    for module, names in ((logging, ("raiseExceptions", "logThreads", "logProcesses", "logMultiprocessing")),
                          (sys, ("excepthook",)), (threading, ("excepthook",))):  # fmt: skip
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    loggers = [logging.getLogger(name) for name in ("", *OURS)]
    before = [(each, each.level, list(each.handlers)) for each in loggers]
    yield
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers[:] = handlers


@pytest.fixture(autouse=True)
def _no_log_says_a_secret() -> Iterator[None]:
    """Whichever test makes a bridge log a secret, or what people write, fails."""
    yield
    assert watch.leaked() == []


@pytest.fixture(autouse=True, scope="session")
def _nor_at_the_end() -> Iterator[None]:
    """The same for what is logged while the last servers are stopped."""
    listen()
    yield
    assert watch.leaked() == []


@pytest.fixture(scope="session")
def bridge_port() -> int:
    """The port in the registration, known to the homeserver before any bridge runs."""
    return free_port()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def synapse(tmp_path_factory: pytest.TempPathFactory, bridge_port: int) -> AsyncIterator[Synapse]:
    """The homeserver of the whole run."""
    prepare()
    registration = Registration(f"http://127.0.0.1:{bridge_port}", bot=BOT)
    async with Synapse(tmp_path_factory.mktemp("synapse"), registration) as running:
        yield running


def one_for_all(kind: Callable[[Path], Server], scope: Literal["session", "module"]) -> Any:
    """A fixture: one server for every test of the run or of the module, each of which makes items of its own."""

    @pytest.fixture(scope=scope)
    def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        server = kind(tmp_path_factory.mktemp("server"))
        asyncio.run(server.start())
        yield server
        asyncio.run(server.stop())

    return running


redmine, tryton = one_for_all(Redmine, "session"), one_for_all(Tryton, "session")  # slow to start
mediawiki = one_for_all(MediaWiki, "module")


@pytest.fixture(scope="session")
def staff() -> Staff:
    return Staff()


@pytest_asyncio.fixture
async def employees(synapse: Synapse, staff: Staff) -> AsyncIterator[tuple[Employee, Employee]]:
    """Alice and Bob at work, without a room."""
    async with contextlib.AsyncExitStack() as stack:
        alice = await _at_work(synapse, staff, "alice", stack)
        yield alice, await _at_work(synapse, staff, "bob", stack)


@pytest_asyncio.fixture
async def sink() -> AsyncIterator[Sink]:
    """The outside mail server."""
    async with Sink() as running:
        yield running


@pytest_asyncio.fixture
async def company(
    request: pytest.FixtureRequest,
    synapse: Synapse,
    staff: Staff,
    employees: tuple[Employee, Employee],
    sink: Sink,
    tmp_path: Path,
) -> AsyncIterator[Company]:
    """A company of its own for one test, its bridge running. See `company_with`."""
    overrides = dict(getattr(request, "param", {}))
    start = overrides.pop("bridge", True)
    alice, bob = employees
    bot = f"@{BOT}:{synapse.server_name}"
    room = await alice.create_room(request.node.name[:60], invite=[bob.mxid, bot], powers={bot: 50})
    await bob.join(room)
    config = _configured(synapse, sink, tmp_path, {MAILBOX: room}, overrides)
    bridge = BridgeProcess(write(tmp_path / "bridge" / "passerelle.yaml", config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(bridge.stop)
        if start:
            await bridge.start()
        yield Company(synapse, alice, bob, room, MAILBOX, sink, bridge, config, tmp_path, bot, staff, stack)


@pytest_asyncio.fixture
async def desk(company: Company, tmp_path: Path) -> AsyncIterator[Roundup]:
    """A real issue tracker, mapped to the company's room beside its mailbox."""
    async with Roundup(tmp_path / "desk") as running:
        helpdesk = {
            "plugin": "roundup",
            "url": running.url,
            "username": BRIDGE,
            "password": running.password(BRIDGE),
            "every": 1,
        }
        await company.reconfigure(
            connectors={"helpdesk": helpdesk},
            mappings=[*company.config["mappings"], {"connector": "helpdesk", "scope": "issue", "room": company.room}],
        )
        yield running


def _configured(
    synapse: Synapse, sink: Sink, folder: Path, rooms: dict[str, str], overrides: dict[str, Any]
) -> dict[str, Any]:
    return configuration(
        synapse.url,
        synapse.registration,
        synapse.registration.url.removeprefix("http://"),
        smtp=f"127.0.0.1:{free_port()}",
        smarthost=(sink.host, sink.port),
        rooms=rooms,
        data=folder / "bridge" / "data",
        server_name=synapse.server_name,
        overrides=overrides,
    )


async def _at_work(synapse: Synapse, staff: Staff, localpart: str, stack: contextlib.AsyncExitStack) -> Employee:
    if localpart not in staff.accounts:
        staff.accounts[localpart] = await synapse.register(localpart, f"{localpart}-secret")
    account = staff.accounts[localpart]
    since = staff.since.get(localpart)
    employee = Employee(synapse.url, account.mxid, account.password, account.device, account.token, since)
    stack.callback(lambda: staff.since.update({localpart: employee.since}))
    return await stack.enter_async_context(employee)


def _find(command: str) -> str | None:
    return shutil.which(command) or shutil.which(command, path=SYSTEM_PROGRAMS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> spread.Together:
    return spread.Together(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    if config.args_source is config.ArgsSource.TESTPATHS:
        spread.compile_synapse()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.option.loadscopereorder = False  # by `order` instead
    worker: dict[str, Any] = getattr(session.config, "workerinput", {})
    if worker and session.config.args_source is session.config.ArgsSource.TESTPATHS:
        spread.compile_share(int(worker["workerid"].removeprefix("gw")), worker["workercount"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=spread.order)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.debian("postfix", "postconf")`: skip, and count, when the package's command is absent."""
    for mark in item.iter_markers("debian"):
        package, command = mark.args
        if _find(command) is None:
            pytest.skip(f"{ABSENT} {package}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.write_line(f"{sum(ABSENT in str(report.longrepr) for report in skipped)} not run")
