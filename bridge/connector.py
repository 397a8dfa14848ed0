"""The plugin contract: what a tool's plugin implements, and what the bridge gives it.

A plugin sees neither Matrix nor the database. It turns what its tool says into envelopes, and drafts into messages of
its tool. Implement what the tool can do; the defaults refuse, or say that there is nothing. docs/plugins.md builds a
plugin from the first line; `bridge.testing` has the tests that every plugin passes.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from bridge.clients import Http, Network, Reply, Web
from bridge.model import (
    Address,
    Answered,
    Card,
    Change,
    Deferred,
    Delivery,
    Draft,
    Envelope,
    File,
    Finding,
    Page,
    Question,
    Recipients,
    Rejected,
    Request,
    Sent,
    Starter,
    Unavailable,
    Unconfirmed,
)

__all__ = ["Connector", "ConnectorConfig", "Http", "Network", "Port", "Reply", "ServerConfig", "Spool", "Web", "doubt"]


T = TypeVar("T")


@contextmanager
def doubt() -> Iterator[None]:
    """What fails in here, after something was written, leaves open what became of that: raises `Unconfirmed`."""
    try:
        yield
    except (Unavailable, Deferred) as error:
        raise Unconfirmed(str(error)) from None


class ConnectorConfig(BaseModel):
    """Base of every plugin's configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerConfig(ConnectorConfig):
    """Base for tools that are reached over HTTP with a login, and asked now and then."""

    url: str = Field(pattern=r"^https?://[^\s?#@]+$", description="Address of the tool, as the bridge reaches it")
    web: str = Field("", pattern=r"^(https?://[^\s?#@]+)?$", description="Its address for people, if that is another")
    username: str = Field(pattern=r"^[^:\s]+$", description="The bridge's own account in the tool")
    password: SecretStr = Field(description="Its password; better kept out of the file as ${NAME} or ${file:/path}")
    every: float = Field(30, ge=1, description="Seconds between two looks for what is new")
    ca_file: Path | None = Field(None, description="PEM file of a certificate authority to trust besides the system's")

    @field_validator("ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        try:
            if value:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"the PEM file cannot be used: {error.strerror or error}") from None
        return value

    @property
    def site(self) -> str:
        """Its address for people, without a slash at the end."""
        return (self.web or self.url).rstrip("/")

    @property
    def login(self) -> tuple[str, str]:
        """For `Port.http`."""
        return self.username, self.password.get_secret_value()


class Spool(Protocol):
    """Where raw messages and files are kept until retention ends; content is named by its SHA-256."""

    async def keep(self, name: str, type: str, data: bytes) -> File:
        """Keep `data`; a small file travels inside the returned value until its envelope is accepted."""

    async def keep_stream(self, name: str, type: str, chunks: AsyncIterator[bytes], limit: int) -> File:
        """Keep what comes in chunks, never whole in memory. Raises `Rejected` above `limit` bytes."""

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

    def http(
        self, url: str, *, headers: Mapping[str, str] | None = None, login: tuple[str, str] | None = None,
        ca_file: Path | None = None,
    ) -> Http:  # fmt: skip
        """The server at `url`, which must come from the configuration; `headers` and `login` go with every request.

        Its certificate is verified by the system's authorities, and by those in `ca_file` (PEM). Raises `OSError` when
        that cannot be read.
        """

    def web(
        self, hosts: Iterable[str] = ("*",), *, ports: Iterable[int] = (80, 443), networks: Iterable[Network] = (),
        seconds: float = 10.0, ca_file: Path | None = None,
    ) -> Web:  # fmt: skip
        """Pages of any host that fits one of the patterns, found within `seconds`.

        Addresses of private and other special networks are refused, except those in `networks`. `ca_file` is as in
        `http`.
        """


class Connector:
    """One configured use of a plugin. Subclass it, one class per tool."""

    Config: ClassVar[type[ConnectorConfig]] = ConnectorConfig
    command: ClassVar[str] = ""  # the word after "!" that begins something new in the tool, if it can
    many: ClassVar[bool] = False  # whether one conversation makes several as a matter of course (files), else one
    addressed: ClassVar[bool] = False  # whether people name recipients after that word
    usage: ClassVar[str] = ""  # what to type after that word, for help: "address Subject"
    last: ClassVar[bool] = False  # whether it only looks, at addresses that no other tool of a room knows
    silent: ClassVar[bool] = False  # whether it deletes without a word: items that rooms follow are looked at in turn
    reaction: ClassVar[str] = ""  # an emoji on a message that means the same for that message
    words: ClassVar[Mapping[str, str]] = {}  # words after "!" that change an item, and what to type after each
    filters: ClassVar[Mapping[str, str]] = {}  # facts by which a mapping may choose, and what each is, for people
    scope: str = ""  # of a tool that has only one
    every: float = 30.0  # seconds between two polls

    questions: ClassVar[Sequence[Question]] = ()  # what `passerelle init` asks; with them comes `starter`

    @classmethod
    def starter(cls, answers: Mapping[str, str]) -> Starter:
        """A first configuration, by the answers to `questions`; those of the bridge are there too (domain …). Pure."""
        raise NotImplementedError

    def __init__(self, name: str, config: Any, port: Port) -> None:
        self.name = name
        self.config = config
        self.port = port

    def scopes(self) -> Sequence[str]:
        """The scopes that configuration declares and that a room may be mapped to; by default `scope` alone."""
        return (self.scope,) if self.scope else ()

    async def offers(self) -> Sequence[str]:
        """The scopes that a room may be mapped to now, as the tool has them; by default what `scopes` says.

        Raises `Rejected` with the tool's reason, `Unavailable`.
        """
        return self.scopes()

    # --- what comes in

    async def run(self) -> None:
        """Listen until cancelled, handing what arrives to `port.accept`. Ready when `started()`."""
        await asyncio.Event().wait()

    def started(self) -> bool:
        """Whether `run` is listening."""
        return True

    async def poll(self, cursor: str) -> Page:
        """What has happened since `cursor`, oldest first; "" is the first time: then only where to begin.

        The bridge writes the page and its cursor down in one commit. Raises `Unavailable`.
        """
        raise NotImplementedError

    async def wait(self) -> None:
        """Until it is worth polling again: for `every` seconds, or less when the tool says that something is new."""
        await asyncio.sleep(self.every)

    def troubles(self) -> Mapping[str, str]:
        """Parts of the tool that do not answer although polls go on: why, by the part's name for people."""
        return {}

    def parse(self, request: Request) -> list[Envelope]:
        """What a webhook (POST /hooks/NAME) says. Pure, no network: verify the signature, then read.

        Raises `Rejected` when it is forged or makes no sense; an event that is none of ours is an empty list. The
        tool hears yes only after the commit.
        """
        raise NotImplementedError

    async def opened(self, name: str, data: bytes, scope: str = "") -> Sequence[Envelope]:
        """What a file says that was kept of an arrival, for `scope` ("": for whom the file says); nothing is accepted.

        Webhooks need no more than `parse`. Raises `Rejected` when it is no file of this tool.
        """
        raise Rejected(f"{self.name} reads no such file")

    def scope_of(self, text: str) -> str:
        """The scope that takes what is addressed like this, "" for none. Pure."""
        return text if text in {*self.scopes(), *self.port.scopes()} else ""

    # --- items

    def match(self, text: str) -> str:
        """The tool's own name of the item whose key or URL `text` is, "" when it is none of this tool's. Pure.

        Of a key that only the tool can tell: another text that `fetch` takes, the key itself perhaps.
        """
        return ""

    async def fetch(self, item: str) -> Card:
        """How the item stands. Raises `Gone` when there is none (any more), `Rejected`, `Unavailable`."""
        raise Rejected(f"{self.name} has nothing to look at")

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        """At most ten items of these scopes that have all the words, the likeliest first; private ones marked so.

        Raises `Rejected` with the tool's reason, `Unavailable`.
        """
        return ()

    async def change(self, change: Change) -> Card:
        """Change the item and read it back: how it stands now. Asking twice does no harm.

        Raises `Rejected` with the tool's own reason when it refuses, or has not done it; `Gone`; `Unavailable`.
        """
        raise Rejected(f"{self.name} changes nothing")

    # --- tried by hand

    async def probe(self, scope: str, uid: str) -> Sent | None:
        """Send a message to `scope` itself, by the way that messages from outside come: what arrives of it is an
        envelope whose `probe` is `uid`, and is not shown. None: nothing can be sent to this tool to try it.

        Raises as `send`; it is not tried again.
        """
        return None

    def way(self, scope: str) -> str:
        """What to look at when a probe does not come back: by which way it should, for people. Pure."""
        return ""

    # --- what leaves

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        """Send the draft to the item; `delivery.uid` is its identity, the same at every attempt.

        When it comes `delivery.again`, an earlier attempt may have succeeded unnoticed: use the tool's
        idempotency key, or look for your own mark before you send again.

        Raises `Rejected` when the tool refuses it for good (`Gone`: there is no such item), `Deferred` when it took
        nothing and asks to come again, `Unavailable` when the tool is in trouble and took nothing. `Unconfirmed`, or
        anything else, counts as temporary and in doubt: it is tried again, but can no longer be cancelled.
        """
        raise Rejected(f"{self.name} cannot send messages")

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        """Make a new item of the draft, once: as `send`. `Sent.card` names it, where the tool has names for items."""
        raise Rejected(f"{self.name} cannot make anything new")

    async def ensure(
        self, read: Callable[[], Awaitable[T]], holds: Callable[[T], bool], act: Callable[[T], Awaitable[bool]],
        what: str,
    ) -> T:  # fmt: skip
        """What `read` gives, as soon as it `holds`. Until then `act` makes it so: once, or again where it says False,
        since others were quicker (a version that does not match).

        Raises `Rejected` when the tool said yes and has not done it, `Unconfirmed` when it cannot be read after that,
        `Unavailable` when others are always quicker; `what` is what it is about, for people.
        """
        acted = False
        for _ in range(5):
            with doubt() if acted else nullcontext():
                found = await read()
            if holds(found):
                return found
            if acted:
                raise Rejected(f"{self.name} said yes and has not changed {what}")
            acted = await act(found)
        raise Unavailable(f"{what} is being changed by others all the time")

    async def read(self, ask: Callable[[], Awaitable[str]], where: str) -> tuple[str, str]:
        """A text that the tool may fail to give; and why it does, for `Envelope.problem`, with the address for people.

        Asked twice: what passes is no problem of that text.
        """
        for pause in (1.0, 0.0):
            try:
                return await ask(), ""
            except (Rejected, Deferred) as error:
                problem = f"its text could not be read: {error} ({where})"
            await asyncio.sleep(pause)
        return "", problem

    async def collect(
        self, http: Http, wanted: Iterable[tuple[str, str, str]], where: str
    ) -> tuple[tuple[File, ...], str]:
        """Files of a message, each (path, name, type); and which of them cannot be had, for `Envelope.problem`, with
        the address where people find them.
        """
        files, problems = [], []
        for path, name, type_ in wanted:
            try:
                files.append(await http.download(path, name, type_ or "application/octet-stream"))
            except (Rejected, Deferred) as error:
                problems.append(f"{name}: {error} ({where})")
        return tuple(files), "; ".join(problems)

    def audience(self, scope: str, item: str, answered: Answered | None) -> Recipients:
        """Who receives a message to that item, answering that one if any. Pure; `Rejected` when nobody would.

        By default the item itself, as soon as the tool has a name for it.
        """
        if not self.match(item):
            raise Rejected(f"it is not made yet in {self.name}: wait until it has a name there")
        return Recipients((Address(item, self.name),))

    @classmethod
    def without_words(cls, memo: str) -> str:  # noqa: ARG003 - plugins use it
        """What stays of an envelope's `memo` when retention has ended: how to answer it, not what it said. Pure."""
        return ""

    def title(self, title: str) -> str:
        """What an answer to something of that title is called, as its preview shows it. Pure."""
        return ""

    def recipients(self, words: Sequence[str]) -> Recipients:
        """Who is meant by the words typed after `command`. Pure; `Rejected` saying which word is no recipient.

        By default, and where people name none (`addressed` is False), the tool itself.
        """
        if words:
            raise Rejected(f"{self.name} takes no recipients")
        return Recipients((Address(self.name),))

    def mark(self, uid: str) -> str:
        """A word that only this bridge can write, [a-z2-7.] only, by which a delivery is known again in the tool."""
        return f"passerelle.{uid}.{self.port.sign(uid)}"

    def is_mark(self, text: str) -> bool:
        """Whether `text` is a mark of ours: what bears it is an echo."""
        ours = self.mark(text.partition(".")[2].partition(".")[0])
        return hmac.compare_digest(text.encode(errors="replace"), ours.encode(errors="replace"))

    async def check(self) -> list[Finding]:
        """What `doctor` asks: reachable, credentials, rights, clock."""
        return []
