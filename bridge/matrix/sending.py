"""One event into one room, exactly once; and the file that it shows, before it."""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from mautrix.errors import MatrixRequestError

from bridge import payload
from bridge.matrix.client import Client
from bridge.matrix.ghosts import Ghosts
from bridge.matrix.rooms import Rooms
from bridge.model import Deferred, Delivery, Rejected
from bridge.payload import Post
from bridge.store import Store
from bridge.texts import Texts

MEMORY = 20 * 3600  # seconds the homeserver surely remembers our transaction ids (24 h for sends with a device)


class Annotated(Exception):
    """The reaction is there already."""


class Forbidden(Deferred):
    """Not even after joining again; somebody may grant the right."""


class Sending:
    """What every kind of delivery into a room shares."""

    def __init__(self, store: Store, ghosts: Ghosts, rooms: Rooms, say: Texts) -> None:
        self._store = store
        self._ghosts = ghosts
        self._rooms = rooms
        self._say = say

    async def uploaded(self, delivery: Delivery, post: Post, sender: Client) -> Post:
        """The file is put into the media repository and its address saved, before the event that shows it."""
        assert post.file is not None
        chunks = self._store.spool.stream(post.file)
        try:
            first = await anext(chunks, b"")  # before the request: within it aiohttp would make this its own error
        except FileNotFoundError:
            raise Rejected(self._say("original-gone")) from None
        try:
            mxc = await sender.upload(post.file.name, post.file.type, post.file.size, _after(first, chunks))
        except MatrixRequestError as error:
            raise Rejected(str(error)) from None
        post = replace(post, file=replace(post.file, mxc=mxc))
        await self._store.transact(lambda tx: tx.queue.amend(delivery.uid, payload.dump(post)))
        return post

    async def send(self, sender: Client, delivery: Delivery, room: str, type_: str, body: dict[str, Any]) -> str:
        """Send once: the homeserver remembers the transaction; beyond its memory we look into the room first."""
        if delivery.doubt and time.time() - delivery.doubt > MEMORY:
            found = await self._rooms.find(room, delivery.uid.removesuffix(".stub"), delivery.doubt)
            if found:
                return found
        path = f"_matrix/client/v3/rooms/{room}/send/{type_}/{transaction(delivery, sender)}"
        try:
            return str((await sender.call("PUT", path, body))["event_id"])
        except MatrixRequestError as error:
            return await self._refused(error, sender, room, path, body)

    async def _refused(
        self, error: MatrixRequestError, sender: Client, room: str, path: str, body: dict[str, Any]
    ) -> str:
        if error.errcode == "M_DUPLICATE_ANNOTATION":
            raise Annotated
        if error.http_status == 403:
            await self._ghosts.forget(sender.mxid, room)
            await self._ghosts.join(sender.mxid, room)
            try:
                return str((await sender.call("PUT", path, body))["event_id"])
            except MatrixRequestError as again:
                raise Forbidden(f"{sender.mxid} may not speak in {room}: {again}") from None
        raise Rejected(f"{error.http_status} {error.errcode}: {error.message}")


async def _after(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk


def transaction(delivery: Delivery, sender: Client) -> str:
    """The homeserver compares transaction ids for the whole appservice: the sender must be in it (FACTS: Synapse)."""
    return f"{delivery.uid}.{zlib.crc32(sender.mxid.encode()):x}"
