"""What strangers may ask of the listener: how much, how fast, how large; and that the homeserver is never limited."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gzip
import ipaddress
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.config import Appservice, Homeserver
from bridge.connector import Connector, ConnectorConfig, ServerConfig
from bridge.http import ToolHttp, new_session, trusting
from bridge.matrix.appservice import routes, shows
from bridge.matrix.wire import Broken, Wire
from bridge.model import Envelope, Rejected, Request, RoomEvent, Unavailable
from bridge.web import hooks as hooks_module
from bridge.web import limits, listener
from bridge.web.hooks import LARGEST, hooks
from bridge.web.limits import MOST, NETWORK, NOWHERE, REFUSED, Limiter, Place, Seats, client, place
from bridge.web.listener import Crowd, Gate, listening
from tests.peers.certificate import Certificate
from tests.unit.test_architecture import MODULES, name

TOKEN = "hs-secret-4711"
GOOD = {"Authorization": f"Bearer {TOKEN}"}
TRANSACTION = "/_matrix/app/v1/transactions/t1"
PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


class Desk(Connector):
    """Takes webhooks that say the magic word."""

    Config = ConnectorConfig

    def parse(self, request: Request) -> list[Envelope]:
        if request.body.startswith(b"["):
            raise RecursionError
        if not request.body.startswith(b"please"):
            raise Rejected("no magic word")
        return []


class Served:
    """A listener on a port of its own, with what came through."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[RoomEvent] = []
        self.wait: Callable[[], Awaitable[None]] | None = None

    async def hear(self, events: list[RoomEvent]) -> None:
        self.heard += events

    async def alive(self) -> bool:
        return True

    async def accept(self, envelopes: list[Envelope]) -> None:
        if self.wait:
            await self.wait()

    async def ask(self, method: str, path: str, session: aiohttp.ClientSession | None = None, **more: Any) -> Any:
        """The answer, read whole."""
        async with aiohttp.ClientSession() as own:
            url = f"http://127.0.0.1:{self.port}{path}"
            async with (session or own).request(method, url, **more) as answer:
                await answer.read()
                return answer

    async def hook(self, body: bytes = b"please", **more: Any) -> int:
        return int((await self.ask("POST", "/hooks/desk", data=body, **more)).status)

    async def say(self, words: bytes, patience: float = 5) -> bytes:
        """What comes back on a connection of its own until the other side hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(words)
        try:
            return await asyncio.wait_for(reader.read(), patience)
        finally:
            writer.close()


@asynccontextmanager
async def served(
    per_minute: int = 600, at_once: int = 16, proxies: Any = (), tls: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    found, nothing = Served(), None
    app = routes(TOKEN, 100_000, found.hear, lambda user: False, dict, found.alive)
    hooks(app, {"desk": Desk("desk", ConnectorConfig(), nothing)}, found.accept)  # type: ignore[arg-type]
    gate = Gate(lambda request: shows(request, TOKEN), proxies, per_minute, at_once)
    async with listening(app, gate, "127.0.0.1", 0, tls) as found.port:
        yield found


# --- places


@pytest.mark.parametrize(
    ("peer", "address", "network"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        (" [2001:db8::1] ", "2001:db8::1", "2001:db8::/64"),
    ],
)
def test_a_place_is_an_address_and_its_network(peer: str, address: str, network: str) -> None:
    assert place(peer) == (address, network)


@pytest.mark.parametrize("peer", ["", "unknown", "_hidden", "192.0.2.7:8080", "1.2.3", "\x00"])
def test_what_is_no_address_is_nowhere(peer: str) -> None:
    assert place(peer) is NOWHERE


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # whoever comes by itself says what it likes
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # the first is what the stranger wrote
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
    ],
)
def test_only_our_own_proxies_are_believed_about_who_asks(peer: str, forwarded: list[str], address: str) -> None:
    assert client(peer, forwarded, PROXIES).address == address


# --- allowances

HERE, BESIDE, ELSEWHERE = place("192.0.2.7"), place("192.0.2.8"), place("198.51.100.1")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_allowance_ends_says_when_to_come_again_and_refills() -> None:
    clock = Clock()
    limiter = Limiter(60, clock)
    assert [limiter.take(HERE) for _ in range(60)] == [0] * 60
    assert limiter.take(HERE) == 1
    assert limiter.take(BESIDE) == limiter.take(ELSEWHERE) == 0
    clock.now += 1
    assert [limiter.take(HERE), limiter.take(HERE)] == [0, 1]
    clock.now += 3600
    assert [limiter.take(HERE) for _ in range(61)] == [0] * 60 + [1]


def test_a_network_has_an_allowance_too() -> None:
    limiter = Limiter(10, Clock())
    neighbours = [place(f"192.0.2.{number}") for number in range(100)]
    assert sum(limiter.take(each) == 0 for each in neighbours) == 10 * NETWORK
    assert limiter.take(ELSEWHERE) == 0


def test_what_is_refused_costs_more_and_locks_nobody_out_for_long() -> None:
    clock = Clock()
    limiter = Limiter(60, clock)
    for _ in range(1000):
        limiter.charge(HERE, REFUSED)
    assert 60 < limiter.take(HERE) <= 61
    clock.now += 61
    assert limiter.take(HERE) == 0


def test_no_limit_is_none() -> None:
    limiter = Limiter(0, Clock())
    limiter.charge(HERE, 1000)
    assert limiter.take(HERE) == 0
    assert len(limiter) == 0


def test_the_memory_of_allowances_is_bounded() -> None:
    limiter = Limiter(10, Clock())
    for number in range(MOST):
        limiter.take(Place(str(number), f"{number}/24"))
    assert len(limiter) == MOST


def test_seats_are_for_an_address_a_network_and_all() -> None:
    seats = Seats(2)
    with seats.seat(HERE), seats.seat(HERE):
        assert seats.full(HERE) == "you"
        assert seats.full(BESIDE) == ""
        with seats.seat(BESIDE), seats.seat(place("192.0.2.9")):
            assert seats.full(place("192.0.2.10")) == "you"
            assert seats.full(ELSEWHERE) == ""
    assert seats.full(HERE) == ""
    many = [seats.seat(place(f"198.51.{number}.1")) for number in range(limits.TOTAL)]
    for each in many:
        each.__enter__()
    assert seats.full(HERE) == "all"


# --- the gate


async def test_too_many_requests_are_told_when_to_come_again_and_nothing_of_them_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "LINGER", 0.1)
    async with served(per_minute=3) as here:
        assert [await here.hook() for _ in range(4)] == [200, 200, 200, 429]
        head = b"POST /hooks/desk HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        answer = await here.say(head)  # no byte of the body was sent
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: " in answer
        assert b"\r\nConnection: close" in answer


async def test_the_homeserver_is_never_limited() -> None:
    async with served(per_minute=1, at_once=1) as here, aiohttp.ClientSession(headers=GOOD) as session:
        assert [await here.hook(), await here.hook()] == [200, 429]
        asked = [here.ask("PUT", TRANSACTION, session, json={"events": []}) for _ in range(50)]
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}


@pytest.mark.parametrize(
    "header", ["", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", "Bearer", TOKEN, f"Bearer {TOKEN}é"]
)
async def test_without_the_token_nobody_is_the_homeserver(header: str) -> None:
    async with served(per_minute=1) as here:
        answers = [await here.ask("PUT", TRANSACTION, headers={"Authorization": header}, data=b"{}") for _ in range(2)]
        assert answers[0].status in (401, 403)
        assert answers[1].status == 429


async def test_an_empty_token_is_shown_by_nobody() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.json_response(shows(request, ""))

    app = web.Application()
    app.router.add_get("/", page)
    gate = Gate(lambda request: False, (), 0, 16)
    async with listening(app, gate, "127.0.0.1", 0, None) as port, aiohttp.ClientSession() as session:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": ""}):
            async with session.get(f"http://127.0.0.1:{port}/", headers=headers) as answer:
                assert await answer.json() is False


async def test_forged_webhooks_use_up_the_allowance_ten_times_as_fast() -> None:
    async with served(per_minute=3 * REFUSED) as here:
        assert [await here.hook(b"give me") for _ in range(4)] == [403, 403, 403, 429]
        assert await here.hook() == 429


async def test_requests_of_one_address_at_the_same_time_are_limited() -> None:
    async with served(at_once=2) as here:
        going = asyncio.Event()
        here.wait = going.wait
        first = [asyncio.create_task(here.hook()) for _ in range(2)]
        while True:
            answer = await here.ask("POST", "/hooks/none")
            if answer.status == 429:
                break
            assert answer.status == 404
        assert answer.headers["Retry-After"] == "1"
        going.set()
        assert await asyncio.gather(*first) == [200, 200]
        assert await here.hook() == 200


async def test_behind_a_proxy_each_address_has_its_own_allowance() -> None:
    async with served(per_minute=1, proxies=(ipaddress.ip_network("127.0.0.0/8"),)) as here:
        said = [
            {"X-Forwarded-For": f"203.0.113.9, {address}"} for address in ("192.0.2.7", "198.51.100.1", "192.0.2.7")
        ]
        assert [await here.hook(headers=each) for each in said] == [200, 200, 429]


async def test_who_is_no_proxy_gains_nothing_by_naming_others() -> None:
    async with served(per_minute=1) as here:
        said = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(2)]
        assert [await here.hook(headers=each) for each in said] == [200, 429]


# --- sizes and times


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip", "x"])
async def test_what_is_compressed_is_refused_before_it_is_unpacked(coding: str) -> None:
    bomb = gzip.compress(b"please" + bytes(20_000_000))
    async with served() as here:
        assert await here.hook(bomb, headers={"Content-Encoding": coding}) == 415
        headers = GOOD | {"Content-Encoding": coding}
        assert (await here.ask("PUT", TRANSACTION, headers=headers, data=bomb)).status == 415


@pytest.mark.parametrize("length", [b"Content-Length: %d" % (LARGEST + 1), b"Transfer-Encoding: chunked"])
async def test_a_webhook_that_is_too_large_is_refused(length: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "LINGER", 0.1)
    async with served() as here:
        body = b"%x\r\n" % (LARGEST + 1) + bytes(LARGEST + 1) if b"chunked" in length else b""
        answer = await here.say(b"POST /hooks/desk HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /hooks/desk?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 9000),
        b"POST /hooks/desk HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n" % (b"a" * 9000),
        b"POST /hooks/desk HTTP/1.1\r\nHost: x\r\n%s\r\n" % b"".join(b"X-%d: y\r\n" % n for n in range(200)),
        b"POST /hooks/desk HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),  # TLS to a listener without
    ],
)
async def test_a_head_that_is_too_long_or_no_head_is_refused(head: bytes) -> None:
    async with served() as here:
        assert (await here.say(head)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert await here.hook() == 200


async def test_levels_without_end_in_a_webhook_are_refused_like_a_forged_one() -> None:
    async with served() as here:
        assert await here.hook(b"[" * 100_000) == 403


@pytest.mark.parametrize("words", [b"", b"POST /hooks/desk HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_who_does_not_end_its_head_is_cut_off(words: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD", 0.2)
    async with served() as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(words)
        began = time.monotonic()
        while not reader.at_eof() and reader.exception() is None and time.monotonic() - began < 5:
            writer.write(b"x" if words else b"")  # a byte now and then is not enough
            await asyncio.sleep(0.02)
        assert time.monotonic() - began < 4
        writer.close()


async def test_who_does_not_end_its_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "BODY", 0.2)
    monkeypatch.setattr(listener, "LINGER", 0.1)
    async with served() as here:
        head = b"POST /hooks/desk HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nplea"
        assert (await here.say(head)).startswith(b"HTTP/1.1 408 ")


async def test_a_stranger_has_one_request_on_a_connection_and_the_homeserver_many() -> None:
    ask = b"GET /live HTTP/1.1\r\nHost: x\r\n%s\r\n"
    async with served() as here:
        assert (await here.say(ask % b"" * 3)).count(b"HTTP/1.1 200 OK") == 1
        ours = ask % f"Authorization: Bearer {TOKEN}\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        for _ in range(3):
            writer.write(ours)
            assert b"200 OK" in await reader.readuntil(b"}")
        writer.close()


class Line:
    """A connection, as a crowd sees it."""

    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def entered(crowd: Crowd, *peers: str) -> list[Line]:
    lines = [Line() for _ in peers]
    for line, peer in zip(lines, peers, strict=True):
        crowd.enter(line, peer)  # type: ignore[arg-type]
    return lines


def test_where_too_many_connect_the_oldest_of_that_place_gives_way() -> None:
    crowd = Crowd((), most=16)  # 2 of an address, 4 of a network
    others = entered(crowd, "198.51.100.1", "198.51.100.2")
    same = entered(crowd, *["192.0.2.7"] * 3)
    assert [each.dropped for each in same] == [True, False, False]
    network = entered(crowd, "192.0.2.8", "192.0.2.9", "192.0.2.10")
    assert [each.dropped for each in same + network] == [True, True, False, False, False, False]
    assert not any(each.dropped for each in others)


def test_when_all_is_full_the_oldest_of_the_fullest_network_gives_way() -> None:
    crowd = Crowd((), most=16)
    first = entered(crowd, "198.51.100.1")
    flood = entered(crowd, *[f"192.0.{net}.{host}" for net in range(5) for host in range(3)])
    assert len(crowd) == 16
    last = entered(crowd, "203.0.113.1")
    assert len(crowd) == 16
    assert sum(each.dropped for each in flood) == 1
    assert not first[0].dropped
    assert not last[0].dropped


def test_a_proxy_may_have_many_connections_and_the_homeservers_are_not_counted() -> None:
    crowd = Crowd(PROXIES, most=16)
    proxied = entered(crowd, *["10.0.0.1"] * 10)
    assert not any(each.dropped for each in proxied)
    crowd.leave(proxied[0])  # type: ignore[arg-type]
    crowd.leave(proxied[0])  # type: ignore[arg-type]
    assert len(crowd) == 9


async def test_a_flood_of_silent_connections_does_not_keep_the_homeserver_out() -> None:
    async with served() as here:
        silent = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(100)]
        assert (await here.ask("PUT", TRANSACTION, headers=GOOD, json={"events": []})).status == 200
        cut = [reader for reader, _ in silent if reader.at_eof()]
        assert len(cut) >= 100 - listener.CONNECTIONS // 8 - 1
        for _, writer in silent:
            writer.close()


# --- TLS


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_the_listener_speaks_tls_and_nothing_older_than_1_2(tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    settings = Appservice(as_token="a", hs_token=TOKEN, certificate=certificate.file, key=certificate.key)  # type: ignore[arg-type]
    trust = ssl.create_default_context(cafile=certificate.file)
    async with served(tls=settings.tls()) as here, aiohttp.ClientSession() as session:
        url = f"https://localhost:{here.port}/live"
        async with session.get(url, ssl=trust) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
        trust.set_ciphers("ALL:@SECLEVEL=0")  # the client would, but for the listener
        trust.minimum_version, trust.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(aiohttp.ClientError):
            await session.get(url, ssl=trust)
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://localhost:{here.port}/live")


def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    tokens: dict[str, Any] = {"as_token": "a", "hs_token": "b"}
    for bad in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        with pytest.raises(ValueError, match="PEM file cannot be used"):
            Appservice(**tokens, certificate=bad)
    with pytest.raises(ValueError, match="key: needs certificate"):
        Appservice(**tokens, key=tmp_path / "none.pem")


async def secret_server(port: int, tls: ssl.SSLContext) -> asyncio.Server:
    """Answers every request with {}."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    return await asyncio.start_server(meet, "127.0.0.1", port, ssl=tls)


@pytest.fixture
async def private(tmp_path: Path) -> AsyncIterator[tuple[str, Certificate]]:
    """A server whose certificate a private authority has signed: its URL, and the authority."""
    certificate = Certificate.make(tmp_path)
    server = await secret_server(0, certificate.context())
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", certificate
    server.close()


async def test_a_homeserver_with_a_private_authority_is_trusted_only_with_its_file(
    private: tuple[str, Certificate],
) -> None:
    url, certificate = private
    with contextlib.closing(Wire(url, 5, 1, trusting(certificate.file))) as wire:
        assert (await wire.request("GET", "x", "")).status == 200
    for tls in (None, trusting(None)):
        with contextlib.closing(Wire(url, 5, 1, tls)) as wire, pytest.raises(Broken, match="certificate verify"):
            await wire.request("GET", "x", "")


async def test_a_tool_with_a_private_authority_is_trusted_only_with_its_file(private: tuple[str, Certificate]) -> None:
    url, certificate = private
    spool: Any = None
    async with new_session() as session:
        good = ToolHttp(session, spool, url, ca_file=certificate.file, max_file=1)
        assert (await good.request("GET", "")).json() == {}
        with pytest.raises(Unavailable, match="certificate is not valid"):
            await ToolHttp(session, spool, url, max_file=1).request("GET", "")
        other = ToolHttp(session, spool, url.replace("127.0.0.1", "127.0.0.2"), ca_file=certificate.file, max_file=1)
        with pytest.raises(Unavailable):
            await other.request("GET", "")


def test_an_authoritys_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    login: dict[str, Any] = {"username": "bot", "password": "x"}
    with pytest.raises(ValueError, match="PEM file cannot be used: No such file"):
        ServerConfig(url="https://tool.example", ca_file=tmp_path / "none.pem", **login)
    with pytest.raises(ValueError, match="PEM file cannot be used: No such file"):
        Homeserver(url="https://hs.example", server_name="hs.example", ca_file=tmp_path / "none.pem")


# --- secrets


SECRET = re.compile(r"\bsign\(|\bhmac\b|hs_token|get_secret_value|\bis_mark|[._]mark\(")


def test_no_token_or_signature_is_compared_in_a_time_that_tells_how_much_of_it_was_right() -> None:
    """They are compared by `hmac.compare_digest`, as bytes: characters beyond ASCII would raise."""
    compared = 0
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                assert not SECRET.search(ast.unparse(node)), f"{name(path)}: {ast.unparse(node)}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "hmac.compare_digest":
                compared += 1
                assert all("encode(" in ast.unparse(side) or side.id in ("given",) for side in node.args)  # type: ignore[attr-defined]
    assert compared >= 3
