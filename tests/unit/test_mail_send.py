"""Handing mail to a smarthost: real servers on loopback that refuse, delay, cut connections, want TLS and a login."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from aiosmtpd.smtp import Envelope as Transaction
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bridge.model import (
    Address,
    Deferred,
    Delivery,
    Draft,
    Envelope,
    File,
    Recipients,
    Rejected,
    Unavailable,
    Unconfirmed,
)
from plugins.mail import Mail, identity
from plugins.mail.config import Config, Smarthost
from plugins.mail.send import Submission

UID = "abcdefghij234567abcd"
SECRET = "correct horse battery"
MESSAGE = b"Subject: x\r\n\r\nhello\r\n.\r\nbye\r\n"
ANN, BOB, EVE = Address("ann@a.example"), Address("bob@b.example"), Address("eve@e.example")


@dataclass
class Server:
    """A smarthost. `answers` gives, per command (`RCPT bob@b.example` before `RCPT`), what to say instead of yes."""

    answers: dict[str, str] = field(default_factory=dict)
    cut: str = ""  # the command at which it closes the connection without a word
    mails: list[Transaction] = field(default_factory=list)
    greeted: int = 0
    port: int = 0
    open: set[SMTP] = field(default_factory=set)
    logins: list[str] = field(default_factory=list)

    async def handle_EHLO(self, server: SMTP, session: Any, _: Any, host: str, lines: list[str]) -> list[str]:
        session.host_name = host
        self.greeted += not session.ssl
        self.open.add(server)
        return lines

    async def handle_MAIL(self, server: SMTP, _: Any, envelope: Any, address: str, options: list[str]) -> str:
        envelope.mail_from = address
        return self.answer(server, "MAIL")

    async def handle_RCPT(self, server: SMTP, _: Any, envelope: Any, address: str, options: list[str]) -> str:
        said = self.answer(server, f"RCPT {address}" if f"RCPT {address}" in self.answers else "RCPT")
        if said.startswith("2"):
            envelope.rcpt_tos.append(address)
        return said

    async def handle_RSET(self, server: SMTP, *_: Any) -> str:
        return self.answer(server, "RSET")

    async def handle_DATA(self, server: SMTP, _: Any, envelope: Any) -> str:
        said = self.answer(server, "DATA", "250 2.0.0 queued as ABC")
        if said.startswith("250") and self.cut != "DATA":
            self.mails.append(envelope)
        return said

    def answer(self, server: SMTP, command: str, yes: str = "250 ok") -> str:
        if command == self.cut:
            assert server.transport is not None
            server.transport.close()
        return self.answers.get(command, yes)

    def login(self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append(mechanism)
        if data.password.decode() == SECRET:
            return AuthResult(success=True)
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 no: {data.password.decode()}")


@asynccontextmanager
async def serving(
    server: Server, tls: ssl.SSLContext | None = None, implicit: bool = False, **options: Any
) -> AsyncIterator[Server]:
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        context = None if implicit else tls
        return SMTP(server, hostname="localhost", loop=loop, tls_context=context, authenticator=server.login, **options)

    listener = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if implicit else None)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for each in server.open:
            if each.transport is not None:
                each.transport.close()


@asynccontextmanager
async def submitting(server: Server, **changes: Any) -> AsyncIterator[Submission]:
    limits = {key: changes.pop(key) for key in ("connections", "idle") if key in changes}
    settings = {"host": "localhost", "port": server.port, "security": "none", "timeout": 5} | changes
    submission = Submission(Smarthost.model_validate(settings), "bridge.example", **limits)
    try:
        yield submission
    finally:
        submission.close()


async def send(submission: Submission, *recipients: Address) -> Any:
    return await submission.send("support@c.example", {one.account: one for one in recipients or (ANN,)}, MESSAGE)


def certify(folder: Path) -> Path:
    """A self-made certificate for localhost, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    path = folder / "server.pem"
    path.write_bytes(pem)
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


# --- who gets it ---


async def test_a_mail_is_handed_over_as_it_is_with_the_servers_answer() -> None:
    async with serving(Server()) as server, submitting(server) as submission:
        outcome = await send(submission, ANN, BOB)
    assert outcome.reply == "250 2.0.0 queued as ABC"
    assert outcome.accepted == [ANN, BOB]
    [mail] = server.mails
    assert mail.content == MESSAGE
    assert (mail.mail_from, mail.rcpt_tos) == ("support@c.example", ["ann@a.example", "bob@b.example"])


async def test_recipients_are_accepted_deferred_and_refused_one_by_one() -> None:
    answers = {"RCPT bob@b.example": "450 4.2.1 try later", "RCPT eve@e.example": "550 5.1.1 who is eve"}
    async with serving(Server(answers)) as server, submitting(server) as submission:
        outcome = await send(submission, ANN, BOB, EVE)
    assert outcome.accepted == [ANN]
    assert outcome.deferred == [(BOB, "450 4.2.1 try later")]
    assert outcome.refused == [(EVE, "550 5.1.1 who is eve")]
    assert [mail.rcpt_tos for mail in server.mails] == [["ann@a.example"]]


async def test_when_all_are_refused_the_mail_is_rejected_in_the_servers_words() -> None:
    async with serving(Server({"RCPT": "550 5.1.1 nobody here"})) as server, submitting(server) as submission:
        with pytest.raises(Rejected, match=r"ann@a\.example: 550 5\.1\.1 nobody here; bob@b\.example: 550"):
            await send(submission, ANN, BOB)


async def test_when_none_is_accepted_and_one_is_deferred_the_mail_is_deferred() -> None:
    answers = {"RCPT bob@b.example": "451 later", "RCPT": "550 never"}
    async with serving(Server(answers)) as server, submitting(server) as submission:
        with pytest.raises(Deferred, match=r"bob@b\.example: 451 later"):
            await send(submission, ANN, BOB)
    assert server.mails == []


async def test_a_mail_without_recipients_is_rejected() -> None:
    async with serving(Server()) as server, submitting(server) as submission:
        with pytest.raises(Rejected, match="no recipient"):
            await submission.send("support@c.example", {}, MESSAGE)


# --- what a refusal means ---


@pytest.mark.parametrize(
    ("stage", "said", "meaning"),
    [
        ("MAIL", "550 5.7.1 sender refused", Rejected),
        ("MAIL", "452 4.3.1 disk full", Deferred),
        ("MAIL", "530 5.7.0 log in first", Unavailable),
        ("MAIL", "421 4.3.2 closing", Unavailable),
        ("MAIL", "503 5.5.1 AUTH first", Unavailable),
        ("RCPT", "530 5.7.0 log in first", Unavailable),
        ("RCPT", "421 4.3.2 closing", Unavailable),
        ("DATA", "554 5.6.0 spam", Rejected),
        ("DATA", "550 5.7.1 policy", Rejected),
        ("DATA", "451 4.3.0 try later", Deferred),
        ("DATA", "421 4.3.2 closing", Unavailable),
        ("DATA", "530 5.7.0 log in first", Unavailable),
        ("DATA", "299 what", Unconfirmed),
    ],
)
async def test_a_refusal_is_about_the_message_or_about_the_server(
    stage: str, said: str, meaning: type[Exception]
) -> None:
    async with serving(Server({stage: said})) as server, submitting(server) as submission:
        with pytest.raises(meaning, match=said):
            await send(submission)


@pytest.mark.parametrize(("stage", "meaning"), [("MAIL", Unavailable), ("RCPT", Unavailable), ("DATA", Unconfirmed)])
async def test_a_connection_cut_before_data_left_nothing_and_after_data_leaves_doubt(
    stage: str, meaning: type[Exception]
) -> None:
    async with serving(Server(cut=stage)) as server, submitting(server) as submission:
        with pytest.raises(meaning):
            await send(submission)


async def test_after_any_failure_the_next_mail_goes() -> None:
    async with serving(Server()) as server, submitting(server, connections=1) as submission:
        for stage in ("MAIL", "RCPT", "DATA"):
            for said in ("550 no", "451 later", "421 closing"):
                server.answers = {stage: said}
                with pytest.raises((Rejected, Deferred, Unavailable)):
                    await send(submission)
            server.answers, server.cut = {}, stage
            with pytest.raises((Unavailable, Unconfirmed)):
                await send(submission)
            server.cut = ""
            assert (await send(submission)).accepted == [ANN]
    assert len(server.mails) == 3


async def test_a_server_that_greets_with_554_or_is_not_there_is_unavailable() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 no service for you\r\n")
        writer.close()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    server = Server(port=listener.sockets[0].getsockname()[1])
    async with submitting(server) as submission:
        with pytest.raises(Unavailable, match="554 no service"):
            await send(submission)
        listener.close()
        with pytest.raises(Unavailable, match="smarthost localhost"):
            await send(submission)


@asynccontextmanager
async def scripted(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Server]:
    """A server that speaks from a script, for what no real server would do."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield Server(port=listener.sockets[0].getsockname()[1])
    listener.close()
    for writer in writers:
        writer.close()


async def test_a_server_that_does_not_answer_is_unavailable_but_after_the_message_there_is_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plugins.mail.send.PATIENCE", 0.25)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        for answer in (b"250 hello", b"250 ok", b"250 ok", b"354 go on"):
            await reader.readuntil(b"\r\n")
            writer.write(answer + b"\r\n")
        await reader.read()

    async with scripted(mute) as server, submitting(server, timeout=2) as submission:
        with pytest.raises(Unconfirmed):
            await send(submission)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with scripted(silent) as server, submitting(server, timeout=0.05) as submission:
        with pytest.raises(Unavailable, match="Timed out"):
            await send(submission)


async def test_an_answer_that_is_no_smtp_after_the_message_leaves_doubt() -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        for answer in (b"250 hello", b"250 ok", b"250 ok", b"354 go on"):
            await reader.readuntil(b"\r\n")
            writer.write(answer + b"\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"what was that\r\n")

    async with scripted(odd) as server, submitting(server) as submission:
        with pytest.raises(Unconfirmed, match="what was that"):
            await send(submission)


async def test_a_mail_larger_than_the_server_takes_is_rejected_before_it_is_sent() -> None:
    async with serving(Server(), data_size_limit=2048) as server, submitting(server) as submission:
        with pytest.raises(Rejected, match=r"5 kB.*2 kB"):
            await submission.send("support@c.example", {"ann@a.example": ANN}, b"x" * 5000)
        assert (await send(submission)).accepted == [ANN]


# --- connections ---


async def test_a_connection_is_used_again() -> None:
    async with serving(Server()) as server, submitting(server) as submission:
        for _ in range(5):
            await send(submission)
    assert (server.greeted, len(server.mails)) == (1, 5)


@pytest.mark.parametrize(("stage", "said"), [("RCPT", "550 no"), ("RCPT", "451 later"), ("DATA", "554 spam")])
async def test_a_connection_is_used_again_after_a_refusal(stage: str, said: str) -> None:
    async with serving(Server({stage: said})) as server, submitting(server) as submission:
        with pytest.raises((Rejected, Deferred), match=said):
            await send(submission)
        server.answers = {}
        assert (await send(submission)).accepted == [ANN]
    assert server.greeted == 1


async def test_a_connection_whose_reset_fails_is_not_used_again() -> None:
    async with serving(Server({"RCPT": "550 no", "RSET": "500 what"})) as server, submitting(server) as submission:
        with pytest.raises(Rejected):
            await send(submission)
        server.answers = {}
        assert (await send(submission)).accepted == [ANN]
    assert server.greeted == 2


async def test_mails_sent_together_share_a_few_connections() -> None:
    async with serving(Server()) as server, submitting(server, connections=3) as submission:
        await asyncio.gather(*(send(submission) for _ in range(30)))
    assert server.greeted <= 3
    assert len(server.mails) == 30


async def test_a_kept_connection_that_the_server_closed_is_replaced_without_a_failure() -> None:
    async with serving(Server()) as server, submitting(server) as submission:
        await send(submission)
        for each in server.open:
            assert each.transport is not None
            each.transport.abort()  # type: ignore[attr-defined]
        assert (await send(submission)).accepted == [ANN]
        server.cut = "MAIL"  # closed at the very moment it is used
        with pytest.raises(Unavailable):
            await send(submission)
        server.cut = ""
        assert (await send(submission)).accepted == [ANN]


async def test_an_unused_connection_is_closed_after_a_while() -> None:
    async with serving(Server()) as server, submitting(server, idle=0.01) as submission:
        await send(submission)
        [connection] = server.open
        assert connection._handler_coroutine is not None
        await asyncio.wait([connection._handler_coroutine], timeout=5)
        assert connection._handler_coroutine.done()


async def test_a_send_that_is_cancelled_leaves_no_connection_behind() -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.readuntil(b"\r\n")
        writer.write(b"250 hello\r\n")
        await reader.readuntil(b"\r\n")
        begun.set()
        await reader.read()
        gone.set()

    async with scripted(slow) as server, submitting(server, connections=1) as submission:
        sending = asyncio.create_task(send(submission))
        await begun.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.wait_for(gone.wait(), 5)


# --- TLS and login ---


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_the_servers_certificate_is_verified(security: str, tls: ssl.SSLContext, certificate: Path) -> None:
    async with serving(Server(), tls, implicit=security == "tls") as server:
        async with submitting(server, security=security, ca_file=certificate) as submission:
            assert (await send(submission)).accepted == [ANN]
        async with submitting(server, security=security) as submission:
            with pytest.raises(Unavailable, match="certificate verify failed"):
                await send(submission)
    assert len(server.mails) == 1


async def test_starttls_is_required_even_when_the_server_does_not_offer_it() -> None:
    async with serving(Server()) as server, submitting(server, security="starttls") as submission:
        with pytest.raises(Unavailable, match="STARTTLS"):
            await send(submission)
    assert server.mails == []


async def test_a_login_is_used_and_a_refused_one_is_the_servers_trouble(tls: ssl.SSLContext, certificate: Path) -> None:
    login = {"security": "starttls", "ca_file": certificate, "username": "bridge"}
    async with serving(Server(), tls, auth_required=True) as server:
        async with submitting(server, **login, password=SECRET) as submission:
            assert (await send(submission)).accepted == [ANN]
        async with submitting(server, **login, password="hunter2") as submission:
            with pytest.raises(Unavailable, match="login as bridge refused: 535") as caught:
                await send(submission)
        async with submitting(server, **(login | {"username": ""})) as submission:
            with pytest.raises(Unavailable, match="530"):
                await send(submission)
    assert server.logins[0] == "LOGIN" or server.logins[0] == "PLAIN"
    chain: BaseException | None = caught.value
    while chain is not None and not chain.__suppress_context__:
        assert "hunter2" not in str(chain)
        chain = chain.__cause__ or chain.__context__
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


async def test_a_password_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    login = {"username": "u", "password_file": tmp_path / "absent"}
    async with serving(Server()) as server, submitting(server, **login) as submission:
        with pytest.raises(Unavailable, match="absent"):
            await send(submission)


# --- the whole connector ---


class Spool:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def keep(self, name: str, type: str, data: bytes) -> File:
        self.files[name] = data
        return File(name, type, len(data), hash=name)

    async def read(self, file: File) -> bytes:
        if file.hash not in self.files:
            raise FileNotFoundError(file.hash)
        return self.files[file.hash]

    def stream(self, file: File) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def path(self, file: File) -> Path:
        raise NotImplementedError


class Port:
    def __init__(self) -> None:
        self.spool = Spool()

    async def accept(self, envelope: Envelope) -> None:
        raise NotImplementedError

    def scopes(self) -> frozenset[str]:
        return frozenset()

    def sign(self, text: str) -> str:
        return "abcdefgh234567ab" if text == f"id:{UID}" else "x" * 16


def connector(server: Server, **mailbox: Any) -> Mail:
    settings = {
        "listen": "127.0.0.1:0",
        "mailboxes": [{"address": "support@c.example", "name": "Support"} | mailbox],
        "smarthost": {"host": "127.0.0.1", "port": server.port, "security": "none"},
    }
    return Mail("mail", Config.model_validate(settings), Port())


def delivery() -> Delivery:
    return Delivery(1, UID, "lane", "mail", "send", "", "ready", None, created=1e9)


def draft(*recipients: Address, **changes: Any) -> Draft:
    to = Recipients(recipients or (ANN,))
    return Draft("mail", "support@c.example", 1, "Hi", "@al:c.example", "Alice", to, text="Hello", asked=1e9, **changes)


async def test_a_draft_is_sent_with_a_return_path_that_names_it() -> None:
    async with serving(Server()) as server:
        mail = connector(server)
        kept = await mail.port.spool.keep("a.txt", "text/plain", b"attached" * 100_000)
        sent = await mail.send(delivery(), draft(files=(kept,)))
        mail._submission.close()
    [arrived] = server.mails
    assert arrived.mail_from == f"support+b{UID}.abcdefgh234567ab@c.example"
    assert identity.tokens([arrived.mail_from], mail.port.sign) == [identity.Token("b", UID)]
    assert sent.id == f"<{UID}.abcdefgh234567ab@c.example>"
    assert sent.reply == "250 2.0.0 queued as ABC"
    assert isinstance(arrived.content, bytes)
    assert b'From: "Alice" <support@c.example>\r\n' in arrived.content
    assert b"\r\nMessage-ID: " + sent.id.encode() in arrived.content


async def test_what_the_server_said_is_kept_for_the_log_without_the_addresses_in_it() -> None:
    async with serving(Server({"DATA": "250 2.6.0 <a@b.example> Queued for ann@a.example as 4XyZ"})) as server:
        sent = await connector(server).send(delivery(), draft())
    assert sent.reply == "250 2.6.0 Queued for as 4XyZ"


async def test_only_those_still_to_be_reached_get_it_again_and_the_header_stays() -> None:
    async with serving(Server({"RCPT bob@b.example": "451 later"})) as server:
        mail = connector(server, reply_address="plain")
        sent = await mail.send(delivery(), draft(ANN, BOB))
        assert sent.deferred == (BOB,)
        server.answers = {}
        await mail.send(delivery(), draft(ANN, BOB, pending=(BOB,)))
        mail._submission.close()
    assert [one.rcpt_tos for one in server.mails] == [["ann@a.example"], ["bob@b.example"]]
    assert server.mails[0].content == server.mails[1].content
    assert server.mails[0].mail_from == "support@c.example"


async def test_a_draft_that_cannot_be_sent_is_rejected_with_the_reason() -> None:
    mail = connector(Server(port=1))
    with pytest.raises(Rejected, match=r"a\.txt is no longer kept"):
        await mail.send(delivery(), draft(files=(File("a.txt", "text/plain", 1, hash="gone"),)))
    with pytest.raises(Rejected, match="not an address"):
        await mail.send(delivery(), draft(Address("nobody")))
    with pytest.raises(Rejected, match="not a mailbox"):
        await mail.send(delivery(), Draft("mail", "x@c.example", 1, "", "@a:b", "", Recipients((ANN,))))


async def test_the_self_check_says_what_works_and_what_does_not() -> None:
    async with serving(Server(), data_size_limit=2**20) as server:
        found = await connector(server).check()
        assert [one.ok for one in found] == [True, True]
        assert "1 MB" in found[0].what
        assert found[0].most == 2**20 * 100 // 137
    found = await connector(server, address="x" * 40 + "@c.example").check()
    assert [one.ok for one in found] == [False, True, False]
    assert all(one.remedy for one in found if not one.ok)
