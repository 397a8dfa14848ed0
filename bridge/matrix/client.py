"""The homeserver's client-server API as one of our users: requests, and what their failures mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from mautrix.api import HTTPAPI, Method
from mautrix.errors import MatrixRequestError
from mautrix.errors.request import make_request_error
from pydantic_core import PydanticSerializationError, to_json

from bridge.matrix.wire import Broken, Wire
from bridge.model import Deferred, Rejected, Unavailable

DEVICE = "PASSERELLE"  # sends of a device are remembered by the homeserver across its restart (MSC4190)
_TROUBLE = {401, 408, 425, 429, 502, 503, 504, 507, 520, 521, 522, 523, 524}
_TOKEN = {"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED"}
CHUNK = 256 * 1024


class Client(HTTPAPI):
    """One user of the appservice; with no `mxid`, the appservice itself.

    `MatrixRequestError` is left to the caller where it asks for it, else translated.
    """

    def __init__(
        self, url: str, token: str, wire: Wire, session: aiohttp.ClientSession, mxid: str, *, device: bool = True
    ) -> None:
        super().__init__(
            url,
            token,
            client_session=session,
            default_retry_count=0,
            as_user_id=mxid or None,  # type: ignore[arg-type]
            as_device_id=DEVICE if device else None,  # type: ignore[arg-type]
        )
        self.mxid = mxid
        self._wire = wire
        who = {"user_id": mxid} | ({"device_id": DEVICE, "org.matrix.msc3202.device_id": DEVICE} if device else {})
        self._who = urlencode(who if mxid else {})
        self._fields = f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"

    async def request(  # type: ignore[override]
        self, method: Method, path: str, content: Any = None, query_params: Mapping[str, str] | None = None, **_: Any
    ) -> Any:
        """As mautrix has it, without what costs it a third of a request: its log (what people write does not belong
        in one), its retries (ours are the queue's) and its counters. `path` is encoded already.

        Raises `MatrixRequestError`, `wire.Broken`, `PydanticSerializationError` when `content` cannot be written as
        JSON (a lone surrogate), `ValueError` when the answer is none.
        """
        query = f"{self._who}&{urlencode(query_params)}" if query_params else self._who
        body = b"" if method is Method.GET else to_json(content or {})
        answer = await self._wire.request(method.value, f"{path}?{query}", self._fields, body)
        if answer.status >= 300:
            raise _error(answer.status, answer.body, answer.fields.get("retry-after"))
        return json.loads(answer.body)

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        """One request. Raises `Rejected`, `Deferred`, `Unavailable`, or `MatrixRequestError` for a plain 4xx."""
        try:
            answer = await self.request(Method(method), path, body, query_params=query)
        except MatrixRequestError as error:
            raise translated(error) from None
        except PydanticSerializationError as error:
            raise Rejected(f"this cannot be written as JSON: {error}") from None
        except ValueError as error:
            raise Unavailable(f"the homeserver's answer makes no sense: {error}") from None
        except Broken as error:
            raise Unavailable(f"the homeserver does not answer: {error}") from None
        if not isinstance(answer, dict):
            raise Unavailable("the homeserver's answer is no JSON object")
        return answer

    async def upload(self, name: str, type_: str, size: int, chunks: AsyncIterator[bytes]) -> str:
        """Put a file into the media repository, streamed; returns its mxc URI. Raises as `call`."""
        headers = {"Content-Type": type_, "Content-Length": str(size), "Authorization": f"Bearer {self.token}"}
        url = self.base_url / "_matrix/media/v3/upload"
        params = {"filename": name, "user_id": self.mxid}
        try:
            async with self.session.post(
                url, data=chunks, headers=headers, params=params, timeout=aiohttp.ClientTimeout(total=600)
            ) as answer:
                if answer.status >= 300:
                    raise translated(await _streamed_error(answer))
                return str((await answer.json())["content_uri"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the upload was cut off: {type(error).__name__}") from None

    async def download(self, mxc: str) -> AsyncIterator[bytes]:
        """A file of the media repository in chunks. Raises as `call`."""
        server, _, media = mxc.removeprefix("mxc://").partition("/")
        url = self.base_url / "_matrix/client/v1/media/download" / server / media
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            async with self.session.get(
                url, headers=headers, params={"user_id": self.mxid}, timeout=aiohttp.ClientTimeout(total=600)
            ) as answer:
                if answer.status >= 300:
                    raise translated(await _streamed_error(answer))
                async for chunk in answer.content.iter_chunked(CHUNK):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the download was cut off: {type(error).__name__}") from None


async def _streamed_error(answer: aiohttp.ClientResponse) -> MatrixRequestError:
    try:
        body = await answer.read()
    except aiohttp.ClientError:
        body = b""
    return _error(answer.status, body, answer.headers.get("Retry-After"))


def _error(status: int, body: bytes, retry_after: str | None) -> MatrixRequestError:
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    text = body.decode("utf-8", "replace") if data is not None else ""
    data = data if isinstance(data, dict) else {}
    error = make_request_error(status, text, data.get("errcode"), data.get("error"))
    error.retry_after = _seconds(retry_after, data.get("retry_after_ms"))  # type: ignore[attr-defined]
    return error


def _seconds(header: str | None, milliseconds: Any) -> float | None:
    """How long we are asked to wait (RFC 9110 10.2.3 in seconds, or Matrix' own), at most an hour."""
    try:
        if header is not None:
            return min(3600.0, max(0.0, float(header)))
        return min(3600.0, max(0.0, float(milliseconds) / 1000)) if milliseconds is not None else None
    except (TypeError, ValueError):
        return None


def translated(error: MatrixRequestError) -> Exception:
    """What a refusal means for a delivery: the homeserver's trouble, this message's for now, or for good."""
    status, code = error.http_status, getattr(error, "errcode", None) or ""
    said = f"{status} {code} {getattr(error, 'message', None) or ''}".strip()
    if status in _TROUBLE or code in _TOKEN:
        return Unavailable(f"the homeserver said {said}", getattr(error, "retry_after", None))
    if status >= 500 or (not code and status != 413):  # without a code it is some proxy that speaks
        return Deferred(f"the homeserver said {said}")
    if status == 413 or code == "M_TOO_LARGE":
        return Rejected(f"the homeserver said {said}")
    return error
