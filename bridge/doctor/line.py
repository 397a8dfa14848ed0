"""What `doctor` says: a line for each thing looked at, without any secret."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, SecretStr

from bridge.config import Config, Connectors

State = Literal["ok", "note", "trouble"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at. A note is nothing wrong, but worth knowing; trouble has a remedy."""

    about: str
    state: State
    what: str
    remedy: str = ""


def ok(about: str, what: str) -> Line:
    return Line(about, "ok", what)


def note(about: str, what: str, remedy: str = "") -> Line:
    return Line(about, "note", what, remedy)


def trouble(about: str, what: str, remedy: str) -> Line:
    return Line(about, "trouble", what, remedy)


def reason(error: OSError) -> str:
    """Why, in the system's own words: asyncio tells of addresses, too, which stand in the line already."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or type(error).__name__


class Veil:
    """Hides every secret of the configuration, wherever somebody repeats it, and what would disturb a terminal."""

    def __init__(self, config: Config, connectors: Connectors) -> None:
        bodies = [body for _, body in connectors.values()]
        found = {secret for part in (config, *bodies) for secret in _secrets(part)}
        self._secrets = sorted((secret for secret in found if len(secret) > 3), key=len, reverse=True)

    def __call__(self, line: Line) -> Line:
        return replace(line, what=self._hidden(line.what), remedy=self._hidden(line.remedy))

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        plain = (" " if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one for one in text)
        return " ".join("".join(plain).split())[:1000]


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from _secrets([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, dict):
        yield from _secrets(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _secrets(each)
