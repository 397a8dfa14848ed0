"""A chat among colleagues that becomes mail with a partner."""

from __future__ import annotations

from tests.demo.play import Play, in_thread, mentioned, says
from tests.demo.stage import BOT
from tests.peers.employee import body
from tests.peers.world import Mail

PAUL = "Paul Partner <paul@lamps.example>"
PAULS = "@_passerelle_mail_paul=40lamps.example:"


async def a_chat_becomes_mail(play: Play) -> None:
    """A chat in #general goes on in #sales, and from there by mail with a partner"""
    await play.talk(play.carol, "general", "The foyer is far too dark for the summer party, isn't it?")
    await play.talk(play.bob, "general", "It is. I nearly sat down on the director.")
    await play.talk(play.alice, "general", "Ask Paul, the lamp man. But don't tell him our budget is 6000.")
    await play.carol.say(play.room("general"), "!mail paul@lamps.example Lamps for the foyer")
    refusal = play.say("no-scope", command="mail")
    await play.see(play.carol, "general", says(refusal, BOT), "#general is mapped to no mailbox, and the bot says so")
    room = play.room("sales")
    root = await play.carol.say(room, "We need about 40 lamps for the foyer.")
    await play.bob.say(room, "Warm white, please, and they must be dimmable.", thread=root)
    await play.alice.say(room, "Delivery before June 20.", thread=root)
    asked, preview = await play.ask(
        play.carol, "sales", root,
        "!mail paul@lamps.example with history Lamps for the foyer\nDear Paul,\n\ncan you make us an offer? "
        "What we discussed is below.\n\nCarol",
        "the bot previews the mail to its author",
    )  # fmt: skip
    said = ("We need about 40 lamps", "Warm white, please", "Delivery before June 20", "can you make us an offer?")
    shown = body(preview)
    play.checks.that(all(words in shown for words in said), "with every word that would leave", shown)
    play.checks.that(in_thread(root)(preview), "in the thread")
    mail = await play.left("paul@lamps.example", "can you make us an offer?")
    play.held(asked)
    _first_mail(play, mail, said)
    await play.accepted(play.carol, asked)
    await play.answers(mail, PAUL, "Dear Carol,\n\nwith pleasure: 40 lamps at 95 each. Shall I reserve them?\n\nPaul\n")
    seen = await play.see(
        play.bob, "sales", says("40 lamps at 95 each", PAULS, root), "his answer is in the same thread"
    )
    play.checks.that(mentioned(seen) == [play.carol.mxid], "and mentions Carol", mentioned(seen))
    play.keep(lamps=root, lamps_mail=mail)


def _first_mail(play: Play, mail: Mail, said: tuple[str, ...]) -> None:
    played = play.checks.that
    played("Carol Rossi" in mail["From"] and "sales@company.example" in mail["From"], "From names Carol", mail["From"])
    played(mail["Subject"] == "Lamps for the foyer", "the subject is hers", mail["Subject"])
    played(not mail["In-Reply-To"], "it answers nothing", mail["In-Reply-To"])
    played(all(words in mail.text for words in said), "it has the conversation so far", mail.text)
    played("Bob Keller" in mail.text and "!mail" not in mail.text, "with names, without the command", mail.text)


async def an_edit_during_the_hold(play: Play) -> None:
    """Carol corrects a reply while it is held: only the new words leave"""
    root, room = play.kept("lamps"), play.room("sales")
    await play.talk(play.bob, "sales", "95 is fair, we would have paid 120.", root)
    asked, _ = await play.ask(play.carol, "sales", root, "!reply Please reserve 400 lamps for us.")
    await play.carol.edit(room, asked.event, "!reply Please reserve 40 lamps for us.")
    await play.reworded(play.carol, asked, "Please reserve 40 lamps", "the preview shows the new words")
    mail = await play.left("paul@lamps.example", "Please reserve 40 lamps for us.")
    play.held(asked)
    play.checks.that("400" not in mail.data.decode(), "the old ones are nowhere in it", mail.text)
    await play.accepted(play.carol, asked)
