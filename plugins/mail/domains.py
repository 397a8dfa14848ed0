"""What the DNS says of a mailbox's domain: whether mail reaches it, and whether others will believe our mail.

MX (RFC 5321 5.1), SPF (RFC 7208) and DMARC (RFC 7489). SPF is judged by the smarthost's own addresses, where it names
them plainly: a smarthost may pass mail on to other servers of its operator.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Sequence

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from bridge.model import Finding
from plugins.mail.config import endpoint

TIMEOUT = 3.0  # seconds for one question
LOOK_UPS = 10  # questions that a record may cost; RFC 7208 4.6.4
RESERVED = ("example", "test", "invalid", "localhost")  # RFC 2606: never anybody's

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Unknown(Exception):
    """It cannot be looked up now, or cannot be judged."""


class Domains:
    """Looks domains up at the configured name servers, or at those of this host."""

    def __init__(self, servers: Sequence[str], smarthost: str) -> None:
        self._servers = servers
        self._smarthost = smarthost

    async def check(self, domain: str) -> list[Finding]:
        """Findings about MX, SPF and DMARC. Names that are reserved for examples are not looked up."""
        if not self._servers and domain.rpartition(".")[2] in RESERVED:
            return []
        parts = (self._mx(domain), self._spf(domain), self._dmarc(domain))
        return list(await asyncio.gather(*(_told(domain, part) for part in parts)))

    async def _mx(self, domain: str) -> Finding:
        servers = [host for each in await self._ask(domain, "MX") if (host := each.split()[-1].rstrip("."))]
        if servers:
            return Finding(True, f"{domain}: mail goes to {', '.join(sorted(servers))}")
        remedy = f"add an MX record to {domain}, or people cannot answer"
        if await self._ask(domain, "A") or await self._ask(domain, "AAAA"):
            return Finding(True, f"{domain} has no MX record: mail goes to the host of that name", remedy)
        return Finding(False, f"{domain} takes no mail: it has no MX record", remedy)

    async def _dmarc(self, domain: str) -> Finding:
        for name in (domain, ".".join(domain.split(".")[-2:])):
            if any(text.startswith("v=DMARC1") for text in await self._texts(f"_dmarc.{name}")):
                return Finding(True, f"{domain} has a DMARC record")
        remedy = f'begin with a TXT record at _dmarc.{domain}: "v=DMARC1; p=none"; the smarthost signs with DKIM'
        return Finding(False, f"{domain} has no DMARC record: large providers distrust such mail", remedy)

    async def _spf(self, domain: str) -> Finding:
        records = [text for text in await self._texts(domain) if _is_spf(text)]
        if not records:
            remedy = f'add a TXT record to {domain}, such as "v=spf1 mx a:{self._smarthost} -all"'
            return Finding(False, f"{domain} has no SPF record: receivers may take our mail for forged", remedy)
        if len(records) > 1:
            return Finding(False, f"{domain} has {len(records)} SPF records: that counts as an error", "leave only one")
        addresses = await self._addresses(self._smarthost)
        public = [each for each in addresses if self._servers or each.is_global]
        if not public:
            return Finding(
                True, f"{domain} has an SPF record; what it says of {self._smarthost} cannot be seen from here"
            )
        judged = {str(each): await _Spf(self).result(domain, each) for each in public}
        wrong = [address for address, result in judged.items() if result not in "+?"]
        if wrong:
            remedy = f"add a:{self._smarthost} to it, unless the smarthost sends from other addresses"
            return Finding(False, f"the SPF record of {domain} does not allow {', '.join(wrong)}", remedy)
        return Finding(True, f"the SPF record of {domain} allows {', '.join(judged)} (smarthost)")

    async def _addresses(self, host: str) -> list[Ip]:
        try:
            return [ipaddress.ip_address(host.strip("[]"))]
        except ValueError:
            found = [*await self._ask(host, "A"), *await self._ask(host, "AAAA")]
            return [ipaddress.ip_address(each) for each in found]

    async def _texts(self, name: str) -> list[str]:
        return [each.replace('" "', "").strip('"') for each in await self._ask(name, "TXT")]

    async def _ask(self, name: str, kind: str) -> list[str]:
        """Records as text, none when there are none. Raises `Unknown` when nobody answers."""
        try:
            answer = await self._resolver().resolve(name, kind, search=False)
        except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
            return []
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise Unknown(f"{kind} of {name} cannot be looked up: {type(error).__name__}") from None
        return [record.to_text() for record in answer]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(*endpoint(each)) for each in self._servers]
        resolver.timeout, resolver.lifetime = TIMEOUT / 2, TIMEOUT
        return resolver


class _Spf:
    """One evaluation of a record for an address: RFC 7208, without macros, ptr and exists."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._left = LOOK_UPS

    async def result(self, domain: str, address: Ip) -> str:
        """ "+", "-", "~" or "?". Raises `Unknown` when it cannot be judged."""
        record = next((text for text in await self._domains._texts(domain) if _is_spf(text)), "v=spf1")
        onward = ""
        for term in record.split()[1:]:
            sign, mechanism = (term[0], term[1:]) if term[0] in "+-~?" else ("+", term)
            name, _, value = mechanism.partition("=" if mechanism.lower().startswith(("redirect=", "exp=")) else ":")
            if name.lower() == "redirect":
                onward = value
            elif await self._matches(name.lower(), value, domain, address):
                return sign
        if onward:
            self._spend(onward)
            return await self.result(onward, address)
        return "?"

    async def _matches(self, name: str, value: str, domain: str, address: Ip) -> bool:
        plain, _, length = name.partition("/")
        host, _, slash = value.partition("/") if plain not in ("ip4", "ip6") else (value, "", "")
        if plain == "all":
            return True
        if plain in ("ip4", "ip6"):
            return _within(address, value)
        if plain == "include":
            self._spend(value)
            return await self.result(value, address) == "+"
        if plain in ("a", "mx"):
            self._spend(host)
            hosts = [host or domain]
            if plain == "mx":
                hosts = [each.split()[-1].rstrip(".") for each in await self._domains._ask(hosts[0], "MX")][:LOOK_UPS]
            prefix = (
                (slash or length).partition("/")[0] if address.version == 4 else (slash or length).rpartition("//")[2]
            )
            found = [each for one in hosts for each in await self._domains._addresses(one)]
            return any(_within(address, f"{each}/{prefix}" if prefix else str(each)) for each in found)
        if plain in ("ptr", "exists"):
            raise Unknown(f"the SPF record of {domain} cannot be judged here: it has {plain}")
        return False

    def _spend(self, name: str) -> None:
        self._left -= 1
        if "%" in name:
            raise Unknown("the SPF record cannot be judged here: it has macros")
        if self._left < 0:
            raise Unknown(f"the SPF record needs more than {LOOK_UPS} look-ups: that counts as an error")


def _is_spf(text: str) -> bool:
    return text.lower().split(" ")[0] == "v=spf1"


def _within(address: Ip, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


async def _told(domain: str, part: Awaitable[Finding]) -> Finding:
    """A finding; that something cannot be looked up says nothing against the domain."""
    try:
        return await part
    except Unknown as trouble:
        return Finding(True, f"{domain}: {trouble}")
