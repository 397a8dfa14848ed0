"""The plugin contract: what a tool's plugin implements, and what the bridge gives it.

A plugin sees neither Matrix nor the database. It turns what its tool says into envelopes, and drafts into messages of
its tool. Implement what the tool can do; the defaults refuse.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from bridge.model import Answered, Delivery, Draft, Envelope, File, Finding, Recipients, Rejected, Sent


class ConnectorConfig(BaseModel):
    """Base of every plugin's configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spool(Protocol):
    """Where raw messages and files are kept until retention ends; content is named by its SHA-256."""

    async def keep(self, name: str, type: str, data: bytes) -> File:
        """Keep `data`; a small file travels inside the returned value until its envelope is accepted."""

    async def read(self, file: File) -> bytes:
        """The whole content. Raises `FileNotFoundError` when retention has removed it."""

    def stream(self, file: File) -> AsyncIterator[bytes]:
        """The content in chunks of at most 256 KiB."""

    async def path(self, file: File) -> Path:
        """A readable file on disk with the content (written there first when it was small)."""


class Port(Protocol):
    """What the bridge offers to a connector."""

    @property
    def spool(self) -> Spool:
        """Where files are kept."""

    async def accept(self, envelope: Envelope) -> None:
        """Write the envelope down. Returns after the commit; only then may the plugin acknowledge it.

        Raises `Rejected` when no room takes any of its scopes.
        """

    def scopes(self) -> frozenset[str]:
        """The scopes of this connector that are mapped to a room now."""

    def sign(self, text: str) -> str:
        """A short, case-insensitive signature ([a-z2-7]{16}) of `text` that only this bridge can make."""


class Connector:
    """One configured use of a plugin. Subclass it, one class per tool."""

    Config: ClassVar[type[ConnectorConfig]] = ConnectorConfig
    command: ClassVar[str] = ""  # the word after "!" that begins something new with people outside, if the tool can

    def __init__(self, name: str, config: Any, port: Port) -> None:
        self.name = name
        self.config = config
        self.port = port

    def scopes(self) -> Sequence[str]:
        """The scopes that configuration declares and that a room may be mapped to."""
        return ()

    async def run(self) -> None:
        """Listen or poll until cancelled, handing what arrives to `port.accept`. Ready when `started()`."""

    def started(self) -> bool:
        """Whether `run` is listening or polling."""
        return True

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        """Send the draft; `delivery.uid` is its identity, the same at every attempt.

        Raises `Rejected` when the tool refuses it for good, `Deferred` when it took nothing and asks to come again,
        `Unavailable` when the tool is in trouble and took nothing. Anything else counts as temporary and in doubt: it
        is tried again, but can no longer be cancelled.
        """
        raise Rejected(f"{self.name} cannot send messages")

    def audience(self, scope: str, answered: Answered) -> Recipients:
        """Who receives an answer to that message. Pure; raises `Rejected` when nobody may be answered."""
        raise Rejected(f"{self.name} cannot answer messages")

    def title(self, title: str) -> str:
        """What an answer to something of that title is called, as its preview shows it. Pure."""
        return title

    def recipients(self, words: Sequence[str]) -> Recipients:
        """Read recipients that an employee typed. Pure; raises `Rejected` saying which word is no recipient."""
        raise Rejected(f"{self.name} takes no recipients")

    async def check(self) -> list[Finding]:
        """What `doctor` asks: reachable, credentials, rights, clock."""
        return []
