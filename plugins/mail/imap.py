"""One account on an IMAP server (RFC 3501): what is new in its folders, the server's word of it, copies of sent mail.

All of it blocks: `apart` runs it in a thread. Folders are opened read-only and content is only peeked at, so that no
flag changes. Whatever fails is `Unavailable`, and the next call connects anew; passwords never get into errors.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from imapclient import SEEN, IMAPClient
from imapclient.exceptions import LoginError
from imapclient.imapclient import SENT

from bridge.model import Finding, Unavailable
from bridge.text.plain import spoken
from plugins.mail import identity
from plugins.mail.asking import content, facts_in, facts_of, newest, portions
from plugins.mail.config import Imap
from plugins.mail.wire import BROKEN, TROUBLES, Client, Wire

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

AT_ONCE = 50  # mails of one look
HELD = 4_000_000  # octets of them after which no more are fetched
LOOK = 30.0  # seconds after which what was found is written down before more is looked for
HEADER = 256_000  # octets of a header that are read, where the mail is not
ROOM = 16_000_000  # octets that an answer may have besides the largest mail: the numbers of two million mails
PATIENCE = 9  # looks that one mail may spoil by breaking the connection, before a stub stands for it
REFUSED = 3  # as many of them as one plain no counts
FUTURE = 300.0  # seconds that a server's clock may be ahead of ours
OVERLAP = 7 * 86400  # seconds that are read again when the server has numbered a folder anew


@dataclass(frozen=True, slots=True)
class Place:
    """How far a folder has been read. Times are the server's, in seconds since the epoch."""

    validity: int  # UIDVALIDITY: while it stays, UIDs name the same mails
    next: int  # the lowest UID that was not looked at
    begun: float  # what came before is not for us
    newest: float  # when the newest came that was looked at
    until: int  # UIDs below are read with an eye on `begun`: they may be old


@dataclass(frozen=True, slots=True)
class Found:
    """A mail in a folder; of one that is too large, or cannot be had, only its header and why."""

    folder: str
    sent: bool  # it is the folder of sent mail
    received: float  # when the server got it, seconds since the epoch
    raw: bytes = field(repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """What a look brought: mails folder by folder, each oldest first, and how far that leads."""

    places: Mapping[str, Place]
    mails: tuple[Found, ...] = ()
    more: bool = False


def apart(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
    """Run blocking work in a thread of its own, which does not keep the process alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear of it

    def tell(act: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            act(value)

    def run() -> None:
        try:
            outcome: tuple[Any, Any] = (future.set_result, work(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - whoever awaits the future gets it
            outcome = (future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=run, name="imap", daemon=True).start()
    return future


class Account:
    """A login that lasts; used by one thread at a time, apart from `interrupt`."""

    def __init__(self, imap: Imap, max_size: int) -> None:
        self.imap = imap
        self.sent = ""  # the name of the folder of sent mail, as far as it is known
        self._max_size = max_size
        self._client: Client | None = None
        self._wire: Wire | None = None  # of the connection that was begun last
        self._offers_idle = False
        self._stuck: dict[tuple[str, int, int], tuple[int, str]] = {}  # mails that spoil looks: how many, and why
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    @property
    def where(self) -> str:
        return f"IMAP server {self.imap.host}:{self.imap.port}"

    @property
    def can_idle(self) -> bool:
        """Whether it is connected, and the server offers to tell what is new. Asks nobody."""
        return self._client is not None and self._offers_idle

    # --- the connection

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """The connection, made when there is none; what fails on it ends it. Raises `Unavailable`."""
        try:
            if self._client is None:
                self._client = self._login()
            yield self._client
        except TROUBLES as error:
            self.drop()
            raise Unavailable(f"{self.where}: {self._explained(error)}") from None

    def _login(self) -> Client:
        imap = self.imap
        client = Client(imap, self._max_size + ROOM, self._opens)
        try:
            client.normalise_times = False
            if imap.security == "starttls":
                client.starttls(imap.tls())
            act = client.plain_login if client.has_capability("AUTH=PLAIN") else client.login
            act(imap.username, imap.secret())
            self.sent = imap.sent or _marked_sent(client)
            self._offers_idle = imap.idle and bool(client.has_capability("IDLE"))
        except BaseException:
            client.close()
            raise
        return client

    def _opens(self, wire: Wire) -> None:
        self._wire = wire

    def drop(self) -> None:
        """Let the connection go."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def interrupt(self) -> None:
        """End `idle` from another thread."""
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def cut(self) -> None:
        """End whatever goes on in another thread."""
        if self._wire is not None:
            self._wire.cut()

    def _explained(self, error: Exception) -> str:
        """Why it failed, for people, without the password in any shape in which a server may repeat it."""
        text = str(error) or type(error).__name__
        with contextlib.suppress(OSError, ValueError):
            if secret := self.imap.secret():
                plain = base64.b64encode(f"\0{self.imap.username}\0{secret}".encode()).decode()
                quoted = secret.replace("\\", "\\\\").replace('"', '\\"')
                for shape in (plain, quoted, secret):
                    text = text.replace(shape, "***")
        text = " ".join(text.split())[:300]
        return f"login as {self.imap.username} refused: {text}" if isinstance(error, LoginError) else text

    # --- what is new

    def look(self, places: Mapping[str, Place]) -> News:
        """What has come since; of a folder that is seen for the first time only where to begin, or since `since`.

        The folder of sent mail is looked at first: what a colleague sent there and to the mailbox is known as theirs.
        What comes together is told in the order in which it came.
        """
        found, mails, end = dict(places), list[Found](), time.monotonic() + LOOK
        with self.connected() as client:
            try:
                for folder in dict.fromkeys(filter(None, (self.sent, *self.imap.folders))):
                    for place, mail in self._since(client, folder, places.get(folder)):
                        found[folder] = place
                        mails += [mail] if mail else []
                        enough = len(mails) >= AT_ONCE or sum(len(each.raw) for each in mails) >= HELD
                        if enough or (time.monotonic() > end and found != places):
                            return News(found, _in_order(mails), more=True)
            except TROUBLES:
                if not mails:
                    raise
                self.drop()  # what was found is written down first; then the trouble is met again, and told
                return News(found, _in_order(mails), more=True)
        return News(found, _in_order(mails))

    def _opened(self, client: IMAPClient, folder: str, place: Place | None) -> tuple[Place, int]:
        """Open a folder: where to go on in it, and its UIDNEXT."""
        answer = client.select_folder(folder, readonly=True)
        validity, end = answer.get(b"UIDVALIDITY", 0), answer.get(b"UIDNEXT", 0)
        end = end or max(client.search(), default=0) + 1  # RFC 3501 6.3.1: it may be left out
        if place is not None and place.validity == validity:
            return place, end
        if place is not None:
            log.warning("%s has numbered %s anew: its last days are read again", self.where, folder)
            return _from_day(client, replace(place, validity=validity, until=end), place.newest - OVERLAP), end
        if self.imap.since:
            begun = datetime.combine(self.imap.since, datetime.min.time()).astimezone().timestamp()
            return _from_day(client, Place(validity, end, begun, begun, end), begun), end
        begun = min(newest(client), time.time()) + 1 if answer.get(b"EXISTS") else 0.0
        return Place(validity, end, begun, begun, end), end

    def _since(self, client: IMAPClient, folder: str, place: Place | None) -> Iterator[tuple[Place, Found | None]]:
        """Mail after mail, each with the place behind it; the first place comes alone."""
        place, end = self._opened(client, folder, place)
        yield place, None
        for uids in portions(client, place.next, end, AT_ONCE):
            facts = facts_of(client, uids)
            for uid in uids:
                size, received = facts_in(facts.get(uid, {}))
                wanted = uid in facts and (uid >= place.until or received >= place.begun)
                mail = self._fetched(client, folder, uid, size, received, place.validity) if wanted else None
                latest = min(received, time.time()) if uid in facts else 0.0
                place = replace(place, next=uid + 1, newest=max(place.newest, latest))
                yield place, mail
        yield replace(place, next=max(place.next, end)), None

    def _fetched(
        self, client: IMAPClient, folder: str, uid: int, size: int, received: float, validity: int
    ) -> Found | None:
        """A mail; a stub of one that is too large or that the server fails to give; None when it has just gone."""
        name = folder, validity, uid
        spoilt, why = self._stuck.get(name, (0, ""))
        problem = self._too_large(size, folder) if size > self._max_size else ""
        if spoilt >= PATIENCE:
            problem = f"the server does not hand it over: {why}; it stays in {folder} of {self.imap.username}"
        try:
            if not problem:
                raw = content(client, uid, "BODY.PEEK[]")
                if raw is not None and len(raw) > self._max_size:  # not what it said before
                    problem, raw = self._too_large(len(raw), folder), raw[:HEADER]
            elif spoilt < PATIENCE + REFUSED:
                raw = content(client, uid, f"BODY.PEEK[HEADER]<0.{HEADER}>")
            else:
                raw = nameless(self.imap.username, *name)
        except TROUBLES as error:
            points = 1 if isinstance(error, BROKEN) else REFUSED
            self._stuck[name] = (spoilt + points, self._explained(error))
            raise
        return None if raw is None else Found(folder, folder == self.sent, received, raw, problem)

    def _too_large(self, size: int, folder: str) -> str:
        return (
            f"it has {spoken(size)}, more than the {spoken(self._max_size)} that are taken; "
            f"it stays in {folder} of {self.imap.username}"
        )

    def idle(self, places: Mapping[str, Place], seconds: float) -> bool:
        """Wait until the server says that something is new in the first folder, at most `seconds`; whether it did.

        RFC 2177 asks to begin anew within 29 minutes: `seconds` are fewer.
        """
        folder = self.imap.folders[0]
        with self.connected() as client:
            place, end = self._opened(client, folder, places.get(folder))
            if place != places.get(folder) or place.next < end:
                return True
            client.idle()
            rang = self._rings(client, time.monotonic() + seconds)
            client.idle_done()
            return rang

    def _rings(self, client: Client, end: float) -> bool:
        connection = client.socket()
        poll = select.poll()
        for each in (connection, self._wake):
            poll.register(each, select.POLLIN)
        if client.has_read_on():  # it came with the answer to IDLE, and the connection will not tell of it again
            return True
        while (left := end - time.monotonic()) > 0:
            ready = [number for number, _ in poll.poll(left * 1000)]
            if self._wake.fileno() in ready:
                self._wake.recv(4096)
                return False
            if ready:
                said = client.idle_check(timeout=0)
                if not said:
                    raise ConnectionError("the server closed the connection")
                if any(len(each) > 1 and each[1] == b"EXISTS" for each in said):
                    return True
        return False

    # --- what we sent

    def keep(self, message_id: str, raw: bytes) -> None:
        """Put a mail into the folder of sent mail, read, unless it is there already. Raises `Unavailable`."""
        with self.connected() as client:
            if not self.sent:
                raise ValueError("it marks no folder as that of sent mail: name it (sent)")
            client.select_folder(self.sent, readonly=True)
            lately = date.today() - timedelta(days=2)
            if not client.search(["SINCE", lately, "HEADER", "Message-ID", message_id]):
                client.append(self.sent, raw, flags=[SEEN])

    # --- the self-check

    def check(self) -> list[Finding]:
        """Whether the login works, the folders exist, and how new mail is noticed."""
        name = f"{self.imap.username} on {self.where}"
        try:
            with self.connected() as client:
                found = self._folders_found(client, name)
                return [*found, self._clock(client, name)] if client.folder_exists(self.imap.folders[0]) else found
        except Unavailable as trouble:
            return [Finding(False, str(trouble), "check host, port, security, ca_file and the login of imap")]

    def _folders_found(self, client: IMAPClient, name: str) -> list[Finding]:
        wanted = dict.fromkeys(filter(None, (*self.imap.folders, self.sent)))
        absent = [folder for folder in wanted if not client.folder_exists(folder)]
        how = "tells of new mail at once" if self.can_idle else f"is asked every {self.imap.every:g} s"
        found = [Finding(True, f"{name}: logged in; {', '.join(self.imap.folders)}: it {how}")]
        if absent:
            found = [Finding(False, f"{name}: there is no folder {', '.join(absent)}", "see folders and sent of imap")]
        if not self.sent:
            remedy = "name it (sent); until then no copies are kept there, and colleagues' sent mail is not seen"
            found.append(Finding(False, f"{name} marks no folder as that of sent mail", remedy))
        elif self.sent not in absent:
            found.append(Finding(True, f"{name}: sent mail is in {self.sent}"))
        return found

    def _clock(self, client: IMAPClient, name: str) -> Finding:
        """Its newest mail must not come from the future."""
        answer = client.select_folder(self.imap.folders[0], readonly=True)
        ahead = newest(client) - time.time() if answer.get(b"EXISTS") else 0.0
        if ahead > FUTURE:
            return Finding(False, f"{name}: its newest mail is dated {ahead:.0f} s ahead", "set the clocks by NTP")
        return Finding(True, f"{name}: no mail comes from the future")


def _in_order(mails: list[Found]) -> tuple[Found, ...]:
    return tuple(sorted(mails, key=lambda each: each.received))


def _marked_sent(client: IMAPClient) -> str:
    """The folder that the server marks as that of sent mail (RFC 6154), else one with a usual name; "" without one."""
    return str(client.find_special_folder(SENT) or "")


def _from_day(client: IMAPClient, place: Place, begun: float) -> Place:
    """The place from which on a folder is read that holds mail since `begun`.

    SEARCH knows days only, by the server's own clock: one more does no harm.
    """
    day = date.fromtimestamp(max(begun, place.begun, 0.0)) - timedelta(days=1)
    return replace(place, next=min(client.search(["SINCE", day]), default=place.until))


def nameless(*where: object) -> bytes:
    """What stands for a mail of which nothing is known: only an id, the same each time."""
    place = hashlib.sha256(" ".join(map(str, where)).encode()).hexdigest()
    return f"Message-ID: <{place}{identity.NOWHERE}\r\n\r\n".encode()
