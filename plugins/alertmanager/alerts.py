"""What Alertmanager says: alerts, groups and silences as both its ways have them, and their cards. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, quote

from pydantic import AwareDatetime, BaseModel, Field

from bridge.model import Card, Change, Rejected
from bridge.text import clean, one_line

MOST_VALUES = 5  # of a group, on its card
EPOCH, NEVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)
RANKS = ("critical", "page", "error", "high", "warning", "info", "none")
SPAN, UNITS = re.compile(r"((?:\d{1,4}[mhdw])+)\s+(\S.*)"), {"m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST = 28 * 86400  # seconds of a silence
MATCHER = r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*'


class Status(BaseModel):
    state: str
    silencedBy: list[str] = []


class Alert(BaseModel):
    """Times differ in their precision from way to way: `start` is what both have."""

    fingerprint: str = Field(pattern=r"^[0-9a-f]{1,64}$")
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: AwareDatetime
    endsAt: AwareDatetime = NEVER
    generatorURL: str = ""
    status: Status | str = "firing"
    value: str = ""  # as it was when it fired

    @property
    def start(self) -> int:
        return (self.startsAt - EPOCH) // timedelta(milliseconds=1)

    @property
    def state(self) -> str:
        return self.status if isinstance(self.status, str) else self.status.state

    @property
    def id(self) -> str:
        return f"{self.fingerprint} {self.start}"


class Group(BaseModel):
    receiver: str | dict[str, str]  # its name, or {"name": its name}
    labels: dict[str, str] = Field(alias="groupLabels")
    alerts: list[Alert]

    @property
    def scope(self) -> str:
        return self.receiver if isinstance(self.receiver, str) else self.receiver.get("name", "")

    @property
    def item(self) -> str:
        return item_of(self.scope, self.labels)

    def has(self, words: Sequence[str]) -> bool:
        """Whether its alerts have all the words (lower-cased) in their labels and annotations."""
        told = [part for each in self.alerts for pair in (each.labels, each.annotations) for part in pair.items()]
        text = "\n".join(f"{name}={value}" for name, value in [*self.labels.items(), *told]).lower()
        return all(word in text for word in words)


class Silence(BaseModel):
    id: str
    status: Status
    comment: str
    createdBy: str
    startsAt: AwareDatetime
    endsAt: AwareDatetime
    matchers: list[dict[str, Any]]

    def is_for(self, labels: Mapping[str, str]) -> bool:
        """Whether it is for what has just these labels, compared plainly."""
        plain = all(not each.get("isRegex") and each.get("isEqual", True) for each in self.matchers)
        return plain and {str(each.get("name")): each.get("value") for each in self.matchers} == dict(labels)


def card(web: str, group: Group, firing: list[Alert], others: list[Alert], muted: str) -> Card:
    shown = sorted(firing or others, key=lambda each: (each.start, each.id))
    severities = {each.labels.get("severity", "").lower() for each in shown}
    severity = min(severities, key=lambda each: (RANKS.index(each) if each in RANKS else 4.5, each), default="")
    since = f"{min(each.startsAt for each in shown).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if shown else ""
    values = [" ".join(filter(None, [each.labels.get("instance", ""), each.value])) for each in shown if each.value]
    state = f"{len(firing)} firing" if firing else muted or "resolved"
    value = ", ".join(values[:MOST_VALUES])
    fields = (("state", state), ("severity", severity), ("since", since), ("value", value))
    title = one_line(" ".join(group.labels.values()))[:200] or group.scope
    matchers = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(group.labels.items()))
    url = f"{web}/#/alerts?receiver={quote(group.scope, safe='')}&filter={quote(f'{{{matchers}}}', safe='')}"
    return Card(group.item, group.item, title, url, fields, scope=group.scope)


def facts(group: Group, shown: Sequence[Alert]) -> tuple[tuple[str, str], ...]:
    """By what mappings may choose: the alert's name, and the labels that all alerts share."""
    labels = group.labels | (shown[0].labels if shown else {})
    shared = [pair for pair in sorted(labels.items()) if all(pair in each.labels.items() for each in shown)]
    return (("alertname", labels.get("alertname", "")), *(("label", f"{name}={value}") for name, value in shared))


def said(alert: Alert, title: str, value: str) -> str:
    """What an alert says; `value` is the annotation that has what was measured."""
    notes, about = alert.annotations, alert.labels
    first = notes.get("summary") or notes.get("message") or about.get("alertname", "") or title
    more = [notes.get("description", ""), ", ".join(f"{name}={text}" for name, text in sorted(about.items()))]
    more += [f"{value}: {alert.value}" if alert.value else ""]
    more += [alert.generatorURL if re.match("https?://", alert.generatorURL) else ""]
    return clean("\n".join(filter(None, [f"🔥 {first}", *more])))


def span(change: Change, ack: str) -> tuple[int, str]:
    """For how long (seconds) and why alerts are to be silenced; an acknowledgement for `ack`. Raises `Rejected`."""
    known = change.word == "ack"
    asked = SPAN.fullmatch(f"{ack} {change.value}" if known else change.value.strip())
    seconds = sum(int(each[:-1]) * UNITS[each[-1]] for each in re.findall(r"\d+[mhdw]", asked[1])) if asked else 0
    if asked is None or not 0 < seconds <= LONGEST:
        raise Rejected("say for how long and why, at most 4w: silence 2h reason; silence off ends it")
    return seconds, clean(f"{'ACK! ' if known else ''}{asked[2]}")  # ACK!: what other tools for it know it by


def named(text: str, sites: Sequence[str], receiver: str) -> str:
    """The item whose name or address that is; the address of what is seen there with a filter by all its labels."""
    if re.fullmatch(r"alert-[0-9a-f]{12}", text, re.ASCII):
        return text
    pages = [f"{site.rstrip('/')}/#/alerts?" for site in sites]
    query = next((text[len(site) :] for site in pages if text.lower().startswith(site.lower())), "")
    asked = parse_qs(query) if query else {}
    wanted = asked.get("filter", [""])[0].strip().removeprefix("{").removesuffix("}")
    if not re.fullmatch(f"{MATCHER}(?:,{MATCHER})*", wanted, re.ASCII):
        return ""
    try:
        labels = {name: json.loads(f'"{value}"') for name, value in re.findall(MATCHER, wanted, re.ASCII)}
    except ValueError:
        return ""
    return item_of(asked.get("receiver", [receiver])[0], labels)


def item_of(scope: str, labels: Mapping[str, str]) -> str:
    """Groups have no name of their own there: these are their receiver and labels, in short."""
    return f"alert-{sha256(json.dumps([scope, sorted(labels.items())]).encode()).hexdigest()[:12]}"


def row_of(alert: Alert, told: bool) -> list[Any]:
    """For a cursor; the third is its state: true when it fires, false when it is muted, null if it was never `told`."""
    labels = {name: value for name, value in alert.labels.items() if name in ("severity", "instance", "alertname")}
    state = alert.state == "active" or (False if told else None)
    return [alert.fingerprint, alert.start, state, alert.value, labels]


def states(rows: Sequence[Sequence[Any]]) -> dict[str, bool | None]:
    """By the ids of their alerts."""
    return {f"{each[0]} {each[1]}": each[2] for each in rows}


def alert_of(row: Sequence[Any]) -> Alert:
    start = EPOCH + timedelta(milliseconds=row[1])
    return Alert(fingerprint=row[0], startsAt=start, labels=row[4], value=row[3], status="resolved")
