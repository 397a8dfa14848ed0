"""The kept connections to the homeserver, against servers that misbehave on purpose."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bridge.matrix.wire import Answer, Broken, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Said: yes\r\n\r\nok"
Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Speaks as the test says; counts its connections and keeps what it was asked."""

    say: Say

    def __init__(self) -> None:
        self.connections = 0
        self.asked: list[bytes] = []

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.say(reader, writer)
        writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.asked.append(head + await reader.readexactly(length))
        return self.asked[-1]


@contextlib.asynccontextmanager
async def talking(
    say: Callable[[Server], Say], seconds: float = 5, limit: int = 4
) -> AsyncIterator[tuple[Server, Wire]]:
    server = Server()
    server.say = say(server)
    listening = await asyncio.start_server(server.meet, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/base"
    with contextlib.closing(Wire(url, seconds, limit)) as wire:
        yield server, wire
    listening.close()


def answering(*answers: bytes, then_hang_up: bool = False) -> Callable[[Server], Say]:
    """A server whose connections each give these answers, and then stay silent or hang up."""

    def made(server: Server) -> Say:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                await server.request(reader)
                writer.write(answer)
            if not then_hang_up:
                await reader.read()

        return say

    return made


async def get(wire: Wire, method: str = "GET", body: bytes = b"") -> Answer:
    return await wire.request(method, "some/where?a=b", "Authorization: Bearer t\r\n", body)


async def test_requests_share_a_connection_one_after_the_other() -> None:
    async with talking(answering(OK, OK, OK)) as (server, wire):
        for _ in range(3):
            answer = await get(wire, "PUT", b"{}")
            assert (answer.status, answer.fields["x-said"], answer.body) == (200, "yes", b"ok")
    assert server.connections == 1
    assert server.asked[0].startswith(b"PUT /base/some/where?a=b HTTP/1.1\r\nHost: 127.0.0.1:")
    assert server.asked[0].endswith(b"Content-Length: 2\r\n\r\n{}")


async def test_requests_at_the_same_time_have_a_connection_each_up_to_the_limit() -> None:
    async with talking(answering(OK, OK, OK, OK), limit=2) as (server, wire):
        await asyncio.gather(*(get(wire) for _ in range(4)))
    assert server.connections == 2


async def test_a_room_id_cannot_smuggle_a_second_request_in() -> None:
    async with talking(answering(OK)) as (server, wire):
        await wire.request("GET", "rooms/!a b\r\nX-Evil: 1\r\n\r\nGET /é", "")
    assert (
        server.asked[0].split(b"\r\n")[0]
        == b"GET /base/rooms/!a%20b%0D%0AX-Evil:%201%0D%0A%0D%0AGET%20/%C3%A9 HTTP/1.1"
    )


async def test_a_connection_that_was_closed_meanwhile_is_replaced_once() -> None:
    async with talking(answering(OK, then_hang_up=True)) as (server, wire):
        assert (await get(wire)).body == b"ok"
        assert (await get(wire, "PUT")).body == b"ok"
    assert server.connections == 2


async def test_a_post_is_not_repeated_by_itself() -> None:
    def hanging_up_on_the_second(server: Server) -> Say:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(OK)
            await server.request(reader)

        return say

    async with talking(hanging_up_on_the_second) as (server, wire):
        await get(wire)
        with pytest.raises(Broken):
            await get(wire, "POST", b"{}")
        assert len(server.asked) == 2
        await get(wire)
        assert (await get(wire, "PUT", b"{}")).status == 200  # the same hang-up, and a second try on a new connection
        assert len(server.asked) == 5


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nnot all",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_half_an_answer_is_none(answer: bytes) -> None:
    async with talking(answering(answer, then_hang_up=True)) as (_, wire):
        with pytest.raises(Broken):
            await get(wire)


async def test_a_server_that_is_too_slow_is_left_and_not_asked_again() -> None:
    async with talking(answering(OK), seconds=0.2) as (server, wire):
        await get(wire)
        with pytest.raises(Broken, match=r"within 0\.2 seconds"):
            await get(wire)
    assert server.connections == 1


async def test_a_server_that_cannot_be_reached_is_broken() -> None:
    with pytest.raises(Broken), contextlib.closing(Wire("http://127.0.0.1:1", 1, 1)) as wire:
        await get(wire)


async def test_chunked_interim_and_unlimited_answers_are_understood() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK
    endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"
    async with talking(answering(chunked, interim, endless, then_hang_up=True)) as (server, wire):
        assert [(await get(wire)).body for _ in range(3)] == [b"hello", b"ok", b"until the end"]
    assert server.connections == 1


async def test_an_answer_nobody_waits_for_any_more_is_never_taken_for_the_next_one() -> None:
    def late(server: Server) -> Say:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await server.request(reader)
            if b"first" in asked:
                waiting.set()
                await given_up.wait()
            writer.write(OK.replace(b"ok", b"1!" if b"first" in asked else b"2!"))
            await reader.read()

        return say

    waiting, given_up = asyncio.Event(), asyncio.Event()
    async with talking(late) as (_, wire):
        first = asyncio.create_task(wire.request("GET", "first", ""))
        await waiting.wait()
        first.cancel()
        await asyncio.wait([first])
        given_up.set()
        assert (await wire.request("GET", "second", "")).body == b"2!"


async def test_the_last_answer_never_passes_for_one_that_did_not_come() -> None:
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"  # without a length, as it may be (RFC 9112 6.3)

    def hanging_up(server: Server) -> Say:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(empty)
            await server.request(reader)

        return say

    async with talking(hanging_up) as (_, wire):
        assert (await get(wire)).status == 204
        with pytest.raises(Broken):
            await get(wire, "POST", b"{}")


async def test_too_large_an_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.matrix.wire.MOST", 1000)
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    async with talking(answering(whole)) as (_, wire):
        with pytest.raises(Broken, match="larger"):
            await get(wire)
