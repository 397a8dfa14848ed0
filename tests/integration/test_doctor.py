"""`passerelle init` and `passerelle doctor` on a real company: what init wrote is accepted, what breaks is told."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from bridge.cli import ask, main
from bridge.config import load
from bridge.connector import Connector, ConnectorConfig
from bridge.doctor import Line, examine, tools
from bridge.http import new_session
from bridge.model import Finding
from tests.peers import Child, free_port, until
from tests.peers.bridge import BridgeProcess, Forked, merged, write
from tests.peers.certificate import Certificate
from tests.peers.employee import Employee
from tests.peers.roundup import BRIDGE, Roundup
from tests.peers.synapse import Registration, Synapse
from tests.peers.world import Sink

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER = "company.example"
BOT = f"@passerelle:{SERVER}"
SUPPORT = f"#support:{SERVER}"


@dataclass
class Firm:
    """A company that an admin set up with `init`, on a homeserver of its own."""

    folder: Path
    synapse: Synapse
    sink: Sink
    desk: Roundup
    alice: Employee
    room: str
    bridge: BridgeProcess

    @property
    def path(self) -> Path:
        return self.bridge.config

    @property
    def settings(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load(self.path.read_text())
        return loaded

    async def up(self) -> None:
        if not self.bridge.running:
            await self.bridge.start()

    async def down(self) -> None:
        await self.bridge.stop()

    def changed(self, **changes: Any) -> Path:
        """Another configuration beside the firm's own, on its data unless told otherwise."""
        settings = merged(self.settings | {"data": str(self.folder / "data")}, changes)
        place = self.folder / f"changed{len(list(self.folder.glob('changed*')))}"
        return write(place / "passerelle.yaml", settings)

    async def as_bot(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        token = self.settings["appservice"]["as_token"]
        url = f"{self.synapse.url}/_matrix/client/v3/{path}"
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, url, params={"user_id": BOT} | query, json=body or {}) as answer,
        ):
            assert answer.ok, await answer.text()
            return await answer.json()


def initialised(folder: Path, *flags: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["init", "--folder", str(folder), "--server-name", SERVER, *flags])
    assert ended.value.code == 0


def slow_one(folder: Path) -> Path:
    """A second application service on the homeserver, for which limits were not lifted."""
    paper = (folder / "registration.yaml").read_text().replace("passerelle", "slow")
    paper = re.sub(r"'([0-9a-f]{64})'", r"'slow\1'", paper).replace("rate_limited: false", "rate_limited: true")
    (folder / "slow.yaml").write_text(paper)
    return folder / "slow.yaml"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def firm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Firm]:
    folder = tmp_path_factory.mktemp("firm")
    homeserver, listen = free_port(), free_port()
    async with contextlib.AsyncExitStack() as stack:
        sink = await stack.enter_async_context(Sink())
        desk = await stack.enter_async_context(Roundup(folder / "desk"))
        initialised(
            folder, "--homeserver", f"http://127.0.0.1:{homeserver}", "--address", f"http://127.0.0.1:{listen}",
            "--management-room", f"#ops:{SERVER}", "--room", SUPPORT, "--mail-listen", f"127.0.0.1:{free_port()}",
            "--smarthost", f"127.0.0.1:{sink.port}",
        )  # fmt: skip
        papers = [str(folder / "registration.yaml"), str(slow_one(folder))]
        synapse = Synapse(
            folder / "synapse", Registration("unused"), homeserver, settings={"app_service_config_files": papers}
        )
        await stack.enter_async_context(synapse)
        account = await synapse.register("alice", "alice-secret")
        alice = await stack.enter_async_context(
            Employee(synapse.url, account.mxid, account.password, account.device, account.token)
        )
        room = await alice.create_room("Support", invite=[BOT], powers={BOT: 50}, alias="support")
        await alice.create_room("Ops", invite=[BOT], alias="ops")
        helpdesk = {"plugin": "roundup", "url": desk.url, "username": BRIDGE, "password": desk.password(BRIDGE)}
        mapped = {"connector": "helpdesk", "scope": "issue", "room": SUPPORT}
        settings = yaml.safe_load((folder / "passerelle.yaml").read_text())
        more = {"connectors": {"helpdesk": helpdesk}, "mappings": [*settings["mappings"], mapped]}
        bridge = BridgeProcess(write(folder / "passerelle.yaml", merged(settings, more)))
        stack.push_async_callback(bridge.stop)
        yield Firm(folder, synapse, sink, desk, alice, room, bridge)


async def examined(path: Path, paper: Path | None = None) -> list[Line]:
    settings, connectors = load(path)
    async with ask.running(settings) as running:
        return [line async for line in examine(settings, connectors, running, paper)]


async def only_trouble(path: Path, paper: Path | None = None) -> Line:
    """The one thing that is wrong; it has a remedy."""
    found = [line for line in await examined(path, paper) if line.state == "trouble"]
    assert len(found) == 1, found
    assert found[0].remedy
    return found[0]


async def spoken(firm: Firm, *more: str, config: Path | None = None) -> tuple[int, str]:
    """What an admin sees in the terminal, and the exit status."""
    log = firm.folder / f"doctor{len(list(firm.folder.glob('doctor*')))}"
    doctor = Forked(["doctor", "--config", str(config or firm.path), *more], firm.folder, log)
    doctor.start()
    await until(lambda: _ended(doctor), "the doctor's end")
    return await doctor.stop(), log.read_text()


async def _ended(child: Child) -> bool:
    return not child.running


# --- a healthy company


async def test_before_the_first_start_all_is_well_and_what_comes_later_is_told(firm: Firm) -> None:
    lines = await examined(firm.path, firm.folder / "registration.yaml")
    assert [line for line in lines if line.state == "trouble"] == []
    told = {(line.about, line.state) for line in lines}
    for expected in (
        ("registration file", "ok"), ("registration", "ok"), ("ping", "ok"), ("ports", "ok"), ("data folder", "ok"),
        ("mail", "ok"), ("helpdesk", "ok"), ("clock", "ok"), ("bridge", "note"), ("bot", "note"), ("rooms", "note"),
    ):  # fmt: skip
        assert expected in told


async def test_a_healthy_company_is_all_well_while_its_bridge_runs(firm: Firm) -> None:
    await firm.up()
    status, said = await spoken(firm)
    assert status == 0, said
    assert "!!" not in said
    assert "ok  bridge: runs and is ready" in said
    assert "ok  rate limits: " in said
    assert f"ok  room {SUPPORT}: {BOT} is there, with the rights it needs" in said
    assert "a running bridge takes mail on" in said
    assert said.endswith("All is well.\n")


async def test_and_when_it_is_down_it_is_all_well_too_and_a_program_can_read_it(firm: Firm) -> None:
    await firm.up()
    await firm.down()
    status, said = await spoken(firm, "--json")
    lines = [json.loads(line) for line in said.splitlines()]
    assert status == 0, said
    assert {line["state"] for line in lines} == {"ok", "note"}
    assert {"database", "spool", "disk", "ping", "ports", "helpdesk"} <= {line["about"] for line in lines}
    assert not any(line["remedy"] for line in lines if line["state"] == "ok")


async def test_it_takes_a_moment_only(firm: Firm) -> None:
    begun = time.monotonic()
    await examined(firm.path)
    assert time.monotonic() - begun < 10  # a second when nothing else runs


# --- the homeserver and the registration


async def test_a_token_that_the_homeserver_does_not_know_is_told(firm: Firm) -> None:
    await firm.down()
    found = await only_trouble(firm.changed(appservice={"as_token": "wrong-4711"}))
    assert found.what.startswith("the homeserver does not know our as_token: 401 M_UNKNOWN_TOKEN")
    assert "restart the homeserver" in found.remedy
    assert "4711" not in found.what + found.remedy


async def test_a_homeserver_that_comes_with_another_token_is_told(firm: Firm) -> None:
    await firm.down()
    found = await only_trouble(firm.changed(appservice={"hs_token": "wrong-4711"}))
    assert found.about == "ping"
    assert "another hs_token" in found.what


async def test_a_running_bridge_with_another_hs_token_is_told(firm: Firm) -> None:
    await firm.down()
    path = firm.changed(appservice={"hs_token": "wrong-4711"}, data=str(firm.folder / "other-data"))
    bridge = BridgeProcess(path)
    await bridge.start(wait=False)
    try:
        async with asyncio.timeout(60):
            while not any(line.about == "ports" and line.state == "ok" for line in await examined(path)):
                await asyncio.sleep(0.1)
        found = [line for line in await examined(path) if line.about == "ping"]
        assert "another hs_token" in found[0].what
    finally:
        await bridge.stop()


async def test_a_homeserver_that_cannot_reach_us_is_told(firm: Firm) -> None:
    await firm.down()
    found = await only_trouble(firm.changed(appservice={"listen": f"127.0.0.1:{free_port()}"}))
    assert found.what.startswith("the homeserver cannot reach us: 502 M_CONNECTION_FAILED")
    assert "`url` must lead" in found.remedy


async def test_something_else_behind_the_registrations_url_is_told(firm: Firm) -> None:
    await firm.down()

    async def yes(_: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", yes)
    runner = web.AppRunner(app)
    await runner.setup()
    host, port = firm.settings["appservice"]["listen"].split(":")
    await web.TCPSite(runner, host, int(port)).start()
    try:
        elsewhere = firm.changed(appservice={"listen": f"127.0.0.1:{free_port()}"})
        assert "something else answers" in (await only_trouble(elsewhere)).what
        taken = await only_trouble(firm.path)
        assert taken.about == "ports"
        assert "address already in use" in taken.what
        assert f":{port}" in taken.remedy
    finally:
        await runner.cleanup()


async def test_another_id_than_the_registrations_is_told(firm: Firm) -> None:
    await firm.down()
    assert "another id than other" in (await only_trouble(firm.changed(appservice={"id": "other"}))).what


async def test_limits_that_were_not_lifted_are_told(firm: Firm) -> None:
    await firm.down()
    paper = yaml.safe_load((firm.folder / "slow.yaml").read_text())
    service = {key: paper[key] for key in ("id", "as_token", "hs_token")} | {"bot": "slow", "ghosts": "_slow_"}
    path = firm.changed(appservice=service, mappings=[], management_room="")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {paper['as_token']}"}) as http:
        body = {"type": "m.login.application_service", "username": "slow", "inhibit_login": True}
        async with http.post(f"{firm.synapse.url}/_matrix/client/v3/register", json=body) as answer:
            assert answer.status == 200
        url = f"{firm.synapse.url}/_matrix/client/v3/devices/PASSERELLE"
        async with http.put(url, params={"user_id": f"@slow:{SERVER}"}, json={}) as answer:
            assert answer.ok
    found = await only_trouble(path)
    assert found.about == "rate limits"
    assert "rate_limited: false" in found.remedy
    in_file = [line.what for line in await examined(path, firm.folder / "slow.yaml") if line.state == "trouble"]
    assert any("rate_limited must be false" in what for what in in_file)


async def test_names_that_the_registration_does_not_give_us_are_told(firm: Firm) -> None:
    await firm.down()
    found = await only_trouble(firm.changed(appservice={"ghosts": "_other_"}))
    assert found.what == "the registration does not give us the names of ghosts"
    assert r"@_other_.*:company\.example" in found.remedy


async def test_another_server_name_is_told(firm: Firm) -> None:
    await firm.down()
    found = await only_trouble(firm.changed(homeserver={"server_name": "other.example"}))
    assert found.what == "its server_name is company.example, not other.example"


async def test_a_registration_file_that_differs_is_told_by_its_lines(firm: Firm, tmp_path: Path) -> None:
    paper = tmp_path / "registration.yaml"
    text = (firm.folder / "registration.yaml").read_text()
    paper.write_text(text.replace("id: passerelle", "id: other").replace("msc4190: true", "msc4190: false"))
    paper.chmod(0o644)
    lines = [line for line in await examined(firm.path, paper) if line.about == "registration file"]
    assert [line.state for line in lines] == ["trouble", "trouble", "note"]
    assert re.match(r"registration\.yaml line \d+: id is not passerelle", lines[0].what)
    assert "io.element.msc4190 must be true" in lines[1].what
    assert lines[2].remedy.startswith("chmod")


async def test_a_homeserver_that_does_not_answer_is_told(firm: Firm) -> None:
    found = await only_trouble(firm.changed(homeserver={"url": f"http://127.0.0.1:{free_port()}"}))
    assert "Connection refused" in found.what
    assert "curl" in found.remedy


async def test_a_clock_that_goes_wrong_is_told(firm: Firm) -> None:
    async def versions(_: web.Request) -> web.Response:
        return web.json_response({"versions": ["v1.12"]}, headers={"Date": "Sun, 06 Nov 1994 08:49:37 GMT"})

    app = web.Application()
    app.router.add_get("/_matrix/client/versions", versions)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        lines = await examined(firm.changed(homeserver={"url": f"http://127.0.0.1:{port}"}))
        assert [line.what for line in lines if line.about == "clock" and line.state == "trouble"]
    finally:
        await runner.cleanup()


# --- rooms


async def test_rooms_where_something_is_missing_are_told(firm: Firm) -> None:
    await firm.up()
    await firm.down()
    cipher = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    away = await firm.alice.create_room("Away")
    weak = await firm.alice.create_room("Weak", invite=[BOT])
    secret = await firm.alice.create_room("Secret", invite=[BOT], powers={BOT: 50}, state=[cipher])
    invited = await firm.alice.create_room("Invited", invite=[BOT])
    kicked = await firm.alice.create_room("Kicked", invite=[BOT])
    for room in (weak, secret, kicked):
        await firm.as_bot("POST", f"join/{room}")
    await firm.alice.client.room_kick(kicked, BOT)
    power = dict(await firm.as_bot("GET", f"rooms/{weak}/state/m.room.power_levels")) | {"invite": 50}
    await firm.alice.put_state(weak, "m.room.power_levels", power)
    rooms = [away, weak, secret, invited, kicked, f"#nowhere:{SERVER}"]
    mappings = [{"connector": "mail", "scope": f"support@{SERVER}", "room": room} for room in rooms]
    found = await examined(firm.changed(mappings=mappings))
    lines = {line.about: line for line in reversed(found)}
    assert lines[f"room {away}"].what == f"{BOT} is not in the room"
    assert lines[f"room {kicked}"].remedy == f"invite it there: /invite {BOT}"
    assert lines[f"room {weak}"].what.startswith("a right is missing: for the bot to invite")
    assert "is encrypted" in lines[f"room {secret}"].what
    assert lines[f"room {invited}"].state == "ok"
    assert lines[f"room #nowhere:{SERVER}"].what.startswith("no room has this alias: 404")


async def test_what_no_room_takes_is_told(firm: Firm) -> None:
    invoices = {"connector": "mail", "scope": f"support@{SERVER}", "room": SUPPORT, "only": {"subject": "*invoice*"}}
    found = await examined(firm.changed(mappings=[invoices]))
    told = [line.what for line in found if (line.about, line.state) == ("mappings", "note")]
    assert told == [
        "nothing of connector helpdesk is mapped to a room",
        f"what fits no filter of support@{SERVER} (mail) is refused: every mapping of it has one",
    ]


# --- this host


async def test_a_data_folder_that_others_may_enter_or_have_is_told(firm: Firm) -> None:
    await firm.up()
    await firm.down()
    data = firm.folder / "data"
    data.chmod(0o755)
    try:
        found = await only_trouble(firm.path)
        assert found.what == f"others may enter {data} (mode 0755)"
        assert found.remedy == f"chmod 0700 {data}"
    finally:
        data.chmod(0o700)
    with (data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process has it" in (await only_trouble(firm.path)).what


async def test_a_spool_that_cannot_be_written_and_a_database_that_is_damaged_are_told(firm: Firm) -> None:
    await firm.up()
    await firm.down()
    copy = firm.folder / "damaged"
    shutil.copytree(firm.folder / "data", copy, ignore=shutil.ignore_patterns("*.sock"))
    copy.chmod(0o700)
    shutil.rmtree(copy / "spool")
    (copy / "spool").write_text("a file")
    path = firm.changed(data=str(copy))
    assert (await only_trouble(path)).about == "spool"
    (copy / "spool").unlink()
    whole = (copy / "passerelle.db").read_bytes()
    (copy / "passerelle.db").write_bytes(whole[:8192] + b"\xff" * 4096 * 4 + whole[8192 + 4096 * 4 :])
    assert "damaged" in (found := await only_trouble(path)).what or "cannot be read" in found.what
    (copy / "passerelle.db").write_bytes(b"no database at all" * 500)
    assert "file is not a database" in (await only_trouble(path)).what


async def test_a_folder_that_cannot_be_made_is_told(firm: Firm) -> None:
    await firm.down()
    assert "cannot be made" in (await only_trouble(firm.changed(data=str(firm.path / "data")))).what


# --- tools


async def test_a_smarthost_that_refuses_our_login_or_shows_an_old_certificate_is_told(
    firm: Firm, tmp_path: Path
) -> None:
    await firm.down()
    login = {"security": "starttls", "username": "bridge", "password": "wrong-4711"}
    for expired, words in ((False, "535"), (True, "certificate has expired")):
        certificate = Certificate.make(tmp_path, expired=expired)
        async with Sink(security="starttls", certificate=certificate, login=("bridge", "right")) as server:
            there = {"host": "127.0.0.1", "port": server.port, "ca_file": str(certificate.file)} | login
            found = await only_trouble(firm.changed(connectors={"mail": {"smarthost": there}}))
        assert found.about == "mail"
        assert words in found.what
        assert "4711" not in found.what


async def test_a_tool_that_is_down_and_a_port_that_is_taken_are_told(firm: Firm) -> None:
    await firm.down()
    nobody = firm.changed(connectors={"helpdesk": {"url": f"http://127.0.0.1:{free_port()}/"}})
    assert (await only_trouble(nobody)).about == "helpdesk"
    host, port = firm.settings["connectors"]["mail"]["listen"].split(":")
    other = await asyncio.start_server(lambda _, writer: writer.close(), host, int(port))
    async with other:
        found = await only_trouble(firm.path)
    assert found.about == "mail"
    assert "address already in use" in found.what
    figures = f"127.0.0.1:{free_port()}"
    other = await asyncio.start_server(lambda _, writer: writer.close(), *figures.split(":"))
    async with other:
        found = await only_trouble(firm.changed(metrics={"listen": figures}))
    assert found.what == f"metrics cannot be had on {figures}: address already in use"


async def test_a_listener_that_speaks_tls_to_a_homeserver_that_does_not_is_told(firm: Firm, tmp_path: Path) -> None:
    await firm.down()
    certificate = Certificate.make(tmp_path)
    secure = {"certificate": str(certificate.file), "key": str(certificate.key)}
    assert (await only_trouble(firm.changed(appservice=secure))).about == "ping"


class Broken(Connector):
    """Fails as only a plugin under development does."""

    Config = ConnectorConfig

    async def check(self) -> list[Finding]:
        raise KeyError("as-secret-4711\x1b[2J")


class Small(Connector):
    async def check(self) -> list[Finding]:
        return [Finding(True, "answers", most=1_000_000)]


class Hanging(Connector):
    async def check(self) -> list[Finding]:
        await asyncio.Event().wait()
        return []


async def test_a_plugin_that_breaks_or_hangs_is_told_and_the_others_go_on(firm: Firm) -> None:
    settings, connectors = load(firm.changed(appservice={"as_token": "as-secret-4711"}))
    odd: Any = connectors | {"broken": (Broken, ConnectorConfig()), "hanging": (Hanging, ConnectorConfig())}
    odd |= {"small": (Small, ConnectorConfig())}
    lines = {line.about: line async for line in examine(settings, odd, None, None, patience=1.0)}
    assert re.fullmatch(r"its check broke: KeyError( \(\S+ \w+\))?", lines["broken"].what)
    assert lines["hanging"].what == "its check has not ended within 1 s"
    assert lines["small"].what == "answers; outward.max_size promises more: 25 MB"
    assert (lines["small"].state, lines["small"].remedy) == ("note", "set outward.max_size to 1000000 or less")
    assert lines["helpdesk"].state == "ok"


async def test_what_a_connector_sees_takes_nothing(firm: Firm) -> None:
    settings, _ = load(firm.path)
    async with new_session() as session:
        assert [line.state for line in await tools.checked("x", Connector, None, settings, session, 1)] == ["note"]


# --- the configuration


async def test_a_configuration_that_cannot_be_used_is_told_line_by_line(firm: Firm) -> None:
    path = firm.changed(language="de", outward={"holds": 3})
    status, said = await spoken(firm, config=path)
    assert status == 1
    assert re.search(r"!!  config: passerelle\.yaml line \d+: outward\.holds: .*did you mean hold\?", said)
    assert re.search(r"!!  config: passerelle\.yaml line \d+: language: ", said)
