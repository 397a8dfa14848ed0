"""Ways in which a message could leave although it was stopped, changed or taken back in time. None does."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import aiohttp

from tests.conftest import Company, company_with
from tests.e2e.leaking import Attempts, Thread, assert_only_meant, rewords
from tests.e2e.looking import marks, says, shows_file
from tests.peers import free_port, until
from tests.peers.employee import Refused, body
from tests.peers.faults import Proxy

HOLD = 4  # seconds: long enough to stop a message on a busy machine
stopped = Attempts()
changed = Attempts()

# --- stopped during the hold ----------------------------------------------------------------------------------------


@stopped("❌ on the preview")
async def _(thread: Thread, secret: str) -> None:
    _, preview = await thread.asked(secret)
    await thread.alice.react(thread.room, preview, "❌")


@stopped("❌ on the message, without U+FE0F or with it")
async def _(thread: Thread, secret: str) -> None:
    message, _ = await thread.asked(secret)
    await thread.alice.react(thread.room, message, "❌\ufe0f")


@stopped("❌ by a colleague")
async def _(thread: Thread, secret: str) -> None:
    _, preview = await thread.asked(secret)
    await thread.bob.react(thread.room, preview, "❌")


@stopped("!cancel in the thread")
async def _(thread: Thread, secret: str) -> None:
    await thread.asked(secret)
    await thread.say("!cancel")


@stopped("!cancel at once, before there is a preview")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!reply {secret}")
    await thread.say("!cancel")


@stopped("the message is redacted")
async def _(thread: Thread, secret: str) -> None:
    message, _ = await thread.asked(secret)
    await thread.alice.redact(thread.room, message)


@stopped("the message is redacted at once")
async def _(thread: Thread, secret: str) -> None:
    await thread.alice.redact(thread.room, await thread.say(f"!reply {secret}"))


@stopped("the preview is redacted")
async def _(thread: Thread, secret: str) -> None:
    _, preview = await thread.asked(secret)
    await thread.alice.redact(thread.room, preview)


@stopped("📤 is taken back")
async def _(thread: Thread, secret: str) -> None:
    message = await thread.say(secret)
    reaction = await thread.outward(message)
    await thread.preview(message)
    await thread.alice.redact(thread.room, reaction)


@stopped("📤 is taken back at once")
async def _(thread: Thread, secret: str) -> None:
    message = await thread.say(secret)
    await thread.alice.redact(thread.room, await thread.outward(message))


@stopped("the message with 📤 is redacted")
async def _(thread: Thread, secret: str) -> None:
    message = await thread.say(secret)
    await thread.outward(message)
    await thread.preview(message)
    await thread.alice.redact(thread.room, message)


@stopped("an edit makes an inside note of it")
async def _(thread: Thread, secret: str) -> None:
    message, _ = await thread.asked(secret)
    await thread.alice.edit(thread.room, message, f"Bob, what about: {secret}")


@stopped("an edit puts it into a code block, or makes another command of it")
async def _(thread: Thread, secret: str) -> None:
    message, _ = await thread.asked(secret)
    await thread.alice.edit(thread.room, message, f"!reply {secret}", html=f"<pre>!reply {secret}</pre>")
    message, _ = await thread.asked(secret)
    await thread.alice.edit(thread.room, message, f"!replied {secret}")


@stopped("the edit that changed it is redacted")
async def _(thread: Thread, secret: str) -> None:
    message, preview = await thread.asked("harmless")
    edit = await thread.alice.edit(thread.room, message, f"!reply {secret}")
    await thread.alice.see(thread.room, rewords(preview, secret))
    await thread.alice.redact(thread.room, edit)
    await thread.alice.see(thread.room, rewords(preview, "Not sent"))


@stopped("📤 on the file that goes along is taken back")
async def _(thread: Thread, secret: str) -> None:
    _, reaction = await _text_and_file(thread, secret)
    await thread.alice.redact(thread.room, reaction)


@stopped("the file that goes along is redacted")
async def _(thread: Thread, secret: str) -> None:
    file, _ = await _text_and_file(thread, secret)
    await thread.alice.redact(thread.room, file)


@stopped("❌ on a preview that a newer one has replaced")
async def _(thread: Thread, secret: str) -> None:
    first = await thread.say(f"See the file {secret}")
    await thread.outward(first)
    preview = await thread.preview(first)
    file = await thread.alice.upload_file(thread.room, f"{secret}.txt", secret.encode(), thread=thread.root)
    await thread.outward(file)
    newer = await thread.alice.see(thread.room, says(f"{secret}.txt", thread.company.bot))
    assert newer["event_id"] != preview["event_id"]
    await thread.alice.react(thread.room, preview["event_id"], "❌")


@stopped("words of the history are redacted by a colleague")
async def _(thread: Thread, secret: str) -> None:
    inside = await thread.say(secret, who=thread.bob)
    message = await thread.say("!mail new@partner.example with history 3 The story so far")
    assert secret in body(await thread.preview(message))
    await thread.bob.redact(thread.room, inside)


@stopped("words of the history are changed by a colleague")
async def _(thread: Thread, secret: str) -> None:
    inside = await thread.say(secret, who=thread.bob)
    message = await thread.say("!mail new@partner.example with history 3 The story so far")
    await thread.preview(message)
    await thread.bob.edit(thread.room, inside, "nothing")


@stopped("the history is cancelled, seen whole")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"We pay half of it, {secret}", who=thread.bob)
    message = await thread.say("!mail new@partner.example with history The story so far\nSee below.")
    preview = await thread.preview(message)
    assert "To: new@partner.example" in body(preview)
    assert secret in body(preview)
    await thread.alice.react(thread.room, preview["event_id"], "❌")


@stopped("the recipient of a beginning was wrong, and the edit says nobody")
async def _(thread: Thread, secret: str) -> None:
    message = await thread.say(f"!mail wrong@rival.example Offer\n{secret}")
    await thread.preview(message)
    await thread.alice.edit(thread.room, message, f"!mail Offer\n{secret}")


async def _text_and_file(thread: Thread, secret: str) -> tuple[str, str]:
    """A text with 📤, and a file with 📤 that goes with it: (file, its 📤)."""
    text = await thread.say(f"See the file {secret}")
    await thread.outward(text)
    await thread.preview(text)
    file = await thread.alice.upload_file(thread.room, f"{secret}.txt", secret.encode(), thread=thread.root)
    reaction = await thread.outward(file)
    preview = await thread.alice.see(thread.room, says(f"Files: {secret}.txt", thread.company.bot))
    assert "See the file" in body(preview)
    return file, reaction


@company_with(outward={"hold": HOLD})
async def test_what_is_stopped_during_the_hold_does_not_leave(company: Company) -> None:
    thread = await Thread.begin(company)
    await stopped.make(thread)
    await thread.prove()


# --- changed during the hold ----------------------------------------------------------------------------------------


@changed("the file before an edit")
async def _(thread: Thread, secret: str) -> None:
    file = await thread.alice.upload_file(thread.room, f"{secret}.txt", secret.encode(), thread=thread.root)
    await thread.outward(file)
    preview = await thread.preview(file)
    await thread.alice.edit(thread.room, file, f"{secret}.txt")  # a client without file edits sends words only
    right = {"msgtype": "m.file", "body": "right.txt", "filename": "right.txt", "info": {"size": 5}}
    right["url"] = await thread.alice.upload("right.txt", b"right")
    related = {"rel_type": "m.replace", "event_id": file}
    with contextlib.suppress(Refused):
        await thread.alice.send(
            thread.room, "m.room.message", right | {"m.new_content": right, "m.relates_to": related}
        )
    await thread.alice.see(thread.room, rewords(preview["event_id"], "right.txt"))
    await thread.alice.react(thread.room, preview["event_id"], "❌")


@changed("the words before an edit")
async def _(thread: Thread, secret: str) -> None:
    message, preview = await thread.asked(secret)
    word = thread.word("an edited reply")
    await thread.alice.edit(thread.room, message, f"!reply Rather {word}")
    await thread.alice.see(thread.room, rewords(preview, word))


@changed("an edit by somebody else")
async def _(thread: Thread, secret: str) -> None:
    message, _ = await thread.asked(f"Unchanged {thread.word('a reply that a colleague tried to edit')}")
    await thread.bob.edit(thread.room, message, f"!reply {secret}")
    event = await thread.say(f"Unchanged {thread.word('a message that a colleague tried to edit')}")
    await thread.outward(event)
    await thread.bob.edit(thread.room, event, secret)


@changed("a quote that comes back with the edit of a reply")
async def _(thread: Thread, secret: str) -> None:
    inside = await thread.say(f"Between us: {secret}", who=thread.bob)
    event = await thread.say("Good day", reply_to=inside)
    await thread.outward(event)
    await thread.preview(event)
    word = thread.word("an edited rich reply")
    quoted = f"> <{thread.bob.mxid}> Between us: {secret}\n\nGood day {word}"
    html = f"<mx-reply><blockquote>Between us: {secret}</blockquote></mx-reply>Good day {word}"
    await thread.alice.edit(thread.room, event, quoted, html=html)


@changed("an edit of another message")
async def _(thread: Thread, secret: str) -> None:
    inside = await thread.say("inside")
    event = await thread.say(f"Good day {thread.word()}")
    await thread.outward(event)
    await thread.alice.edit(thread.room, inside, secret)


@changed("the first recipient of a beginning, when an edit names another")
async def _(thread: Thread, secret: str) -> None:
    thread.inside["wrong@rival.example"] = "the wrong recipient"
    message = await thread.alice.say(thread.room, f"!mail wrong@rival.example Offer {secret}\nfirst {secret}")
    await thread.preview(message)
    word = thread.word("an offer to another")
    await thread.alice.edit(thread.room, message, f"!mail jane@customer.example Offer\n{word}")
    await thread.alice.see(thread.room, says(word, thread.company.bot))


@changed("the first recipient of a beginning without a text, when an edit names another")
async def _(thread: Thread, secret: str) -> None:
    message = await thread.alice.say(thread.room, f"!mail wrong@rival.example {secret}")
    await thread.alice.see(thread.room, says("continues with wrong@rival.example"))
    await thread.alice.edit(thread.room, message, "!mail jane@customer.example Offer")
    await thread.alice.see(thread.room, says("continues with jane@customer.example"))
    await thread.alice.say(thread.room, f"!reply {thread.word('a reply after the edit')}", thread=message)


@company_with(outward={"hold": HOLD})
async def test_what_leaves_is_what_it_was_changed_to(company: Company) -> None:
    thread = await Thread.begin(company)
    await changed.make(thread)
    await thread.prove()
    assert {mail.recipients for mail in company.sink.mails} == {("jane@customer.example",)}


# --- the bridge is down ---------------------------------------------------------------------------------------------


@company_with(outward={"hold": 600})
async def test_what_happens_while_the_bridge_is_down_is_heeded_before_anything_leaves(company: Company) -> None:
    thread = await Thread.begin(company)
    alice, room = thread.alice, thread.room
    redacted, _ = await thread.asked(thread.secret("redacted while the bridge was down"))
    with_outbox = await thread.say(thread.secret("📤 taken back while the bridge was down"))
    reaction = await thread.outward(with_outbox)
    await thread.preview(with_outbox)
    noted, _ = await thread.asked(thread.secret("made a note while the bridge was down"))
    _, preview = await thread.asked(thread.secret("❌ while the bridge was down"))
    edited, _ = await thread.asked(thread.secret("the words before an edit while the bridge was down"))
    untouched, _ = await thread.asked(thread.word("held when the bridge was killed"))
    company.bridge.kill()
    await alice.redact(room, redacted)
    await alice.redact(room, reaction)
    await alice.edit(room, noted, "Let us think again.")
    await alice.react(room, preview, "❌")
    await alice.edit(room, edited, f"!reply {thread.word('edited while the bridge was down')}")
    await alice.redact(room, await thread.say(f"!reply {thread.secret('said and redacted while it was down')}"))
    late = await thread.say(f"!reply {thread.secret('said while it was down, then cancelled')}")
    await alice.react(room, late, "❌")
    _age(company, 0)
    await company.reconfigure(outward={"hold": 0.5})
    await thread.left(untouched)
    await thread.prove()


@company_with(outward={"hold": 600})
async def test_a_new_message_from_outside_pauses_what_is_held_and_a_restart_changes_nothing(company: Company) -> None:
    thread = await Thread.begin(company)
    message, preview = await thread.asked(f"Too late {thread.secret('paused by a new message')}")
    await company.post(
        sender=thread.customer, subject="Re: Printer on fire", body="It works again!",
        in_reply_to=f"<{'x' * 8}@customer.example>", references=(await _message_id(company),),
    )  # fmt: skip
    await thread.alice.see(thread.room, rewords(preview, "Paused: a new message from outside"))
    company.bridge.kill()
    await company.reconfigure(outward={"hold": 0.2})
    await thread.prove()
    await thread.say("!send", who=thread.bob)
    await thread.bob.see(thread.room, says("Only Alice can send this"))
    thread.meant |= {word: "sent on purpose at last" for word in thread.inside}
    thread.inside.clear()
    await thread.say("!send")
    await thread.left(message)
    await thread.prove()


async def _message_id(company: Company) -> str:
    """The Message-ID of the customer's first mail, as the bridge keeps it."""
    return str(_query(company, "SELECT remote FROM message WHERE role = 'inward' ORDER BY id")[0][0])


@company_with(outward={"hold": 600, "ask_again": 600})
async def test_what_was_asked_long_ago_is_asked_again(company: Company) -> None:
    thread = await Thread.begin(company)
    message, preview = await thread.asked(f"Old {thread.secret('asked long ago')}")
    company.bridge.kill()
    _age(company, 3600)
    await company.reconfigure(outward={"hold": 0.2})
    await thread.alice.see(thread.room, rewords(preview, "Paused: it was asked 6"))
    await thread.prove()
    company.bridge.kill()
    await company.bridge.start()
    await thread.prove()
    thread.meant |= {word: "sent on purpose at last" for word in thread.inside}
    thread.inside.clear()
    await thread.say("!send")
    await thread.left(message)
    assert_only_meant(company.sink.mails, thread.inside, thread.meant)


def _age(company: Company, seconds: float) -> None:
    """Let time pass for what waits to leave, while the bridge is down; its hold is over."""
    for uid, payload in _query(company, "SELECT uid, payload FROM queue WHERE kind = 'draft'"):
        draft = json.loads(payload)
        draft["asked"] -= seconds
        _query(company, "UPDATE queue SET payload = ?, hold = 0 WHERE uid = ?", json.dumps(draft), uid)


def _query(company: Company, sql: str, *values: object) -> list[Any]:
    with contextlib.closing(sqlite3.connect(company.bridge.config.parent / "data" / "passerelle.db")) as database:
        rows = database.execute(sql, values).fetchall()
        database.commit()
    return rows


# --- the homeserver is out of reach ---------------------------------------------------------------------------------


@company_with(bridge=False)
async def test_what_the_homeserver_cannot_tell_us_is_asked_for_before_anything_leaves(
    company: Company, bridge_port: int
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    async with Proxy(company.synapse.url) as towards, Proxy(f"http://{listen}", bridge_port) as back:
        await company.reconfigure(homeserver={"url": towards.url}, appservice={"listen": listen}, outward={"hold": 2})
        thread = await Thread.begin(company)
        message, preview = await thread.asked(thread.secret("❌ that the homeserver could not hand over"))
        await back.down()
        await thread.alice.react(thread.room, message, "❌")
        await thread.alice.see(thread.room, rewords(preview, "Not sent: cancelled"))

        await back.up()
        message, preview = await thread.asked(thread.secret("taken back while the homeserver was out of reach"))
        await back.down()
        await towards.down()
        await thread.alice.redact(thread.room, message)
        await until(_cannot_end(company), "the hold to find no homeserver")
        await towards.up()
        await back.up()
        await thread.alice.see(thread.room, rewords(preview, "Not sent: cancelled"))
        await thread.prove()


def _cannot_end(company: Company) -> Any:
    async def look() -> bool:
        return "a hold cannot end yet" in company.bridge.log_text()

    return look


# --- again ----------------------------------------------------------------------------------------------------------


@company_with(outward={"hold": 1})
async def test_a_transaction_that_comes_again_sends_nothing_again(company: Company) -> None:
    thread = await Thread.begin(company)
    message, _ = await thread.asked(thread.word("a reply in a repeated transaction"))
    cancelled, preview = await thread.asked(thread.secret("a cancelled reply in a repeated transaction"))
    await thread.alice.react(thread.room, preview, "❌")
    await thread.left(message)
    seen = [event for event in thread.alice.timeline(thread.room) if event["event_id"] in (message, cancelled)]
    events = [{**event, "room_id": thread.room} for event in seen]
    token = company.synapse.registration.hs_token
    for transaction in ("again-1", "again-1", "again-2"):
        assert await _push(company, transaction, events, token) == 200
    unheard = [{**event, "event_id": "$forged"} for event in events]
    assert await _push(company, "forged", unheard, "wrong") == 403
    await thread.prove()


async def _push(company: Company, transaction: str, events: list[Any], token: str) -> int:
    """What the homeserver does, or somebody who says to be it."""
    url = f"{company.bridge.url}/_matrix/app/v1/transactions/{transaction}"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.put(url, json={"events": events}, headers=headers) as answer:
        return answer.status


@company_with(outward={"hold": 0.2})
async def test_a_failed_message_that_is_taken_back_is_not_sent_by_retry(company: Company) -> None:
    thread = await Thread.begin(company)
    company.sink.faults.add("data", "554 5.7.1 not today", times=2)
    first = await thread.say(f"!reply {thread.secret('redacted after it failed')}")
    await thread.alice.see(thread.room, marks(first, "⚠️"))
    second = await thread.say(f"!reply {thread.secret('retried by a colleague')}")
    await thread.alice.see(thread.room, marks(second, "⚠️"))
    await thread.alice.redact(thread.room, first)
    await thread.say("!retry", who=thread.bob)
    await thread.bob.see(thread.room, says("Only Alice can send this"))
    await thread.prove()


@company_with(outward={"hold": 3})
async def test_a_file_of_another_message_is_not_attached_in_the_last_moment(company: Company) -> None:
    """The hold of a text that a file joins begins again, with a preview that names the file."""
    thread = await Thread.begin(company)
    text = await thread.say(f"A text {thread.word('a text with a file')}")
    await thread.outward(text)
    await thread.preview(text)
    file = await thread.alice.upload_file(thread.room, "plan.txt", b"the plan", thread=thread.root)
    await thread.outward(file)
    preview = await thread.alice.see(thread.room, says("Files: plan.txt", company.bot))
    assert not company.sink.mails
    assert "A text" in body(preview)
    await thread.left(text)
    assert company.sink.mails[0].files == {"plan.txt": b"the plan"}
    await thread.alice.see(thread.room, shows_file("plan.txt"))
    await thread.prove()
