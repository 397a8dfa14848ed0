"""The HTTP clients that the bridge gives to plugins: for the one server that configuration names, for the internet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol

from bridge.model import File, Unavailable

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Reply:
    """What a tool's HTTP server answered: header names lower-cased, the body whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str = ""  # of `Web`: where it was found in the end

    @property
    def reason(self) -> str:
        """The tool's own words for a refusal, on one line and cut to 500 characters; "" when it has none."""
        try:
            return " ".join(reason_in(json.loads(self.body)).split())[:500]
        except (ValueError, RecursionError):
            return ""

    def json(self) -> Any:
        """The body as JSON. Raises `Unavailable` when it is none: then it is not the tool that speaks."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Unavailable(f"the tool's answer ({self.status}) is not JSON") from None


class Http(Protocol):
    """The HTTP server of one tool, which configuration names: requests go there and nowhere else."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        form: Mapping[str, str | File] | None = None,
        body: bytes | File | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Sequence[int] = (),
    ) -> Reply:
        """One request, limited in time and size; `form` is sent as multipart/form-data, its files streamed.

        `body` is sent as it is, a file streamed with its own type; to bytes, `headers` give the Content-Type.

        A status from 200 to 299, or one in `accept`, is returned. Other answers are raised as what they mean for a
        delivery: `Unavailable` for the tool's trouble (it cannot be reached, 401, 403, 408, 429, 502, 503, 504, with
        the seconds of Retry-After), `Deferred` for other 5xx, `Rejected` for other 4xx, and `Unconfirmed` when
        something was asked that may change something, and the answer is lost. What is safe (GET, HEAD, PROPFIND,
        REPORT) is repeated when the connection breaks.
        Raises `ValueError` when `path` leads to another server.
        """

    async def download(self, path: str, name: str, type: str) -> File:
        """A file of the tool, streamed into the spool. Raises as `request`, and `Rejected` when it is too large."""


class Web(Protocol):
    """Pages on the internet, for addresses that people paste: only looked at, and nothing of ours goes along."""

    def address(self, text: str) -> str:
        """The address that `text` is, without its fragment and always written alike; "" when it may not be looked at.

        That is what is not http or https, bears a login, is too long, or names another host or port than those that
        are looked at. Pure.
        """

    async def get(self, url: str, types: Sequence[str]) -> Reply:
        """What is there, if it is of one of these media types: at most the first 512 KiB; `Reply.url` is where it was.

        No cookies, no referrer; five redirects, each judged like the address itself. Every connection is refused that
        does not lead to the internet. Raises `Rejected` whatever is wrong: with one page of many there is no trouble
        to wait for.
        """


_WHY = ("error", "errors", "msg", "message", "info", "detail")  # where tools put their reason in JSON


def reason_in(found: Any, depth: int = 4) -> str:
    """The reason in a JSON document: {"error": {"msg": …}}, {"errors": […]}, {"message": …} …; "" without one."""
    if isinstance(found, list) and depth:
        return "; ".join(filter(None, (reason_in(part, depth - 1) for part in found[:10])))
    if isinstance(found, dict) and depth:
        return next(filter(None, (reason_in(found.get(key), depth - 1) for key in _WHY)), "")
    return found if isinstance(found, str) else ""
