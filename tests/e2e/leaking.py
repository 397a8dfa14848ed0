"""Attempts to make an inside message leave: a thread in which they are made, and the proof that none of it left."""

from __future__ import annotations

import quopri
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from email.header import decode_header, make_header
from email.message import Message
from uuid import uuid4

from tests.conftest import Company
from tests.e2e.looking import Event, Look, marks, says
from tests.peers.employee import Employee, body, relation
from tests.peers.world import Mail

JANE = "Jane Doe <jane@customer.example>"


def about(event: str) -> Look:
    """The preview of a message: the bot's answer to it that says to whom it goes."""
    return lambda seen: (
        relation(seen).get("m.in_reply_to", {}).get("event_id") == event and body(seen).startswith("📤 To:")
    )


def rewords(event: str, text: str) -> Look:
    """The bot's new words for a message of its own."""
    return lambda seen: (
        relation(seen).get("rel_type") == "m.replace" and relation(seen)["event_id"] == event and text in body(seen)
    )


@dataclass
class Thread:
    """A customer's thread; `inside` has the words that must never leave, `meant` those that each mail must have."""

    company: Company
    root: str
    room: str
    customer: str = JANE
    inside: dict[str, str] = field(default_factory=dict)
    meant: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def begin(
        cls, company: Company, subject: str = "Printer on fire", room: str = "", to: str = "", sender: str = JANE
    ) -> Thread:
        text = f"Help {uuid4().hex[:8]}"
        await company.post(to=to or None, sender=sender, subject=subject, body=text)
        root = await company.alice.see(room or company.room, says(text))
        return cls(company, root["event_id"], room or company.room, sender)

    @property
    def alice(self) -> Employee:
        return self.company.alice

    @property
    def bob(self) -> Employee:
        return self.company.bob

    def secret(self, attempt: str) -> str:
        """A word that must not leave, whatever happens."""
        word = f"inside{uuid4().hex[:12]}"
        self.inside[word] = attempt
        return word

    def word(self, why: str = "a legitimate reply") -> str:
        """A word that may leave."""
        word = f"meant{uuid4().hex[:12]}"
        self.meant[word] = why
        return word

    async def say(self, text: str, who: Employee | None = None, reply_to: str | None = None, **how: object) -> str:
        """Say something in the thread."""
        return await (who or self.alice).say(self.room, text, thread=self.root, reply_to=reply_to, **how)  # type: ignore[arg-type]

    async def send(self, content: Event, who: Employee | None = None, type: str = "m.room.message") -> str:
        """Send any content into the thread."""
        related = {"rel_type": "m.thread", "event_id": self.root}
        content = {**content, "m.relates_to": related | content.get("m.relates_to", {})}
        return await (who or self.alice).send(self.room, type, content)

    async def preview(self, event: str) -> Event:
        """Wait until the room is asked about what that message wants to send."""
        return await self.alice.see(self.room, about(event))

    async def asked(self, text: str) -> tuple[str, str]:
        """(message, preview) of a `!reply`."""
        message = await self.say(f"!reply {text}")
        return message, (await self.preview(message))["event_id"]

    async def outward(self, event: str, who: Employee | None = None) -> str:
        """Put 📤 on a message; returns the reaction."""
        return await (who or self.alice).react(self.room, event, "📤")

    async def left(self, event: str) -> None:
        """Wait until a message is marked as accepted by the other side."""
        await self.alice.see(self.room, marks(event, "✉️"))

    async def prove_nothing_more(self, count: int) -> None:
        """After so many mails the next one is the one that is asked for now."""
        word = self.word("the sentinel")
        await self.say(f"!reply Sentinel {word}.")
        await self.company.sink.wait_for(lambda mail: word in mail.text)
        assert [word in mail.text for mail in self.company.sink.mails] == [False] * count + [True]

    async def prove(self) -> None:
        """The way out works, and of all that was tried nothing left: what was asked last leaves last."""
        word = self.word("the sentinel")
        await self.say(f"!reply Sentinel {word}.")
        await self.company.sink.wait_for(lambda mail: word in mail.text)
        assert_only_meant(self.company.sink.mails, self.inside, self.meant)


Attempt = Callable[[Thread, str], Awaitable[object]]


class Attempts(dict[str, Attempt]):
    """Ways in which an inside message could leave, by the sentence that says how."""

    def __call__(self, sentence: str) -> Callable[[Attempt], Attempt]:
        def keep(attempt: Attempt) -> Attempt:
            assert sentence not in self
            self[sentence] = attempt
            return attempt

        return keep

    async def make(self, thread: Thread) -> None:
        """Each in its turn, with a word of its own."""
        for sentence, attempt in self.items():
            try:
                await attempt(thread, thread.secret(sentence))
            except Exception as error:
                raise AssertionError(f"this attempt could not be made: {sentence}") from error


def assert_only_meant(mails: list[Mail], inside: dict[str, str], meant: dict[str, str]) -> None:
    """Every mail is one that was meant, once, and has no word from inside anywhere."""
    seen: set[str] = set()
    for mail in mails:
        everything = "\n".join(_everything(mail)).casefold()
        leaked = [attempt for word, attempt in inside.items() if word.casefold() in everything]
        assert not leaked, f"{leaked} in {mail.data.decode(errors='replace')}"
        found = {word for word in meant if word in mail.text + str(mail["Subject"])}
        assert found, f"nobody meant to send {mail.data.decode(errors='replace')}"
        assert not found & seen, f"sent twice: {[meant[word] for word in found & seen]}"
        seen |= found
    assert seen == set(meant), f"did not leave: {[why for word, why in meant.items() if word not in seen]}"


def _everything(mail: Mail) -> Iterator[str]:
    """All that a mail says: as it went over the wire, unfolded, and each header and part decoded."""
    yield mail.data.decode("latin-1")
    yield re.sub(rb"=\r?\n|\r?\n[ \t]", b"", mail.data).decode("latin-1")
    yield quopri.decodestring(mail.data).decode("utf-8", "replace")
    yield " ".join((mail.sender, *mail.recipients))
    for part in mail.message.walk():
        yield from _of_part(part)


def _of_part(part: Message) -> Iterator[str]:
    for value in part.values():
        yield str(make_header(decode_header(str(value))))
    yield str(part.get_filename() or "")
    data = part.get_payload(decode=True)
    if isinstance(data, bytes):
        yield data.decode("utf-8", "replace")
