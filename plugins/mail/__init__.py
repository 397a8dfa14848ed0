"""Mail as a tool: threads of mail arrive in mailboxes by SMTP, LMTP or IMAP, and answers leave through a smarthost.

One connector is one mail system; the scope of a mapping is the address of a mailbox.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from bridge.connector import Connector, ConnectorConfig, Port
from bridge.model import (
    Address,
    Answered,
    Delivery,
    Draft,
    Envelope,
    File,
    Finding,
    Page,
    Question,
    Recipients,
    Rejected,
    Sent,
    Starter,
)
from plugins.mail import config as configuration
from plugins.mail import identity, setup
from plugins.mail.check import check
from plugins.mail.folder import arrived, opened
from plugins.mail.read import Reader
from plugins.mail.receive import Receiver
from plugins.mail.send import Submission
from plugins.mail.sent import Copies
from plugins.mail.watch import Watch, dump
from plugins.mail.write import Memo, answer_subject, sendable, write

_RECIPIENT = re.compile(
    r"(?P<field>to|cc):|(?P<name>\"[^\"]*\"|[^\s<>,;\"@][^<>,;\"@]*?)?\s*<(?P<boxed>[^<>\s]*)>|(?P<bare>[^\s<>,;]+)",
    re.IGNORECASE,
)

PROBE = "Test of the way to this mailbox"
LARGE = 2**18  # bytes of files from which a mail is written in a thread


class Mail(Connector):
    """One mail system: where its mail arrives, a smarthost, and mailboxes."""

    Config: ClassVar[type[ConnectorConfig]] = configuration.Config
    command: ClassVar[str] = "mail"
    addressed: ClassVar[bool] = True
    usage: ClassVar[str] = "someone@outside.example Subject"
    filters: ClassVar[Mapping[str, str]] = {
        "address": "an address it was sent to",
        "sender": "the address it comes from, which anybody can write",
        "subject": "its subject",
    }
    questions: ClassVar[Sequence[Question]] = setup.QUESTIONS
    config: configuration.Config

    @classmethod
    def starter(cls, answers: Mapping[str, str]) -> Starter:
        """A first mail system, by the answers to `questions`."""
        return setup.starter(answers)

    def __init__(self, name: str, config: configuration.Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.receiver: Receiver | None = None
        self._submission = Submission(config.smarthost, config.greeting)
        self._reader = Reader()
        accounts = {mailbox.address: mailbox.imap for mailbox in config.mailboxes if mailbox.imap}
        self._watch = Watch(accounts, config.max_size)
        self._copies = {name: Copies(name, imap) for name, imap in accounts.items() if imap.keep_sent}
        self.every = min((imap.every for imap in accounts.values()), default=self.every)

    def scopes(self) -> Sequence[str]:
        return [mailbox.address for mailbox in self.config.mailboxes]

    async def run(self) -> None:
        """Take mail until cancelled; then let the mail that is being handed over end."""
        try:
            async with self._reader as reader, Receiver(self.name, self.config, self.port, reader) as self.receiver:
                await asyncio.gather(asyncio.Event().wait(), *(each.run() for each in self._copies.values()))
        finally:
            self.receiver = None
            self._submission.close()
            self._watch.close()

    def started(self) -> bool:
        return self.receiver is not None and self.receiver.listening

    async def poll(self, cursor: str) -> Page:
        """What is new in the IMAP accounts of mailboxes that have a room. Raises `Unavailable`, `OSError`."""
        if not self._watch.accounts:
            return Page((), cursor)
        news, places = await self._watch.look(cursor, self.port.scopes(), self.every)
        found = [
            await arrived(self.name, self.config, self.port, self._reader, mailbox, mail)
            for mailbox, each in news.items()
            for mail in each.mails
        ]
        more = any(each.more for each in news.values())
        return Page(tuple(filter(None, found)), dump(places) if news else cursor, more)

    async def opened(self, name: str, data: bytes, scope: str = "") -> Sequence[Envelope]:
        """A mail in a file (RFC 5322), for the mailboxes that its header names."""
        return await opened(self.name, self.config, self.port, data, scope)

    def scope_of(self, text: str) -> str:
        """The mailbox that takes mail for an address."""
        return identity.mailbox_of(text, self.config.addresses | self.port.scopes())

    async def wait(self) -> None:
        """Until an IMAP server tells of new mail, or it is time to ask one."""
        await self._watch.wait(self.every)

    def troubles(self) -> Mapping[str, str]:
        """IMAP accounts that do not answer, or do not keep copies of what we sent."""
        copies = {f"{name} (sent copies)": each.trouble for name, each in self._copies.items() if each.trouble}
        return {f"{name} (IMAP)": why for name, why in self._watch.troubles().items()} | copies

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        """Submit the draft to the smarthost.

        Raises `Rejected`, `Deferred` or `Unavailable`, and `Unconfirmed` when the server may have it or not. A
        repeat has the same Message-ID and the same bytes.
        """
        mailbox = self.config.mailbox(draft.scope)
        if mailbox is None:
            raise Rejected(f"{draft.scope} is not a mailbox of {self.name}")
        files = [(file, await self._content(file)) for file in draft.files]
        arguments = (draft, delivery.uid, mailbox, files, self.port.sign, draft.asked or delivery.created)
        large = sum(len(data) for _, data in files) > LARGE
        message = await asyncio.to_thread(write, *arguments) if large else write(*arguments)
        recipients: dict[str, Address] = {}
        for one in draft.pending or draft.recipients.all:  # the header names all of them, whoever has it already
            recipients.setdefault(sendable(one.account), one)
        outcome = await self._submission.send(self._return_path(mailbox, delivery.uid), recipients, message)
        message_id = identity.message_id(delivery.uid, mailbox.address, self.port.sign)
        if mailbox.address in self._copies:
            await self._copies[mailbox.address].keep(message_id, message)
        return Sent(
            id=message_id,
            reply=outcome.reply,
            deferred=tuple(who for who, _ in outcome.deferred),
            refused=tuple(outcome.refused),
        )

    async def probe(self, scope: str, uid: str) -> Sent:
        """A mail from the mailbox to itself, by the smarthost. Raises as `send`."""
        mailbox, one = self.config.mailbox(scope), Address(scope)
        if mailbox is None:
            raise Rejected(f"{scope} is not a mailbox of {self.name}")
        uid, now = identity.probe(uid), time.time()
        draft = Draft(self.name, scope, 0, PROBE, "", self.name, Recipients((one,)), text=PROBE)
        outcome = await self._submission.send(
            self._return_path(mailbox, uid), {scope: one}, write(draft, uid, mailbox, [], self.port.sign, now)
        )
        return Sent(identity.message_id(uid, scope, self.port.sign), outcome.reply)

    def way(self, scope: str) -> str:
        """Where the mail server must hand it over, or where it should be found."""
        mailbox = self.config.mailbox(scope)
        listeners = " or ".join(self.config.listeners)
        return (
            f"Is it in the IMAP account of {scope}?"
            if mailbox and mailbox.imap
            else (f"Does the mail server hand over what is for {scope} to {listeners}? Is it kept as spam?")
        )

    def _return_path(self, mailbox: configuration.Mailbox, uid: str) -> str:
        """Where bounces go: an address that names the message (a variable envelope return path)."""
        if mailbox.reply_address == "plain":
            return mailbox.address
        return identity.plus_address("b", uid, mailbox.address, self.port.sign)

    async def _content(self, file: File) -> bytes:
        try:
            return await self.port.spool.read(file)
        except FileNotFoundError:
            raise Rejected(f"the file {file.name} is no longer kept") from None

    @classmethod
    def without_words(cls, memo: str) -> str:
        """Who had it stays, so that it can be answered; what it said does not."""
        known = Memo.load(memo)
        return replace(known, text="").dump() if known else ""

    def title(self, title: str) -> str:
        """The subject of an answer."""
        return answer_subject(title)

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        """The first mail of a thread is a mail like any other."""
        return await self.send(delivery, draft)

    def audience(self, scope: str, item: str, answered: Answered | None) -> Recipients:
        """To its Reply-To or From, copies to its To and Cc; never to our own mailboxes."""
        memo = Memo.load(answered.memo) if answered else None
        if memo is None:
            raise Rejected("the message to answer did not come by mail; name the recipients")
        ours = self.config.addresses
        to = identity.others(memo.reply_to, ours) or identity.others((memo.sender,), ours)
        cc = tuple(one for one in identity.others((*memo.to, *memo.cc), ours) if one not in to)
        if not to and not cc:
            raise Rejected(f"nobody but {scope} is on that mail; name the recipients")
        return Recipients(to, cc) if to else Recipients(cc)  # of our own mail: those it was sent to

    def recipients(self, words: Sequence[str]) -> Recipients:
        """Addresses (`a@b.example`), with names (`Alice Martin <a@b.example>`); those after `cc:` get copies."""
        found: dict[str, list[Address]] = {"to": [], "cc": []}
        field = "to"
        for word in _RECIPIENT.finditer(" ".join(words)):
            if word["field"]:
                field = word["field"].lower()
                continue
            bare = word["bare"] if word["boxed"] is None else word["boxed"]
            address = identity.address(_recipient(bare), (word["name"] or "").strip('" '))
            if address not in (*found["to"], *found["cc"]):
                found[field].append(address)
        if not found["to"]:
            raise Rejected("name at least one mail address to write to")
        return Recipients(tuple(found["to"]), tuple(found["cc"]))

    async def check(self) -> list[Finding]:
        """Whether mail leaves, whether it arrives, and what the DNS says of the mailboxes' domains."""
        return await check(self.config, self._submission, listening=self.started())


def _recipient(word: str) -> str:
    address = word.removeprefix("mailto:")
    if not identity.is_address(identity.canonical(address)):
        raise Rejected(f"{address} is not a mail address; write name@company.example")
    return sendable(address)
