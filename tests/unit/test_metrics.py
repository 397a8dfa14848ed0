"""What Prometheus can ask: figures that are right, cheap to ask for, and name nobody."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from bridge.model import Deferred, Rejected, Unavailable
from bridge.queue import Line, Queue
from bridge.store import Store, Tx, opened
from bridge.watch import metrics, pulse
from bridge.watch.metrics import OUTCOMES, Figures, Metrics, pages, timed
from bridge.watch.pulse import Pulse
from tests.unit.test_queue import QUICK, Bench, Place

Samples = dict[tuple[str, ...], float]


def samples(figures: Metrics, standing: Figures | None = None) -> Samples:
    """Every figure by its name and the values of its labels."""
    text, _ = figures.shown(standing or Figures())
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
    }


def outcomes(figures: Metrics) -> dict[str, float]:
    return {
        key[2]: value for key, value in samples(figures).items() if key[0] == "passerelle_deliveries_total" and value
    }


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as memory:
        yield memory


# --- deliveries


async def counted(store: Store, answers: dict[str, list[Exception]], careful: bool = False) -> Metrics:
    """The figures after these payloads were delivered, each with these answers first."""
    figures, bench = Metrics("1.2"), Bench(store, Place(careful=careful))
    bench.place.answers = answers
    bench.line = Line(store, bench.place, QUICK, bench.place.changed, figures.line(bench.place.name))
    bench.queue = Queue([bench.line], store)
    async with bench.running():
        for number, each in enumerate(answers):
            await bench.add(each, lane=str(number))
        await bench.crossed_out()
    return figures


async def test_each_attempt_is_counted_by_what_became_of_it(store: Store) -> None:
    answers: dict[str, list[Exception]] = {
        "yes": [],
        "later": [Deferred("busy"), Deferred("busy")],
        "no": [Rejected("550")],
        "down": [Unavailable("refused")],
        "odd": [ValueError("?")],
    }
    found = outcomes(await counted(store, answers))
    assert found == {"delivered": 4, "deferred": 2, "rejected": 1, "dead": 1, "failed": 2}
    assert set(found) == set(OUTCOMES)


async def test_latency_is_counted_from_the_commit_to_the_yes(store: Store) -> None:
    figures = await counted(store, {"a": [], "b": [Rejected("no")]})
    found = samples(figures)
    assert found["passerelle_delivery_seconds_count", "place"] == 1
    assert 0 < found["passerelle_delivery_seconds_sum", "place"] < 5


async def test_commits_are_timed(store: Store) -> None:
    figures = Metrics("1")
    store.time_commits(figures.commit)
    await store.transact(lambda tx: time.sleep(0.02))
    found = samples(figures)
    assert found[("passerelle_commit_seconds_count",)] == 1
    assert found[("passerelle_commit_seconds_sum",)] >= 0.02


# --- how things stand


async def test_the_queue_is_counted_by_destination_and_state_and_its_oldest_by_destination(store: Store) -> None:
    def fill(tx: Tx) -> None:
        for number in range(5):
            tx.queue.add(f"a{number}", "matrix", "post", "{}")
        tx.queue.bury(tx.queue.add("b", "matrix", "post", "{}"), "no")
        tx.queue.add_draft("desk:1", "desk", "{}", 1, "@a:b", "$1", "$1")

    await store.transact(fill)
    await asyncio.sleep(0.02)
    figures = Figures(await store.transact(lambda tx: tx.queue.figures()), {"desk": False, "post": True}, True, 3, 1)
    found = samples(Metrics("1"), figures)
    assert found["passerelle_queue_rows", "matrix", "ready"] == 5
    assert found["passerelle_queue_rows", "matrix", "dead"] == 1
    assert found["passerelle_queue_rows", "desk", "asked"] == 1
    assert 0.02 <= found["passerelle_queue_oldest_seconds", "matrix"] < 5
    assert ("passerelle_queue_oldest_seconds", "desk") not in found
    assert (found["passerelle_connector_up", "desk"], found["passerelle_connector_up", "post"]) == (0, 1)
    assert [found[f"passerelle_{each}",] for each in ("homeserver_up", "rooms", "rooms_behind")] == [1, 3, 1]


async def test_a_scrape_reads_no_row_of_the_queue_but_an_index_of_it(store: Store) -> None:
    """50,000 rows with what they carry would be read from the disk otherwise."""
    asked: list[str] = []

    def plan(tx: Tx) -> list[str]:
        tx.db.set_trace_callback(asked.append)
        tx.queue.figures()
        tx.db.set_trace_callback(None)
        return [row[3] for row in tx.db.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]

    assert await store.transact(plan) == ["SCAN queue USING COVERING INDEX queue_figures"]


class Asked:
    """Counts how often a scrape looks at the database."""

    def __init__(self) -> None:
        self.metrics = Metrics("1.2")
        self.looks = 0

    async def figures(self) -> Figures:
        self.looks += 1
        return Figures({("matrix", "ready"): (self.looks, 0.0)})


async def test_many_who_ask_cost_one_look_at_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Asked()
    async with TestClient(TestServer(pages(bridge))) as client:
        for _ in range(3):
            async with client.get("/metrics") as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert 'passerelle_queue_rows{destination="matrix",state="ready"} 1.0' in await answer.text()
        monkeypatch.setattr(metrics, "FRESH", 0.0)
        async with client.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
            assert "openmetrics" in answer.headers["Content-Type"]
            assert (await answer.text()).endswith("# EOF\n")
    assert bridge.looks == 2


# --- labels


async def test_requests_are_told_by_route_never_by_what_was_asked() -> None:
    figures = Metrics("1")

    async def hook(request: web.Request) -> web.Response:
        if request.match_info["name"] == "broken":
            raise RuntimeError
        raise web.HTTPForbidden if request.match_info["name"] == "forged" else web.HTTPOk

    app = web.Application(middlewares=[timed(figures)])
    app.router.add_post("/hooks/{name}", hook)
    async with TestClient(TestServer(app)) as client:
        for path in ("/hooks/desk", "/hooks/other", "/hooks/forged", "/hooks/broken", "/a", "/b/c", "/hooks/a/b"):
            await client.post(path)
    counts = {key[1:]: value for key, value in samples(figures).items() if key[0] == "passerelle_request_seconds_count"}
    assert counts == {
        ("/hooks/{name}", "2xx"): 2, ("/hooks/{name}", "4xx"): 1, ("/hooks/{name}", "5xx"): 1, ("other", "4xx"): 3,
    }  # fmt: skip


def test_two_bridges_in_one_process_count_apart() -> None:
    one, other = Metrics("1"), Metrics("2")
    one.arrivals("desk")()
    other.arrivals("desk")
    assert samples(one)["passerelle_arrivals_total", "desk"] == 1
    assert samples(other)["passerelle_arrivals_total", "desk"] == 0
    assert samples(other)["passerelle_build_info", "2"] == 1


def test_names_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/: one prefix, base units, counters end in _total."""
    text = Metrics("1").shown(Figures())[0].decode()
    own = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(own) > 12
    for name, kind in own:
        if name.startswith(("process_", "python_")) or name.endswith("_created"):
            continue
        assert name.startswith("passerelle_")
        assert (kind == "counter") == name.endswith("_total")
        assert kind != "histogram" or name.endswith("_seconds")


# --- whether the process lives


async def test_a_database_that_answers_is_a_pulse(store: Store) -> None:
    assert await Pulse(store).alive()


async def test_a_database_that_hangs_is_noticed_by_all_who_ask_and_so_is_its_return(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "LONGEST", 0.05)
    hangs, beats = threading.Event(), Pulse(store)
    stuck = asyncio.create_task(store.transact(lambda tx: hangs.wait(10)))
    await asyncio.sleep(0)
    began = time.monotonic()
    assert await asyncio.gather(*(beats.alive() for _ in range(200))) == [False] * 200
    assert time.monotonic() - began < 5  # not one after the other
    hangs.set()
    await stuck
    monkeypatch.setattr(pulse, "FRESH", 0.0)
    assert await beats.alive()
