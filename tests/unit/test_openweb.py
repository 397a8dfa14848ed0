"""Looking at pages that people link: nothing but the internet is reached, and no page can hurt who looks at it.

A server on loopback plays everything that must not be reached: it never hears of anything unless loopback is allowed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import openweb
from bridge.model import Rejected
from bridge.openweb import LONGEST, MOST, OpenWeb, is_public, is_this_machine
from tests.peers.certificate import Certificate
from tests.peers.pages import Pages

LOOPBACK = [ipaddress.ip_network("127.0.0.1/32")]
HTML = ("text/html",)


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    async with Pages() as made:
        yield made


def looking(pages: Pages, **how: Any) -> OpenWeb:
    """Who may look at these pages."""
    return OpenWeb(**({"ports": (80, 443, pages.port), "networks": LOOPBACK, "seconds": 5.0} | how))


class Names(AbstractResolver):
    """A name server that answers what a test wants, each time the next."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        found = self.answers[min(self.asked, len(self.answers)) - 1]
        versions = {each: socket.AF_INET6 if ":" in each else socket.AF_INET for each in found}
        return [
            ResolveResult(hostname=host, host=each, port=port, family=version, proto=0, flags=0)
            for each, version in versions.items()
        ]

    async def close(self) -> None:
        """Nothing."""


# --- which addresses are the internet


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.9.1", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
        "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254",
        "fe80::1", "fe80::1%2", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_what_is_not_the_internet_is_known(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "100.128.0.1", "172.32.0.1", "192.0.3.1", "2606:4700::1", "2a00::1"])
def test_what_is_the_internet_is_known(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_our_own_machine_is_known_by_its_address_whatever_that_is() -> None:
    assert is_this_machine(socket.AF_INET, ("127.0.0.1", 80))
    assert not is_this_machine(socket.AF_INET, ("127.0.0.9", 80))  # spoken to from 127.0.0.1


async def test_our_own_machine_is_not_reached_by_a_public_address_either(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its services may be closed to others by a firewall only."""
    monkeypatch.setattr(openweb, "_SPECIAL", ())  # as if 127.0.0.1 were an address on the internet
    with pytest.raises(Rejected, match="internet"):
        await looking(pages, networks=()).get(pages.page("inside", "inside"), HTML)
    assert pages.visits == []


# --- where a connection goes


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LOCALHOST.", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0.0.0.0", "0", "[::1]",
     "[::ffff:127.0.0.1]", "[::127.0.0.1]", "①②⑦.⓪.⓪.①"],
)  # fmt: skip
async def test_however_our_own_machine_is_written_it_is_not_reached(host: str) -> None:
    async with Pages("127.0.0.1", "::1") as pages:
        web = looking(pages, networks=())
        url = web.address(f"http://{host}:{pages.port}/")
        assert url
        with pytest.raises(Rejected, match="cannot be looked at"):
            await web.get(url, HTML)
        assert pages.visits == []


async def test_a_name_is_judged_by_the_address_that_the_connection_goes_to(pages: Pages) -> None:
    pages.page("", "inside")
    for names in (Names(["127.0.0.1"]), Names(["10.255.255.1", "127.0.0.1"]), Names(["127.0.0.1", "::1"])):
        with pytest.raises(Rejected, match="internet"):
            await looking(pages, names=names, networks=()).get(f"http://page.example:{pages.port}/", HTML)
    assert pages.visits == []


async def test_a_name_that_means_another_address_at_the_next_look_is_judged_again(pages: Pages) -> None:
    pages.page("", "inside")
    pages.redirect("away", "/")
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    with pytest.raises(Rejected, match="internet"):
        await looking(pages, names=names).get(f"http://page.example:{pages.port}/away", HTML)
    assert (pages.paths, names.asked) == (["/away"], 2)


async def test_a_network_that_is_allowed_on_purpose_is_reached_and_no_other(pages: Pages) -> None:
    url = pages.page("wiki", "Intranet")
    assert b"Intranet" in (await looking(pages).get(url, HTML)).body
    for other in ("127.0.0.2/32", "10.0.0.0/8", "::/0"):
        with pytest.raises(Rejected, match="internet"):
            await looking(pages, networks=[ipaddress.ip_network(other)]).get(url, HTML)


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    pages: Pages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy would connect for us wherever it likes."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    await looking(pages).get(pages.page("plain", "plain"), HTML)
    assert "Authorization" not in pages.visits[0][2]


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_into_our_own_network_is_not_followed(status: int) -> None:
    async with Pages("127.0.0.1", "127.0.0.2") as pages:
        pages.page("inside", "inside")
        url = pages.redirect("away", f"http://127.0.0.2:{pages.port}/inside", status)
        with pytest.raises(Rejected, match="internet"):
            await looking(pages).get(url, HTML)
        assert pages.paths == ["/away"]


@pytest.mark.parametrize(
    "target",
    ["ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "http://u:p@127.0.0.1:{port}/in", "http://[::1",
     "http://localhost:{port}/in", "http://127.0.0.1:1/in", "javascript:1", "data:text/html,x"],
)  # fmt: skip
async def test_a_redirect_to_what_may_not_be_pasted_is_not_followed(pages: Pages, target: str) -> None:
    pages.page("in", "in")
    url = pages.redirect("away", target.format(port=pages.port))
    with pytest.raises(Rejected):
        await looking(pages, hosts=["127.0.0.1"]).get(url, HTML)
    assert pages.paths == ["/away"]


async def test_five_redirects_are_followed_and_no_more(pages: Pages) -> None:
    found = await looking(pages).get(pages.chain(5), HTML)
    assert found.url == f"{pages.url}chain0"
    pages.visits.clear()
    with pytest.raises(Rejected, match="redirects"):
        await looking(pages).get(pages.chain(60), HTML)
    assert len(pages.visits) == 6


async def test_nothing_of_ours_goes_along(pages: Pages) -> None:
    pages.page("end", "end")
    await looking(pages).get(pages.redirect("start", "/end"), HTML)
    assert [method for method, _, _ in pages.visits] == ["GET", "GET"]
    for _, _, headers in pages.visits:
        assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
        assert headers["User-Agent"].startswith("Passerelle")


# --- time, size, type


async def _seconds(pages: Pages, url: str, **how: Any) -> float:
    began = time.monotonic()
    with pytest.raises(Rejected, match="too long"):
        await looking(pages, seconds=0.3, **how).get(url, HTML)
    return time.monotonic() - began


async def test_a_page_that_drips_is_left(pages: Pages) -> None:
    assert await _seconds(pages, pages.drip("drip")) < 1


async def test_a_page_that_says_nothing_is_left(pages: Pages) -> None:
    assert await _seconds(pages, pages.put_answer("silence", pages.silence)) < 1


async def test_redirects_share_one_time(pages: Pages) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        raise web.HTTPFound("/late")

    assert await _seconds(pages, pages.put_answer("late", late)) < 1


async def test_a_name_server_that_never_answers_is_left(pages: Pages) -> None:
    class Silent(Names):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
            return await asyncio.sleep(3600, [])

    assert await _seconds(pages, f"http://page.example:{pages.port}/", names=Silent()) < 1


async def test_an_endless_page_is_read_as_far_as_its_head_may_reach(pages: Pages) -> None:
    found = await looking(pages).get(pages.endless("endless"), HTML)
    assert len(found.body) == MOST
    assert pages.sent < 20 * MOST  # what is under way in buffers


async def test_what_is_packed_is_unpacked_no_further(pages: Pages) -> None:
    began = time.monotonic()
    found = await looking(pages).get(pages.bomb("bomb"), HTML)
    assert b"<title>bomb" in found.body
    assert len(found.body) <= MOST
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "what",
    [
        {"type": "application/pdf"}, {"type": "image/svg+xml"}, {"type": ""}, {"type": "text/plain"}, {"status": 204},
        {"status": 404}, {"status": 403}, {"status": 500}, {"status": 304}, {"status": 302}, {"status": 206},
        {"Content_Encoding": "br"}, {"Content_Encoding": "gzip"}, {"Content_Encoding": "gzip, gzip"},
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_no_page_is_refused(pages: Pages, what: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        await looking(pages).get(pages.put("odd", "<title>odd</title>", **what), HTML)


async def test_what_speaks_no_http_is_refused() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 welcome\r\nX: " + b"y" * 100_000)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Rejected, match="cannot be looked at"):
            await OpenWeb(ports=[port], networks=LOOPBACK).get(f"http://127.0.0.1:{port}/", HTML)


async def test_certificates_are_verified(tmp_path: Path) -> None:
    made = Certificate.make(tmp_path)
    async with Pages(tls=made.context()) as pages:
        url = pages.page("safe", "safe")
        with pytest.raises(Rejected, match="certificate"):
            await looking(pages).get(url, HTML)
        assert pages.visits == []
        assert b"safe" in (await looking(pages, ca_file=made.file).get(url, HTML)).body


async def test_what_is_told_has_no_secret_of_the_address_in_it(pages: Pages) -> None:
    for path in ("gone?token=hush", "away?token=hush"):
        pages.redirect("away", "http://127.0.0.1:1/?token=hush")
        with pytest.raises(Rejected) as told:
            await looking(pages).get(f"{pages.url}{path}", HTML)
        assert "hush" not in str(told.value)


# --- addresses


@pytest.mark.parametrize(
    "text",
    [
        "", "hello", "example.org", "ftp://example.org/", "file:///etc/passwd", "http:///x", "http://", "https://[::1",
        "http://u:p@example.org/", "http://u@example.org/", "http://@example.org/", "http://example.org:81/",
        "http://example.org:0/", "http://example.org:99999/", "http://[fe80::1%25eth0]/", "http://a\\@example.org/",
        "http://example.org\\.evil/", "http://exa mple.org/", "http://example.org/\n", "http://other.example/",
        "http://example.org.evil.example/", f"http://example.org/{'x' * LONGEST}", f"http://example.org/{'é' * 600}",
        "http://example.org/\ud800", "http://exam\u202eple.org/", "http://example.org/a://[", "gopher://example.org",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_page_is_not_taken_for_one(text: str) -> None:
    assert OpenWeb(["example.org", "*.example.org"]).address(text) == ""


@pytest.mark.parametrize("text", ["http://[fe80::1%25eth0]/", "http://a$b/", "http://%65xample.org/", "http://*/"])
def test_a_host_is_a_name_or_an_address_and_nothing_else(text: str) -> None:
    assert OpenWeb().address(text) == ""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://example.org", "https://example.org"),
        ("HTTPS://EXAMPLE.org/A?b=[c]#d", "https://example.org/A?b=%5Bc%5D"),
        ("http://example.org:80/", "http://example.org/"),
        ("https://www.Example.org./é", "https://www.example.org./%C3%A9"),
        ("https://bücher.example.org/", "https://xn--bcher-kva.example.org/"),
    ],
)
def test_an_address_is_always_written_alike(text: str, address: str) -> None:
    assert OpenWeb(["example.org", "*.example.org"]).address(text) == address


@settings(max_examples=50, deadline=None)
@given(st.from_regex(r"https?://[a-z]{1,5}(:443)?(/[^ #\[\]]{0,10}){0,2}(\?[!-~é]{0,10})?", fullmatch=True))
def test_an_address_stays_what_it_is(text: str) -> None:
    address = OpenWeb().address(text)
    assert OpenWeb().address(address) == address
