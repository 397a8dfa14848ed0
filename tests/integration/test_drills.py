"""Drills on a real homeserver: a restore after a crash under load, an upgrade in the middle of the work, a clean-up."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiosmtplib

from tests.conftest import Company, company_with
from tests.e2e.looking import marks, says, shows_file
from tests.integration.test_nothing_lost import behind_a_proxy, waiting
from tests.peers import earlier, until
from tests.peers.bridge import Forked
from tests.peers.employee import thread_of
from tests.peers.world import Mail

JANE = "Jane Doe <jane@customer.example>"
PICTURE = os.urandom(100_000)


def data(company: Company) -> Path:
    return company.folder / "bridge" / "data"


async def passerelle(company: Company, *words: str, fails: bool = False) -> str:
    """What `passerelle …` says, of this company's bridge."""
    log = company.folder / f"{words[0]}-{time.monotonic_ns()}.log"
    child = Forked([*words, "--config", str(company.bridge.config)], company.folder, log)
    child.start()

    async def ended() -> bool:
        return not child.running

    await until(ended, " ".join(words))
    child.kill()
    said = log.read_text()
    assert bool(child.process and child.process.returncode) == fails, said
    return said


def answer(mail: Mail, sender: str, body: str) -> dict[str, Any]:
    """A letter that answers what we sent."""
    ours = mail["Message-ID"]
    return {
        "sender": sender,
        "subject": f"Re: {mail['Subject']}",
        "body": body,
        "in_reply_to": ours,
        "references": [ours],
    }


async def settled(company: Company) -> None:
    async def nothing_waits() -> bool:
        return waiting(company) == 0

    await until(nothing_waits, "everything to be delivered")


def doubled(company: Company) -> list[str]:
    """Deliveries that are more than one event in the room."""
    events = company.alice.timeline(company.room)
    uids = Counter(each["content"].get("org.passerelle.delivery") for each in events)
    return [uid for uid, times in uids.items() if uid and times > 1]


async def load(company: Company, taken: list[str], over: asyncio.Event) -> None:
    """A customer writes all the time, each time about something else; `taken` is what the bridge has said yes to."""
    while not over.is_set():
        words = f"load {len(taken)}."
        with contextlib.suppress(OSError, aiosmtplib.SMTPException):  # it is killed
            await company.post(sender="busy@load.example", subject=words, body=words)
            taken.append(words)
        await asyncio.sleep(0.3)  # he takes breath


@company_with(outward={"hold": 0.1})
async def test_a_bridge_that_is_lost_goes_on_from_its_backup_and_does_nothing_twice(company: Company) -> None:
    alice, room, sink = company.alice, company.room, company.sink
    async with behind_a_proxy(company) as proxy:
        await company.post(sender=JANE, body="Please help.", attachments=[("photo.bin", PICTURE)])
        root = await alice.see(room, says("Please help."))
        thread = root["event_id"]
        await alice.say(room, "!reply We come.", thread=thread)
        first = await sink.wait_for(lambda mail: "We come." in mail.text)
        await alice.see(room, says("Accepted by mail"))

        # a backup under load: what waits in it is delivered right after it was made
        taken, over = list[str](), asyncio.Event()
        loading = asyncio.create_task(load(company, taken, over))
        await alice.see(room, says("load 1."))
        proxy.add("refuse", method="PUT", contains="/send/")
        await company.post(sender=JANE, subject="Waiting", body="I was in the queue.")
        before = list(taken)
        said = await passerelle(company, "backup", str(company.folder))
        (backup,) = company.folder.glob("passerelle-*.tar")
        assert "keep it as safe as the data folder" in said
        proxy.clear()
        await alice.see(room, says("I was in the queue."))

        # what happens after it is forgotten: an answer that leaves, a customer whom nobody knew, then the crash
        asked = await alice.say(room, "!reply We are on the road.", thread=thread)
        await sink.wait_for(lambda mail: "on the road" in mail.text)
        await alice.see(room, marks(asked, "✉️"))
        await company.post(sender="Late <late@customer.example>", subject="Late", body="I came late.")
        await alice.see(room, says("I came late."))
        company.bridge.kill()
        over.set()
        await loading
        assert len(taken) > len(before) > 1
        crashed = await passerelle(company, "backup", str(company.folder / "crashed.tar"))  # of what a killed one left
        assert "crashed.tar" in crashed
        unheard = await alice.say(room, "!reply Nobody heard this yet.", thread=thread)

        assert "is not empty" in await passerelle(company, "restore", str(backup), fails=True)
        shutil.rmtree(data(company))
        assert "waits for\ntheir !send" in await passerelle(company, "restore", str(backup))
        await company.bridge.start()
        await settled(company)

        # nothing of the backup is lost, nothing is there twice, nothing has left a second time
        await alice.see(room, says("restored from a backup", company.bot))
        timeline = alice.timeline(room)
        shown = {words: sum(says(words)(event) for event in timeline) for words in taken}
        assert {shown[words] for words in before} == {1}
        assert set(shown.values()) <= {0, 1}  # 0: taken after the backup, and lost with the folder
        assert sum(says("I was in the queue.")(event) for event in timeline) == 1
        assert doubled(company) == []
        assert [mail.text.split("\n")[0] for mail in sink.mails] == ["We come.", "We are on the road."]

        # what the restored bridge cannot have known is asked for once more, and leaves when its author says so
        await alice.say(room, "!send", thread=thread)
        await sink.wait_for(lambda mail: "Nobody heard" in mail.text)
        await alice.see(room, marks(unheard, "✉️"))

        # old threads go on: by a signed id that a stranger quotes, by a ghost that exists already, by !original
        await company.post(**answer(first, "colleague@customer.example", "I take over from Jane."))
        assert thread_of(await alice.see(room, says("I take over"))) == thread
        assert not [event for event in alice.timeline(room) if says("is not part of this conversation")(event)]
        await company.post(sender="Late <late@customer.example>", subject="Again", body="Me again.")
        await alice.see(room, says("Me again."))
        await alice.say(room, "!original", thread=thread, reply_to=thread)
        original = await alice.see(room, shows_file("A question.eml"))
        assert base64.b64encode(PICTURE[:54]) in await alice.download(original["content"]["url"])
        assert len(sink.mails) == 3


@company_with(bridge=False)
async def test_an_upgraded_bridge_goes_on_where_the_earlier_one_stopped(company: Company) -> None:
    alice, room = company.alice, company.room
    root = await alice.say(room, "Please help. (as the earlier version showed it)")
    words = await alice.say(room, "!reply We come.", thread=root)
    preview = await alice.say(room, "(the preview that it showed)", thread=root)
    there = {"author": alice.mxid, "words": words, "preview": preview, "marker": ""}
    earlier.data_of_schema(1, data(company), room=room, root=root, **there)
    await company.bridge.start()

    queued = await alice.see(room, says("Are you there?"))  # what waited to be shown
    assert thread_of(queued) == root
    await company.post(
        sender=JANE, subject="Re: Help", body="Still waiting.", in_reply_to=earlier.FIRST, references=[earlier.FIRST]
    )
    assert thread_of(await alice.see(room, says("Still waiting."))) == root
    await alice.say(room, "!send", thread=root)  # what waited for its author
    mail = await company.sink.wait_for()
    assert (mail.recipients, mail["In-Reply-To"]) == ((earlier.JANE,), earlier.FIRST)
    assert "We come." in mail.text
    await company.post(**answer(mail, JANE, "Thank you."))
    assert thread_of(await alice.see(room, says("Thank you."))) == root
    assert (data(company) / "passerelle.db.schema1").exists()


async def test_pruning_is_asked_of_the_running_bridge_and_done_without_one(company: Company) -> None:
    await company.post(sender=JANE, body="Please help.", attachments=[("photo.bin", PICTURE)])
    root = await company.alice.see(company.room, says("Please help."))
    await company.alice.see(company.room, shows_file("photo.bin"))
    await settled(company)
    for file in (data(company) / "spool").glob("??/*"):
        os.utime(file, (time.time() - 2 * 86400, time.time() - 2 * 86400))
    assert "1  files that nothing refers to" in await passerelle(company, "prune", "--dry-run")
    said = await passerelle(company, "prune")  # the picture is in the room, and in the original
    assert "1  files that nothing refers to" in said
    assert "100 kB in all" in said
    assert "0  files that nothing refers to" in await passerelle(company, "prune")
    await company.alice.say(company.room, "!original", thread=root["event_id"])
    await company.alice.see(company.room, shows_file("A question.eml"))
    await company.bridge.stop()
    assert "0  files that nothing refers to" in await passerelle(company, "prune")


async def test_a_stop_leaves_neither_socket_nor_journal_behind(company: Company) -> None:
    await company.post(sender=JANE, body="Please help.")
    assert (data(company) / "admin.sock").exists()
    assert await company.bridge.stop() == 0
    assert {each.name for each in data(company).iterdir()} == {"lock", "passerelle.db", "spool"}
