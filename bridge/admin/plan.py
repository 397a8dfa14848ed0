"""What another configuration would change, line by line: shown before it is done, and done as it was shown. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, SecretStr

from bridge.choice import leaves_out
from bridge.config import Config
from bridge.config import Mapping as Mapped
from bridge.connector import Connector

T = TypeVar("T")

When = Literal["at once", "anew", "stopped"]  # "stopped": only while the bridge does not run
Place = tuple[str, str, str]  # connector, scope, room

_FIXED = {"data", "homeserver.server_name", "appservice.id", "appservice.bot", "appservice.ghosts"}
_AT_ONCE = ("permissions.", "people.")
_SECRET = re.compile(r"token|secret|passw|credential|(^|[._-])key($|[._-])", re.IGNORECASE)  # whatever its type
_LOGIN = re.compile(r"//[^/\s]*@")  # within an address
_APART = {"connectors", "mappings"}  # compared by their names
_THERE = "…"


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration: what `config.load` returns."""

    config: Config
    connectors: dict[str, tuple[type[Connector], Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that would change: `+` comes, `-` goes, `~` becomes different."""

    sign: Literal["+", "-", "~"]
    what: str
    when: When


@dataclass(frozen=True, slots=True)
class Plan:
    """What would change, what to think of before, and the digest by which just this is asked for."""

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    digest: str = ""

    @property
    def anew(self) -> bool:
        """Whether the bridge has to start its parts anew for it."""
        return any(step.when == "anew" for step in self.steps)

    @property
    def refused(self) -> list[Step]:
        """What a running bridge cannot do."""
        return [step for step in self.steps if step.when == "stopped"]


class Changed(Exception):
    """What was asked for is not what would be done now, or not while the bridge runs; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the last change that was asked for; `told` are lines for people."""

    digest: str = ""
    state: Literal["none", "starting", "done", "refused"] = "none"
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Value:
    text: str
    secret: bool

    def __str__(self) -> str:
        return "(secret)" if self.secret else self.text


def plan(old: Settings, new: Settings, secret: bytes, warnings: Iterable[str] = ()) -> Plan:
    """From one configuration to the other; `secret` is the bridge's own, for the digest."""
    steps = [*mapping_steps(old.config.mappings, new.config.mappings), *_connector_steps(old, new)]
    for key, sign, told in _differences(_flat(old.config, apart=_APART), _flat(new.config, apart=_APART)):
        when: When = "stopped" if key in _FIXED else "at once" if key.startswith(_AT_ONCE) else "anew"
        steps.append(Step(sign, told, when))
    found = Plan(tuple(steps), tuple(warnings))
    return replace(found, digest=_digest(found, new, secret))


def mapping_steps(old: Iterable[Mapped], new: Iterable[Mapped]) -> list[Step]:
    """Mappings that come, go, or take and show something else."""
    before, after = ({place_of(each): each for each in some} for some in (old, new))
    steps = [Step("+", spoken(each), "at once") for place, each in after.items() if place not in before]
    steps += [Step("-", spoken(each), "at once") for place, each in before.items() if place not in after]
    steps += [
        Step("~", f"{spoken(before[place])}: now {_policy(each) or 'takes everything'}", "at once")
        for place, each in after.items()
        if place in before and before[place] != each
    ]
    return steps


def place_of(mapping: Mapped) -> Place:
    return mapping.connector, mapping.scope, mapping.room


def spoken(mapping: Mapped) -> str:
    """A mapping in words: `mapping support@company.example (mail) in #support:company.example, only …`."""
    return ", ".join(
        filter(None, [f"mapping {mapping.scope} ({mapping.connector}) in {mapping.room}", _policy(mapping)])
    )


def _policy(mapping: Mapped) -> str:
    only = "; ".join(f"{fact}: {', '.join(patterns)}" for fact, patterns in sorted(mapping.only.items()))
    said = {
        f"only {only}": bool(only), "private notes too": mapping.private,
        "only what people link or mention": not mapping.new,
    }  # fmt: skip
    return ", ".join(words for words, so in said.items() if so)


def cautions(old: Iterable[Mapped], new: Config, made: Collection[Mapped], rooms: Mapping[str, str]) -> Iterator[str]:
    """What to think of before; `made` are mappings that people made in rooms, `rooms` ids of rooms by name."""
    yield from gaps(new.connectors, [*new.mappings, *made])
    before, after = (
        {(each.connector, each.scope, rooms.get(each.room, each.room)) for each in some} for some in (old, new.mappings)
    )
    for each in made:
        there = (each.connector, each.scope, rooms.get(each.room, each.room))
        if there in after:
            yield f"{spoken(each)} was made in that room; the configuration decides from now on"
        elif there in before:
            yield f"{spoken(each)} was made in that room, too, and holds again from now on; !unmap there ends it"


def gaps(connectors: Iterable[str], mappings: Sequence[Mapped]) -> Iterator[str]:
    """What no room takes."""
    for name in sorted(set(connectors) - {each.connector for each in mappings}):
        yield f"nothing of connector {name} is mapped to a room"
    for connector, scope in sorted({(each.connector, each.scope) for each in mappings}):
        found = [each for each in mappings if (each.connector, each.scope) == (connector, scope)]
        if leaves_out(found) and any(each.only for each in found):  # else nobody wants to see anything new
            yield f"what fits no filter of {scope} ({connector}) is refused: every mapping of it has one"


# --- values


def _connector_steps(old: Settings, new: Settings) -> Iterator[Step]:
    before, after = old.connectors, new.connectors
    for name in _less(after, before):
        yield Step("+", f"connector {name} ({_plugin(new, name)})", "anew")
    for name in _less(before, after):
        yield Step("-", f"connector {name} ({_plugin(old, name)})", "anew")
    for name in (name for name in after if name in before):
        if _plugin(old, name) != _plugin(new, name):
            yield Step("~", f"connector {name}: plugin: {_plugin(old, name)} -> {_plugin(new, name)}", "anew")
            continue
        for _, sign, told in _differences(_flat(before[name][1]), _flat(after[name][1])):
            yield Step(sign, f"connector {name}: {told}", "anew")


def _plugin(settings: Settings, name: str) -> str:
    return str(settings.config.connectors[name].get("plugin", ""))


def _differences(
    old: Mapping[str, _Value], new: Mapping[str, _Value]
) -> Iterator[tuple[str, Literal["+", "-", "~"], str]]:
    """(key, sign, in words). Of a part that comes or goes its name says enough."""
    for key in _whole(_less(new, old)):
        yield key, "+", key if new[key].text == _THERE else f"{key}: {new[key]}"
    for key in _whole(_less(old, new)):
        yield key, "-", key if old[key].text == _THERE else f"{key}: {old[key]}"
    for key in old:
        if key in new and old[key] != new[key]:
            hidden = old[key].secret or new[key].secret
            yield key, "~", f"{key} (secret)" if hidden else f"{key}: {old[key]} -> {new[key]}"


def _less(some: Mapping[str, T], others: Mapping[str, T]) -> list[str]:
    return [key for key in some if key not in others]


def _whole(keys: list[str]) -> list[str]:
    parts = {key for key in keys if key.endswith("]")}
    return [key for key in keys if not any(key.startswith(f"{part}.") for part in parts)]


def _flat(value: Any, path: str = "", apart: Collection[str] = ()) -> dict[str, _Value]:
    """Every single value by its dotted key; members of a list by what names them."""
    found: dict[str, _Value] = {}
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields if name not in apart}
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(inner, BaseModel | dict) for inner in value):
        for number, inner in enumerate(value):
            name = f"{path}[{_name(inner, number)}]"
            found |= {name: _Value(_THERE, secret=False), **_flat(inner, name)}
    elif value is not None:
        found[path] = _value(value, path)
    return found


def _name(member: Any, number: int) -> str:
    first = next(iter(dict(member).values()), None)  # the field that plugins put first says which one it is
    return first if isinstance(first, str) and first else str(number)


def _value(value: Any, path: str) -> _Value:
    if isinstance(value, SecretStr):
        return _Value(value.get_secret_value(), secret=True)
    if isinstance(value, frozenset | set):
        value = sorted(map(str, value))
    if isinstance(value, list | tuple):
        return _Value(f"[{', '.join(map(str, value))}]", secret=bool(_SECRET.search(path)))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value.resolve()) if path == "data" else str(value)
    return _Value(text, secret=bool(_SECRET.search(path) or _LOGIN.search(text)))


def _digest(found: Plan, new: Settings, secret: bytes) -> str:
    """What was shown and what is meant, changed secrets included; it tells nothing to who does not know `secret`."""
    values = {"": _flat(new.config, apart=_APART), **{name: _flat(body) for name, (_, body) in new.connectors.items()}}
    whole = {name: {key: each.text for key, each in flat.items()} for name, flat in values.items()}
    shown = [[step.sign, step.what, step.when] for step in found.steps]
    text = json.dumps([shown, whole], sort_keys=True)
    return hmac.new(secret, text.encode(errors="replace"), hashlib.sha256).hexdigest()
