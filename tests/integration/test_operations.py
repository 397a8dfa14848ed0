"""A bridge as an operator sees it: what it logs, what /live, /ready and /metrics say, what it tells systemd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import Company, company_with
from tests.e2e.leaking import JANE, Thread
from tests.e2e.looking import says
from tests.peers import free_port, until
from tests.peers.bridge import BridgeProcess, configuration, write
from tests.peers.instant import Instant
from tests.peers.secrets import CANARY
from tests.peers.synapse import Registration
from tests.peers.world import letter, post

ROOM, MAILBOX = "!support:company.example", "support@company.example"
SENDER = "carol@outside.example"
PASSWORD = "the-password-of-the-desk"


@dataclass
class Site:
    """A bridge process between a stand-in for the homeserver and people outside."""

    homeserver: Instant
    bridge: BridgeProcess
    metrics: str
    smtp: int

    async def mail(self, **fields: Any) -> str:
        """Somebody writes; returns our answer."""
        return await post("127.0.0.1", self.smtp, SENDER, [MAILBOX], letter(**fields))

    async def asked(self, url: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status, await answer.text()

    async def figure(self, name: str) -> float:
        _, text = await self.asked(f"http://{self.metrics}/metrics")
        return float(re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[0])

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.bridge.log_text().splitlines()]

    async def logged(self, message: str, **fields: Any) -> dict[str, Any]:
        """Wait for such a line of the log."""

        async def look() -> dict[str, Any] | None:
            wanted = fields | {"message": message}
            return next((each for each in self.log() if wanted.items() <= each.items()), None)

        return await until(look, f"the log to say {message}")


def configured(folder: Path, homeserver: Instant, listen: str, smtp: int, **more: Any) -> Path:
    config = configuration(
        homeserver.url, Registration(f"http://{listen}"), listen, smtp=f"127.0.0.1:{smtp}",
        smarthost=("127.0.0.1", free_port()), rooms={MAILBOX: ROOM}, data=folder / "data",
        overrides={"log": {"format": "json"}} | more,
    )  # fmt: skip
    return write(folder / "passerelle.yaml", config)


@contextlib.asynccontextmanager
async def site(folder: Path, wait: bool = True, **more: Any) -> AsyncIterator[Site]:
    listen, metrics, smtp = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", free_port()
    async with Instant(folder, f"http://{listen}") as homeserver:
        config = configured(folder, homeserver, listen, smtp, metrics={"listen": metrics}, **more)
        bridge = BridgeProcess(config)
        try:
            await bridge.start(wait)
            yield Site(homeserver, bridge, metrics, smtp)
        finally:
            await bridge.stop()


async def test_a_mail_is_followed_from_the_answer_its_sender_got_to_the_room(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        answer = await here.mail(subject=CANARY, body=f"{CANARY}\n")
        await here.homeserver.wait_for_sends(1)
        kept = answer.split()[-1]
        arrived = next(each for each in here.log() if each.get("arrival", "").startswith(kept))
        assert (arrived["message"], arrived["connector"]) == ("arrived", "mail")
        (uid,) = arrived["uids"]
        delivered = await here.logged("delivered", uid=uid)
        assert (delivered["destination"], delivered["conversation"]) == ("matrix", arrived["conversation"])
        assert 0 < delivered["seconds"] < 30
        assert await here.figure('passerelle_arrivals_total{connector="mail"}') == 1
        assert await here.figure('passerelle_deliveries_total{destination="matrix",outcome="delivered"}') >= 1
        assert await here.figure('passerelle_delivery_seconds_count{destination="matrix"}') >= 1
        assert await here.figure('passerelle_connector_up{connector="mail"}') == 1
        assert await here.figure("passerelle_homeserver_up") == 1
        assert await here.figure("passerelle_rooms") == 1
        status, _ = await here.asked(f"{here.bridge.url}/metrics")
        assert status == 404  # not where others can ask


async def test_ready_names_the_tool_that_is_down_and_live_does_not_mind(tmp_path: Path) -> None:
    desk = {
        "plugin": "roundup", "url": f"http://127.0.0.1:{free_port()}/tracker/", "username": "bridge",
        "password": PASSWORD, "every": 1,
    }  # fmt: skip
    mappings = [
        {"connector": "mail", "scope": MAILBOX, "room": ROOM},
        {"connector": "desk", "scope": "issue", "room": ROOM},
    ]
    async with site(tmp_path, wait=False, connectors={"desk": desk}, mappings=mappings) as here:

        async def named() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                status, text = await here.asked(f"{here.bridge.url}/ready")
                return status == 503 and json.loads(text) == {"ready": False, "trouble": ["desk"]}
            return False

        await until(named, "/ready to name the desk")
        assert await here.asked(f"{here.bridge.url}/live") == (200, '{"live": true}')
        assert await here.figure('passerelle_connector_up{connector="desk"}') == 0
        assert await here.figure('passerelle_connector_up{connector="mail"}') == 1
        line = next(each for each in here.log() if "cannot be polled" in each["message"])
        assert line["message"].startswith("desk cannot be polled: Unavailable: ")
        assert "kept as" in await here.mail()


async def test_ready_says_so_when_the_homeserver_is_gone(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.homeserver.__aexit__(None, None, None)
        assert "kept as" in await here.mail()

        async def named() -> bool:
            status, text = await here.asked(f"{here.bridge.url}/ready")
            return status == 503 and "matrix" in json.loads(text)["trouble"]

        await until(named, "/ready to name the homeserver")
        assert await here.figure("passerelle_homeserver_up") == 0
        waiting = await here.figure('passerelle_queue_rows{destination="matrix",state="ready"}')
        assert waiting >= 1  # the mail, and what the bridge itself may not have told the room yet


async def test_systemd_hears_when_the_bridge_is_ready_and_that_it_lives(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.setblocking(False)
        listen, smtp = f"127.0.0.1:{free_port()}", free_port()
        async with Instant(tmp_path, f"http://{listen}") as homeserver:
            environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
            bridge = BridgeProcess(configured(tmp_path, homeserver, listen, smtp), environment=environment)
            async with asyncio.timeout(60), bridge:
                heard = [(await asyncio.get_running_loop().sock_recv(systemd, 100)).decode() for _ in range(3)]
    assert heard == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]


@company_with(outward={"hold": 0.3}, log={"format": "json"})
async def test_an_answer_is_followed_by_one_id_from_the_wish_to_the_yes_of_the_smarthost(company: Company) -> None:
    await company.post(body=f"{CANARY}\n", sender=JANE)
    root = await company.alice.see(company.room, says(CANARY))
    thread = Thread(company, root["event_id"], company.room)
    asked = await thread.say(f"!reply {CANARY}, too")
    await thread.left(asked)

    async def noted() -> list[dict[str, Any]] | None:
        lines = [json.loads(line) for line in company.bridge.log_text().splitlines()]
        return lines if any(each["message"] == "delivered" and each["kind"] == "draft" for each in lines) else None

    lines = await until(noted, "the log to tell of the draft")
    (uid,) = {each["uid"] for each in lines if each["message"] == "draft"}
    story = [each for each in lines if each.get("uid") == uid]
    assert [each.get("state", each["message"]) for each in story] == ["asked", "held", "ready", "accepted", "delivered"]
    assert story[3]["reply"].startswith("250")
    assert story[4]["destination"] == "mail"
    (heard,) = [each for each in lines if each["message"] == "heard" and each["event"] == asked]
    assert uid in heard["uids"]
