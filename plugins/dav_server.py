"""What the plugins for WebDAV and CalDAV share: several scopes on one server, each looked at by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.connector import Connector, Port, Reply, ServerConfig
from bridge.model import FAILURES, Envelope, File, Finding, Gone, Page, Rejected, Unavailable
from plugins.dav import MISSING, Dav


class Server(Connector):
    """A connector whose scopes are folders or lists."""

    kind = ""  # what a scope is, for people

    def __init__(self, name: str, config: ServerConfig, port: Port) -> None:
        super().__init__(name, config, port)
        self.every, self._away = config.every, dict[str, str]()
        self.turn = 0  # how many looks have brought something: what happens again is another event
        self.http = port.http(config.url, login=config.login, ca_file=config.ca_file)
        self.dav = Dav(self.http, config.url, config.web)

    async def news(self, scope: str, at: Any) -> tuple[Any, list[Envelope], bool]:
        """Where to go on, what has happened since `at` (None: the first look), and whether there is more of it.

        Raises `Rejected` when the scope cannot be looked at, `Unavailable`.
        """
        raise NotImplementedError

    async def is_there(self, scope: str) -> bool:
        """Whether a room can be mapped to it, although `offers` does not say so."""
        return False

    def troubles(self) -> Mapping[str, str]:
        return self._away

    async def poll(self, cursor: str) -> Page:
        at, now, told, more = json.loads(cursor or "{}"), dict[str, Any](), list[Envelope](), False
        self._away, self.turn = {}, at.get("", 0)
        for scope in sorted(self.port.scopes()):
            try:
                now[scope], found, again = await self.news(scope, at.get(scope))
            except Rejected as error:  # it is gone, or too large: the others go on
                self._away[f"{self.name} {scope}"] = str(error)
                now |= {scope: at[scope]} if scope in at else {}
            else:
                told, more = told + found, more or again
        return Page(tuple(told), json.dumps({**now, "": self.turn + bool(told)}), more)

    async def alive(self) -> None:
        """Raises `Unavailable` when nothing at all is at our url: then it is not the tool that says 404."""
        reply = await self.dav.root()
        if reply.status in MISSING:
            raise Unavailable(f"there is nothing at its url ({reply.status})")

    async def gone(self, what: str) -> Gone:
        """That something is not there any more. Raises as `alive`."""
        await self.alive()
        return Gone(f"there is no {what} any more")

    async def written(
        self, method: str, path: str, body: bytes | File, headers: Mapping[str, str], accept: Sequence[int] = ()
    ) -> Reply:
        """Write a file. A 403 is a refusal of that folder; but it is trouble when that may not even be looked at."""
        place, folder = self.dav.href(path), path.rpartition("/")[0]
        reply = await self.http.request(method, place, body=body, headers=headers, accept=(403, *MISSING, *accept))
        if reply.status in MISSING:
            await self.alive()
            raise Rejected(f"{self.name} has no {self.kind} {folder}")
        if reply.status == 403:
            await self.dav.look(folder, "D:resourcetype")
            raise Rejected(f"{self.name} does not let the bridge write to {folder}")
        return reply

    async def check(self) -> list[Finding]:
        remedy = f"see url (what the {self.kind}s are in), username, password, and the account's rights"
        try:
            offers = await self.offers()
            mapped = sorted(self.port.scopes() - set(offers))
            lost = [scope for scope in mapped if not await self.is_there(scope)]
        except FAILURES as error:
            return [Finding(False, str(error), remedy)]
        found = [
            Finding(False, f"there is no {self.kind} {scope} that a room can be mapped to", remedy) for scope in lost
        ]
        return [*found, Finding(bool(offers), f"{self.kind}s: {', '.join(offers) or 'none'}", "" if offers else remedy)]
