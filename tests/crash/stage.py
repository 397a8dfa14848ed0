"""What the kills happen to: a homeserver, tools and a bridge that reach each other through faults, a smarthost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bridge.matrix.ghosts import localpart
from bridge.model import Author
from tests.crash.families import FAMILIES, Family
from tests.peers import ROOT, free_port, until
from tests.peers.bridge import BridgeProcess, configuration, write
from tests.peers.employee import Employee
from tests.peers.faults import Proxy
from tests.peers.synapse import Registration, Synapse
from tests.peers.world import Sink

MAILBOXES = ("support@company.example", "sales@company.example", "billing@company.example")
LARGEST = 6000  # bytes of an event that the homeserver takes as long as `Stage.small` lasts


@dataclass
class Tool:
    """One that takes part, as the bridge reaches it, and the room of its items."""

    family: Family
    way: Proxy
    room: str

    @property
    def name(self) -> str:
        return self.family.name

    def written(self) -> int:
        """Requests that may have changed something in it."""
        return sum(self.way.requests[each] for each in self.family.writes)


@dataclass
class Stage:
    """Everything that takes part."""

    folder: Path
    synapse: Synapse
    homeserver: Proxy  # as the bridge reaches it
    appservice: Proxy  # as the homeserver reaches the bridge
    sink: Sink
    tools: list[Tool]
    bridge: BridgeProcess
    bot: str
    staff: list[Employee]
    rooms: dict[str, str]  # by mailbox
    smtp: tuple[str, int]

    @property
    def data(self) -> Path:
        return self.folder / "bridge" / "data"

    def small(self) -> None:
        """From now on the homeserver refuses large events."""
        self.homeserver.add(413, method="PUT", contains="/send/m.room.message", when=_is_large)

    async def listens(self) -> bool:
        """Whether the bridge takes mail."""
        try:
            _, writer = await asyncio.open_connection(*self.smtp)
        except OSError:
            return False
        writer.close()
        return True

    async def polled(self) -> bool:
        """Whether the bridge has looked into every tool twice: what happens there from now on is news."""
        return all(tool.way.requests.total() > tool.family.looks for tool in self.tools)

    async def status(self) -> dict[str, Any]:
        """What the bridge says of itself through its admin socket; {} when it does not answer."""
        connector = aiohttp.UnixConnector(str(self.data / "admin.sock"))
        try:
            async with aiohttp.ClientSession(connector=connector) as http, http.get("http://bridge/status") as answer:
                return dict(await answer.json())
        except (aiohttp.ClientError, OSError):
            return {}

    async def dead_letters(self, *words: str) -> str:
        """What `passerelle dead-letters …` prints."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bridge", "dead-letters", *words, "--config", str(self.bridge.config),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode == 0, f"dead-letters {words} ended with {process.returncode}"
        return said.decode()

    async def timeline(self, room: str) -> list[dict[str, Any]]:
        """Every event of a room, oldest first, as the homeserver has it."""
        token = self.staff[0].client.access_token
        path = f"{self.synapse.url}/_matrix/client/v3/rooms/{room}/messages"
        events: list[dict[str, Any]] = []
        query = {"dir": "f", "limit": "500"}
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            while True:
                async with http.get(path, params=query) as answer:
                    page = await answer.json()
                events += page["chunk"]
                if not page.get("end"):
                    return events
                query["from"] = page["end"]

    async def timelines(self) -> dict[str, list[dict[str, Any]]]:
        """Those of all rooms in which people outside are heard."""
        return {room: await self.timeline(room) for room in (*self.rooms.values(), *(tool.room for tool in self.tools))}

    def ghost(self, account: str, realm: str = "mail") -> str:
        """Who speaks in rooms for a customer."""
        return f"@{localpart('_passerelle_', Author(realm, account))}:{self.synapse.server_name}"


def _is_large(request: Any) -> bool:
    return int(request.headers.get("Content-Length", 0)) > LARGEST


@contextlib.asynccontextmanager
async def staged(folder: Path, seed: int, families: Collection[str]) -> AsyncIterator[Stage]:
    """Set it all up, with the tools of these names; the bridge not yet running."""
    listen = f"127.0.0.1:{free_port()}"
    async with contextlib.AsyncExitStack() as stack:
        appservice = await stack.enter_async_context(Proxy(f"http://{listen}", seed=seed))
        registration = Registration(appservice.url)
        synapse = await stack.enter_async_context(Synapse(folder / "synapse", registration))
        homeserver = await stack.enter_async_context(Proxy(synapse.url, seed=seed + 1))
        sink = await stack.enter_async_context(Sink(seed=seed + 2))
        staff = [await stack.enter_async_context(await _employee(synapse, name)) for name in ("alice", "bob")]
        rooms = {mailbox: await _room(staff, mailbox, registration, synapse) for mailbox in MAILBOXES}
        smtp = ("127.0.0.1", free_port())
        management = await _room(staff, "operators", registration, synapse)
        tools = [
            await _tool(kind(folder / kind.name), appservice, seed + 3 + number, stack, staff, registration, synapse)
            for number, kind in enumerate(each for each in FAMILIES if each.name in families)
        ]
        overrides = {
            "management_room": management,
            "homeserver": {"timeout": 5},
            "outward": {"hold": 0.2, "per_address": 0},
            "retry": {"first": 0.1, "longest": 1.5},
            "web": {"per_minute": 0},
            "connectors": {"mail": {"rate": 0}} | {each.name: each.family.config(each.way.url) for each in tools},
            "mappings": [
                *({"connector": "mail", "scope": mailbox, "room": room} for mailbox, room in rooms.items()),
                *({"connector": each.name, "scope": each.family.scope, "room": each.room} for each in tools),
            ],
        }
        config = configuration(
            homeserver.url, registration, listen, smtp=f"{smtp[0]}:{smtp[1]}", smarthost=(sink.host, sink.port),
            rooms=rooms, data=folder / "bridge" / "data", server_name=synapse.server_name, overrides=overrides,
        )  # fmt: skip
        bridge = BridgeProcess(write(folder / "bridge" / "passerelle.yaml", config), fresh=True)
        stack.push_async_callback(bridge.stop)
        bot = f"@{registration.bot}:{synapse.server_name}"
        yield Stage(folder, synapse, homeserver, appservice, sink, tools, bridge, bot, staff, rooms, smtp)


async def _tool(
    family: Family, appservice: Proxy, seed: int, stack: contextlib.AsyncExitStack, staff: list[Employee],
    registration: Registration, synapse: Synapse,
) -> Tool:  # fmt: skip
    """Its webhooks take the homeserver's way to the bridge, faults and all."""
    family.hook = f"{appservice.url}/hooks/{family.name}"
    family.config("")  # what it calls is known before it starts
    await stack.enter_async_context(family.server)
    way = await stack.enter_async_context(Proxy(family.origin, seed=seed))
    return Tool(family, way, await _room(staff, family.name, registration, synapse))


async def _employee(synapse: Synapse, name: str) -> Employee:
    account = await synapse.register(name, f"{name}-secret")
    return Employee(synapse.url, account.mxid, account.password, account.device, account.token)


async def _room(staff: list[Employee], name: str, registration: Registration, synapse: Synapse) -> str:
    bot = f"@{registration.bot}:{synapse.server_name}"
    first, *others = staff
    room = await first.create_room(name, invite=[bot, *(each.mxid for each in others)], powers={bot: 50})
    for each in others:
        await each.join(room)
    return room


async def listening(stage: Stage, timeout: float = 30) -> None:
    """Wait until the bridge takes mail, or has ended."""

    async def ready() -> bool:
        return not stage.bridge.running or await stage.listens()

    await until(ready, "the bridge to listen", timeout)
