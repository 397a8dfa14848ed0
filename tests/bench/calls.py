"""The load generator for webhooks, a process of its own: each item's events in order, on any connection that is free.

A tool sends the next event of an item when the one before was taken, and speaks of many items at once.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import time
from collections import deque
from urllib.parse import urlsplit

import uvloop

SECRET = "both-know-it"
FILLING = "The belt stands still, the arm has lost the part and asks for somebody to come and look. " * 10  # about 1 kB
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def event(run: str, item: int, number: int) -> bytes:
    """What machine `item` says as its event `number`."""
    machine = {"id": f"{run}-{item}", "name": f"Machine {item}", "state": "stands"}
    said = f"this is event {number} of {run}-{item}. {FILLING}"
    return json.dumps({"id": f"{run}-{item}-{number}", "place": item % 50, "machine": machine, "said": said}).encode()


class Caller:
    """One connection at a time; a new one when the other side has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.path = parts.hostname or "", parts.port or 80, parts.path
        self.streams: Streams | None = None

    async def post(self, body: bytes) -> None:
        """Returns when it was taken."""
        reader, writer = self.streams = self.streams or await asyncio.open_connection(self.host, self.port)
        sign = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        writer.write(
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
            f"X-Hub-Signature-256: sha256={sign}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"refused: {head!r}")
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        if b"connection: close" in head:
            writer.close()
            self.streams = None


async def _work(
    caller: Caller, waiting: deque[tuple[int, int]], run: str, events: int, taken: dict[str, float]
) -> None:
    """Whichever item has waited longest, as long as there are any."""
    while waiting:
        item, number = waiting.popleft()
        await caller.post(event(run, item, number))
        taken[f"{item} {number}"] = time.monotonic()
        if number + 1 < events:
            waiting.append((item, number + 1))


async def call(url: str, run: str, items: int, events: int, connections: int) -> dict[str, object]:
    """When it began, and when each event was taken, by "item number"."""
    taken: dict[str, float] = {}
    waiting = deque((item, 0) for item in range(items))
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(_work(Caller(url), waiting, run, events, taken))
    return {"began": began, "taken": taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--events", type=int, default=10, help="of each item")
    parser.add_argument("--connections", type=int, default=8)
    asked = parser.parse_args()
    print(json.dumps(uvloop.run(call(asked.url, asked.run, asked.items, asked.events, asked.connections))))


if __name__ == "__main__":
    main()
