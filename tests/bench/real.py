"""Mail → a real Synapse, beside what the same Synapse takes from an appservice that does nothing else.

Both speak as the same ghosts in the same rooms, with the same contents, thread relations and device, of the same
appservice; what listens for its transactions is the bridge, or a sink that says yes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from bridge.matrix.client import Client
from bridge.matrix.content import message
from bridge.matrix.ghosts import localpart
from bridge.matrix.wire import Wire
from bridge.model import Author
from bridge.payload import Post
from tests.bench.load import Relay as Sender
from tests.bench.mails import MAILBOXES, MARK, Letter, introductions, letters
from tests.bench.relay import Relay, relaying
from tests.bench.report import Cell
from tests.bench.rig import SETTLE, Outside, cpu_of, percentile
from tests.peers import free_port, until
from tests.peers.bridge import BridgeProcess, configuration, merged, write
from tests.peers.synapse import Account, Registration, Synapse

BOXES = MAILBOXES[:20]
GOAL_RATIO, GOAL_LATE = 0.9, 20.0  # of the homeserver's own speed at 8 in flight; ms more than its own at 1
COLUMNS = {
    "per_second": "a second",
    "raw_per_second": "Synapse alone, a second",
    "ratio": "ratio",
    "p50_ms": "p50 ms",
    "raw_p50_ms": "Synapse alone, p50 ms",
    "more_ms": "p50 ms more",
    "p99_ms": "p99 ms",
    "raw_p99_ms": "Synapse alone, p99 ms",
    "cpu_ms": "CPU ms of Synapse each",
    "raw_cpu_ms": "the same alone",
}


@dataclass
class Homeserver:
    """The real one, the relay in front of it, and the rooms by mailbox."""

    synapse: Synapse
    relay: Relay
    folder: Path
    rooms: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.relay.port}"

    def cpu(self) -> float:
        """Seconds of CPU that Synapse has used."""
        return cpu_of(self.synapse.child)

    @property
    def registration(self) -> Registration:
        return self.synapse.registration

    @property
    def listen(self) -> str:
        return self.registration.url.removeprefix("http://")


@contextlib.asynccontextmanager
async def homeserver(folder: Path) -> AsyncIterator[Homeserver]:
    """A fresh Synapse with a room for each mailbox, in which every sender's ghost is."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    synapse = Synapse(folder / "synapse", Registration(f"http://127.0.0.1:{free_port()}"))
    outside = Outside(await asyncio.to_thread(_made, folder))
    async with synapse, relaying(synapse.port) as relay:
        await outside.start()
        try:
            alice = await synapse.register("alice", "alice-secret")
            found = Homeserver(synapse, relay, folder, {box: await _room(synapse, alice, box) for box in BOXES})
            found.config = configuration(
                found.url, found.registration, found.listen, smtp=f"127.0.0.1:{free_port()}",
                smarthost=("127.0.0.1", outside.port), rooms=found.rooms, data=folder / "data",
                overrides={"outward": {"hold": 0, "per_address": 0}},
            )  # fmt: skip
            async with bridge(found, 8) as port:
                await handed_over(found, port, introductions(_run(), BOXES), 8, each=True)
            yield found
        finally:
            await outside.child.stop()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _room(synapse: Synapse, account: Account, name: str) -> str:
    """A room that everybody here can enter, and in which the bot has its rights."""
    path = f"{synapse.url}/_matrix/client/v3/createRoom"
    headers = {"Authorization": f"Bearer {account.token}"}
    powers = {"users": {f"@{synapse.registration.bot}:{synapse.server_name}": 50}}
    body = {"preset": "public_chat", "name": name, "power_level_content_override": powers}
    async with aiohttp.ClientSession() as http, http.post(path, json=body, headers=headers) as answer:
        return str((await answer.json())["room_id"])


def _run() -> str:
    return uuid.uuid4().hex[:12]


# --- the bridge


@contextlib.asynccontextmanager
async def bridge(here: Homeserver, in_flight: int) -> AsyncIterator[int]:
    """The bridge, caught up; gives its port for mail."""
    changes = {"homeserver": {"in_flight": in_flight}, "connectors": {"mail": {"rate": 0}}}
    config = merged(here.config, changes)
    running = BridgeProcess(write(here.folder / "passerelle.yaml", config), fresh=True)
    try:
        await running.start(wait=False)
        await running.ready(timeout=90)
        await until(lambda: here.relay.quiet(1.0), "the bridge to have said all that it says at first", every=0.1)
        yield int(config["connectors"]["mail"]["listen"].rpartition(":")[2])
        await asyncio.sleep(SETTLE)
    finally:
        await running.stop()


async def handed_over(
    here: Homeserver, port: int, mails: Sequence[Letter], connections: int, *, each: bool
) -> dict[str, float]:
    """All mails, on so many connections; with `each`, the next one only when the last is confirmed.

    Events a second, and how long after 250 the homeserver had confirmed them.
    """
    confirmed: dict[int, float] = {}
    there = {letter.number: asyncio.Event() for letter in mails}
    taken: dict[int, float] = {}

    def note(number: int, at: float) -> None:
        confirmed.setdefault(number, at)
        there[number].set()

    here.relay.notes = {_run_of(mails[0]): note}
    waiting = iter(mails)

    async def work() -> None:
        _, sender = await asyncio.get_running_loop().create_connection(Sender, "127.0.0.1", port)
        await sender.greet()
        for letter in waiting:
            taken[letter.number] = await sender.hand_over(letter)
            if each:
                await asyncio.wait_for(there[letter.number].wait(), 60)
        sender.bye()

    began, cpu = time.monotonic(), here.cpu()
    await asyncio.gather(*(work() for _ in range(connections)))
    for event in there.values():
        await asyncio.wait_for(event.wait(), 60)
    late = [1000 * max(0.0, at - taken[number]) for number, at in confirmed.items()]
    return _figures(len(mails), max(confirmed.values()) - began, here.cpu() - cpu, late)


def _run_of(letter: Letter) -> str:
    mark = MARK.search(letter.data.decode())
    assert mark
    return mark[2]


def _figures(count: int, seconds: float, cpu: float, late: Sequence[float]) -> dict[str, float]:
    late_ms = {"p50_ms": percentile(late, 0.5), "p99_ms": percentile(late, 0.99)}
    return {"per_second": count / seconds, "cpu_ms": 1000 * cpu / count, **late_ms}


async def through_bridge(here: Homeserver, in_flight: int, count: int) -> dict[str, float]:
    """Events a second when all mails come at once; times when no more of them are under way than requests may be."""
    async with bridge(here, in_flight) as port:
        await handed_over(here, port, letters(4 * in_flight, _run(), mailboxes=BOXES), in_flight, each=True)  # warms up
        flood = await handed_over(here, port, letters(count, _run(), mailboxes=BOXES), 8, each=False)
        paced = await handed_over(here, port, letters(count // 2, _run(), mailboxes=BOXES), in_flight, each=True)
    return paced | {"per_second": flood["per_second"], "cpu_ms": flood["cpu_ms"]}


# --- nothing but requests


@contextlib.asynccontextmanager
async def sink(here: Homeserver) -> AsyncIterator[None]:
    """Where transactions are taken at once and dropped."""

    async def yes(_: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{path:.*}", yes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    host, _, port = here.listen.rpartition(":")
    try:
        await web.TCPSite(runner, host, int(port), reuse_address=True).start()
        await until(here.synapse.ping_appservice, "the homeserver to reach the sink", every=0.2)
        yield
    finally:
        await runner.cleanup()


class Raw:
    """Sends what the bridge would send for the same mails."""

    def __init__(self, here: Homeserver, wire: Wire, session: aiohttp.ClientSession, mails: Sequence[Letter]) -> None:
        self.here, self._wire, self._session = here, wire, session
        self._events = {letter.id: asyncio.get_running_loop().create_future() for letter in mails}
        self._clients: dict[str, Client] = {}
        self.took: list[float] = []

    def _client(self, address: str) -> Client:
        registration, server = self.here.registration, self.here.synapse.server_name
        if address not in self._clients:
            mxid = f"@{localpart(registration.ghosts, Author('mail', address))}:{server}"
            self._clients[address] = Client(
                self.here.url, registration.as_token, self._wire, self._session, mxid
            )  # fmt: skip
        return self._clients[address]

    async def send(self, letter: Letter) -> None:
        """One event: a root, or in the thread of the mail that is answered."""
        root = await self._events[letter.refs[0]] if letter.refs else ""
        text = letter.data.partition(b"\r\n\r\n")[2].decode().replace("\r\n", "\n").strip()
        body = message(Post(self.here.rooms[letter.mailbox], text), uuid.uuid4().hex, root, root, "")
        path = f"_matrix/client/v3/rooms/{self.here.rooms[letter.mailbox]}/send/m.room.message/{uuid.uuid4().hex}"
        began = time.monotonic()
        answer = await self._client(letter.sender).call("PUT", path, body)
        self.took.append(1000 * (time.monotonic() - began))
        self._events[letter.id].set_result(answer["event_id"])


async def raw(here: Homeserver, in_flight: int, count: int) -> dict[str, float]:
    """The homeserver's ceiling: so many requests under way, all the time."""
    mails = letters(count, _run(), mailboxes=BOXES)
    here.relay.notes = {}
    async with sink(here), aiohttp.ClientSession() as session:
        with contextlib.closing(Wire(here.url, 60, in_flight)) as wire:
            await _at_once(Raw(here, wire, session, warm := letters(4 * in_flight, _run(), mailboxes=BOXES)), warm, 8)
            sender, cpu = Raw(here, wire, session, mails), here.cpu()
            seconds = await _at_once(sender, mails, in_flight)
            cpu = here.cpu() - cpu
        await asyncio.sleep(SETTLE)
    return _figures(count, seconds, cpu, sender.took)


async def _at_once(sender: Raw, mails: Sequence[Letter], in_flight: int) -> float:
    waiting = iter(mails)

    async def work() -> None:
        for letter in waiting:
            await sender.send(letter)

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return time.monotonic() - began


# --- beside each other


async def measure(folder: Path, rounds: int, few: int, many: int) -> list[Cell]:
    """Both at 1 and at 8 in flight, one after the other, round after round: a slow minute hits both."""
    one = Cell("mail in on Synapse, 1 in flight", {"more_ms": ("<=", GOAL_LATE)}, columns=COLUMNS)
    eight = Cell("mail in on Synapse, 8 in flight", {"ratio": (">=", GOAL_RATIO)}, columns=COLUMNS)
    async with homeserver(folder) as here:
        for number in range(rounds):
            for cell, in_flight, count in ((one, 1, few), (eight, 8, many)):
                sides: list[Callable[[Homeserver, int, int], Awaitable[dict[str, float]]]] = [raw, through_bridge]
                found = {}
                for side in sides if number % 2 == 0 else sides[::-1]:  # neither is always the later one
                    print(f"round {number + 1} of {rounds}: {cell.name}, {side.__name__}", file=sys.stderr, flush=True)
                    found[side] = await side(here, in_flight, count)
                cell.runs.append(_beside(found[through_bridge], found[raw]))
    return [one, eight]


def _beside(ours: Mapping[str, float], alone: Mapping[str, float]) -> dict[str, float]:
    return {
        **ours,
        **{f"raw_{name}": value for name, value in alone.items()},
        "ratio": ours["per_second"] / alone["per_second"],
        "more_ms": ours["p50_ms"] - alone["p50_ms"],
    }
