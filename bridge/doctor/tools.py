"""Each connector's own `check`, in this process and with this configuration: no bridge needs to run for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import aiohttp

from bridge.config import Config
from bridge.connector import Connector, Http, Spool, Web
from bridge.doctor.line import Line, note, ok, trouble
from bridge.http import ToolHttp
from bridge.model import Envelope, Finding, Rejected
from bridge.openweb import OpenWeb
from bridge.text.plain import spoken
from bridge.watch.logs import told


async def checked(
    name: str, kind: type[Connector], body: Any, config: Config, session: aiohttp.ClientSession, patience: float
) -> list[Line]:
    """What the connector finds. One that hangs or breaks is trouble of its own."""
    try:
        async with asyncio.timeout(patience):
            found = await kind(name, body, _Port(name, config, session)).check()
    except TimeoutError:
        what = f"its check has not ended within {patience:g} s"
        return [trouble(name, what, "is the tool slow, or is something between us that swallows connections?")]
    except Exception as error:  # noqa: BLE001 - somebody else's code; whatever it is, the other checks go on
        return [trouble(name, f"its check broke: {told(error)}", "this is a fault of the plugin")]
    return [_line(name, each, config.outward.max_size) for each in found] or [note(name, "has nothing to check")]


def _line(name: str, found: Finding, largest: int) -> Line:
    if found.ok and 0 < found.most < largest:
        what = f"{found.what}; outward.max_size promises more: {spoken(largest)}"
        return note(name, what, f"set outward.max_size to {found.most} or less")  # larger ones are refused, and told
    return ok(name, found.what) if found.ok else trouble(name, found.what, found.remedy or "see its documentation")


class _Port:
    """What a connector sees of a bridge that is not there: the tool can be asked, and nothing arrives."""

    def __init__(self, name: str, config: Config, session: aiohttp.ClientSession) -> None:
        self._name = name
        self._config = config
        self._session = session

    @property
    def spool(self) -> Spool:
        return cast(Spool, _NoSpool())

    async def accept(self, envelope: Envelope) -> None:
        raise Rejected("nothing is taken while the connector is only looked at")

    def scopes(self) -> frozenset[str]:
        return frozenset(each.scope for each in self._config.mappings if each.connector == self._name)

    def sign(self, text: str) -> str:
        return "a" * 16  # of the right shape; only a bridge with its secret signs

    def http(
        self, url: str, *, headers: Mapping[str, str] | None = None, login: tuple[str, str] | None = None,
        ca_file: Path | None = None,
    ) -> Http:  # fmt: skip
        limit = self._config.max_file
        return ToolHttp(self._session, self.spool, url, headers, login, ca_file=ca_file, max_file=limit)

    def web(self, hosts: Iterable[str] = ("*",), **how: Any) -> Web:
        return OpenWeb(hosts, **how)


class _NoSpool:
    def __getattr__(self, name: str) -> NoReturn:
        raise Rejected("there is no spool while the connector is only looked at")
