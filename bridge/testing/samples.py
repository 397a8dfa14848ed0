"""Bad webhooks made from good ones, and what a configuration consists of. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bridge.model import Request

PLAIN = {"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "connection"}
MOST = 400  # bad bodies made from good ones
LARGE = 3 * 2**20
NONSENSE = (
    b"", b"{", b"[", b"null", b"true", b"7", b'"x"', b"[]", b"{}", b"[[]]", b"\xff\xfe\x00", b"a=b&c", b"<x/>",
    b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b'"\\ud800"', b"NaN", b"[NaN, 1e999]",
)  # fmt: skip
_SECRET = re.compile(r"(password|passwd|secret|token)$|^(api_)?key$")


def forged(request: Request, said: str, *, sealed: bool) -> Iterator[Request]:
    """The same without a signature, with a wrong one, and with other words under the right one."""
    plain = {name: value for name, value in request.headers.items() if name in PLAIN}
    yield Request(plain, request.body)
    for name in set(request.headers) - PLAIN:
        for wrong in ("", "x", "é", request.headers[name][:-1]):
            tampered = {**request.headers, name: wrong}
            if _told_apart(request, name):
                yield replace(request, headers=tampered)
    if sealed:
        body = request.body.replace(said.encode(), said[::-1].encode())
        yield replace(request, body=body if body != request.body else request.body + b" ")


def _told_apart(request: Request, name: str) -> bool:
    """Whether the header is where a signature is: by its name, or because there is no other."""
    others = set(request.headers) - PLAIN
    return others == {name} or bool(re.search(r"sign|secret|token|auth|hmac|key", name))


def senseless(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Bodies that make no sense; among them good ones, cut off or with another kind of value in one place."""
    yield from NONSENSE
    count = 0
    for body in bodies:
        yield body[: len(body) // 2]
        for changed in _altered(_json(body)):
            count += 1
            if count > MOST:
                return
            yield json.dumps(changed).encode()


def huge(bodies: Sequence[bytes], said: str) -> Iterator[bytes]:
    """What is as large as the bridge takes: with a long text, deeply nested, too large."""
    for body in bodies[:1]:
        yield body.replace(said.encode(), said.encode() * (LARGE // len(said)))
        yield body.replace(said.encode(), b"<b>" * (LARGE // 3))
        yield b" " * LARGE + body
        yield body.replace(said.encode(), said.encode() * (2 * LARGE // len(said)))
    yield b"[" * LARGE


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _altered(value: Any) -> Iterator[Any]:
    """The same JSON, each time with something else in one place, or nothing."""
    for other in (None, 7, -1.5, "", "x", [], {}, [None], {"": None}):
        if other != value:
            yield other
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: changed} for changed in _altered(inner))
    if isinstance(value, list):
        for place, inner in enumerate(value):
            yield from ([*value[:place], changed, *value[place + 1 :]] for changed in _altered(inner))


def keys(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Every key of a configuration, those of its sections too."""
    found = []
    for name, field in model.model_fields.items():
        found.append((field.alias or name, field))
        for section in _sections(field.annotation):
            found += keys(section)
    return found


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]


def read(page: Path | str) -> str:
    return Path(page).read_text(encoding="utf-8")


def names(page: str, key: str) -> bool:
    """Whether a page names the key as a key: in code, in a table, or in an example."""
    return bool(re.search(rf"`{re.escape(key)}\b|^[#\s-]*{re.escape(key)}:", page, re.MULTILINE))


def open_secrets(model: type[BaseModel]) -> list[str]:
    """Keys that sound like secrets and would be shown with the configuration."""
    return [key for key, field in keys(model) if _SECRET.search(key) and re.search(r"\bstr\b", str(field.annotation))]
