"""What the scenes need: employees who speak, people outside who write, and looks at what came of it.

Every look is a check: it is counted when it is seen in time, and ends the scene when it is not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

from bridge.texts import Texts
from tests.demo.checks import Checks, SceneEnded
from tests.demo.crm import CONNECTOR as CRM
from tests.demo.crm import DORA, Crm
from tests.demo.documents import CONNECTOR as DOCUMENTS
from tests.demo.documents import Documents
from tests.demo.stage import BOT, SERVER, Stage
from tests.demo.tracker import CONNECTOR as HELPDESK
from tests.demo.tracker import Tracker
from tests.peers.employee import Employee, body, relation
from tests.peers.roundup import Issue
from tests.peers.world import Mail, letter, post

Event = dict[str, Any]
Look = Callable[[Event], Any]
NOW = "."  # as Roundup has it
TAKERS = {"mail": "the mail server", HELPDESK: "Roundup", CRM: "Tryton", DOCUMENTS: "the document server"}
PATIENCE = 20  # seconds an employee waits for something to appear
ALLOWANCE = 0.5  # seconds beyond a hold in which a mail that must not leave would have left


@dataclass(frozen=True)
class Asked:
    """An outward message that waits: the event with the words, the bot's preview of it, and when that was seen."""

    event: str
    preview: str
    seen: float
    room: str


@dataclass
class Play:
    """The stage with its people, and what earlier scenes left for later ones."""

    stage: Stage
    checks: Checks
    say: Texts = field(default_factory=lambda: Texts("en"))
    secrets: list[str] = field(default_factory=list)  # words said inside that must not leave
    expected: list[str] = field(default_factory=list)  # to whom each mail went, in order
    written: list[str] = field(default_factory=list)  # words of each message that must be in the tracker
    shared: list[str] = field(default_factory=list)  # words said inside that went into a ticket on purpose
    known_issues: list[str] = field(default_factory=list)
    seen_mails: int = 0
    _memory: dict[str, Any] = field(default_factory=dict)

    # --- people, rooms, memory

    @property
    def alice(self) -> Employee:
        return self.stage.people["alice"]

    @property
    def bob(self) -> Employee:
        return self.stage.people["bob"]

    @property
    def carol(self) -> Employee:
        return self.stage.people["carol"]

    @property
    def tracker(self) -> Tracker:
        return self.stage.tracker

    @property
    def crm(self) -> Crm:
        return self.stage.crm

    @property
    def documents(self) -> Documents:
        return self.stage.documents

    def room(self, name: str) -> str:
        return self.stage.rooms[name]

    def keep(self, **things: Any) -> None:
        """For later scenes."""
        self._memory.update(things)

    def kept(self, name: str) -> Any:
        """What an earlier scene left; ends the scene when that one failed before."""
        if name not in self._memory:
            self.checks.fail(f"cannot be played: an earlier scene left no {name.replace('_', ' ')}")
            raise SceneEnded
        return self._memory[name]

    # --- inside

    async def talk(self, who: Employee, room: str, text: str, thread: str | None = None, **how: Any) -> str:
        """Say something that must stay inside."""
        self.secrets.append(text)
        return await who.say(self.room(room), text, thread=thread, **how)

    async def see(self, who: Employee, room: str, wanted: Look, fact: str, after: str | None = None) -> Event:
        """Wait until an employee's client shows it."""
        try:
            found = await who.see(self.room(room), wanted, PATIENCE, after)
            if who is not self.alice:  # whose client feeds the transcript
                await self.alice.see(self.room(room), lambda each: each["event_id"] == found["event_id"], PATIENCE)
        except AssertionError as error:
            self.checks.fail(fact, str(error))
            raise SceneEnded from None
        self.checks.that(True, fact)
        return found

    async def ask(
        self, who: Employee, room: str, thread: str, text: str, what: str = "", **how: Any
    ) -> tuple[Asked, Event]:
        """Ask for something to leave; the bot's preview of it, held."""
        event = await who.say(self.room(room), text, thread=thread, **how)
        return await self.previewed(who, room, event, what or "the bot previews it to its author")

    async def previewed(self, who: Employee, room: str, event: str, fact: str) -> tuple[Asked, Event]:
        """The bot's preview of the words in `event`, and ⏳ on them."""
        preview = await self.see(who, room, lambda each: bot_answers(each, event) and "📤" in body(each), fact)
        seen = time.monotonic()
        await self.marked(who, room, event, "⏳")
        return Asked(event, preview["event_id"], seen, room), preview

    async def marked(self, who: Employee, room: str, event: str, key: str) -> None:
        await self.see(who, room, lambda _: (BOT, key) in who.reactions(self.room(room), event), f"{key} marks it")

    async def unmarked(self, who: Employee, room: str, event: str, key: str) -> None:
        fact = f"its {key} is taken back"
        await self.see(who, room, lambda _: (BOT, key) not in who.reactions(self.room(room), event), fact)

    async def reworded(self, who: Employee, asked: Asked, words: str, fact: str) -> Event:
        """The bot changes its preview."""
        fits: Look = lambda each: relation(each).get("event_id") == asked.preview and words in body(each)  # noqa: E731
        return await self.see(who, asked.room, fits, fact)

    # --- in the tracker

    async def opens(self, user: str, title: str, text: str) -> str:
        """Somebody makes an issue in Roundup; returns its number."""
        self.stage.transcript.tool("Roundup", f"{self.tracker.people[user][0]} opens “{title}”", text)
        self.written.append(text)
        message = await self.tracker.write(text, user, date=NOW)
        return await self.tracker.open(title, by=user, messages=[message])

    async def comments(self, user: str, issue: str, text: str) -> None:
        """Somebody writes on an issue in Roundup."""
        self.stage.transcript.tool("Roundup", f"{self.tracker.people[user][0]} writes on issue{issue}", text)
        self.written.append(text)
        await self.tracker.comment(issue, text, by=user, date=NOW)

    async def changes(self, user: str, issue: str, **fields: str) -> None:
        """Somebody changes an issue in Roundup."""
        said = ", ".join(f"{name}: {value}" for name, value in fields.items())
        self.stage.transcript.tool("Roundup", f"{self.tracker.people[user][0]} changes issue{issue}", said)
        await self.tracker.change(issue, user, **fields)

    async def reads(self, issue: str) -> Issue:
        """Ask Roundup how an issue stands, and show it with its last message."""
        await self.quiet()
        found = await self.tracker.read(issue)
        last = found.messages[-1]
        headers = {
            "Title": found.title, "Status": found.status, "Priority": found.priority, "Assigned to": found.assignedto,
            "Messages": f"{len(found.messages)}, the last by {last.author}",
        }  # fmt: skip
        self.stage.transcript.tool("Roundup", f"issue{issue} is now", last.content, headers.items())
        return found

    # --- in the CRM and the documents

    async def tells(self, deal: int, text: str) -> None:
        """Dora, who works in Tryton, says something to her colleagues there."""
        self.stage.transcript.tool("Tryton", f"{DORA[1]} tells her colleagues at opportunity#{deal}", text)
        self.secrets.append(text)
        await self.crm.chat(deal, text, by=DORA[0], audience="internal")

    async def sells_to(self, deal: int, party: str) -> None:
        """Dora says in Tryton whose opportunity it is."""
        self.stage.transcript.tool("Tryton", f"{DORA[1]} sets the party of opportunity#{deal}", party)
        await self.crm.belongs(deal, party)

    async def looks_up(self, deal: int) -> dict[str, Any]:
        """Ask Tryton how an opportunity stands, and show it."""
        await self.quiet()
        found = await self.crm.stands(deal)
        headers = {"Description": found["description"], "Stage": found["state"], "Amount": found["amount"]}
        shown = {**headers, "Probability": found["probability"], "Party": found["party"]}
        self.stage.transcript.tool("Tryton", f"opportunity#{deal} is now", found["comment"], shown.items())
        return found

    async def saves(self, path: str, text: str) -> None:
        """Alice saves another version of a document, on her own drive."""
        self.stage.transcript.tool("the documents", f"Alice Martin saves {path}", text)
        await self.documents.write(path, text)

    # --- outside

    async def writes(self, message: EmailMessage, why: str = "", sender: str | None = None) -> EmailMessage:
        """Somebody outside sends a mail; the bridge has taken it when this returns."""
        self.stage.transcript.arrives(message, why)
        envelope = parseaddr(str(message["From"]))[1] if sender is None else sender
        to = [each.addr_spec for name in ("To", "Cc") for each in (message[name].addresses if message[name] else ())]
        ours = [address for address in to if address.endswith(f"@{SERVER}")]
        answer = await post(*self.stage.smtp, envelope, ours, message)
        self.checks.that("OK" in answer.upper() or "2.0.0" in answer, "the mail is taken", answer)
        return message

    async def answers(self, mail: Mail, sender: str, text: str, **how: Any) -> EmailMessage:
        """Somebody outside answers a mail of ours, as a mail program does it."""
        subject = mail["Subject"] if mail["Subject"].lower().startswith("re:") else f"Re: {mail['Subject']}"
        references = [*mail["References"].split(), mail["Message-ID"]]
        to = mail["Reply-To"] or mail["From"]
        written = letter(
            sender, to, subject, text, in_reply_to=mail["Message-ID"], references=references,
            message_id=how.pop("message_id", None), **how,
        )  # fmt: skip
        return await self.writes(written)

    async def left(self, to: str, words: str, fact: str = "one mail leaves, with these words") -> Mail:
        """The next mail that reaches the world outside; it must be for `to` with `words` in it."""
        try:
            mail = await self.stage.outbox.wait_for(timeout=PATIENCE + self.stage.hold, after=self.seen_mails)
        except AssertionError as error:
            self.checks.fail(fact, str(error))
            raise SceneEnded from None
        self.seen_mails += 1
        self.expected.append(to)
        self.checks.that(to in mail.recipients and words in mail.text, fact, f"to {mail.recipients}: {mail.text}")
        return mail

    async def accepted(self, who: Employee, asked: Asked, connector: str = "mail", *, made: bool = False) -> None:
        """What an author sees once it has left; `made`: something new was made of it."""
        text = self.say("preview-made" if made else "preview-sent", connector=connector, to="\0", key="\0")
        said = text.partition("\0")[0].rstrip()
        taker = TAKERS[connector]
        await self.reworded(who, asked, said, f"its preview says that {taker} took it")
        await self.marked(who, asked.room, asked.event, "✉️")
        await self.unmarked(who, asked.room, asked.event, "⏳")

    def held(self, asked: Asked) -> None:
        """Whether the hold was kept: called when the mail has just left."""
        waited = time.monotonic() - asked.seen
        self.checks.that(waited > self.stage.hold * 0.8, f"it waited {self.stage.hold:g} s before", f"{waited:.2f} s")

    async def nothing_leaves(self, asked: Asked, fact: str) -> None:
        """Wait until the hold would be over."""
        await asyncio.sleep(max(0.0, asked.seen + self.stage.hold + ALLOWANCE - time.monotonic()))
        new = self.stage.outbox.mails[self.seen_mails :]
        self.checks.that(not new, fact, [mail["Subject"] for mail in new])

    async def quiet(self, seconds: float = 0.25, most: float = 4) -> None:
        """Let the transcript catch up with what the rooms still show."""
        until = time.monotonic() + most
        while time.monotonic() < min(until, self.stage.transcript.last + seconds):
            await asyncio.sleep(0.05)


def in_thread(root: str) -> Look:
    return lambda event: relation(event).get("rel_type") == "m.thread" and relation(event)["event_id"] == root


def says(words: str, sender: str = "", thread: str = "") -> Look:
    """A message with these words, of somebody whose id contains `sender`, in that thread if one is named."""
    return lambda event: (
        event["type"] == "m.room.message"
        and words in body(event)
        and sender in event["sender"]
        and (not thread or in_thread(thread)(event))
    )


def shows_file(name: str, thread: str = "", sender: str = "") -> Look:
    return lambda event: (
        event["content"].get("filename") == name
        and sender in event["sender"]
        and (not thread or in_thread(thread)(event))
    )


def mentioned(event: Event) -> Sequence[str]:
    found: Sequence[str] = event["content"].get("m.mentions", {}).get("user_ids", [])
    return found


def bot_answers(event: Event, answered: str) -> bool:
    """A rich reply of the bot to that event."""
    return event["sender"] == BOT and answers(event, answered)


def answers(event: Event, answered: str) -> bool:
    """A rich reply to that event, not a thread's fallback."""
    related = relation(event)
    return not related.get("is_falling_back") and related.get("m.in_reply_to", {}).get("event_id") == answered
