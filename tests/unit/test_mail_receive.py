"""Mail that arrives: the SMTP conversation over real sockets, and what an envelope is made of."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiosmtplib import SMTP

from bridge.model import Address, Author, Envelope, File, Rejected, Report
from plugins.mail import Mail, identity, read, smtp
from plugins.mail.arrival import Arrival, envelope, is_echo
from plugins.mail.config import Config
from plugins.mail.receive import Receiver
from plugins.mail.write import Memo
from tests.unit.test_mail_send import certify

UID = "abcdefghij234567abcd"
SUPPORT, SALES = "support@company.example", "sales@company.example"
MAIL = (
    b"From: Claire Dupont <claire@customer.example>\r\n"
    b"To: support@company.example\r\n"
    b"Subject: Printer on fire\r\n"
    b"Message-ID: <q1@customer.example>\r\n"
    b"Date: Mon, 21 Sep 2026 12:13:20 +0000\r\n"
    b"\r\n"
    b"It burns.\r\n"
)


def sign(text: str) -> str:
    digest = hashlib.sha256(b"key" + text.encode()).digest()
    return "".join("abcdefghijklmnopqrstuvwxyz234567"[byte % 32] for byte in digest[:16])


OURS = identity.message_id(UID, SUPPORT, sign)
ANSWER = identity.plus_address("r", UID, SUPPORT, sign)
BOUNCE = identity.plus_address("b", UID, SUPPORT, sign)


class Spool:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def keep(self, name: str, type: str, data: bytes) -> File:
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return File(name, type, len(data), digest)

    async def read(self, file: File) -> bytes:
        return self.files[file.hash]

    def stream(self, file: File) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def path(self, file: File) -> Path:
        raise NotImplementedError


class Port:
    """A bridge that remembers what it accepted; `trouble` is raised instead, `gate` holds it up."""

    def __init__(self) -> None:
        self.spool = Spool()
        self.accepted: list[Envelope] = []
        self.mapped = frozenset((SUPPORT, SALES))
        self.trouble: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def accept(self, envelope: Envelope) -> None:
        self.reached.set()
        await self.gate.wait()
        if self.trouble:
            raise self.trouble
        self.accepted.append(envelope)

    def scopes(self) -> frozenset[str]:
        return self.mapped

    def sign(self, text: str) -> str:
        return sign(text)


class Mails(read.Reader):
    """Reads in this process: what the real reader does with hostile mail is tested with it."""

    async def read(self, raw: bytes) -> read.Mail:
        return read.read(raw)


def config(**changes: Any) -> Config:
    boxes = [{"address": SUPPORT}, {"address": SALES}]
    settings = {"listen": "127.0.0.1:0", "hostname": "bridge.example", "mailboxes": boxes, "smarthost": {"host": "x"}}
    return Config.model_validate(settings | changes)


@asynccontextmanager
async def receiving(port: Port, **changes: Any) -> AsyncIterator[Receiver]:
    async with Receiver("mail", config(**changes), port, Mails()) as receiver:
        yield receiver


class Line:
    """A raw SMTP client: says bytes, hears answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hear(self) -> str:
        """One answer; "" when the connection has ended."""
        lines = [await asyncio.wait_for(self.reader.readline(), 5)]
        while lines[-1][3:4] == b"-":
            lines.append(await asyncio.wait_for(self.reader.readline(), 5))
        return b"".join(lines).decode().strip()

    async def say(self, data: bytes | str) -> str:
        self.writer.write((data.encode() if isinstance(data, str) else data) + b"\r\n")
        return await self.hear()

    async def begin(self, *recipients: str, sender: str = "claire@customer.example") -> str:
        """MAIL, RCPT and DATA; returns the last answer."""
        await self.say(f"MAIL FROM:<{sender}>")
        for recipient in recipients or (SUPPORT,):
            await self.say(f"RCPT TO:<{recipient}>")
        return await self.say("DATA")

    async def mail(self, raw: bytes = MAIL, *recipients: str, sender: str = "claire@customer.example") -> str:
        said = await self.begin(*recipients, sender=sender)
        return await self.say(raw + b".") if said.startswith("354") else said


@asynccontextmanager
async def calling(receiver: Receiver, ehlo: bool = True) -> AsyncIterator[Line]:
    line = Line(*await asyncio.open_connection("127.0.0.1", receiver.port, limit=2**20))
    try:
        if ehlo:
            await line.hear()
            await line.say("EHLO client.example")
        yield line
    finally:
        line.writer.close()


@pytest.fixture
def port() -> Port:
    return Port()


# --- commands that come together ---


async def test_commands_that_come_together_are_answered_one_by_one(port: Port) -> None:
    commands = ["MAIL FROM:<c@customer.example>", f"RCPT TO:<{SUPPORT}>", "RCPT TO:<x@y.example>", f"RCPT TO:<{SALES}>"]
    async with receiving(port) as receiver, calling(receiver) as line:
        line.writer.write("".join(f"{command}\r\n" for command in [*commands, "DATA"]).encode())
        assert [(await line.hear())[:3] for _ in range(5)] == ["250", "250", "550", "250", "354"]
        assert (await line.say(MAIL + b".")).startswith("250")
    assert port.accepted[0].scopes == (SUPPORT, SALES)


async def test_a_yes_does_not_wait_for_the_rest_of_a_command(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        line.writer.write(b"MAIL FROM:<c@customer.example>\r\nRCPT T")
        assert (await line.hear()).startswith("250 2.1.0")
        assert (await line.say(f"O:<{SUPPORT}>")).startswith("250 2.1.5")


# --- saying yes ---


async def test_yes_is_said_only_after_the_bridge_has_written_the_mail_down(port: Port) -> None:
    port.gate.clear()
    async with receiving(port) as receiver, calling(receiver) as line:
        await line.begin()
        line.writer.write(MAIL + b".\r\n")
        await port.reached.wait()
        assert line.reader._buffer == b""  # type: ignore[attr-defined]
        port.gate.set()
        assert (await line.hear()).startswith("250 2.0.0 kept as")
    assert [one.id for one in port.accepted] == ["<q1@customer.example>"]


@pytest.mark.parametrize("trouble", [RuntimeError("bug"), OSError("disk full"), TimeoutError(), ConnectionResetError()])
async def test_trouble_of_ours_never_refuses_a_mail_for_good(port: Port, trouble: Exception) -> None:
    port.trouble = trouble
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.mail()).startswith("451 4.3.0")
        port.trouble = None
        assert (await line.mail()).startswith("250")
    assert len(port.accepted) == 1


async def test_trouble_of_the_reader_or_the_spool_never_refuses_a_mail_for_good(port: Port) -> None:
    class Broken(Spool):
        async def keep(self, name: str, type: str, data: bytes) -> File:
            raise OSError("no space left")

    port.spool = Broken()
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.mail()).startswith("451 4.3.0")


async def test_a_mail_that_the_bridge_rejects_is_refused_with_its_reason_in_one_line(port: Port) -> None:
    port.trouble = Rejected("no room takes it\r\n250 ok é " + "x" * 1000)
    async with receiving(port) as receiver, calling(receiver) as line:
        said = await line.mail()
        assert said.startswith("550 5.7.1 no room takes it 250 ok")
        assert len(said) < 512
        port.trouble = None
        assert (await line.mail()).startswith("250")


async def test_two_mails_of_one_connection_have_nothing_in_common(port: Port) -> None:
    second = MAIL.replace(b"q1@", b"q2@").replace(b"claire@", b"bob@")
    async with receiving(port) as receiver, calling(receiver) as line:
        await line.mail(MAIL, ANSWER, SALES)
        await line.mail(second, SALES, sender="bob@customer.example")
        assert (await line.say("DATA")).startswith("503")
        assert (await line.say(f"RCPT TO:<{SUPPORT}>")).startswith("503")
    first, last = port.accepted
    assert (first.scopes, bool(first.proof)) == ((SUPPORT, SALES), True)
    assert (last.scopes, last.proof, last.author.account) == ((SALES,), (), "bob@customer.example")


async def test_one_mail_to_several_mailboxes_is_one_envelope(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.mail(MAIL, SALES, "Support+x@Company.example", SUPPORT)).startswith("250")
    assert [one.scopes for one in port.accepted] == [(SALES, SUPPORT)]


async def test_a_mailbox_that_loses_its_room_between_rcpt_and_data_is_not_accepted_with_the_others(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        for said in ("EHLO x", "MAIL FROM:<bob@customer.example>", f"RCPT TO:<{SUPPORT}>", f"RCPT TO:<{SALES}>"):
            assert (await line.say(said)).startswith("250")
        port.mapped = frozenset((SALES,))
        assert (await line.say("DATA")).startswith("354")
        assert (await line.say(MAIL + b"\r\n.")).startswith("451")
        assert not port.accepted
        assert (await line.say("MAIL FROM:<bob@customer.example>")).startswith("250")
        assert (await line.say(f"RCPT TO:<{SUPPORT}>")).startswith("550")


async def test_bytes_arrive_as_they_were_sent_whatever_their_lines(port: Port) -> None:
    odd = (
        MAIL
        + b"..two\r\n.\r\r\n.dot\r\n"
        + b"x" * 300_000
        + b"\r\n\xff\x00\rlone\nends.\r\n"
        + b"end.\r\n" * 100
        + b".\r\n"
    )
    stuffed = odd.replace(b"\r\n.", b"\r\n..")
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.mail(stuffed)).startswith("250")
        assert (await line.mail(b"")).startswith("250")
        assert (await line.mail(b"..\r\n")).startswith("250")
    kept = [port.spool.files[one.original.hash] for one in port.accepted if one.original]
    assert kept == [odd, b"", b".\r\n"]


async def test_any_bytes_in_any_pieces_arrive_as_they_were_sent(port: Port) -> None:
    chance = random.Random(1)
    sent = []
    async with receiving(port, rate=0) as receiver, calling(receiver) as line:
        for _ in range(300):
            raw = bytes(chance.choices(b"\r\n.x", weights=(4, 4, 4, 1), k=chance.randrange(12))) + b"\r\n"
            sent.append(raw)
            await line.begin()
            stuffed = b"." * raw.startswith(b".") + raw.replace(b"\r\n.", b"\r\n..") + b".\r\n"
            cut = chance.randrange(len(stuffed))
            line.writer.write(stuffed[:cut])
            await asyncio.sleep(0)
            line.writer.write(stuffed[cut:])
            assert (await line.hear()).startswith("250"), raw
    assert [port.spool.files[one.original.hash] for one in port.accepted if one.original] == sent


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r"])
async def test_only_crlf_dot_crlf_ends_a_mail_so_that_none_is_smuggled_in(port: Port, end: bytes) -> None:
    smuggled = b"MAIL FROM:<boss@company.example>\r\nRCPT TO:<sales@company.example>\r\nDATA\r\nSubject: pay\r\n\r\n"
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.mail(MAIL.rstrip() + end + smuggled)).startswith("250")
        assert (await line.say("NOOP")).startswith("250")
    [one] = port.accepted
    assert one.scopes == (SUPPORT,)
    assert one.original is not None
    assert b"RCPT TO:<sales" in port.spool.files[one.original.hash]


async def test_a_mail_may_come_in_small_pieces(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        await line.begin()
        for byte in MAIL + b".\r\n":
            line.writer.write(bytes([byte]))
            await line.writer.drain()
            await asyncio.sleep(0)
        assert (await line.hear()).startswith("250")
    assert port.accepted[0].text.strip() == "It burns."


async def test_commands_may_come_together(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        commands = f"MAIL FROM:<a@b.example>\r\nRCPT TO:<{SUPPORT}>\r\nRCPT TO:<x@y.example>\r\nDATA"
        answers = [await line.say(commands), await line.hear(), await line.hear(), await line.hear()]
        assert [answer[:3] for answer in answers] == ["250", "250", "550", "354"]
        answers = [await line.say(MAIL + b".\r\nMAIL FROM:<>\r\nQUIT"), await line.hear(), await line.hear()]
        assert [answer[:3] for answer in answers] == ["250", "250", "221"]


# --- saying no ---


async def test_the_limits_are_announced_and_a_large_mail_is_refused_at_once(port: Port) -> None:
    async with receiving(port, max_size="25 MB") as receiver, calling(receiver, ehlo=False) as line:
        await line.hear()
        said = await line.say("EHLO client.example")
        assert "SIZE 25000000" in said
        assert "SMTPUTF8" in said
        assert "AUTH" not in said
        large = await line.say("MAIL FROM:<a@b.example> BODY=8BITMIME SIZE=25000001")
        assert large == "552 5.3.4 this message is larger than the 25 MB this server takes"
        assert (await line.say("MAIL FROM:<a@b.example> SIZE=25000000")).startswith("250")


async def test_a_mail_that_grows_too_large_is_refused_naming_the_limit_and_the_next_is_taken(port: Port) -> None:
    async with receiving(port, max_size=100_000) as receiver, calling(receiver) as line:
        large = MAIL + b"x" * 70 + b"\r\n" * 2 + b"y" * 200_000 + b"\r\n"
        assert await line.mail(large) == "552 5.3.4 this message is larger than the 100 kB this server takes"
        assert receiver.held == 0
        exact = MAIL + b"x" * (100_000 - len(MAIL) - 2) + b"\r\n"
        assert (await line.mail(exact)).startswith("250")
        assert (await line.mail(b"x" + exact)).startswith("552")
    assert len(port.accepted) == 1


async def test_much_mail_at_once_is_asked_to_wait(port: Port) -> None:
    async with receiving(port, max_size=100_000) as receiver, calling(receiver) as line:
        receiver.held = 8 * 100_000
        assert (await line.mail()).startswith("452 4.3.1")
        receiver.held = 0
        assert (await line.mail()).startswith("250")
        assert receiver.held == 0


async def test_addresses_that_no_room_is_mapped_to_are_refused(port: Port) -> None:
    port.mapped = frozenset((SUPPORT,))
    async with receiving(port) as receiver, calling(receiver) as line:
        await line.say("MAIL FROM:<a@b.example>")
        for address in (SALES, "support@other.example", "x@company.example", "", "support"):
            assert (await line.say(f"RCPT TO:<{address}>")).startswith("550 5.1.1"), address
        for address in ("SUPPORT@Company.Example", "support+anything@company.example", ANSWER.upper(), BOUNCE):
            assert (await line.say(f"RCPT TO:<{address}>")).startswith("250"), address
        assert (await line.say('RCPT TO: <"a b"@company.example>')).startswith("550")
        assert (await line.say(f"RCPT TO:<@relay.example:{SUPPORT}>")).startswith("250")
        assert (await line.say("RCPT TO:<a b>")).startswith("5")


async def test_an_address_with_accents_may_write(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.say("MAIL FROM:<zoë@exämple.example> SMTPUTF8")).startswith("250")
        assert (await line.say(f"RCPT TO:<{SUPPORT}>")).startswith("250")


async def test_a_loop_is_slowed_down_and_others_are_not(port: Port) -> None:
    async with receiving(port, rate=2) as receiver, calling(receiver) as line:
        for _ in range(2):
            assert (await line.mail()).startswith("250")
        await line.say("MAIL FROM:<Claire@customer.example>")
        assert (await line.say(f"RCPT TO:<{SUPPORT}>")).startswith("450 4.7.1")
        assert (await line.say(f"RCPT TO:<{SALES}>")).startswith("250")
        await line.say("RSET")
        assert (await line.mail(sender="bob@customer.example")).startswith("250")
        receiver._window -= 601
        assert (await line.mail()).startswith("250")
    async with receiving(port, rate=0) as receiver, calling(receiver) as line:
        for _ in range(5):
            assert (await line.mail()).startswith("250")


async def test_bounces_are_nobodys_loop(port: Port) -> None:
    async with receiving(port, rate=2) as receiver, calling(receiver) as line:
        for _ in range(5):
            assert (await line.mail(sender="")).startswith("250")
        assert not receiver._seen
    assert all(one.automatic for one in port.accepted)


async def test_connections_beyond_the_limit_are_asked_to_come_back(port: Port) -> None:
    async with receiving(port, max_connections=1) as receiver:
        async with calling(receiver) as line:
            async with calling(receiver, ehlo=False) as other:
                assert (await other.hear()).startswith("421 4.7.0")
                assert await other.hear() == ""
            assert (await line.mail()).startswith("250")
            await line.say("QUIT")
            assert await line.hear() == ""
        async with calling(receiver) as line:
            assert (await line.mail()).startswith("250")


async def test_one_network_does_not_take_the_place_of_others(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the connections for one address, a quarter for its network, unless our own relays are named."""
    peer = ["192.0.2.1"]
    monkeypatch.setattr(smtp.Session, "_peer", lambda self, transport: peer[0])
    near = "421 4.7.0 too many connections from your network, try again later"

    async with receiving(port, max_connections=16) as receiver, AsyncExitStack() as open_ones:

        async def call(address: str) -> str:
            peer[0] = address
            return await (await open_ones.enter_async_context(calling(receiver, ehlo=False))).hear()

        assert [(await call("192.0.2.1"))[:3] for _ in range(2)] == ["220"] * 2
        assert await call("192.0.2.1") == near
        assert [(await call("::ffff:192.0.2.2"))[:3] for _ in range(2)] == ["220"] * 2
        assert await call("192.0.2.3") == near
        assert [(await call(f"2001:db8::{n}"))[:3] for n in range(4)] == ["220"] * 4
        assert await call("2001:db8::ffff:1") == near
        assert (await call("2001:db8:0:1::1")).startswith("220")
        assert [(await call("127.0.0.1"))[:3] for _ in range(5)] == ["220"] * 5
        await open_ones.aclose()
        async with asyncio.timeout(10):
            while receiver._sessions:
                await asyncio.sleep(0.01)
        assert not receiver._from
        assert (await call("192.0.2.1")).startswith("220")
    async with receiving(port, max_connections=16, trusted_relays=["192.0.2.0/24"]) as receiver:
        peer[0] = "192.0.2.1"
        async with AsyncExitStack() as open_ones:
            for _ in range(8):
                line = await open_ones.enter_async_context(calling(receiver, ehlo=False))
                assert (await line.hear()).startswith("220")


async def test_who_says_a_mail_letter_by_letter_does_not_say_it_for_ever(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "SILENCE", 0.5)
    monkeypatch.setattr(smtp, "LONGEST", 1.0)
    async with receiving(port) as receiver, calling(receiver) as line:
        await line.begin()
        [session] = receiver._sessions
        async with asyncio.timeout(30):
            while not session.gone.done():
                line.writer.write(b"x")
                await asyncio.sleep(0.02)
        assert (receiver.held, port.accepted) == (0, [])


async def test_a_flood_of_senders_takes_little_memory(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.mail.receive.MOST_SENDERS", 10)
    async with receiving(port) as receiver, calling(receiver) as line:
        for number in range(50):
            await line.say(f"MAIL FROM:<{'x' * 1000}{number}@{number}.example>")
            await line.say(f"RCPT TO:<{SUPPORT}>")
            await line.say("RSET")
            assert len(receiver._seen) <= 10
        assert all(len(sender) <= 320 for sender, _ in receiver._seen)


async def test_only_trusted_relays_may_hand_over_mail(port: Port) -> None:
    async with receiving(port, trusted_relays=["10.0.0.0/8"]) as receiver, calling(receiver, ehlo=False) as line:
        assert (await line.hear()).startswith("554 5.7.1")
        assert await line.hear() == ""
    async with receiving(port, trusted_relays=["127.0.0.0/8"]) as receiver, calling(receiver) as line:
        assert (await line.mail()).startswith("250")


async def test_a_silent_connection_is_told_goodbye(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "SILENCE", 0.05)
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.hear()).startswith("421 4.4.2")
        assert await line.hear() == ""


async def test_nonsense_is_answered_and_does_no_harm(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        for words in (
            "DATA",
            "RCPT TO:<x>",
            "MAIL",
            "MAIL FROM:",
            "BLAH",
            "MAIL FROM:<a@b> X=Y",
            "AUTH PLAIN AGEAYg==",
        ):
            assert (await line.say(words))[0] == "5"
        assert (await line.say(b"\xff\xfe")).startswith("5")
        assert (await line.say(b"NOOP " + b"x" * 300_000)).startswith("5")
        assert (await line.mail()).startswith("250")


async def test_a_connection_cut_inside_a_mail_leaves_nothing(port: Port) -> None:
    async with receiving(port) as receiver:
        async with calling(receiver) as line:
            await line.begin()
            line.writer.write(MAIL)
            await line.writer.drain()
            [session] = receiver._sessions
        await asyncio.wait_for(session.gone, 5)
        assert (port.accepted, receiver.held) == ([], 0)


async def test_a_connection_cut_while_its_mail_is_written_down_takes_its_place_until_that_has_ended(port: Port) -> None:
    port.gate.clear()
    async with receiving(port, max_connections=1) as receiver:
        async with calling(receiver) as line:
            await line.begin()
            line.writer.write(MAIL + b".\r\n")
            await port.reached.wait()
            [session] = receiver._sessions
            line.writer.transport.abort()
        async with calling(receiver, ehlo=False) as other:
            assert (await other.hear()).startswith("421 4.7.0")
        port.gate.set()
        await asyncio.wait_for(session.gone, 5)
        assert (len(port.accepted), receiver.held, receiver._sessions) == (1, 0, set())


async def test_a_bug_in_a_command_refuses_nobody_for_good(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        await line.say("MAIL FROM:<a@b.example>")
        with monkeypatch.context() as broken:
            broken.setattr(port, "mapped", None)
            assert (await line.say(f"RCPT TO:<{SUPPORT}>")).startswith("451 4.3.0")
        assert (await line.say(f"RCPT TO:<{SUPPORT}>")).startswith("250")


# --- stopping ---


async def test_stopping_lets_a_mail_end_and_sends_the_others_away(port: Port) -> None:
    port.gate.clear()
    receiver = Receiver("mail", config(), port, Mails())
    await receiver.__aenter__()
    async with calling(receiver) as busy, calling(receiver) as idle:
        await busy.begin()
        busy.writer.write(MAIL + b".\r\n")
        await port.reached.wait()
        stopping = asyncio.create_task(receiver.stop())
        assert (await idle.hear()).startswith("421 4.3.2")
        assert await idle.hear() == ""
        assert not stopping.done()
        port.gate.set()
        assert (await busy.hear()).startswith("250")
        assert (await busy.hear()).startswith("421 4.3.2")
        await stopping
    assert len(port.accepted) == 1
    assert receiver.port == 0


async def test_stopping_lets_a_mail_come_to_its_end(port: Port) -> None:
    async with receiving(port) as receiver, calling(receiver) as line:
        await line.begin()
        line.writer.write(MAIL)
        stopping = asyncio.create_task(receiver.stop())
        await asyncio.sleep(0)
        assert (await line.say(".\r\nNOOP")).startswith("250 2.0.0 kept as")
        assert [await line.hear(), await line.hear()] == [smtp.STOPPING, ""]
        await stopping
    assert len(port.accepted) == 1


async def test_stopping_does_not_wait_for_ever(port: Port) -> None:
    port.gate.clear()
    receiver = Receiver("mail", config(), port, Mails())
    await receiver.__aenter__()
    async with calling(receiver) as line:
        await line.begin()
        line.writer.write(MAIL + b".\r\n")
        await port.reached.wait()
        await receiver.stop(grace=0.01)
        with pytest.raises((ConnectionError, AssertionError)):
            assert await line.hear() != ""
        assert (receiver.held, receiver._sessions) == (0, set())
    assert port.accepted == []


async def test_the_connector_listens_until_it_is_cancelled(port: Port) -> None:
    mail = Mail("mail", config(), port)
    assert not mail.started()
    running = asyncio.create_task(mail.run())
    while not mail.started():
        await asyncio.sleep(0)
    assert mail.receiver is not None
    async with calling(mail.receiver) as line:
        assert (await line.mail()).startswith("250")
        assert any("taking mail" in found.what for found in await mail.check())
        running.cancel()
        assert (await line.hear()).startswith("421")
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not mail.started()
    assert [one.title for one in port.accepted] == ["Printer on fire"]


# --- TLS ---


async def over_tls(port: Port, certificate: Path) -> None:
    async with receiving(port, certificate=str(certificate)) as receiver:
        client = SMTP(hostname="localhost", port=receiver.port, start_tls=True, cert_bundle=str(certificate))
        async with client:
            assert "starttls" not in client.esmtp_extensions
            await client.sendmail("a@b.example", [SUPPORT], MAIL)
            await client.sendmail("a@b.example", [SUPPORT], MAIL)
            await receiver.stop()
    assert len(port.accepted) == 2


async def test_mail_can_come_over_tls(port: Port, tmp_path: Path) -> None:
    await over_tls(port, certify(tmp_path))


def test_mail_can_come_over_tls_on_the_loop_that_production_runs(tmp_path: Path) -> None:
    async def main() -> None:
        await over_tls(Port(), certify(tmp_path))

    uvloop.run(main())


# --- envelopes ---


FROM = Address("Claire@Customer.example", "Claire Dupont")
READ = read.Mail(
    message_id="<q1@customer.example>",
    refs=(),
    subject="Printer on fire",
    sender=FROM,
    reply_to=(),
    to=(Address(SUPPORT),),
    cc=(),
    date=1_790_000_000.0,
    text="It burns.",
    html="",
    folded=3,
    parts=(),
    automatic=False,
    authentication=(),
    report=None,
    token="",
    problem="",
)
ARRIVAL = Arrival(MAIL, "claire@customer.example", (SUPPORT,), (SUPPORT,), 1_790_000_100.0)
ORIGINAL = File("Printer on fire.eml", "message/rfc822", 10, "ff")


def made(arrival: Arrival = ARRIVAL, settings: Config | None = None, **changes: Any) -> Envelope:
    return envelope("mail", settings or config(), sign, arrival, replace(READ, **changes), ORIGINAL, ())


def test_an_envelope_says_what_the_mail_said() -> None:
    one = made()
    assert (one.connector, one.scopes, one.id, one.title) == (
        "mail",
        (SUPPORT,),
        "<q1@customer.example>",
        "Printer on fire",
    )
    assert one.author == Author("mail", "claire@customer.example", "Claire Dupont", verified=False)
    assert (one.when, one.text, one.folded, one.original) == (1_790_000_000.0, "It burns.", 3, ORIGINAL)
    assert (one.refs, one.proof, one.automatic, one.report) == ((), (), False, None)


def test_the_same_mail_has_the_same_key_however_it_came() -> None:
    again = replace(ARRIVAL, raw=b"Received: x\r\n" + MAIL, scopes=(SALES,), when=0.0)
    assert made().key == made(again).key
    assert (
        len({made().key, made(message_id="<q2@x>").key, made(date=1.0).key, made(sender=Address("bob@x.example")).key})
        == 4
    )


def test_a_mail_without_an_id_gets_a_stable_one() -> None:
    one, other = made(message_id=""), made(replace(ARRIVAL, raw=b"other"), message_id="")
    assert one.id == made(message_id="").id != other.id
    assert one.id.startswith("<")
    assert one.id.endswith("@passerelle.invalid>")
    assert one.key == hashlib.sha256(MAIL).hexdigest()


def test_a_mail_is_never_from_the_future() -> None:
    assert made(date=9e9).when == ARRIVAL.when
    assert made(date=None).when == ARRIVAL.when


def test_only_the_mail_of_a_trial_itself_and_reports_about_it_are_a_trial() -> None:
    """Whoever answers one, or writes to where its answers and its bounces go, has something to say."""
    uid = identity.probe(UID)
    token, message_id = identity.signed(uid, sign), identity.message_id(uid, SUPPORT, sign)
    answers, bounces = (identity.plus_address(kind, uid, SUPPORT, sign) for kind in ("r", "b"))
    us = Address(SUPPORT)
    assert made(sender=us, message_id=message_id).probe == UID
    assert made(sender=us, token=token).probe == UID  # a relay gave it another id
    assert made(replace(ARRIVAL, sender="", recipients=(bounces,)), sender=Address("")).probe == UID
    assert not made(replace(ARRIVAL, recipients=(answers,)), refs=(message_id,)).probe
    assert not made(to=(Address(answers),)).probe
    assert not made(replace(ARRIVAL, recipients=(bounces,)), automatic=True).probe  # a vacation notice
    assert not made(token=token, message_id=message_id).probe  # by somebody else
    assert not made(sender=us, token=identity.signed(UID, sign)).probe


def test_people_are_the_other_recipients_once_each_without_us() -> None:
    to = (Address("SUPPORT+x@company.example"), Address("bob@b.example", "Bob"), Address(""))
    cc = (Address(SALES), Address("BOB@b.example"), Address("eve@e.example", "Eve"))
    found = made(to=to, cc=cc).people
    assert found == (Author("mail", "bob@b.example", "Bob"), Author("mail", "eve@e.example", "Eve"))


def test_what_carries_our_signature_belongs_beyond_doubt() -> None:
    assert made(refs=("<x@y.example>", OURS)).proof
    assert made(token=identity.signed(UID, sign)).proof
    assert made(replace(ARRIVAL, recipients=(ANSWER.upper(),))).proof
    assert made(to=(Address(ANSWER),)).proof
    assert not made(refs=(OURS.replace("abcdefghij", "abcdefghik"),), token=f"{UID}.aaaaaaaaaaaaaaaa").proof
    assert not made(to=(Address(f"support+r{UID}.aaaaaaaaaaaaaaaa@company.example"),)).proof


def test_a_signed_address_stands_for_the_message_it_was_made_for() -> None:
    assert made(to=(Address(ANSWER),), refs=("<rewritten@relay.example>",)).refs == (OURS, "<rewritten@relay.example>")
    assert made(replace(ARRIVAL, recipients=(BOUNCE,)), refs=(OURS,)).refs == (OURS,)


def test_the_sender_is_verified_by_our_own_mail_server_only() -> None:
    results = ("mx.company.example; dmarc=pass header.from=customer.example",)
    assert made(settings=config(authserv_id="mx.company.example"), authentication=results).author.verified
    assert not made(authentication=results).author.verified


def test_mail_without_a_return_path_is_automatic() -> None:
    assert made(replace(ARRIVAL, sender="")).automatic


def test_a_signed_bounce_address_names_the_message_that_bounced() -> None:
    bounced = replace(ARRIVAL, sender="", recipients=(BOUNCE,))
    said = Report("<other@x.example>", "ann@a.example", "550 unknown")
    assert made(bounced, report=said).report == Report(UID, "ann@a.example", "550 unknown")
    assert made(bounced, report=replace(said, failed=False)).report == Report(
        UID, "ann@a.example", "550 unknown", False
    )
    daemon = made(bounced, sender=Address("MAILER-DAEMON@a.example"), text="no such user").report
    assert daemon == Report(UID, "", "no such user")
    assert made(report=said).report == said


def test_a_vacation_notice_to_the_bounce_address_is_no_failure() -> None:
    one = made(replace(ARRIVAL, sender="", recipients=(BOUNCE,)), automatic=True)
    assert one.report is None
    assert one.refs == (OURS,)


def test_our_own_mail_that_comes_back_is_dropped_but_goes_between_mailboxes() -> None:
    own = replace(READ, message_id=OURS, sender=Address(SUPPORT))
    assert is_echo(own, (SUPPORT,), sign)
    assert is_echo(replace(own, message_id="<new@relay.example>", token=identity.signed(UID, sign)), (SUPPORT,), sign)
    assert not is_echo(own, (SALES,), sign)
    assert not is_echo(own, (SUPPORT, SALES), sign)
    assert not is_echo(replace(own, message_id="<x@y.example>"), (SUPPORT,), sign)


async def test_an_echo_is_acknowledged_and_not_shown(port: Port) -> None:
    own = MAIL.replace(b"<q1@customer.example>", OURS.encode()).replace(b"claire@customer.example", SUPPORT.encode())
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.mail(own)).startswith("250")
    assert port.accepted == []


def test_the_memo_has_what_an_answer_needs() -> None:
    cc = (Address("bob@b.example", "Bob"),)
    memo = made(reply_to=(Address("team@customer.example"),), cc=cc, text="x" * 5000).memo
    loaded = Memo.load(memo)
    assert loaded is not None
    assert loaded.sender == FROM
    assert (loaded.sender.name, loaded.reply_to, loaded.cc) == (
        "Claire Dupont",
        (Address("team@customer.example"),),
        cc,
    )
    assert (loaded.date, len(loaded.text)) == (READ.date, 2004)
    assert len(json.loads(memo)) == 6


async def test_files_and_the_whole_mail_are_kept(port: Port) -> None:
    raw = MAIL.replace(b"\r\n\r\nIt burns.\r\n", b"") + (
        b'\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain\r\n\r\nIt burns.\r\n"
        b'--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="a.pdf"\r\n\r\n'
        b"%PDF\r\n--b--\r\n"
    )
    async with receiving(port) as receiver, calling(receiver) as line:
        assert (await line.mail(raw)).startswith("250")
    [one] = port.accepted
    assert [(file.name, file.type, port.spool.files[file.hash]) for file in one.files] == [
        ("a.pdf", "application/pdf", b"%PDF")
    ]
    assert one.original is not None
    assert (one.original.name, one.original.type) == ("Printer on fire.eml", "message/rfc822")
    assert port.spool.files[one.original.hash] == raw


def test_making_an_envelope_costs_little() -> None:
    mail = replace(READ, refs=tuple(f"<{n}@x.example>" for n in range(5)), text="x" * 4000)
    settings = config(authserv_id="mx.company.example")
    begun = time.process_time()
    for _ in range(1000):
        envelope("mail", settings, sign, ARRIVAL, mail, ORIGINAL, ())
    assert (time.process_time() - begun) / 1000 < 0.003  # on a slow machine that does much else
