"""The lives of one process: given another configuration, its bridge changes at once, or another one follows it.

The store stays open from one to the next, so nobody else can take it; whoever speaks to us meanwhile comes again. A
bridge that cannot start gives way to the one before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from bridge import app, config, store
from bridge.admin.plan import Changed, Outcome, Plan, Settings, cautions, plan
from bridge.app import Bridge
from bridge.store import Store
from bridge.store.search import Search
from bridge.watch.logs import described
from bridge.web.applying import applying

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds that the parts of a bridge have to start, before it is told what still does not answer
TICK = 0.05


class Succession:
    """One bridge after the other. `run` is the whole life of the process."""

    def __init__(self, path: Path, settings: Settings, on_life: Callable[[config.Config], None]) -> None:
        self._path = path
        self._on_life = on_life  # called before each bridge begins
        self._settings = settings  # of the bridge that runs
        self._store: Store
        self._bridge: Bridge | None = None
        self._next: Settings | None = None
        self._starting = False  # it follows another one, which goes on when it cannot
        self._failure = ""  # why it could not
        self._ending = False
        self._asked = asyncio.Event()
        self._outcome = Outcome()

    # --- lives

    async def run(self) -> None:
        """Until `stop`. Raises `StoreBusy`, `sqlite3.Error`, and what keeps the first bridge from listening."""
        async with store.opened(self._settings.config.data) as self._store:
            before: Settings | None = None
            while not self._ending:
                self._next, self._failure, self._starting = None, "", before is not None
                await self._live()
                if self._failure and before is not None:
                    self._went_back()
                    self._settings, before = before, None
                elif self._next is not None:
                    before, self._settings = self._settings, self._next
                else:
                    return

    async def _live(self) -> None:
        """One bridge, until it ends; one that follows another may fail to start, which is noted."""
        try:
            self._on_life(self._settings.config)
            async with app.made(self._settings.config, self._settings.connectors, self._store) as bridge:
                bridge.on_admin = lambda admin: applying(admin, self)
                self._bridge = bridge
                if not self._ending:
                    await self._accompanied(bridge)
        except Exception as error:
            if not self._starting:
                raise
            log.exception("the bridge could not start")
            self._failure = described(error)

    async def _accompanied(self, bridge: Bridge) -> None:
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._watch(bridge)), tasks.create_task(self._follow())]
            try:
                await bridge.run()
            finally:
                for task in beside:
                    task.cancel()

    async def _watch(self, bridge: Bridge) -> None:
        """See a bridge that follows another start; what has failed by then stops it."""
        if not self._starting:
            return
        await _until(lambda: bool(bridge.failed or not bridge.trouble()), PATIENCE)
        if bridge.failed:
            self._failure = "; ".join(f"{name}: {why}" for name, why in bridge.failed.items())
            bridge.stop()
            return
        self._starting = False
        self._outcome = replace(self._outcome, state="done", told=_waiting(bridge))
        log.info("the bridge runs with its new configuration")

    def _went_back(self) -> None:
        told = (f"The bridge could not start with it and runs as before: {self._failure}",)
        self._outcome = replace(self._outcome, state="refused", told=told)
        log.error("the new configuration cannot be used, the bridge goes on with the one before: %s", self._failure)

    def stop(self) -> None:
        """The bridge ends in good order, and none follows."""
        self._ending = True
        if self._bridge is not None:
            self._bridge.stop()

    # --- asked for

    def reload(self) -> None:
        """Apply the file that the process was started with, whatever it would change (SIGHUP)."""
        self._asked.set()

    async def _follow(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.apply(self._path, "")
            except config.ConfigError as error:
                log.error("the configuration cannot be used, nothing is changed: %s", "; ".join(error.problems))
            except (Changed, OSError, store.Error) as error:
                log.error("the configuration could not be applied: %s", error)

    async def plan(self, path: Path) -> Plan:
        """What that file would change. Raises `ConfigError` with every problem in it."""
        return (await self._planned(path))[0]

    async def apply(self, path: Path, digest: str) -> Outcome:
        """Change what the plan with that digest said ("": whatever there is to change).

        Raises `ConfigError`, and `Changed` when it would be something else by now, or needs a stop. When parts start
        anew that is only begun: `outcome` tells how it ends.
        """
        planned, settings = await self._planned(path)
        if digest not in ("", planned.digest):
            raise Changed("the file, or the bridge, is different from what was shown; look at the plan again")
        if planned.refused:
            told = "; ".join(step.what for step in planned.refused)
            raise Changed(f"a running bridge cannot change this: {told}. Stop it, change the file, start it again")
        bridge = self._bridge
        assert bridge is not None
        if self._outcome.state == "starting" or self._next is not None:
            raise Changed("another change is being applied; try again when it has ended")
        if planned.anew:
            self._outcome, self._next = Outcome(planned.digest, "starting"), settings
            asyncio.get_running_loop().call_later(TICK, bridge.stop)  # who asked hears yes first
            return self._outcome
        if planned.steps:
            await bridge.adopt(settings.config)
            self._settings = settings
            await _until(lambda: bridge.rooms.all_caught_up, PATIENCE / 3)  # new rooms are entered and read
        self._outcome = Outcome(planned.digest, "done", _waiting(bridge))
        return self._outcome

    @property
    def outcome(self) -> Outcome:
        """Of the last change that was asked for."""
        return self._outcome

    async def _planned(self, path: Path) -> tuple[Plan, Settings]:
        new = Settings(*await asyncio.to_thread(config.load, path))
        warnings = [each async for each in self._cautions(new.config)]
        return plan(self._settings, new, await self._store.secret(), warnings), new

    async def _cautions(self, new: config.Config) -> AsyncIterator[str]:
        bridge, old = self._bridge, self._settings.config.mappings
        assert bridge is not None
        places = bridge.places
        rooms = {each.room: places.room_of(each) or each.room for each in (*old, *new.mappings, *places.made)}
        for warning in cautions(old, new, places.made, rooms):
            yield warning
        for name in sorted({each.room for each in new.mappings}):
            if not await bridge.rooms.exists(name):
                yield f"the homeserver knows no room {name} yet: what arrives for it will be asked to come later"
        kept = {(each.connector, rooms[each.room]) for each in (*new.mappings, *places.made)}
        for connector, room in sorted({(each.connector, rooms[each.room]) for each in old} - kept):
            count = await self._store.transact(lambda tx, *of: Search(tx.db).following(*of), connector, room)
            if count:
                yield f"conversations in {places.name(room)} that would hear no more of {connector}: {count}"


async def _until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        if done() or time.monotonic() > end:
            return
        await asyncio.sleep(TICK)


def _waiting(bridge: Bridge) -> tuple[str, ...]:
    unknown = ", ".join(sorted(bridge.places.unresolved()))
    trouble = bridge.trouble() | ({"rooms": f"not entered yet: {unknown}"} if unknown else {})
    return tuple(f"not ready: {name}: {why}" for name, why in trouble.items())


def first(error: BaseException) -> BaseException:
    """The first error in a group of groups."""
    return first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
