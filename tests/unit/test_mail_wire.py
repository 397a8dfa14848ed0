"""IMAP servers that are hostile or out of order: what they cannot do to us, and that no mail is a wall for others."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.model import Unavailable
from plugins.mail.config import Imap
from plugins.mail.imap import PATIENCE, REFUSED, Account, News, Place, apart
from plugins.mail.watch import Watch, dump

SECRET = 'pass"word\\4711'
PLACES = {"INBOX": Place(1, 1, 0.0, 0.0, 1)}


class Crank:
    """A little of an IMAP server. `odd` gives, by the beginning of a command, the bytes it says instead; b"": it hangs
    up, None: it says nothing at all.
    """

    def __init__(self, *uids: int) -> None:
        self.mails = {uid: f"Subject: {uid}\r\n\r\nhello\r\n".encode() for uid in uids}
        self.odd: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if await self._says("greeting", b"* OK hello\r\n", reader, writer):
                while line := (await reader.readline()).decode():
                    tag, _, command = line.strip().partition(" ")
                    self.asked.append(command)
                    said = b"".join(each + b"\r\n" for each in self._answer(command.upper()))
                    if not await self._says(command.upper(), said + f"{tag} OK done\r\n".encode(), reader, writer):
                        break
        writer.close()

    async def _says(
        self, command: str, plain: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether it goes on."""
        odd = next((key for key in self.odd if command.startswith(key)), "")
        instead = self.odd[odd] if odd else plain
        if instead is None:
            await reader.read()
            return False
        writer.write(instead.replace(b"TAG", self._tag(plain)))
        await writer.drain()
        return bool(instead)

    def _tag(self, plain: bytes) -> bytes:
        return plain.splitlines()[-1].split()[0]

    def _answer(self, command: str) -> list[bytes]:
        words = command.split()
        if command.startswith("CAPABILITY"):
            return [b"* CAPABILITY IMAP4REV1"]
        if command.startswith("EXAMINE"):
            end = max(self.mails, default=0) + 1
            return [b"* %d EXISTS" % len(self.mails), b"* OK [UIDVALIDITY 1] ok", b"* OK [UIDNEXT %d] ok" % end]
        if command.startswith("UID SEARCH UID"):
            first, _, last = words[3].partition(":")
            found = [uid for uid in self.mails if int(first) <= uid <= int(last)]
            return [b"* SEARCH " + " ".join(map(str, found)).encode()]
        if command.startswith("UID FETCH"):
            wanted = [int(each) for each in words[2].split(",")]
            return [self._fetched(uid, command) for uid in wanted if uid in self.mails]
        return []

    def _fetched(self, uid: int, command: str) -> bytes:
        raw = self.mails[uid]
        if "SIZE" in command:
            return b'* 1 FETCH (UID %d RFC822.SIZE %d INTERNALDATE "22-Nov-2026 10:00:00 +0000")' % (uid, len(raw))
        part = b"BODY[HEADER]<0>" if "HEADER" in command else b"BODY[]"
        return b"* 1 FETCH (UID %d %s {%d}\r\n%s)" % (uid, part, len(raw), raw)


@asynccontextmanager
async def served(crank: Crank) -> AsyncIterator[Crank]:
    server = await asyncio.start_server(crank.serve, "127.0.0.1", 0)
    crank.port = server.sockets[0].getsockname()[1]
    async with server:
        yield crank


def imap(crank: Crank, **more: Any) -> Imap:
    plain = {"host": "127.0.0.1", "port": crank.port, "security": "none", "username": "support", "password": SECRET}
    return Imap.model_validate(plain | {"timeout": 60} | more)


@asynccontextmanager
async def account(crank: Crank) -> AsyncIterator[Account]:
    async with served(crank):
        found = Account(imap(crank), 1000)
        try:
            yield found
        finally:
            found.drop()


async def fails(found: Account) -> str:
    with pytest.raises(Unavailable) as trouble:
        await apart(found.look, PLACES)
    return str(trouble.value)


def subjects(news: News) -> list[bytes]:
    return [mail.raw.split(b"\r\n")[0] for mail in news.mails]


# --- too much


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("greeting", b"* OK {4000000000}\r\n"),
        ("greeting", b"* OK " + b"x" * 2_000_000),
        ("UID SEARCH", b"* SEARCH" + b" 1" * 100_000 + b"\r\n"),
        ("UID SEARCH", b"* OK more\r\n" * 20_000),
        ("EXAMINE", b"* OK {999999999999999}\r\n"),
    ],
    ids=["literal", "line", "long answer", "many answers", "larger literal"],
)
async def test_a_server_cannot_make_us_read_without_end(
    command: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.mail.imap.ROOM", 100_000)
    crank = Crank(1)
    async with account(crank) as found:
        crank.odd[command] = said
        assert "that one answer may have" in await fails(found)
        crank.odd.clear()
        assert subjects(await apart(found.look, PLACES)) == [b"Subject: 1"]


async def test_a_server_cannot_make_our_parser_fall_over(caplog: pytest.LogCaptureFixture) -> None:
    crank = Crank(1)
    async with account(crank) as found:
        crank.odd["UID FETCH"] = b"* 1 FETCH " + b"(" * 100_000 + b"\r\nTAG OK done\r\n"
        assert await fails(found)


# --- no mail is a wall


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"TAG NO it is damaged\r\n",
        b"* 1 FETCH (UID 2 BODY[] {4000000000}\r\n",
        b"* 1 FETCH (UID 2 FLAGS ())\r\nTAG OK done\r\n",
        b"* 1 FETCH (UID 2 BODY[] NIL)\r\nTAG OK done\r\n",
    ],
    ids=["hangs up", "no", "endless", "nothing", "nil"],
)
@pytest.mark.parametrize("header", [True, False])
async def test_a_mail_that_the_server_never_hands_over_becomes_a_stub_and_those_behind_it_come(
    odd: bytes, header: bool
) -> None:
    crank = Crank(1, 2, 3)
    crank.odd["UID FETCH 2 (BODY.PEEK[]"] = odd
    if not header:
        crank.odd["UID FETCH 2 (BODY.PEEK[HEADER]"] = odd
    async with account(crank) as found:
        first = await apart(found.look, PLACES)
        assert (subjects(first), first.more) == ([b"Subject: 1"], True)  # what came before it does not wait
        looks = 0
        while looks < PATIENCE + REFUSED + 1:
            try:
                rest = await apart(found.look, first.places)
                break
            except Unavailable:
                looks += 1
        stub, last = rest.mails
        assert stub.raw.startswith(b"Subject: 2" if header else b"Message-ID: <")
        assert "does not hand it over" in stub.problem
        assert "stays in INBOX of support" in stub.problem
        assert last.raw.startswith(b"Subject: 3")
        assert looks >= 2


@pytest.mark.parametrize(
    "odd",
    [
        b"TAG NO it is damaged\r\n",
        b'* 1 FETCH (UID 2 RFC822.SIZE 9 INTERNALDATE "00-Nov-0000 99:00:00 +0000")\r\nTAG OK done\r\n',
    ],
)
async def test_a_mail_of_which_the_server_says_nothing_sensible_hides_no_other(odd: bytes) -> None:
    crank = Crank(1, 2, 3)
    crank.odd["UID FETCH 1,2,3 (RFC822"] = odd
    crank.odd["UID FETCH 2 (RFC822"] = odd
    async with account(crank) as found:
        assert subjects(await apart(found.look, PLACES)) == [b"Subject: 1", b"Subject: 3", b"Subject: 2"]


async def test_a_mail_that_an_answer_leaves_out_is_asked_for_once_more() -> None:
    crank = Crank(1, 2, 3)
    crank.odd["UID FETCH 1,2,3 (RFC822"] = b"TAG OK nothing\r\n"
    async with account(crank) as found:
        assert subjects(await apart(found.look, PLACES)) == [b"Subject: 1", b"Subject: 2", b"Subject: 3"]


async def test_a_mail_that_is_larger_than_the_server_says_is_not_taken() -> None:
    crank = Crank(1)
    crank.mails[1] += b"x" * 5000
    crank.odd["UID FETCH 1 (RFC822"] = b"* 1 FETCH (UID 1 RFC822.SIZE 9)\r\nTAG OK done\r\n"
    async with account(crank) as found:
        (mail,) = (await apart(found.look, PLACES)).mails
        assert "more than the 1 kB that are taken" in mail.problem


async def test_numbers_with_wide_gaps_are_found_with_few_questions() -> None:
    crank = Crank(1, 7_000_000, 4_000_000_000)
    async with account(crank) as found:
        news = await apart(found.look, PLACES)
        assert len(news.mails) == 3
        assert news.places["INBOX"].next == 4_000_000_001
        assert len(crank.asked) < 60


async def test_a_long_look_is_written_down_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.mail.imap.LOOK", 0.0)
    async with account(Crank(1, 2, 3)) as found:
        news = await apart(found.look, PLACES)
        assert (subjects(news), news.more, news.places["INBOX"].next) == ([b"Subject: 1"], True, 2)


# --- no end


async def test_a_look_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    crank = Crank(1)
    crank.odd["UID SEARCH"] = None
    async with served(crank):
        watch = Watch({"support": imap(crank)}, 1000)
        cursor = dump({"support": PLACES})
        monkeypatch.setattr("plugins.mail.watch.LAGGARD", 0.1)
        assert (await watch.look(cursor, ["support"], 60))[0] == {}
        monkeypatch.setattr("plugins.mail.watch.time.monotonic", lambda later=time.monotonic: later() + 1000)
        await watch.look(cursor, ["support"], 60)  # too long by now
        found = watch.accounts["support"].look
        assert found is not None
        with pytest.raises(Unavailable):
            await asyncio.wait_for(found, 10)
        watch.close()


@pytest.mark.parametrize("command", ["greeting", "LOGIN", "UID SEARCH"])
async def test_the_end_does_not_wait_for_a_server_that_hangs(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.mail.watch.LAGGARD", 0.1)
    crank = Crank(1)
    crank.odd[command] = None
    async with served(crank):
        watch = Watch({"support": imap(crank)}, 1000)
        await watch.look(dump({"support": PLACES}), ["support"], 60)
        found = watch.accounts["support"].look
        assert found is not None
        began = time.monotonic()
        watch.close()  # in this very loop
        with pytest.raises(Unavailable):
            await asyncio.wait_for(found, 10)
        assert time.monotonic() - began < 10


# --- secrets


@pytest.mark.parametrize(
    "shape", [SECRET, SECRET.replace("\\", "\\\\").replace('"', '\\"'), "AHN1cHBvcnQAcGFzcyJ3b3JkXDQ3MTE="]
)
async def test_a_server_that_repeats_the_password_does_not_bring_it_into_our_words(shape: str) -> None:
    crank = Crank(1)
    crank.odd["LOGIN"] = b"TAG NO " + b"x" * 290 + b" BAD LOGIN " + shape.encode() + b"\r\n"
    async with account(crank) as found:
        said = await fails(found)
        assert "login as support refused" in said
        assert not re.search(r"pass|4711|AHN1", said)
