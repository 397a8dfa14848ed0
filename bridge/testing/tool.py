"""What an author tells the kit of a tool: how to reach it, and how people work with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

from bridge.model import Request
from bridge.testing.faults import TROUBLES, Proxy


class Tool:
    """Your tool, best the real server, and people who work with it. Made anew for each test: `async with` starts it.

    What people do goes to your server directly, at `self.url`; the plugin reaches it at the URL given to `config`.
    Every text of the kit is one word that occurs nowhere else; your tool may put more around it.
    """

    name: ClassVar[str] = "tool"  # of the connector
    scope: ClassVar[str] = ""  # what the room is mapped to
    troubles: ClassVar[Sequence[str]] = TROUBLES
    noticed: ClassVar[Sequence[str]] = ("down", "401", "403", "503", "page", "error")  # by the self-check, of these
    refusal: ClassVar[tuple[int, bytes]] = (400, b'{"error": "this cannot be done"}')  # how it says no for good
    words: ClassVar[Mapping[str, Sequence[str]]] = {}  # two values for each of the plugin's words
    recipient: ClassVar[str] = ""  # what is typed between the plugin's command and the title
    sealed: ClassVar[bool] = True  # whether a webhook's signature covers its body (False: a shared word)
    url: str = ""  # where your server answers, without the proxy; "" when it does not speak HTTP
    front: str = ""  # scheme, host and port of the proxy: known before your server starts, should it need to know
    hook: str = ""  # where your server may send its webhooks: the kit keeps them in `caught`, and delivers them itself

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.caught: list[Request] = []  # webhooks; append to it yourself when no server of yours sends them

    async def __aenter__(self) -> Self:
        """Start your server, and set `self.url`."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""

    def config(self, url: str) -> dict[str, Any]:
        """The connector's keys in the configuration, all that are required, when the tool is reached at `url`."""
        raise NotImplementedError

    # --- people at work

    async def open(self, title: str, text: str) -> str:
        """Somebody makes an item; returns its name as the plugin says it."""
        raise NotImplementedError

    async def say(self, item: str, text: str) -> None:
        """Somebody says something on it."""
        raise NotImplementedError

    async def whisper(self, item: str, text: str) -> None:
        """Somebody writes a private note. Override it when the plugin shows them to rooms that may see them."""

    async def change(self, item: str) -> None:
        """Somebody changes its state, each time to another than before. Override it when the plugin shows cards."""

    async def elsewhere(self, title: str, text: str) -> str:
        """As `open`, in another scope than `scope`. Override it when the tool has several."""
        raise NotImplementedError

    async def privately(self, title: str, text: str) -> str:
        """As `open`, for those only who may see private notes. Override it when cards can be private."""
        raise NotImplementedError

    async def delete(self, item: str) -> None:
        """Somebody deletes it. Override it when the tool can forget an item."""

    async def attach(self, item: str, name: str, data: bytes) -> None:
        """Somebody puts a file on it, of these bytes. Override it when the plugin shows files."""

    async def files(self, item: str) -> Sequence[tuple[str, bytes]]:
        """Name and bytes of every file on it, whoever put it there. Override it when the plugin can send files."""
        raise NotImplementedError

    async def said(self, item: str) -> list[str]:
        """Every text on it, whoever wrote it; the plugin's and private ones too."""
        raise NotImplementedError

    async def titles(self) -> list[str]:
        """The titles of all items. Override it when the plugin can make new ones."""
        raise NotImplementedError

    # --- webhooks, for a plugin that overrides `parse`

    unknown: ClassVar[bytes] = b""  # the body of an event that is none of ours

    def signed(self, body: bytes) -> Request:
        """A webhook with this body as the tool would send it: signed as its settings say."""
        raise NotImplementedError

    # --- listening, for a plugin that overrides `run`

    async def again(self) -> None:
        """What came last comes again, as after a lost acknowledgement."""

    async def nonsense(self) -> None:
        """Something forged, something that makes no sense and something huge reaches the plugin, and is not taken."""

    async def echo(self, item: str) -> None:
        """What the bridge said last comes back to it. Override it when that does not happen by itself."""

    # --- trouble, for a tool that does not speak HTTP

    async def hurt(self, trouble: str, nth: int = 0) -> None:
        """From now on the tool makes this trouble (see `faults.TROUBLES`), or refuses whatever
        changes something ("refusal").

        `nth`: only with the nth request from now on that changes something.
        """
        self.proxy.refusal = self.refusal
        self.proxy.hurt(trouble, nth)

    async def heal(self) -> None:
        """All is well again."""
        self.proxy.trouble = ""

    def struck(self) -> bool:
        """Whether the trouble was met."""
        return bool(self.proxy.struck)
