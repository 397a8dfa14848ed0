"""How much strangers may ask of us, by address and by network. Pure: no sockets, and the clock is an argument."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import NamedTuple

MOST = 20_000  # addresses and networks that are remembered; the longest unseen is forgotten first
NETWORK = 4  # times what one address may do is what its whole network may
REFUSED = 10  # times what a request costs that was not let in
TOTAL = 64  # requests of all strangers at the same time


class Place(NamedTuple):
    """Where a request comes from: the address, and its network (/24, of IPv6 /64)."""

    address: str
    network: str


NOWHERE = Place("", "")


@functools.lru_cache(4096)
def place(peer: str) -> Place:
    """The place of an IP address as a socket or a proxy names it; `NOWHERE` when it is none."""
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(peer.strip().strip("[]").partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        network = ipaddress.ip_network((found, 24 if found.version == 4 else 64), strict=False)
        return Place(str(found), str(network))
    return NOWHERE


def is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether an address, as `place` writes it, belongs to one of the networks."""
    return bool(networks) and bool(address) and any(ipaddress.ip_address(address) in each for each in networks)


def client(
    peer: str, forwarded: Sequence[str], proxies: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> Place:
    """Who asks: the peer, or whom a proxy that we trust names; `forwarded` are the values of X-Forwarded-For.

    Anybody can write into that field: only what our own proxies have added at its end counts, read from the end.
    """
    here = place(peer)
    if not is_in(here.address, proxies):
        return here
    for hop in reversed(",".join(forwarded).split(",")):
        there = place(hop)
        if there is NOWHERE:
            break
        here = there
        if not is_in(there.address, proxies):
            break
    return here


class Limiter:
    """An allowance for every address and every network: `per_minute` at once, and refilled at that speed.

    A network has `NETWORK` times as much. 0 is no limit. Memory is bounded: `MOST` are remembered.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = monotonic) -> None:
        self._full = float(per_minute)
        self._clock = clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (what is spent, when that was so)

    def __len__(self) -> int:
        return len(self._spent)

    def take(self, where: Place) -> int:
        """Take one request out of the allowances; or nothing, and the seconds after which to come again."""
        late = max((self._now(key) + 1 - most) * 60 / most if self._full else 0.0 for key, most in self._keys(where))
        if late > 0:
            return math.ceil(late)
        self.charge(where, 1)
        return 0

    def charge(self, where: Place, cost: int) -> None:
        """Spend more than one request; at most what two minutes refill, so that nobody is locked out for long."""
        if not self._full:
            return
        for key, most in self._keys(where):
            self._spent[key] = (min(2 * most, self._now(key) + cost), self._clock())
            self._spent.move_to_end(key)
        while len(self._spent) > MOST:
            self._spent.popitem(last=False)

    def _keys(self, where: Place) -> tuple[tuple[str, float], tuple[str, float]]:
        return (where.address, self._full), (where.network, NETWORK * self._full)

    def _now(self, key: str) -> float:
        """What is spent of an allowance now."""
        spent, when = self._spent.get(key, (0.0, 0.0))
        rate = self._full * (NETWORK if "/" in key else 1) / 60
        return max(0.0, spent - (self._clock() - when) * rate)


class Seats:
    """Requests under way: so many of one address, twice as many of a network, `TOTAL` of all."""

    def __init__(self, at_once: int) -> None:
        self._most = at_once
        self._taken: Counter[str] = Counter()

    def full(self, where: Place) -> str:
        """Who has taken all the seats: "you", "all", or "" when there is one."""
        if self._taken[where.address] >= self._most or self._taken[where.network] >= 2 * self._most:
            return "you"
        return "all" if self._taken["*"] >= TOTAL else ""

    @contextlib.contextmanager
    def seat(self, where: Place) -> Iterator[None]:
        """Hold a seat meanwhile."""
        keys = {where.address, where.network, "*"}
        self._taken.update(keys)
        try:
            yield
        finally:
            self._taken.subtract(keys)
            self._taken += Counter()  # those at 0 are forgotten
