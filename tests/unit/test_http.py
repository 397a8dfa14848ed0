"""The plugins' HTTP client: it speaks to one server only, within limits, and says what an answer means for a delivery.

A second server plays everywhere else: it never hears of anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.connector import Http
from bridge.http import LONG, ToolHttp, new_session, retry_after
from bridge.model import Deferred, File, Rejected, Unavailable, Unconfirmed
from bridge.store.spool import DiskSpool

PASSWORD = "hünter:2-secret"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Heard:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Tool:
    """A tool's server. It says what a test tells it to, and keeps what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.heard: list[Heard] = []
        self.answers: list[Answer | web.Response] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.heard.append(Heard(request.method, request.raw_path, dict(request.headers), body))
        answer = self.answers.pop(0) if self.answers else web.json_response({"ok": True})
        return answer if isinstance(answer, web.Response) else await answer(request)

    @property
    def targets(self) -> list[str]:
        return [heard.target for heard in self.heard]


@dataclass
class Elsewhere:
    """Any other server: it counts who comes."""

    port: int = 0
    visits: list[bytes] = field(default_factory=list)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits.append(b"")
        self.visits.append(await reader.read(1000))
        writer.close()


@pytest.fixture
async def tool() -> AsyncIterator[Tool]:
    made = Tool(0)
    app = web.Application(client_max_size=2**25)
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{made.port}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    made = Elsewhere()
    listening = await asyncio.start_server(made.meet, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    assert made.visits == []


@pytest.fixture
def spool(tmp_path: Path) -> DiskSpool:
    async def transact(rule: Any) -> None:
        return None

    return DiskSpool(tmp_path / "spool", transact)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with new_session() as made:
        yield made


Made = Callable[..., ToolHttp]


@pytest.fixture
def made(tool: Tool, session: aiohttp.ClientSession, spool: DiskSpool) -> Made:
    """A client of the tool, configured as the test says."""

    def make(path: str = "/tracker", **options: Any) -> ToolHttp:
        return ToolHttp(session, spool, f"{tool.url}{path}", **{"max_file": 10**6, **options})

    return make


@pytest.fixture
def http(made: Made) -> Http:
    return made(headers={"X-Api-Key": "key-secret"}, login=("bot", PASSWORD))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.http.PAUSES", (0.01, 0.02))


@contextlib.asynccontextmanager
async def speaking(*said: bytes, stay: bool = False, endless: bytes = b"") -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that says these bytes to its connections, one after the other, and hangs up; URL and what it heard."""
    heard: list[bytes] = []
    rest = list(said)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(rest.pop(0) if len(rest) > 1 else rest[0])
            while endless:
                writer.write(endless)
                await writer.drain()
            if stay:
                heard.append(await reader.read())
        writer.close()

    listening = await asyncio.start_server(meet, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", heard
    listening.close()


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not so():
            await asyncio.sleep(0.01)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def said(status: int, document: Any = None, **headers: str) -> web.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(document, status=status, headers=names)


async def failure(asking: Awaitable[Any]) -> Exception:
    with pytest.raises((Rejected, Deferred, Unavailable, Unconfirmed)) as caught:
        await asking
    for secret in ("secret", PASSWORD):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


# --- where requests go


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/tracker"),
        ("rest/data/issue", "/tracker/rest/data/issue"),
        ("/rest/data/issue", "/rest/data/issue"),
        ("rest?@verbose=2", "/tracker/rest?@verbose=2&a=1"),
        ("{url}/rest/data/issue/@poe/x", "/rest/data/issue/@poe/x"),
        ("{url}", "/"),
        ("{URL}?page=2", "/?page=2&a=1"),
        ("wiki/Caf%C3%A9", "/tracker/wiki/Caf%C3%A9"),
        ("wiki/Café", "/tracker/wiki/Caf%C3%A9"),
        ("wiki/User:Poe;v=1..2", "/tracker/wiki/User:Poe;v=1..2"),
    ],
)
async def test_a_path_is_below_the_url_or_of_its_server(made: Made, tool: Tool, path: str, target: str) -> None:
    given = path.replace("{url}", tool.url).replace("{URL}", tool.url.replace("http", "HTTP"))
    for home in ("/tracker", "/tracker/") if path else ("/tracker",):
        await made(home).request("GET", given, query={"a": "1"} if "a=1" in target else None)
        assert tool.heard[-1].target == target


@pytest.mark.parametrize(
    "path",
    [
        "http://127.0.0.1:{elsewhere}/rest",
        "//127.0.0.1:{elsewhere}/rest",
        "///127.0.0.1:{elsewhere}/rest",
        "{url}//127.0.0.1:{elsewhere}/rest",
        "/\\127.0.0.1:{elsewhere}/rest",
        "\\\\127.0.0.1:{elsewhere}/rest",
        "{url}@127.0.0.1:{elsewhere}/rest",
        "{url}\\@127.0.0.1:{elsewhere}/rest",
        "http://bot:word@127.0.0.1:{port}/rest",
        "http://@127.0.0.1:{port}/rest",
        "http://localhost:{port}/rest",
        "https://127.0.0.1:{port}/rest",
        "http://127.0.0.1/rest",
        "http:127.0.0.1:{elsewhere}/rest",
        "http:///rest",
        "http://[::1/rest",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{elsewhere}/x",
        "javascript:1",
        "rest/../../admin",
        "/..",
        "rest/%2e%2E/admin",
        "rest%2f..%2fadmin",
        "rest/..%5cadmin",
        "rest/..;/admin",
        "rest/a b",
        "rest/a\tb",
        "rest/a\r\nX-Evil: 1",
        "rest/a\n",
        "rest/a\x00",
        "rest/a\x85",
        "rest/\ud800",
        "rest/C#",
        " http://127.0.0.1:{elsewhere}/rest",
    ],
)
async def test_a_path_that_leads_elsewhere_is_an_error_before_anything_is_sent(
    http: Http, tool: Tool, elsewhere: Elsewhere, path: str
) -> None:
    given = (
        path.replace("{url}", tool.url).replace("{port}", str(tool.port)).replace("{elsewhere}", str(elsewhere.port))
    )
    with pytest.raises(ValueError, match=r"path|URL|surrogates|IPv6"):
        await http.request("GET", given)
    with pytest.raises(ValueError, match=r"path|URL|surrogates|IPv6"):
        await http.download(given, "a.txt", "text/plain")
    assert tool.heard == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://tool/",
        "tool",
        "//tool",
        "http://bot:word@tool/",
        "http://tool/?a=b",
        "http://tool/#a",
        "http://to ol/",
        "",
    ],
)
async def test_a_server_is_named_by_scheme_host_port_and_path_only(
    session: aiohttp.ClientSession, spool: DiskSpool, url: str
) -> None:
    with pytest.raises(ValueError, match="URL"):
        ToolHttp(session, spool, url, max_file=1)


async def test_values_in_the_query_are_always_encoded(http: Http, tool: Tool) -> None:
    await http.request("GET", "rest", query={"a&b": "c&d=e f#?/é\r\nX-Evil: 1"})
    assert tool.targets == ["/tracker/rest?a%26b=c%26d%3De%20f%23%3F%2F%C3%A9%0D%0AX-Evil%3A%201"]
    assert "X-Evil" not in tool.heard[0].headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "1\r\nX-Evil: 1"),
        ("X-A", "1\nX-Evil: 1"),
        ("X-A", "\x00"),
        ("X-A: 1\r\nX-Evil", "1"),
        ("", "1"),
        ("host", "elsewhere.example"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
    ],
)
async def test_a_header_that_would_break_the_request_is_an_error(
    http: Http, made: Made, tool: Tool, name: str, value: str
) -> None:
    with pytest.raises(ValueError, match="header"):
        await http.request("GET", "rest", headers={name: value})
    with pytest.raises(ValueError, match="header"):
        made(headers={name: value})
    assert tool.heard == []


async def test_a_method_that_would_break_the_request_is_an_error(http: Http, tool: Tool) -> None:
    for method in ("GET / HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET", "", "GE T"):
        with pytest.raises(ValueError, match="method"):
            await http.request(method, "rest")
    assert tool.heard == []


async def test_headers_of_the_request_go_before_those_of_the_configuration(made: Made, tool: Tool) -> None:
    http = made(headers={"x-api-key": "one", "accept": "text/plain"})
    await http.request("GET", "", headers={"X-API-KEY": "two"})
    assert (tool.heard[0].headers["X-Api-Key"], tool.heard[0].headers["Accept"]) == ("two", "text/plain")


async def test_the_login_is_sent_as_utf_8_and_never_shown(http: Http, made: Made, tool: Tool) -> None:
    await http.request("GET", "rest")
    assert aiohttp.BasicAuth.decode(tool.heard[0].headers["Authorization"], "utf-8")[:2] == ("bot", PASSWORD)
    assert "secret" not in repr(http)
    assert repr(http) == f"ToolHttp('{tool.url}')"
    for login in (("bot:x", "secret"), ("bot", "secret\r\n"), ("bot", "secret\ud800")):
        with pytest.raises(ValueError, match="login") as caught:
            made(login=login)
        assert "secret" not in repr(caught.value)


async def test_what_a_session_would_add_by_itself_is_refused(spool: DiskSpool) -> None:
    async with aiohttp.ClientSession() as cookies:
        with pytest.raises(ValueError, match="cookies"):
            ToolHttp(cookies, spool, "http://tool/", max_file=1)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=True) as trusting:
        with pytest.raises(ValueError, match="environment"):
            ToolHttp(trusting, spool, "http://tool/", max_file=1)


async def test_a_proxy_in_the_environment_is_not_used(
    http: Http, tool: Tool, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.port}")
    await http.request("GET", "rest")
    assert len(tool.heard) == 1


async def test_cookies_are_not_kept(http: Http, tool: Tool) -> None:
    tool.answers = [said(200, {}, Set_Cookie="session=1; Path=/")]
    for _ in range(2):
        await http.request("GET", "rest")
    assert "Cookie" not in tool.heard[1].headers


# --- redirects


async def test_a_get_follows_redirects_within_the_server(http: Http, tool: Tool) -> None:
    tool.answers = [
        said(301, Location="other?b=1#there"),
        said(302, Location="/third"),
        said(307, Location="a/../fourth"),
        said(307, Location=f"{tool.url}/absolute"),
        said(308, Location=f"//127.0.0.1:{tool.port}/fifth?last"),
    ]
    await http.request("GET", "rest/x", query={"a": "1"})
    paths = ["/tracker/rest/x?a=1", "/tracker/rest/other?b=1", "/third", "/fourth", "/absolute", "/fifth?last"]
    assert tool.targets == paths
    assert {heard.headers.get("X-Api-Key") for heard in tool.heard} == {"key-secret"}


async def test_more_than_five_redirects_are_not_followed(http: Http, tool: Tool) -> None:
    tool.answers = [said(302, Location="rest") for _ in range(9)]
    assert "more than 5 times" in str(await failure(http.request("HEAD", "rest")))
    assert len(tool.heard) == 6


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("http://127.0.0.1:{elsewhere}/x?key-secret=1", "http://127.0.0.1:{elsewhere}"),
        ("//127.0.0.1:{elsewhere}/x", "http://127.0.0.1:{elsewhere}"),
        ("http://bot:secret@127.0.0.1:{elsewhere}/x", "http://127.0.0.1:{elsewhere}"),
        ("http://bot:secret@127.0.0.1:{port}/x", "http://127.0.0.1:{port}"),
        ("http://localhost:{port}/x", "http://localhost:{port}"),
        ("https://127.0.0.1:{port}/x", "https://127.0.0.1:{port}"),
        ("http://127.0.0.1/x", "http://127.0.0.1"),
        ("http://127.0.0.1:{port}\\@127.0.0.1:{elsewhere}/x", "http://127.0.0.1:{elsewhere}"),
        ("file:///etc/passwd", "file://"),
        ("data:text/plain,x", "data://"),
        ("http://[", "an address that makes no sense"),
    ],
)
async def test_a_redirect_to_elsewhere_is_the_tools_trouble(
    http: Http, tool: Tool, elsewhere: Elsewhere, location: str, named: str
) -> None:
    location, named = (
        text.replace("{port}", str(tool.port)).replace("{elsewhere}", str(elsewhere.port)) for text in (location, named)
    )
    for asking in (http.request("GET", "rest"), http.request("POST", "rest", json={}), http.download("a", "a", "a/b")):
        tool.answers = [said(302, Location=location)]
        error = await failure(asking)
        assert isinstance(error, Unavailable | Unconfirmed)
        assert str(error).endswith(f" to {named}")
    assert len(tool.heard) == 3


async def test_a_redirect_without_an_address_is_the_tools_trouble(http: Http, tool: Tool) -> None:
    for answer in (web.Response(status=302), web.Response(status=302, headers={"Location": ""})):
        tool.answers = [answer] * 6
        assert isinstance(await failure(http.request("GET", "rest")), Unavailable)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_what_changes_something_follows_no_redirect(http: Http, tool: Tool, status: int) -> None:
    tool.answers = [said(status, Location="other")]
    error = await failure(http.request("POST", "rest", json={"a": 1}))
    assert isinstance(error, Unavailable | Unconfirmed)
    assert isinstance(error, Unconfirmed) is (status in {302, 303})  # a tool may well redirect when it has done it
    assert tool.targets == ["/tracker/rest"]


async def test_a_redirect_that_is_accepted_is_returned(http: Http, tool: Tool) -> None:
    tool.answers = [said(303, {}, Location="issue12")]
    reply = await http.request("POST", "rest", json={}, accept=(303,))
    assert (reply.status, reply.headers["location"]) == (303, "issue12")


# --- answers


async def test_json_goes_and_a_reply_comes_whole(http: Http, tool: Tool) -> None:
    tool.answers = [said(201, {"id": 7}, ETag='"abc"', Link="<a>")]
    tool.answers[0].headers.add("Link", "<b>")  # type: ignore[union-attr]
    reply = await http.request("put", "rest", json={"title": "Ü\ud800"}, headers={"content-type": "application/x+json"})
    assert (reply.status, reply.json(), reply.headers["etag"], reply.headers["link"]) == (
        201,
        {"id": 7},
        '"abc"',
        "<a>, <b>",
    )
    heard = tool.heard[0]
    assert (heard.method, heard.body) == ("PUT", b'{"title": "\\u00dc\\ud800"}')
    assert heard.headers["Content-Type"] == "application/x+json"
    await http.request("POST", "rest", json=[])
    assert tool.heard[1].headers["Content-Type"] == "application/json"


async def test_no_content_is_an_answer_whose_json_is_the_tools_trouble(http: Http, tool: Tool) -> None:
    tool.answers = [web.Response(status=204)]
    reply = await http.request("DELETE", "rest")
    assert (reply.status, reply.body) == (204, b"")
    with pytest.raises(Unavailable, match="204"):
        reply.json()


@pytest.mark.parametrize("body", [b"<html>It works!", b"{", b"\xff", b"[" * 100_000])
async def test_nonsense_instead_of_json_is_the_tools_trouble(http: Http, tool: Tool, body: bytes) -> None:
    tool.answers = [web.Response(body=body)]
    with pytest.raises(Unavailable):
        (await http.request("GET", "rest")).json()


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, Rejected) for status in (400, 404, 405, 409, 410, 412, 413, 422, 451)),
        *((status, Unavailable) for status in (401, 403, 408, 429, 502, 503, 504)),
        *((status, Deferred) for status in (500, 501, 507, 599)),
        *((status, Unavailable) for status in (300, 304)),
    ],
)
async def test_a_status_is_about_the_message_the_moment_or_the_tool(
    http: Http, tool: Tool, status: int, meaning: type[Exception]
) -> None:
    tool.answers = [said(status, {}) for _ in range(9)]
    assert isinstance(await failure(http.request("GET", "rest")), meaning)
    changing = Unconfirmed if status in {502, 504} else meaning  # a gateway does not know what was done
    assert isinstance(await failure(http.request("POST", "rest")), changing)
    assert isinstance(await failure(http.download("rest", "a", "a/b")), meaning)
    assert (await http.request("GET", "rest", accept=(404, status))).status == status


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said(404, {"error": {"status": 404, "msg": "No such issue"}}), "404 No such issue"),
        (said(422, {"errors": ["Subject is blank", "Tracker is invalid"]}), "422 Subject is blank; Tracker is invalid"),
        (said(400, {"error": "no\r\nway\x07 \u202eout"}), "400 no way out"),
        (said(400, {"message": "Bad"}), "400 Bad"),
        (said(400, {"error": {"code": "x", "info": "Bad page"}}), "400 Bad page"),
        (said(400, {"other": 1}), "400 Bad Request"),
        (said(400, ["a", {"message": "b"}]), "400 a; b"),
        (web.Response(status=404, text="<style>x</style><p>Not <b>here</b>", content_type="text/html"), "404 Not here"),
        (web.Response(status=404, text="plain\n words"), "404 plain words"),
        (web.Response(status=404, body=b"\x89PNG\r\n", content_type="image/png"), "404 Not Found"),
        (web.Response(status=499, reason="Mine"), "499"),
        (web.Response(status=400, text="Schl\u00fcssel", charset="latin-1"), "400 Schlüssel"),
        (web.Response(status=400, body=b"a\xff", headers={"Content-Type": "text/plain; charset=odd"}), "400 a\u00ff"),
        (web.Response(status=400, text="[" * 60_000), "400 " + "[" * 496),
        (web.Response(status=400, text='{"error":' * 5000), '400 {"error":{'),
        (said(400, {"error": "x" * 100_000}), "400"),
    ],
    ids=range(16),
)  # fmt: skip
async def test_a_refusal_carries_the_tools_own_reason_in_a_short_line(
    http: Http, tool: Tool, answer: web.Response, reason: str
) -> None:
    tool.answers = [answer]
    told = str(await failure(http.request("POST", "rest")))
    assert told.startswith(reason) if len(told) > 100 or reason == "400" else told == reason
    assert len(told) <= 500


async def test_a_tool_that_repeats_our_secrets_is_not_repeated(http: Http, tool: Tool) -> None:
    async def gossip(request: web.Request) -> web.Response:
        sent = (request.headers["X-Api-Key"], request.headers["Authorization"], PASSWORD, request.query_string)
        return web.Response(status=400, text=" ".join((*sent, request.headers["Authorization"].split()[1])))

    tool.answers = [gossip]
    told = str(await failure(http.request("GET", "rest", query={"token": "x y-secret"})))
    assert told == "400 … … … … …"


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_the_tool_says_how_long_to_wait(http: Http, tool: Tool, status: int) -> None:
    for value, wait in (("7", 7), ("86400", 3600), (formatdate(time.time() + 100, usegmt=True), 100), ("soon", None)):
        for method in ("GET", "POST"):
            tool.answers = [said(status, {}, Retry_After=value)]
            error = await failure(http.request(method, "rest"))
            assert isinstance(error, Unavailable)
            assert error.retry_after == (wait if wait is None else pytest.approx(wait, abs=2))
    assert len(tool.heard) == 8  # who says when to come again is not asked again before


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("0", 0.0),
        ("9" * 5000, 3600.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 31 Dec 2027 23:59:59 +99999999999999", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_an_hour_at_most(value: str, wait: float | None) -> None:
    assert retry_after(value) == wait


def test_a_date_without_a_zone_is_utc_wherever_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setenv("TZ", "JST-9")
        time.tzset()
        wait = retry_after(time.asctime(time.gmtime(time.time() + 100)))
    time.tzset()
    assert wait == pytest.approx(100, abs=2)


# --- limits


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_too_large_an_answer_is_the_tools_trouble(made: Made, tool: Tool, method: str) -> None:
    http = made(max_body=1000)
    tool.answers = [web.Response(body=b"x" * 1000), web.Response(body=b"x" * 1001)]
    assert len((await http.request(method, "rest")).body) == 1000
    error = await failure(http.request(method, "rest"))
    assert isinstance(error, Unconfirmed if method == "POST" else Unavailable)
    assert "larger than 1 kB" in str(error)


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
async def test_an_endless_answer_is_left(session: aiohttp.ClientSession, spool: DiskSpool, status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: text/plain\r\n\r\n"
    async with speaking(head, endless=b"word " * 10_000) as (url, heard):
        http = ToolHttp(session, spool, url, max_file=10**6)
        error = await asyncio.wait_for(failure(http.request("GET", "rest")), 10)
        assert isinstance(error, Rejected if b"404" in status else Unavailable)
        assert len(heard) == 1


async def test_endless_headers_are_left(session: aiohttp.ClientSession, spool: DiskSpool) -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\n", endless=b"X-A: b\r\n" * 1000) as (url, _):
        http = ToolHttp(session, spool, url, max_file=10**6)
        assert isinstance(await asyncio.wait_for(failure(http.request("GET", "rest")), 10), Unavailable)


async def test_a_compressed_bomb_is_not_unpacked(made: Made, tool: Tool) -> None:
    bomb = gzip.compress(bytes(2**26))
    assert len(bomb) < 2**17
    tool.answers = [web.Response(body=bomb, headers={"Content-Encoding": "gzip"}) for _ in range(2)]
    error = await failure(made(max_body=2**20).request("GET", "rest"))
    assert "larger than 1 MB" in str(error)
    tool.answers[0].set_status(400)  # type: ignore[union-attr]
    assert str(await failure(made().request("GET", "rest"))).startswith("400")


async def test_what_is_badly_compressed_is_the_tools_trouble(http: Http, tool: Tool) -> None:
    tool.answers = [web.Response(body=b"not gzip at all", headers={"Content-Encoding": "gzip"}) for _ in range(3)]
    assert isinstance(await failure(http.request("GET", "rest")), Unavailable)


@pytest.mark.parametrize(("method", "form"), [("GET", False), ("POST", False), ("POST", True)])
async def test_a_slow_tool_is_left_and_not_asked_again(
    session: aiohttp.ClientSession, spool: DiskSpool, method: str, form: bool
) -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow", stay=True) as (url, heard):
        http = ToolHttp(session, spool, url, max_file=1, timeout=0.6)
        error = await failure(http.request(method, "rest", form={"a": "b"} if form else None))
        assert isinstance(error, Unconfirmed if method == "POST" else Unavailable)
        assert "too long" in str(error)
        await until(lambda: len(heard) == 2)  # it has hung up


async def test_an_answer_in_drops_has_no_more_time_than_others(made: Made, tool: Tool) -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await answer.write(b" ")
                await asyncio.sleep(0.05)
        return answer

    tool.answers = [dripping]
    assert "too long" in str(await failure(made(timeout=0.3).request("GET", "rest")))


async def test_a_file_may_take_longer_than_a_request(made: Made, tool: Tool) -> None:
    async def steady(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(5):
            await answer.write(b"part")
            await asyncio.sleep(0.3)
        return answer

    tool.answers = [steady]
    assert (await made(timeout=1).download("a", "a.txt", "text/plain")).size == 20
    assert LONG == 600


async def test_who_is_cancelled_hangs_up(session: aiohttp.ClientSession, spool: DiskSpool) -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow", stay=True) as (url, heard):
        http = ToolHttp(session, spool, url, max_file=1)
        asking = asyncio.create_task(http.request("GET", "rest"))
        await until(lambda: bool(heard))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: heard[-1] == b"")


# --- repetitions


@pytest.mark.parametrize("broken", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"])
async def test_a_get_is_repeated_twice_when_the_connection_breaks(
    session: aiohttp.ClientSession, spool: DiskSpool, broken: bytes
) -> None:
    async with speaking(broken, broken, OK) as (url, heard):
        http = ToolHttp(session, spool, url, max_file=1)
        assert (await http.request("GET", "rest")).json() == {}
        assert len(heard) == 3
    async with speaking(broken) as (url, heard):
        http = ToolHttp(session, spool, url, max_file=1)
        assert "connection broke" in str(await failure(http.request("GET", "rest")))
        assert len(heard) == 3


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_get_is_repeated_twice_when_a_gateway_has_nobody_to_ask(http: Http, tool: Tool, status: int) -> None:
    tool.answers = [said(status, {}), said(status, {})]
    assert (await http.request("GET", "rest")).status == 200
    tool.answers = [said(status, {}) for _ in range(9)]
    assert isinstance(await failure(http.request("HEAD", "rest")), Unavailable)
    assert len(tool.heard) == 6


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_else_is_repeated_and_a_lost_answer_leaves_a_doubt(
    session: aiohttp.ClientSession, spool: DiskSpool, http: Http, tool: Tool, method: str
) -> None:
    async with speaking(b"", OK) as (url, heard):
        broken = ToolHttp(session, spool, url, max_file=1)
        assert isinstance(await failure(broken.request(method, "rest", json={})), Unconfirmed)
        assert len(heard) == 1
    for status in (502, 503, 504):
        tool.answers = [said(status, {})]
        assert isinstance(await failure(http.request(method, "rest")), Unconfirmed) is (status != 503)
    assert len(tool.heard) == 3


async def test_a_tool_that_cannot_be_reached_has_done_nothing(
    session: aiohttp.ClientSession, spool: DiskSpool, unused_port: int
) -> None:
    http = ToolHttp(session, spool, f"http://127.0.0.1:{unused_port}", max_file=1)
    error = await failure(http.request("POST", "rest", json={}))
    assert type(error) is Unavailable
    assert "Connect call failed" in str(error) or "refused" in str(error)


@pytest.fixture
async def unused_port() -> int:
    listening = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    return int(port)


async def test_a_server_that_does_not_speak_http_is_in_trouble(
    session: aiohttp.ClientSession, spool: DiskSpool, tool: Tool
) -> None:
    async with speaking(b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as (url, _):
        for address in (url, tool.url.replace("http:", "https:")):
            http = ToolHttp(session, spool, address, max_file=1)
            assert isinstance(await failure(http.request("GET", "rest")), Unavailable)


# --- files


def parts_of(heard: Heard) -> list[Message]:
    head = f"Content-Type: {heard.headers['Content-Type']}\r\n\r\n".encode()
    return list(BytesParser(policy=HTTP).parsebytes(head + heard.body).iter_parts())  # type: ignore[attr-defined]


async def test_a_form_is_sent_with_its_files_and_its_length(http: Http, tool: Tool, spool: DiskSpool) -> None:
    content = bytes(range(256)) * 4000
    large = await spool.keep("large.bin", "application/x-thing", content)
    small = await spool.keep("small.txt", "text/plain", b"small")
    empty = await spool.keep("empty.txt", "text/plain", b"")
    form = {"note": "Grüße\nund mehr", "file": large, "other": small, "none": empty}
    assert (await http.request("POST", "uploads", form=form)).status == 200
    heard = tool.heard[0]
    assert heard.headers["Content-Length"] == str(len(heard.body))
    assert "Transfer-Encoding" not in heard.headers
    note, *files = parts_of(heard)
    assert note.get_payload(decode=True).decode() == "Grüße\nund mehr"  # type: ignore[union-attr]
    assert note.get_param("name", header="Content-Disposition") == "note"
    assert [part.get_payload(decode=True) for part in files] == [content, b"small", b""]
    assert [part.get_filename() for part in files] == ["large.bin", "small.txt", "empty.txt"]
    assert files[0].get_content_type() == "application/x-thing"


async def test_names_in_a_form_cannot_break_out(http: Http, tool: Tool, spool: DiskSpool) -> None:
    evil = 'Übersicht "1"\\\r\nX-Evil: 1\r\n\r\n\x00.pdf'
    file = await spool.keep(evil, "text/plain\r\nX-Evil: 1", b"content")
    await http.request("POST", "uploads", form={'a"; filename="x\r\n': "value", "b\ud800": file})
    first, second = parts_of(tool.heard[0])
    assert b'name="a%22; filename=%22x%0D%0A"\r\n\r\nvalue\r\n' in tool.heard[0].body
    assert 'filename="Übersicht %221%22%5C%0D%0AX-Evil: 1%0D%0A%0D%0A%00.pdf"\r\n'.encode() in tool.heard[0].body
    assert first.get_filename() is None
    assert (first["X-Evil"], second["X-Evil"]) == (None, None)
    assert second.get_content_type() == "application/octet-stream"


async def test_a_file_that_is_no_longer_kept_is_refused_before_anything_is_sent(
    session: aiohttp.ClientSession, spool: DiskSpool, elsewhere: Elsewhere
) -> None:
    http = ToolHttp(session, spool, f"http://127.0.0.1:{elsewhere.port}", max_file=1)
    gone = File("gone.pdf", "application/pdf", 5, hashlib.sha256(b"other").hexdigest())
    error = await failure(http.request("POST", "uploads", form={"note": "words", "file": gone}))
    assert isinstance(error, Rejected)
    assert str(error) == "gone.pdf is no longer kept"
    await asyncio.sleep(0.01)


async def test_a_file_that_vanishes_while_it_is_sent_is_refused(
    http: Http, tool: Tool, spool: DiskSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await spool.keep("report.pdf", "application/pdf", bytes(10**6))

    async def half(file: File) -> AsyncIterator[bytes]:
        yield bytes(5 * 10**5)

    monkeypatch.setattr(spool, "stream", half)
    error = await failure(http.request("POST", "uploads", form={"file": kept}))
    assert isinstance(error, Rejected)
    assert "report.pdf is no longer kept" in str(error)
    assert tool.heard == []


async def test_json_and_a_form_are_not_sent_together(http: Http) -> None:
    with pytest.raises(ValueError, match="form"):
        await http.request("POST", "rest", json={}, form={})


async def test_a_download_is_streamed_into_the_spool(http: Http, tool: Tool, spool: DiskSpool) -> None:
    content = bytes(range(256)) * 3000

    async def chunked(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(content)
        return answer

    tool.answers = [web.Response(body=content), chunked, said(302, Location="/file")]
    for _ in range(3):
        file = await http.download("files/1", "a.bin", "application/x-thing")
        assert file.name == "a.bin"
        if tool.targets[-1] != "/file":
            assert await spool.read(file) == content
    assert tool.heard[0].headers["Accept-Encoding"] == "identity"
    assert tool.heard[0].headers["X-Api-Key"] == "key-secret"


async def test_too_large_a_download_is_refused_and_leaves_nothing(made: Made, tool: Tool, spool: DiskSpool) -> None:
    tool.answers = [web.Response(body=bytes(10**6))]
    error = await failure(made(max_file=10**5).download("files/1", "a.bin", "application/x-thing"))
    assert isinstance(error, Rejected)
    assert str(error) == "a.bin is larger than the 100 kB that are taken"
    assert list(spool.folder.rglob("*")) == []


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n64\r\n"])
async def test_a_download_that_is_cut_short_is_an_error(
    session: aiohttp.ClientSession, spool: DiskSpool, head: bytes
) -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\n" + head + b"not all") as (url, heard):
        http = ToolHttp(session, spool, url, max_file=10**6)
        assert isinstance(await failure(http.download("files/1", "a.bin", "a/b")), Unavailable)
        assert len(heard) == 3
    assert list(spool.folder.rglob("*")) == []


@pytest.mark.parametrize("head", [b"", b"Content-Encoding: gzip\r\nContent-Length: 7\r\n"])
async def test_a_download_that_would_not_show_that_it_was_cut_is_refused(
    session: aiohttp.ClientSession, spool: DiskSpool, head: bytes
) -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nnot all") as (url, _):
        http = ToolHttp(session, spool, url, max_file=10**6)
        assert isinstance(await failure(http.download("files/1", "a.bin", "a/b")), Rejected)


@pytest.mark.parametrize("status", [202, 204, 206])
async def test_a_part_of_a_file_or_none_is_the_tools_trouble(http: Http, tool: Tool, status: int) -> None:
    tool.answers = [web.Response(status=status)]
    assert isinstance(await failure(http.download("files/1", "a.bin", "a/b")), Unavailable)


# --- bodies as they are (WebDAV and its kin)


async def test_bytes_and_a_file_are_sent_as_they_are(http: Http, tool: Tool, spool: DiskSpool) -> None:
    content = bytes(range(256)) * 4000
    large = await spool.keep("large.bin", "application/x-thing", content)
    await http.request("PUT", "a", body=b"<x/>", headers={"Content-Type": "application/xml"})
    for file in (large, await spool.keep("evil.txt", "text/plain\r\nX-Evil: 1", b"")):
        await http.request("PUT", "b", body=file)
    assert [heard.body for heard in tool.heard] == [b"<x/>", content, b""]
    types = ["application/xml", "application/x-thing", "application/octet-stream"]
    assert [heard.headers["Content-Type"] for heard in tool.heard] == types
    assert [heard.headers["Content-Length"] for heard in tool.heard] == ["4", str(len(content)), "0"]


async def test_a_file_that_is_gone_is_no_body(http: Http, tool: Tool) -> None:
    gone = File("gone.pdf", "application/pdf", 5, hashlib.sha256(b"other").hexdigest())
    error = await failure(http.request("PUT", "b", body=gone))
    assert (type(error), str(error), tool.heard) == (Rejected, "gone.pdf is no longer kept", [])


async def test_a_body_goes_alone(http: Http) -> None:
    with pytest.raises(ValueError, match="body"):
        await http.request("PUT", "b", body=b"", form={})


@pytest.mark.parametrize("method", ["PROPFIND", "REPORT"])
async def test_what_only_asks_is_repeated_with_its_body_and_leaves_no_doubt(
    http: Http, tool: Tool, method: str
) -> None:
    tool.answers = [said(301, Location="other/"), said(502, {})]
    await http.request(method, "a", body=b"<x/>")
    assert [(heard.method, heard.target, heard.body) for heard in tool.heard] == [
        (method, "/tracker/a", b"<x/>"), (method, "/tracker/other/", b"<x/>"),
        (method, "/tracker/a", b"<x/>"),
    ]  # fmt: skip
    tool.answers = [said(504, {}) for _ in range(3)]
    assert isinstance(await failure(http.request(method, "a", body=b"<x/>")), Unavailable)
