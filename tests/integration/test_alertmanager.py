"""The Alertmanager plugin on a real server: by webhook and by polling the same is told, and silences are made once."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from bridge import store
from bridge.config import load
from bridge.http import new_session
from bridge.model import Change, Envelope, Rejected, Request, Unconfirmed
from bridge.port import BridgePort
from bridge.testing.office import served
from plugins.alertmanager import Alertmanager
from plugins.alertmanager.alerts import item_of
from tests.peers import ROOT, until
from tests.peers.alertmanager import LOGIN, RECEIVER, TOKEN
from tests.peers.alertmanager import Alertmanager as Peer
from tests.peers.faults import Fault, Proxy
from tests.unit.test_config import SECRETS, example

pytestmark = pytest.mark.debian("prometheus-alertmanager", "prometheus-alertmanager")
ALERTS = "alerts"
HOT = item_of(RECEIVER, {"alertname": "Hot", "service": "shop"})


@dataclass
class Watch:
    """A server, the plugin on it through a proxy, and the webhooks that came; the first are answered with `says`."""

    peer: Peer
    proxy: Proxy
    plugin: Alertmanager
    says: list[int]
    came: list[Request] = field(default_factory=list)
    cursor: str = ""

    async def news(self) -> list[Envelope]:
        page = await self.plugin.poll(self.cursor)
        self.cursor = page.cursor
        return list(page.envelopes)

    async def polled(self, state: str) -> list[Envelope]:
        """What the poll brings that finds the group so."""

        async def look() -> list[Envelope]:
            found = await self.news()
            return found if found and shown(found[-1])["state"].startswith(state) else []

        return await until(look, f"a poll that finds it {state}")

    async def pushed(self, state: str) -> list[Envelope]:
        """What the webhook says that tells of this state."""

        async def look() -> list[Envelope]:
            for request in self.came:
                found = self.plugin.parse(request)
                if shown(found[-1])["state"].startswith(state):
                    return found
            return []

        return await until(look, f"a webhook that says {state}")

    async def ask(self, item: str, word: str, value: str) -> dict[str, str]:
        card = await self.plugin.change(Change(item, word, value, "", "Alice Martin"))
        return dict(card.fields)


def shown(envelope: Envelope) -> dict[str, str]:
    assert envelope.card
    return dict(envelope.card.fields)


def plugin(peer: Peer, url: str, port: Any, **more: Any) -> Alertmanager:
    login = dict(zip(("username", "password"), LOGIN, strict=True))
    settings = {"url": url, "web": peer.url, **login, "receivers": [RECEIVER], "token": TOKEN, **more}
    return Alertmanager(ALERTS, Alertmanager.Config(**settings), port)


def alone(folder: Path, **more: Any) -> Alertmanager:
    """One that reaches nothing."""
    nothing: Any = None
    port = BridgePort(ALERTS, nothing, nothing, nothing, b"secret", nothing, 1)
    port.http = lambda *_, **how: how  # type: ignore[assignment, method-assign]
    return plugin(Peer(folder), "http://127.0.0.1:1/", port, **more)


@contextlib.asynccontextmanager
async def watch(folder: Path) -> AsyncIterator[Watch]:
    app = web.Application()
    async with contextlib.AsyncExitStack() as stack:
        says: list[int] = []
        came: list[Request] = []

        async def hook(request: web.Request) -> web.Response:
            if says:
                return web.Response(status=says.pop())
            came.append(Request({k.lower(): v for k, v in request.headers.items()}, await request.read()))
            return web.Response()

        app.router.add_post("/", hook)
        url = await stack.enter_async_context(served(app))
        peer = await stack.enter_async_context(Peer(folder / "peer", f"{url}/"))
        proxy = await stack.enter_async_context(Proxy(peer.url.rstrip("/")))
        memory = await stack.enter_async_context(store.opened(folder / "data"))
        session = await stack.enter_async_context(new_session())
        nothing: Any = None
        port = BridgePort(ALERTS, memory, nothing, nothing, b"secret", session, 1_000_000)
        found = Watch(peer, proxy, plugin(peer, f"{proxy.url}/", port), says, came)
        assert await found.news() == []
        yield found


async def test_both_ways_tell_the_same_and_a_resolved_alert_keeps_its_value(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot", value="97 °C")
        pushed, polled = await at.pushed("1 firing"), await at.polled("1 firing")
        assert pushed[0].key == polled[0].key
        assert [each.card for each in pushed] == [each.card for each in polled]
        assert [(each.begins, each.scopes, bool(each.text)) for each in pushed] == [
            (True, (RECEIVER,), True),
            (True, (RECEIVER,), False),
        ]
        assert "too hot" in pushed[0].text
        assert "97 °C" in pushed[0].text
        await at.peer.resolve("Hot", value="20 °C")
        pushed, polled = await at.pushed("resolved"), await at.polled("resolved")
        assert [each.card for each in pushed] == [each.card for each in polled]
        assert shown(pushed[0])["value"] == "n1 97 °C"
        assert (len(pushed), pushed[0].text, pushed[0].begins) == (1, "", False)


async def test_what_fires_again_asks_for_a_person_and_old_news_does_not(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot")
        first = (await at.polled("1 firing"))[0]
        await at.peer.resolve("Hot")
        await at.polled("resolved")
        await at.peer.fire("Hot", "hot again")
        again = (await at.polled("1 firing"))[0]
        assert (again.item, again.urgent, again.automatic) == (first.item, True, True)
        assert again.key != first.key
        await at.peer.fire("Old", "long ago", start=(datetime.now(UTC) - timedelta(hours=2)).isoformat())
        old = (await at.polled("1 firing"))[0]
        assert (old.urgent, old.automatic) == (False, True)


async def test_what_fires_when_its_silence_has_ended_asks_for_a_person_each_time(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot")
        keys = [(await at.polled("1 firing"))[0].key]
        for _ in range(2):
            await at.ask(HOT, "silence", "1h roof works")
            [muted] = await at.polled("silenced")
            assert (muted.text, muted.urgent) == ("", False)
            await at.ask(HOT, "silence", "off")
            again = (await at.polled("1 firing"))[0]
            assert (again.urgent, "too hot" in again.text) == (True, True)
            keys.append(again.key)
        assert len(set(keys)) == 3


async def mute(peer: Peer, left: timedelta, **how: Any) -> str:
    """A silence for HOT, made or changed, that ends so soon; returns its id."""
    names = {"alertname": "Hot", "service": "shop"}
    now, matchers = datetime.now(UTC), [{"name": k, "value": v, "isRegex": False} for k, v in names.items()]
    times = {"startsAt": now.isoformat(), "endsAt": (now + left).isoformat()}
    body = {"matchers": matchers, "createdBy": "Bob", "comment": "works", **times, **how}
    return str((await peer.call("POST", "silences", body))["silenceID"])


async def test_what_began_in_a_silence_that_ends_asks_for_a_person_once_however_old(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        silence = await mute(at.peer, timedelta(hours=1))
        await at.peer.fire("Hot", "too hot", start=(datetime.now(UTC) - timedelta(hours=2)).isoformat())
        assert [each.urgent for each in await at.polled("silenced")] == [False]
        await at.peer.call("DELETE", f"silence/{silence}")
        pushed = (await at.pushed("1 firing"))[0]
        at.plugin._late.clear()  # as after a start
        at.plugin._calls.clear()
        polled = (await at.polled("1 firing"))[0]
        assert [(each.key, each.urgent) for each in (pushed, polled)] == 2 * [(pushed.key, True)]


async def test_what_a_webhook_told_and_was_silenced_before_a_poll_saw_it_asks_again(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot")
        pushed = (await at.pushed("1 firing"))[0]
        await at.ask(HOT, "ack", "looking")
        await at.polled("silenced")
        await at.ask(HOT, "silence", "off")
        again = (await at.polled("1 firing"))[0]
        assert (again.urgent, again.key != pushed.key) == (True, True)


async def test_a_newcomer_asks_for_a_person_although_it_began_before_one_that_was_told(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "n1 is hot")
        told = [each.key for each in await at.pushed("1 firing")]
        earlier = (datetime.now(UTC) - timedelta(minutes=4)).isoformat()
        await at.peer.fire("Hot", "n2 is hot", "n2", start=earlier)
        for _ in range(2):  # as when it comes again since it could not be kept
            news = [each for each in await at.pushed("2 firing") if each.key not in told]
            assert [("n2 is hot" in each.text, each.urgent) for each in news] == [(True, True), (False, False)]


async def test_of_many_that_fire_at_once_only_the_newest_asks_for_a_person(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        for number in range(3):
            await at.peer.fire("Hot", f"n{number} is hot", instance=f"n{number}")
        told = (await at.polled("3 firing"))[:-1]
        assert [each.urgent for each in told] == [*(len(told) - 1) * [False], True]


async def test_what_nobody_need_be_called_for_is_quiet_also_among_what_calls(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Group", "full", severity="warning", instance="a")
        await at.peer.fire("Group", "a note", severity="info", instance="b")
        news = [each for each in await at.polled("2 firing") if each.text]
        assert sorted(("a note" in each.text, each.urgent) for each in news) == [(False, True), (True, False)]


async def test_a_webhook_that_could_not_be_kept_comes_again(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        at.says.append(503)
        await at.peer.fire("Hot", "too hot")
        await at.pushed("1 firing")
        assert at.says == []


async def test_what_ends_while_the_bridge_is_down_is_noticed_with_the_value_it_had(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot", value="97 °C")
        await at.polled("1 firing")
        at.plugin._fired.clear()  # as after a start
        await at.peer.resolve("Hot")
        told = await at.polled("resolved")
        assert shown(told[0])["value"] == "n1 97 °C"


async def test_what_a_server_that_was_started_again_does_not_know_yet_is_not_called_resolved(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        for instance in ("n1", "n2"):
            await at.peer.fire("Hot", "Too hot", instance)
        await at.polled("2 firing")
        await at.peer.stop()
        await at.peer.start()
        assert await at.news() == []
        await at.peer.fire("Hot", "Too hot", "n1")

        async def n1() -> bool:
            return bool(await at.peer.call("GET", "alerts/groups"))

        await until(n1, "the first of them there again")
        assert await at.news() == []
        await at.peer.fire("Hot", "Too hot", "n2")
        await at.peer.fire("Hot", "Too hot", "n3")
        await at.polled("3 firing")


async def test_a_silence_is_made_once_changed_and_ended(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot")
        item = (await at.polled("1 firing"))[0].item
        for _ in range(2):
            fields = await at.ask(item, "silence", "2h roof works")
        assert re.fullmatch(r"silenced until [\d: -]+ UTC by Alice Martin: roof works", fields["state"])
        [made] = await at.peer.silences()
        assert made["createdBy"] == "Alice Martin"
        length = datetime.fromisoformat(made["endsAt"]).timestamp() - time.time()
        assert 7100 < length <= 7200
        assert {each["name"]: each["value"] for each in made["matchers"]} == {"alertname": "Hot", "service": "shop"}
        assert shown((await at.polled("silenced"))[0]) == fields
        await at.ask(item, "ack", "I am looking")
        [acked] = await at.peer.silences()
        assert acked["comment"].startswith("ACK! I am looking")
        assert acked["endsAt"] == made["endsAt"]
        assert (await at.ask(item, "silence", "off"))["state"] == "1 firing"
        assert await at.peer.silences() == []


@pytest.mark.parametrize(("span", "left", "length"), [("2h", 115, 115), ("2h", 10, 120), ("10m", 4, 10)])
async def test_the_same_silence_again_is_a_retry_at_first_and_later_holds_anew(
    tmp_path: Path, span: str, left: int, length: int
) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot")
        item = (await at.polled("1 firing"))[0].item
        await at.ask(item, "silence", f"{span} roof works")
        [made] = await at.peer.silences()
        await mute(at.peer, timedelta(minutes=left), id=made["id"], comment=made["comment"])
        await at.ask(item, "silence", f"{span} roof works")
        [longer] = await at.peer.silences()
        assert 0 < datetime.fromisoformat(longer["endsAt"]).timestamp() - time.time() - (length - 1) * 60 <= 60


async def test_a_silence_whose_answer_was_lost_is_not_made_twice(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        await at.peer.fire("Hot", "too hot")
        item = (await at.polled("1 firing"))[0].item
        at.proxy.faults.append(Fault("cut", method="POST", times=1))
        with pytest.raises(Unconfirmed):
            await at.ask(item, "silence", "2h roof works")
        await at.ask(item, "silence", "2h roof works")
        assert len(await at.peer.silences()) == 1


@pytest.mark.parametrize("value", ["roof", "2h", "0m roof", "5w roof", "2 hours", "-2h roof"])
async def test_a_silence_without_an_end_or_a_reason_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(Rejected, match="silence 2h reason"):
        await alone(tmp_path).change(Change("alert-000000000000", "silence", value, "", "Alice"))


async def test_basic_auth_is_taken_where_it_is_configured(tmp_path: Path) -> None:
    unconnected = alone(tmp_path, hook_username="am")
    body = b'{"receiver": "bridge", "groupLabels": {}, "alerts": []}'
    assert unconnected.parse(Request({"authorization": "Basic YW06aG9vay1zZWNyZXQ="}, body)) == []
    for wrong in ("Bearer hook-secret", "Basic YW06aG9vay1zZWNyZXR=", ""):
        with pytest.raises(Rejected, match="token"):
            unconnected.parse(Request({"authorization": wrong}, body))


async def test_the_check_names_a_receiver_that_is_not_there(tmp_path: Path) -> None:
    async with watch(tmp_path) as at:
        assert [each.ok for each in await at.plugin.check()] == [True]
        other = plugin(at.peer, at.peer.url, at.plugin.port, receivers=["day"])
        [finding] = await other.check()
        assert (finding.ok, "no receiver day" in finding.what) == (False, True)
        assert await at.peer.silences() == []


def test_the_example_is_whole_and_loads(tmp_path: Path) -> None:
    sample = yaml.safe_load((ROOT / "config" / "alertmanager.yaml").read_text())
    settings = example()
    settings["connectors"] |= sample["connectors"]
    settings["mappings"] += sample["mappings"]
    (tmp_path / "passerelle.yaml").write_text(yaml.safe_dump(settings))
    _, connectors = load(tmp_path / "passerelle.yaml", SECRETS | {"PASSERELLE_ALERTS_TOKEN": "alerts-secret"})
    kind, loaded = connectors[ALERTS]
    assert kind is Alertmanager
    assert "alerts-secret" not in repr(loaded)


def test_severities_that_call_nobody_may_be_written_in_capitals(tmp_path: Path) -> None:
    labels, start = {"alertname": "Hot", "severity": "Info"}, datetime.now(UTC).isoformat()
    alert = {"fingerprint": "ab", "labels": labels, "startsAt": start}
    body = json.dumps({"receiver": RECEIVER, "groupLabels": {"alertname": "Hot"}, "alerts": [alert]}).encode()
    asked = Request({"authorization": f"Bearer {TOKEN}"}, body)
    assert [each.urgent for each in alone(tmp_path, quiet=["Info"]).parse(asked)] == [False, False]
    assert [each.urgent for each in alone(tmp_path, quiet=["none"]).parse(asked)] == [True, False]
