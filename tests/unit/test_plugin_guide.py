"""The plugin author's guide is true: its files are written out, its plugin is installed, and its tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.peers import ROOT

GUIDE = ROOT / "docs" / "plugins.md"
BLOCK = re.compile(r"^```(?P<kind>\w*) ?(?P<file>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BRIDGE = ROOT / "config" / "passerelle.yaml"


def blocks() -> list[re.Match[str]]:
    return list(BLOCK.finditer(GUIDE.read_text(encoding="utf-8")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has who copied every block into its file; installed, as far as entry points go."""
    for block in blocks():
        with (tmp_path / block["file"]).open("a", encoding="utf-8") as file:
            file.write(block["text"] if block["kind"] != "python" else f"\n{block['text']}")
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    installed = tmp_path / f"passerelle_jobs-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {place}" for name, place in points.items())
        for group, points in project["entry-points"].items()
    ]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def run(folder: Path, *command: str) -> str:
    """Run Python there as the reader would; its output. Raises when it fails."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def test_every_block_belongs_to_a_file_that_is_used() -> None:
    files = {"jobs.py", "passerelle_jobs.py", "test_jobs.py", "pyproject.toml", "README.md", "connectors.yaml"}
    assert {block["file"] for block in blocks()} == files


def test_the_guides_plugin_passes_the_contract(folder: Path) -> None:
    """As its reader runs it, but for troubles that look alike: all of them are in tests/contract/test_kit.py."""
    some = ("-k", "not slow and not 401 and not 403 and not 502 and not 503")
    strict = ("-p", "no:cacheprovider", "-W", "error::pytest.PytestCollectionWarning")
    said = run(folder, "-m", "pytest", "-q", *strict, *some)
    passed = re.search(r"(\d+) passed", said)
    assert passed
    assert int(passed[1]) > 60
    assert "skipped" not in said


def test_the_guides_configuration_loads_with_the_plugin_from_its_entry_point(folder: Path) -> None:
    theirs = yaml.safe_load((folder / "connectors.yaml").read_text())
    settings = yaml.safe_load(BRIDGE.read_text()) | theirs
    for section in ("as_token", "hs_token"):
        settings["appservice"][section] = "x"
    (folder / "passerelle.yaml").write_text(yaml.safe_dump(settings))
    code = (
        "from pathlib import Path; from bridge.config import load;"
        "kind, config = load(Path('passerelle.yaml'), {'JOBS_TOKEN': 'a', 'JOBS_SECRET': 'b'})[1]['workshop'];"
        "print(kind.__module__, config.queues, config)"
    )
    assert run(folder, "-c", code).startswith("passerelle_jobs ('repairs',)")
