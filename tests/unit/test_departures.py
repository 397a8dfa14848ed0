"""What operators can find out about what left, and about what could not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bridge import payload, store
from bridge.config import Config
from bridge.departures import ConnectorDestination
from bridge.model import Address, Delivery, Draft, Recipients, Sent
from bridge.payload import Post
from bridge.places import Places
from bridge.store import Tx
from bridge.texts import Texts
from bridge.watch.logs import Lines

TO = Recipients((Address("jane@customer.example"),))
DRAFT = Draft("mail", "support@company.example", 1, "Title", "@alice:company.example", "Alice", TO, room="!room")
ROW = Delivery(1, "abcdefghij234567abcd", "mail:1", "mail", "draft", payload.dump(DRAFT), "ready", 1, 0.0)


class Smarthost:
    """A connector whose server takes everything."""

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        return Sent("<id@company.example>", reply="250 2.0.0 queued as 4XyZ")


def places() -> Places:
    made = Places(
        Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "connectors": {"mail": {}},
            }
        ),
        Texts("en"),
    )
    made.management = "!operators"
    return made


async def test_the_log_says_what_the_server_called_a_message_and_nobodys_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there = ConnectorDestination.__new__(ConnectorDestination)
    there.name, there._connector, there._deferred = "mail", Smarthost(), set()  # type: ignore[assignment]
    with caplog.at_level(logging.INFO, "bridge.departures"):
        await there.deliver(ROW)
    (line,) = map(Lines().format, caplog.records)
    assert f"uid={ROW.uid}" in line
    assert line.endswith('reply="250 2.0.0 queued as 4XyZ"')
    assert "@" not in line


@pytest.mark.parametrize(("uid", "named"), [("", ROW.uid), ("kept", "kept")])
async def test_operators_hear_of_a_dead_letter_by_the_name_it_is_kept_under(
    tmp_path: Path, uid: str, named: str
) -> None:
    def rule(tx: Tx) -> list[Post]:
        places().tell_dead_letter(tx, ROW, "!room", "550 no such user", uid)
        return [payload.load(Post, row.payload) for row in tx.queue.fresh]

    async with store.opened(tmp_path) as memory:
        (post,) = await memory.transact(rule)
    assert post.room == "!operators"
    assert "draft to mail" in post.body
    assert "550 no such user (passerelle dead-letters show " + named in post.body
