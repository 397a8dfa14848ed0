"""One mail as SMTP brings it: whose it is, where it ends, how large it may be, and what it is without the dots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

END = b"\r\n.\r\n"


@dataclass(slots=True)
class Transaction:
    """One mail of a connection, from MAIL to its end; the next mail gets a new one."""

    sender: str  # the return path, "" for <>
    recipients: list[str] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)  # whose each recipient is, as long as `recipients`


class Limits(Protocol):
    """What all the mails that are coming in share."""

    max_size: int  # octets of one mail
    max_held: int  # octets of all mails in memory
    held: int
    too_large: str  # the answer to a mail of more than `max_size`


class Content:
    """One mail between DATA and its end. Whoever makes one also calls `drop`, whatever happens."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._raw = bytearray(b"\r\n")  # DATA's own first; the mail may be but a dot
        self._size = 0
        self._held = 0
        self.refusal = ""

    def add(self, unread: bytearray) -> bool:
        """Move from `unread` what belongs to this mail; returns whether the mail ends there.

        Only CRLF ends a line: what other servers take for an end ("\\n.\\r\\n") is text here, so that no second mail
        can be smuggled in. RFC 5321 2.3.8, 4.1.1.4
        """
        before = len(self._raw)
        self._raw += unread
        end = self._raw.find(END, max(0, before + 1 - len(END)))
        if end >= 0:
            del self._raw[end + len(END) :]
        count = len(self._raw) - before
        del unread[:count]
        self._count(count)
        return end >= 0

    def _count(self, count: int) -> None:
        self._size += count
        if self._size - 3 > self._limits.max_size:
            self.refusal = self._limits.too_large
        elif not self.refusal and self._limits.held + count > self._limits.max_held:
            self.refusal = "452 4.3.1 too much mail at once, try again later"
        if self.refusal:
            self.drop()
        else:
            self._held += count
            self._limits.held += count

    def mail(self) -> bytes:
        """The mail, without the dots that SMTP added. RFC 5321 4.5.2"""
        raw = bytes(memoryview(self._raw)[2:-3])
        self._raw.clear()
        return raw[raw.startswith(b".") :].replace(b"\r\n.", b"\r\n")

    def drop(self) -> None:
        """Keep nothing but the beginning of an end."""
        del self._raw[: 1 - len(END)]
        self._limits.held -= self._held
        self._held = 0
