"""What Prometheus can ask of a running bridge: how much waits and for how long, what was delivered, who answers.

Labels take few values: destinations, connectors, states, outcomes, routes; never an address, a room or an id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

FRESH = 5.0  # seconds for which the same look at the database will do

# From a moment to half a day: an outward message waits for its hold, a lane for a server that is down.
_DELIVERY = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200)
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

OUTCOMES = ("delivered", "deferred", "rejected", "failed", "dead")

# What became of an attempt at a delivery that was written down at a time: one of OUTCOMES.
Outcome = Callable[[str, float], None]


def uncounted(outcome: str, written: float) -> None:
    """Where nobody asks."""


@dataclass(frozen=True)
class Figures:
    """How the bridge stands at this moment. `queue`: by destination and state, how many rows and since when."""

    queue: Mapping[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    connectors: Mapping[str, bool] = field(default_factory=dict)  # by name: whether it works
    homeserver: bool = False
    rooms: int = 0
    behind: int = 0


class Metrics:
    """The figures of one bridge. What happens is counted as it does; how things stand is asked for at each scrape."""

    def __init__(self, version: str) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._deliveries = Counter(
            "passerelle_deliveries",
            "Attempts at deliveries, by what became of them; dead: given up",
            ["destination", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "passerelle_delivery_seconds",
            "From the commit that asked for it (a hold counts) to the other side's yes",
            ["destination"],
            buckets=_DELIVERY,
            registry=registry,
        )
        self._arrivals = Counter(
            "passerelle_arrivals", "What came and was written down", ["connector"], registry=registry
        )
        self._requests = Histogram(
            "passerelle_request_seconds",
            "Requests to us: transactions of the homeserver, webhooks of tools",
            ["route", "status"],
            buckets=_QUICK,
            registry=registry,
        )
        self.commit = Histogram(
            "passerelle_commit_seconds",
            "Commits to the database, with the rules that were committed together",
            buckets=_QUICK,
            registry=registry,
        ).observe
        Gauge("passerelle_build_info", "The version", ["version"], registry=registry).labels(version).set(1)
        self._now = _Now()
        registry.register(self._now)

    def line(self, destination: str) -> Outcome:
        """What counts the deliveries to one destination."""
        counts = {each: self._deliveries.labels(destination, each) for each in OUTCOMES}
        seconds = self._seconds.labels(destination)

        def count(outcome: str, written: float) -> None:
            counts[outcome].inc()
            if outcome == "delivered":
                seconds.observe(max(0.0, time.time() - written))

        return count

    def arrivals(self, connector: str) -> Callable[[], None]:
        """What counts the arrivals from one connector."""
        return self._arrivals.labels(connector).inc

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, f"{status // 100}xx").observe(seconds)

    def shown(self, figures: Figures, accept: str = "") -> tuple[bytes, str]:
        """Everything, in a format that `accept` takes, and the name of that format."""
        encode, content_type = choose_encoder(accept)
        self._now.figures = figures
        return encode(self.registry), content_type


class _Now:
    """Collects how things stand: nothing is left of a destination that has gone."""

    def __init__(self) -> None:
        self.figures = Figures()

    def collect(self) -> Iterator[Metric]:
        now, at = self.figures, time.time()
        rows = GaugeMetricFamily(
            "passerelle_queue_rows",
            "Deliveries in the database (asked, held, paused: drafts of people; dead: dead letters)",
            labels=["destination", "state"],
        )
        oldest = GaugeMetricFamily(
            "passerelle_queue_oldest_seconds",
            "Age of the oldest delivery that is ready to be delivered",
            labels=["destination"],
        )
        for (destination, state), (count, since) in sorted(now.queue.items()):
            rows.add_metric([destination, state], count)
            if state == "ready" and count:
                oldest.add_metric([destination], max(0.0, at - since))
        connectors = GaugeMetricFamily(
            "passerelle_connector_up", "Whether the connector listens and its tool answers", labels=["connector"]
        )
        for name, works in sorted(now.connectors.items()):
            connectors.add_metric([name], works)
        yield from (rows, oldest, connectors)
        yield GaugeMetricFamily("passerelle_homeserver_up", "Whether the homeserver answers", now.homeserver)
        yield GaugeMetricFamily("passerelle_rooms", "Rooms that are mapped", now.rooms)
        yield GaugeMetricFamily("passerelle_rooms_behind", "Rooms of them not read up to now", now.behind)

    describe = collect


class Asked(Protocol):
    """What a scrape asks of the bridge."""

    metrics: Metrics

    async def figures(self) -> Figures:
        """How it stands; raises `OSError`, `store.Error`."""


def pages(bridge: Asked) -> web.Application:
    """GET /metrics, for a listener of its own: it tells how much a company writes."""
    looked, last = 0.0, Figures()

    async def metrics(request: web.Request) -> web.Response:
        nonlocal looked, last
        if time.monotonic() - looked > FRESH or not looked:
            last, looked = await bridge.figures(), time.monotonic()
        body, content_type = bridge.metrics.shown(last, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


def timed(metrics: Metrics) -> Middleware:
    """A middleware that measures requests by route; what no route takes is "other"."""

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        began, status = time.perf_counter(), 500
        try:
            answer = await handler(request)
            status = answer.status
            return answer
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            resource = request.match_info.route.resource
            route = resource.canonical if resource else "other"
            metrics.request(route, status, time.perf_counter() - began)

    return measure
