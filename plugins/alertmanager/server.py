"""Alertmanager's interface, version 2, as far as it is needed here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError

from bridge.connector import Http
from bridge.model import Change, Rejected, Unavailable, Unconfirmed
from bridge.text import one_line
from plugins.alertmanager.alerts import EPOCH, Alert, Group, Silence, Status

SETTLED = timedelta(minutes=5)  # Prometheus says every minute what fires


class Running(BaseModel):
    uptime: AwareDatetime  # since when


class Server:
    """What it knows of the alerts for these receivers. Raises `Unavailable` when somebody else answers."""

    def __init__(self, http: Http, receivers: Sequence[str]) -> None:
        self.http = http
        self.receivers = receivers

    async def groups(self) -> list[Group]:
        path = "api/v2/alerts/groups?active=true&silenced=true&inhibited=true"
        found = await self.get(list[dict[str, Any]], path)
        try:
            groups = [Group.model_validate(each | {"groupLabels": each.get("labels")}) for each in found]
        except ValidationError:
            raise Unavailable("it answers with groups of alerts that make no sense") from None
        return [group for group in groups if group.scope in self.receivers and group.alerts]

    async def group(self, item: str) -> Group:
        found = [group for group in await self.groups() if group.item == item]
        if not found:
            raise Rejected(f"no alert of {item} fires now; Alertmanager forgets those that are resolved")
        return found[0]

    async def young(self) -> int:
        """When it was started, in milliseconds, if it may not know yet what fires; else 0."""
        now, began = datetime.now(UTC), (await self.get(Running, "api/v2/status")).uptime
        return (began - EPOCH) // timedelta(milliseconds=1) if now - began < SETTLED else 0

    async def muted(self, alerts: list[Alert]) -> str:
        """Why nothing is heard of alerts that fire: in words."""
        by = {id_ for alert in alerts if isinstance(alert.status, Status) for id_ in alert.status.silencedBy}
        found = [each for each in await self.silences() if each.id in by] if by else []
        if not found:
            return "inhibited" if not by else "silenced"
        last = max(found, key=lambda each: each.endsAt)
        why = one_line(last.comment.rpartition(" passerelle.")[0] or last.comment)
        return f"silenced until {last.endsAt.astimezone(UTC):%Y-%m-%d %H:%M} UTC by {one_line(last.createdBy)}: {why}"

    async def silences(self) -> list[Silence]:
        return [each for each in await self.get(list[Silence], "api/v2/silences") if each.status.state != "expired"]

    async def get(self, kind: Any, path: str) -> Any:
        reply = await self.http.request("GET", path, accept=(404,))  # of a proxy: all that is asked is always there
        try:
            return TypeAdapter(kind).validate_json(reply.body)
        except ValidationError:
            raise Unavailable(f"{path.partition('?')[0]} does not answer as Alertmanager does") from None

    async def silence(self, group: Group, ours: list[Silence], change: Change, comment: str, seconds: int) -> None:
        if not group.labels:
            raise Rejected("these alerts are not grouped by any label: silence them in Alertmanager")
        now = datetime.now(UTC)
        end = now + timedelta(seconds=seconds)
        if ours and change.word == "ack":  # it ends no silence that somebody wanted longer
            end = max(end, ours[0].endsAt)
        matchers = [{"name": k, "value": v, "isRegex": False, "isEqual": True} for k, v in sorted(group.labels.items())]
        body: dict[str, Any] = {"matchers": matchers, "createdBy": change.name or change.account, "comment": comment}
        body |= {"startsAt": (ours[0].startsAt if ours else now).isoformat(), "endsAt": end.isoformat()}
        body |= {"id": ours[0].id} if ours else {}
        answer = (await self.http.request("POST", "api/v2/silences", json=body)).json()
        if not isinstance(answer, dict) or not answer.get("silenceID"):
            raise Unconfirmed("it does not say whether there is a silence now")
