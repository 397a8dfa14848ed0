"""The load by mail: customers who write, and who answer what they got. They remember what they did."""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage

import aiosmtplib

from tests.crash.stage import MAILBOXES, Stage
from tests.peers.world import Mail, letter

MAIL_MARK = re.compile(r"\[m-[a-z0-9-]+\]")
FILLING = "A line of an ordinary letter, neither long nor short.\n"


@dataclass
class Written:
    """A mail of a customer and what became of it."""

    mark: str
    mailbox: str
    message: EmailMessage
    large: bool
    parent: str = ""  # mark of the customer's own mail that it answers
    unknown: bool = False  # an answer to it got lost: it may have been taken before it was taken
    late: bool = False  # others went before it, after it was tried
    accepted: bool = False
    refused: str = ""

    @property
    def id(self) -> str:
        return str(self.message["Message-ID"])


@dataclass
class Customer:
    """Writes one mail after the other; what is not taken is sent again, as mail servers do."""

    stage: Stage
    name: str
    dice: random.Random
    waiting: deque[Written] = field(default_factory=deque)
    written: list[Written] = field(default_factory=list)
    order: list[str] = field(default_factory=list)  # marks, in the order in which they were certainly written down
    attempts: int = 0

    @property
    def address(self) -> str:
        return f"{self.name}@outside.example"

    async def work(self, over: Callable[[], bool], pause: float) -> None:
        """Until `over`, and then until everything written was taken."""
        while not over() or self.waiting:
            if not over():
                await asyncio.sleep(self.dice.uniform(0.1, 2) * pause)
                self.waiting.extend(self._write() for _ in range(self.dice.choice((1, 1, 1, 2, 3))))
            await self._visit()

    async def _visit(self) -> None:
        """One SMTP connection for all that waits."""
        host, port = self.stage.smtp
        client = aiosmtplib.SMTP(hostname=host, port=port, start_tls=False, timeout=20, local_hostname="mx.example")
        try:
            await client.connect()
            while self.waiting:
                await self._hand_over(client, self.waiting[0])
                self.waiting.popleft()
            if self.dice.random() < 0.1 and self.written:
                await self._hand_over(client, self.dice.choice(self.written[-5:]))  # the same mail again
            client.close()
        except aiosmtplib.SMTPResponseException as error:
            self._put_off(error)
            await asyncio.sleep(0.2)
        except (aiosmtplib.SMTPException, OSError):
            await asyncio.sleep(0.1)  # it is not there: knock again
        finally:
            client.close()

    async def _hand_over(self, client: aiosmtplib.SMTP, mail: Written) -> None:
        self.attempts += 1
        await client.mail(self.address)
        await client.rcpt(mail.mailbox)
        try:
            await client.data(mail.message.as_bytes())
        except aiosmtplib.SMTPResponseException:
            raise
        except (aiosmtplib.SMTPException, OSError):
            mail.unknown = True  # only the bridge knows whether it was written down
            if mail in self.waiting and self.dice.random() < 0.4:
                self._later(mail)
            raise
        if not mail.accepted:
            mail.accepted = True
            if not (mail.unknown and mail.late):
                self.order.append(mail.mark)

    def _put_off(self, error: aiosmtplib.SMTPResponseException) -> None:
        if not self.waiting:
            return
        mail = self.waiting[0]
        if error.code >= 500:
            mail.refused = f"{error.code} {error.message}"
            self.waiting.popleft()
        elif self.dice.random() < 0.5:
            self._later(mail)

    def _later(self, mail: Written) -> None:
        mail.late = True
        self.waiting.remove(mail)
        self.waiting.append(mail)

    def _write(self) -> Written:
        number = len(self.written) + len(self.waiting)
        mark = f"[m-{self.name}-{number}-{self.dice.randrange(16**6):06x}]"
        large = self.dice.random() < 0.04
        mailbox, parent, answered = self._occasion() if not large else (self.dice.choice(MAILBOXES), "", "")
        text = f"Dear company,\n{FILLING * self.dice.randrange(6)}{mark}\n" + (FILLING * 70 if large else "")
        message = letter(
            sender=f"{self.name.capitalize()} <{self.address}>", to=mailbox, body=text,
            subject=f"Re: matter {number}" if answered else f"Matter {number}",
            in_reply_to=answered or None, references=(answered,) if answered else (),
            message_id=f"<{mark[1:-1]}@outside.example>",
        )  # fmt: skip
        mail = Written(mark, mailbox, message, large, parent)
        self.written.append(mail)
        return mail

    def _occasion(self) -> tuple[str, str, str]:
        """(mailbox, mark of the own mail answered, Message-ID answered): three in ten answer something known."""
        mailbox = self.dice.choice(MAILBOXES)
        own = [mail for mail in self.written if mail.accepted and not mail.large]
        heard = [mail for mail in self.stage.sink.mails if mail.recipients == (self.address,) and mail.answered]
        if self.dice.random() > 0.3 or not own:
            return mailbox, "", ""
        if heard and self.dice.random() < 0.5:
            answer = self.dice.choice(heard[-20:])
            return _mailbox_of(answer), "", answer["Message-ID"]
        before = self.dice.choice(own[-20:])
        return before.mailbox, before.mark, before.id


def _mailbox_of(mail: Mail) -> str:
    return next(each for each in MAILBOXES if each in mail["From"])
