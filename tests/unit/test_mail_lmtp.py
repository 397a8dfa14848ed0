"""LMTP over real sockets: one answer for each recipient, in their order, and each true alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.model import Envelope, Rejected
from plugins.mail.receive import Receiver
from tests.unit.test_mail_receive import MAIL, SALES, SUPPORT, Line, Mails, Port, config

PLUS = "support+x@company.example"


@pytest.fixture
def port() -> Port:
    return Port()


@asynccontextmanager
async def calling(port: Port, **changes: Any) -> AsyncIterator[Line]:
    settings = config(listen="", listen_lmtp="127.0.0.1:0", **changes)
    async with Receiver("mail", settings, port, Mails()) as receiver:  # type: ignore[arg-type]
        line = Line(*await asyncio.open_connection("127.0.0.1", receiver.lmtp_port, limit=2**20))
        assert (await line.hear()).endswith("LMTP Passerelle")
        await line.say("LHLO client.example")
        yield line
        line.writer.close()


async def answers(line: Line, count: int, raw: bytes = MAIL) -> list[str]:
    """The answers to a mail, and that no more come."""
    first = await line.say(raw + b".")
    found = [first, *[await line.hear() for _ in range(count - 1)]]
    assert await line.say("NOOP") == "250 2.0.0 ok"
    return found


async def test_each_recipient_gets_an_answer(port: Port) -> None:
    async with calling(port) as line:
        await line.begin(SUPPORT, "nobody@company.example", SALES, PLUS)
        found = await answers(line, 3)
        assert all(each.startswith("250 2.0.0 kept as") for each in found)
        (one,) = port.accepted
        assert one.scopes == (SUPPORT, SALES)


async def test_a_greeting_of_smtp_is_refused(port: Port) -> None:
    """RFC 2033 4.1"""
    async with calling(port) as line:
        for verb in ("EHLO", "HELO"):
            assert (await line.say(f"{verb} client.example")).startswith("500")
        assert "250-PIPELINING" in await line.say("LHLO client.example")


async def test_without_a_recipient_there_is_no_mail(port: Port) -> None:
    """RFC 2033 4.2"""
    async with calling(port) as line:
        assert (await line.begin("nobody@company.example")).startswith("503")


async def test_a_mail_that_is_too_large_is_refused_for_each(port: Port) -> None:
    async with calling(port, max_size=1000) as line:
        await line.begin(SUPPORT, SALES)
        found = await answers(line, 2, MAIL + b"x" * 2000 + b"\r\n")
        assert [each[:9] for each in found] == ["552 5.3.4"] * 2


async def test_a_mailbox_that_has_just_lost_its_room_is_refused_and_the_other_is_not(port: Port) -> None:
    async with calling(port) as line:
        await line.begin(SALES, SUPPORT, PLUS)
        port.mapped = frozenset({SUPPORT})
        found = await answers(line, 3)
        assert [each[:9] for each in found] == ["550 5.1.1", "250 2.0.0", "250 2.0.0"]
        assert [each.scopes for each in port.accepted] == [(SUPPORT,)]


class Choosy(Port):
    """A bridge whose rules take what is for support alone; for sales there is trouble, or no room."""

    def __init__(self, trouble: Exception) -> None:
        super().__init__()
        self.sales = trouble

    async def accept(self, envelope: Envelope) -> None:
        if len(envelope.scopes) > 1:
            raise Rejected("not for all of them")
        if envelope.scopes == (SALES,):
            raise self.sales
        await super().accept(envelope)


@pytest.mark.parametrize(("trouble", "said"), [(Rejected("no room"), "550 5.7.1"), (OSError(28, "full"), "451 4.3.0")])
async def test_what_is_refused_for_one_is_taken_for_the_other(trouble: Exception, said: str) -> None:
    port = Choosy(trouble)
    async with calling(port) as line:
        await line.begin(SUPPORT, SALES)
        assert [each[:9] for each in await answers(line, 2)] == ["250 2.0.0", said]
        assert [each.scopes for each in port.accepted] == [(SUPPORT,)]


async def test_trouble_of_ours_is_temporary_for_each(port: Port) -> None:
    port.trouble = OSError(28, "No space left on device")
    async with calling(port) as line:
        await line.begin(SUPPORT, SALES)
        assert [each[:9] for each in await answers(line, 2)] == ["451 4.3.0"] * 2


async def test_yes_is_said_only_after_the_commit(port: Port) -> None:
    async with calling(port) as line:
        await line.begin(SUPPORT, SALES)
        port.gate.clear()
        line.writer.write(MAIL + b".\r\n")
        await port.reached.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(line.reader.readline(), 0.05)
        port.gate.set()
        assert [(await line.hear())[:3] for _ in range(2)] == ["250", "250"]


async def test_smtp_and_lmtp_are_listened_to_side_by_side(port: Port) -> None:
    settings = config(listen="127.0.0.1:0", listen_lmtp="[::1]:0")
    async with Receiver("mail", settings, port, Mails()) as receiver:  # type: ignore[arg-type]
        assert receiver.listening
        assert receiver.port != receiver.lmtp_port != 0
