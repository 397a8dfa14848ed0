"""The end of the day: every mail that left, looked at again."""

from __future__ import annotations

from nio.api import MessageDirection, RelationshipType

from tests.demo.play import Play
from tests.demo.stage import PASSWORD, ROOMS
from tests.peers.employee import Employee
from tests.peers.world import Mail


async def nothing_else_has_left(play: Play) -> None:
    """Everything that has left is looked at: nothing that was said inside is in it"""
    mails = play.stage.outbox.mails
    played = play.checks.that
    played(len(mails) == len(play.expected), f"{len(play.expected)} mails left, each asked for", _list(mails))
    wrong = [f"{mail.recipients}" for mail, to in zip(mails, play.expected, strict=False) if to not in mail.recipients]
    played(not wrong, "each to whom it was for", wrong)
    leaks = [words for words in play.secrets for mail in mails if words in _everything(mail)]
    played(not leaks, f"none of {len(play.secrets)} things said inside is in any of them", leaks)
    marks = ("matrix.to", "mxc://", "!reply", "!mail", "_passerelle_", *(f"#{name}:" for name in ROOMS))
    leaks = [mark for mark in marks for mail in mails if mark in _everything(mail)]
    played(not leaks, "no link into our rooms, no command, no Matrix name", leaks)
    ids = [mail["Message-ID"] for mail in mails]
    played(len(set(ids)) == len(ids) and all(ids), "every Message-ID is its own", ids)
    broken = [mail["Subject"] for mail in mails for ref in mail["References"].split() if not _is_id(ref)]
    played(not broken, "every id in References is whole", broken)
    await _in_the_tracker(play)
    await _at_another_client(play)


async def _in_the_tracker(play: Play) -> None:
    """Every message in Roundup was written there, or sent there on purpose."""
    texts = [each.content for each in await play.tracker.messages("")]
    lost = [words for words in play.written if sum(words in text for text in texts) != 1]
    fact = f"{len(play.written)} messages are in Roundup, each written or asked for, once"
    play.checks.that(len(texts) == len(play.written) and not lost, fact, [*lost, *texts])
    inside = [words for words in play.secrets if words not in play.shared]
    leaks = [words for words in inside for text in texts if words in text]
    play.checks.that(not leaks, f"none of {len(inside)} things said inside is in any of them", leaks)


async def _at_another_client(play: Play) -> None:
    """The homeserver shows the conversation to a client that was not there and opens the thread."""
    bob, root, room = play.bob, play.kept("root"), play.room("support")
    async with Employee(play.stage.synapse.url, bob.mxid, PASSWORD) as newcomer:
        found = newcomer.client.room_get_event_relations(
            room, root, RelationshipType.thread, direction=MessageDirection.front
        )
        seen = [root, *[event.event_id async for event in found]]
    known = [event["event_id"] for event in bob.thread(room, root)]
    play.checks.that(seen == known, "a new client sees the same", f"{seen}\nnot {known}")


def _everything(mail: Mail) -> str:
    """The mail as bytes came, and decoded."""
    return "\n".join([mail.data.decode("utf-8", "replace"), mail.text, mail.html, mail["Subject"]])


def _list(mails: list[Mail]) -> str:
    return "\n".join(f"{', '.join(mail.recipients)}: {mail['Subject']}" for mail in mails)


def _is_id(ref: str) -> bool:
    return ref.startswith("<") and ref.endswith(">") and "@" in ref
