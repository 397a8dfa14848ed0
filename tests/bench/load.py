"""The load generator, a process of its own: hands over mails by SMTP as a relay does and notes when each was taken."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Iterator

import uvloop

from tests.bench.mails import Letter, introductions, letters

LAST_LINE = re.compile(rb"^\d{3}(?: [^\n]*)?\r\n", re.MULTILINE)
KEPT = 100  # mails on one connection, as Postfix reuses one


class Relay(asyncio.Protocol):
    """One SMTP connection from the sending side."""

    def __init__(self) -> None:
        self._buffer = b""
        self._said: asyncio.Future[None] | None = None
        self._wanted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._said and not self._said.done() and len(LAST_LINE.findall(self._buffer)) >= self._wanted:
            self._said.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._said and not self._said.done():
            self._said.set_exception(ConnectionError("the bridge hung up"))

    async def answers(self, count: int, allowed: bytes) -> bytes:
        """The next replies; each must begin with one of the digits `allowed`."""
        if len(LAST_LINE.findall(self._buffer)) < count:
            self._wanted, self._said = count, asyncio.get_running_loop().create_future()
            await self._said
        said, self._buffer = self._buffer, b""
        if any(reply[0] not in allowed for reply in LAST_LINE.findall(said)):
            raise RuntimeError(f"refused: {said!r}")
        return said

    async def greet(self) -> None:
        await self.answers(1, b"2")
        self.transport.write(b"EHLO relay.customers.example\r\n")
        await self.answers(1, b"2")

    async def hand_over(self, letter: Letter) -> float:
        """One mail, pipelined (RFC 2920); when it was taken, by the clock that all processes share."""
        start = f"MAIL FROM:<{letter.sender}> SIZE={len(letter.data)}\r\nRCPT TO:<{letter.mailbox}>\r\nDATA\r\n"
        self.transport.write(start.encode())
        await self.answers(3, b"23")
        self.transport.write(letter.data + b".\r\n")
        await self.answers(1, b"2")
        return time.monotonic()

    def bye(self) -> None:
        self.transport.write(b"QUIT\r\n")
        self.transport.close()


async def _work(port: int, waiting: Iterator[Letter], kept: int, taken: dict[int, float]) -> None:
    """One connection at a time, `kept` mails on each, as long as there are mails."""
    loop = asyncio.get_running_loop()
    relay: Relay | None = None
    for count, letter in enumerate(waiting):
        if relay is None or count % kept == 0:
            if relay:
                relay.bye()
            _, relay = await loop.create_connection(Relay, "127.0.0.1", port)
            await relay.greet()
        taken[letter.number] = await relay.hand_over(letter)
    if relay:
        relay.bye()


async def hand_over(port: int, mails: list[Letter], connections: int, kept: int) -> dict[str, object]:
    """All mails; when it began and when each was taken."""
    taken: dict[int, float] = {}
    waiting = iter(mails)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(_work(port, waiting, kept, taken))
    return {"began": began, "taken": taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--count", type=int, help="how many mails; without it, one from every sender")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--kept", type=int, default=KEPT, help="mails on one connection")
    asked = parser.parse_args()
    mails = letters(asked.count, asked.run) if asked.count else introductions(asked.run)
    print(json.dumps(uvloop.run(hand_over(asked.port, mails, asked.connections, asked.kept))))


if __name__ == "__main__":
    main()
