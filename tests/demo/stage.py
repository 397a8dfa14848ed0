"""What runs in the demo: a real homeserver, real tools, the bridge, a world outside; accounts, a space, rooms."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import re
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.demo import crm, documents, tracker
from tests.demo.crm import Crm
from tests.demo.documents import Documents
from tests.demo.tracker import Tracker
from tests.demo.transcript import Printer, Transcript, Watcher
from tests.peers import ROOT, free_port
from tests.peers.bridge import BridgeProcess, configuration, merged, write
from tests.peers.employee import Employee
from tests.peers.synapse import Registration, Synapse
from tests.peers.world import Mail, Sink

FOLDER = ROOT / ".demo"
SERVER = "company.example"
BOT = f"@passerelle:{SERVER}"
PASSWORD = "passerelle"  # of every account: nobody but this machine reaches the homeserver and the tools
PEOPLE = {"alice": "Alice Martin", "bob": "Bob Keller", "carol": "Carol Rossi"}
ROOMS = {
    "support": "What customers write to support@company.example, and issues in Roundup",
    "sales": "What customers and partners write to sales@company.example, and opportunities in Tryton",
    "general": "Anything; nothing from outside comes here",
    "bridge-ops": "Where Passerelle tells of trouble",
}
MAILBOXES = {"support@company.example": "#support:company.example", "sales@company.example": "#sales:company.example"}
SUPPORT, SALES = MAILBOXES.values()
TOOLS: list[dict[str, Any]] = [
    {"connector": tracker.CONNECTOR, "scope": "issue", "room": SUPPORT},
    {"connector": crm.CONNECTOR, "scope": crm.SCOPE, "room": SALES},
    # what begins elsewhere does not appear in #support, but people there may link it, and make their own
    {"connector": crm.CONNECTOR, "scope": crm.SCOPE, "room": SUPPORT, "private": True, "new": False},
    {"connector": documents.CONNECTOR, "scope": documents.SCOPE, "room": SUPPORT, "new": False},
]
SPACE = "company"
PORTS = {"homeserver": 8008, "tracker": 8917, "crm": 8918, "smtp": 2525, "sink": 2526, "bridge": 29400}


class Busy(Exception):
    """Another demo runs in this checkout."""


class Outbox(Sink):
    """The mail server that our mail leaves through: each mail is also a file, and told to whoever listens."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(port)
        self.folder = folder
        self.told: Callable[[Mail, str], None] = lambda mail, file: None

    async def _keep(self, mail: Mail) -> None:
        words = re.sub(r"[^\w]+", "-", mail["Subject"]).strip("-")[:40]
        file = self.folder / f"{len(self.mails) + 1:03}-{words or 'mail'}.eml"
        file.write_bytes(mail.data)
        self.told(mail, str(file.relative_to(ROOT)))
        await super()._keep(mail)


@dataclass
class Stage:
    """Everything that runs, ready."""

    synapse: Synapse
    tracker: Tracker
    crm: Crm
    documents: Documents
    bridge: BridgeProcess
    config: dict[str, Any]
    outbox: Outbox
    smtp: tuple[str, int]
    transcript: Transcript
    hold: float
    people: dict[str, Employee] = field(default_factory=dict)
    rooms: dict[str, str] = field(default_factory=dict)

    async def let_people_think(self, hold: float) -> None:
        """Start the bridge again, on the same data, with a hold long enough for somebody at a keyboard."""
        await self.bridge.stop()
        self.hold = hold
        self.config = merged(self.config, {"outward": {"hold": hold}})
        write(self.bridge.config, self.config)
        await self.bridge.start()


@contextlib.asynccontextmanager
async def opened(printer: Printer, hold: float, fixed_ports: bool) -> AsyncIterator[Stage]:
    """Start everything, a line for each step, and stop everything at the end, however it ends."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_fresh_folder())
        ports = {name: _port(wanted if fixed_ports else 0) for name, wanted in PORTS.items()}
        stage = _made(printer, hold, ports)
        await _start_servers(printer, stage, stack)
        await _hire(printer, stage, stack)
        await _make_rooms(printer, stage)
        stage.transcript.on = True
        with printer.step("the bridge, on its embedded SQLite"):
            stack.push_async_callback(stage.bridge.stop)
            await stage.bridge.start()
        await stage.synapse.ping_appservice()  # or it would wait before it tells of the invitations
        _note(stage)
        yield stage


def _made(printer: Printer, hold: float, ports: dict[str, int]) -> Stage:
    registration = Registration(
        f"http://127.0.0.1:{ports['bridge']}", as_token=secrets.token_hex(), hs_token=secrets.token_hex()
    )
    synapse = Synapse(FOLDER / "synapse", registration, ports["homeserver"], SERVER)
    outbox = Outbox(ports["sink"], FOLDER / "outgoing")
    people = {user: (name, f"{user}@{SERVER}") for user, name in PEOPLE.items()}
    (FOLDER / "documents").mkdir()
    desk = Tracker(FOLDER / "roundup", ports["tracker"], people, PASSWORD)
    tools = (desk, Crm(FOLDER / "tryton", ports["crm"]), Documents(FOLDER / "documents"))
    config = configuration(
        synapse.url,
        registration,
        f"127.0.0.1:{ports['bridge']}",
        smtp=f"127.0.0.1:{ports['smtp']}",
        smarthost=(outbox.host, outbox.port),
        rooms=MAILBOXES,
        data=FOLDER / "bridge" / "data",
        server_name=SERVER,
        overrides={
            "outward": {"hold": hold},
            "management_room": f"#bridge-ops:{SERVER}",
            "rooms": {"space": f"#{SPACE}:{SERVER}"},
        },
    )
    names = (tracker.CONNECTOR, crm.CONNECTOR, documents.CONNECTOR)
    config["connectors"] |= {name: tool.connector() for name, tool in zip(names, tools, strict=True)}
    config["mappings"] += TOOLS
    bridge = BridgeProcess(write(FOLDER / "bridge" / "passerelle.yaml", config), fresh=True)
    transcript = Transcript(printer)
    outbox.told = transcript.leaves
    return Stage(synapse, *tools, bridge, config, outbox, ("127.0.0.1", ports["smtp"]), transcript, hold)


async def _start_servers(printer: Printer, stage: Stage, stack: contextlib.AsyncExitStack) -> None:
    selling = asyncio.create_task(_start_crm(stage.crm, stack))  # it takes longest
    stack.callback(selling.cancel)
    with printer.step(f"Synapse, a real homeserver, at {stage.synapse.url}"):
        stack.push_async_callback(stage.synapse.stop)
        await stage.synapse.start()
    await _start_tracker(printer, stage.tracker, stack)
    first = "" if stage.crm.made_before() else " (made for the first time: a minute)"
    with printer.step(f"Tryton, a real CRM, at {stage.crm.url}{first}"):
        await selling
    with printer.step(f"documents, on a real WebDAV server, at {stage.documents.url}"):
        stack.push_async_callback(stage.documents.stop)
        await stage.documents.start()
    with printer.step(f"the world outside: a mail server at 127.0.0.1:{stage.outbox.port}"):
        stage.outbox.folder.mkdir()
        await stack.enter_async_context(stage.outbox)


async def _start_crm(crm: Crm, stack: contextlib.AsyncExitStack) -> None:
    stack.push_async_callback(crm.stop)
    await crm.start()
    await crm.hire()


async def _start_tracker(printer: Printer, tracker: Tracker, stack: contextlib.AsyncExitStack) -> None:
    first = "" if tracker.made_before() else " (made for the first time)"
    with printer.step(f"Roundup, a real issue tracker, at {tracker.url}{first}"):
        stack.push_async_callback(tracker.stop)
        await tracker.start()
        await tracker.hire()


async def _hire(printer: Printer, stage: Stage, stack: contextlib.AsyncExitStack) -> None:
    with printer.step(f"accounts: {', '.join(PEOPLE.values())}"):
        registered = (stage.synapse.register(localpart, PASSWORD, name) for localpart, name in PEOPLE.items())
        for localpart, account in zip(PEOPLE, await asyncio.gather(*registered), strict=True):
            kind = Watcher if localpart == "alice" else Employee
            person = kind(stage.synapse.url, account.mxid, PASSWORD, account.device, account.token)
            if isinstance(person, Watcher):
                person.transcript = stage.transcript
            stack.push_async_callback(person.client.close)
            stage.people[localpart] = await stack.enter_async_context(person)


async def _make_rooms(printer: Printer, stage: Stage) -> None:
    alice, *others = stage.people.values()
    with printer.step(f"a space with {', '.join(f'#{name}' for name in ROOMS)}"):
        invited = [each.mxid for each in others]
        made = (
            alice.create_room(
                name, [*invited, BOT], {BOT: 50}, alias=name,
                state=[{"type": "m.room.topic", "state_key": "", "content": {"topic": topic}}],
            )
            for name, topic in ROOMS.items()
        )  # fmt: skip
        stage.rooms = dict(zip(ROOMS, await asyncio.gather(*made), strict=True))
        stage.transcript.rooms = {room: f"#{name}" for name, room in stage.rooms.items()}
        space = await alice.create_room("Company", [*invited, BOT], {BOT: 50}, alias=SPACE, space=True)
        for room in stage.rooms.values():
            await alice.add_to_space(space, room)
        await asyncio.gather(*(each.join(room) for each in others for room in (space, *stage.rooms.values())))


@contextlib.contextmanager
def _fresh_folder() -> Any:
    """`.demo` of this checkout, emptied; ours alone while the demo runs."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"a demo runs already in {FOLDER}") from None
        for each in FOLDER.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            elif each.name != "lock":
                each.unlink()
        _log_to(FOLDER / "demo.log")
        yield


def _log_to(file: Path) -> None:
    logging.basicConfig(filename=file, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _port(wanted: int) -> int:
    """The wanted port when it is free, else any."""
    if wanted:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            return wanted
    return free_port()


def _note(stage: Stage) -> None:
    """What `python -m tests.demo.mail` needs to know."""
    host, port = stage.smtp
    known = {"host": host, "port": port, "outgoing": str(stage.outbox.folder), "began": time.time()}
    (FOLDER / "demo.json").write_text(json.dumps(known))
