"""Arrivals brought by hand: a file that was kept of one is read by its connector, explained, and accepted or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.admin.explain import Explain
from bridge.connector import Connector
from bridge.hub import Hub
from bridge.model import Envelope, Rejected, Request
from bridge.store import Store

LARGEST = 64 * 2**20  # bytes of a file


@dataclass(frozen=True, slots=True)
class Kept:
    """A file with what once arrived, and what is asked of it."""

    name: str
    data: bytes
    connector: str = ""  # "": whichever can read it
    scope: str = ""  # "": what the file says it came for
    dry: bool = True  # only say what it would do


class Replay:
    """Files for the connectors of one bridge."""

    def __init__(self, store: Store, hub: Hub, explain: Explain, connectors: Mapping[str, Connector]) -> None:
        self._store = store
        self._hub = hub
        self._explain = explain
        self._connectors = connectors

    async def bring(self, kept: Kept) -> list[str]:
        """What it does, or would do, line by line. Raises `Rejected` when no connector can read it."""
        name, envelopes = await self._read(kept)
        lines = [f"read by {name}"]
        for envelope in envelopes:
            lines += await self._store.rehearse(self._explain.arrival, envelope)
        if not envelopes:
            lines.append("nothing in it is for a room")
        if kept.dry:
            return [*lines, "nothing was written down or sent"]
        return [*lines, *[await self._accepted(envelope) for envelope in envelopes]]

    async def _accepted(self, envelope: Envelope) -> str:
        try:
            await self._store.transact(self._hub.accept, envelope)
        except Rejected as error:
            return f"refused: {error}"
        return "accepted; what came before is not shown again"

    async def _read(self, kept: Kept) -> tuple[str, Sequence[Envelope]]:
        """By the connector that is named, else by the only one that can."""
        if kept.connector and kept.connector not in self._connectors:
            raise Rejected(f"there is no connector {kept.connector}; there are: {', '.join(self._connectors)}")
        names = [kept.connector] if kept.connector else list(self._connectors)
        found: dict[str, Sequence[Envelope]] = {}
        why: list[str] = []
        for name in names:
            try:
                found[name] = await _opened(self._connectors[name], kept)
            except Rejected as error:
                why.append(f"{name}: {error}")
        if not found:
            raise Rejected("; ".join(why))
        if len(found) > 1:
            raise Rejected(f"it may be for {', '.join(found)}: say which with --connector")
        return next(iter(found.items()))


async def _opened(connector: Connector, kept: Kept) -> Sequence[Envelope]:
    """A webhook is verified as ever: what was kept of it must have the headers it came with. Raises `Rejected`."""
    if type(connector).parse is not Connector.parse and kept.data.lstrip()[:1] == b"{":
        return connector.parse(_request(kept.data))
    return await connector.opened(kept.name, kept.data, kept.scope)


def _request(data: bytes) -> Request:
    """A webhook from the JSON it was kept in. Raises `Rejected`."""
    try:
        kept = json.loads(data)
        headers, body, query = kept["headers"], kept["body"], kept.get("query", {})
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        headers = {str(name).lower(): str(value) for name, value in headers.items()}
        return Request(headers, raw, {str(name): str(value) for name, value in query.items()}, replayed=True)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Rejected('this is no kept webhook: JSON with "headers", "body" and perhaps "query"') from None
