"""SMTP byte for byte: how lines are cut, what waits for what, and what a hostile client cannot do."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from plugins.mail import smtp
from plugins.mail.content import Content
from plugins.mail.smtp import Session, Transaction
from tests.unit.test_mail_send import certify

HELLO = b"EHLO client.example\r\n"
START = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<support@company.example>\r\nDATA\r\n"
MAIL = b"Subject: x\r\n\r\nhello\r\n.\r\n"


class Desk:
    """A server that takes everything and remembers it; `gate` holds it up."""

    name = "bridge.example"
    too_large = "552 5.3.4 too large"
    tls: ssl.SSLContext | None = None
    stopping = False

    def __init__(self, max_size: int = 100_000) -> None:
        self.max_size, self.max_held, self.held = max_size, 8 * max_size, 0
        self.mails: list[tuple[str, list[str], bytes]] = []
        self.sessions: list[Session] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def admit(self, session: Session, peer: str) -> str:
        self.sessions.append(session)
        return ""

    def recipient(self, transaction: Transaction, address: str) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 no such mailbox here"
        if address.startswith("bug"):
            raise RuntimeError("bug")
        transaction.recipients.append(address)
        return "250 2.1.5 recipient ok"

    async def take(self, transaction: Transaction, raw: bytes) -> str:
        await self.gate.wait()
        self.mails.append((transaction.sender, transaction.recipients, raw))
        return f"250 2.0.0 kept as {len(self.mails)}"


class Wire(asyncio.Transport):
    """The network, in memory: what was written, and whether anybody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.reading, self.closed, self.aborted = True, False, False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def said(self) -> list[str]:
        """The answers since the last time, by their codes."""
        lines, self.writes = b"".join(self.writes).decode().splitlines(), []
        return [line[:3] for line in lines if line[3:4] != "-"]


class Call:
    """A session on a wire in memory, past its greeting."""

    def __init__(self, desk: Desk, hello: bytes = HELLO) -> None:
        self.desk, self.wire, self.session = desk, Wire(), Session(desk)
        self.session.connection_made(self.wire)
        assert self.wire.said() == ["220"]
        if hello:
            assert self.say(hello) == ["250"]

    def say(self, data: bytes | str) -> list[str]:
        self.session.data_received(data.encode() if isinstance(data, str) else data)
        return self.wire.said()

    async def answered(self, data: bytes = b"") -> list[str]:
        """The answers, those to mails that are handed over included."""
        self.session.data_received(data)
        while self.session._task:
            await asyncio.sleep(0)
        return self.wire.said()


@pytest.fixture
async def desk() -> Desk:
    return Desk()


@pytest.fixture
async def call(desk: Desk) -> Call:
    return Call(desk)


# --- commands ---


async def test_an_answer_to_ehlo_lists_what_is_offered_and_no_login(desk: Desk) -> None:
    call = Call(desk, b"")
    call.session.data_received(b"ehlo client.example\r\n")
    lines = b"".join(call.wire.writes).decode().split("\r\n")
    assert lines == [
        "250-bridge.example",
        "250-SIZE 100000",
        "250-PIPELINING",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250 ENHANCEDSTATUSCODES",
        "",
    ]


async def test_every_answer_has_its_enhanced_status_code(call: Call) -> None:
    commands = b"NOOP VRFY HELP RSET RCPT MAIL DATA STARTTLS AUTH EXPN EHLO HELO BDAT "
    call.session.data_received(commands.replace(b" ", b"\r\n") + b"x" * 5000 + b"\r\n")
    call.session.data_received(b"MAIL FROM:<a@b> X\r\nMAIL FROM:<a@b> SIZE=999999\r\n" + START[:-6] + b"QUIT\r\n")
    for line in b"".join(call.wire.writes).decode().splitlines():
        assert re.fullmatch(r"([245])\d\d \1\.\d\.\d .+", line), line


async def test_commands_mean_the_same_in_any_case_and_whatever_stands_behind_them(call: Call) -> None:
    assert call.say("noop\r\nNoOp hello\r\nvrfy support\r\nhelp mail\r\nrset\r\n") == [
        "250",
        "250",
        "252",
        "214",
        "250",
    ]
    assert call.say("mail from:<a@b>\r\nrcpt to:<c@d>\r\ndata now\r\ndata \r\n") == ["250", "250", "501", "354"]


async def test_helo_will_do(desk: Desk) -> None:
    call = Call(desk, b"HELO client.example\r\n")
    assert await call.answered(START + MAIL) == ["250", "250", "354", "250"]


async def test_nothing_goes_without_a_name_a_sender_and_a_recipient(desk: Desk) -> None:
    call = Call(desk, b"")
    assert call.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n") == ["503", "503", "503"]
    assert call.say("EHLO\r\nHELO \r\nMAIL FROM:<a@b>\r\n") == ["501", "501", "503"]
    assert call.say(b"EHLO x\r\nRCPT TO:<c@d>\r\nMAIL FROM:<a@b>\r\nDATA\r\n") == ["250", "503", "250", "503"]
    assert call.say("RCPT TO:<nobody@d>\r\nDATA\r\nRCPT TO:<c@d>\r\nDATA\r\n") == ["550", "503", "250", "354"]


async def test_a_second_sender_is_refused_and_the_first_stays(desk: Desk, call: Call) -> None:
    begun = b"MAIL FROM:<first@b>\r\nMAIL FROM:<second@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    assert await call.answered(begun + MAIL) == ["250", "503", "250", "354", "250"]
    assert desk.mails[0][:2] == ("first@b", ["c@d"])


@pytest.mark.parametrize("word", ["RSET", "EHLO again.example", "HELO again.example"])
async def test_a_mail_can_be_forgotten(desk: Desk, call: Call, word: str) -> None:
    assert call.say(f"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n{word}\r\nDATA\r\n") == ["250", "250", "250", "503"]
    assert await call.answered(b"MAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nDATA\r\n" + MAIL) == ["250", "250", "354", "250"]
    assert [mail[:2] for mail in desk.mails] == [("e@f", ["g@h"])]


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("<>", ""),
        ("<a@b.example>", "a@b.example"),
        (" <a@b.example>", "a@b.example"),
        ("<@one.example,@two.example:a@b.example>", "a@b.example"),
        ("<user@[IPv6:2001:db8::1]>", "user@[IPv6:2001:db8::1]"),
        ('<"a b"@b.example>', '"a b"@b.example'),
        (r'<"a\">b"@b.example>', r'"a\">b"@b.example'),
        ("<zoë@exämple.example>", "zoë@exämple.example"),
        ("<bounces+a=b.example=x/y@c.example>", "bounces+a=b.example=x/y@c.example"),
        ("<postmaster>", "postmaster"),
    ],
)
async def test_paths_are_read_as_they_are_meant(desk: Desk, call: Call, path: str, address: str) -> None:
    begun = f"MAIL FROM:{path} SIZE=5\r\nRCPT TO:{path}\r\nDATA\r\n".encode()
    assert await call.answered(begun + MAIL) == ["250", "250", "354", "250"]
    assert desk.mails[0][:2] == (address, [address])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "<",
        "a@b",
        "<a@b",
        "a@b>",
        "<a b@c>",
        "<a@b>c",
        "<a@b><c@d>",
        "<<a@b>>",
        '<"a@b>',
        '<a"@b>',
        "<a\0@b>",
        "<a\t@b>",
    ],
)
async def test_what_is_no_path_is_refused(call: Call, path: str) -> None:
    assert call.say(f"MAIL FROM:{path}\r\nMAIL FROM:<a@b>\r\nRCPT TO:{path}\r\n") == ["501", "250", "501"]


async def test_a_path_made_to_be_slow_is_not(call: Call) -> None:
    begun = time.process_time()
    for path in ('<"' * 2000, '<"a"' * 1000, "<@" + ":" * 4000, '<"' + "\\a" * 2000, "<a>" + " a" * 2000 + " \x7f"):
        assert call.say(f"MAIL FROM:{path[:4080]}\r\n") == ["501"]
    assert time.process_time() - begun < 2


async def test_parameters_are_known_or_refused(call: Call) -> None:
    for good in ("SIZE=100000", "size=0", "BODY=8BITMIME", "body=7bit", "SMTPUTF8", "SIZE=1  BODY=7BIT SMTPUTF8 "):
        assert call.say(f"MAIL FROM:<a@b> {good}\r\nRSET\r\n") == ["250", "250"], good
    for bad in ("SIZE", "SIZE=", "SIZE=-1", "SIZE=" + "9" * 21, "BODY=BINARYMIME", "RET=FULL", "AUTH=<>", "SMTPUTF8=1"):
        assert call.say(f"MAIL FROM:<a@b> {bad}\r\n") == ["555"], bad
    assert (
        call.say("MAIL FROM:<a@b> SIZE=100001\r\nMAIL FROM:<a@b> SIZE=1 SIZE=99999999999999999999\r\n") == ["552"] * 2
    )
    assert call.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\n") == ["250", "555"]


async def test_recipients_are_limited_for_each_mail(desk: Desk, call: Call) -> None:
    answers = call.say("MAIL FROM:<a@b>\r\n" + "RCPT TO:<c@d>\r\n" * (smtp.RECIPIENTS + 5))
    assert answers == ["250"] * (1 + smtp.RECIPIENTS) + ["452"] * 5
    assert await call.answered(b"DATA\r\n" + MAIL) == ["354", "250"]
    assert call.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n") == ["250", "250"]


async def test_a_bug_is_answered_with_a_request_to_come_back(call: Call) -> None:
    assert call.say("MAIL FROM:<a@b>\r\nRCPT TO:<bug@d>\r\nRCPT TO:<c@d>\r\n") == ["250", "451", "250"]


# --- lines ---


@pytest.mark.parametrize("break_", ["\n", "\r", "\r\r", "\n\r", "\n\n"])
async def test_a_line_break_that_is_none_hides_no_command(desk: Desk, call: Call, break_: str) -> None:
    hidden = break_.join(["NOOP", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"])
    assert call.say(f"{hidden}\r\n") == ["500"]
    assert call.say("DATA\r\n") == ["503"]
    assert call.say(f"MAIL FROM:<a@b>{break_}RCPT TO:<c@d>\r\nRCPT TO:<c@d>\r\n") == ["500", "503"]


async def test_bare_line_feeds_are_refused_at_once_and_once(call: Call) -> None:
    assert call.say("NOOP\n") == ["500"]
    assert call.say("MAIL FROM:<a@b>\nRCPT TO:<c@d>\n") == []
    assert call.say("NOOP\r") == []
    assert call.say("\nNOOP\r\n") == ["250"]


async def test_a_long_line_is_refused_whole_however_it_comes(call: Call) -> None:
    assert call.say("NOOP " + "x" * (smtp.LINE - 5) + "\r\n") == ["250"]
    assert call.say("NOOP " + "x" * (smtp.LINE - 4) + "\r\nNOOP\r\n") == ["500", "250"]
    assert call.say("NOOP " + "x" * smtp.LINE) == ["500"]
    for piece in ("x" * 100_000, "\nRSET\n", "MAIL FROM:<a@b>\r"):
        assert call.say(piece) == []
        assert len(call.session._unread) <= 1
    assert call.say("\nNOOP\r\n") == ["250"]


async def test_a_client_that_only_makes_mistakes_is_sent_away(call: Call) -> None:
    answers = call.say("BLAH\r\n" * 100)
    assert answers == ["500"] * smtp.MISTAKES + ["421"]
    assert call.wire.closed
    assert call.say("NOOP\r\n") == []


async def test_refused_recipients_and_their_pipelines_are_no_mistakes(desk: Desk, call: Call) -> None:
    for _ in range(2 * smtp.MISTAKES):
        assert call.say("MAIL FROM:<a@b>\r\nRCPT TO:<nobody@d>\r\nDATA\r\nRSET\r\n") == ["250", "550", "503", "250"]
        assert call.say("MAIL FROM:<a@b> SIZE=999999\r\nRCPT TO:<c@d>\r\nDATA\r\n") == ["552", "503", "503"]
    assert await call.answered(START + MAIL) == ["250", "250", "354", "250"]


async def test_a_web_page_cannot_make_a_browser_send_mail(desk: Desk) -> None:
    call = Call(desk, b"")
    assert call.say(b"POST / HTTP/1.1\r\nHost: bridge.example:25\r\n\r\n" + HELLO + START) == ["421"]
    assert call.wire.closed


# --- what comes together, and what waits ---


async def test_answers_to_commands_that_come_together_leave_in_one_write(call: Call) -> None:
    call.session.data_received(START)
    assert len(call.wire.writes) == 1
    assert call.wire.said() == ["250", "250", "354"]


async def test_what_comes_behind_a_mail_waits_for_its_answer(desk: Desk, call: Call) -> None:
    desk.gate.clear()
    second = START.replace(b"<a@", b"<second@") + MAIL
    assert call.say(START + MAIL + b"NOOP\r\n" + second) == ["250", "250", "354"]
    for data in (b"VRFY x\r\nBLAH\r\n", b"MAIL FROM:<third@b.example>\r\nQU", b"IT\r\n"):
        await asyncio.sleep(0.01)
        assert call.say(data) == []
    desk.gate.set()
    assert await call.answered() == ["250", "250", "250", "250", "354", "250", "252", "500", "250", "221"]
    assert [mail[0] for mail in desk.mails] == ["a@b.example", "second@b.example"]
    assert call.wire.closed


async def test_the_answer_to_a_mail_leaves_with_those_behind_it(desk: Desk, call: Call) -> None:
    desk.gate.clear()
    call.say(START + MAIL + START)
    desk.gate.set()
    while not call.wire.writes:
        await asyncio.sleep(0)
    assert len(call.wire.writes) == 1
    assert call.wire.said() == ["250", "250", "250", "354"]


async def test_a_conversation_is_the_same_in_whatever_pieces_it_comes() -> None:
    nasty = b"Subject: x\r\n\r\n..\r\n...\r\n.\r\r\n\n.\r\n.\n\r.\r\n\r\n...\r\n.\r\n"
    told = HELLO + START + nasty + b"NOOP\nRSET\r\nNOOP\r\n" + START + b".\r\n" + START + MAIL + b"NOOP\r\nQUIT\r\n"
    chance = random.Random(7)
    outcomes = []
    for size in (1, 2, 3, 5, 8, 1000, *[0] * 30):
        desk = Desk()
        call = Call(desk, b"")
        answers, rest = [], told
        while rest:
            count = size or chance.randrange(1, 40)
            answers += await call.answered(rest[:count])
            rest = rest[count:]
        outcomes.append((answers, desk.mails, desk.held))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    raw = b"Subject: x\r\n\r\n.\r\n..\r\n\r\r\n\n.\r\n\n\r.\r\n\r\n..\r\n"
    assert [mail[2] for mail in outcomes[0][1]] == [raw, b"", b"Subject: x\r\n\r\nhello\r\n"]


def test_any_octets_come_out_as_they_went_in() -> None:
    chance = random.Random(3)
    for _ in range(3000):
        raw = bytes(chance.choices(b"\r\n.x", k=chance.randrange(14))) + b"\r\n"
        wire = (b"\r\n" + raw).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n" + b".\r\nNOOP\r\n\r\n.\r\n"
        content, unread, ended = Content(_Limits()), bytearray(), False
        while not ended:
            count = chance.randrange(1, 6)
            unread += wire[:count]
            wire = wire[count:]
            ended = content.add(unread)
        assert content.mail() == raw
        assert bytes(unread) + wire == b".\r\nNOOP\r\n\r\n.\r\n"


class _Limits:
    max_size, max_held, held, too_large = 100, 800, 0, "552"


def test_a_mail_that_was_refused_still_ends_where_it_ends() -> None:
    limits = _Limits()
    for pieces in ([b"x" * 200, b"\r\n", b".\r", b"\n"], [b"x" * 200 + b"\r\n.\r\n"], [b"x" * 150, b"\r\n.\r\nQUIT"]):
        content = Content(limits)
        unread = bytearray()
        ends = [content.add(unread := bytearray(piece)) for piece in pieces]
        assert ends == [False] * (len(pieces) - 1) + [True]
        assert (content.refusal, limits.held, len(content._raw)) == ("552", 0, 4)
        assert bytes(unread) in (b"", b"QUIT")


async def test_a_mail_in_tiny_pieces_takes_no_more_memory_than_it_has_octets(desk: Desk, call: Call) -> None:
    call.say(START)
    for _ in range(5000):
        call.session.data_received(b"x")
    assert desk.held == 5000
    content = call.session._content
    assert content is not None
    assert content._raw.__sizeof__() < 10_000


async def test_a_client_cannot_make_us_keep_more_than_a_little_while_a_mail_is_handed_over(
    desk: Desk, call: Call
) -> None:
    desk.gate.clear()
    call.say(START + MAIL)
    sent = 0
    while call.wire.reading:
        call.say(b"NOOP\r\n" * 100)
        sent += 100
    assert len(call.session._unread) < smtp.AHEAD + 1000
    desk.gate.set()
    assert await call.answered() == ["250"] * (1 + sent)
    assert call.wire.reading
    assert not call.session._unread


async def test_a_client_that_does_not_listen_is_not_obeyed(desk: Desk, call: Call) -> None:
    call.session.pause_writing()
    while call.wire.reading:
        assert call.say(b"NOOP\r\n" * 1000) == []
    call.session.resume_writing()
    assert len(call.wire.said()) > 10_000
    assert call.wire.reading


async def test_many_answers_leave_in_several_writes_so_that_a_deaf_client_is_noticed(call: Call) -> None:
    call.session.data_received(b"HELP\r\n" * 10_000)
    assert max(map(len, call.wire.writes)) < smtp.BATCH + 100
    assert len(call.wire.said()) == 10_000


# --- ends ---


async def test_a_connection_lost_inside_a_mail_leaves_nothing(desk: Desk, call: Call) -> None:
    call.say(START + b"Subject: x\r\n\r\nhalf a mail\r\n.")
    assert desk.held > 0
    call.session.connection_lost(ConnectionResetError())
    assert (desk.held, desk.mails, call.session.gone.done()) == (0, [], True)
    assert call.say("\r\n") == []


async def test_a_mail_that_was_said_in_full_is_taken_although_the_client_has_gone(desk: Desk, call: Call) -> None:
    desk.gate.clear()
    call.say(START + MAIL + b"NOOP\r\n")
    await asyncio.sleep(0)
    call.session.connection_lost(ConnectionResetError())
    assert not call.session.gone.done()
    desk.gate.set()
    await asyncio.wait_for(call.session.gone, 5)
    await asyncio.sleep(0)
    assert (desk.held, len(desk.mails), call.wire.said()) == (0, 1, [])


async def test_an_abort_ends_a_mail_that_is_being_handed_over(desk: Desk, call: Call) -> None:
    desk.gate.clear()
    call.say(START + MAIL)
    await asyncio.sleep(0)
    call.session.abort()
    call.session.connection_lost(None)
    await asyncio.wait_for(call.session.gone, 5)
    assert (desk.held, desk.mails) == (0, [])


async def test_silence_is_not_held_against_a_client_that_waits_for_us(
    desk: Desk, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.gate.clear()
    call.say(START + MAIL)
    monkeypatch.setattr(smtp, "SILENCE", 0.0)
    call.session._tick()
    assert not call.wire.closed
    monkeypatch.setattr(smtp, "SILENCE", 60.0)
    call.session._heard -= 100
    desk.gate.set()
    assert await call.answered() == ["250"]
    call.session._tick()
    assert not call.wire.closed
    call.session._heard -= 100
    call.session._tick()
    assert call.wire.said() == ["421"]
    assert call.wire.closed
    assert not call.wire.aborted
    call.session._tick()
    assert call.wire.aborted


async def test_a_mail_that_lasts_too_long_is_told_goodbye_although_it_is_never_silent(desk: Desk, call: Call) -> None:
    call.say(START + b"Subject: x\r\n")
    call.session._tick()
    assert not call.wire.closed
    call.session._began -= smtp.LONGEST
    call.say(b"more\r\n")
    call.session._tick()
    assert call.wire.said() == ["421"]
    assert call.wire.closed


# --- on a real network, on both loops ---


LITTLE = 2**15  # octets that the network may have under way in each direction


def line(place: socket.socket) -> socket.socket:
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        place.setsockopt(socket.SOL_SOCKET, buffer, LITTLE)
    return place


@asynccontextmanager
async def connected(desk: Desk) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    listener, caller = line(socket.create_server(("127.0.0.1", 0))), line(socket.socket())
    server = await asyncio.get_running_loop().create_server(lambda: Session(desk), sock=listener)
    caller.connect(listener.getsockname())
    caller.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=caller)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        server.close()
        await asyncio.wait_for(asyncio.gather(*(session.gone for session in desk.sessions)), 5)


async def heard(reader: asyncio.StreamReader, last: str) -> list[str]:
    """The answers up to the first that begins with `last`."""
    found: list[str] = []
    while not found or not found[-1].startswith(last):
        line = (await asyncio.wait_for(reader.readline(), 5)).decode()
        assert line, found
        found += [line.strip()] if line[3:4] != "-" else []
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


Run = Callable[[Any], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def on(request: pytest.FixtureRequest) -> Run:
    return cast(Run, request.param)


def encrypted(folder: Path) -> tuple[Desk, ssl.SSLContext]:
    certificate = certify(folder)
    desk = Desk()
    desk.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    desk.tls.load_cert_chain(certificate)
    return desk, ssl.create_default_context(cafile=str(certificate))


def test_what_is_said_in_plain_text_behind_starttls_is_never_looked_at(on: Run, tmp_path: Path) -> None:
    async def main() -> None:
        desk, trusting = encrypted(tmp_path)
        async with connected(desk) as (reader, writer):
            writer.write(HELLO + b"MAIL FROM:<before@b.example>\r\n")
            await heard(reader, "250 2.1.0")
            writer.write(b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@b.example>\r\nRCPT TO:<c@d>\r\n")
            assert await heard(reader, "220") == ["220 2.0.0 go ahead"]
            await writer.start_tls(trusting, server_hostname="localhost")
            writer.write(b"RCPT TO:<c@d>\r\nMAIL FROM:<early@b.example>\r\nSTARTTLS\r\n")
            assert [line[:3] for line in await heard(reader, "503 5.5.1 not")] == ["503", "503", "503"]
            writer.write(HELLO)
            assert "STARTTLS" not in (await asyncio.wait_for(reader.readuntil(b"250 ENHANCED"), 5)).decode()
            writer.write(START + MAIL + b"QUIT\r\n")
            assert [line[:3] for line in (await heard(reader, "221"))[1:]] == ["250", "250", "354", "250", "221"]
        assert [mail[0] for mail in desk.mails] == ["a@b.example"]

    on(main())


def test_plain_text_that_comes_later_than_starttls_ends_the_connection(on: Run, tmp_path: Path) -> None:
    async def main() -> None:
        desk, _ = encrypted(tmp_path)
        async with connected(desk) as (reader, writer):
            writer.write(HELLO + b"STARTTLS\r\n")
            await heard(reader, "220 2.0.0")
            writer.write(b"EHLO evil.example\r\n" + START)
            await asyncio.wait_for(reader.read(), 5)
            await asyncio.wait_for(desk.sessions[0].gone, 5)
        assert desk.mails == []

    on(main())


@pytest.mark.parametrize("end", ["cut", "abort"])
def test_a_connection_lost_while_tls_starts_is_gone(on: Run, tmp_path: Path, end: str) -> None:
    async def main() -> None:
        desk, _ = encrypted(tmp_path)
        async with connected(desk) as (reader, writer):
            writer.write(HELLO + b"STARTTLS\r\n")
            await heard(reader, "220 2.0.0")
            await asyncio.sleep(0.01)
            writer.transport.abort() if end == "cut" else desk.sessions[0].abort()
            await asyncio.wait_for(desk.sessions[0].gone, 5)

    on(main())


def test_a_client_that_closes_its_side_after_a_mail_still_hears_the_answer(on: Run) -> None:
    async def main() -> None:
        desk = Desk()
        desk.gate.clear()
        async with connected(desk) as (reader, writer):
            writer.write(HELLO + START + MAIL + b"NOOP\r\n")
            await heard(reader, "354")
            writer.write_eof()
            await asyncio.sleep(0.05)
            desk.gate.set()
            assert [line[:3] for line in await heard(reader, "250 2.0.0 ok")] == ["250", "250"]
            assert await reader.read() == b""
        assert len(desk.mails) == 1

    on(main())


def test_a_client_that_never_reads_or_never_stops_is_held_back_by_the_network(on: Run) -> None:
    async def main() -> None:
        desk = Desk()
        desk.gate.clear()
        async with connected(desk) as (reader, writer):
            writer.write(HELLO + START + MAIL)
            await heard(reader, "354")
            writer.write(b"NOOP\r\n" * 1_000_000)
            [session] = desk.sessions
            await until(lambda: session._paused)
            assert smtp.AHEAD < len(session._unread) < smtp.AHEAD + 2**19
            assert writer.transport.get_write_buffer_size() > 4_000_000
            desk.gate.set()
            await until(lambda: session._unheard and session._paused)  # nobody reads: nothing is obeyed any more
            assert session._transport.get_write_buffer_size() < 2**18
            assert writer.transport.get_write_buffer_size() > 1_000_000
            assert len(desk.mails) == 1

    on(main())


def test_a_connection_cut_while_its_answer_is_under_way_does_no_harm(on: Run) -> None:
    async def main() -> None:
        desk = Desk()
        async with connected(desk) as (reader, writer):
            writer.write(HELLO + START + MAIL)
            await heard(reader, "354")
            writer.transport.abort()
            await asyncio.wait_for(desk.sessions[0].gone, 5)
        assert desk.held == 0

    on(main())
