"""Ways in which an inside message could leave the company. Each is tried on a real homeserver; none does."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.conftest import Company
from tests.e2e.leaking import JANE, Attempts, Thread
from tests.e2e.looking import says
from tests.peers.employee import Employee, Refused, body

said = Attempts()
shown = Attempts()
reacted = Attempts()
by_others = Attempts()

# --- said -----------------------------------------------------------------------------------------------------------


@said("a plain message in the thread")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"The customer is wrong, {secret}.")


@said("a plain message in the room")
async def _(thread: Thread, secret: str) -> None:
    await thread.alice.say(thread.room, secret)


@said("a rich reply to the customer's message, in the thread")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(secret, reply_to=thread.root)


@said("a rich reply to the customer's message, outside the thread")
async def _(thread: Thread, secret: str) -> None:
    await thread.alice.say(thread.room, secret, reply_to=thread.root)


@said("a reply whose fallback quotes a !reply to the bot")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"> <{thread.company.bot}> !reply {secret}\n\nWhat a command, {secret}", reply_to=thread.root)


@said("a reply whose fallback has !reply in its second line")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"> <{thread.bob.mxid}> look:\n> !reply {secret}\n\nno, {secret}", reply_to=thread.root)


@said("a reply whose fallback marks one line of the quoted command only")
async def _(thread: Thread, secret: str) -> None:
    text = f"> <{thread.bob.mxid}> look:\n>\n> !reply {secret}\n\n{secret}"
    await thread.say(text, reply_to=thread.root)


@said("a fallback without a relation")
async def _(thread: Thread, secret: str) -> None:
    await thread.send({"msgtype": "m.text", "body": f"> <{thread.bob.mxid}> hm\n\n!reply {secret}"})


@said("a command after other words")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"Bob, shall I type !reply {secret}")


@said("a command in the second line")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"\n!reply {secret}")
    await thread.say(f"Bob:\n!reply {secret}")


@said("a command that is not at the very start")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f" !reply {secret}")
    await thread.say(f"@bob !reply {secret}")


@said("a command in backticks")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"`!reply {secret}`", html=f"<code>!reply {secret}</code>")


@said("a command in inline code, its body without backticks")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!reply {secret}", html=f"<p><code>!reply {secret}</code></p>")


@said("a command in a code block")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!reply {secret}", html=f"<pre><code>!reply {secret}\n</code></pre>")


@said("a command in a quote whose body is bare")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!reply {secret}", html=f"<blockquote><p>!reply {secret}</p></blockquote>")


@said("a command that is struck out")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!reply {secret}", html=f"<del>!reply {secret}</del>")


@said("a command in the body of a message that shows other words")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!reply {secret}", html=f"Between us: {secret}")


@said("a command in a notice or an emote")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!reply {secret}", msgtype="m.notice")
    await thread.say(f"!reply {secret}", msgtype="m.emote")


@said("an edit that makes a command of an inside message")
async def _(thread: Thread, secret: str) -> None:
    event = await thread.say("inside")
    await thread.alice.edit(thread.room, event, f"!reply {secret}")


@said("an edit that makes a beginning of an inside message")
async def _(thread: Thread, secret: str) -> None:
    event = await thread.say("inside")
    await thread.alice.edit(thread.room, event, f"!mail jane@customer.example Hello\n{secret}")


@said("something that only looks like a command")
async def _(thread: Thread, secret: str) -> None:
    for text in ("!replysecret", "! reply", "!reply:", "/reply", "!!reply", "!answer", "reply", "！reply"):
        await thread.say(f"{text} {secret}")


@said("words after a command that takes none")
async def _(thread: Thread, secret: str) -> None:
    for command in ("send", "cancel", "retry", "help", "original"):
        await thread.say(f"!{command} {secret}")


@said("!reply without a text, and !reply outside a thread")
async def _(thread: Thread, secret: str) -> None:
    await thread.say("!reply")
    await thread.alice.say(thread.room, f"!reply {secret}")
    await thread.alice.see(thread.room, says("!reply belongs in the thread", thread.company.bot))


@said("an image whose caption is a command")
async def _(thread: Thread, secret: str) -> None:
    await thread.alice.upload_file(
        thread.room, f"{secret}.png", secret.encode(), "image/png", thread=thread.root, caption=f"!reply {secret}"
    )


@said("a sticker, an encrypted event and an unknown event with a command in them")
async def _(thread: Thread, secret: str) -> None:
    await thread.send({"body": f"!reply {secret}", "url": "mxc://company.example/x", "info": {}}, type="m.sticker")
    await thread.send({"msgtype": "m.text", "body": f"!reply {secret}"}, type="com.example.message")
    sealed = {"algorithm": "m.megolm.v1.aes-sha2", "sender_key": "k", "device_id": "d", "session_id": "s"}
    words = {"ciphertext": secret, "body": f"!reply {secret}", "msgtype": "m.text"}
    await thread.send(sealed | words, type="m.room.encrypted")


@said("a beginning without a text")
async def _(thread: Thread, secret: str) -> None:
    start = await thread.alice.say(thread.room, f"!mail other@partner.example About {secret}")
    await thread.alice.see(thread.room, says("continues with other@partner.example"))
    await thread.alice.say(thread.room, f"Only for us: {secret}", thread=start)


async def test_nothing_that_is_merely_said_leaves(company: Company) -> None:
    thread = await Thread.begin(company)
    await said.make(thread)
    await thread.prove()


# --- shown: in a !reply that leaves, what else could come with it ---------------------------------------------------


@shown("the fallback of a !reply to an inside message")
async def _(thread: Thread, secret: str) -> None:
    inside = await thread.say(f"Do not tell: {secret}", who=thread.bob)
    await thread.say(
        f"> <{thread.bob.mxid}> Do not tell: {secret}\n> really, {secret}\n\n!reply Hello {thread.word()}",
        reply_to=inside,
        html=f"<mx-reply><blockquote>Do not tell: {secret}</blockquote></mx-reply>!reply Hello",
    )


@shown("the fallback of a reply to an emote")
async def _(thread: Thread, secret: str) -> None:
    inside = await thread.say(f"laughs about {secret}", who=thread.bob, msgtype="m.emote")
    word = thread.word()
    event = await thread.say(f"> * <{thread.bob.mxid}> laughs about {secret}\n\nGood day {word}", reply_to=inside)
    await thread.outward(event)


@shown("a fallback that is nested, and one that is not where it belongs")
async def _(thread: Thread, secret: str) -> None:
    inner = f"<mx-reply>{secret}</mx-reply>"
    word = thread.word()
    nested = await thread.say(f"Nested {word}", html=f"<mx-reply>{inner}{secret}</mx-reply>Nested {word}")
    await thread.outward(nested)
    await thread.left(nested)
    word = thread.word()
    await thread.say(f"!reply Late {word}", html=f"!reply Late {word}{inner}<mx-reply>{secret}")


@shown("hidden text and comments in the formatted text")
async def _(thread: Thread, secret: str) -> None:
    unseen = (
        f'<!-- {secret} --><span style="display:none">{secret}</span><script>{secret}</script><style>{secret}</style>'
        f'<span data-mx-spoiler="{secret}" title="{secret}">Hello</span>'
    )
    for hidden in (
        unseen,
        f'<font color="#ffffff" size="0">{secret}</font><img src="mxc://company.example/x" alt="{secret}">',
        f'<a href="https://wiki.company.example/{secret}">Hello</a>',
    ):
        word = thread.word(f"a reply with {hidden}")
        await thread.say(f"!reply Hello {word}", html=f"!reply Hello {hidden} {word}")


@shown("formatted text that says something else than the plain text that is previewed")
async def _(thread: Thread, secret: str) -> None:
    word = thread.word()
    event = await thread.say(f"Good day {word}", html=f"Good day {word}, you {secret}")
    await thread.outward(event)
    preview = await thread.preview(event)
    assert secret not in json.dumps(preview["content"])
    await thread.left(event)


@shown("mentions, and links to people, rooms and messages")
async def _(thread: Thread, secret: str) -> None:
    bob, room = thread.bob.mxid, thread.room
    link = f"https://matrix.to/#/{room}/{thread.root}?via=company.example"
    await thread.say(
        f"!reply {bob} says hello, [{thread.word()}]({link}) {link} matrix:r/{secret} mxc://company.example/{secret}",
        html=f'!reply <a href="https://matrix.to/#/{bob}">{bob}</a> says hello, <a href="{link}">link</a>',
        mentions=[bob],
    )


@shown("a link to a room in the subject")
async def _(thread: Thread, secret: str) -> None:
    link = f"https://matrix.to/#/!{secret}:company.example"
    start = await thread.alice.say(thread.room, f"!mail jane@customer.example {thread.word()} {link}\nThe text.")
    await thread.left(start)


@shown("files of the thread, which nobody sends")
async def _(thread: Thread, secret: str) -> None:
    await thread.alice.upload_file(thread.room, f"{secret}.txt", secret.encode(), "text/plain", thread=thread.root)
    await thread.say(f"!reply See you, {thread.word()}")


@shown("what others say while a reply is on its way")
async def _(thread: Thread, secret: str) -> None:
    await thread.asked(f"Slowly {thread.word()}")
    await thread.say(secret, who=thread.bob)


async def test_nothing_from_inside_comes_along_with_what_leaves(company: Company) -> None:
    thread = await Thread.begin(company)
    names = {
        thread.room: "the room's id",
        thread.root: "the thread's id",
        thread.alice.mxid: "Alice's Matrix id",
        thread.bob.mxid: "Bob's Matrix id",
        company.bot: "the bot's Matrix id",
        "_passerelle_mail_": "the ghost's Matrix id",
        "matrix.to": "a link into Matrix",
        "mxc://": "the address of a file inside",
        "test_nothing_from": "the name of the room",
    }
    thread.inside |= names
    await shown.make(thread)
    await thread.prove()
    replies = [mail for mail in company.sink.mails if mail["Subject"] == "Re: Printer on fire"]
    for mail in replies:
        assert mail.raw("Message-ID").endswith("@company.example>")
        assert mail.recipients == ("jane@customer.example",)
        assert not mail.files
        assert mail.text.partition("\n-- \n")[2].startswith("Support at Company\n")


# --- reactions ------------------------------------------------------------------------------------------------------


@reacted("📤 by a colleague on somebody else's message")
async def _(thread: Thread, secret: str) -> None:
    event = await thread.say(secret)
    await thread.outward(event, who=thread.bob)
    await thread.bob.see(thread.room, says("Only Alice can send this", thread.company.bot))


@reacted("📤 on what the bot and the customer said")
async def _(thread: Thread, secret: str) -> None:
    await thread.say(f"!unknown {secret}")
    notice = await thread.alice.see(thread.room, says("I do not know !unknown"))
    await thread.outward(notice["event_id"])
    await thread.outward(thread.root)
    await thread.alice.see(thread.room, says("Only jane@customer.example", thread.company.bot))


@reacted("📤 on a message outside any conversation, and in a thread that is none")
async def _(thread: Thread, secret: str) -> None:
    lone = await thread.alice.say(thread.room, secret)
    await thread.outward(lone)
    await thread.outward(await thread.alice.say(thread.room, secret, thread=lone))


@reacted("other reactions, and 📤 in other guises")
async def _(thread: Thread, secret: str) -> None:
    event = await thread.say(secret)
    for key in ("👍", "✅", "👀", "🎫", "📥", "📨", "✉️", "📤🏽", "📤📤", ":outbox_tray:", "send", "!send", "!reply"):
        await thread.alice.react(thread.room, event, key)


@reacted("the bot's own marks, when somebody adds to them")
async def _(thread: Thread, secret: str) -> None:
    asked, preview = await thread.asked(f"Marked {thread.word()}")
    event = await thread.say(secret)
    for key in ("⏳", "✉️", "✉", "⚠️", "⚠"):
        for target in (event, asked, preview):
            await thread.alice.react(thread.room, target, key)
    await thread.left(asked)


@reacted("📤 on an edit, a reaction and a redacted message")
async def _(thread: Thread, secret: str) -> None:
    event = await thread.say("inside")
    edit = await thread.alice.edit(thread.room, event, secret)
    thumb = await thread.alice.react(thread.room, event, "👍")
    gone = await thread.say(secret)
    await thread.alice.redact(thread.room, gone)
    for target in (edit, thumb, gone):
        with contextlib.suppress(Refused):  # clients offer none of it, and homeservers refuse some
            await thread.outward(target)


@reacted("📤 on a message that has neither words nor a file")
async def _(thread: Thread, secret: str) -> None:
    place = {"msgtype": "m.location", "body": f"At {secret}", "geo_uri": "geo:0,0"}
    await thread.outward(await thread.send(place))
    await thread.alice.see(thread.room, says("a message of type m.location cannot be sent"))


@reacted("an inside message that is edited after 📤 on another")
async def _(thread: Thread, secret: str) -> None:
    inside = await thread.say("inside")
    event = await thread.say(f"Good day {thread.word()}")
    await thread.outward(event)
    await thread.alice.edit(thread.room, inside, f"!reply {secret}")
    await thread.left(event)


async def test_no_reaction_sends_what_is_not_ones_own(company: Company) -> None:
    thread = await Thread.begin(company)
    await reacted.make(thread)
    await thread.prove()


# --- outsiders ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def outsiders(company: Company) -> list[Employee]:
    """A guest, and somebody whom another bridge brings here: in the room, but not of the company."""
    found = [await company.hire("guest"), await company.hire("otherbridge_eve")]
    await company.reconfigure(inside={"except_users": [found[0].mxid, "@otherbridge_*"]})
    for each in found:
        await company.alice.invite(company.room, each.mxid)
        await each.join(company.room)
    return found


async def test_outsiders_in_the_room_can_make_nothing_leave(company: Company, outsiders: list[Employee]) -> None:
    thread = await Thread.begin(company)
    inside = await thread.say(thread.secret("a message that a guest reacts to"))
    for guest in outsiders:
        secret = thread.secret(f"commands and reactions of {guest.name}")
        own = await thread.say(secret, who=guest)
        for event in (own, inside, thread.root):
            await thread.outward(event, who=guest)
        for command in ("!reply", "!mail eve@elsewhere.example", "!mail eve@elsewhere.example Hi\n", "!send", "!retry"):
            await thread.say(f"{command} {secret}", who=guest)
        await thread.alice.see(thread.room, says(f"{guest.mxid} may not"))
        await thread.alice.edit(thread.room, inside, secret)
        await thread.outward(own)  # an employee cannot send it either
        await thread.alice.see(thread.room, says(f"Only {guest.name.capitalize()} can send this"))
    await thread.prove()


async def test_an_outsider_neither_sends_nor_changes_what_waits(company: Company, outsiders: list[Employee]) -> None:
    await company.reconfigure(outward={"hold": 600})
    thread = await Thread.begin(company)
    asked, preview = await thread.asked(f"Waiting {thread.secret('!send and edits of guests')}")
    for guest in outsiders:
        await thread.say("!send", who=guest)
        await thread.alice.see(thread.room, says(f"{guest.mxid} may not"))
        for event in (asked, preview):
            await thread.outward(event, who=guest)
            await guest.edit(thread.room, event, f"!reply {thread.secret('an edit by a guest')}")
    await thread.say("!send", who=thread.bob)
    await thread.bob.see(thread.room, says("Only Alice can send this"))
    await thread.say("!cancel", who=thread.bob)
    await company.reconfigure(outward={"hold": 0.2})
    await thread.prove()


# --- recipients -----------------------------------------------------------------------------------------------------


async def test_a_plain_reply_reaches_nobody_but_those_of_the_last_message(company: Company) -> None:
    thread = await Thread.begin(company)
    first = await company.alice.see(company.room, says("Help"))
    asked = await thread.say(f"!reply First {thread.word()}")
    await thread.left(asked)
    ours = company.sink.mails[0]["Message-ID"]

    async def write(sender: str, text: str, **how: object) -> None:
        await company.post(sender=sender, subject="Re: Printer on fire", body=text, **how)  # type: ignore[arg-type]
        await company.alice.see(company.room, says(text))

    await write(JANE, "With copies", in_reply_to=ours, cc=["carl@elsewhere.example"])
    await company.deliver(_blind(ours), "jane@customer.example")
    await company.alice.see(company.room, says("Blind copies"))
    await write("Mallory <mallory@evil.example>", "Let me in", in_reply_to="<blind@customer.example>")
    await company.alice.see(company.room, says("mallory@evil.example is not part of this conversation"))
    inside = await thread.say("We know more than that", who=thread.bob)

    await thread.say(f"!reply Second {thread.word()}")
    await thread.say(f"!reply Third {thread.word()}", reply_to=inside)
    await thread.prove()
    assert first["event_id"] == thread.root
    assert {mail.recipients for mail in company.sink.mails} == {("jane@customer.example",)}
    for mail in company.sink.mails:
        assert "elsewhere.example" not in mail.data.decode() + mail["Cc"]
        assert "mallory" not in mail.data.decode()


def _blind(ours: str) -> bytes:
    head = {
        "From": JANE,
        "To": "undisclosed-recipients:;",
        "Bcc": "blind@elsewhere.example",
        "Subject": "Re: Printer on fire",
        "Message-ID": "<blind@customer.example>",
        "In-Reply-To": ours,
    }
    return "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\nBlind copies\r\n"


async def test_a_room_never_reaches_the_partners_of_another_room(company: Company) -> None:
    other = await company.alice.create_room("sales", invite=[company.bob.mxid, company.bot], powers={company.bot: 50})
    boxes = [{"address": address, "name": address} for address in (company.mailbox, "sales@company.example")]
    rooms = [(company.mailbox, company.room), ("sales@company.example", other)]
    mappings = [{"connector": "mail", "scope": scope, "room": room} for scope, room in rooms]
    await company.reconfigure(connectors={"mail": {"mailboxes": boxes}}, mappings=mappings)
    support = await Thread.begin(company)
    sales = await Thread.begin(
        company, "A big order", other, "sales@company.example", "Rita Rival <rita@rival.example>"
    )
    inside = await sales.say(support.secret("a message of the other room"))

    # The other room's events, named in this room; where the homeserver itself refuses, so much the better.
    await support.left(await support.say(f"!reply Ours {support.word()}", reply_to=sales.root))
    with contextlib.suppress(Refused):
        await support.outward(inside)
    secret = support.secret("a command that points into the other room")
    forged = [
        {"rel_type": "m.thread", "event_id": sales.root},
        {"rel_type": "m.thread", "event_id": sales.root, "m.in_reply_to": {"event_id": inside}},
        {"m.in_reply_to": {"event_id": inside}},
    ]
    for relation in forged:
        for text in (f"!reply {secret}", "!original", f"!mail eve@elsewhere.example with history Hi {secret}"):
            with contextlib.suppress(Refused):
                await support.alice.send(
                    support.room, "m.room.message", {"msgtype": "m.text", "body": text, "m.relates_to": relation}
                )
    await support.say("!original", reply_to=sales.root)
    original = await support.alice.see(support.room, lambda event: event["content"].get("msgtype") == "m.file")
    assert b"Printer on fire" in await support.alice.download(original["content"]["url"])
    await support.say("!cancel")
    await support.alice.see(support.room, lambda seen: "Nothing is waiting" in body(seen) or "Not sent" in body(seen))
    await support.prove()
    assert {mail.recipients for mail in company.sink.mails} == {("jane@customer.example",)}
    assert all("rival" not in mail.data.decode() for mail in company.sink.mails)
