"""The shape of the house: imports point one way, SQL and mautrix stay where they belong, modules stay short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for top in ("bridge", "plugins") for path in (ROOT / top).rglob("*.py"))

# Each part may import the parts before it, and its own.
TIERS = [
    {"bridge.text"},
    {"bridge.model"},
    {"bridge.clients", "bridge.connector", "bridge.texts"},
    {"bridge.config", "bridge.http", "bridge.openweb", "bridge.payload", "bridge.store"},
    {"bridge.choice", "bridge.places", "bridge.present", "bridge.lanes", "bridge.permissions", "bridge.watch"}
    | {"bridge.listing"},
    {"bridge.items", "bridge.audience"},
    {"bridge.outward", "bridge.queue", "bridge.restored", "bridge.moving"},
    {"bridge.hub", "bridge.matrix", "bridge.commands"},
    {"bridge.arrivals", "bridge.hearing", "bridge.departures", "bridge.holds", "bridge.polling", "bridge.port"}
    | {"bridge.finding"},
    {"bridge.rules", "bridge.heard"},
    {"bridge.admin"},
    {"bridge.web", "bridge.app", "bridge.doctor", "bridge.succession", "bridge.testing"},
    {"bridge.cli", "bridge.__main__"},
]
FOR_PLUGINS = {"bridge.connector", "bridge.model", "bridge.text"}
SQL = re.compile(r"\b(SELECT .* FROM|INSERT (OR \w+ )?INTO|UPDATE \w+ SET|DELETE FROM)\b")


def name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Names of the modules a file imports, type-checking imports left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tier(module: str) -> int | None:
    return next((i for i, parts in enumerate(TIERS) if part(module) in parts), None)


def part(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    here = tier(name(path))
    for module in imported(path):
        there = tier(module)
        if here is None or there is None or part(module) == part(name(path)):
            continue
        assert there <= here, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", [path for path in MODULES if name(path).startswith("plugins.")], ids=name)
def test_plugins_see_only_the_contract(path: Path) -> None:
    for module in imported(path):
        if module.startswith("bridge"):
            assert part(module) in FOR_PLUGINS, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", [path for path in MODULES if name(path).startswith("bridge")], ids=name)
def test_the_hub_knows_no_plugin_and_only_matrix_knows_mautrix_and_only_the_store_writes_sql(path: Path) -> None:
    assert not [module for module in imported(path) if module.startswith("plugins")]
    if part(name(path)) != "bridge.matrix":
        assert not [module for module in imported(path) if module.startswith("mautrix")]
    if part(name(path)) != "bridge.store":
        assert not SQL.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_is_short_and_says_what_it_is_for(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 400
    assert ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_tasks_are_started_only_where_they_are_owned(path: Path) -> None:
    owners = ("bridge.queue", "bridge.app", "bridge.succession", "bridge.testing.office", "plugins.mail.smtp")
    if name(path) not in owners:
        assert "create_task" not in path.read_text(encoding="utf-8")


# Words of single tools. Comments and docstrings may explain with examples; the code must do without.
TOOLS = re.compile(r"(mail(?!to\b)|smtp|imap|mailbox|ticket|roundup|redmine|issue)", re.IGNORECASE)


@pytest.mark.parametrize("path", [path for path in MODULES if name(path).startswith("bridge")], ids=name)
def test_nothing_in_the_bridge_knows_mail_or_tickets(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    explained = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    explained |= {
        id(word.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "description"
    }
    for node in ast.walk(tree):
        words = [getattr(node, each, None) for each in ("id", "attr", "arg", "name")]
        if isinstance(node, ast.Constant) and id(node) not in explained:
            words.append(node.value)
        known = [word for word in words if isinstance(word, str) and TOOLS.search(word)]
        assert not known, f"line {getattr(node, 'lineno', '?')}: {known}"


def test_the_plugin_of_a_ticket_tool_is_short_enough_to_be_an_example() -> None:
    assert (ROOT / "plugins" / "roundup.py").read_text(encoding="utf-8").count("\n") <= 210  # all that a plugin can do


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {name(path): path for path in MODULES}
    wanted = {
        module: {found for each in imported(path) if (found := _module(each, known)) != module and found}
        for module, path in known.items()
    }
    while leaves := [module for module, others in wanted.items() if not others]:
        for leaf in leaves:
            del wanted[leaf]
        for others in wanted.values():
            others.difference_update(leaves)
    assert not wanted, f"import cycles among {sorted(wanted)}"


def _module(imported_name: str, known: dict[str, Path]) -> str:
    """The module that a name comes from: itself, or the one it is defined in; "" when it is none of ours."""
    if imported_name in known:
        return imported_name
    parent = imported_name.rpartition(".")[0]
    return parent if parent in known else ""
