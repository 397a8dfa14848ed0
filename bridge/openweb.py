"""Pages anywhere on the internet, for addresses that people paste: looked at with GET, and none of our own network.

Whoever pastes an address makes the bridge connect to it. So a connection is judged when its socket is made, by the very
address it is made to: no name, no redirect, no second answer of a name server and no way to write an address gets past.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bridge.clients import Network, Reply
from bridge.http import explained, start_of, trusting
from bridge.model import Rejected

MOST = 512 * 1024  # bytes of a page, as sent and as unpacked; the rest is not read
LONGEST = 2000  # characters of an address
REDIRECTS = 5
_ADDRESS = re.compile(r"https?://[^\s\x00-\x20\x7f\\/?#@]+(/[^\s\x00-\x20\x7f\\?#<>\"\[\]]*)?([?#]\S*)?", re.IGNORECASE)
_NAME = re.compile(r"[\w.:-]+", re.ASCII)  # no zone of an IPv6 address: that names a card of our machine
_HEADERS = {"User-Agent": "Passerelle (looks at links that people post)", "Accept-Encoding": "gzip"}
_GLOBAL = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given out for the internet
# What is not the internet (IANA special-purpose registries), or leads from IPv6 to any IPv4 address (Teredo, 6to4).
# The last is where Azure answers for a machine's own settings.
_SPECIAL = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "168.63.129.16/32",
    )
)  # fmt: skip
_THREADS = ThreadPoolExecutor(4, "names")


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is an address on the internet; false for everything that has a special meaning anywhere."""
    return (address.version == 4 or address in _GLOBAL) and not any(address in network for network in _SPECIAL)


class OpenWeb:
    """`bridge.connector.Web`: hosts that fit one of the patterns `hosts`, on `ports`; what is in `networks` is allowed
    although it is not public. One page may take `seconds` in all.
    """

    def __init__(
        self, hosts: Iterable[str] = ("*",), *, ports: Iterable[int] = (80, 443), networks: Iterable[Network] = (),
        seconds: float = 10.0, ca_file: Path | None = None, names: AbstractResolver | None = None,
    ) -> None:  # fmt: skip
        self._hosts, self._ports = tuple(each.casefold().rstrip(".") for each in hosts), frozenset(ports)
        self._networks, self._seconds = tuple(networks), seconds
        self._tls: ssl.SSLContext | bool = trusting(ca_file) if ca_file else True  # True: by the system's authorities
        self._names = names or _Names()

    def address(self, text: str) -> str:
        """As the contract says. Pure."""
        with contextlib.suppress(ValueError):
            text = text[: LONGEST + 1]
            url = URL(text).with_fragment(None) if text.isprintable() and _ADDRESS.fullmatch(text) else URL()
            name = (url.raw_host or "").rstrip(".").casefold()
            fits = _NAME.fullmatch(name) and any(fnmatch(name, each) for each in self._hosts)
            if fits and url.user is None and url.password is None and url.port in self._ports:
                return str(url) if len(str(url)) <= LONGEST else ""
        return ""

    async def get(self, url: str, types: Sequence[str]) -> Reply:
        """As the contract says."""
        limits = aiohttp.TCPConnector(
            resolver=self._names, socket_factory=self._socket, ssl=self._tls, use_dns_cache=False, force_close=True
        )
        try:
            async with asyncio.timeout(self._seconds), aiohttp.ClientSession(
                connector=limits, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
                headers=_HEADERS | {"Accept": ", ".join(types)}, max_field_size=32 * 1024,
            ) as session:  # fmt: skip
                return await self._arrived(session, url, types)
        except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
            raise Rejected(f"the page cannot be looked at: {explained(error)}") from None

    async def _arrived(self, session: aiohttp.ClientSession, url: str, types: Sequence[str]) -> Reply:
        """The answer, wherever redirects lead; every step is judged like the first."""
        for _ in range(REDIRECTS + 1):
            if not (known := self.address(url)):
                raise Rejected("this is no address of a page that may be looked at, or it leads to one that is not")
            async with session.get(URL(known), allow_redirects=False) as answer:
                location = answer.headers.get("Location", "")
                if answer.status not in {301, 302, 303, 307, 308} or not location:
                    return await _taken(answer, types)
                url = str(answer.url.join(URL(location)))
        raise Rejected(f"the page redirects more than {REDIRECTS} times")

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """For a connection that may be made; every connection begins here. Raises `OSError`."""
        family, kind, protocol, _, where = info
        address = ipaddress.ip_address(where[0])
        meant = any(address in network for network in self._networks)
        if not meant and (not is_public(address) or is_this_machine(family, where)):
            raise OSError(errno.EACCES, "it is not on the internet")
        return socket.socket(family, kind, protocol)


async def _taken(answer: aiohttp.ClientResponse, types: Sequence[str]) -> Reply:
    coding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if answer.status != 200:
        raise Rejected(f"the page answers {answer.status}")
    if answer.content_type not in types or coding not in {"identity", "gzip", "x-gzip"}:
        raise Rejected("what is there is no page")
    body = (await start_of(answer, MOST))[:MOST]
    if coding != "identity":
        body = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body, MOST)  # not more, however well it is packed
    fields = {name.lower(): value for name, value in answer.headers.items()}
    return Reply(answer.status, fields, body, str(answer.url))


def is_this_machine(family: int, where: tuple[object, ...]) -> bool:
    """Whether this very machine has that address: what it offers to itself may be closed to others."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(where)  # sends nothing
        return bool(probe.getsockname()[0] == where[0])


class _Names(AbstractResolver):
    """Asked in threads of their own, so that a name server that never answers holds up nobody else."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(_THREADS, ask)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(where[0]), port=port, family=each, proto=protocol, flags=numeric)
            for each, _, protocol, _, where in found
        ]

    async def close(self) -> None:
        """Nothing is open."""
