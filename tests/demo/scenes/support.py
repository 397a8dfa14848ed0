"""A customer, a broken printer, and two colleagues."""

from __future__ import annotations

import time

from tests.demo import pictures
from tests.demo.play import Asked, Play, answers, bot_answers, in_thread, mentioned, says, shows_file
from tests.demo.stage import BOT
from tests.peers.employee import body
from tests.peers.world import letter

JANE = "Jane Doe <jane.doe@theatre.example>"
JANES = "@_passerelle_mail_jane.doe=40theatre.example:"
TOM = "Tom Weber <tom@theatre.example>"

QUESTION = """\
Hello,

since yesterday's update the ticket printer at our north gate prints everything upside down. A picture is attached.

Could you look at it today? The gate opens at 17:00.

Best regards
Jane Doe

On Thu, 19 Nov 2026 at 16:02, Company Support <support@company.example> wrote:
> Dear Jane,
>
> the update for your gates is planned for Saturday night. You need not be there, the printers restart by
> themselves. This is what we change:
>
{changes}
>
> Kind regards
> Company Support
>
> On Wed, 18 Nov 2026 at 09:11, Jane Doe <jane.doe@theatre.example> wrote:
>> Hello, when will the new firmware be installed?
>> Jane
""".format(changes="\n".join(f"> {number:2}. gate {number}: firmware 4.1 to 4.2" for number in range(1, 21)))

ANSWER = """\
<div dir="ltr"><p>Hello Alice,</p><p>the paper lies the <b>right</b> way round. What else I found out:</p>
<ul><li>model <b>TP-200</b></li><li>firmware <b>4.2</b>, it was 4.1 before</li></ul><p>Jane</p></div>
<div class="gmail_quote"><div dir="ltr" class="gmail_attr">On Sun, 22 Nov 2026, Alice Martin wrote:<br></div>
<blockquote class="gmail_quote" style="margin:0 0 0 .8ex;border-left:1px solid">{quoted}</blockquote></div>
"""

PLAIN_ANSWER = """\
Hello Alice,

the paper lies the *right* way round. What else I found out:

   - model *TP-200*
   - firmware *4.2*, it was 4.1 before

Jane

On Sun, 22 Nov 2026, Alice Martin wrote:

"""


async def the_bot_is_invited(play: Play) -> None:
    """The bot joins the rooms it was invited to, and says what it can do there"""
    for room, scope in (("support", "support@company.example"), ("sales", "sales@company.example")):
        await play.see(play.alice, room, says(scope, BOT), f"in #{room} it names {scope}")
    await play.see(play.alice, "general", says("not mapped", BOT), "in #general it says that nothing is mapped")
    await play.see(play.alice, "bridge-ops", lambda each: each.get("state_key") == BOT, "it is in #bridge-ops")


async def a_customer_writes(play: Play) -> None:
    """A customer writes to support@company.example: a thread in #support"""
    photo = pictures.ticket()
    mail = letter(
        JANE, "Company Support <support@company.example>", "Tickets print upside down", QUESTION,
        cc=TOM, attachments=[("ticket.png", photo, "image/png")], message_id="<first.841@theatre.example>",
        in_reply_to="<older.77@mail.example>", references=("<older.76@mail.example>", "<older.77@mail.example>"),
    )  # fmt: skip
    await play.writes(mail)
    root = await play.see(play.bob, "support", says("prints everything upside down", JANES), "the mail is in #support")
    play.keep(first_mail=mail, root=root["event_id"])
    played = play.checks.that
    played("m.relates_to" not in root["content"], "it begins a thread")
    played("Tickets print upside down" in body(root), "its subject is shown", body(root))
    played("firmware 4.1 to 4.2" not in body(root), "the long quoted history is folded away", body(root))
    played("!original" in body(root), "and the way to see it is named", body(root))
    names = await play.bob.members(play.room("support"))
    played(names.get(root["sender"]) == "Jane Doe (theatre.example)", "the customer appears by name", names)
    image = await play.see(
        play.bob, "support", shows_file("ticket.png", root["event_id"], JANES), "the attachment is in the thread"
    )
    played(image["content"]["msgtype"] == "m.image", "as an image", image)
    played(await play.bob.download(image["content"]["url"]) == photo, "the same byte for byte")


async def colleagues_talk(play: Play) -> None:
    """Alice and Bob talk about it in the thread: nothing of this leaves"""
    root = play.kept("root")
    await play.talk(play.alice, "support", "Not the theatre again. Did we test 4.2 on the old models at all?", root)
    await play.talk(
        play.bob, "support", "We did not. Between us: we saved on the test lab.", root,
        html="We did <strong>not</strong>. Between us: we saved on the test lab.",
    )  # fmt: skip
    await play.talk(play.alice, "support", "@Bob Keller can you drive there at 15:00?", root, mentions=[play.bob.mxid])
    last = await play.talk(play.bob, "support", "Yes, but the customer need not know that I have no spare part.", root)
    await play.see(
        play.alice, "support", lambda each: each["event_id"] == last and in_thread(root)(each), "Alice sees Bob's words"
    )


async def alice_replies(play: Play) -> None:
    """Alice answers on purpose: !reply, a preview, a hold, and the mail leaves"""
    root, first = play.kept("root"), play.kept("first_mail")
    asked, preview = await play.ask(
        play.alice, "support", root,
        "!reply Dear Jane,\n\nsorry for that. We are looking into it. **Is the paper the right way round?**\n\nAlice",
        html="!reply Dear Jane,<br><br>sorry for that. We are looking into it. "
        "<strong>Is the paper the right way round?</strong><br><br>Alice",
    )  # fmt: skip
    played = play.checks.that
    shown = body(preview)
    played("jane.doe@theatre.example" in shown and "tom@theatre.example" in shown, "it names To and Cc", shown)
    played(in_thread(root)(preview), "in the thread")
    mail = await play.left("jane.doe@theatre.example", "We are looking into it.")
    play.held(asked)
    played(
        "Alice Martin" in mail["From"] and "support@company.example" in mail["From"], "From names Alice", mail["From"]
    )
    played("tom@theatre.example" in mail["Cc"], "Cc has the customer's colleague", mail["Cc"])
    played(mail["Subject"] == "Re: Tickets print upside down", "the subject goes on", mail["Subject"])
    played(mail["In-Reply-To"] == first["Message-ID"], "In-Reply-To names her mail", mail["In-Reply-To"])
    expected = ["<older.76@mail.example>", "<older.77@mail.example>", "<first.841@theatre.example>"]
    played(mail["References"].split() == expected, "References name the whole chain", mail["References"])
    played("=?" not in mail.raw("References") + mail.raw("In-Reply-To"), "no id is encoded")
    played("support+" in mail["Reply-To"], "answers come to a signed address", mail["Reply-To"])
    played("<strong>Is the paper" in mail.html, "there is an HTML part", mail.html)
    await play.accepted(play.alice, asked)
    play.keep(first_answer=mail, first_reply=asked.event)


async def the_customer_answers(play: Play) -> None:
    """The customer answers by mail, in HTML: it comes into the thread and Alice is mentioned"""
    root, mail = play.kept("root"), play.kept("first_answer")
    await play.answers(
        mail, JANE, PLAIN_ANSWER + "".join(f"> {line}\n" for line in mail.text.splitlines()), cc=TOM,
        html=ANSWER.format(quoted=mail.text.replace("\n", "<br>")), message_id="<second.842@theatre.example>",
    )  # fmt: skip
    seen = await play.see(play.alice, "support", says("What else I found out", JANES, root), "it is in the same thread")
    rich = seen["content"].get("formatted_body", "")
    played = play.checks.that
    played(mentioned(seen) == [play.alice.mxid], "Alice is mentioned", mentioned(seen))
    played("<li>" in rich and ("<strong>TP-200" in rich or "<b>TP-200" in rich), "lists and bold are kept", rich)
    played("style" not in rich and "class" not in rich, "nothing of its page layout", rich)
    played("looking into it" not in body(seen) + rich, "what it quotes is folded away", rich)
    played(answers(seen, play.kept("first_reply")), "it answers Alice's message")


async def bob_sends_his_own_words_and_a_photo(play: Play) -> None:
    """Bob puts 📤 on his own message and on a photo: they leave together"""
    root, room = play.kept("root"), play.room("support")
    words = await play.bob.say(room, "I am at your gate at 15:00, with a printer that looks like this.", thread=root)
    photo = pictures.printer()
    image = await play.bob.upload_file(room, "printer.png", photo, "image/png", thread=root)
    await play.alice.react(room, words, "📤")
    await play.see(
        play.alice, "support", says(play.say("not-yours", author="Bob Keller"), BOT, root),
        "Alice cannot send Bob's words",
    )  # fmt: skip
    await play.bob.react(room, words, "📤")
    await play.bob.react(room, image, "📤")
    await play.previewed(play.bob, "support", words, "the bot previews his words")
    whole = await play.see(
        play.bob, "support", lambda each: bot_answers(each, words) and "printer.png" in body(each),
        "and previews them again with the photo",
    )  # fmt: skip
    asked = Asked(words, whole["event_id"], time.monotonic(), "support")
    mail = await play.left("jane.doe@theatre.example", "I am at your gate at 15:00")
    played = play.checks.that
    played(mail.files == {"printer.png": photo}, "with the photo, byte for byte", list(mail.files))
    played("Bob Keller" in mail["From"], "in Bob's name", mail["From"])
    played(mail["In-Reply-To"] == "<second.842@theatre.example>", "as an answer to her last mail", mail["In-Reply-To"])
    await play.accepted(play.bob, asked)


async def a_reply_is_cancelled(play: Play) -> None:
    """Alice regrets a reply: ❌ during the hold, and it never leaves"""
    root, room = play.kept("root"), play.room("support")
    regretted = "Honestly, you should have bought the newer model."
    asked, _ = await play.ask(play.alice, "support", root, f"!reply {regretted}")
    await play.alice.react(room, asked.preview, "❌")
    await play.reworded(play.alice, asked, play.say("preview-cancelled"), "the preview says that it was not sent")
    await play.unmarked(play.alice, "support", asked.event, "⏳")
    await play.nothing_leaves(asked, "nothing has left after the hold")
    play.secrets.append(regretted)


async def a_new_mail_pauses_a_reply(play: Play) -> None:
    """The customer writes while a reply is held: it waits for a second look, then !send"""
    root, room = play.kept("root"), play.room("support")
    asked, _ = await play.ask(play.alice, "support", root, "!reply Please send us the serial number of the printer.")
    await play.answers(
        play.kept("first_answer"), JANE, "By the way, the serial number is 4711-0815.\n",
        message_id="<third.843@theatre.example>",
    )  # fmt: skip
    await play.see(play.alice, "support", says("4711-0815", JANES, root), "the customer's mail is in the thread")
    why = play.say("why-new-message")
    await play.reworded(play.alice, asked, why, "the preview says that it is paused, and why")
    notice = await play.see(
        play.alice, "support", lambda each: bot_answers(each, asked.event) and why in body(each),
        "so does a notice in the thread",
    )  # fmt: skip
    play.checks.that(mentioned(notice) == [play.alice.mxid], "which mentions Alice", mentioned(notice))
    await play.nothing_leaves(asked, "nothing leaves when the hold would be over")
    await play.alice.say(room, "!send", thread=root)
    mail = await play.left("jane.doe@theatre.example", "serial number of the printer", "after !send it leaves")
    play.checks.that(
        mail["In-Reply-To"] == "<second.842@theatre.example>",
        "as an answer to what Alice had read",
        mail["In-Reply-To"],
    )
    await play.accepted(play.alice, asked)
