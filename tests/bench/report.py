"""The figures of a run: a JSON line each, and the table in docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.peers import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
MAIL = "<!-- figures: written by make bench -->", "<!-- end of the figures -->"
HOOKS = "<!-- figures of webhooks: written by make bench -->", "<!-- end of the figures of webhooks -->"
QUIET = "<!-- figures of polling: written by make bench -->", "<!-- end of the figures of polling -->"
ON_SYNAPSE = "<!-- figures on Synapse: written by make bench -->", "<!-- end of the figures on Synapse -->"
COLUMNS = {
    "per_second": "a second",
    "alone": "aiosmtpd alone, a second",
    "ratio": "ratio",
    "cpu_ms": "CPU ms each",
    "alone_cpu_ms": "aiosmtpd alone, CPU ms",
    "requests": "homeserver requests each",
    "p50_ms": "p50 ms late",
    "p99_ms": "p99 ms late",
    "memory_mb": "MB",
}


@dataclass
class Cell:
    """One line of the table: what was done, what each run of it gave, what is wanted."""

    name: str
    goals: Mapping[str, tuple[str, float]] = field(default_factory=dict)  # figure: (">=" or "<=", value)
    runs: list[Mapping[str, float]] = field(default_factory=list)
    columns: Mapping[str, str] = field(default_factory=lambda: COLUMNS)
    once: bool = False  # what takes long is measured in the first round only

    def figures(self) -> dict[str, float]:
        """The median of every figure."""
        names = [name for name in self.columns if self.runs and name in self.runs[0]]
        return {name: statistics.median(run[name] for run in self.runs) for name in names}

    def met(self, name: str) -> bool | None:
        """Whether the goal for a figure is met; None when it has none."""
        if name not in self.goals or name not in self.figures():
            return None
        kind, wanted = self.goals[name]
        value = self.figures()[name]
        return value >= wanted if kind == ">=" else value <= wanted

    def lines(self) -> list[str]:
        """A JSON line for every figure."""
        found = []
        for name, value in self.figures().items():
            line = {"cell": self.name, "figure": name, "median": _rounded(value)}
            line["runs"] = [_rounded(run[name]) for run in self.runs]
            if name in self.goals:
                line |= {"goal": " ".join(map(str, self.goals[name])), "met": self.met(name)}
            found.append(json.dumps(line))
        return found

    def row(self) -> str:
        figures = self.figures()
        return " | ".join(["", self.name, *(self._shown(name, figures.get(name)) for name in self.columns), ""]).strip()

    def _shown(self, name: str, value: float | None) -> str:
        if value is None:
            return ""
        if name not in self.goals:
            return f"{_rounded(value):g}"
        kind, wanted = self.goals[name]
        return f"**{_rounded(value):g}** ({'' if self.met(name) else 'not '}{kind} {wanted:g})"


def _rounded(value: float) -> float:
    return round(value) if value >= 100 else round(value, 2)


def machine(folder: Path) -> str:
    """What the figures were measured on."""
    cores = psutil.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; a synchronous write of 4 kB to its disk "
        f"takes {_settling(folder):.2f} ms; load average before the run {load:.1f}"
    )


def _settling(folder: Path) -> float:
    """Milliseconds of one small durable write, as a commit makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def write(cells: Sequence[Cell], machine: str, rounds: int, marks: tuple[str, str]) -> None:
    """Put the table into the page, between its marks; all cells have the same columns."""
    head = ["what", *cells[0].columns.values()]
    table = [
        f"Measured {machine}. {f'Medians of {rounds} runs' if rounds > 1 else 'One run'}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *(cell.row() for cell in cells if cell.runs),
    ]
    begin, end = marks
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    text = "\n".join([*table, ""])
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
