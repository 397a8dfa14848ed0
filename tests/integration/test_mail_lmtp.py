"""Mail that a real Postfix hands over by LMTP: an answer for each recipient, and nothing lost, nothing twice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bridge.testing.contract import word
from tests.conftest import ABSENT
from tests.peers import free_port
from tests.peers.mailroom import CAROL, SALES, SUPPORT, mailroom, settings, written
from tests.peers.postfix import Postfix

pytestmark = pytest.mark.debian("postfix", "postconf")
NOBODY = "nobody@company.example"


@pytest.fixture(scope="module")
def port() -> int:
    """Where the bridge listens."""
    return free_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postfix(port: int) -> AsyncIterator[Postfix]:
    if os.getuid() != 0:
        pytest.skip(f"{ABSENT} postfix, and root to run it")
    async with Postfix(f"lmtp:inet:127.0.0.1:{port}") as running:
        yield running


def at(folder: Path, port: int, **more: Any) -> Any:
    """A bridge with two mailboxes that listens there."""
    boxes = ({"address": SUPPORT}, {"address": SALES})
    return mailroom(folder, settings(None, *boxes, listen_lmtp=f"127.0.0.1:{port}", **more))


async def test_a_mail_comes_through_postfix_and_is_shown_once(postfix: Postfix, port: int, tmp_path: Path) -> None:
    async with at(tmp_path, port) as office:
        said = word()
        await postfix.post(CAROL, [SUPPORT], written(said))
        await office.shown(said)
        (line,) = await postfix.tried(f"to=<{SUPPORT}>", "relay=127.0.0.1", "status=sent (250 2.0.0 kept as")
        assert line
        await postfix.is_empty()


async def test_who_is_refused_keeps_nobody_else_from_the_mail_nor_brings_it_twice(
    postfix: Postfix, port: int, tmp_path: Path
) -> None:
    async with at(tmp_path, port) as office:
        said, number = word(), len(postfix.log())
        await postfix.post(CAROL, [SUPPORT, NOBODY, SALES], written(said))
        await office.shown(said)
        await postfix.tried(f"to=<{NOBODY}>", "status=bounced", "550 5.1.1 no such mailbox here")
        await postfix.is_empty()
        tries = [line.partition("to=<")[2].partition(">")[0] for line in postfix.log()[number:]]
        assert sorted(each for each in tries if each != CAROL) == sorted([SUPPORT, NOBODY, SALES])
        assert len(office.posts(said)) == 1


async def test_one_recipient_that_has_to_wait_gets_the_mail_later_and_the_other_does_not_get_it_again(
    postfix: Postfix, port: int, tmp_path: Path
) -> None:
    async with at(tmp_path, port, rate=1) as office:
        first, said, number = word(), word(), len(postfix.log())
        await postfix.post(CAROL, [SALES], written(first))
        await office.shown(first)
        await postfix.post(CAROL, [SUPPORT, SALES], written(said))
        await office.shown(said)
        await postfix.tried(f"to=<{SALES}>", "status=deferred", "450 4.7.1")
        office.mail.receiver._seen.clear()  # type: ignore[union-attr]
        await postfix.tried(f"to=<{SALES}>", "status=sent", count=2)
        await postfix.is_empty()
        sent = [line for line in postfix.log()[number:] if f"to=<{SUPPORT}>" in line and "status=sent" in line]
        assert len(sent) == 1
        assert len(office.posts(said)) == 1


async def test_postfix_keeps_the_mail_while_the_bridge_is_down_and_brings_it_once(
    postfix: Postfix, port: int, tmp_path: Path
) -> None:
    async with at(tmp_path, port) as office:
        said = word()
        await office.stop()
        await postfix.post(CAROL, [SUPPORT], written(said))
        await postfix.tried(f"to=<{SUPPORT}>", "status=deferred", "Connection refused")
        await office.start()
        await office.shown(said)
        await postfix.is_empty()


async def test_a_mail_that_cannot_be_written_down_is_brought_again_and_shown_once(
    postfix: Postfix, port: int, tmp_path: Path
) -> None:
    async with at(tmp_path, port) as office:
        said, take = word(), office.mail.port.accept

        async def full(_: object) -> None:
            raise OSError(28, "No space left on device")

        office.mail.port.accept = full  # type: ignore[method-assign]
        await postfix.post(CAROL, [SUPPORT, SALES], written(said))
        await postfix.tried(f"to=<{SALES}>", "status=deferred", "451 4.3.0 trouble here")
        office.mail.port.accept = take  # type: ignore[method-assign]
        await office.shown(said)
        await postfix.is_empty()
        assert len(office.posts(said)) == 1


@pytest.fixture
def socket() -> Iterator[Path]:
    """The path of a socket that other users may reach."""
    with tempfile.TemporaryDirectory(prefix="lmtp-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "lmtp.sock"


async def test_postfix_hands_over_mail_through_a_socket_whose_folder_it_may_enter(socket: Path, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip(f"{ABSENT} postfix, and root to run it")
    config = settings(None, {"address": SUPPORT}, listen_lmtp=str(socket), trusted_relays=["10.0.0.0/8"])
    async with Postfix(f"lmtp:unix:{socket}") as own, mailroom(tmp_path, config) as office:
        said = word()
        await own.post(CAROL, [SUPPORT], written(said))
        await office.shown(said)
        assert not [line for line in own.log() if "status=sent" not in line]
