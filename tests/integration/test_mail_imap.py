"""Mail where it already is: a real Dovecot, asked and listened to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bridge.testing.contract import word
from plugins.mail import folder
from plugins.mail.imap import Place
from plugins.mail.watch import dump, load
from tests.peers import until
from tests.peers.dovecot import PASSWORD, Account, Dovecot
from tests.peers.mailroom import CAROL, SALES, SUPPORT, Mailroom, mailroom, settings, written
from tests.peers.world import Sink

pytestmark = pytest.mark.debian("dovecot-imapd", "dovecot")
DAY = 86400
_users = itertools.count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dovecot() -> AsyncIterator[Dovecot]:
    """The IMAP server of the whole run; each test is a user of its own."""
    async with Dovecot() as running:
        yield running


@pytest.fixture
def box(dovecot: Dovecot) -> Account:
    """The account of a mailbox that nobody has used yet."""
    return dovecot.account(f"support{next(_users)}")


def mailbox(box: Account, address: str = SUPPORT, **imap: Any) -> dict[str, Any]:
    return {"address": address, "imap": box.server.imap(box.user, **imap)}


def at(folder: Path, box: Account, sink: Sink | None = None, **imap: Any) -> Any:
    """A bridge that reads this account."""
    return mailroom(folder, settings(sink, mailbox(box, **imap)))


async def idles(office: Mailroom) -> None:
    """From now on only the server's word brings anything: the next look is a minute away."""
    office.connector.every = 60

    async def waits() -> bool:
        each = office.mail._watch.accounts[SUPPORT]
        return each.idle is not None and each.due > time.monotonic() + 30

    await until(waits, "the account to wait for the server's word")


# --- what comes


async def test_new_mail_comes_by_the_servers_word(box: Account, tmp_path: Path) -> None:
    async with at(tmp_path, box, every=60) as office:
        await idles(office)
        began, said = time.monotonic(), word()
        await box.put(written(said))
        await office.shown(said)
        assert time.monotonic() - began < 30


async def test_a_server_without_idle_is_asked_again_and_again(tmp_path: Path) -> None:
    async with Dovecot(idle=False) as plain, at(tmp_path, plain.account("support")) as office:
        assert not office.mail._watch.accounts[SUPPORT].account.can_idle
        said = word()
        await plain.account("support").put(written(said))
        await office.shown(said)


async def test_what_was_there_before_the_first_start_is_not_shown_and_no_flag_changes(
    box: Account, tmp_path: Path
) -> None:
    old, new = word(), word()
    await box.put(written(old))
    async with at(tmp_path, box) as office:
        await box.put(written(new))
        await office.shown(new)
        assert not office.posts(old)
    assert [mail[b"FLAGS"] for mail in (await box.mails("INBOX")).values()] == [(b"\\Recent",)] * 2


async def test_since_brings_what_came_from_that_day_on(box: Account, tmp_path: Path) -> None:
    early, late, new = word(), word(), word()
    await box.put(written(late), when=time.time() - 3 * DAY)
    await box.put(written(early), when=time.time() - 10 * DAY)  # as after a move: its UID is higher
    since = time.strftime("%Y-%m-%d", time.localtime(time.time() - 5 * DAY))
    async with at(tmp_path, box, since=since) as office:
        await office.shown(late)
        await box.put(written(new), when=time.time() - 20 * DAY)
        await office.shown(new)
        assert not office.posts(early)


async def test_several_folders_are_read_and_others_are_not(box: Account, tmp_path: Path) -> None:
    first, second, none = word(), word(), word()
    async with at(tmp_path, box, folders=["INBOX", "Orders"]) as office:
        await box.put(written(none), "Archive")
        await box.put(written(second), "Orders")
        await box.put(written(first))
        await office.shown(first, second)
        assert not office.posts(none)


async def test_a_mail_is_for_the_mailboxes_it_names_else_for_that_of_its_account(box: Account, tmp_path: Path) -> None:
    """By Delivered-To too: that is where a mail server says it."""
    async with mailroom(tmp_path, settings(None, mailbox(box), {"address": SALES})) as office:
        cursor = await office.cursor()
        await office.stop_polling()
        await box.put(written(word(), to="undisclosed-recipients:;"))
        await box.put(written(word(), to=f"Sales <{SALES}>, else@where.example"))
        await box.put(written(word(), "Delivered-To: sales+r1@company.example", to="list@where.example"))
        page = await office.connector.poll(cursor)
        assert [each.scopes for each in page.envelopes] == [(SUPPORT,), (SALES,), (SALES,)]
        assert [each.author.account for each in page.envelopes] == [CAROL] * 3


async def test_a_mail_that_is_too_large_stays_there_and_is_named(box: Account, tmp_path: Path) -> None:
    said = word()
    async with mailroom(tmp_path, settings(None, mailbox(box), max_size=2000)) as office:
        await box.put(written(said + "\r\n" + "x" * 70 + "\r\n" * 3000))
        await box.put(written("Small " + said))
        await office.shown("Small " + said)
        why = f"more than the 2 kB that are taken; it stays in INBOX of {box.user}"
        await office.until(lambda: why in office.everything(), "the stub to say why")


async def test_a_mail_over_which_we_stumble_is_named_and_those_behind_it_come(
    box: Account, tmp_path: Path, monkeypatch: Any
) -> None:
    whole = folder.addresses

    def stumble(fields: list[str]) -> Any:
        if "stumble" in "".join(fields):
            raise ValueError("nobody foresaw this")
        return whole(fields)

    monkeypatch.setattr(folder, "addresses", stumble)
    async with at(tmp_path, box) as office:
        said = word()
        await box.put(written(word(), "Delivered-To: stumble@company.example"))
        await box.put(written(said))
        await office.shown(said)
        why = "it cannot be shown (ValueError); it stays in the folder"
        await office.until(lambda: why in office.everything(), "the stub to say why")


async def test_much_mail_comes_in_portions_and_in_order(box: Account, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("plugins.mail.imap.AT_ONCE", 3)
    async with at(tmp_path, box) as office:
        await office.stop_polling()
        said = [word() for _ in range(8)]
        for each in said:
            await box.put(written(each))
        page = await office.connector.poll(await office.cursor())
        assert (len(page.envelopes), page.more) == (3, True)
        office.poll()
        await office.shown(*said)
        shown = [each.body for each in office._shown.values() if each.author]
        assert [next(body for body in shown if each in body) for each in said] == shown


# --- crashes


async def test_after_a_crash_reading_goes_on_behind_what_was_written_down(box: Account, tmp_path: Path) -> None:
    before, meanwhile, after = word(), word(), word()
    async with at(tmp_path, box) as office:
        await box.put(written(before))
        await office.shown(before)
        await office.stop()
        await box.put(written(meanwhile))
        await office.start()
        await box.put(written(after))
        await office.shown(before, meanwhile, after)


async def test_a_page_that_was_not_written_down_comes_again_and_shows_nothing_twice(
    box: Account, tmp_path: Path
) -> None:
    first, second = word(), word()
    async with at(tmp_path, box) as office:
        await office.stop_polling()
        cursor = await office.cursor()
        await box.put(written(first))
        assert len((await office.connector.poll(cursor)).envelopes) == 1  # and here we are killed
        await box.put(written(second))
        page = await office.connector.poll(cursor)
        assert len(page.envelopes) == 2
        for _ in range(2):
            await office.store.transact(office.rules.hub.accept_page, "mail", page)
        office.poll()
        await office.shown(first, second)


async def test_a_folder_that_was_numbered_anew_is_read_again_without_loss_or_doubles(
    box: Account, tmp_path: Path
) -> None:
    old, before, meanwhile, after = word(), word(), word(), word()
    await box.put(written(old), when=time.time() - DAY)
    async with at(tmp_path, box) as office:
        await box.put(written(before))
        await office.shown(before)
        await office.stop()
        await box.put(written(meanwhile))
        await box.renumber()
        await office.start()
        await office.shown(meanwhile)
        await box.put(written(after))
        await office.shown(before, meanwhile, after)
        assert not office.posts(old)


# --- trouble


async def test_a_server_that_is_down_is_told_once_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Dovecot() as own, at(tmp_path, own.account("support")) as office:
        await own.stop()
        await office.until(lambda: office.told, "operators are told")
        await own.start()
        said = word()
        await own.account("support").put(written(said))
        await office.shown(said)
        ((name, reason), (_, back)) = office.told
        assert (name, back) == ("mail", "")
        assert SUPPORT in reason


async def test_a_login_that_is_refused_is_told_once_without_the_password(box: Account, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    imap = {"password": None, "password_file": str(secret)}
    async with at(tmp_path / "data", box, **imap) as office:
        secret.write_text("wrong-4712")
        office.mail._watch.accounts[SUPPORT].account.drop()
        await office.until(lambda: office.told, "operators are told")
        secret.write_text(PASSWORD)
        said = word()
        await box.put(written(said))
        await office.shown(said)
        assert len(office.told) == 2
        assert f"login as {box.user} refused" in office.told[0][1]
        assert "4712" not in office.told[0][1]


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """The port of a server that takes connections and says nothing."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_server_that_hangs_keeps_nobody_waiting(box: Account, tmp_path: Path) -> None:
    """It may hang for an hour: who waited for it would wait longer than this test does. Nor does the end."""
    async with silent() as port:
        hanging = mailbox(box, SALES, port=port, timeout=3600)
        async with mailroom(tmp_path, settings(None, mailbox(box), hanging)) as office:
            for said in (word(), word()):
                await box.put(written(said))
                await office.shown(said)
            began = time.monotonic()
            await office.stop()
            assert time.monotonic() - began < 30


async def test_a_server_that_hangs_is_told_by_the_name_of_its_mailbox(box: Account, tmp_path: Path) -> None:
    async with silent() as port:
        hanging = mailbox(box, SALES, port=port, timeout=0.5)
        async with mailroom(tmp_path, settings(None, mailbox(box), hanging)) as office:
            await office.until(lambda: office.told, "operators are told")
            said = word()
            await box.put(written(said))
            await office.shown(said)
            assert [name for name, _ in office.told] == [f"{SALES} (IMAP)"]
            assert SALES in office.mail.troubles().popitem()[0]


async def test_connections_that_break_while_we_wait_are_made_anew(box: Account, tmp_path: Path) -> None:
    async with at(tmp_path, box, every=60) as office:
        await idles(office)
        await box.server.admin("kick", box.user)
        office.connector.every = 0.05
        said = word()
        await box.put(written(said))
        await office.shown(said)
        assert not office.told


# --- what is sent


async def _begun(office: Mailroom, box: Account) -> int:
    said = word()
    await box.put(written(said, number=int(time.time() * 1000)))
    return (await office.arrives(said)).conversation


async def test_what_we_send_is_kept_once_with_what_was_sent_and_is_not_shown_again(
    box: Account, sink: Sink, tmp_path: Path
) -> None:
    async with at(tmp_path, box, sink) as office:
        conversation = await _begun(office, box)
        sent, later = word(), word()
        await office.say(f"!reply {sent}", conversation)
        mail = await sink.wait_for()
        await office.gone()
        (copy,) = (await box.mails("Gesendet")).values()
        assert b"\\Seen" in copy[b"FLAGS"]
        assert copy[b"BODY[]"] == mail.data
        await box.put(written(later))
        await office.shown(later)
        assert not office.posts(sent)


async def test_a_copy_that_cannot_be_kept_repeats_no_mail_and_follows_later(
    sink: Sink, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("plugins.mail.sent.FIRST", 0.2)
    async with Dovecot() as own:
        box = own.account("support")
        async with at(tmp_path, box, sink, timeout=1) as office:
            conversation = await _begun(office, box)
            await own.stop()
            await office.say(f"!reply {word()}", conversation)
            await sink.wait_for()
            await office.gone()
            assert f"{SUPPORT} (sent copies)" in office.mail.troubles()
            await own.start()

            async def kept() -> bool:
                return bool(await box.mails("Gesendet"))

            await until(kept, "the copy")
            for _ in range(2):  # as if the yes to it had been lost
                await office.mail._copies[SUPPORT].keep(sink.mails[0]["Message-ID"], sink.mails[0].data)
            assert len(await box.mails("Gesendet")) == len(sink.mails) == 1
            assert not office.mail._copies[SUPPORT].trouble


async def test_a_colleagues_own_mail_appears_in_its_conversation_as_theirs(box: Account, tmp_path: Path) -> None:
    async with at(tmp_path, box) as office:
        question, answer, thanks = word(), word(), word()
        await box.put(written(question, number=77))
        conversation = (await office.arrives(question)).conversation
        mine = f"Alice Martin <{SUPPORT}>"
        sent = written(answer, "In-Reply-To: <m77@customer.example>", sender=mine, to=CAROL)
        await box.put(sent, "Gesendet")
        assert (await office.arrives(answer)).conversation == conversation
        (post,) = office.posts(answer)
        assert post.author == SUPPORT
        assert await _roles(office) == ["inward", "colleague"]
        await box.put(sent)  # it wrote a copy to itself: the same mail
        await box.put(written(thanks, "In-Reply-To: <m77@customer.example>"))
        await office.shown(thanks, answer)


async def test_what_was_sent_from_the_account_as_somebody_else_is_not_shown(box: Account, tmp_path: Path) -> None:
    async with at(tmp_path, box) as office:
        private, said = word(), word()
        await box.put(written(private, sender="alice@home.example", to=CAROL), "Gesendet")
        await box.put(written(said))
        await office.shown(said)
        assert not office.posts(private)


async def test_a_stranger_who_writes_as_the_mailbox_is_no_colleague(box: Account, tmp_path: Path) -> None:
    async with at(tmp_path, box) as office:
        said = word()
        await box.put(written(said, sender=SUPPORT))
        await office.shown(said)
        assert await _roles(office) == ["inward"]


async def test_a_colleagues_own_mail_stops_nothing_that_is_held(box: Account, sink: Sink, tmp_path: Path) -> None:
    async with at(tmp_path, box, sink) as office:
        question, answer = word(), word()
        await box.put(written(question, number=78))
        conversation = (await office.arrives(question)).conversation
        before = await office.store.transact(lambda tx: tx.conversations.get(conversation))
        assert before is not None
        office.rules.outward.pause_all = _never  # type: ignore[method-assign]
        sent = written(answer, "In-Reply-To: <m78@customer.example>", sender=SUPPORT, to=CAROL)
        await box.put(sent, "Gesendet")
        await office.shown(answer)
        assert not sink.mails


def _never(*_: object) -> None:
    raise AssertionError("a hold was paused")


async def _roles(office: Mailroom) -> list[str]:
    rows = await office.store.transact(lambda tx: tx.db.execute("SELECT role FROM message ORDER BY id").fetchall())
    return [row[0] for row in rows]


# --- the self-check


async def test_the_self_check_says_how_the_account_is_read(box: Account, tmp_path: Path) -> None:
    async with at(tmp_path, box) as office:
        said = {each.what: each.ok for each in await office.connector.check() if "IMAP" in each.what}
        name = f"{box.user} on IMAP server localhost:{box.server.port}"
        assert said == {
            f"{name}: logged in; INBOX: it tells of new mail at once": True,
            f"{name}: sent mail is in Gesendet": True,
            f"{name}: no mail comes from the future": True,
        }


@pytest.mark.parametrize(
    ("imap", "said"),
    [
        ({"folders": ["Nowhere"]}, "there is no folder Nowhere"),
        ({"sent": "Sent Nowhere"}, "there is no folder Sent Nowhere"),
        ({"password": "wrong"}, "refused"),
        ({"port": 9}, "refused"),
        ({"security": "starttls"}, "certificate verify failed"),
    ],
)
async def test_the_self_check_names_what_is_wrong(box: Account, imap: dict[str, Any], said: str) -> None:
    from plugins.mail.config import Imap
    from plugins.mail.imap import Account as Login

    login = Login(Imap.model_validate(box.server.imap(box.user, **imap)), 1000)
    found = [each for each in await asyncio.to_thread(login.check) if not each.ok]
    login.drop()
    assert len(found) == 1
    assert said in found[0].what
    assert found[0].remedy


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_mail_is_read_over_verified_tls(box: Account, tmp_path: Path, security: str) -> None:
    port = box.server.tls_port if security == "tls" else box.server.port
    imap = {"security": security, "port": port, "ca_file": str(box.server.certificate.file)}
    async with at(tmp_path, box, every=60, **imap) as office:
        await idles(office)
        said = word()
        await box.put(written(said))
        await office.shown(said)


def test_a_cursor_says_how_far_each_folder_of_each_account_is_read() -> None:
    places = {SUPPORT: {"INBOX": Place(1, 2, 3.5, 4.5, 5)}, SALES: {}}
    assert load(dump(places)) == places
    assert load("") == {}
