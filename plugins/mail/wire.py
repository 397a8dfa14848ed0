"""A connection to an IMAP server that keeps its patience: so many octets for one answer, and an end from outside.

`imaplib` reads whatever length a server names, and lines without end as long as they come; a hostile server, or one
that is out of order, could fill our memory.
"""

from __future__ import annotations

import contextlib
import imaplib
import socket
from collections.abc import Callable
from typing import Any, cast

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError
from imapclient.imap4 import IMAP4WithTimeout
from imapclient.tls import IMAP4_TLS

from bridge.text.plain import spoken
from plugins.mail.config import Imap

GREETING = 1_000_000  # octets before the first command
# What IMAPClient, imaplib and what they use raise when a server breaks the connection or the protocol.
TROUBLES = (
    IMAPClientError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, AssertionError,
)  # fmt: skip
BROKEN = (IMAPClientAbortError, OSError, EOFError)  # those after which nothing more can be asked


class Wire(imaplib.IMAP4):
    """What IMAPClient speaks through. `opened` is told of it before it connects."""

    def __init__(self, most: int, opened: Callable[[Wire], None], *args: Any) -> None:
        self._most = most
        self._left = GREETING
        opened(self)
        super().__init__(*args)

    def cut(self) -> None:
        """End the connection from another thread; whoever waits on it gets an error.

        Closing it would wait for the one who reads; and TLS's own farewell too.
        """
        with contextlib.suppress(OSError, AttributeError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def _command(self, name: str, *args: Any) -> Any:
        self._left = self._most
        return super()._command(name, *args)  # type: ignore[misc]

    def read(self, size: int) -> bytes:
        self._spend(size)
        return super().read(size)

    def readline(self) -> bytes:
        line = cast(bytes, self.file.readline(self._left + 1))
        self._spend(len(line))
        return line

    def _spend(self, octets: int) -> None:
        self._left -= octets
        if self._left < 0:
            self._left = 0
            raise self.abort(f"it says more than the {spoken(self._most)} that one answer may have")


class _Plain(Wire, IMAP4WithTimeout):  # type: ignore[misc]
    pass


class _Tls(Wire, IMAP4_TLS):  # type: ignore[misc]
    pass


class Client(IMAPClient):  # type: ignore[misc]
    """An `IMAPClient` for the account; with `security: starttls` not encrypted yet."""

    def __init__(self, imap: Imap, most: int, opened: Callable[[Wire], None]) -> None:
        self._most = most
        self._opened = opened
        secure = imap.security == "tls"
        super().__init__(
            imap.host, imap.port, ssl=secure, ssl_context=imap.tls() if secure else None,
            timeout=SocketTimeout(imap.timeout, imap.timeout),
        )  # fmt: skip

    def _create_IMAP4(self) -> Wire:
        if self.ssl:
            return _Tls(self._most, self._opened, self.host, self.port, self.ssl_context, self._timeout.connect)
        return _Plain(self._most, self._opened, self.host, self.port, self._timeout.connect)

    def has_read_on(self) -> bool:
        """Whether more was read from the connection than has been looked at."""
        connection = self.socket()
        patience = connection.gettimeout()
        connection.setblocking(False)
        try:
            return bool(self._imap.file.peek(1))
        except OSError:  # nothing; of TLS: not enough yet
            return False
        finally:
            connection.settimeout(patience)

    def close(self) -> None:
        """Let the connection go, whatever state it is in."""
        self._imap.cut()
        with contextlib.suppress(*TROUBLES):
            self.shutdown()
