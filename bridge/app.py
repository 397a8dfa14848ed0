"""The composition root: what a running bridge is made of, in the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any

import aiohttp
from aiohttp import web

from bridge import __version__, payload, store
from bridge.admin.explain import Explain
from bridge.admin.replay import Kept, Replay
from bridge.arrivals import Arrivals
from bridge.config import Config
from bridge.connector import Connector
from bridge.departures import ConnectorDestination, abandon
from bridge.finding import Finding
from bridge.heard import Heard
from bridge.holds import Holds
from bridge.http import new_session, trusting
from bridge.matrix.appservice import routes, shows
from bridge.matrix.destination import MatrixDestination
from bridge.matrix.fetch import Fetch
from bridge.matrix.ghosts import Ghosts
from bridge.matrix.rooms import Rooms
from bridge.matrix.search import Search
from bridge.matrix.wire import Wire
from bridge.model import Deferred, Delivery, Envelope, RoomEvent, Unavailable
from bridge.polling import Poller
from bridge.port import BridgePort
from bridge.queue import Destination, Line, Queue
from bridge.restored import look_back
from bridge.rules import Rules
from bridge.store import Store, Tx
from bridge.watch.logs import described
from bridge.watch.metrics import Figures, Metrics, pages, timed
from bridge.watch.pulse import LONGEST, Pulse
from bridge.web.admin import admin, bound, socket_of
from bridge.web.hooks import hooks
from bridge.web.listener import Gate, listening

log = logging.getLogger(__name__)

GRACE = 20  # seconds that deliveries in flight get to end
SHUTDOWN = 3  # seconds that requests to us get to end; the homeserver repeats them


class Bridge:
    """A bridge with an open store. `run` is its whole life."""

    def __init__(
        self, config: Config, connectors: dict[str, tuple[type[Connector], Any]], memory: Store, secret: bytes,
        wire: Wire, session: aiohttp.ClientSession, tools: aiohttp.ClientSession,
    ) -> None:  # fmt: skip
        self.config = config
        self.store = memory
        rules = self.rules = Rules(config)
        self.places, self.outward, self.hub, self.say = rules.places, rules.outward, rules.hub, rules.say
        self.connectors = {
            name: kind(name, body, BridgePort(name, memory, self.hub, self.places, secret, tools, config.max_file))
            for name, (kind, body) in connectors.items()
        }
        rules.connect(self.connectors)
        self.acts, self.hearing = rules.acts, rules.hearing
        self.explaining = Explain(rules, self.connectors)
        self.metrics = self._measured()
        self.arrivals = Arrivals(memory, self.hub)
        self.pollers = {
            name: Poller(each, memory, self.arrivals, self._changed)
            for name, each in self.connectors.items()
            if type(each).poll is not Connector.poll
        }
        self.ghosts = Ghosts(config, wire, session, memory)
        self.rooms = Rooms(config, memory, self.ghosts, self.places, self.say, self._hear)
        self.holds = Holds(memory, self.outward, self.rooms)
        self.queue = Queue([self._line(each) for each in self._destinations()], memory)
        self.heard = Heard(config, memory, self.rooms, self.places, self.hearing, self.matrix.is_echo)
        self.pulse = Pulse(memory)
        self._down: set[str] = set()  # what people were told does not answer
        self._registered = False
        self.failed: dict[str, str] = {}  # parts that could not go on by themselves, and why
        self._stopping = asyncio.Event()
        self.on_admin: Callable[[web.Application], None] = lambda _: None  # what else may be asked of this process

    def _measured(self) -> Metrics:
        """What Prometheus may ask, counted from now on."""
        metrics = Metrics(__version__)
        self.store.time_commits(metrics.commit)
        counts = {name: metrics.arrivals(name) for name in (*self.connectors, MatrixDestination.name)}
        self.hub.on_arrival = lambda connector: counts[connector]()
        self.hearing.on_hearing = counts[MatrixDestination.name]
        return metrics

    def _line(self, destination: Destination) -> Line:
        count = self.metrics.line(destination.name)
        return Line(self.store, destination, self.config.retry, self._changed, count)

    def _destinations(self) -> list[Destination]:
        fetch = Fetch(self.ghosts, self.store, self.say)
        self.matrix = MatrixDestination(
            self.config, self.store, self.ghosts, self.rooms, fetch, self.places, self.outward, self.say,
            self.hearing.located, self.rules.maps.settled, self.rules.moving,
        )  # fmt: skip
        search = Search(self.config, self.ghosts)
        finding = Finding(self.connectors, self.store, search, self.rules.finds, self.places, self.say)
        return [self.matrix, finding, *(self._departure(each, fetch) for each in self.connectors.values())]

    def _departure(self, connector: Connector, fetch: Fetch) -> ConnectorDestination:
        destination = ConnectorDestination(
            connector, self.store, self.rooms, fetch, self.outward, self.rules.items, self.places,
            self.rules.maps, self.config.max_file,
        )  # fmt: skip
        moving = self.rules.moving
        destination.on_accepted, destination.on_refused = moving.accepted, moving.refused
        return destination

    # --- life

    async def run(self) -> None:
        """Until `stop`: then nothing more is taken, what is in flight ends, and the rest stays in the store."""
        await self._remember()
        self.store.on_ready, self.store.on_timer = self.queue.push, self.holds.start
        async with asyncio.TaskGroup() as tasks, self._listening():
            delivering = tasks.create_task(self.queue.run())
            parts = {"rooms": self._be_known, "holds": self.holds.run, "retention": self._keep_house}
            parts |= {"pulse": self.pulse.run}
            parts |= {name: each.run for name, each in self.connectors.items()}
            parts |= {f"{name} poll": each.run for name, each in self.pollers.items()}
            others = [tasks.create_task(self._kept(*part)) for part in parts.items()]
            await self._stopping.wait()
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            self.queue.stop()
            await asyncio.wait([delivering], timeout=GRACE)
            delivering.cancel()

    def stop(self) -> None:
        self._stopping.set()

    async def adopt(self, config: Config) -> None:
        """From now on the mappings, permissions and people of that configuration, which is the same in all else."""
        await self.store.transact(self._declare, config)
        self.places.declare(config.mappings)
        self.rules.permit(config.permissions)
        await self.store.transact(self.places.announce)
        self.config = config
        self.rooms.look()

    def _declare(self, tx: Tx, config: Config) -> None:
        """A rule."""
        tx.mappings.declare(config.mappings)
        tx.people.declare(config.people)

    async def _kept(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part until we stop; one that fails is told and tried again, and the others go on."""
        wait = 1.0
        while True:
            try:
                return await part()
            except Exception as error:  # a taken port, a full disk: what it is, the operator must find out
                log.exception("%s failed, trying again in %d s", name, wait)
                self.failed[name] = described(error)
            await asyncio.sleep(wait)
            wait = min(60.0, wait * 2)
            self.failed.pop(name, None)

    async def _remember(self) -> None:
        await self.ghosts.load()
        await self.store.transact(self._declare, self.config)
        await self.recall()
        await self.store.transact(self.places.announce)
        await self.store.transact(abandon, self.queue.lines, self.outward, self.places, self.say)
        await self.store.transact(self.outward.ask_again)
        await self.store.transact(look_back, self.rules.items, self.say, self.outward.pause)

    async def recall(self) -> None:
        """Which rooms there are, as they were known last; nothing is changed."""
        self.places.upgrades(await self.store.transact(lambda tx: tx.mappings.successors()))
        self.places.own(await self.store.transact(lambda tx: tx.own.all()))
        for alias, room in (await self.store.transact(lambda tx: tx.people.aliases())).items():
            self.places.recall(alias, room)
        self.places.management = self.places.known(self.config.management_room)  # operators hear of what begins badly
        self.places.encrypted |= await self.store.transact(lambda tx: tx.people.encrypted())
        self.places.make(await self.store.transact(lambda tx: tx.mappings.made()))

    async def _be_known(self) -> None:
        """The bot exists on the homeserver; then its rooms are read, again and again."""
        while not self._registered:
            try:
                await self.ghosts.introduce_bot()
                self._registered = True
            except (Unavailable, Deferred, OSError) as error:
                log.warning("the homeserver does not know the bot yet: %s", error)
                await asyncio.sleep(2)
        await self.rooms.run()

    async def _keep_house(self) -> None:
        """Once an hour: forget what retention has ended."""
        while True:
            before = time.time() - self.config.retention
            try:
                removed = await self.store.prune(before, self._fade)
                if removed.letters:
                    log.warning("%d dead letters and unsent drafts were forgotten with their time", removed.letters)
            except (OSError, store.Error) as error:
                log.error("old content could not be removed, trying again in an hour: %s", error)
            await asyncio.sleep(3600)

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        token = self.config.appservice.hs_token.get_secret_value()
        alive = self.pulse.alive
        app = routes(token, self.config.appservice.max_body, self.heard.take, self.ghosts.knows, self.trouble, alive)
        app.middlewares.append(timed(self.metrics))
        hooks(app, self.connectors, self.arrivals.take)
        limits = self.config.web
        gate = Gate(lambda request: shows(request, token), limits.trusted_proxies, limits.per_minute, limits.at_once)
        asked = admin(self)
        self.on_admin(asked)
        private = web.AppRunner(asked, access_log=None, shutdown_timeout=SHUTDOWN)
        await private.setup()
        host, _, port = self.config.appservice.listen.rpartition(":")
        socket = socket_of(self.config.data)
        socket.unlink(missing_ok=True)
        try:
            async with listening(app, gate, host.strip("[]"), int(port), self.config.appservice.tls()), self._watched():
                await web.SockSite(private, bound(socket)).start()
                yield
        finally:
            await private.cleanup()
            socket.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Prometheus may ask, on a listener of its own."""
        host, _, port = self.config.metrics.listen.rpartition(":")
        runner = web.AppRunner(pages(self), access_log=None, shutdown_timeout=SHUTDOWN)
        await runner.setup()
        try:
            if port:
                await web.TCPSite(runner, host.strip("[]"), int(port), reuse_address=True).start()
            yield
        finally:
            await runner.cleanup()

    async def _hear(self, events: list[RoomEvent]) -> None:
        await self.heard.write_down(events)

    async def _changed(self, destination: str, reason: str) -> None:
        """A tool went away or came back, as its lanes or its polls found: people hear it once."""
        if bool(reason) == (destination in self._down):
            return
        (self._down.add if reason else self._down.discard)(destination)
        body = (
            self.say("down", destination=destination, reason=reason)
            if reason
            else self.say("up", destination=destination)
        )
        try:
            await self.store.transact(self.places.tell_operators, body)
        except (OSError, store.Error) as error:  # the log has it too; deliveries go on
            log.error("operators could not be told: %s", error)

    # --- how it is

    def trouble(self) -> dict[str, str]:
        """What is not ready, by name."""
        found = {name: line.trouble for name, line in self.queue.lines.items() if line.trouble}
        found |= {name: each.trouble for name, each in self.pollers.items() if each.trouble}
        found |= {name: "not listening yet" for name, each in self.connectors.items() if not each.started()}
        found |= self.failed
        if not self._registered:
            found["homeserver"] = "the bot is not registered yet"
        elif not self.rooms.all_caught_up:
            found["rooms"] = "catching up"
        return found

    async def depth(self) -> dict[str, int]:
        """Rows by "destination state"."""
        rows = await self.store.transact(lambda tx: tx.queue.figures())
        return {f"{destination} {state}": count for (destination, state), (count, _) in rows.items()}

    async def figures(self) -> Figures:
        """What the metrics say of this moment; nothing of the queue while the database does not answer."""
        queue: dict[tuple[str, str], tuple[int, float]] = {}
        with contextlib.suppress(OSError, store.Error, TimeoutError):
            async with asyncio.timeout(LONGEST):
                queue = await self.store.transact(lambda tx: tx.queue.figures())
        trouble, mapped = self.trouble(), self.places.mapped()
        works = {name: not trouble.keys() & {name, f"{name} poll"} for name in self.connectors}
        homeserver = not trouble.keys() & {"homeserver", self.matrix.name}
        behind = sum(not self.rooms.is_caught_up(room) for room in mapped) + len(self.places.unresolved())
        return Figures(queue, works, homeserver, len(mapped), behind)

    async def dead_letters(self) -> list[dict[str, Any]]:
        """Every delivery given up, oldest first."""
        rows: list[Delivery] = await self.store.transact(lambda tx: tx.queue.in_state("dead"))
        return [asdict(row) for row in rows]

    def _fade(self, connector: str, memo: str) -> str:
        return self.connectors[connector].without_words(memo) if connector in self.connectors else ""

    async def explain(self, text: str) -> list[str]:
        """What is known of an address, an item, an event or a delivery, line by line."""
        return await self.store.rehearse(self.explaining.look, text)

    async def bring(self, kept: Kept) -> list[str]:
        """What a file with an arrival does, or would do. Raises `Rejected` when no connector reads it."""
        return await Replay(self.store, self.hub, self.explaining, self.connectors).bring(kept)

    async def prune(self, dry: bool) -> dict[str, int]:
        """Remove now what retention has ended and what nothing refers to; `dry` only counts. See `Pruned`."""
        return asdict(await self.store.prune(time.time() - self.config.retention, self._fade, orphans=True, dry=dry))

    async def replay(self, uid: str) -> bool:
        """Try a dead letter again; False when there is none of that name."""

        def rule(tx: Tx) -> bool:
            row = tx.queue.get(uid)
            if row is None or row.state != "dead":
                return False
            if row.kind == "event":
                tx.queue.drop(uid)
                self.hearing.understand(tx, payload.load(RoomEvent, row.payload))
            elif row.kind == "envelope":
                tx.queue.drop(uid)
                self.hub.accept(tx, payload.load(Envelope, row.payload))
            else:
                self.acts.replay(tx, row)
            return True

        return await self.store.transact(rule)


@contextlib.asynccontextmanager
async def opened(config: Config, connectors: dict[str, tuple[type[Connector], Any]]) -> AsyncIterator[Bridge]:
    """A bridge ready to `run`. Raises `StoreBusy`, `sqlite3.Error`, `OSError`."""
    async with store.opened(config.data) as memory, made(config, connectors, memory) as bridge:
        yield bridge


@contextlib.asynccontextmanager
async def made(
    config: Config, connectors: dict[str, tuple[type[Connector], Any]], memory: Store
) -> AsyncIterator[Bridge]:
    """A bridge ready to `run` on an open store. Raises `sqlite3.Error`."""
    homeserver = config.homeserver
    timeout = aiohttp.ClientTimeout(total=homeserver.timeout)
    tls = trusting(homeserver.ca_file) if homeserver.url.startswith("https:") else None
    wire = Wire(homeserver.url, homeserver.timeout, homeserver.in_flight * 2, tls)
    files = aiohttp.TCPConnector(ssl=tls or True)
    async with aiohttp.ClientSession(timeout=timeout, connector=files) as session, new_session() as tools:
        with contextlib.closing(wire):
            yield Bridge(config, connectors, memory, await memory.secret(), wire, session, tools)
