"""Mail as a tool: threads of mail arrive by SMTP in mailboxes, and answers leave through a smarthost.

One connector is one mail system; the scope of a mapping is the address of a mailbox.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import ClassVar

from bridge.connector import Connector, ConnectorConfig, Port
from bridge.model import Address, Answered, Delivery, Draft, File, Finding, Recipients, Rejected, Sent
from plugins.mail import config as configuration
from plugins.mail import identity
from plugins.mail.read import Reader
from plugins.mail.receive import Receiver
from plugins.mail.send import Submission
from plugins.mail.write import Memo, answer_subject, sendable, write

_RECIPIENT = re.compile(
    r"(?P<field>to|cc):|(?P<name>\"[^\"]*\"|[^\s<>,;\"@][^<>,;\"@]*?)?\s*<(?P<boxed>[^<>\s]*)>|(?P<bare>[^\s<>,;]+)",
    re.IGNORECASE,
)

LARGE = 2**18  # bytes of files from which a mail is written in a thread


class Mail(Connector):
    """One mail system: an SMTP listener, a smarthost, and mailboxes."""

    Config: ClassVar[type[ConnectorConfig]] = configuration.Config
    command: ClassVar[str] = "mail"
    addressed: ClassVar[bool] = True
    usage: ClassVar[str] = "someone@outside.example Subject"
    config: configuration.Config

    def __init__(self, name: str, config: configuration.Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.receiver: Receiver | None = None
        self._submission = Submission(config.smarthost, config.greeting)

    def scopes(self) -> Sequence[str]:
        return [mailbox.address for mailbox in self.config.mailboxes]

    async def run(self) -> None:
        """Take mail until cancelled; then let the mail that is being handed over end."""
        try:
            async with Reader() as reader, Receiver(self.name, self.config, self.port, reader) as self.receiver:
                await asyncio.Event().wait()
        finally:
            self.receiver = None
            self._submission.close()

    def started(self) -> bool:
        return self.receiver is not None and self.receiver.port > 0

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
        return Sent(
            id=identity.message_id(delivery.uid, mailbox.address, self.port.sign),
            reply=outcome.reply,
            deferred=tuple(who for who, _ in outcome.deferred),
            refused=tuple(outcome.refused),
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
        """Whether the smarthost takes our mail, and whether mail can reach us."""
        return [*await self._submission.check(), await self._listening(), *self._addresses_too_long()]

    async def _listening(self) -> Finding:
        if self.started():
            return Finding(True, f"taking mail on {self.config.listen}")
        try:
            self.config.tls()
            host, port = configuration.endpoint(self.config.listen)
            server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
        except OSError as error:
            return Finding(False, f"cannot take mail on {self.config.listen}: {error}", "change listen or certificate")
        server.close()
        return Finding(True, f"{self.config.listen} is free to take mail on")

    def _addresses_too_long(self) -> list[Finding]:
        return [
            Finding(False, f"{mailbox.address} is too long to be signed", "use a shorter one, or reply_address: plain")
            for mailbox in self.config.mailboxes
            if mailbox.reply_address == "signed" and len(mailbox.address.rpartition("@")[0]) > identity.LONGEST
        ]


def _recipient(word: str) -> str:
    address = word.removeprefix("mailto:")
    if not identity.is_address(identity.canonical(address)):
        raise Rejected(f"{address} is not a mail address; write name@company.example")
    return sendable(address)
