"""A stand-in for a homeserver that answers at once, in a process of its own: for benchmarks and fault tests.

It knows what a bridge asks of a homeserver and little more, keeps what it is sent in memory, and pushes to the bridge
what it is handed by `Instant.push`: in order, again and again until the bridge says yes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import resource
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import uvloop

from tests.peers import ROOT, Child, free_port, until
from tests.peers.instant_rooms import Answer, Event, Homeserver

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.I)
CONTINUE = re.compile(rb"\r\nexpect: *100-continue", re.I)
TYPE = re.compile(rb"\r\ncontent-type: *([^\r]*)", re.I)
REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 409: "Conflict", 502: "Bad Gateway"}
HEAD = {
    status: f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: ".encode()
    for status, reason in REASONS.items()
}


class Pusher:
    """Takes the events that the bridge has not heard of to it: in order, a transaction at a time."""

    def __init__(self, homeserver: Homeserver, bridge: str, token: str) -> None:
        self.homeserver = homeserver
        self.bridge = bridge.rstrip("/")
        self.http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"})
        self.news = asyncio.Event()
        self.transactions = 0
        self.attempts = 0
        self.acknowledged: list[tuple[str, float]] = []  # event id, when the bridge said yes

    async def run(self) -> None:
        while True:
            await self.news.wait()
            self.news.clear()
            while batch := self.homeserver.outgoing[:100]:
                await self._deliver(batch)
                del self.homeserver.outgoing[: len(batch)]

    async def _deliver(self, batch: list[dict[str, Any]]) -> None:
        self.transactions += 1
        wait = 0.02
        while not await self._said_yes("PUT", f"transactions/{self.transactions}", {"events": batch}):
            await asyncio.sleep(wait)
            wait = min(1.0, wait * 2)
        now = time.monotonic()
        self.acknowledged += [(event["event_id"], now) for event in batch]

    async def ping(self, body: bytes) -> Answer:
        """What the appservice's ping asks for: is the bridge there?"""
        started = time.monotonic()
        if await self._said_yes("POST", "ping", json.loads(body or b"{}")):
            return 200, json.dumps({"duration_ms": int((time.monotonic() - started) * 1000)}).encode()
        return 502, b'{"errcode":"M_CONNECTION_FAILED","error":"the bridge does not answer"}'

    async def _said_yes(self, method: str, path: str, document: dict[str, Any]) -> bool:
        self.attempts += 1
        try:
            async with self.http.request(method, f"{self.bridge}/_matrix/app/v1/{path}", json=document) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


class Control:
    """What a test asks of the stand-in itself, under /_control."""

    def __init__(self, homeserver: Homeserver, pusher: Pusher) -> None:
        self.homeserver = homeserver
        self.pusher = pusher

    def answer(self, name: str, body: bytes) -> Answer:
        said = json.loads(body or b"{}")
        if name == "push":
            ids = [self.homeserver.say(event) for event in said["events"]]
            self.pusher.news.set()
            return _json(ids)
        if name == "sends":
            return _json([_send(event) for event in self.homeserver.sends[said.get("after", 0) :]])
        if name == "acknowledged":
            return _json(self.pusher.acknowledged)
        if name == "reset":
            self.homeserver.reset()
            self.pusher.acknowledged.clear()
            return _json({})
        return _json(self._statistics())

    def _statistics(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "requests": dict(self.homeserver.counts),
            "unknown": dict(self.homeserver.unknown),
            "sends": len(self.homeserver.sends),
            "repeats": self.homeserver.repeats,
            "unpushed": len(self.homeserver.outgoing),
            "transactions": self.pusher.transactions,
            "cpu": used.ru_utime + used.ru_stime,
            "rss_kb": used.ru_maxrss,
        }


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: just enough of it to be fast."""

    def __init__(self, homeserver: Homeserver, pusher: Pusher, control: Control) -> None:
        self.homeserver = homeserver
        self.pusher = pusher
        self.control = control
        self.buffer = bytearray()
        self.busy: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.busy is None and (request := self._next()) is not None:
            self._answer(*request)

    def _next(self) -> tuple[str, str, bytes, str] | None:
        """The next whole request: method, target, body, media type."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.buffer[:end])
        body = self._body(head, end + 4)
        if body is None:
            return None
        content, used = body
        del self.buffer[:used]
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        type = TYPE.search(head)
        return method, target, content, type[1].decode("latin-1") if type else ""

    def _body(self, head: bytes, start: int) -> tuple[bytes, int] | None:
        """The body that begins at `start`, and where it ends; None while it is not all here."""
        if CONTINUE.search(head) and len(self.buffer) == start:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if CHUNKED.search(head):
            return _chunks(self.buffer, start)
        length = LENGTH.search(head)
        end = start + (int(length[1]) if length else 0)
        return (bytes(self.buffer[start:end]), end) if len(self.buffer) >= end else None

    def _answer(self, method: str, target: str, body: bytes, type: str) -> None:
        if target.startswith("/_control/"):
            self._write(*self.control.answer(target.rpartition("/")[2], body))
        elif "/appservice/" in target:
            self.homeserver.counts["POST ping"] += 1
            self.busy = asyncio.create_task(self._ping(body))
        else:
            self._write(*self.homeserver.answer(method, target, body, type))
            if self.homeserver.outgoing:
                self.pusher.news.set()

    async def _ping(self, body: bytes) -> None:
        self._write(*await self.pusher.ping(body))
        self.busy = None
        self.data_received(b"")

    def _write(self, status: int, body: bytes) -> None:
        self.transport.write(HEAD[status] + b"%d\r\n\r\n" % len(body) + body)


class Instant:
    """The stand-in as a child process, and its control."""

    def __init__(
        self,
        folder: Path,
        bridge: str,
        hs_token: str = "hs-token-for-tests",
        port: int | None = None,
        server_name: str = "company.example",
        echo: bool = False,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.bridge = bridge
        self.server_name = server_name
        command = [sys.executable, "-m", "tests.peers.instant", "--port", str(self.port), "--bridge", bridge]
        command += ["--server-name", server_name, "--hs-token", hs_token, *(["--echo"] if echo else [])]
        self.child = Child(command, ROOT, folder / "instant.log")

    async def __aenter__(self) -> Self:
        self.child.start()
        self._http = aiohttp.ClientSession()
        await until(self._answers, "the instant homeserver", every=0.02)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()
        await self.child.stop()

    async def push(self, *events: dict[str, Any]) -> list[str]:
        """Let others than the bridge say something: events with room_id, sender, content; returns their ids."""
        return list(await self._ask("push", {"events": events}))

    async def statistics(self) -> dict[str, Any]:
        """Requests by kind, sends, repeated sends, events not yet taken by the bridge, CPU seconds, memory."""
        return dict(await self._ask("statistics", {}))

    async def sends(self, after: int = 0) -> list[dict[str, Any]]:
        """What the bridge sent, in order of arrival; `at` is time.monotonic(), the same for all processes."""
        return list(await self._ask("sends", {"after": after}))

    async def acknowledged(self) -> list[tuple[str, float]]:
        """Pushed events that the bridge said yes to, and when."""
        return [(id, at) for id, at in await self._ask("acknowledged", {})]

    async def reset(self) -> None:
        """Forget rooms, sends and counts."""
        await self._ask("reset", {})

    async def wait_for_sends(self, count: int, timeout: float = 60) -> dict[str, Any]:
        """Wait until the bridge has sent so much; returns the statistics."""

        async def enough() -> dict[str, Any] | None:
            now = await self.statistics()
            return now if now["sends"] >= count else None

        return await until(enough, f"{count} sends at the instant homeserver", timeout)

    async def _ask(self, name: str, body: dict[str, Any]) -> Any:
        async with self._http.post(f"{self.url}/_control/{name}", json=body) as answer:
            return await answer.json()

    async def _answers(self) -> bool:
        if not self.child.running:
            raise RuntimeError(f"the instant homeserver ended:\n{self.child.tail()}")
        with contextlib.suppress(aiohttp.ClientError):
            return bool(await self.statistics())
        return False


def _chunks(buffer: bytearray, at: int) -> tuple[bytes, int] | None:
    """A chunked body (RFC 9112 7.1) from `at` on, and where it ends; None while it is not all here."""
    spans: list[tuple[int, int]] = []
    while (line := buffer.find(b"\r\n", at)) >= 0:
        size = int(bytes(buffer[at:line]).partition(b";")[0], 16)
        at = line + 2 + size + 2
        if len(buffer) < at:
            return None
        if size == 0:
            return b"".join(buffer[begin:end] for begin, end in spans), at
        spans.append((line + 2, at - 2))
    return None


def _json(document: Any) -> Answer:
    return 200, json.dumps(document).encode()


def _send(event: Event) -> dict[str, Any]:
    return event.document() | {"at": event.at, "txn": event.txn}


async def serve(arguments: argparse.Namespace) -> None:
    """Answer until SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    homeserver = Homeserver(arguments.server_name, echo=arguments.echo)
    pusher = Pusher(homeserver, arguments.bridge, arguments.hs_token)
    control = Control(homeserver, pusher)
    await loop.create_server(lambda: Connection(homeserver, pusher, control), "127.0.0.1", arguments.port)
    pushing = asyncio.create_task(pusher.run())
    await ended.wait()
    pushing.cancel()
    await pusher.http.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bridge", default="http://127.0.0.1:29400", help="where the bridge takes transactions")
    parser.add_argument("--hs-token", default="hs-token-for-tests")
    parser.add_argument("--server-name", default="company.example")
    parser.add_argument("--echo", action="store_true", help="push the bridge's own events back, as Synapse does")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
