"""What a webhook's configuration says: how calls are proven, and rules that say what they mean. Pure."""

from __future__ import annotations

import base64
import hmac
import re
import time
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from bridge.connector import ConnectorConfig
from bridge.model import Rejected, Request
from plugins.webhook.templates import SANDBOX

PATH, STEP = r"^[\w-]+(\[\d{1,6}\])*(\.[\w-]+(\[\d{1,6}\])*)*$", re.compile(r"\[(\d+)\]|([\w-]+)")


def at(body: Any, path: str) -> Any:
    """What stands at a place in JSON, as `steps[0].state`; None when nothing does."""
    for number, name in STEP.findall(path):
        if number and isinstance(body, list) and int(number) < len(body):
            body = body[int(number)]
        elif name and isinstance(body, dict):
            body = body.get(name)
        else:
            return None
    return body


class Proof(ConnectorConfig):
    """How a call shows that it is genuine; ours are signed in the same way."""

    secret: SecretStr = Field(min_length=8, description="The secret that both sides know")
    bearer: bool = Field(False, description="Whether the secret itself is sent, as Authorization: Bearer")
    header: str = Field("x-hub-signature-256", pattern=r"^[A-Za-z0-9-]+$", description="The header with the signature")
    algorithm: Literal["sha256", "sha1", "sha512"] = Field("sha256", description="The hash of the HMAC")
    prefix: str = Field("sha256=", description="What stands before the signature")
    encoding: Literal["hex", "base64"] = Field("hex", description="How the signature is written")
    timestamp: str = Field("", pattern=r"^[A-Za-z0-9-]*$", description="The header with the time, in seconds")
    window: float = Field(300, gt=0, description="Seconds that this time may differ from ours")
    signed: str = Field("{body}", description="What is signed: {timestamp}.{body}, where there is a time")

    @model_validator(mode="after")
    def _fits(self) -> Proof:
        if self.signed.count("{body}") != 1 or (bool(self.timestamp) != ("{timestamp}" in self.signed)):
            raise ValueError("signed needs {body} once, and {timestamp} exactly where timestamp names a header")
        if self.header.lower() == self.timestamp.lower():
            raise ValueError("the signature and the time cannot be in the same header")
        return self

    def headers(self, body: bytes, now: str) -> dict[str, str]:
        """What goes with a body at this time (seconds)."""
        secret = self.secret.get_secret_value()
        if self.bearer:
            return {"authorization": f"Bearer {secret}"}
        before, after = (
            part.replace("{timestamp}", now).encode(errors="replace") for part in self.signed.split("{body}")
        )
        digest = hmac.new(secret.encode(), before + body + after, self.algorithm).digest()
        sign = digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode()
        return {
            self.header.lower(): f"{self.prefix}{sign}",
            **({self.timestamp.lower(): now} if self.timestamp else {}),
        }

    def check(self, request: Request) -> None:
        """Raises `Rejected` when the call is forged, or too old."""
        now = request.headers.get(self.timestamp.lower(), "") if self.timestamp and not self.bearer else ""
        expected = self.headers(request.body, now)
        name = "authorization" if self.bearer else self.header.lower()
        given = request.headers.get(name, "").encode(errors="replace")
        if not hmac.compare_digest(given, expected[name].encode(errors="replace")):
            raise Rejected("the signature is wrong")
        if self.timestamp and not self.bearer and not request.replayed:
            told = int(now) if re.fullmatch(r"\d{1,12}", now, re.ASCII) else 0
            if abs(time.time() - told) > self.window:
                raise Rejected(f"it was sent more than {self.window:g} seconds ago, or the clocks differ")


class Match(ConnectorConfig):
    path: str = Field(pattern=PATH, description="A place in the JSON: build.steps[0].state")
    equals: str | int | float | bool | None = Field(None, description="The value there; without it any will do")
    exists: bool = Field(True, description="false: there must be nothing at that place")

    def fits(self, body: Any) -> bool:
        found = at(body, self.path)
        if not self.exists or "equals" not in self.model_fields_set:
            return (found is not None) == self.exists
        return type(found) is type(self.equals) and bool(found == self.equals)


class Rule(ConnectorConfig):
    """What a call means that fits: every text is a template; `body` is what came."""

    when: tuple[Match, ...] = Field((), description="What must be so; without it every call fits")
    scope: str = Field(description="The scope of its mapping")
    once: str = Field("", description="Its identity: what comes again is not shown again; default: the body's hash")
    id: str = Field("", description="How later calls refer to it, in refs; default: what `once` says")
    refs: str = Field("", description="The id of what it answers")
    item: str = Field("", description="What it is about, in short; calls about one item are one conversation")
    title: str = Field("", description="What the item is called")
    text: str = Field("", description="What is said; without it only the card changes")
    author: str = Field("", description="Who says so: the name of an account; default: the connector")
    url: str = Field("", description="Where people see the item")
    at: str = Field("", description="When it happened, in seconds since 1970; default: now")
    state: str = Field("", description="How the item stands")
    mark: str = Field("{{ body.mark }}", description="Where the mark of our own calls comes back: those are not shown")
    fields: dict[str, str] = Field({}, max_length=8, description="More of the card: by label")
    private: bool = Field(False, description="Whether only rooms with private: true may see it")
    automatic: bool = Field(False, description="Whether it is quiet: nobody needs to look")
    urgent: bool = Field(False, description="Whether it asks for a person")

    @field_validator("*")
    @classmethod
    def _compiles(cls, value: Any) -> Any:
        for source in value.values() if isinstance(value, dict) else [value] if isinstance(value, str) else ():
            SANDBOX.checked(source)
        return value


class Answer(ConnectorConfig):
    item: str = Field("", pattern=rf"^$|{PATH}", description="Where the answer says how the new item is called")
    url: str = Field("", pattern=rf"^$|{PATH}", description="Where it says at which address people see it")
