"""Ghosts: the Matrix users that stand for people outside; registered, named and joined when they first speak."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
from mautrix.errors import MatrixRequestError

from bridge.config import Config
from bridge.matrix.client import DEVICE, Client
from bridge.matrix.wire import Wire
from bridge.model import Author, Deferred, Unavailable
from bridge.store import Store

log = logging.getLogger(__name__)

LONGEST = 200  # characters of an encoded localpart; a user id has at most 255 bytes (spec, "User Identifiers")
_PLAIN = re.compile(r"[^a-z0-9._-]")
MOST_CLIENTS = 10_000


def localpart(prefix: str, author: Author) -> str:
    """The localpart: stable, lower-case, other characters as =xx (Matrix spec, "Mapping from other character sets")."""
    raw = f"{author.realm}_{author.account}".lower()
    encoded = _PLAIN.sub(lambda match: "".join(f"={byte:02x}" for byte in match[0].encode(errors="replace")), raw)
    if len(encoded) > LONGEST:
        digest = base64.b32encode(hashlib.sha256(raw.encode(errors="replace")).digest()).decode().rstrip("=").lower()
        encoded = f"{encoded[:100]}_{digest}"
    return f"{prefix}{encoded}"


def display_name(author: Author) -> str:
    """The name, and where it comes from: anybody can write any name into a mail."""
    name = " ".join(author.name.split())[:80] or author.account
    return f"{name} ({author.domain or author.realm})"


class Ghosts:
    """Every user of the appservice's namespace, the bot too."""

    def __init__(self, config: Config, wire: Wire, session: aiohttp.ClientSession, store: Store) -> None:
        self._config = config
        self._wire = wire
        self._session = session
        self._store = store
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._names: dict[str, str] = {}
        self._joined: set[tuple[str, str]] = set()
        self._making: dict[str, asyncio.Lock] = {}

    async def load(self) -> None:
        """What is known from earlier lives."""
        self._names, self._joined = await self._store.transact(lambda tx: (tx.people.ghosts(), tx.people.memberships()))

    @property
    def bot(self) -> Client:
        return self.client(self._config.bot_mxid)

    def mxid(self, author: Author) -> str:
        return f"@{localpart(self._config.appservice.ghosts, author)}:{self._config.homeserver.server_name}"

    def client(self, mxid: str) -> Client:
        client = self._clients.get(mxid)
        if client is None:
            token = self._config.appservice.as_token.get_secret_value()
            client = self._clients[mxid] = Client(self._config.homeserver.url, token, self._wire, self._session, mxid)
            while len(self._clients) > MOST_CLIENTS:
                self._clients.popitem(last=False)
        return client

    async def speaker(self, author: Author | None, room: str) -> Client:
        """The user that speaks for `author` (None: the bot), registered, named and in the room."""
        if author is None:
            return self.bot
        mxid = self.mxid(author)
        if self._names.get(mxid) is None or (mxid, room) not in self._joined:
            async with self._alone(mxid):
                if self._names.get(mxid) is None:
                    await self._introduce(mxid, author)
                if (mxid, room) not in self._joined:
                    await self.join(mxid, room)
        return self.client(mxid)

    @asynccontextmanager
    async def _alone(self, mxid: str) -> AsyncIterator[None]:
        """Two lanes may need the same new ghost at once."""
        lock = self._making.setdefault(mxid, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._making.pop(mxid, None)

    async def _introduce(self, mxid: str, author: Author) -> None:
        name = display_name(author)
        await self.register(mxid)
        await self._name(mxid, name)
        await self._store.transact(lambda tx: tx.people.registered(mxid, author.realm, author.account, name))
        self._names[mxid] = name

    async def introduce_bot(self) -> None:
        """The bot exists, and has a name that people can read."""
        mxid, name = self._config.bot_mxid, "Passerelle"
        await self.register(mxid)
        if self._names.get(mxid) != name:
            await self._name(mxid, name)
            await self._store.transact(lambda tx: tx.people.registered(mxid, "", "", name))
            self._names[mxid] = name

    async def _name(self, mxid: str, name: str) -> None:
        """Give it a name that people can read; a homeserver that forbids names must not stop the mail."""
        path = f"_matrix/client/v3/profile/{mxid}/displayname"
        try:
            await self.client(mxid).call("PUT", path, {"displayname": name})
        except MatrixRequestError as error:
            log.warning("%s cannot be named: %s", mxid, error)

    async def register(self, mxid: str) -> None:
        """Make the user and its device; both may exist already."""
        body = {
            "type": "m.login.application_service",
            "username": mxid[1:].partition(":")[0],
            "inhibit_login": True,
        }
        registrar = self._plain("")
        try:
            await registrar.call("POST", "_matrix/client/v3/register", body)
        except MatrixRequestError as error:
            if error.errcode != "M_USER_IN_USE":
                raise Unavailable(f"the homeserver does not let us register {mxid}: {error}") from None
        try:
            await self._plain(mxid).call("PUT", f"_matrix/client/v3/devices/{DEVICE}", {"display_name": "Passerelle"})
        except MatrixRequestError as error:
            hint = "is io.element.msc4190 in the registration?"
            raise Unavailable(f"the homeserver does not let {mxid} have a device ({hint}): {error}") from None

    def _plain(self, mxid: str) -> Client:
        """Without a device: it may not exist yet."""
        token = self._config.appservice.as_token.get_secret_value()
        return Client(self._config.homeserver.url, token, self._wire, self._session, mxid, device=False)

    async def join(self, mxid: str, room: str, via: str = "") -> None:
        """Join, invited by the bot where needed; `via` is a server that is in the room, for one ours is not in.

        Raises `Deferred` when a right is missing: one room's trouble.
        """
        path = f"_matrix/client/v3/join/{quote(room, safe='!:')}" if via else f"_matrix/client/v3/rooms/{room}/join"
        query = {"via": via, "server_name": via} if via else {}  # the latter before version 1.12 of the spec
        try:
            await self.client(mxid).call("POST", path, {}, **query)
        except MatrixRequestError:
            await self._invite(mxid, room)
            try:
                await self.client(mxid).call("POST", path, {}, **query)
            except MatrixRequestError as error:
                raise Deferred(f"{mxid} may not join {room}: {error}") from None
        await self._store.transact(lambda tx: tx.people.joined(mxid, room))
        self._joined.add((mxid, room))

    async def _invite(self, mxid: str, room: str) -> None:
        if mxid == self._config.bot_mxid:
            return
        try:
            await self.bot.call("POST", f"_matrix/client/v3/rooms/{room}/invite", {"user_id": mxid})
        except MatrixRequestError as error:
            if "already in the room" not in str(error):
                raise Deferred(f"the bot may not invite into {room}: {error}") from None

    async def members(self, room: str) -> dict[str, dict[str, object]]:
        """Who is in the room, by Matrix id, as it is shown to the bot. Raises as `Client.call`."""
        found = await self.bot.call("GET", f"_matrix/client/v3/rooms/{room}/joined_members")
        joined = found.get("joined")
        return joined if isinstance(joined, dict) else {}

    async def invited(self, room: str) -> set[str]:
        """Who is invited and has not answered, ghosts left out. Raises as `Client.call`."""
        path = f"_matrix/client/v3/rooms/{quote(room, safe='!:')}/members"
        found = (await self.bot.call("GET", path, membership="invite")).get("chunk")
        events = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        return {mxid for each in events if not self._config.is_ours(mxid := str(each.get("state_key")))}

    async def leave(self, mxid: str, room: str) -> None:
        """Be in the room no longer, or decline its invitation; who is not there stays away. Raises `Unavailable`."""
        with contextlib.suppress(MatrixRequestError):
            await self.client(mxid).call("POST", f"_matrix/client/v3/rooms/{quote(room, safe='!:')}/leave", {})
        await self.forget(mxid, room)

    def is_in(self, mxid: str, room: str) -> bool:
        return (mxid, room) in self._joined

    def knows(self, mxid: str) -> bool:
        return mxid in self._names or mxid == self._config.bot_mxid

    def name(self, mxid: str) -> str:
        """The display name of a ghost, "" for others."""
        return self._names.get(mxid, "")

    async def forget(self, mxid: str, room: str) -> None:
        """It is not in the room after all."""
        await self._store.transact(lambda tx: tx.people.left(mxid, room))
        self._joined.discard((mxid, room))
