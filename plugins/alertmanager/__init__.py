"""Alertmanager: groups of alerts come by webhook and by polling, and both say the same; silences go back, each once."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError

from bridge import model
from bridge.connector import Connector, Port, ServerConfig
from bridge.model import Author, Card, Change, Envelope, Finding, Rejected, Request
from bridge.text import one_line
from plugins.alertmanager.alerts import (
    NEVER,
    Alert,
    Group,
    Silence,
    alert_of,
    card,
    facts,
    named,
    row_of,
    said,
    span,
    states,
)
from plugins.alertmanager.server import Server

MOST_TOLD, REMEMBERED = 20, 20_000  # alerts of a group that are told singly; values kept in memory
RETRIED = 600  # seconds in which the same wish is the same attempt, made again


class Alertmanager(Connector):
    class Config(ServerConfig):
        username: str = Field("", pattern=r"^[^:\s]*$", description="The bridge's account, where it asks for a login")
        password: SecretStr = Field(SecretStr(""), description="Its password; better kept out of the file as ${NAME}")
        receivers: tuple[str, ...] = Field(min_length=1, description="Receivers that rooms may be mapped to")
        token: SecretStr = Field(min_length=8, description="The word that its webhooks bear")
        hook_username: str = Field("", description="The name that comes with it, if webhooks use basic_auth")
        value: str = Field("value", description="The annotation that has the measured value")
        loud: float = Field(3600, ge=0, description="Seconds after which an alert we hear of is old news, and quiet")
        quiet: tuple[str, ...] = Field(("info", "none"), description="Severities that call nobody, whatever happens")
        ack: str = Field("1h", pattern=r"^(\d{1,4}[mhdw])+$", description="How long an acknowledgement holds")

    words: ClassVar[Mapping[str, str]] = {"silence": "2h reason (or off)", "ack": "reason"}
    filters: ClassVar[Mapping[str, str]] = {
        "severity": "the highest of its alerts", "alertname": "the name of the alert", "label": "as team=shop"
    }  # fmt: skip

    def __init__(self, name: str, config: Config, port: Port) -> None:
        super().__init__(name, config, port)
        login = config.login if config.username else None
        self.every = config.every
        self.server = Server(port.http(config.url, login=login, ca_file=config.ca_file), config.receivers)
        self.web = config.site
        token = config.token.get_secret_value()
        basic = base64.b64encode(f"{config.hook_username}:{token}".encode()).decode()
        self._expected = f"Basic {basic}" if config.hook_username else f"Bearer {token}"
        self._fired: dict[str, str] = {}  # values of alerts that fire, as they were first seen; polling remembers them
        self._calls: dict[str, bool] = {}  # whether the message of that key was chosen to call somebody
        self._late: dict[str, None] = {}  # ids of alerts that began while they were muted: news, however old

    def scopes(self) -> Sequence[str]:
        return tuple(self.config.receivers)

    # --- what comes in

    def parse(self, request: Request) -> list[Envelope]:
        given = request.headers.get("authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, self._expected.encode()):
            raise Rejected("the webhook does not bear our token")
        try:
            group = Group.model_validate_json(request.body)
        except ValidationError as error:
            raise Rejected(f"this is no notification of Alertmanager, in {error.error_count()} places") from None
        if group.scope not in self.config.receivers:
            return []
        alerts = [self._kept(alert) for alert in group.alerts]
        firing = [alert for alert in alerts if alert.state != "resolved"]
        resolved = [alert for alert in alerts if alert.state == "resolved"]
        times = [alert.startsAt for alert in firing] + [alert.endsAt for alert in resolved]
        when = max(times, default=NEVER).timestamp() + 0.001  # after the messages of those that fire
        new = dict.fromkeys((each.id for each in firing), "")
        return self._told(group, firing, resolved, when, new) if alerts else []

    async def poll(self, cursor: str) -> model.Page:
        """The cursor has all alerts as they were: what is missing now is resolved, with the value it had.

        And how many times something was different, since it may be muted and fire again and again.
        """
        now, past, at = time.time(), json.loads(cursor or '{"turn": 0, "groups": {}}'), dict[str, Any]()
        known, turn = past["groups"], str(past["turn"] + 1)
        self._recall(known)
        news, groups = list[Envelope](), await self.server.groups()
        at |= {item: known[item] for item in await self._forgotten(known, groups)}
        for group in [group for group in groups if group.item not in at]:
            alerts = [self._kept(alert) for alert in group.alerts]
            before = known.get(group.item, ("", {}, []))[2]
            at[group.item] = [group.scope, group.labels, self._rows(group, alerts, before)]
            if cursor and before != at[group.item][2]:
                news += await self._differs(group, alerts, before, now, turn)
        for item in known.keys() - at.keys():
            scope, labels, rows = known[item]
            alerts = [alert_of(row) for row in rows]
            gone = Group.model_validate({"receiver": scope, "groupLabels": labels, "alerts": alerts})
            news += self._told(gone, [], alerts, now, {}, turn)
        self._recall(at)
        return model.Page(tuple(news), json.dumps({"turn": int(turn) if at != known else past["turn"], "groups": at}))

    def _rows(self, group: Group, alerts: list[Alert], before: list[Any]) -> list[Any]:
        """Alerts for the cursor. Told is also what a webhook brought that was muted again before we looked."""
        was = states(before)
        told = {each.id for each in alerts if was.get(each.id) is not None or f"{group.item} {each.id} " in self._calls}
        return sorted((row_of(each, each.id in told) for each in alerts), key=lambda row: row[:2])

    def _recall(self, groups: Mapping[str, Any]) -> None:
        for _, _, rows in groups.values():
            _remember(self._fired, ((f"{each[0]} {each[1]}", each[3]) for each in rows))
            _remember(self._late, ((id_, None) for id_, fires in states(rows).items() if fires is None))

    async def _forgotten(self, known: Mapping[str, Any], groups: Sequence[Group]) -> set[str]:
        """Groups of which it lacks alerts that began before itself did: it keeps none when it is started again, and it
        takes a while until Prometheus has told it of all that still fire.
        """
        here = {alert.id for group in groups for alert in group.alerts}
        lost = [(item, each[1]) for item, (_, _, rows) in known.items() for each in rows
                if f"{each[0]} {each[1]}" not in here]  # fmt: skip
        began = await self.server.young() if lost else 0
        return {item for item, start in lost if start < began}

    async def _differs(
        self, group: Group, alerts: list[Alert], before: list[Any], now: float, turn: str
    ) -> list[Envelope]:
        """What fires and did not, or was muted, is told. If it was told before, its key is new: no webhook has it."""
        firing = [alert for alert in alerts if alert.state == "active"]
        was = states(before)
        gone = [each for each in map(alert_of, before) if each.id not in {alert.id for alert in alerts}]
        muted = "" if firing else await self.server.muted(alerts)
        new = {alert.id: turn if was.get(alert.id) is False else "" for alert in firing if not was.get(alert.id)}
        return self._told(group, firing, gone if firing else [*gone, *alerts], now, new, turn, muted)

    def _told(
        self, group: Group, firing: list[Alert], others: list[Alert], when: float, new: Mapping[str, str],
        turn: str = "", muted: str = "",
    ) -> list[Envelope]:  # fmt: skip
        """Each new alert, the last that calls for somebody so that somebody notices; then how the group stands.

        The key of an alert is the same whichever way it comes, and so is whether it calls: webhooks bring all of a
        group again. Its message has the card as of when it began to fire: so both are shown together, unless something
        later is known.
        """
        shown = card(self.web, group, firing, others, muted)
        ids = json.dumps([sorted(each.id for each in firing), sorted(each.id for each in others), muted])
        key = f"{group.item} {sha256(ids.encode()).hexdigest()[:20]} {turn}"
        stands = Envelope(
            self.name, (group.scope,), key, key, Author(self.name, ""), when, shown.title, item=group.item, card=shown,
            begins=bool(firing), facts=(*facts(group, firing or others), *shown.fields),
        )  # fmt: skip
        order = sorted((each for each in firing if each.id in new), key=lambda each: (each.start, each.id))
        told = [self._fires(each, stands, new[each.id]) for each in order[-MOST_TOLD:]]
        asks = [each.key for each in told if each.urgent and each.key not in self._calls][-1:]
        _remember(self._calls, ((each.key, each.key in asks) for each in told))
        return [*(replace(each, urgent=each.urgent and self._calls[each.key]) for each in told), stands]

    def _fires(self, alert: Alert, stands: Envelope, again: str) -> Envelope:
        """Somebody should look, unless it is old news, or nothing that anybody must be called for."""
        known = again or alert.id in self._late
        old = not known and time.time() - alert.start / 1000 > self.config.loud
        calls = not old and alert.labels.get("severity", "").lower() not in map(str.lower, self.config.quiet)
        key, who = f"{stands.item} {alert.id} {again}", Author(self.name, "alertmanager", "Alertmanager")
        told = replace(stands, key=key, id=key, author=who, text=said(alert, stands.title, self.config.value))
        return replace(told, when=stands.when if again else alert.start / 1000, automatic=True, urgent=calls)

    def _kept(self, alert: Alert) -> Alert:
        """With the value it had when it fired, whatever is measured now."""
        if not alert.value and alert.id not in self._fired and alert.state != "resolved":
            _remember(self._fired, [(alert.id, one_line(alert.annotations.get(self.config.value, ""))[:100])])
        value = self._fired.get(alert.id, one_line(alert.annotations.get(self.config.value, ""))[:100])
        return alert.model_copy(update={"value": value})

    # --- items

    def match(self, text: str) -> str:
        return named(text.strip(), (self.web, self.config.url), self.config.receivers[0])

    async def fetch(self, item: str) -> Card:
        return await self._card(await self.server.group(item))

    async def _card(self, group: Group) -> Card:
        alerts = [self._kept(alert) for alert in group.alerts]
        firing = [alert for alert in alerts if alert.state == "active"]
        muted = "" if firing else await self.server.muted(alerts)
        return card(self.web, group, firing, alerts, muted)

    async def find(self, words: str, scopes: Sequence[str]) -> Sequence[Card]:
        """Groups of alerts that fire or are muted now, the newest first: by their labels and annotations."""
        wanted = words.lower().split()
        found = [each for each in await self.server.groups() if each.scope in scopes and each.has(wanted)]
        newest = sorted(found, key=lambda group: -max(alert.start for alert in group.alerts))[:10]
        return [await self._card(group) for group in newest]

    async def change(self, change: Change) -> Card:
        """One silence of ours for a group: its comment ends with a mark that says which wish it fulfils."""
        off = (change.word, change.value.strip().lower()) == ("silence", "off")
        seconds, reason = (0, "") if off else span(change, self.config.ack)
        group = await self.server.group(change.item)
        ours = await self._ours(group)
        wish = json.dumps([change.item, change.word, change.value, change.name])
        mark = self.mark(sha256(wish.encode()).hexdigest()[:20])
        if off:
            for each in ours:
                await self.server.http.request("DELETE", f"api/v2/silence/{quote(each.id, safe='')}")
        elif not any(_fulfils(each, mark, seconds) for each in ours):
            await self.server.silence(group, ours[:1], change, f"{reason} {mark}", seconds)
        return await self._read_back(group, "" if off else mark, seconds)

    async def _read_back(self, group: Group, mark: str, seconds: int) -> Card:
        ours = await self._ours(group)
        if (mark and not any(_fulfils(each, mark, seconds) for each in ours)) or (ours and not mark):
            raise Rejected(f"{self.name} said yes and has not changed its silences")
        try:
            return await self.fetch(group.item)
        except Rejected:  # resolved meanwhile
            return card(self.web, group, [], [self._kept(alert) for alert in group.alerts], "")

    async def _ours(self, group: Group) -> list[Silence]:
        found = [each for each in await self.server.silences() if each.is_for(group.labels)]
        return [each for each in found if self.is_mark(each.comment.rpartition(" ")[2])]

    # --- its interface

    async def check(self) -> list[Finding]:
        remedy = "see url, username, password, receivers; the account must be allowed to make silences"
        try:
            there, silences = await self.offers(), "api/v2/silences"
            reply = await self.server.http.request("POST", silences, json={}, accept=(400, 422))  # none without all
        except model.FAILURES as error:
            return [Finding(False, str(error), remedy)]
        if reply.status < 400:
            return [Finding(False, "it is no Alertmanager", remedy)]
        if missing := [each for each in self.config.receivers if each not in there]:
            return [Finding(False, f"it has no receiver {', '.join(missing)}; it has: {', '.join(there)}", remedy)]
        return [Finding(True, f"receivers: {', '.join(there)}; silences may be made")]

    async def offers(self) -> Sequence[str]:
        found = await self.server.get(list[dict[str, Any]], "api/v2/receivers")
        return [str(each.get("name")) for each in found if each.get("name") in self.config.receivers]


def _fulfils(silence: Silence, mark: str, seconds: int) -> bool:
    """Whether that wish made it just now, not the same words some time ago: then it is to hold longer."""
    least = time.time() + max(seconds - RETRIED, seconds / 2)
    return silence.comment.endswith(mark) and silence.endsAt.timestamp() >= least


def _remember(known: dict[str, Any], more: Iterable[tuple[str, Any]]) -> None:
    """What is known already stays as it is."""
    for key, value in more:
        known.setdefault(key, value)
    while len(known) > REMEMBERED:
        del known[next(iter(known))]
