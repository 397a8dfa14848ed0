"""The HTTP client that plugins get: it speaks to one server, which configuration names, and to no other.

Everything is limited: time, size, redirects, repetitions. Failures say what they mean for a delivery, and no secrets.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from json import dumps, loads
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urldefrag, urlencode, urljoin, urlsplit

import aiohttp
from yarl import URL

from bridge.clients import Reply, reason_in
from bridge.connector import Spool
from bridge.model import Deferred, File, Rejected, Unavailable, Unconfirmed
from bridge.text.html import stripped
from bridge.text.plain import decode, one_line, spoken

T = TypeVar("T")
MOST = 16 * 2**20  # bytes of an answer, decompressed
LONG = 600.0  # seconds that files may take
REDIRECTS = 5
PAUSES = (0.2, 1.0)  # seconds before a safe request is repeated
_SAFE = {"GET", "HEAD", "PROPFIND", "REPORT"}  # RFC 9110 9.2.1, RFC 4918 9.1, RFC 3253 3.6
_TROUBLE = {401, 403, 408, 429, 502, 503, 504}
_OURS = {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\#]")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # RFC 3986 3.1
_ABSOLUTE = re.compile(r"(https?://[^/?@]+)([/?].*)?", re.IGNORECASE)  # "@": userinfo is never sent
_UPWARD = re.compile(r"(?:^|[/\\])\.\.(?:[/\\;]|$)")  # ";": some servers cut parameters off a segment
_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110 5.6.2
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


class _Passing(Unavailable):
    """A safe request (RFC 9110 9.2.1) failed in a way that may be over in a moment."""


class _Ask(NamedTuple):
    method: str
    url: URL
    fields: dict[str, str]
    accept: Sequence[int] = ()
    body: bytes | AsyncIterator[bytes] | None = None
    seconds: float = LONG

    def __repr__(self) -> str:  # the rest holds secrets
        return f"{self.method} {self.url.raw_path}"

    def lost(self, why: str, *, sent: bool = True, passing: bool = False, after: float | None = None) -> Exception:
        if self.method in _SAFE:
            return (_Passing if passing else Unavailable)(why, after)
        return Unconfirmed(why) if sent else Unavailable(why, after)


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """What verifies a server's certificate: the system's authorities, and one of our own. Raises `OSError`."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def new_session() -> aiohttp.ClientSession:
    """The session that all `ToolHttp` share: no cookies, no proxies and no passwords from the environment.

    A slow tool can use up its own connections only.
    """
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=16)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


class ToolHttp:
    """`bridge.connector.Http` for the server at `url`; `timeout` is how many seconds one request may take.

    A path is taken as already encoded (beyond ASCII it is encoded as UTF-8). It is relative to `url` as to a folder,
    or starts with "/", or is an absolute URL of the same scheme, host and port; "" is `url` itself.
    """

    def __init__(
        self, session: aiohttp.ClientSession, spool: Spool, url: str, headers: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None, *, ca_file: Path | None = None, max_file: int, max_body: int = MOST,
        timeout: float = 30.0,
    ) -> None:  # fmt: skip
        """Raises `ValueError` when `url` is more than scheme, host, port and path, or a header cannot be sent;
        `OSError` when `ca_file` cannot be read.
        """
        if session.trust_env or not isinstance(session.cookie_jar, aiohttp.DummyCookieJar):
            raise ValueError("this session keeps cookies or trusts the environment: use new_session()")
        self._session, self._spool = session, spool
        self._origin, self._home = _split(url)
        if "?" in self._home or _UNSENDABLE.search(url):
            raise ValueError("the server's URL has a query, or something that cannot be sent")
        ours = _checked(headers or {}) | _authorization(login)
        words = [word for value in ours.values() for word in (value, value.split(" ")[-1]) if len(word) > 7]
        self._secrets = [*words, *(word for word in (login or ())[1:] if len(word) > 3)]
        self._fields = {"User-Agent": "Passerelle"} | ours
        self._max_file, self._max_body, self._timeout = max_file, max_body, timeout
        self._tls: ssl.SSLContext | bool = trusting(ca_file) if ca_file else True  # True: by the system's authorities

    def __repr__(self) -> str:
        return f"ToolHttp({str(self._origin)!r})"

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, json: Any = None,
        form: Mapping[str, str | File] | None = None, body: bytes | File | None = None,
        headers: Mapping[str, str] | None = None, accept: Sequence[int] = (),
    ) -> Reply:  # fmt: skip
        """As the contract says; what is raised is `Unconfirmed` when the tool may have done what it was asked.

        `Rejected` also when the spool has lost a file of `form` or `body`. Raises `ValueError` for what cannot be sent.
        """
        if not _TOKEN.fullmatch(method) or sum(each is not None for each in (json, form, body)) > 1:
            raise ValueError("this is no method, or more than one of json, form and body is given")
        fields = self._fields | ({} if json is None else {"Content-Type": "application/json"}) | _checked(headers or {})
        raw = body if isinstance(body, bytes) else None if json is None else dumps(json).encode()
        ask = _Ask(method.upper(), self._url(path, query), fields, accept, raw, self._timeout)
        if form is None and not isinstance(body, File):
            return await _repeated(lambda: self._whole(ask))
        parts = _Bare(self._spool, body) if isinstance(body, File) else _Form(self._spool, form or {})
        await parts.check()
        try:
            return await self._whole(ask._replace(fields=fields | parts.fields, body=parts.chunks(), seconds=LONG))
        except (Unavailable, Unconfirmed) as error:
            raise parts.lost or error from None

    async def download(self, path: str, name: str, type: str) -> File:
        """As the contract says; `Rejected` also when one could not tell that the file is whole."""
        ask = _Ask("GET", self._url(path), self._fields | {"Accept-Encoding": "identity"})

        async def attempt() -> File:
            async with self._answer(ask) as answer:
                if answer.status != 200:
                    raise Unavailable(f"the tool answered {answer.status} instead of a file")
                known = answer.content_length is not None or "Transfer-Encoding" in answer.headers
                if not known or answer.headers.get("Content-Encoding", "identity") != "identity":
                    raise Rejected(f"{name} is sent in a way that does not show whether it is whole")
                chunks = aiter(answer.content.iter_chunked(256 * 1024))
                return await self._spool.keep_stream(name, type, chunks, self._max_file)

        return await _repeated(attempt)

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        origin, target = _split(path) if _SCHEME.match(path) else (self._origin, path or self._home)
        if not target.startswith("/"):
            target = f"{self._home.rstrip('/')}/{target}"
        if origin != self._origin or target.startswith("//"):
            raise ValueError("the path leads to another server")
        if _UNSENDABLE.search(path) or _UPWARD.search(unquote(target.partition("?")[0])):
            raise ValueError('the path has "..", "#", a backslash, a space or a control character in it')
        pairs = urlencode(query or {}, quote_via=quote)
        target += ("&" if "?" in target else "?") + pairs if pairs else ""
        return URL(f"{self._origin}{quote(target, safe=_PRINTABLE)}", encoded=True)

    async def _whole(self, ask: _Ask) -> Reply:
        async with self._answer(ask) as answer:
            body = await start_of(answer, self._max_body)
            if len(body) > self._max_body:
                raise ask.lost(f"the tool's answer is larger than {spoken(self._max_body)}")
            fields = {name.lower(): ", ".join(answer.headers.getall(name)) for name in answer.headers}
            return Reply(answer.status, fields, body)  # a list may come as several fields, RFC 9110 5.3

    @contextlib.asynccontextmanager
    async def _answer(self, ask: _Ask) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer to one attempt. Leaving it unread closes its connection."""
        try:
            async with asyncio.timeout(ask.seconds), self._redirected(ask) as answer:
                if not (200 <= answer.status < 300 or answer.status in ask.accept):
                    raise await self._refusal(ask, answer)
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            sent = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            passing = not isinstance(error, aiohttp.ClientSSLError | TimeoutError)
            raise ask.lost(f"the tool does not answer: {explained(error)}", sent=sent, passing=passing) from None

    @contextlib.asynccontextmanager
    async def _redirected(self, ask: _Ask) -> AsyncIterator[aiohttp.ClientResponse]:
        limits = aiohttp.ClientTimeout(total=None, connect=min(10.0, self._timeout), sock_read=self._timeout)
        for _ in range(REDIRECTS + 1):
            async with self._session.request(
                ask.method, ask.url, headers=ask.fields, data=ask.body, timeout=limits, allow_redirects=False,
                ssl=self._tls, middlewares=(_once,),
            ) as answer:  # fmt: skip
                if answer.status not in {301, 302, 303, 307, 308} or answer.status in ask.accept:
                    yield answer
                    return
                ask = self._onward(ask, answer)
        raise Unavailable(f"the tool redirects more than {REDIRECTS} times")

    def _onward(self, ask: _Ask, answer: aiohttp.ClientResponse) -> _Ask:
        """The same question where the answer sends it: what is safe, and on the same server only (RFC 9110 15.4)."""
        place = "an address that makes no sense"
        with contextlib.suppress(ValueError):
            location = answer.headers.get("Location", "")
            target = urldefrag(urljoin(str(ask.url), location)).url
            parts = urlsplit(target)
            place = one_line(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")[:200]
            if ask.method in _SAFE and location:
                return ask._replace(url=self._url(target), body=None if ask.method in {"GET", "HEAD"} else ask.body)
        raise ask.lost(f"the tool redirects this {ask.method} to {place}", sent=answer.status in {302, 303})

    async def _refusal(self, ask: _Ask, answer: aiohttp.ClientResponse) -> Exception:
        status, wait = answer.status, answer.headers.get("Retry-After")
        reason = await self._reason(ask, answer)
        if status in {502, 503, 504}:  # a gateway that heard nothing does not know what was done
            return ask.lost(reason, sent=status != 503, passing=wait is None, after=retry_after(wait or ""))
        if status in _TROUBLE:
            return Unavailable(reason, retry_after(wait or ""))
        return {4: Rejected, 5: Deferred}.get(status // 100, Unavailable)(reason)

    async def _reason(self, ask: _Ask, answer: aiohttp.ClientResponse) -> str:
        """The status and the tool's own words for it, in one line, without our secrets should it repeat them."""
        start = b""
        with contextlib.suppress(aiohttp.ClientError):
            start = await start_of(answer, 64 * 1024)
        text = decode(start, answer.charset or "utf-8")
        told = ""
        with contextlib.suppress(ValueError, RecursionError):
            told = reason_in(loads(text))
        told = one_line(told or (stripped(text) if answer.content_type.startswith("text/") else ""))
        query = ask.url.raw_query_string
        for secret in filter(None, (*self._secrets, query, unquote(query))):
            told = told.replace(secret, "…")
        with contextlib.suppress(ValueError):
            told = told or HTTPStatus(answer.status).phrase
        return f"{answer.status} {told}"[:500].strip()


class _Form:
    """multipart/form-data (RFC 7578) whose length is known before it is sent; its files come from the spool."""

    def __init__(self, spool: Spool, form: Mapping[str, str | File]) -> None:
        self._spool = spool
        self.lost: Rejected | None = None
        line = f"--{token_hex(16)}"
        values = [value if isinstance(value, File) else value.encode("utf-8", "replace") for value in form.values()]
        self._parts = [(_head(line, name, value), value) for name, value in zip(form, values, strict=True)]
        self._end = f"{line}--\r\n".encode()
        size = sum(len(head) + (v.size if isinstance(v, File) else len(v)) + 2 for head, v in self._parts)
        length = str(size + len(self._end))
        self.fields = {"Content-Type": f"multipart/form-data; boundary={line[2:]}", "Content-Length": length}

    async def check(self) -> None:
        """Raises `Rejected` when a file is gone: then nothing should be sent at all."""
        for _, value in self._parts:
            async with contextlib.aclosing(self._pieces(value)) as pieces:
                await anext(pieces, b"")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for head, value in self._parts:
            yield head
            async for piece in self._pieces(value):
                yield piece
            yield b"\r\n"
        yield self._end

    async def _pieces(self, value: bytes | File) -> AsyncGenerator[bytes, None]:
        if isinstance(value, bytes):
            yield value
            return
        size = 0
        with contextlib.suppress(FileNotFoundError):
            async for piece in self._spool.stream(value):
                size += len(piece)
                yield piece
        if size != value.size:
            self.lost = Rejected(f"{value.name} is no longer kept")
            raise self.lost


class _Bare(_Form):
    """A file as it is, for a PUT."""

    def __init__(self, spool: Spool, file: File) -> None:
        super().__init__(spool, {"": file})
        self.fields = {"Content-Type": _type(file), "Content-Length": str(file.size)}
        self._parts = [(b"", file)]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async for piece in self._pieces(self._parts[0][1]):
            yield piece


def _head(line: str, name: str, value: bytes | File) -> bytes:
    """A part's header, quoted as browsers do (HTML, multipart/form-data encoding), and what else could break out."""
    head = f'{line}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
    if isinstance(value, File):
        head += f'; filename="{_quoted(value.name)}"\r\nContent-Type: {_type(value)}'
    return f"{head}\r\n\r\n".encode("utf-8", "replace")


def _type(file: File) -> str:
    return file.type if _TYPE.fullmatch(file.type) else "application/octet-stream"


def _quoted(name: str) -> str:
    return re.sub(r'[\x00-\x1f"\\\x7f]', lambda found: f"%{ord(found[0]):02X}", name)


def _split(url: str) -> tuple[URL, str]:
    """Origin, and path with query, of an absolute URL. Raises `ValueError` unless it is plain http or https."""
    found = _ABSOLUTE.fullmatch(url)
    if found is None:
        raise ValueError("this is no http or https URL, or has a login in it")
    target = found[2] or "/"
    return URL(found[1]).origin(), target if target.startswith("/") else f"/{target}"


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS or _CONTROL.search(value):
            raise ValueError(f"the header {name!r} cannot be sent")
    return {name.title(): value for name, value in headers.items()}


def _authorization(login: tuple[str, str] | None) -> dict[str, str]:
    if login is None:
        return {}
    if ":" in login[0] or _CONTROL.search("".join(login)):
        raise ValueError("a login has no colon in its name and no control characters (RFC 7617 2)")
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp repeats by itself what fails with these two; when to repeat is decided here alone."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise aiohttp.ClientConnectionError from None


async def _repeated(attempt: Callable[[], Awaitable[T]]) -> T:
    for pause in PAUSES:
        with contextlib.suppress(_Passing):
            return await attempt()
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
    return await attempt()


async def start_of(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or its start when it is longer than `limit`."""
    start = bytearray()
    async for piece in answer.content.iter_any():
        start += piece
        if len(start) > limit:
            break
    return bytes(start)


def retry_after(value: str) -> float | None:
    """The seconds that a Retry-After asks for, an hour at most (RFC 9110 10.2.3); None when it makes no sense."""
    seconds = -1.0
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        with contextlib.suppress(ValueError, OverflowError):
            when = parsedate_to_datetime(value).replace(tzinfo=UTC)  # GMT, said or not: RFC 9110 5.6.7
            seconds = max(0.0, when.timestamp() - time.time())
    return min(seconds, 3600.0) if seconds >= 0 else None


def explained(error: Exception) -> str:
    """What went wrong, without the URL that aiohttp puts into some messages."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not valid: {getattr(error.certificate_error, 'verify_message', '')}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    if isinstance(error, TimeoutError):
        return "it takes too long"
    broke = isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError)
    return "the connection broke" if broke else type(error).__name__
