"""The webhook plugin: who may call, what templates can and cannot do, and what leaves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bridge.admin.replay import Kept, _opened
from bridge.config import load
from bridge.connector import Reply
from bridge.model import Delivery, Draft, Envelope, File, Gone, Recipients, Rejected, Request, Sent, Unconfirmed
from plugins.webhook import Webhook
from plugins.webhook.settings import Proof, at
from tests.peers import ROOT
from tests.unit.test_config import SECRETS, example

SECRET, UID = "both-know-it", "a2b3c4d5e6f7g2h3i4j5"
RULE = {"scope": "floor", "item": "{{ body.id }}", "text": "{{ body.text }}"}


class Port:
    """Takes what is sent, and answers with what it was given."""

    def __init__(self, answer: bytes = b"{}", status: int = 200) -> None:
        self.answer, self.status, self.sent, self.spool = answer, status, list[dict[str, Any]](), self

    def http(self, url: str, **how: Any) -> Any:
        return self

    def sign(self, text: str) -> str:
        return "a" * 16

    def scopes(self) -> frozenset[str]:
        return frozenset()

    async def read(self, file: File) -> bytes:
        return b"x" * file.size

    async def request(self, method: str, path: str, **what: Any) -> Reply:
        self.sent.append(what)
        return Reply(self.status, {}, self.answer)


def settings(**more: Any) -> dict[str, Any]:
    return {"version": 1, "scopes": ["floor"], "proof": {"secret": SECRET}, "rules": [RULE], **more}


def webhook(port: Port | None = None, **more: Any) -> Webhook:
    given: Any = port or Port()
    return Webhook("floor", Webhook.Config.model_validate(settings(**more)), given)


def call(body: Any, **proof: Any) -> Request:
    raw = json.dumps(body).encode()
    return Request(Proof(secret=SECRET, **proof).headers(raw, str(int(time.time()))), raw)


def heard(body: Any, **rule: Any) -> Envelope:
    [envelope] = webhook(rules=[RULE | rule]).parse(call(body))
    return envelope


# --- who may call


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_signatures_are_those_that_others_make(algorithm: Any, encoding: Any) -> None:
    body = b'{"id": 1}'
    digest = hmac.new(SECRET.encode(), body, getattr(hashlib, algorithm)).digest()
    sign = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    proof = {"secret": SECRET, "header": "X-Sign", "prefix": "v1,", "algorithm": algorithm, "encoding": encoding}
    hook = webhook(proof=proof)
    assert hook.parse(Request({"x-sign": f"v1,{sign}"}, body))
    for wrong in (sign, f"v1,{sign[:-1]}", "v1,", "é"):
        with pytest.raises(Rejected, match="signature"):
            hook.parse(Request({"x-sign": wrong}, body))


def test_an_old_call_is_refused_and_its_time_cannot_be_changed() -> None:
    proof = {"secret": SECRET, "timestamp": "X-Time", "signed": "v0:{timestamp}:{body}", "window": 60}
    hook, body = webhook(proof=proof), b'{"id": 1}'
    made = Proof.model_validate(proof)
    now = int(time.time())
    assert hook.parse(Request(made.headers(body, str(now)), body))
    for when in (str(now - 100), str(now + 100), "", "x", "-1", "٣"):
        with pytest.raises(Rejected, match="seconds ago"):
            hook.parse(Request(made.headers(body, when), body))
    with pytest.raises(Rejected, match="signature"):
        hook.parse(Request(made.headers(body, str(now - 100)) | {"x-time": str(now)}, body))


async def test_what_an_administrator_brings_again_must_be_genuine_however_old_it_is() -> None:
    proof = {"secret": SECRET, "timestamp": "X-Time", "signed": "{timestamp}.{body}"}
    headers = Proof.model_validate(proof).headers(b'{"id": 1, "text": "again"}', "1700000000")
    kept = {"headers": headers, "body": '{"id": 1, "text": "again"}'}
    [found] = await _opened(webhook(proof=proof), Kept("call.json", json.dumps(kept).encode()))
    assert found.text == "again"
    forged = json.dumps(kept | {"body": '{"id": 2}'}).encode()
    with pytest.raises(Rejected, match="signature"):
        await _opened(webhook(proof=proof), Kept("call.json", forged))


def test_a_time_that_is_no_text_is_forged() -> None:
    hook = webhook(proof={"secret": SECRET, "timestamp": "X-Time", "signed": "{timestamp}.{body}"})
    with pytest.raises(Rejected, match="signature"):
        hook.parse(Request({"x-time": "\udcff", "x-hub-signature-256": "sha256=00"}, b"{}"))


def test_a_private_word_hides_no_item_that_everybody_may_see() -> None:
    said, silent = heard({"id": 1, "text": "Psst."}, private=True), heard({"id": 1, "text": ""}, private=True)
    assert said.card is not None
    assert silent.card is not None
    assert (said.private, said.card.private) == (True, False)
    assert (silent.private, silent.card.private) == (True, True)


def test_a_bearer_is_compared_whole() -> None:
    hook = webhook(proof={"secret": SECRET, "bearer": True})
    assert hook.parse(Request({"authorization": f"Bearer {SECRET}"}, b'{"id": 1}'))
    for wrong in ("", "Bearer", f"Bearer {SECRET}x", SECRET):
        with pytest.raises(Rejected, match="signature"):
            hook.parse(Request({"authorization": wrong}, b'{"id": 1}'))


# --- what calls mean


def test_the_first_rule_that_fits_says_what_a_call_means() -> None:
    rules = [
        RULE | {"when": [{"path": "steps[1].ok", "equals": False}], "text": "broken"},
        RULE | {"when": [{"path": "count", "equals": 1}, {"path": "gone", "exists": False}], "text": "one"},
    ]
    hook = webhook(rules=rules)
    said = [
        [each.text for each in hook.parse(call({"id": 1, **body}))]
        for body in (
            {"steps": [{}, {"ok": False}]}, {"steps": [{}, {"ok": 0}]}, {"steps": {"1": {"ok": False}}},
            {"count": 1}, {"count": True}, {"count": "1"}, {"count": 1, "gone": 0}, {"count": 1, "gone": None},
        )
    ]  # fmt: skip
    assert said == [["broken"], [], [], ["one"], [], [], [], ["one"]]
    assert at([{"a-b": [1, {"c": 2}]}], "x") is None


def test_everything_that_a_rule_can_say_is_in_the_envelope() -> None:
    found = heard(
        {"id": 7, "who": "carol", "tags": ["a", "b"], "at": 1e9, "link": "https://x.example/7"},
        once="{{ body.id }}", id="e{{ body.id }}", refs="e{{ body.id - 1 }}", title="T {{ body.id }}", state="open",
        author="{{ body.who }}", url="{{ body.link }}", at="{{ body.at }}", private=True, automatic=True,
        text="{% for t in body.tags %}{{ loop.index }}{{ t | upper }} {% endfor %}{{ body.no.such | default('-') }}",
        fields={"tags": "{{ body.tags | join('/') }}"},
    )  # fmt: skip
    assert (found.item, found.id, found.refs, found.when) == ("floor:7", "e7", ("e6",), 1e9)
    assert (found.text, found.private, found.automatic, found.begins) == ("1A 2B -", True, True, True)
    assert (found.author.account, found.author.verified) == ("carol", False)
    assert found.card
    assert (found.card.title, found.card.url) == ("T 7", "https://x.example/7")
    assert found.card.fields == (("state", "open"), ("tags", "a/b"))
    assert heard({"id": 7, "link": "javascript:alert(1)"}, url="{{ body.link }}").card.url == ""  # type: ignore[union-attr]


@pytest.mark.parametrize("depth", [100, 400, 600, 800, 900, 950, 5000])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    hook = webhook(rules=[RULE | {"text": "{{ body.deep | tojson }}{{ body.deep }}{{ body.deep | string }}"}])
    body = b'{"id": 1, "deep": ' + b"[" * depth + b"]" * depth + b"}"
    request = Request(Proof.model_validate({"secret": SECRET}).headers(body, ""), body)
    with contextlib.nullcontext() if depth == 100 else contextlib.suppress(Rejected):
        assert hook.parse(request)[0].text.startswith("[[")


def test_a_scope_that_is_not_configured_takes_nothing() -> None:
    assert webhook(rules=[RULE | {"scope": "{{ body.to }}"}]).parse(call({"id": 1, "to": "cellar"})) == []


async def test_a_kept_call_can_be_replayed() -> None:
    request = call({"id": 1, "text": "again"})
    kept = json.dumps({"headers": dict(request.headers), "body": request.body.decode()}).encode()
    [found] = await _opened(webhook(), Kept("call.json", kept))
    assert found.text == "again"


# --- what templates cannot do


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**9 }}", "{{ 2 ** 9 }}", "{{ body | nosuch }}", "{{ body", "{% for %}", "{{ range(9) }}",
        "{{ body.text.format(1) }}", "{{ ''.join(body) }}", "{{ '%9999999d' % 1 }}", "{% set x = 1 %}",
        "{% macro m() %}{% endmacro %}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}",
        "{% call x() %}{% endcall %}", "{% filter upper %}x{% endfilter %}", "{{ body | timed }}",
        "{{ body | attr('x') }}",
        "{{ body | map('upper') }}", "{{ body[1:2] }}", "{% block x %}{% endblock %}", "{{ cycler() }}",
        "{% with x = 1 %}{% endwith %}", "{{ 'a' | center(999999999) }}", "{{ 'a' is callable }}{{ body() }}",
        "{{ 10 // 3 }}", "{% raw %}{% endraw", "{{ '{:999999999}' | format(1) }}", "{{ (" * 50,
    ],
)  # fmt: skip
def test_mistakes_and_dangers_in_templates_are_errors_of_the_configuration(template: str) -> None:
    for rule in (RULE | {"text": template}, RULE | {"fields": {"x": template}}):
        with pytest.raises(ValidationError, match="template"):
            Webhook.Config.model_validate(settings(rules=[rule]))


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in body.l %}{% for b in body.l %}{% for c in body.l %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in body.l %}{% for b in body.l %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}",
        "{% for a in body.l %}{{ body.big in body.big ~ 'x' }}{{ body.big | upper | lower | length }}{% endfor %}",
        "{% for a in body.l if body.big ~ a == body.big %}x{% endfor %}",
    ],
)
def test_a_template_that_takes_too_long_is_stopped(template: str) -> None:
    body = {"id": 1, "l": list(range(5000)), "big": "ab" * 500_000}
    request, hook = call(body), webhook(rules=[RULE | {"text": template}])
    began = time.process_time()
    with pytest.raises(Rejected, match="too long"):
        hook.parse(request)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 | round(999999999, 'ceil') }}", "{{ body.n | round(body.n, 'floor') }}", "{{ body.s | int(0, 32) + 1 }}",
        "{{ body.s | int(0, 16) is divisibleby(body.s | int(0, 32)) }}",
        "{% for a in body.l %}{{ loop.length }}{% endfor %}",
    ],
)  # fmt: skip
def test_what_nothing_could_stop_is_not_begun(template: str) -> None:
    """Arithmetic with a number of a billion digits holds the whole process, whatever limit in time there is."""
    request = call({"id": 1, "n": 999_999_999, "s": "f" * 3_000_000, "l": [1] * 100_000})
    began = time.process_time()
    with pytest.raises(Rejected, match="template"):
        webhook(rules=[RULE | {"text": template}]).parse(request)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", ["title", "upper", "tojson", "trim", "string"])
def test_a_filter_is_given_no_long_text(name: str) -> None:
    request, hook = (
        call({"id": 1, "big": "ab " * 1_300_000}),
        webhook(rules=[RULE | {"text": f"{{{{ body.big | {name} }}}}"}]),
    )
    assert len(hook.parse(request)[0].text) <= 100_000


def test_numbers_are_read_and_rounded() -> None:
    body = {"id": 1, "n": 2.26, "s": "12", "bad": "x"}
    text = "{{ body.n | round(1) }} {{ body.s | int + 1 }} {{ body.bad | int(7) }} {{ body.n | round | int }}"
    assert heard(body, text=text).text == "2.3 13 7 2"


def test_long_output_is_cut_and_said_to_be() -> None:
    found = heard({"id": 1, "text": "ab" * 100_000})
    assert len(found.text) == 100_000
    assert "too long" in found.problem
    assert len(heard({"id": 1, "text": ["x" * 60_000] * 50}, text="{{ body.text | join('-') }}").text) == 100_000
    assert len(heard({"id": "9" * 5000, "text": "x"}).item) < 600


@pytest.mark.parametrize(
    "template",
    [
        "{{ body.__class__ }}", "{{ body.text.__class__.__mro__ }}", "{{ body['__class__'] }}",
        "{{ body.items }}", "{{ self }}", "{{ body.text.format }}", "{{ loop }}", "{{ environment }}",
    ],
)  # fmt: skip
def test_templates_see_nothing_but_what_came(template: str) -> None:
    assert heard({"id": 1, "text": "x"}, text=f"<{template}>").text == "<>"


def test_what_is_called_as_something_of_python_is_found_all_the_same() -> None:
    body = {"id": 1, "items": [{"keys": "a"}, {"keys": "b"}], "values": {"get": "c"}}
    text = "{% for each in body.items %}{{ loop.index }}{{ each.keys }}{% endfor %}{{ body['values'].get }}"
    assert heard(body, text=text).text == "1a2bc"


def test_a_time_to_come_does_not_keep_what_is_later_from_the_card() -> None:
    assert heard({"id": 1, "text": "x"}, at="9999999999").when <= time.time()


@pytest.mark.parametrize("template", ["{{ body.text + 1 }}", "{{ body.text - body }}", "{{ body.n | length }}"])
def test_a_template_that_fails_refuses_the_call(template: str) -> None:
    with pytest.raises(Rejected, match="template"):
        heard({"id": 1, "text": "x", "n": 1}, text=template)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2}, {"version": "1"}, {"scopes": []}, {"url": "ftp://x"}, {"answer": {"item": "a b"}},
        {"proof": {"secret": "short"}}, {"proof": {"secret": SECRET, "timestamp": "X-Time"}},
        {"proof": {"secret": SECRET, "signed": "{timestamp}{body}"}}, {"proof": {"secret": SECRET, "signed": "x"}},
        {"proof": {"secret": SECRET, "algorithm": "md5"}}, {"rules": [RULE | {"when": [{"path": "a..b"}]}]},
        {"rules": [RULE | {"nosuch": "x"}]},
        {"proof": {"secret": SECRET, "header": "X-A", "timestamp": "x-a", "signed": "{timestamp}.{body}"}},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_an_error_of_the_configuration(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Webhook.Config.model_validate(settings(**wrong))


# --- what leaves


def draft(**more: Any) -> Draft:
    given = {"title": "Stuck", "text": "Look at it", "remote": "floor:7", "asked": 1e9, **more}
    return Draft(
        "floor", "floor", 1, author="@alice:c.example", author_name="Alice", recipients=Recipients(()), **given
    )


def delivery() -> Delivery:
    return Delivery(1, UID, "lane", "floor", "draft", "", "ready", 1, time.time(), attempts=1)


async def test_what_leaves_is_signed_the_same_at_every_attempt_and_known_by_its_key() -> None:
    port = Port()
    hook = webhook(port, url="https://floor.example/in")
    for _ in range(2):
        sent = await hook.send(delivery(), draft(files=(File("a.txt", "text/plain", 3),)))
    assert sent == Sent(UID)
    first, second = port.sent
    assert first == second
    assert first["headers"]["Idempotency-Key"] == UID
    Proof(secret=SECRET).check(Request(first["headers"], first["body"]))
    said = json.loads(first["body"])
    assert (said["version"], said["kind"], said["item"], said["id"]) == (1, "message", "7", UID)
    assert (said["text"], said["at"]) == ("Alice:\n\nLook at it", 1e9)
    assert said["files"] == [{"name": "a.txt", "type": "text/plain", "base64": "eHh4"}]
    assert hook.is_mark(said["mark"])
    assert hook.parse(call({"id": 1, "text": "echo", "mark": said["mark"]})) == []


async def test_the_answer_names_a_new_item() -> None:
    answer = {"item": "made[0].id", "url": "made[0].url"}
    port = Port(b'{"made": [{"id": 42, "url": "https://floor.example/42"}]}')
    made = await webhook(port, url="https://floor.example/in", answer=answer).create(delivery(), draft(remote="x"))
    assert made.card
    assert (made.card.item, made.card.url, made.card.scope) == ("floor:42", "https://floor.example/42", "floor")
    with pytest.raises(Unconfirmed, match="how the new item is called"):
        await webhook(Port(), url="https://floor.example/in", answer=answer).create(delivery(), draft(remote="x"))
    with pytest.raises(Unconfirmed, match="no room"):
        await webhook(Port(b'{"error": "no room"}'), url="https://floor.example/in").send(delivery(), draft())


async def test_without_an_address_and_with_too_much_nothing_is_sent() -> None:
    with pytest.raises(Rejected, match="no url"):
        await webhook().send(delivery(), draft())
    hook, large = webhook(Port(), url="https://floor.example/in"), draft(files=(File("a", "b/c", 6_000_000),))
    with pytest.raises(Rejected, match="5 MB"):
        await hook.send(delivery(), large)


async def test_an_item_that_the_other_side_says_is_gone_is_gone() -> None:
    with pytest.raises(Gone, match="7 is gone"):
        await webhook(Port(status=410), url="https://floor.example/in").send(delivery(), draft())


def test_items_are_known_by_the_connectors_name() -> None:
    hook = webhook()
    assert [hook.match(text) for text in ("floor:7", " Floor:a b ", "floor:", "floor", "door:7")] == [
        "floor:7", "floor:a b", "", "", "",
    ]  # fmt: skip


def test_the_example_is_whole_and_loads(tmp_path: Path) -> None:
    sample = yaml.safe_load((ROOT / "config" / "webhook.yaml").read_text())
    settings = example()
    settings["connectors"] |= sample["connectors"]
    settings["mappings"] += sample["mappings"]
    (tmp_path / "passerelle.yaml").write_text(yaml.safe_dump(settings))
    _, connectors = load(tmp_path / "passerelle.yaml", SECRETS | {"PASSERELLE_BUILDS_SECRET": "builds-secret"})
    kind, loaded = connectors["builds"]
    assert kind is Webhook
    assert "builds-secret" not in repr(loaded)
    assert f"{loaded.rules[0].title}" == "{{ body.build.branch }}: {{ body.build.name }}"  # type: ignore[attr-defined]
