"""What the instant homeserver knows: rooms, their events and members, profiles, aliases and media. No I/O here."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

Answer = tuple[int, bytes]
OK = (200, b"{}")
POWERS = {"users_default": 100, "events_default": 0, "state_default": 50, "redact": 50, "invite": 0, "kick": 50}


@dataclass(slots=True)
class Event:
    """An event as it came; `body` stays unread until somebody asks."""

    at: float  # time.monotonic(), the same clock for every process of the machine
    wall: int
    id: str
    room: str
    type: str
    sender: str
    body: bytes
    txn: str = ""
    state_key: str | None = None
    redacts: str = ""

    def document(self) -> dict[str, Any]:
        """The event as clients see it."""
        seen = {
            "event_id": self.id,
            "room_id": self.room,
            "type": self.type,
            "sender": self.sender,
            "origin_server_ts": self.wall,
            "content": json.loads(self.body or b"{}"),
            "unsigned": {},
        }
        if self.state_key is not None:
            seen["state_key"] = self.state_key
        if self.redacts:
            seen["redacts"] = self.redacts
        return seen


@dataclass(slots=True)
class Room:
    """Made when first named: a benchmark need not create its rooms."""

    timeline: list[Event] = field(default_factory=list)
    state: dict[tuple[str, str], Event] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Call:
    """One request, its path cut at the slashes."""

    method: str
    parts: list[str]
    query: dict[str, str]
    body: bytes
    type: str
    user: str

    def part(self, place: int) -> str:
        if place >= len(self.parts):
            return ""
        found = self.parts[place]
        return unquote(found) if "%" in found else found

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or b"{}"))


class Homeserver:
    """Answers requests from memory."""

    def __init__(self, server_name: str = "company.example", sender: str = "_passerelle", echo: bool = False) -> None:
        self.server_name = server_name
        self.sender = f"@{sender}:{server_name}"
        self.echo = echo
        self.outgoing: list[dict[str, Any]] = []  # events the bridge has still to hear of
        self.reset()
        self.routes: dict[tuple[str, str], Callable[[Call], Answer]] = {
            ("GET", "versions"): lambda call: _said(versions=[f"v1.{n}" for n in range(1, 14)], unstable_features={}),
            ("GET", "capabilities"): lambda call: _said(capabilities={}),
            ("GET", "account"): lambda call: _said(user_id=call.user, is_guest=False),
            ("POST", "register"): self._register,
            ("PUT", "devices"): lambda call: OK,
            ("PUT", "profile"): self._set_profile,
            ("GET", "profile"): self._profile,
            ("GET", "directory"): self._alias,
            ("PUT", "directory"): self._set_alias,
            ("DELETE", "directory"): self._drop_alias,
            ("POST", "createRoom"): self._create,
            ("POST", "join"): self._join,
            ("GET", "joined_rooms"): self._joined_rooms,
            ("POST", "upload"): self._upload,
            ("PUT", "upload"): self._upload_to,
            ("POST", "create"): lambda call: _said(content_uri=f"mxc://{self.server_name}/{self._number()}"),
            ("GET", "media"): self._download,
            ("GET", "download"): self._download,
            ("PUT", "rooms/send"): self._send,
            ("PUT", "rooms/redact"): self._redact,
            ("PUT", "rooms/state"): self._set_state,
            ("GET", "rooms/state"): self._state,
            ("POST", "rooms/join"): self._join,
            ("POST", "rooms/invite"): self._invite,
            ("POST", "rooms/leave"): self._leave,
            ("POST", "rooms/receipt"): lambda call: OK,
            ("PUT", "rooms/typing"): lambda call: OK,
            ("GET", "rooms/joined_members"): self._joined_members,
            ("GET", "rooms/members"): self._members,
            ("GET", "rooms/messages"): self._messages,
            ("GET", "rooms/event"): self._event,
            ("GET", "rooms/context"): self._context,
            ("GET", "rooms/relations"): self._relations,
        }

    def reset(self) -> None:
        """Forget everything but the queue to the bridge."""
        self.rooms: defaultdict[str, Room] = defaultdict(Room)
        self.events: dict[str, Event] = {}
        self.sends: list[Event] = []
        self.sent: dict[tuple[str, str], str] = {}
        self.users: set[str] = set()
        self.profiles: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self.aliases: dict[str, str] = {}
        self.media: dict[str, tuple[str, bytes]] = {}
        self.counts: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.repeats = 0
        self._numbers = getattr(self, "_numbers", 0)
        self._life = secrets.token_hex(8)

    def answer(self, method: str, target: str, body: bytes, type: str) -> Answer:
        path, _, query = target.partition("?")
        parts = path.split("/")
        name = parts[4] if len(parts) > 4 else parts[-1]
        if name == "rooms" and len(parts) > 6:
            name = f"rooms/{parts[6]}"
        asked = dict(parse_qsl(query)) if query else {}
        self.counts[f"{method} {name.removeprefix('rooms/')}"] += 1
        route = self.routes.get((method, name))
        if route is None:
            self.unknown[f"{method} {path}"] += 1
            return _failed(404, "M_UNRECOGNIZED", f"the stand-in does not know {method} {path}")
        return route(Call(method, parts, asked, body, type, asked.get("user_id", self.sender)))

    def say(self, event: dict[str, Any]) -> str:
        """An event by somebody else than the bridge: into its room, and to be pushed to the bridge."""
        key = event.get("state_key")
        body = json.dumps(event.get("content", {})).encode()
        kept = self._keep(event["room_id"], event.get("type", "m.room.message"), event["sender"], body, state_key=key)
        kept.redacts = event.get("redacts", "")
        self.outgoing.append(kept.document())
        return kept.id

    # What the bridge asks for. Named as the specification names it.

    def _register(self, call: Call) -> Answer:
        mxid = f"@{call.json().get('username', '')}:{self.server_name}"
        if mxid in self.users:
            return _failed(400, "M_USER_IN_USE", f"{mxid} is taken")
        self.users.add(mxid)
        return _said(user_id=mxid, home_server=self.server_name)

    def _set_profile(self, call: Call) -> Answer:
        self.profiles[call.part(5)].update(call.json())
        return OK

    def _profile(self, call: Call) -> Answer:
        return _said(**self.profiles.get(call.part(5), {}))

    def _alias(self, call: Call) -> Answer:
        room = self.aliases.get(call.part(6))
        if room is None:
            return _failed(404, "M_NOT_FOUND", "no such alias")
        return _said(room_id=room, servers=[self.server_name])

    def _set_alias(self, call: Call) -> Answer:
        if call.part(6) in self.aliases:
            return _failed(409, "M_UNKNOWN", "the alias exists")
        self.aliases[call.part(6)] = call.json()["room_id"]
        return OK

    def _drop_alias(self, call: Call) -> Answer:
        self.aliases.pop(call.part(6), None)
        return OK

    def _create(self, call: Call) -> Answer:
        asked, room = call.json(), f"!{self._number()}"
        self._put(room, "m.room.create", call.user, {"room_version": "12"} | asked.get("creation_content", {}))
        self._put(room, "m.room.power_levels", call.user, POWERS | asked.get("power_level_content_override", {}))
        self._member(room, call.user, call.user, "join")
        for event in asked.get("initial_state", ()):
            self._put(room, event["type"], call.user, event["content"], event.get("state_key", ""))
        for name in ("name", "topic"):
            if name in asked:
                self._put(room, f"m.room.{name}", call.user, {name: asked[name]})
        for invited in asked.get("invite", ()):
            self._member(room, call.user, invited, "invite")
        if "room_alias_name" in asked:
            self.aliases[f"#{asked['room_alias_name']}:{self.server_name}"] = room
        return _said(room_id=room)

    def _join(self, call: Call) -> Answer:
        named = call.part(5)
        room = self.aliases.get(named, named)
        if call.user not in self.rooms[room].joined:
            self._member(room, call.user, call.user, "join")
        return _said(room_id=room)

    def _invite(self, call: Call) -> Answer:
        invited = call.json()["user_id"]
        if invited in self.rooms[call.part(5)].joined:
            return _failed(403, "M_FORBIDDEN", f"{invited} is in the room already")
        self._member(call.part(5), call.user, invited, "invite")
        return OK

    def _leave(self, call: Call) -> Answer:
        self._member(call.part(5), call.user, call.user, "leave")
        return OK

    def _joined_rooms(self, call: Call) -> Answer:
        return _said(joined_rooms=[name for name, room in self.rooms.items() if call.user in room.joined])

    def _joined_members(self, call: Call) -> Answer:
        joined = self.rooms[call.part(5)].joined
        return _said(joined={mxid: {"display_name": self.profiles[mxid].get("displayname")} for mxid in joined})

    def _members(self, call: Call) -> Answer:
        state = self.rooms[call.part(5)].state
        return _said(chunk=[event.document() for (type, _), event in state.items() if type == "m.room.member"])

    def _send(self, call: Call) -> Answer:
        return self._once(call, call.part(7), call.part(8))

    def _redact(self, call: Call) -> Answer:
        return self._once(call, "m.room.redaction", call.part(8), redacts=call.part(7))

    def _once(self, call: Call, type: str, txn: str, redacts: str = "") -> Answer:
        known = self.sent.get((call.user, txn))
        if known is not None:
            self.repeats += 1
            return 200, b'{"event_id":"%b"}' % known.encode()
        event = self._keep(call.part(5), type, call.user, call.body, txn)
        event.redacts = redacts
        self.sends.append(event)
        self.sent[call.user, txn] = event.id
        if self.echo:
            self.outgoing.append(event.document())
        return 200, b'{"event_id":"%b"}' % event.id.encode()

    def _set_state(self, call: Call) -> Answer:
        event = self._keep(call.part(5), call.part(7), call.user, call.body, state_key=call.part(8))
        return _said(event_id=event.id)

    def _state(self, call: Call) -> Answer:
        state = self.rooms[call.part(5)].state
        if not call.part(7):
            return 200, json.dumps([event.document() for event in state.values()]).encode()
        event = state.get((call.part(7), call.part(8)))
        if event is not None:
            return 200, event.body
        if call.part(7) == "m.room.power_levels":
            return _said(**POWERS)
        return _failed(404, "M_NOT_FOUND", "no such state")

    def _messages(self, call: Call) -> Answer:
        timeline = self.rooms[call.part(5)].timeline
        back, limit = call.query.get("dir", "b") == "b", int(call.query.get("limit", "10"))
        default = len(timeline) if back else 0
        start = int(call.query["from"].lstrip("ts")) if call.query.get("from") else default
        end = max(0, start - limit) if back else min(len(timeline), start + limit)
        chunk = timeline[end:start][::-1] if back else timeline[start:end]
        said = {"start": f"t{start}", "chunk": [event.document() for event in chunk]}
        if chunk and end:  # as Synapse: only an empty page says that this was all
            said["end"] = f"t{end}"
        return _said(**said)

    def _event(self, call: Call) -> Answer:
        event = self.events.get(call.part(7))
        return _failed(404, "M_NOT_FOUND", "no such event") if event is None else _said(**event.document())

    def _context(self, call: Call) -> Answer:
        event = self.events.get(call.part(7))
        if event is None:
            return _failed(404, "M_NOT_FOUND", "no such event")
        place = self.rooms[event.room].timeline.index(event)
        return _said(event=event.document(), start=f"t{place}", end=f"t{place + 1}", events_before=[], events_after=[])

    def _relations(self, call: Call) -> Answer:
        chunk = []
        for event in self.rooms[call.part(5)].timeline:
            if call.part(7).encode() in event.body:
                document = event.document()
                if document["content"].get("m.relates_to", {}).get("event_id") == call.part(7):
                    chunk.append(document)
        return _said(chunk=chunk[::-1])

    def _upload(self, call: Call) -> Answer:
        media = self._number()
        self.media[media] = (call.type, call.body)
        return _said(content_uri=f"mxc://{self.server_name}/{media}")

    def _upload_to(self, call: Call) -> Answer:
        self.media[call.part(6)] = (call.type, call.body)
        return OK

    def _download(self, call: Call) -> Answer:
        place = 7 if call.parts[4] == "media" else 6  # …/v1/media/download/{server}/{id}, …/v3/download/{server}/{id}
        found = self.media.get(call.part(place))
        return _failed(404, "M_NOT_FOUND", "no such media") if found is None else (200, found[1])

    def _put(self, room: str, type: str, sender: str, content: dict[str, Any], key: str = "") -> None:
        self._keep(room, type, sender, json.dumps(content).encode(), state_key=key)

    def _member(self, room: str, sender: str, mxid: str, membership: str) -> None:
        self._put(room, "m.room.member", sender, {"membership": membership} | self.profiles.get(mxid, {}), mxid)

    def _keep(
        self, room: str, type: str, sender: str, body: bytes, txn: str = "", state_key: str | None = None
    ) -> Event:
        id = f"${self._number()}"
        event = Event(time.monotonic(), int(time.time() * 1000), id, room, type, sender, body, txn, state_key)
        there = self.rooms[room]
        there.timeline.append(event)
        self.events[id] = event
        if state_key is not None:
            there.state[type, state_key] = event
            if type == "m.room.member":
                joins = json.loads(body).get("membership") == "join"
                (there.joined.add if joins else there.joined.discard)(state_key)
        return event

    def _number(self) -> str:
        """The next id, as long as real ones, and as unlike those of an earlier life."""
        self._numbers += 1
        return f"{self._life}{self._numbers:027x}"


def _said(**values: Any) -> Answer:
    return 200, json.dumps(values).encode()


def _failed(status: int, code: str, text: str) -> Answer:
    return status, json.dumps({"errcode": code, "error": text}).encode()
