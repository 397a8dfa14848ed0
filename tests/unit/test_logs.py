"""What the log says, and never says: content and secrets stay out of it, whatever goes wrong."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import payload
from bridge.arrivals import Arrivals
from bridge.config import Config
from bridge.model import Author, Deferred, Envelope, Rejected, RoomEvent, Unavailable, Unconfirmed
from bridge.payload import Post
from bridge.rules import Rules
from bridge.store import Store, opened
from bridge.watch import logs
from bridge.watch.logs import FIELDS, Lines, described, told
from tests.peers.secrets import CANARY, Bridge, Watch
from tests.unit.test_architecture import MODULES, name
from tests.unit.test_queue import Bench, Place

ROOM = "!r:company.example"


class Log:
    """The log of a bridge, as it would be written."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def log() -> Log:
    """What is logged, as JSON."""
    heard = Log()
    stream = logging.StreamHandler(heard.stream)
    stream.setFormatter(Lines("json"))
    logging.getLogger().addHandler(stream)
    for ours in logs.OURS:
        logging.getLogger(ours).setLevel(logging.INFO)
    return heard


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as memory:
        yield memory


def record(message: str, *args: Any, name: str = "bridge.queue", error: Any = None, **more: Any) -> logging.LogRecord:
    """A record as logging makes it."""
    trace = (type(error), error, error.__traceback__) if error else None
    return logging.getLogger(name).makeRecord(name, logging.WARNING, "x.py", 1, message, args, trace, extra=more)


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def foreseen() -> list[Exception]:
    """Errors whose own text repeats what somebody wrote, as they really come."""
    found: list[Exception] = [KeyError(CANARY), ValueError(CANARY), Rejected(f"550 5.7.1 {CANARY}")]
    found += [Deferred(CANARY), Unconfirmed(CANARY), Rejected(f"413 M_TOO_LARGE: {CANARY}")]
    acts: list[Any] = [
        lambda: payload.load(Post, json.dumps({"room": 7, "body": [CANARY], CANARY: CANARY})),
        lambda: json.loads(f'"{CANARY}'),
        f"{CANARY}\udc80".encode,
        lambda: int(CANARY),
        lambda: payload.dump(RoomEvent("$1", ROOM, "@a:b", "m.room.message", body=f"{CANARY}\udc80")),
        lambda: {}[CANARY],
    ]
    for act in acts:
        try:
            act()
        except Exception as error:
            found.append(error)
    assert len(found) == 12
    return found


# --- one line


def test_a_line_is_for_people_and_its_fields_for_machines() -> None:
    about = {"uid": "abc", "destination": "matrix", "seconds": 0.12345, "conversation": 7, "uids": ["a", "b"]}
    line = Lines().format(record("delivered", **about))
    time, rest = line[:23], line[24:]
    assert time[4] == "-"
    assert rest == "WARNING bridge.queue: delivered uid=abc uids=a,b destination=matrix conversation=7 seconds=0.123"
    said = json.loads(Lines("json").format(record("delivered", **about)))
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "warning", "logger": "bridge.queue", "message": "delivered", "uid": "abc", "uids": ["a", "b"],
        "destination": "matrix", "conversation": 7, "seconds": 0.123,
    }  # fmt: skip


def test_nobody_outside_can_write_a_line_of_his_own() -> None:
    evil = "250 ok\r\n2026-01-01 INFO bridge.queue: delivered uid=\x1b[31mforged\u2028\udc80"
    for form in ("text", "json"):
        line = Lines(form).format(record("the server said: %s", evil, reply=evil))
        assert len(line.splitlines()) == 1
        assert line.encode().isascii()
        assert "\x1b" not in line


def test_only_what_is_explained_is_shown() -> None:
    line = Lines().format(record("x", body=CANARY, payload=CANARY))
    assert CANARY not in line


def test_values_that_are_neither_text_nor_number_are_only_named() -> None:
    post = Post(ROOM, CANARY)
    line = Lines().format(record("%s %s", post, {"a": CANARY}, uids=[post], reply=post))
    assert CANARY not in line
    assert "<Post>" in line


# --- errors


@pytest.mark.parametrize("error", foreseen(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_error_repeats_what_somebody_wrote(error: Exception, form: str) -> None:
    error = raised(error)  # type: ignore[assignment]
    around = raised(ExceptionGroup(CANARY, [error]))
    for line in (
        Lines(form).format(record("it failed: %s", error, error=error)),
        Lines(form).format(record("it failed: %r", error, error=around)),
    ):
        assert CANARY not in line
        assert type(error).__name__ in line


def test_what_caused_an_error_is_named_and_where_in_our_code_it_was() -> None:
    try:
        try:
            payload.load(Post, CANARY)
        except ValueError as cause:
            raise RuntimeError(CANARY) from cause
    except RuntimeError as error:
        said = json.loads(Lines("json").format(record("failed", error=error)))
    assert said["error"].startswith("RuntimeError, from ValidationError: ")
    assert "tests/unit/test_logs.py" in said["at"] or "test_logs.py" in said["at"]


def test_the_place_of_an_error_leads_to_the_line() -> None:
    with pytest.raises(ValueError) as found:  # noqa: PT011
        payload.load(Post, CANARY)
    said = json.loads(Lines("json").format(record("failed", error=found.value)))
    assert re.search(r"bridge/payload\.py:\d+ load > .*pydantic/.*$", said["at"])


def test_trouble_of_a_server_the_disk_or_the_database_is_told_in_full() -> None:
    assert described(Unavailable("connection refused")) == "Unavailable: connection refused"
    assert described(OSError(28, "No space left on device")) == "OSError: [Errno 28] No space left on device"


def test_a_refusal_shows_the_status_and_keeps_its_words_for_the_thread() -> None:
    refusal = Rejected(f"mx.partner.example said 550 5.1.1 <{CANARY}>: unknown")
    assert described(refusal) == "Rejected: 550 5.1.1"
    assert told(refusal) == str(refusal)
    assert CANARY not in told(ValueError(CANARY))


def test_an_envelope_that_nobody_foresaw_is_described_to_operators_without_its_content() -> None:
    error = raised(foreseen()[6])
    assert told(error).startswith("ValidationError: room string_type")


# --- others' loggers


def test_of_other_libraries_only_harmless_words_are_shown(log: Log) -> None:
    loop = asyncio.new_event_loop()
    loop.call_exception_handler({"message": f"Exception in callback f('{CANARY}')", "exception": ValueError(CANARY)})
    loop.close()
    logging.getLogger("aiosqlite").warning("executing %s", CANARY)
    assert [each["message"] for each in log.said()] == ["Exception in callback f", "executing %s"]
    assert CANARY not in log.stream.getvalue()


@pytest.fixture
def _as_before() -> Iterator[None]:
    """Logging as it was before the test."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    levels = {each: logging.getLogger(each).level for each in logs.OURS}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    for each, was in levels.items():
        logging.getLogger(each).setLevel(was)


@pytest.mark.usefixtures("_as_before")
def test_libraries_do_not_get_talkative_with_us(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start("text", "debug")
    logging.getLogger("aiosqlite").debug("SQL with %s", CANARY)
    logging.getLogger("bridge.x").debug("it turns")
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()] == ["it turns"]


@pytest.mark.usefixtures("_as_before")
def test_an_error_that_ends_the_process_or_a_thread_repeats_nothing_either(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start("json", "info")
    sys.excepthook(ValueError, ValueError(CANARY), None)
    thread = threading.Thread(target=int, args=(CANARY,))
    thread.start()
    thread.join()
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [each["error"] for each in said] == ["ValueError", "ValueError"]


# --- one id, and nothing else, from arrival to delivery


async def test_a_message_can_be_followed_by_one_id_from_its_arrival_to_its_delivery(store: Store, log: Log) -> None:
    bench, rules = Bench(store, Place()), followed()
    bench.place.name = "matrix"
    bench.queue.lines = {"matrix": bench.line}
    async with bench.running():
        await store.transact(rules.hub.accept, mail())
        await bench.crossed_out()
    arrived, delivered = log.said()
    assert (arrived["message"], arrived["connector"], arrived["arrival"]) == ("arrived", "post", "0123abcd")
    assert arrived["uids"] == [delivered["uid"]]
    assert (delivered["message"], delivered["destination"], delivered["kind"]) == ("delivered", "matrix", "post")
    assert delivered["conversation"] == arrived["conversation"]
    assert delivered["seconds"] >= 0


async def test_what_arrives_again_and_again_is_no_news(store: Store, log: Log) -> None:
    rules = followed()
    for _ in range(3):
        await store.transact(rules.hub.accept, mail())
    assert [each["message"] for each in log.said()] == ["arrived"]


@pytest.mark.parametrize("error", foreseen(), ids=lambda error: type(error).__name__)
async def test_no_failed_delivery_puts_content_into_the_log(store: Store, log: Log, error: Exception) -> None:
    bench = Bench(store, Place())
    bench.place.answers = {CANARY: [error]}
    async with bench.running():
        (row,) = await bench.add(CANARY)
        await bench.crossed_out()
    assert {each["uid"] for each in log.said()} == {row.uid}
    assert CANARY not in log.stream.getvalue()
    (fate,) = {each["message"] for each in log.said()} & {"delivered", "given up"}
    assert (fate == "given up") == isinstance(error, Rejected)


async def test_what_nobody_can_read_is_kept_without_its_content_in_the_log_or_before_operators(
    store: Store, log: Log
) -> None:
    rules = followed()
    rules.places.management = "!operators:company.example"
    odd = replace(mail(), author=Author("mail", f"{CANARY}\udc80"))
    await Arrivals(store, rules.hub).take([odd])
    told_operators = await store.transact(lambda tx: tx.queue.in_state("ready"))
    (kept,) = await store.transact(lambda tx: tx.queue.in_state("dead"))
    assert CANARY in kept.payload
    assert CANARY not in kept.error
    assert CANARY not in "".join(each.payload for each in told_operators)
    assert CANARY not in log.stream.getvalue()
    assert [each["level"] for each in log.said()] == ["error", "error"]


def followed() -> Rules:
    """The rules of a bridge with one mapped room."""
    rules = Rules(
        Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "as-token-for-logs", "hs_token": "hs-token-for-logs"},
                "connectors": {"post": {}},
                "mappings": [{"connector": "post", "scope": "box", "room": ROOM}],
            }
        )
    )
    rules.places.resolve(ROOM, ROOM)
    return rules


def mail() -> Envelope:
    author = Author("mail", "ann@partner.example", CANARY)
    return Envelope("post", ("box",), "0123abcd", "<1>", author, 0.0, title=CANARY, text=CANARY)


# --- every call


CALLS = [
    (path, node)
    for path in MODULES
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Attribute)
    and isinstance(node.func.value, ast.Name)
    and node.func.value.id == "log"
    and node.func.attr != "isEnabledFor"
]


def test_every_line_has_fixed_words_so_that_nothing_slips_into_them() -> None:
    assert len(CALLS) > 20
    for path, call in CALLS:
        words = call.args[1 if call.func.attr == "log" else 0]  # type: ignore[attr-defined]
        known = isinstance(words, ast.Constant) or (name(path), ast.unparse(words)) == ("bridge.queue", "what")
        assert known, f"{name(path)} line {call.lineno}: {ast.unparse(words)}"


def test_no_line_is_given_what_people_wrote() -> None:
    """An error is described as it is written; texts are shown as they are given."""
    content = re.compile(r"\b(body|text|html|payload|reason|title|subject|raw|data|str|repr|format)\b")
    for path, call in CALLS:
        given = [ast.unparse(each) for each in call.args[1:] + [each.value for each in call.keywords]]
        assert not [each for each in given if content.search(each)], f"{name(path)} line {call.lineno}: {given}"


def test_every_field_of_a_line_is_explained() -> None:
    used = {
        key.value
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant)
    }
    assert used
    assert used <= set(FIELDS)


# --- the search that all tests run under


def test_the_search_finds_secrets_in_files_and_in_what_this_process_says(tmp_path: Path) -> None:
    config, file, own = tmp_path / "passerelle.yaml", tmp_path / "passerelle.log", Watch()
    config.write_text(
        "appservice: {as_token: only-for-the-bridge}\nconnectors: {a: {password: '${HERE}', plugin: mail}}\n"
    )
    own.bridges = [Bridge(config, file)]
    file.write_text("all is well\n")
    assert own.leaked() == []
    with file.open("a") as more:
        more.write("GET /?access_token=only-for-the-bridge\n")
    assert own.leaked() == ["as_token: GET /?access_token=*****"]
    own.said = [f"a mail: {CANARY}"]
    assert own.leaked() == ["what people wrote: a mail: *****"]
    assert own.leaked() == []
