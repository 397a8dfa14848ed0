"""`python -m tests.bench`: how fast the bridge is, at what price, and how late. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import inbound, outward, quiet, real, report, webhooks
from tests.bench.report import Cell
from tests.peers import ROOT

FOLDER = ROOT / ".work" / "bench"  # not in a temporary folder, which may be memory: commits go to a disk here
KEPT, NEW = 100, 1  # mails on one SMTP connection, as relays keep one; or a connection for each

LOOKS = 5  # at a tool where nothing happens
QUIET = (
    ("tasks on CalDAV (Radicale), asked by sync-token", quiet.Tasks),
    ("files on WebDAV (WsgiDAV), a hundred in a folder, all looked at", quiet.Documents),
)

Measure = Callable[[], Awaitable[dict[str, Any]]]


@dataclass
class Size:
    """How much is done."""

    rounds: int = 3
    mails: int = 2000
    replies: int = 400
    known: int = 1_000_000
    queued: int = 50_000
    few: int = 90  # events with one request in flight on a real homeserver
    many: int = 240  # with eight
    items: int = 100  # that webhooks are about, with ten events each
    quiet: int = 10_000  # items that are followed and do not change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one round of everything, smaller; the page stays as it is"
    )
    parser.add_argument("--rounds", type=int, help="how often each cell is measured (3)")
    parser.add_argument("--only", default="", help="cells whose name contains this; the page stays as it is")
    parser.add_argument("--real", action="store_true", help="only on a real Synapse; writes that table of the page")
    asked = parser.parse_args()
    size = Size(1, 500, 100, 50_000, 5_000, 20, 60, 50, 500) if asked.quick else Size()
    size.rounds = asked.rounds or size.rounds
    shutil.rmtree(FOLDER, ignore_errors=True)
    machine = report.machine(FOLDER)
    cells = [] if asked.real else asyncio.run(run(size, asked.only))
    on_synapse = [] if asked.only else asyncio.run(real.measure(FOLDER / "real", size.rounds, size.few, size.many))
    for cell in (*cells, *on_synapse):
        print("\n".join(cell.lines()), flush=True)
    if not asked.quick:
        _written(cells, on_synapse, machine, size.rounds, asked.only)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _written(cells: list[Cell], on_synapse: list[Cell], machine: str, rounds: int, only: str) -> None:
    for columns, marks in (
        (report.COLUMNS, report.MAIL),
        (webhooks.COLUMNS, report.HOOKS),
        (quiet.COLUMNS, report.QUIET),
    ):
        if (some := [cell for cell in cells if cell.columns is columns]) and not only:
            report.write(some, machine, len(some[0].runs), marks)
    if on_synapse:
        report.write(on_synapse, machine, rounds, report.ON_SYNAPSE)


async def run(size: Size, only: str = "") -> list[Cell]:
    """Every cell, one after the other, round after round, so that a slow minute of the machine hits all of them."""
    cells = [(cell, measure) for cell, measure in planned(size, FOLDER) if only in cell.name]
    for number in range(size.rounds):
        for cell, measure in cells:
            if number and cell.once:
                continue
            print(f"round {number + 1} of {size.rounds}: {cell.name}", file=sys.stderr, flush=True)
            cell.runs.append(await measure())
    return [cell for cell, _ in cells]


def planned(size: Size, folder: Path) -> list[tuple[Cell, Measure]]:
    """What is measured, and what is wanted."""
    found = [
        _mails(
            size, folder, connections, kept, {"per_second": (">=", wanted), "cpu_ms": ("<=", 2), "requests": ("<=", 1)}
        )
        for connections, kept, wanted in ((1, KEPT, 350), (8, KEPT, 480), (1, NEW, 350), (8, NEW, 480))
    ]
    few = Cell("mail in, 8 connections, 1,000 messages known")
    found.append((few, lambda: inbound.seeded(folder, size.mails, 8, KEPT, 1000, 0)))
    for known, queued, name in (
        (size.known, 0, f"{size.known:,} messages known"),
        (1000, size.queued, f"1,000 messages known and {size.queued:,} rows queued"),
    ):
        found.append(_beside(few, size, folder, known, queued, name))
    replies = Cell("answers out of threads, nothing held")
    found.append((replies, lambda: outward.replies(folder / "outward", size.replies)))
    return [*found, _webhooks(size, folder), *(_quiet(size, folder, *each) for each in QUIET)]


def _webhooks(size: Size, folder: Path) -> tuple[Cell, Measure]:
    """Webhooks in, right after the same webhooks to a server that only commits them."""
    events = 10
    goals: dict[str, tuple[str, float]] = {"disorder": ("<=", 0)}
    cell = Cell(
        f"{size.items * events:,} webhooks about {size.items} items, 8 connections", goals, [], webhooks.COLUMNS
    )

    async def measure() -> dict[str, Any]:
        alone = await webhooks.nothing(folder / "keeper", size.items, events, 8)
        found = await webhooks.fresh(folder / "webhooks", size.items, events, 8)
        ratio = found["per_second"] / alone["per_second"]
        return found | {"alone": alone["per_second"], "ratio": ratio, "alone_cpu_ms": alone["cpu_ms"]}

    return cell, measure


def _quiet(size: Size, folder: Path, what: str, kind: type[quiet.Tool]) -> tuple[Cell, Measure]:
    count = size.quiet // kind.slower
    cell = Cell(f"{count:,} {what}", {}, [], quiet.COLUMNS, once=True)
    return cell, lambda: quiet.items(kind, folder / kind.name, count, LOOKS)


def _mails(
    size: Size, folder: Path, connections: int, kept: int, goals: dict[str, tuple[str, float]]
) -> tuple[Cell, Measure]:
    """Mails in, right after the same mails to a server that does nothing."""
    each = "connection" if connections == 1 else "connections"
    cell = Cell(f"mail in, {connections} {each}{'' if kept > 1 else ', a new one for each mail'}", goals)

    async def measure() -> dict[str, Any]:
        alone = await inbound.nothing(folder / "nothing", size.mails, connections, kept)
        found = await inbound.fresh(folder / "inbound", size.mails, connections, kept)
        ratio = found["per_second"] / alone["per_second"]
        return found | {"alone": alone["per_second"], "ratio": ratio, "alone_cpu_ms": alone["cpu_ms"]}

    return cell, measure


def _beside(few: Cell, size: Size, folder: Path, known: int, queued: int, name: str) -> tuple[Cell, Measure]:
    """The same with a full database; wanted is at most 10% more CPU than `few` took in the same round."""
    cell = Cell(f"mail in, 8 connections, {name}")

    async def measure() -> dict[str, Any]:
        found = await inbound.seeded(folder, size.mails, 8, KEPT, known, queued)
        before = few.runs[-1] if few.runs else found
        cell.goals = {"cpu_ms": ("<=", round(1.1 * few.figures()["cpu_ms"], 2))} if few.runs else {}
        cell.goals |= {"per_second": (">=", round(0.9 * before["per_second"]))} if few.runs else {}
        return found

    return cell, measure


if __name__ == "__main__":
    main()
