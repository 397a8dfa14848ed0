"""What customers write in the benchmarks: mails of one size, some of them answers; the same ones for the same seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

SIZE = 4000  # bytes of a whole mail
REPLIES = 0.3
MAILBOXES = tuple(f"box{number:02d}@company.example" for number in range(50))
SENDERS = 4  # per mailbox; each of them writes to that mailbox only
MARK = re.compile(r"number (\d+) of (\w+)")

_PROSE = """
the order has not arrived yet and we would like to know when it will be sent because our own customers ask for it every
day please tell us which of the parts are missing from the delivery note of last week we have checked the invoice
against the offer and found two positions that we did not expect could somebody call us back tomorrow morning thank you
for your help kind regards from all of us here in the workshop
"""
_WORDS = _PROSE.split()


@dataclass
class Letter:
    """One mail: who writes to which mailbox, and the whole mail as bytes."""

    number: int
    sender: str
    mailbox: str
    id: str
    refs: list[str] = field(default_factory=list)
    data: bytes = b""


def letters(count: int, run: str, replies: float = REPLIES, mailboxes: Sequence[str] = MAILBOXES) -> list[Letter]:
    """`count` mails over all mailboxes; `run` makes their ids and words unlike those of another run."""
    dice = random.Random(run)
    threads: dict[tuple[str, str], list[Letter]] = {}
    written = []
    for number in range(count):
        mailbox = mailboxes[number % len(mailboxes)]
        sender = people(mailbox)[dice.randrange(SENDERS)]
        before = threads.setdefault((mailbox, sender), [])
        letter = Letter(number, sender, mailbox, f"<{dice.getrandbits(64):016x}.{run}@customers.example>")
        answered = dice.choice(before) if before and dice.random() < replies else None
        if answered:
            letter.refs = [*answered.refs, answered.id][-10:]
        letter.data = _written(letter, run, dice)
        before.append(letter)
        written.append(letter)
    return written


def introductions(run: str, mailboxes: Sequence[str] = MAILBOXES) -> list[Letter]:
    """A mail from every sender, so that each one's ghost is known."""
    found = []
    for number, (mailbox, sender) in enumerate((box, one) for box in mailboxes for one in people(box)):
        letter = Letter(number, sender, mailbox, f"<{run}.{number}@customers.example>")
        letter.data = _written(letter, run, random.Random(f"{run}{number}"))
        found.append(letter)
    return found


def people(mailbox: str) -> list[str]:
    """Who writes to a mailbox."""
    box = mailbox.partition("@")[0]
    return [f"customer{number}.{box}@customers.example" for number in range(SENDERS)]


def _written(letter: Letter, run: str, dice: random.Random) -> bytes:
    name = letter.sender.partition("@")[0].replace(".", " ").title()
    answer = [f"In-Reply-To: {letter.refs[-1]}", "References: " + "\r\n ".join(letter.refs)] if letter.refs else []
    head = [
        "Received: from mail.customers.example (mail.customers.example [192.0.2.25])",
        "\tby mx.company.example (Postfix) with ESMTPS id 4XyZ1234567",
        f"\tfor <{letter.mailbox}>; Sun, 22 Nov 2026 10:00:00 +0000 (UTC)",
        "Authentication-Results: mx.company.example; dkim=pass header.d=customers.example;",
        "\tspf=pass smtp.mailfrom=customers.example; dmarc=pass header.from=customers.example",
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=customers.example; s=mail;",
        "\tt=1795341600; h=from:to:subject:date:message-id:in-reply-to:references;",
        *(f"\t{dice.getrandbits(384):0>96x}" for _ in range(3)),
        f"From: {name} <{letter.sender}>",
        f"To: <{letter.mailbox}>",
        f"Subject: {'Re: ' if letter.refs else ''}Order {len(letter.refs) or letter.number} of the workshop",
        "Date: Sun, 22 Nov 2026 10:00:00 +0000",
        f"Message-ID: {letter.id}",
        *answer,
        "MIME-Version: 1.0",
        "User-Agent: Workshop Mail 3.1",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
    ]
    start = "\r\n".join([*head, "", "Hello,", f"this is number {letter.number} of {run}.", "", ""])
    return (start + _prose(SIZE - len(start), dice)).encode()


def _prose(size: int, dice: random.Random) -> str:
    """About so many characters in lines as mail programs break them."""
    lines, line = [], ""
    while size > 0:
        line = f"{line} {dice.choice(_WORDS)}".strip()
        if len(line) > 66:
            lines.append(line)
            size -= len(line) + 2
            line = ""
    return "\r\n".join(lines) + "\r\n"
