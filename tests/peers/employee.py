"""An employee at a Matrix client (matrix-nio): says, reacts, edits, uploads, and sees what a person would see."""

from __future__ import annotations

import asyncio
import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import nio

Event = dict[str, Any]
KINDS = {"image": "m.image", "audio": "m.audio", "video": "m.video"}
FILTER = {
    "presence": {"types": []},
    "room": {"timeline": {"limit": 1000}, "ephemeral": {"types": ["m.receipt", "m.typing"]}},
}


class Refused(Exception):
    """The homeserver said no."""


def body(event: Event) -> str:
    """What the message says now: of an edit, the new words."""
    content = event.get("content", {})
    return str(content.get("m.new_content", content).get("body", ""))


def relation(event: Event) -> dict[str, Any]:
    """The event's relation, or nothing."""
    found = event.get("content", {}).get("m.relates_to")
    return found if isinstance(found, dict) else {}


def thread_of(event: Event) -> str | None:
    """The root of the thread that the event is in."""
    related = relation(event)
    return related.get("event_id") if related.get("rel_type") == "m.thread" else None


class Employee:
    """One person at one device. `async with employee:` logs in when needed and keeps syncing until the end."""

    def __init__(
        self, url: str, mxid: str, password: str = "", device: str = "", token: str = "", since: str | None = None
    ) -> None:
        settings = nio.AsyncClientConfig(
            encryption_enabled=False, request_timeout=60, max_timeouts=1, max_limit_exceeded=0
        )
        self.client = nio.AsyncClient(url, mxid, config=settings)
        self.mxid = mxid
        self.password = password
        self.since = since
        self.invites: set[str] = set()
        self._events: dict[str, list[Event]] = defaultdict(list)
        self._news = asyncio.Condition()
        self._sync: asyncio.Task[None] | None = None
        if token:
            self.client.restore_login(mxid, device, token)

    @property
    def name(self) -> str:
        return self.mxid[1:].partition(":")[0]

    async def login(self) -> None:
        _checked(await self.client.login(self.password, device_name="test"), nio.LoginResponse)

    async def __aenter__(self) -> Self:
        if not self.client.access_token:
            await self.login()
        await self._sync_once(timeout=0)
        self._sync = asyncio.create_task(self._keep_syncing(), name=f"sync of {self.mxid}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sync is not None:
            self._sync.cancel()
            await asyncio.gather(self._sync, return_exceptions=True)
        await self.client.close()

    # Saying things. Each returns the new event's id.

    async def say(
        self,
        room: str,
        text: str,
        thread: str | None = None,
        reply_to: str | None = None,
        html: str | None = None,
        mentions: Sequence[str] = (),
        msgtype: str = "m.text",
    ) -> str:
        """Send a message, related to others as Element does it."""
        content: Event = {"msgtype": msgtype, "body": text, "m.mentions": {}}
        if html is not None:
            content |= {"format": "org.matrix.custom.html", "formatted_body": html}
        if mentions:
            content["m.mentions"] = {"user_ids": list(mentions)}
        return await self.send(room, "m.room.message", content | self._relates(room, thread, reply_to))

    async def react(self, room: str, event: str, key: str) -> str:
        related = {"rel_type": "m.annotation", "event_id": event, "key": key}
        return await self.send(room, "m.reaction", {"m.relates_to": related})

    async def edit(self, room: str, event: str, text: str, html: str | None = None) -> str:
        """Replace what an own message said."""
        new: Event = {"msgtype": "m.text", "body": text, "m.mentions": {}}
        old: Event = {"msgtype": "m.text", "body": f"* {text}", "m.mentions": {}}
        if html is not None:
            new |= {"format": "org.matrix.custom.html", "formatted_body": html}
            old |= {"format": "org.matrix.custom.html", "formatted_body": f"* {html}"}
        related = {"rel_type": "m.replace", "event_id": event}
        return await self.send(room, "m.room.message", old | {"m.new_content": new, "m.relates_to": related})

    async def redact(self, room: str, event: str, reason: str | None = None) -> str:
        answer = _checked(await self.client.room_redact(room, event, reason), nio.RoomRedactResponse)
        return str(answer.event_id)

    async def upload_file(
        self,
        room: str,
        name: str,
        data: bytes,
        type: str = "application/octet-stream",
        thread: str | None = None,
        caption: str | None = None,
    ) -> str:
        """Upload `data` and show it in the room, as an image, sound, film or file."""
        content: Event = {
            "msgtype": KINDS.get(type.partition("/")[0], "m.file"),
            "body": name if caption is None else caption,
            "filename": name,
            "url": await self.upload(name, data, type),
            "info": {"mimetype": type, "size": len(data)},
        }
        return await self.send(room, "m.room.message", content | self._relates(room, thread, None))

    async def upload(self, name: str, data: bytes, type: str = "application/octet-stream") -> str:
        """Put `data` in the media repository; returns its mxc URI."""
        answer, _ = await self.client.upload(
            lambda *_: io.BytesIO(data), content_type=type, filename=name, filesize=len(data)
        )
        return str(_checked(answer, nio.UploadResponse).content_uri)

    async def send(self, room: str, type: str, content: Event) -> str:
        """Send any event, as it is."""
        return str(_checked(await self.client.room_send(room, type, content), nio.RoomSendResponse).event_id)

    # Rooms.

    async def create_room(
        self,
        name: str,
        invite: Sequence[str] = (),
        powers: dict[str, int] | None = None,
        alias: str | None = None,
        space: bool = False,
        state: Sequence[dict[str, Any]] = (),
    ) -> str:
        """Make a private room (or a space) and returns its id. `powers` are of others: the creator has all."""
        answer = await self.client.room_create(
            name=name,
            alias=alias,
            invite=invite,
            space=space,
            initial_state=state,
            preset=nio.RoomPreset.private_chat,
            power_level_override={"users": powers} if powers else None,
        )
        return str(_checked(answer, nio.RoomCreateResponse).room_id)

    async def create_space(self, name: str, rooms: Sequence[str] = (), invite: Sequence[str] = ()) -> str:
        """Make a space that holds `rooms`."""
        space = await self.create_room(name, invite=invite, space=True)
        for room in rooms:
            await self.add_to_space(space, room)
        return space

    async def add_to_space(self, space: str, room: str) -> None:
        via = [self.mxid.partition(":")[2]]
        await self.put_state(space, "m.space.child", {"via": via, "suggested": True}, room)
        await self.put_state(room, "m.space.parent", {"via": via, "canonical": True}, space)

    async def put_state(self, room: str, type: str, content: Event, key: str = "") -> str:
        answer = _checked(await self.client.room_put_state(room, type, content, key), nio.RoomPutStateResponse)
        return str(answer.event_id)

    async def invite(self, room: str, mxid: str) -> None:
        _checked(await self.client.room_invite(room, mxid), nio.RoomInviteResponse)

    async def join(self, room: str) -> None:
        _checked(await self.client.join(room), nio.JoinResponse)

    async def leave(self, room: str) -> None:
        _checked(await self.client.room_leave(room), nio.RoomLeaveResponse)

    async def upgrade(self, room: str, version: str = "12") -> str:
        """Have the homeserver replace the room by one of that version; returns its id. Nobody is invited there yet."""
        url = f"{self.client.homeserver}/_matrix/client/v3/rooms/{room}/upgrade"
        headers = {"Authorization": f"Bearer {self.client.access_token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(url, json={"new_version": version}) as answer,
        ):
            said = await answer.json()
        if "replacement_room" not in said:
            raise Refused(str(said))
        return str(said["replacement_room"])

    async def members(self, room: str) -> dict[str, str]:
        """Who is joined: user id → display name."""
        answer = _checked(await self.client.joined_members(room), nio.JoinedMembersResponse)
        return {member.user_id: member.display_name or "" for member in answer.members}

    # Seeing things.

    def timeline(self, room: str) -> list[Event]:
        """All events of the room seen so far, oldest first, state events among them."""
        return list(self._events[room])

    def thread(self, room: str, root: str) -> list[Event]:
        """The events of a thread seen so far, its root first."""
        return [event for event in self._events[room] if event["event_id"] == root or thread_of(event) == root]

    def reactions(self, room: str, event: str) -> list[tuple[str, str]]:
        """Who reacted with what to the event, redacted reactions left out."""
        return [
            (each["sender"], relation(each)["key"])
            for each in self._events[room]
            if each["type"] == "m.reaction" and relation(each).get("event_id") == event
        ]

    async def see(
        self, room: str, wanted: Callable[[Event], Any] | str, timeout: float = 40, after: str | None = None
    ) -> Event:
        """The first event that is `wanted`, seen already or to come; a text is wanted in the message.

        With `after`, only events that came later than that one count.
        """
        fits = (lambda event: wanted in body(event)) if isinstance(wanted, str) else wanted

        def first() -> Event | None:
            return next((event for event in self._later(room, after) if fits(event)), None)

        try:
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(first)
        except TimeoutError:
            raise AssertionError(self._what_was_seen(room, wanted, timeout)) from None
        found = first()
        assert found is not None
        return found

    async def see_invite(self, room: str, timeout: float = 40) -> None:
        """Wait until invited to the room."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: room in self.invites)

    async def download(self, mxc: str) -> bytes:
        answer = _checked(await self.client.download(mxc), nio.MemoryDownloadResponse)
        return bytes(answer.body)

    # Syncing.

    async def _keep_syncing(self) -> None:
        while True:
            try:
                await self._sync_once(timeout=30_000)
            except (
                OSError,
                TimeoutError,
                aiohttp.ClientError,
                Refused,
            ):  # the homeserver is away: a client tries again
                await asyncio.sleep(0.2)

    async def _sync_once(self, timeout: int) -> None:
        answer = await self.client.sync(timeout=timeout, sync_filter=FILTER, since=self.since)
        heard = _checked(answer, nio.SyncResponse)
        self.since = heard.next_batch
        async with self._news:
            self.invites.update(heard.rooms.invite)
            for room, joined in heard.rooms.join.items():
                for event in joined.timeline.events:
                    self._hear(room, event.source)
            self._news.notify_all()

    def _hear(self, room: str, event: Event) -> None:
        self._events[room].append(event)
        if event["type"] == "m.room.redaction":
            redacted = event["content"].get("redacts") or event.get("redacts")
            for seen in self._events[room]:
                if seen["event_id"] == redacted:
                    seen["content"] = {}
                    seen.setdefault("unsigned", {})["redacted_because"] = event

    def _later(self, room: str, after: str | None) -> list[Event]:
        events = self._events[room]
        if after is None:
            return events
        places = [place for place, event in enumerate(events) if event["event_id"] == after]
        return events[places[0] + 1 :] if places else []

    def _relates(self, room: str, thread: str | None, reply_to: str | None) -> Event:
        related: Event = {}
        if thread is not None:
            last = self.thread(room, thread)
            related = {"rel_type": "m.thread", "event_id": thread, "is_falling_back": reply_to is None}
            related["m.in_reply_to"] = {"event_id": reply_to or (last[-1]["event_id"] if last else thread)}
        elif reply_to is not None:
            related = {"m.in_reply_to": {"event_id": reply_to}}
        return {"m.relates_to": related} if related else {}

    def _what_was_seen(self, room: str, wanted: object, timeout: float) -> str:
        seen = "\n".join(
            f"  {event['sender']} {event['type']} {json.dumps(event['content'], ensure_ascii=False)[:300]}"
            for event in self._events[room][-25:]
        )
        ended = "" if self._sync is None or not self._sync.done() else f"\nIts sync had ended: {self._sync}"
        return f"{self.mxid} waited {timeout} s for {wanted!r} in {room} and saw:\n{seen or '  nothing'}{ended}"


def _checked(answer: Any, expected: type[Any]) -> Any:
    if not isinstance(answer, expected):
        raise Refused(str(answer))
    return answer
