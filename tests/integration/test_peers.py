"""The peers that the other tests lean on do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import aiohttp
import aiosmtplib
import psutil
import pytest
from aiohttp import web

from bridge.config import Config, load
from tests.conftest import Company, company_with
from tests.peers import ROOT, free_port, until
from tests.peers.bridge import BridgeProcess, configuration, running_bridge, write
from tests.peers.certificate import Certificate
from tests.peers.employee import Employee, body, relation
from tests.peers.faults import Proxy
from tests.peers.instant import Instant
from tests.peers.synapse import Registration, Synapse
from tests.peers.world import Sink, letter, post

Pair = tuple[Employee, Employee]


async def test_employees_hear_each_other_in_a_thread(employees: Pair) -> None:
    alice, bob = employees
    room = await alice.create_room("Talk", invite=[bob.mxid])
    await bob.see_invite(room)
    await bob.join(room)
    root = await alice.say(room, "What about the order?")
    first = await bob.say(room, "It has left.", thread=root)
    await bob.see(room, "It has left.")
    last = await bob.say(room, "Yesterday.", thread=root)
    heard = await alice.see(room, "Yesterday.")
    assert heard["event_id"] == last
    assert relation(heard) == {
        "rel_type": "m.thread",
        "event_id": root,
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": first},
    }
    assert [body(each) for each in alice.thread(room, root)] == ["What about the order?", "It has left.", "Yesterday."]


async def test_employees_react_edit_redact_and_share_files(employees: Pair) -> None:
    alice, bob = employees
    room = await alice.create_room("Talk", invite=[bob.mxid])
    await bob.join(room)
    said = await alice.say(room, "Helo", html="<b>Helo</b>", mentions=[bob.mxid])
    await bob.react(room, said, "👀")
    await alice.edit(room, said, "Hello")
    file = await alice.upload_file(room, "note.txt", b"a note", "text/plain", thread=said)
    gone = await alice.say(room, "oops")
    await bob.see(room, "oops")
    await alice.redact(room, gone)
    assert body(await bob.see(room, lambda event: relation(event).get("rel_type") == "m.replace")) == "Hello"
    await alice.see(room, lambda event: event["type"] == "m.reaction")
    assert alice.reactions(room, said) == [(bob.mxid, "👀")]
    shown = await bob.see(room, lambda event: event["event_id"] == file)
    assert await bob.download(shown["content"]["url"]) == b"a note"
    await bob.see(room, lambda event: event["type"] == "m.room.redaction")
    assert [event["content"] for event in bob.timeline(room) if event["event_id"] == gone] == [{}]


async def test_an_employee_who_waits_in_vain_says_what_was_seen(employees: Pair) -> None:
    alice, _ = employees
    room = await alice.create_room("Quiet")
    await alice.say(room, "something else")
    with pytest.raises(AssertionError, match="something else"):
        await alice.see(room, "never said", timeout=0.5)


async def test_employees_and_events_outlive_a_homeserver_that_is_killed(tmp_path: Path) -> None:
    registration = Registration(f"http://127.0.0.1:{free_port()}")
    async with Synapse(tmp_path, registration) as homeserver, contextlib.AsyncExitStack() as stack:
        accounts = [await homeserver.register(name, "pw") for name in ("alice", "bob")]
        people = [Employee(homeserver.url, each.mxid, "", each.device, each.token) for each in accounts]
        alice, bob = [await stack.enter_async_context(each) for each in people]
        room = await alice.create_room("Talk", invite=[bob.mxid])
        await bob.join(room)
        await alice.say(room, "before")
        await bob.see(room, "before")
        homeserver.kill()
        await homeserver.start()
        await bob.say(room, "after")
        await alice.see(room, "after")


async def test_a_space_holds_its_rooms(employees: Pair) -> None:
    alice, _ = employees
    room = await alice.create_room("Support")
    space = await alice.create_space("Company", rooms=[room])
    child = await alice.see(space, lambda event: event["type"] == "m.space.child")
    assert child["state_key"] == room


async def test_the_homeserver_pushes_events_to_the_bridges_port(
    employees: Pair, synapse: Synapse, bridge_port: int
) -> None:
    alice, _ = employees
    pushed: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def transaction(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {synapse.registration.hs_token}"
        for event in (await request.json())["events"]:
            pushed.put_nowait(event)
        return web.json_response({})

    async with _listening(bridge_port, transaction):
        room = await alice.create_room("Work", invite=[f"@passerelle:{synapse.server_name}"])
        assert await synapse.ping_appservice()
        async with asyncio.timeout(120):  # earlier tests may have left it in its back-off
            while (event := await pushed.get())["type"] != "m.room.member" or event["room_id"] != room:
                pass


@contextlib.asynccontextmanager
async def _listening(port: int, transaction: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[None]:
    """The least that a homeserver takes for an application service."""
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_put("/_matrix/app/v1/transactions/{txn}", transaction)
    app.router.add_post("/_matrix/app/v1/ping", _nothing)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _nothing(request: web.Request) -> web.Response:
    return web.json_response({})


async def test_the_sink_keeps_what_it_gets(sink: Sink) -> None:
    mail = letter(
        to="dave@outside.example",
        subject="Grüße",
        html="<p>Hi</p>",
        references=["<a-very-long-message-id-that-would-be-folded-and-encoded-elsewhere@outside.example>", "<b@x>"],
        attachments=[("a.txt", b"text", "text/plain")],
    )
    await post(sink.host, sink.port, "carol@outside.example", ["dave@outside.example"], mail)
    kept = await sink.wait_for(lambda each: "Grüße" in each["Subject"])
    assert (kept.sender, kept.recipients) == ("carol@outside.example", ("dave@outside.example",))
    assert kept.html.strip() == "<p>Hi</p>"
    assert kept.files == {"a.txt": b"text"}
    assert kept.raw("References").split() == str(mail["References"]).split()


async def test_the_sink_refuses_at_the_stage_it_is_told_to(sink: Sink) -> None:
    async def send() -> str:
        return await post(sink.host, sink.port, "carol@outside.example", ["dave@outside.example"], letter())

    sink.faults.add("banner", "421 4.3.2 closing")
    with pytest.raises(aiosmtplib.SMTPConnectResponseError):
        await send()
    sink.faults.add("mail", "451 4.3.0 later")
    with pytest.raises(aiosmtplib.SMTPSenderRefused, match="later"):
        await send()
    sink.faults.add("rcpt", "550 5.1.1 nobody", when=lambda session, envelope, argument: "dave" in argument)
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await send()
    for stage in ("ehlo", "data", "after-data"):
        sink.faults.add(stage, "554 5.7.1 no", times=2)  # who is refused at EHLO tries HELO
        with pytest.raises(aiosmtplib.SMTPResponseException, match="no"):
            await send()
        sink.faults.clear()
    assert not sink.mails
    assert (await send()).startswith("2.0.0")


async def test_a_cut_after_the_data_leaves_the_sender_in_doubt(sink: Sink) -> None:
    sink.faults.add("after-data", cut=True)
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await post(sink.host, sink.port, "carol@outside.example", ["dave@outside.example"], letter())
    assert [mail.answered for mail in sink.mails] == [False]


async def test_a_sink_that_is_down_refuses_and_comes_back_on_its_port(sink: Sink) -> None:
    await sink.stop()
    with pytest.raises(aiosmtplib.SMTPConnectError):
        await post(sink.host, sink.port, "a@x.example", ["b@x.example"], letter())
    await sink.start()
    await post(sink.host, sink.port, "a@x.example", ["b@x.example"], letter())
    assert len(sink.mails) == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_sink_with_a_login_wants_an_encrypted_one(tmp_path: Path, security: Literal["starttls", "tls"]) -> None:
    certificate = Certificate.make(tmp_path)
    async with Sink(security=security, certificate=certificate, login=("bridge", "pw")) as sink:
        with pytest.raises(aiosmtplib.SMTPException):
            await post(sink.host, sink.port, "a@x.example", ["b@x.example"], letter(), timeout=2)
        client = aiosmtplib.SMTP(
            hostname="localhost",
            port=sink.port,
            start_tls=security == "starttls",
            use_tls=security == "tls",
            tls_context=_trusting(certificate),
        )
        async with client:
            with pytest.raises(aiosmtplib.SMTPAuthenticationError):
                await client.login("bridge", "wrong")
            await client.login("bridge", "pw")
            await client.sendmail("a@x.example", ["b@x.example"], letter().as_bytes())
        assert [(mail.tls, mail.login) for mail in sink.mails] == [(True, "bridge")]


def _trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.file))


async def test_the_proxy_passes_on_counts_and_fails_on_demand(employees: Pair, synapse: Synapse) -> None:
    alice, _ = employees
    room = await alice.create_room("Behind the proxy")
    async with Proxy(synapse.url) as proxy, aiohttp.ClientSession(headers=_bearer(alice)) as http:
        path = f"{proxy.url}/_matrix/client/v3/rooms/{room}/send/m.room.message"

        async def send(txn: str) -> tuple[int, dict[str, Any]]:
            async with http.put(f"{path}/{txn}", json={"msgtype": "m.text", "body": txn}) as answer:
                return answer.status, await answer.json()

        proxy.add(429, "/_matrix/client/v3/rooms", method="PUT", times=1, retry_after=0.5)
        status, said = await send("one")
        assert (status, said["retry_after_ms"]) == (429, 500)
        status, said = await send("one")
        assert (status, (await alice.see(room, "one"))["event_id"]) == (200, said["event_id"])
        for kind in ("refuse", "cut"):
            proxy.add(kind, contains="/send/", times=2)  # aiohttp itself repeats a PUT that was hung up on, once
            with pytest.raises(aiohttp.ClientConnectionError):
                await send(kind)
        await alice.see(room, "cut")
        assert proxy.struck == {"429": 1, "refuse": 2, "cut": 2}
        assert proxy.requests["PUT send"] >= 4
        assert "refuse" not in [body(event) for event in alice.timeline(room)]
        await proxy.down()
        with pytest.raises(aiohttp.ClientConnectorError):
            await send("nobody home")
        await proxy.up()
        assert (await send("home"))[0] == 200


async def test_the_proxy_streams_files_both_ways(employees: Pair, synapse: Synapse) -> None:
    alice, _ = employees
    data = random.Random(1).randbytes(3_000_000)
    async with Proxy(synapse.url) as proxy, aiohttp.ClientSession(headers=_bearer(alice)) as http:
        async with http.post(f"{proxy.url}/_matrix/media/v3/upload", data=data) as answer:
            mxc = (await answer.json())["content_uri"]
        media = mxc.removeprefix("mxc://")
        async with http.get(f"{proxy.url}/_matrix/client/v1/media/download/{media}") as answer:
            assert await answer.read() == data


def _bearer(employee: Employee) -> dict[str, str]:
    return {"Authorization": f"Bearer {employee.client.access_token}"}


async def test_the_instant_homeserver_remembers_a_transaction_id(instant: Instant) -> None:
    path = f"{instant.url}/_matrix/client/v3/rooms/!r:company.example/send/m.room.message/txn"
    async with aiohttp.ClientSession() as http:
        ids = []
        for _ in range(2):
            async with http.put(path, json={"body": "hi"}, params={"user_id": "@_passerelle_x:company.example"}) as yes:
                ids.append((await yes.json())["event_id"])
    assert len(set(ids)) == 1
    assert [send["content"] for send in await instant.sends()] == [{"body": "hi"}]
    assert (await instant.statistics())["repeats"] == 1


async def test_the_instant_homeserver_pushes_until_the_bridge_says_yes(instant: Instant) -> None:
    seen: list[str] = []

    async def transaction(request: web.Request) -> web.Response:
        seen.extend(event["content"]["body"] for event in (await request.json())["events"])
        return web.json_response({}, status=200 if len(seen) > 1 else 500)

    event = {"room_id": "!r:company.example", "sender": "@alice:company.example", "content": {"body": "hi"}}
    async with _listening(int(instant.bridge.rpartition(":")[2]), transaction):
        await instant.push(event)

        async def taken() -> list[Any]:
            return await instant.acknowledged()

        assert len(await until(taken, "the acknowledgement")) == 1
    assert seen == ["hi", "hi"]


@pytest.fixture
async def instant(tmp_path: Path) -> AsyncIterator[Instant]:
    async with Instant(tmp_path, f"http://127.0.0.1:{free_port()}") as running:
        yield running


async def test_a_bridge_process_is_ready_when_it_says_so_and_ends_when_told(tmp_path: Path) -> None:
    config = write(tmp_path / "passerelle.yaml", {"appservice": {"listen": f"127.0.0.1:{free_port()}"}})
    bridge = BridgeProcess(config, fresh=True)
    port = bridge.url.rpartition(":")[2]
    bridge.child.command = [sys.executable, "-c", READY, port]
    async with bridge:
        assert bridge.running
        bridge.kill()
        assert not bridge.running
        await bridge.start()
        assert await bridge.stop() == -signal.SIGTERM
    bridge.child.command = [sys.executable, "-c", "raise SystemExit('no such file')"]
    with pytest.raises(RuntimeError, match="no such file"):
        await bridge.start()


READY = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Yes(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Yes).serve_forever()
"""


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    parent = f"""
import pathlib, sys, time
from tests.peers import Child
child = Child(["sleep", "600"], pathlib.Path("."), pathlib.Path({str(tmp_path / "log")!r}))
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive


def test_the_companys_configuration_is_one_the_bridge_reads(tmp_path: Path) -> None:
    registration = Registration("http://127.0.0.1:29400")
    made = configuration(
        "http://127.0.0.1:8008",
        registration,
        "127.0.0.1:29400",
        smtp="127.0.0.1:2525",
        smarthost=("127.0.0.1", 25),
        rooms={"support@company.example": "!room"},
        data=tmp_path,
        overrides={"outward": {"max_size": 2000}},
    )
    assert made["outward"] == {"hold": 0.5, "max_size": 2000}
    config = Config.model_validate(made)
    assert config.is_ours("@passerelle:company.example")


async def test_a_companys_bridge_is_killed_and_goes_on(company: Company) -> None:
    assert company.bridge.running
    company.bridge.kill()
    assert not company.bridge.running
    await company.bridge.start()
    assert await company.bridge.stop() == 0


@company_with(bridge=False, outward={"hold": 7})
async def test_a_company_has_the_configuration_that_its_test_asks_for(company: Company) -> None:
    assert not company.bridge.running
    assert load(company.bridge.config)[0].outward.hold == 7


@company_with(bridge=False)
async def test_the_command_line_starts_the_bridge(company: Company) -> None:
    async with BridgeProcess(company.bridge.config, fresh=True) as bridge:
        assert bridge.running
    assert await bridge.stop() == 0


@company_with(bridge=False)
async def test_the_bridge_runs_in_a_tests_own_loop(company: Company) -> None:
    async with running_bridge(company.bridge.config) as bridge:
        assert bridge.config.bot_mxid == company.bot


async def test_a_new_employee_joins_the_room(company: Company) -> None:
    carl = await company.hire("carl")
    await company.alice.invite(company.room, carl.mxid)
    await carl.see_invite(company.room)
    await carl.join(company.room)
    assert carl.mxid in await company.alice.members(company.room)
