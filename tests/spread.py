"""How the tests are spread over the processes of a run (pytest -n): who takes which, and the work all of them need.

The long ones begin first, and what uses the same server stays together: a server that starts slowly starts once.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
from pathlib import PurePath

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.peers import ROOT

FIRST = ("tests/crash/", "tests/integration/", "tests/contract/", "tests/unit/test_plugin_guide.py", "tests/e2e/")
LONG = ("tests/crash/", "tests/e2e/")  # and each needs no more than what every process has


class Together(LoadScopeScheduling):
    """Gives out a module at a time, with its namesakes (the contract's tests and the integration's of a plugin)."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(LONG) else PurePath(nodeid.partition("::")[0]).name


def order(item: pytest.Item) -> int:
    """For sorting."""
    return next((place for place, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))


def compile_share(worker: int, workers: int) -> None:
    """Import every so-many-th module of tests: pytest rewrites it, and the other processes find that done."""
    for path in sorted((ROOT / "tests").rglob("test_*.py"))[worker::workers]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # collecting it will say what is wrong
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def compile_synapse() -> None:
    """What takes longest; meanwhile the tests are collected."""
    subprocess.Popen([sys.executable, "-c", "import synapse.app.homeserver"])
