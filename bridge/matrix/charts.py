"""Mapping as the homeserver has it: who has power in a room, and the state that announces what is mapped there."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from mautrix.errors import MatrixRequestError

from bridge.config import Config, Mapping
from bridge.matrix.ghosts import Ghosts
from bridge.matrix.rights import ANNOUNCED, creators, missing, needed_to_map, power, powerful
from bridge.model import Deferred
from bridge.payload import Announce, Chart
from bridge.places import Places, Standing, state_key
from bridge.queue import Crossing
from bridge.store import Store, Tx

log = logging.getLogger(__name__)


class Charts:
    """Reads what a mapping needs to be known of its room, and announces what is mapped (MSC2346)."""

    def __init__(self, config: Config, store: Store, ghosts: Ghosts, places: Places) -> None:
        self._config = config
        self._store = store
        self._ghosts = ghosts
        self._places = places

    async def standing(self, chart: Chart) -> Standing:
        """How things stand in the room. Raises `Deferred` when the homeserver does not show it, `Unavailable`."""
        levels = await self._state(chart.room, "m.room.power_levels")
        create = await self._state(chart.room, "m.room.create", format="event")
        encryption = await self._state(chart.room, "m.room.encryption")
        above = creators(create)
        others = [mxid for mxid in powerful(levels, above) if not self._config.is_ours(mxid)]
        return Standing(
            level=power(levels, above, chart.sender),
            needed=needed_to_map(levels),
            powerful=tuple(others),
            encrypted=bool(encryption),
            missing=tuple(missing(levels, above, self._config.bot_mxid)),
        )

    async def _state(self, room: str, type_: str, **query: str) -> dict[str, Any]:
        """{} when the room has none; that somebody does not show it is not the same."""
        try:
            return await self._ghosts.bot.call("GET", f"_matrix/client/v3/rooms/{room}/state/{type_}", **query)
        except MatrixRequestError as error:
            if error.http_status == 404:
                return {}
            raise Deferred(f"the homeserver does not show the room: {error}") from None

    # --- announcements

    async def announce(self, announce: Announce) -> Crossing:
        """Bring the room's announcements up to date; twice does no harm: state that says the same is no new event."""
        room = announce.room
        told = {key for where, key in await self._store.transact(lambda tx: tx.mappings.announced()) if where == room}
        mapped = {state_key(mapping): mapping for mapping in reversed(self._places.mappings_of(room))}
        makers = await self._store.transact(lambda tx: {key: tx.mappings.maker(each) for key, each in mapped.items()})
        new, gone = mapped.keys() - told, told - mapped.keys()
        contents = {key: self._content(mapped[key], makers[key]) for key in new} | {key: {} for key in gone}
        try:
            for key, body in contents.items():
                await self._put(room, key, body)
        except MatrixRequestError as error:
            log.info("what is mapped to %s cannot be announced there: %s", room, error)
            lacking = await self._lacking(room)
            return lambda tx: self._places.tell_rights(tx, room, lacking) if lacking else None
        return lambda tx: _noted(tx, room, new, gone)

    async def _lacking(self, room: str) -> list[str]:
        """Rights that are missing, if it is for one of them; elsewhere there is nothing that somebody could grant."""
        try:
            levels = await self._state(room, "m.room.power_levels")
            above = creators(await self._state(room, "m.room.create", format="event"))
        except Deferred:
            return []
        found = missing(levels, above, self._config.bot_mxid)
        return found if "right-announce" in found else []

    async def _put(self, room: str, key: str, body: dict[str, Any]) -> None:
        for type_ in ANNOUNCED:
            path = f"_matrix/client/v3/rooms/{room}/state/{type_}/{quote(key, safe='')}"
            await self._ghosts.bot.call("PUT", path, body)

    def _content(self, mapping: Mapping, maker: str) -> dict[str, Any]:
        """MSC2346: protocols have networks, which have channels."""
        section = self._config.connectors[mapping.connector]
        plugin = section.get("plugin", mapping.connector) if isinstance(section, dict) else mapping.connector
        content = {
            "bridgebot": self._config.bot_mxid,
            "protocol": {"id": plugin, "displayname": plugin},
            "network": {"id": mapping.connector, "displayname": mapping.connector},
            "channel": {"id": mapping.scope, "displayname": mapping.scope},
        }
        return content | ({"creator": maker} if maker else {})


def _noted(tx: Tx, room: str, new: set[str], gone: set[str]) -> None:
    for key in new:
        tx.mappings.announce(room, key)
    for key in gone:
        tx.mappings.withdrawn(room, key)
