"""What all tests of the contract stand on: which of them a plugin has, a bridge for each, and what they do often."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import pytest_asyncio

from bridge.connector import Connector
from bridge.store import new_uid
from bridge.testing.faults import Proxy
from bridge.testing.office import Office, opened
from bridge.testing.tool import Tool

F = TypeVar("F", bound=Callable[..., Any])


def needs(*abilities: str) -> Callable[[F], F]:
    """The test exists only where the plugin overrides all of these; with "tool." before it, where the tool does."""

    def mark(test: F) -> F:
        test.needs = abilities  # type: ignore[attr-defined]
        return test

    return mark


def but(*troubles: str) -> Callable[[F], F]:
    """The test is about every trouble but these."""

    def mark(test: F) -> F:
        test.but = troubles  # type: ignore[attr-defined]
        return test

    return mark


def word() -> str:
    """A word that occurs nowhere else."""
    return f"zq{new_uid()[:10]}"


def abilities_of(plugin: type[Connector], tool: type[Tool]) -> set[str]:
    """Names of what is overridden; and "arrives" when anything comes in, "reached" when a thread can be had, "leaves"
    when anything can be sent, "makes" when a message can become an item, "http" when the proxy is before the tool.
    """
    found = {name for name, part in vars(Connector).items() if getattr(plugin, name) is not part}
    found |= {f"tool.{name}" for name, part in vars(Tool).items() if getattr(tool, name) is not part}
    if found & {"poll", "parse", "run"}:
        found |= {"arrives", "reached"}
    found |= {"leaves"} if found & {"send", "create"} else set()
    found |= {"makes"} if "create" in found and not plugin.addressed else set()
    found |= set() if "tool.hurt" in found else {"http"}
    return found | ({"reached"} if found >= {"match", "fetch"} else set())


async def failure(act: Awaitable[object]) -> Exception | None:
    """What it raises; None when it does not."""
    try:
        await act
    except Exception as error:  # noqa: BLE001 - to be judged by who asked
        return error
    return None


class Base:
    """A plugin, its tool, and the page where its configuration is explained."""

    plugin: ClassVar[type[Connector]]
    tool: ClassVar[type[Tool]]
    page: ClassVar[Path | str]
    patience: ClassVar[float] = 2.0  # seconds after which a request counts as failed; the tool must be quicker
    pytestmark = pytest.mark.asyncio

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "plugin"):
            able = abilities_of(cls.plugin, cls.tool)
            for name in dir(cls):
                if not able.issuperset(getattr(getattr(cls, name), "needs", ())):
                    setattr(cls, name, None)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "trouble" in metafunc.fixturenames:
            without = getattr(metafunc.function, "but", ())
            metafunc.parametrize("trouble", [each for each in self.tool.troubles if each not in without])

    def opened(self, folder: Path, *, private: bool = False) -> AbstractAsyncContextManager[Office]:
        """A bridge of this plugin and its tool."""
        return opened(self.plugin, self.tool(Proxy()), folder, self.patience, private=private)

    @pytest_asyncio.fixture
    async def office(self, tmp_path: Path) -> AsyncIterator[Office]:
        async with self.opened(tmp_path) as office:
            yield office

    # --- what they share

    async def _begun(self, office: Office) -> tuple[str, int]:
        """An item that people in the room see: its name, and the conversation."""
        said = word()
        item = await office.tool.open(said, said)
        if "arrives" not in abilities_of(self.plugin, self.tool):
            await office.say(f"!link {item}")
        return item, (await office.arrives(said)).conversation

    async def _later(self, office: Office, item: str) -> None:
        """Something is said, and shown: whatever came before has been dealt with."""
        said = word()
        await office.tool.say(item, said)
        await office.arrives(said)
