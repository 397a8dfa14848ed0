"""What goes with the bridge to a server: the systemd unit, the container file, alert rules, the dashboard."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bridge.cli import _parser
from bridge.watch.metrics import OUTCOMES, Figures, Metrics
from tests.peers import ROOT

CONFIG = ROOT / "config"
UNIT = CONFIG / "passerelle.service"
CONTAINER = (CONFIG / "Containerfile").read_text(encoding="utf-8")
RULES = yaml.safe_load((CONFIG / "prometheus-alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
BOARD = json.loads((CONFIG / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = [rule["expr"] for rule in RULES]
PANELS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
PROMQL = {
    "sum", "by", "rate", "histogram_quantile", "changes", "vector", "or", "le", "up", "job", "instance", "label_values",
}  # fmt: skip


def served() -> dict[str, set[str]]:
    """Every metric that a bridge serves, and its labels."""
    figures = Metrics("1")
    figures.line("matrix")("delivered", 0.0)
    figures.arrivals("desk")()
    figures.request("/hooks/{name}", 200, 0.1)
    now = Figures({("matrix", "ready"): (1, 0.0)}, {"desk": True}, True, 1, 0)
    text = figures.shown(now)[0].decode()
    return {sample.name: set(sample.labels) for each in text_string_to_metric_families(text) for sample in each.samples}


# --- alert rules and dashboard


@pytest.mark.parametrize("expression", [*ALERTS, *PANELS])
def test_an_expression_asks_for_what_exists_only(expression: str) -> None:
    known = served()
    names = set(re.findall(r"[a-z_]+(?=[{\[]| ==| >|\)|$)", expression)) - PROMQL
    named = {each for each in names if each.startswith(("passerelle_", "process_"))}
    assert named or expression.startswith("up{")
    assert named <= set(known)
    for name, selectors, group in re.findall(r"([a-z_]+)\{([^}]*)\}()", expression):
        labels = set(re.findall(r"(\w+)[=!]", selectors)) - {"job", "instance"}
        assert labels <= known.get(name, set()), (name, selectors, group)
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", group)) <= set().union(*(known[name] for name in named))
    assert expression.count("(") == expression.count(")")
    assert set(re.findall(r'outcome="(\w+)"', expression)) <= set(OUTCOMES)
    assert set(re.findall(r'state!?="(\w+)"', expression)) <= {"ready", "dead"}


def test_every_figure_of_ours_is_on_the_dashboard() -> None:
    shown = " ".join(PANELS)
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in served()}
    assert [each for each in sorted(families) if each.startswith("passerelle_") and each not in shown] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_how_bad_it_is(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert re.fullmatch(r"\d+m", rule.get("for", "1m"))
    known = set().union(*served().values())
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= known


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


# --- systemd


def unit() -> dict[str, list[str]]:
    """Settings of the unit's [Service], every value of each."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        section = line if line.startswith("[") else section
        if section == "[Service]" and re.match(r"[A-Z]\w+=", line):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.debian("systemd", "systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """The programs need not be where it says: another stands for them here."""
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"/opt/passerelle/bin/passerelle|/bin/kill", sys.executable, UNIT.read_text()))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.debian("systemd", "systemd-analyze")
def test_the_unit_may_do_little() -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", UNIT]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout[-2000:]


def test_the_unit_starts_what_the_command_line_knows_and_writes_into_its_own_folder_only() -> None:
    settings = unit()
    (start,) = settings["ExecStart"]
    options = _parser().parse_args(start.split()[1:])
    assert str(options.config) == "/etc/passerelle/passerelle.yaml"
    assert (settings["Type"], settings["Restart"]) == (["notify"], ["always"])
    assert (settings["ProtectSystem"], settings["StateDirectory"]) == (["strict"], ["passerelle"])
    assert "ReadWritePaths" not in settings
    assert settings["CapabilityBoundingSet"] == [""]


def test_the_bridge_runs_where_memory_is_never_both_writable_and_executable() -> None:
    """MemoryDenyWriteExecute= of the unit; here by PR_SET_MDWE of prctl(2), where the kernel knows it (6.3)."""
    assert unit()["MemoryDenyWriteExecute"] == ["yes"]
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)\n"
        "import asyncio, uvloop, plugins.mail, plugins.roundup\n"
        "from bridge.cli import main\n"
        "uvloop.run(asyncio.sleep(0)); sys.argv[1:] = ['--version']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- container


def instructions() -> Iterator[tuple[str, str]]:
    """(instruction, what it says) of the container file, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", CONTAINER)
    for line in joined.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


def test_everything_that_goes_into_the_container_exists_and_is_let_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    sources = {
        each for word, rest in instructions() if word == "COPY" and "--from=" not in rest for each in rest.split()[:-1]
    }
    assert sources == let_in
    assert [each for each in sources if not (ROOT / each).exists()] == []
    assert (ROOT / ".containerignore").read_text() == (ROOT / ".dockerignore").read_text()


def test_the_container_is_nobody_special_keeps_its_data_and_starts_the_bridge() -> None:
    found = list(instructions())
    last = len(found) - [word for word, _ in reversed(found)].index("FROM") - 1
    said = dict(found[last:])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said["USER"])
    assert said["VOLUME"] == said["WORKDIR"] == "/var/lib/passerelle"
    assert json.loads(said["ENTRYPOINT"]) == ["passerelle"]
    assert str(_parser().parse_args(json.loads(said["CMD"])).config) == "/etc/passerelle/passerelle.yaml"
    check = json.loads(said["HEALTHCHECK"].partition("CMD ")[2])
    assert "/live" in check[2]
    ast.parse(check[2])
    stages = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert set(stages) == {"docker.io/library/python:3.12-slim"}


def test_the_container_gets_the_packages_of_the_lock_and_checks_their_hashes() -> None:
    install = next(rest for word, rest in instructions() if word == "RUN" and "requirements-run.lock" in rest)
    assert "--require-hashes" in install
    run, everything = (pins(ROOT / f"requirements{each}.lock") for each in ("-run", ""))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[^\w-]", each)[0].lower() for each in wanted} <= {pin.partition("==")[0] for pin in run}
    assert run <= everything
    assert not any(pin.startswith(("matrix-synapse==", "pytest==")) for pin in run)


def pins(lock: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+==\S+)", lock.read_text(), re.MULTILINE))
