"""What one connector sees of the bridge."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

import aiohttp

from bridge.connector import Http, Network, Spool, Web
from bridge.http import ToolHttp
from bridge.hub import Hub
from bridge.model import Envelope
from bridge.openweb import OpenWeb
from bridge.places import Places
from bridge.store import Store


class BridgePort:
    """The `connector.Port` of a running bridge."""

    def __init__(
        self, name: str, memory: Store, hub: Hub, places: Places, secret: bytes, session: aiohttp.ClientSession,
        max_file: int,
    ) -> None:  # fmt: skip
        self._name = name
        self._store = memory
        self._hub = hub
        self._places = places
        self._secret = secret
        self._session = session
        self._max_file = max_file

    @property
    def spool(self) -> Spool:
        return self._store.spool

    async def accept(self, envelope: Envelope) -> None:
        await self._store.transact(self._hub.accept, envelope)

    def scopes(self) -> frozenset[str]:
        return self._places.scopes_of(self._name)

    def sign(self, text: str) -> str:
        digest = hmac.new(self._secret, f"{self._name}:{text}".encode(), hashlib.sha256).digest()
        return base64.b32encode(digest[:10]).decode().lower()

    def http(
        self, url: str, *, headers: Mapping[str, str] | None = None, login: tuple[str, str] | None = None,
        ca_file: Path | None = None,
    ) -> Http:  # fmt: skip
        spool, limit = self._store.spool, self._max_file
        return ToolHttp(self._session, spool, url, headers, login, ca_file=ca_file, max_file=limit)

    def web(
        self, hosts: Iterable[str] = ("*",), *, ports: Iterable[int] = (80, 443), networks: Iterable[Network] = (),
        seconds: float = 10.0, ca_file: Path | None = None,
    ) -> Web:  # fmt: skip
        return OpenWeb(hosts, ports=ports, networks=networks, seconds=seconds, ca_file=ca_file)
