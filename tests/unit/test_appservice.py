"""What the homeserver may ask of us and how we answer; what anybody may see; the admin socket's safety."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from bridge.cli.options import printable
from bridge.matrix.appservice import routes
from bridge.model import RoomEvent
from bridge.web.admin import LONGEST, bound, socket_of

TOKEN = "hs-secret-4711"
GOOD = {"Authorization": f"Bearer {TOKEN}"}
TRANSACTION = "/_matrix/app/v1/transactions/t1"
GHOST = "@_passerelle_jane:company.example"
QUERIES = [
    ("PUT", TRANSACTION),
    ("POST", "/_matrix/app/v1/ping"),
    ("GET", f"/_matrix/app/v1/users/{GHOST}"),
    ("GET", "/_matrix/app/v1/rooms/%23support:company.example"),
]


class Homeserver:
    """Asks the routes what a homeserver asks; remembers what was heard behind them."""

    def __init__(self) -> None:
        self.heard: list[RoomEvent] = []
        self.failure: Exception | None = None
        self.trouble: dict[str, str] = {}
        self.alive = True
        self.client: Any = None

    async def hear(self, events: list[RoomEvent]) -> None:
        if self.failure:
            raise self.failure
        self.heard += events

    async def lives(self) -> bool:
        return self.alive

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        async with self.client.request(method, path, headers=GOOD if headers is None else headers, **more) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def homeserver() -> AsyncIterator[Homeserver]:
    asking = Homeserver()
    app = routes(TOKEN, 100_000, asking.hear, lambda user: user == GHOST, lambda: asking.trouble, asking.lives)
    async with TestClient(TestServer(app)) as asking.client:
        yield asking


def said(number: int) -> dict[str, Any]:
    """A message as the homeserver pushes it."""
    content = {"msgtype": "m.text", "body": f"message {number}"}
    event = {"event_id": f"${number}", "room_id": "!r:company.example", "sender": "@ann:company.example"}
    return {**event, "type": "m.room.message", "content": content, "origin_server_ts": 1000 - number}


# --- who may ask


@pytest.mark.parametrize(("method", "path"), QUERIES)
async def test_without_a_token_nothing_is_answered(homeserver: Homeserver, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {TOKEN}"}):
        status, answer = await homeserver.ask(method, path, headers)
        assert (status, answer["errcode"]) == (401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(("method", "path"), QUERIES)
async def test_a_wrong_token_is_forbidden(homeserver: Homeserver, method: str, path: str) -> None:
    for wrong in ("something", TOKEN[:-1], TOKEN + "x", "clé"):
        status, answer = await homeserver.ask(method, path, {"Authorization": f"Bearer {wrong}"})
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(("method", "path"), QUERIES)
async def test_a_token_in_the_url_is_no_token(homeserver: Homeserver, method: str, path: str) -> None:
    status, _ = await homeserver.ask(method, path, {}, params={"access_token": TOKEN})
    assert status == 401


async def test_nothing_is_heard_from_who_may_not_ask(homeserver: Homeserver) -> None:
    await homeserver.ask("PUT", TRANSACTION, {}, json={"events": [said(1)]})
    await homeserver.ask("PUT", TRANSACTION, {"Authorization": "Bearer no"}, json={"events": [said(1)]})
    assert homeserver.heard == []


# --- transactions


async def test_events_are_heard_in_their_order(homeserver: Homeserver) -> None:
    events = [said(number) for number in (3, 1, 2)]
    assert await homeserver.ask("PUT", TRANSACTION, json={"events": events}) == (200, {})
    assert [event.id for event in homeserver.heard] == ["$3", "$1", "$2"]
    assert [event.body for event in homeserver.heard] == ["message 3", "message 1", "message 2"]


async def test_what_is_no_room_event_is_left_out_and_the_rest_is_heard(homeserver: Homeserver) -> None:
    events: list[Any] = [said(1), None, 7, "x", [], {"type": "m.typing"}, said(2)]
    assert await homeserver.ask("PUT", TRANSACTION, json={"events": events}) == (200, {})
    assert [event.id for event in homeserver.heard] == ["$1", "$2"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe{}", b"[]", b"null", b"7", b"{}", b"[" * 50_000])
async def test_bad_json_is_refused(homeserver: Homeserver, body: bytes) -> None:
    status, answer = await homeserver.ask("PUT", TRANSACTION, data=body)
    assert (status, answer["errcode"]) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("events", [None, {}, "events", 7])
async def test_events_that_are_no_list_are_refused(homeserver: Homeserver, events: Any) -> None:
    status, answer = await homeserver.ask("PUT", TRANSACTION, json={"events": events})
    assert (status, answer["errcode"]) == (400, "M_BAD_JSON")


async def test_a_transaction_that_is_too_large_is_refused(homeserver: Homeserver) -> None:
    async with homeserver.client.put(TRANSACTION, headers=GOOD, data=b" " * 100_001) as answer:
        assert answer.status == 413


@pytest.mark.parametrize("failure", [OSError("disk full"), TimeoutError(), RuntimeError("a bug")])
async def test_what_could_not_be_written_down_stays_with_the_homeserver(
    homeserver: Homeserver, failure: Exception
) -> None:
    homeserver.failure = failure
    status, answer = await homeserver.ask("PUT", TRANSACTION, json={"events": [said(1)]})
    assert status == 503
    assert str(failure) not in answer["error"] or not str(failure)
    homeserver.failure = None
    assert await homeserver.ask("PUT", TRANSACTION, json={"events": [said(1)]}) == (200, {})
    assert [event.id for event in homeserver.heard] == ["$1"]


# --- queries


async def test_a_ping_is_answered(homeserver: Homeserver) -> None:
    assert await homeserver.ask("POST", "/_matrix/app/v1/ping", json={"transaction_id": "p"}) == (200, {})


async def test_a_known_user_is_known_and_others_are_not(homeserver: Homeserver) -> None:
    assert await homeserver.ask("GET", f"/_matrix/app/v1/users/{GHOST}") == (200, {})
    status, answer = await homeserver.ask("GET", "/_matrix/app/v1/users/@_passerelle_joe:company.example")
    assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_no_room_is_made_for_an_alias(homeserver: Homeserver) -> None:
    status, answer = await homeserver.ask("GET", "/_matrix/app/v1/rooms/%23support:company.example")
    assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


# --- what anybody may see


async def test_a_bridge_that_runs_is_live_even_in_trouble(homeserver: Homeserver) -> None:
    homeserver.trouble = {"mail": "down"}
    assert await homeserver.ask("GET", "/live", {}) == (200, {"live": True})


async def test_a_bridge_whose_database_does_not_answer_is_neither_live_nor_ready(homeserver: Homeserver) -> None:
    homeserver.alive, homeserver.trouble = False, {"mail": "login refused"}
    assert await homeserver.ask("GET", "/live", {}) == (503, {"live": False})
    assert await homeserver.ask("GET", "/ready", {}) == (503, {"ready": False, "trouble": ["database", "mail"]})


async def test_a_bridge_without_trouble_is_ready(homeserver: Homeserver) -> None:
    assert await homeserver.ask("GET", "/ready", {}) == (200, {"ready": True, "trouble": []})


async def test_what_is_not_ready_is_named_without_its_reason(homeserver: Homeserver) -> None:
    homeserver.trouble = {"rooms": "catching up", "mail": "login refused by mail.company.example"}
    assert await homeserver.ask("GET", "/ready", {}) == (503, {"ready": False, "trouble": ["mail", "rooms"]})


# --- the admin socket


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


LONG = Path("/srv") / ("x" * LONGEST)


def test_the_admin_socket_is_in_the_data_folder_when_its_path_fits() -> None:
    assert socket_of(Path("/srv/data")) == Path("/srv/data/admin.sock")


def test_a_long_path_leads_to_a_folder_of_our_own(temporary: Path) -> None:
    path = socket_of(LONG)
    assert path.parent == temporary / f"passerelle-{os.getuid()}"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert socket_of(LONG) == path != socket_of(LONG / "other")


def test_a_folder_that_others_can_enter_is_refused(temporary: Path) -> None:
    folder = temporary / f"passerelle-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="mode 0700"):
        socket_of(LONG)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_that_somebody_laid_in_our_way_is_refused(temporary: Path, there: bool) -> None:
    elsewhere = temporary / "elsewhere"
    if there:
        elsewhere.mkdir(mode=0o700)
    (temporary / f"passerelle-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(PermissionError):
        socket_of(LONG)


def test_a_folder_of_somebody_else_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket_of(LONG)
    (temporary / f"passerelle-{os.getuid()}").rename(temporary / "passerelle-4711")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    if os.geteuid() != 4711:
        with pytest.raises(PermissionError):
            socket_of(LONG)


def test_the_admin_socket_is_our_users_alone_from_the_start_and_the_umask_is_as_before() -> None:
    before = os.umask(0o002)
    try:
        with tempfile.TemporaryDirectory(prefix="p") as folder:
            path = Path(folder) / "admin.sock"
            for _ in range(2):  # the second replaces the first
                with bound(path):
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with pytest.raises(OSError, match="too long"):
                bound(Path(folder) / ("x" * 120))
    finally:
        assert os.umask(before) == 0o002


# --- the command line


def test_what_another_server_said_cannot_command_the_terminal() -> None:
    assert printable("550 no\r\n\x1b]0;owned\x07 \x9b2J \u202e such user é") == "550 no   ]0;owned   2J   such user é"
