"""The connectors as a configuration names them: their plugins, their own sections, and whether mappings fit them."""

from __future__ import annotations

from collections.abc import Set
from importlib.metadata import entry_points
from typing import Any

from bridge.config.page import Mistakes, Place, suggestion
from bridge.connector import Connector

Connectors = dict[str, tuple[type[Connector], Any]]  # by name: the plugin's class and its own, validated configuration

Offered = dict[str, frozenset[str]]  # by name: the scopes that are known by its configuration

# What the bridge calls parts of itself.
OURS = {"matrix", "hub", "homeserver", "rooms", "holds", "retention", "pulse", "finding"}


def connectors(raw: Any, mistakes: Mistakes) -> Connectors:
    """Those of the section; what is wrong is taken down, and who is wrong is left out or has no configuration."""
    plugins = {point.name: point for point in entry_points(group="passerelle.plugins")}
    found: Connectors = {}
    for name, section in (raw if isinstance(raw, dict) else {}).items():
        place = ("connectors", str(name))
        if str(name) in OURS or len(str(name).split()) != 1:
            mistakes.at(place, f"choose another name, without blanks, and not one of: {', '.join(sorted(OURS))}")
        wanted = section.get("plugin") if isinstance(section, dict) else None
        if not isinstance(wanted, str) or wanted not in plugins:
            near = suggestion(wanted, plugins) if isinstance(wanted, str) else ""
            mistakes.at((*place, "plugin"), f"must be one of: {', '.join(sorted(plugins))}{near}")
            continue
        try:
            plugin: type[Connector] = plugins[wanted].load()
        except (ImportError, AttributeError) as error:
            mistakes.at((*place, "plugin"), f"this plugin cannot be loaded: {error}")
            continue
        body = {key: value for key, value in section.items() if key != "plugin"}
        found[name] = (plugin, mistakes.validated(plugin.Config, body, place))
    return found


def fits(raw: dict[str, Any], found: Connectors, mistakes: Mistakes) -> None:
    """Whether mappings and permissions name what there is."""
    sections = raw.get("connectors")
    names = {str(name) for name in sections} if isinstance(sections, dict) else set()
    permissions = raw.get("permissions")
    may_map = permissions.get("map") if isinstance(permissions, dict) else None
    for name in may_map if isinstance(may_map, dict) else ():
        if name not in ("*", *names):  # "*": every connector
            mistakes.at(("permissions", "map", str(name)), f"no connector has this name{suggestion(str(name), names)}")
    offered = {name: _offered(name, plugin, body) for name, (plugin, body) in found.items() if body is not None}
    mappings = raw.get("mappings")
    for number, each in enumerate(mappings if isinstance(mappings, list) else ()):
        if isinstance(each, dict):
            _mapping_fits(each, ("mappings", str(number)), names, found, offered, mistakes)


def _mapping_fits(
    each: dict[str, Any], place: Place, names: Set[str], found: Connectors, offered: Offered, mistakes: Mistakes
) -> None:  # fmt: skip
    name, scope = each.get("connector"), each.get("scope")
    if isinstance(name, str) and name not in names:
        mistakes.at((*place, "connector"), f"no connector is configured by this name{suggestion(name, names)}")
    plugin, body = found.get(name, (None, None)) if isinstance(name, str) else (None, None)
    if plugin is None or body is None:  # its own configuration is wrong: it cannot be asked
        return
    has = offered[str(name)]
    if has and isinstance(scope, str) and scope not in has:
        known = suggestion(scope, has) or f"; it has: {', '.join(sorted(has)[:20])}"
        mistakes.at((*place, "scope"), f"{name} has no such scope{known}")
    only = each.get("only")
    for fact in only if isinstance(only, dict) else ():
        if fact not in plugin.filters:
            known = suggestion(str(fact), plugin.filters) or f"; it knows: {', '.join(plugin.filters) or 'none'}"
            mistakes.at((*place, "only", str(fact)), f"{name} has no such fact to choose by{known}")


class _Nowhere:
    """The port of a connector that is only asked for its scopes: there is no bridge around it."""

    spool: Any = None

    async def accept(self, envelope: Any) -> None:
        raise NotImplementedError

    def scopes(self) -> frozenset[str]:
        return frozenset()

    def sign(self, text: str) -> str:
        return ""

    def http(self, url: str, **_: Any) -> Any:
        """Nothing: nobody is asked."""

    def web(self, hosts: Any = (), **_: Any) -> Any:
        """Nothing."""


def _offered(name: Any, plugin: type[Connector], body: Any) -> frozenset[str]:
    """The scopes that the connector has by its configuration; none when they are known to the tool only."""
    try:
        return frozenset(plugin(name, body, _Nowhere()).scopes())
    except Exception:  # noqa: BLE001 - somebody else's code, without the bridge that it may count on
        return frozenset()
