"""The documentation says what is so: commands, reactions, modules, links."""

from __future__ import annotations

import ast
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from bridge import commands
from bridge.commands import Commands
from bridge.commands.accounts import Accounts
from bridge.commands.acts import Acts
from bridge.commands.find import Finds
from bridge.commands.items import ItemActs
from bridge.commands.maps import Maps
from bridge.commands.rooms import RoomActs
from bridge.commands.start import Starts, read
from bridge.outward import FAILED, HELD, LEFT
from bridge.texts import Texts
from tests.unit.test_architecture import MODULES, TIERS, name

ROOT = Path(__file__).parents[2]
USING = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TOP = [ROOT / f"{each}.md" for each in ("README", "ARCHITECTURE", "CHANGELOG", "SECURITY")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
PARTS = sorted(
    {path.relative_to(ROOT / "bridge").parts[0] for path in MODULES if path.is_relative_to(ROOT / "bridge")}
    - {"__init__.py"}
)


def words() -> list[str]:
    """Every command of a bridge with each of our plugins."""
    nothing: Any = None
    say = Texts("en")
    ours = (each for each in entry_points(group="passerelle.plugins") if each.value.startswith("plugins."))
    connectors: dict[str, Any] = {each.name: each.load() for each in ours}  # their class says all
    acts = Acts(nothing, nothing, connectors, say)
    items = ItemActs(nothing, acts, connectors, say)
    finds, accounts = Finds(nothing, connectors, say), Accounts(acts, nothing, connectors, say)
    starts = Starts(nothing, nothing, connectors, say)
    maps = Maps(nothing, acts, nothing, connectors, say)
    rooms = RoomActs(nothing, acts, nothing, nothing, connectors, say)
    return Commands(nothing, acts, starts, items, finds, accounts, maps, rooms, nothing, say).words()


def defined() -> set[str]:
    """Names of all classes and functions; those of methods also with their class."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            if isinstance(node, ast.ClassDef):
                inner = [part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
                found.update(f"{node.name}.{each}" for each in inner)
        functions = re.findall(r"^(?:async )?def (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        found.update(f"{path.stem}.{each}" for each in functions)
    return found


# --- what people can type


@pytest.mark.parametrize("word", words())
def test_every_command_is_explained_to_people(word: str) -> None:
    assert re.search(rf"`!{word}\b", USING)


def test_no_command_is_explained_that_does_not_exist() -> None:
    assert set(re.findall(r"!([a-z][a-z-]*)\b", USING)) == set(words())


@pytest.mark.parametrize("key", [commands.SEND, commands.CANCEL, HELD, LEFT, FAILED])
def test_every_reaction_is_explained_to_people(key: str) -> None:
    assert key in USING


def test_every_mail_command_that_is_shown_is_understood_as_explained() -> None:
    lines = {line: read(line) for line in re.findall(r"`!mail ([^`]*(?:Subject))`", USING)}
    assert len(lines) >= 5
    assert {request.title for request in lines.values()} == {"Subject"}
    assert all("ann@partner.example" in request.recipients for request in lines.values())
    assert {request.history for request in lines.values()} == {"", "thread", "10"}
    assert {request.scope for request in lines.values()} == {"", "sales@company.example"}
    assert any("cc:" in request.recipients and len(request.recipients) == 4 for request in lines.values())
    french = read("de sales@company.example ann@partner.example avec historique Objet")
    assert (french.scope, french.history, french.title) == ("sales@company.example", "thread", "Objet")


# --- how it is made


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_bridge_has_its_place_in_the_architecture(part: str) -> None:
    table = ARCHITECTURE.partition("## Where things are")[2].partition("Imports point")[0]
    assert re.search(rf"`(bridge/)?{re.escape(part)}/?`", table)


def test_every_module_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`", ARCHITECTURE)
    assert len(named) > 20
    assert [each for each in named if not any((top / each).exists() for top in (ROOT, ROOT / "bridge"))] == []


def test_every_class_and_function_that_the_architecture_names_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Za-z]+(?:\.[a-z_]+)?|[a-z]+\.(?!py\b)[a-z_]+)`", ARCHITECTURE))
    assert len(named) > 12
    assert named - defined() == set()


def test_the_architecture_tells_the_order_of_imports_as_it_is() -> None:
    told = re.search(r"Imports point one way: `([^`]+)`", ARCHITECTURE)
    assert told
    tiers = [{f"bridge.{part.strip()}" for part in tier.split(",")} for tier in told[1].split("←")]
    assert tiers == TIERS
    assert {f"bridge.{part.removesuffix('.py')}" for part in PARTS} == set().union(*TIERS)
    assert {".".join(name(path).split(".")[:2]) for path in MODULES if name(path).startswith("bridge.")} == set().union(
        *TIERS
    )


# --- all pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [each for each in links if "://" not in each and not (page.parent / each).exists()] == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[^)]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        word for page in PAGES for word in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", page.read_text("utf-8"), re.M)
    }
    assert {one or other for one, other in named} <= targets
