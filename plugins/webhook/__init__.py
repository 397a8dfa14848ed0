"""Any tool that calls a webhook: rules and templates say what its calls mean; what leaves is one signed POST."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from bridge.connector import Connector, ConnectorConfig, Port
from bridge.model import (
    FAILURES,
    Author,
    Card,
    Delivery,
    Draft,
    Envelope,
    Finding,
    Gone,
    Rejected,
    Request,
    Sent,
    Unavailable,
    Unconfirmed,
)
from bridge.text import one_line
from plugins.webhook.settings import Answer, Proof, Rule, at
from plugins.webhook.templates import LONGEST, SANDBOX, SECONDS, SHORT

MOST_FILES = 5_000_000  # bytes that go out inside one JSON


class Webhook(Connector):
    class Config(ConnectorConfig):
        version: Literal[1] = Field(description="Of the rules and of what is sent: 1")
        scopes: tuple[str, ...] = Field(min_length=1, description="What rooms may be mapped to")
        proof: Proof = Field(description="How calls are shown to be genuine, theirs and ours")
        rules: tuple[Rule, ...] = Field((), description="What calls mean: the first that fits")
        url: str = Field("", pattern=r"^(https?://[^\s?#@]+)?$", description="Where messages are sent; none: nowhere")
        answer: Answer = Field(Answer(), description="What the answer to a new item says, as places in its JSON")

    command, usage = "hook", "[title]"

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        self.http = port.http(config.url) if config.url else None
        self.rules = [
            (rule, {name: SANDBOX.checked(value) if value else None for name, value in rule if isinstance(value, str)},
             {label: SANDBOX.checked(value) for label, value in rule.fields.items()})
            for rule in config.rules
        ]  # fmt: skip

    def scopes(self) -> Sequence[str]:
        return tuple(self.config.scopes)

    # --- what comes in

    def parse(self, request: Request) -> list[Envelope]:
        self.config.proof.check(request)
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError):
            raise Rejected("the body is not JSON") from None
        for rule, templates, fields in self.rules:
            if all(each.fits(body) for each in rule.when):
                return self._said(rule, templates, fields, body, request.body)
        return []

    def _said(self, rule: Rule, templates: Any, fields: Any, body: Any, raw: bytes) -> list[Envelope]:
        SANDBOX.end = time.thread_time() + SECONDS
        values = {"body": body}
        found = {name: SANDBOX.text(each, values, LONGEST) if each else "" for name, each in templates.items()}
        short = {name: one_line(value[:SHORT]) for name, value in found.items()}
        shown = {label: one_line(SANDBOX.text(each, values, SHORT)[:SHORT]) for label, each in fields.items()}
        if self.is_mark(short["mark"]) or short["scope"] not in self.config.scopes:
            return []
        long = len(found["text"]) > LONGEST
        key = hashlib.sha256(found["once"].encode() if found["once"] else raw).hexdigest()
        if not (short["item"] or found["text"]):
            raise Rejected("the rule that fits says neither what it is about nor any text")
        item, url = f"{self.name}:{short['item']}" if short["item"] else "", short["url"]
        url = url if re.match("https?://", url) else ""
        shown = {"state": short["state"]} | shown if short["state"] else shown
        hidden = rule.private and not found["text"]  # what is said may be private on an item that everybody may see
        card = Card(item, item, short["title"], url, tuple(shown.items()), scope=short["scope"], private=hidden)
        told = re.fullmatch(r"\d{1,10}(\.\d{1,9})?", short["at"], re.ASCII)
        when = min(float(short["at"]), time.time()) if told else time.time()  # else nothing later would change the card
        who = Author(self.name, short["author"] or self.name, short["author"])
        return [
            Envelope(
                self.name, (short["scope"],), key, short["id"] or key, who, when, short["title"],
                text=found["text"][:LONGEST], item=item, refs=(short["refs"],) if short["refs"] else (),
                automatic=rule.automatic, urgent=rule.urgent, private=rule.private, card=card if item else None,
                begins=bool(item),
                problem="the rest of its text was too long" if long else "",
            )
        ]  # fmt: skip

    # --- what leaves

    def match(self, text: str) -> str:
        head, _, item = text.strip().partition(":")
        return f"{self.name}:{item}" if head.lower() == self.name.lower() and re.fullmatch(r"\S.{0,499}", item) else ""

    async def send(self, delivery: Delivery, draft: Draft) -> Sent:
        await self._post(delivery, draft, "message", draft.remote.removeprefix(f"{self.name}:"))
        return Sent(delivery.uid)

    async def create(self, delivery: Delivery, draft: Draft) -> Sent:
        said, names = await self._post(delivery, draft, "item", ""), self.config.answer
        item = at(said, names.item) if names.item else delivery.uid
        if not isinstance(item, str | int) or not str(item).strip():
            raise Unconfirmed(f"its answer does not say at {names.item} how the new item is called")
        name, url = f"{self.name}:{one_line(str(item))[:SHORT]}", at(said, names.url) if names.url else ""
        url = url if isinstance(url, str) and re.match("https?://", url) else ""
        return Sent(delivery.uid, card=Card(name, name, draft.heading, url, scope=draft.scope))

    async def _post(self, delivery: Delivery, draft: Draft, kind: str, item: str) -> Any:
        """The same request at every attempt, but for its time: whoever takes it knows it again by its key."""
        if self.http is None:
            raise Rejected(f"{self.name} has no url to send to")
        if sum(file.size for file in draft.files) > MOST_FILES:
            raise Rejected("its files are larger than 5 MB: send a link")
        read, files = self.port.spool.read, []
        for each in draft.files:
            data = base64.b64encode(await read(each)).decode()
            files.append({"name": each.name, "type": each.type, "base64": data})
        said: dict[str, Any] = {
            "version": 1,
            "kind": kind,
            "id": delivery.uid,
            "mark": self.mark(delivery.uid),
            "scope": draft.scope,
        }
        said |= {"item": item, "title": draft.title, "text": draft.plain, "author": draft.author}
        said |= {"author_name": draft.author_name, "at": draft.asked, "files": files}
        body = json.dumps(said).encode()
        headers = self.config.proof.headers(body, str(int(time.time())))
        headers |= {"Content-Type": "application/json", "Idempotency-Key": delivery.uid}
        accept = (404, 410) if item else (404,)
        reply = await self.http.request("POST", "", body=body, headers=headers, accept=accept)
        if reply.status == 404:  # without words of its own it is a proxy's, or the url is wrong
            raise (Rejected if reply.reason else Unavailable)(reply.reason or "nothing is at its url (404)")
        if reply.status == 410:
            raise Gone(reply.reason or f"{item} is gone")
        answer = reply.json() if reply.body.strip() else {}
        if isinstance(answer, dict) and (answer.get("error") or answer.get("errors")):
            raise Unconfirmed(reply.reason or "it says yes, and that there is an error")
        return answer

    async def check(self) -> list[Finding]:
        """Nothing can be sent without leaving a trace: only whether somebody answers."""
        if self.http is None:
            return [Finding(True, "it is called, and calls nobody")]
        try:
            headers = self.config.proof.headers(b"", str(int(time.time())))
            reply = await self.http.request("GET", "", headers=headers, accept=(400, 404, 405, 415, 422))
        except FAILURES as error:
            return [Finding(False, str(error), "see url and proof")]
        return [Finding(True, f"somebody answers at its url ({reply.status})")]
