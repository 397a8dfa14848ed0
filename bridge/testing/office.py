"""A bridge for tests, real but for the homeserver: store, rules, queue, and one room that shows everything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from bridge import store
from bridge.arrivals import Arrivals
from bridge.config import Config
from bridge.connector import Connector, Http
from bridge.departures import ConnectorDestination
from bridge.http import ToolHttp, new_session
from bridge.matrix.rooms import Rooms
from bridge.model import Delivery, File, Request, RoomEvent
from bridge.polling import Poller
from bridge.port import BridgePort
from bridge.queue import Crossing, Line, Queue
from bridge.rules import Rules
from bridge.store import Tx
from bridge.testing.room import NoGap, Room, Said, Shown, Words
from bridge.testing.tool import Tool
from bridge.web.hooks import hooks

ROOM, ALICE = "!room", "@alice:company.example"
LONG = 60.0  # seconds that something may take which is to happen
TICK = 0.01
_numbers = count(1)


class _Out(ConnectorDestination):
    """Remembers what went wrong."""

    office: Office

    async def deliver(self, delivery: Delivery) -> Crossing:
        try:
            return await super().deliver(delivery)
        except Exception as error:
            self.office.failures.append(error)
            if self.office.crashing:
                await asyncio.Event().wait()
            raise


class _Port(BridgePort):
    """Does not wait for a slow tool as long as a bridge would."""

    patience: float

    def http(self, url: str, **how: Any) -> Http:
        return ToolHttp(self._session, self.spool, url, max_file=self._max_file, timeout=self.patience, **how)


class Office:
    """One connector of the plugin, the tool it speaks to, and the room that its scope is mapped to."""

    def __init__(
        self, plugin: type[Connector], tool: Tool, folder: Path, patience: float, *, private: bool = False
    ) -> None:
        self.plugin, self.tool, self._folder, self._patience, self._private = plugin, tool, folder, patience, private
        self.failures: list[Exception] = []  # what deliveries to the tool raised
        self.crashing = False  # whether the bridge stands still from the first failure on, until it is started again
        self.delivered = 0  # webhooks that the pump has handed on
        self.pumping = True  # whether webhooks are handed on as they come
        self._shown: dict[str, Shown] = {}
        self._said = Said()
        self._tasks: list[asyncio.Task[Any]] = []
        self._polling: list[asyncio.Task[Any]] = []
        self._stack = contextlib.AsyncExitStack()

    # --- life

    async def start(self) -> None:
        """As the bridge starts, on what the folder holds."""
        enter = self._stack.enter_async_context
        self.store = await enter(store.opened(self._folder))
        session = await enter(new_session())
        self.rules = Rules(self._configured())
        self.rules.places.resolve(ROOM, ROOM)
        name = self.tool.name
        port = _Port(
            name, self.store, self.rules.hub, self.rules.places, await self.store.secret(), session, 50_000_000
        )
        port.patience = self._patience
        url = self.tool.front + urlsplit(self.tool.url).path if self.tool.url else ""
        self.connector = self.plugin(name, self.plugin.Config.model_validate(self.tool.config(url)), port)
        self.connector.every = 0.05
        self.rules.connect({name: self.connector})
        await self.store.transact(lambda tx: tx.people.named(ALICE, "Alice Martin"))
        self._hooks = await enter(self._hooked())
        self._http = await enter(aiohttp.ClientSession())  # closed first: the server waits for clients that still speak
        self.queue = Queue([self._line(each) for each in self._destinations()], self.store)
        self.store.on_ready = self.queue.push
        parts = [self.queue.run()]
        parts += [self.connector.run()] if self.plugin.run is not Connector.run else []
        parts += [self._pump()] if self.plugin.parse is not Connector.parse else []
        self._tasks = [asyncio.create_task(cast(Any, part)) for part in parts]
        self.poll()
        await self.until(self.connector.started, "the plugin listens")
        if self.plugin.poll is not Connector.poll:
            await self.until(self.cursor, "the first poll says where to begin")

    def poll(self) -> None:
        """Poll from now on."""
        if self.plugin.poll is not Connector.poll and not self._polling:
            poller = Poller(self.connector, self.store, Arrivals(self.store, self.rules.hub), self._told, look=0.2)
            self._polling = [asyncio.create_task(poller.run())]

    async def stop_polling(self) -> None:
        polling, self._polling = self._polling, []
        await _ended(polling)

    async def stop(self) -> None:
        """As a crash: nothing ends in order."""
        await self.stop_polling()
        tasks, self._tasks = self._tasks, []
        await _ended(tasks)
        await self._stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def _configured(self) -> Config:
        mapping = {"connector": self.tool.name, "scope": self.tool.scope, "room": ROOM, "private": self._private}
        return Config.model_validate(
            {
                "homeserver": {"url": "http://homeserver.invalid", "server_name": "company.example"},
                "appservice": {"as_token": "as", "hs_token": "hs"},
                "retry": {"first": 0.02, "longest": 0.1},
                "outward": {"per_address": 0},
                "connectors": {self.tool.name: {}},
                "mappings": [mapping],
            }
        )

    def _destinations(self) -> list[Room | _Out]:
        gap: Any = NoGap()
        rules, words = self.rules, Words(self._said, self.store, self.rules)
        out = _Out(
            self.connector, self.store, cast(Rooms, gap), words, rules.outward, rules.items, rules.places,
            rules.maps, 50_000_000,
        )  # fmt: skip
        out.office = self
        return [Room(self.store, rules, self._shown, words), out]

    def _line(self, destination: Room | _Out) -> Line:
        return Line(self.store, destination, self.rules.config.retry, self._told)

    async def _told(self, name: str, reason: str) -> None:
        """Operators would hear of it."""

    # --- webhooks

    @contextlib.asynccontextmanager
    async def _hooked(self) -> AsyncIterator[str]:
        app = web.Application()
        hooks(app, {self.tool.name: self.connector}, Arrivals(self.store, self.rules.hub).take)
        async with served(app) as url:
            yield f"{url}/hooks/{self.tool.name}"

    async def _pump(self) -> None:
        while True:
            if self.pumping and self.delivered < len(self.tool.caught):
                self.delivered += 1
                await self.post(self.tool.caught[self.delivered - 1])
            else:
                await asyncio.sleep(TICK)

    async def post(self, request: Request) -> int:
        """Hand a webhook to the bridge; returns the status it is answered with."""
        fields = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        async with self._http.post(self._hooks, data=request.body, headers=fields, params=dict(request.query)) as reply:
            return reply.status

    async def held_back(self) -> list[Request]:
        """The webhooks that were sent since the pump was stopped, once no more come."""
        await self.until(lambda: len(self.tool.caught) > self.delivered, "the tool sends a webhook")
        known = 0
        while known != len(self.tool.caught):
            known = len(self.tool.caught)
            await asyncio.sleep(0.2)
        return self.tool.caught[self.delivered :]

    # --- what people see and do

    def posts(self, word: str) -> list[Shown]:
        """What was said outside with that word in it, as it is shown."""
        return [each for each in self._shown.values() if each.author is not None and word in each.body]

    def shows(self, body: str) -> bool:
        """Whether just that was shown."""
        return any(each.body == body for each in self._shown.values())

    def everything(self) -> str:
        return "\n".join(each.body for each in self._shown.values())

    def card(self) -> str:
        """The newest card."""
        return next((each.body for each in reversed(self._shown.values()) if each.kind == "card"), "")

    async def arrives(self, word: str) -> Shown:
        """The first that shows the word: a message from outside, or a card."""

        def found() -> Shown | None:
            known = [each for each in self._shown.values() if each.author is not None or each.kind == "card"]
            return next((each for each in known if word in each.body), None)

        return cast(Shown, await self.until(found, f"{word} is shown in the room"))

    def files(self, name: str) -> list[Shown]:
        """The files of that name that came from outside."""
        return [each for each in self.posts(name) if each.file is not None and each.body == name]

    async def content(self, shown: Shown) -> bytes:
        """Of a file that was shown."""
        assert shown.file is not None
        return await self.store.spool.read(shown.file)

    async def say(self, text: str, conversation: int = 0, answers: str = "") -> str:
        """Alice says something, in the conversation's thread, or about another event; returns the event."""
        return await self._hears("m.room.message", conversation, msgtype="m.text", body=text, answers=answers)

    async def share(self, name: str, data: bytes, conversation: int = 0) -> str:
        """Alice shows a file, which leaves only when she asks for that; returns the event."""
        mxc = f"mxc://company.example/{next(_numbers)}"
        self._said.media[mxc] = data
        file = File(name, "application/octet-stream", len(data), mxc=mxc)
        return await self._hears("m.room.message", conversation, msgtype="m.file", body=name, file=file)

    async def react(self, key: str, event: str, conversation: int) -> None:
        """Alice reacts to an event of the conversation."""
        await self._hears("m.reaction", conversation, target=event, key=key)

    async def _hears(self, type: str, conversation: int, **what: Any) -> str:
        root = await self.root(conversation) if conversation and type == "m.room.message" else ""
        event = RoomEvent(f"$said{next(_numbers)}", ROOM, ALICE, type, time.time(), thread=root, **what)
        self._said.events[event.id] = event
        await self.store.transact(self.rules.hearing.hear, event)
        return event.id

    async def made(self) -> str:
        """The name of the item that Alice has made with what she said last."""

        def rule(tx: Tx) -> str:
            found = tx.conversations.of_event(next(reversed(self._said.events)))
            items = tx.conversations.items_of(found.id) if found else []
            return items[-1].remote if items else ""

        return await self.store.transact(rule)

    async def root(self, conversation: int) -> str:
        found = await self.store.transact(lambda tx: tx.conversations.get(conversation))
        return found.root if found else ""

    async def cursor(self) -> str:
        return await self.store.transact(lambda tx: tx.conversations.cursor(self.tool.name))

    async def drafts(self) -> list[Delivery]:
        """What is on its way to the tool, dead letters among it."""

        def rule(tx: Tx) -> list[Delivery]:
            return [row for state in ("asked", "held", "paused", "ready", "dead") for row in tx.queue.in_state(state)]

        rows = await self.store.transact(rule)
        return [row for row in rows if row.destination == self.tool.name]

    async def gone(self) -> None:
        """Everything has left, or is dead."""

        async def none() -> bool:
            return not [row for row in await self.drafts() if row.state != "dead"]

        await self.until(none, "what was to leave has left")

    async def failed(self, times: int = 1) -> Exception:
        """The first failure, once so many deliveries to the tool have failed."""
        await self.until(lambda: len(self.failures) >= times, "the trouble is noticed")
        return self.failures[0]

    async def until(self, wanted: Callable[[], Any], what: str) -> Any:
        """Wait until it is so. Raises `AssertionError`, and what a part of the bridge died of."""
        end = time.monotonic() + LONG
        while True:
            found = wanted()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            for task in (*self._tasks, *self._polling):
                if task.done():
                    task.result()
            room = f"; what failed: {self.failures[-3:]}" if self.failures else ""
            assert time.monotonic() < end, f"this does not happen: {what}{room}. The room shows:\n{self.everything()}"
            await asyncio.sleep(TICK)


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """The application on a free port; yields its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, lingering_time=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def opened(
    plugin: type[Connector], tool: Tool, folder: Path, patience: float, *, private: bool = False
) -> AsyncIterator[Office]:
    """An office with its tool started and a proxy before it; the proxy listens where `tool.front` says."""
    app = web.Application(client_max_size=2**26)

    async def catch(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        tool.caught.append(Request(headers, await request.read(), dict(request.query)))
        return web.Response()

    app.router.add_post("/", catch)
    tool.front = f"http://127.0.0.1:{tool.proxy.port}"
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(tool.proxy.close)
        tool.hook = f"{await stack.enter_async_context(served(app))}/"
        await stack.enter_async_context(tool)
        if tool.url:
            origin = "/".join(tool.url.split("/")[:3])
            await stack.enter_async_context(tool.proxy.serving(origin))
        office = Office(plugin, tool, folder, patience, private=private)
        stack.push_async_callback(office.stop)
        await office.start()
        yield office
