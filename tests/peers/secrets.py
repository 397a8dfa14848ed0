"""What no log may say: every secret that the tests use, and what people write in them. Searched after each test.

Whatever a bridge logs counts, be it a process of its own or in the test's own loop; the last is searched as the bridge
would have written it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bridge.watch.logs import OURS, Lines

CANARY = "a heron in the harbour"  # for what people write, where something fails
WRITTEN = (CANARY, "I have a question")  # the latter in every letter that says nothing else
SECRETS = re.compile(r"token|password|secret", re.IGNORECASE)
SHORTEST = 6  # characters: anything shorter may be there by chance


@dataclass
class Bridge:
    """A bridge that logs into a file, and how much of that was searched."""

    config: Path
    log: Path
    searched: int = 0

    def unsearched(self) -> str:
        """What it has logged since."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self.searched)
            new = file.read()
        self.searched += len(new)
        return new.decode(errors="replace")


@dataclass
class Watch:
    """Everything that was used, and said, in this process and its children."""

    secrets: dict[str, str] = field(default_factory=lambda: dict.fromkeys(WRITTEN, "what people wrote"))
    bridges: list[Bridge] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def used(self, secret: str, what: str = "a secret") -> str:
        """From now on no log may say this."""
        if len(secret) >= SHORTEST:
            self.secrets[secret] = what
        return secret

    def configured(self, path: Path) -> None:
        """The secrets of a configuration, and the key that its bridge has made."""
        with contextlib.suppress(OSError):
            settings = yaml.safe_load(path.read_text())
            for key, value in _leaves(settings):
                if SECRETS.search(key) and not key.endswith(("_file", "_env")) and not value.startswith("${"):
                    self.used(value, key)
            data = path.parent / settings.get("data", "data")
            for key in _keys(data / "passerelle.db"):
                self.used(key, "the bridge's own key")

    def started(self, config: Path, log: Path) -> None:
        """A bridge on that configuration logs there."""
        self.bridges.append(Bridge(config, log))

    def leaked(self) -> list[str]:
        """What was said since the last time and must not be: what it is, and the line without it."""
        for bridge in self.bridges:
            if new := bridge.unsearched():
                self.configured(bridge.config)
                self.said += new.splitlines()
        said, self.said = self.said, []
        whole = "\n".join(said)
        return [
            f"{what}: {line.replace(secret, '*****')}"
            for secret, what in self.secrets.items()
            if secret in whole
            for line in said
            if secret in line
        ]


class Ear(logging.Handler):
    """Hears what a bridge in this process would log."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(Lines())
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self._watch.said.append(self.format(record))


watch = Watch()


def listen() -> None:
    """From now on all that this process logs is searched."""
    logging.getLogger().addHandler(Ear(watch))
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    elif isinstance(value, str):
        yield key, value


def _keys(database: Path) -> list[str]:
    if not database.exists():
        return []
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db,
    ):
        return [row[0] for row in db.execute("SELECT value FROM meta WHERE key = 'secret'")]
    return []
