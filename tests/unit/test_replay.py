"""Files with arrivals: who reads them, what a rehearsal says, and that only a replay keeps anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bridge import store
from bridge.admin.explain import Explain
from bridge.admin.replay import Kept, Replay
from bridge.config import Config
from bridge.connector import Connector
from bridge.model import Author, Card, Envelope, Rejected, Request
from bridge.rules import Rules
from bridge.store import Store

ROOM = "!room"


class Bell(Connector):
    """A tool that calls us, with a token."""

    scope = "door"

    def parse(self, request: Request) -> list[Envelope]:
        if request.headers.get("x-token") != "right":
            raise Rejected("forged")
        said = json.loads(request.body)
        card = Card(said["id"], said["id"], "At the door", fields=(("state", said["state"]),))
        who = Author(self.name, "ann", "Ann")
        return [Envelope(self.name, ("door",), said["id"], said["id"], who, 1.0, "At the door", card=card, begins=True)]


class Deaf(Connector):
    """A tool that only is asked."""


@pytest_asyncio.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Store]:
    async with store.opened(tmp_path) as opened:
        yield opened


def replay(memory: Store, **more: type[Connector]) -> Replay:
    kinds: dict[str, type[Connector]] = {"bell": Bell, "deaf": Deaf, **more}
    config = Config.model_validate(
        {
            "homeserver": {"url": "http://homeserver.invalid", "server_name": "company.example"},
            "appservice": {"as_token": "as", "hs_token": "hs"},
            "connectors": {name: {} for name in kinds},
            "mappings": [{"connector": "bell", "scope": "door", "room": ROOM, "only": {"state": "open"}}],
        }
    )
    port: Any = None
    connectors = {name: kind(name, None, port) for name, kind in kinds.items()}
    rules = Rules(config)
    rules.places.resolve(ROOM, ROOM)
    rules.connect(connectors)
    return Replay(memory, rules.hub, Explain(rules, connectors), connectors)


def hook(state: str = "open", token: str = "right", **more: Any) -> Kept:
    body = {"id": "ring1", "state": state}
    return Kept("hook.json", json.dumps({"headers": {"X-Token": token}, "body": body}).encode(), **more)


async def rows(memory: Store) -> int:
    return await memory.transact(lambda tx: len(tx.queue.in_state("ready")))


async def test_a_kept_webhook_is_rehearsed_and_only_a_replay_keeps_it(memory: Store) -> None:
    said = await replay(memory).bring(hook())
    assert "read by bell" in said
    assert "  a new conversation, “At the door”" in said
    assert "  its card is shown, or brought up to date" in said
    assert said[-1] == "nothing was written down or sent"
    assert not await rows(memory)
    said = await replay(memory).bring(hook(dry=False))
    assert said[-1].startswith("accepted")
    assert await rows(memory) == 1
    said = await replay(memory).bring(hook(dry=False))
    assert "nothing would be shown: it came before, or says nothing new" in said
    assert await rows(memory) == 1


async def test_what_no_filter_takes_is_told_with_what_it_has(memory: Store) -> None:
    said = await replay(memory).bring(hook("closed"))
    assert "  mapping door (bell) in !room, only state: open" in said
    assert "  it has state: closed" in said
    assert "refused: nobody here takes messages for door" in said


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (hook(token="wrong"), "bell: forged"),
        (hook(connector="deaf"), "deaf: deaf reads no such file"),
        (hook(connector="gong"), "there is no connector gong; there are: bell, deaf"),
        (Kept("x.json", b"{}"), "this is no kept webhook"),
        (Kept("x.json", b'{"headers": [], "body": ""}'), "this is no kept webhook"),
        (Kept("x.json", b"{" * 100_000), "this is no kept webhook"),
        (Kept("x", b"\xff\x00"), "reads no such file"),
    ],
    ids=["forged", "no reader", "no connector", "empty", "odd headers", "deep", "bytes"],
)
async def test_a_file_that_nobody_can_read_is_refused_with_the_reason(memory: Store, kept: Kept, why: str) -> None:
    with pytest.raises(Rejected, match=why.replace("(", ".")):
        await replay(memory).bring(kept)


async def test_a_file_for_two_is_nobodys_until_it_is_said_whose(memory: Store) -> None:
    class Chime(Bell):
        pass

    with pytest.raises(Rejected, match="it may be for bell, chime: say which with --connector"):
        await replay(memory, chime=Chime).bring(hook())
    assert "read by bell" in await replay(memory, chime=Chime).bring(hook(connector="bell"))
