"""`passerelle doctor`: all that a bridge needs, looked at one by one, and what to do about each. It changes nothing.

It asks the servers itself, whether the bridge runs or not; what only the running process knows, it is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import aiohttp

from bridge.admin.plan import gaps
from bridge.config import Config, Connectors
from bridge.doctor import house, registration, tools
from bridge.doctor.door import figures, opened
from bridge.doctor.homeserver import Asked, Homeserver
from bridge.doctor.line import Line, Veil, note
from bridge.doctor.rooms import rooms
from bridge.http import new_session, trusting

__all__ = ["Line", "examine"]

Running = aiohttp.ClientSession | None


async def examine(
    config: Config, connectors: Connectors, running: Running, paper: Path | None = None, patience: float = 15.0
) -> AsyncIterator[Line]:
    """Every line, group by group as they are known. `paper` is the registration file, where one is at hand; `running`
    leads to the admin socket of the running bridge. No connector gets longer than `patience` seconds.
    """
    veil = Veil(config, connectors)
    timeout, trusted = aiohttp.ClientTimeout(total=10), aiohttp.TCPConnector(ssl=trusting(config.homeserver.ca_file))
    async with aiohttp.ClientSession(timeout=timeout, connector=trusted) as session, new_session() as own:
        groups: list[Awaitable[list[Line]]] = [
            asyncio.to_thread(registration.compared, paper, config),
            _grounds(config, Asked(session, config), running is not None),
            house.asked(running),
            *(tools.checked(name, *each, config, own, patience) for name, each in connectors.items()),
        ]
        for done in asyncio.as_completed(groups):
            for line in await done:
                yield veil(line)


async def _grounds(config: Config, ask: Asked, running: bool) -> list[Line]:
    """The data folder, where the homeserver reaches us, the homeserver, and the rooms: one needs the other."""
    found, glance = await asyncio.to_thread(house.looked_at, config.data, running)
    async with opened(config, running) as door:
        lines = [*found, door.line, *await figures(config, running)]
        mappings = (*config.mappings, *(glance.made if glance else ()))
        lines += [
            note("mappings", each, "map it, or map it once without a filter")
            for each in gaps(config.connectors, mappings)
        ]
        homeserver = Homeserver(config, ask, door)
        lines += await homeserver.check()
        if homeserver.speaks:
            lines += await rooms(config, ask, mappings, known=homeserver.known)
    return lines
