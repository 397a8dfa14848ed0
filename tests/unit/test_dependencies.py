"""What the bridge depends on may be used and changed by whoever uses the bridge: nothing of it is GPL."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE))
STRICT = re.compile(r"\b(A?GPL|(Affero )?General Public License)", re.IGNORECASE)
LESSER = re.compile(r"\bLGPL|(Lesser|Library) General Public License", re.IGNORECASE)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed() -> list[str]:
    """What a bridge needs when it runs, and what that needs, and so on."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        wanted = waiting.pop()
        extras = wanted.extras or {""}
        if canonical(wanted.name) in found or not _applies(wanted, {""}):
            continue
        found.add(canonical(wanted.name))
        inner = [Requirement(line) for line in distribution(wanted.name).requires or ()]
        waiting += [each for each in inner if _applies(each, extras)]
    return sorted(found)


def _applies(wanted: Requirement, extras: set[str]) -> bool:
    return wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras)


def licence(name: str) -> str:
    """What its metadata says of its licence; where they say nothing, how the licence itself begins."""
    said = distribution(name).metadata
    classifiers = [line for line in said.get_all("Classifier", []) if line.startswith("License ::")]
    told = [said.get("License-Expression") or "", (said.get("License") or "").split("\n")[0], *classifiers]
    if not any(told):
        files = [each for each in distribution(name).files or () if re.search("COPYING|LICEN[CS]E", each.name)]
        told = [file.read_text()[:500] for file in files]
    return " | ".join(told)


def is_gpl(text: str) -> bool:
    """GPL or AGPL; a choice that has something else in it is none."""
    choices = re.split(r"\bOR\b", text.partition(" | ")[0]) if " OR " in text else [text]
    return all(STRICT.search(LESSER.sub("", each)) for each in choices)


@pytest.mark.parametrize("name", needed())
def test_no_dependency_of_a_running_bridge_is_gpl(name: str) -> None:
    said = licence(name)
    assert said.strip(" |"), f"{name} does not say under which licence it is"
    assert not is_gpl(said), f"{name}: {said}"


@pytest.mark.parametrize("name", needed())
def test_every_dependency_of_a_running_bridge_is_locked(name: str) -> None:
    assert name in LOCKED


def test_gpl_is_known_when_it_is_met() -> None:
    for text in (
        "GPL-3.0-or-later",
        "AGPL-3.0-only",
        "License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
    ):
        assert is_gpl(text)
    for text in (
        "LGPL-3.0",
        "MIT OR GPL-2.0",
        "GNU Lesser General Public License v3 (LGPLv3)",
        "MPL 2.0",
        "Apache-2.0",
    ):
        assert not is_gpl(text)
    with pytest.raises(PackageNotFoundError):
        distribution("there-is-no-such-package")
