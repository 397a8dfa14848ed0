"""What `passerelle plan` says: every change by its name, secrets never, and what to think of before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bridge.admin.plan import Plan, Settings, cautions, mapping_steps, plan
from bridge.config import Mapping, load
from tests.peers.bridge import merged

BASE: dict[str, Any] = {
    "homeserver": {"url": "http://127.0.0.1:8008", "server_name": "company.example"},
    "appservice": {"as_token": "as-secret-token", "hs_token": "hs-secret-token"},
    "data": "/var/lib/passerelle",
    "connectors": {
        "mail": {
            "plugin": "mail",
            "listen": "127.0.0.1:2525",
            "mailboxes": [{"address": "support@company.example"}, {"address": "sales@company.example"}],
            "smarthost": {"host": "smtp.company.example", "username": "bridge", "password": "pass-phrase"},
        },
        "helpdesk": {"plugin": "roundup", "url": "http://127.0.0.1:8917", "username": "bridge", "password": "hush"},
    },
    "mappings": [
        {"connector": "mail", "scope": "support@company.example", "room": "#support:company.example"},
        {"connector": "helpdesk", "scope": "issue", "room": "#support:company.example"},
    ],
}
SALES = {"connector": "mail", "scope": "sales@company.example", "room": "#sales:company.example"}
SECRET = b"of this bridge"


def settings(folder: Path, **changes: Any) -> Settings:
    file = folder / "passerelle.yaml"
    file.write_text(yaml.safe_dump(merged(BASE, changes)))
    return Settings(*load(file))


def planned(folder: Path, **changes: Any) -> Plan:
    return plan(settings(folder), settings(folder, **changes), SECRET)


def lines(found: Plan) -> list[str]:
    return [f"{step.sign} {step.what} {step.when}" for step in found.steps]


def test_the_same_configuration_changes_nothing(tmp_path: Path) -> None:
    assert not planned(tmp_path).steps


def test_mappings_come_and_go_and_change_at_once(tmp_path: Path) -> None:
    support, helpdesk = BASE["mappings"]
    policy = {"only": {"subject": "*invoice*"}, "private": True, "new": False}
    found = planned(tmp_path, mappings=[SALES, support | policy])
    assert lines(found) == [
        "+ mapping sales@company.example (mail) in #sales:company.example at once",
        "- mapping issue (helpdesk) in #support:company.example at once",
        "~ mapping support@company.example (mail) in #support:company.example: now only subject: *invoice*, "
        "private notes too, only what people link or mention at once",
    ]
    assert not found.anew
    assert helpdesk["scope"] == "issue"


def test_values_are_told_as_they_were_and_as_they_will_be(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        outward={"hold": 30, "domains": ["partner.example"]},
        connectors={"helpdesk": {"url": "http://127.0.0.1:8918"}, "mail": {"listen": "127.0.0.1:25"}},
        permissions={"administer": ["@alice:company.example"]},
        people={"@alice:company.example": {"helpdesk": "alice"}},
    )
    assert set(lines(found)) == {
        "~ connector mail: listen: 127.0.0.1:2525 -> 127.0.0.1:25 anew",
        "~ connector helpdesk: url: http://127.0.0.1:8917 -> http://127.0.0.1:8918 anew",
        "~ outward.hold: 15 -> 30 anew",
        "~ outward.domains: [] -> [partner.example] anew",
        "~ permissions.administer: [] -> [@alice:company.example] at once",
        "+ people.@alice:company.example.helpdesk: alice at once",
    }
    assert found.anew


def test_secrets_are_named_and_never_shown(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        appservice={"as_token": "another-secret-token"},
        connectors={"mail": {"smarthost": {"password": "pass-word"}}, "helpdesk": {"password": "shush"}},
    )
    assert set(lines(found)) == {
        "~ connector mail: smarthost.password (secret) anew",
        "~ connector helpdesk: password (secret) anew",
        "~ appservice.as_token (secret) anew",
    }
    shown = repr(found)
    assert not [word for word in ("secret-token", "pass-", "hush") if word in shown]


def test_another_secret_is_another_plan_although_it_reads_the_same(tmp_path: Path) -> None:
    one, other = (planned(tmp_path, connectors={"helpdesk": {"password": each}}) for each in ("one", "other"))
    assert lines(one) == lines(other)
    assert one.digest != other.digest
    assert one.digest == planned(tmp_path, connectors={"helpdesk": {"password": "one"}}).digest


def test_connectors_and_their_parts_come_and_go_by_name(tmp_path: Path) -> None:
    boxes = [{"address": "support@company.example", "name": "Support"}, {"address": "info@company.example"}]
    more = {"desk2": {**BASE["connectors"]["helpdesk"], "url": "http://127.0.0.1:1"}, "mail": {"mailboxes": boxes}}
    assert set(lines(planned(tmp_path, connectors=more))) == {
        "+ connector desk2 (roundup) anew",
        "+ connector mail: mailboxes[info@company.example] anew",
        "- connector mail: mailboxes[sales@company.example] anew",
        "~ connector mail: mailboxes[support@company.example].name:  -> Support anew",
    }


def test_who_the_bridge_is_cannot_change_while_it_runs(tmp_path: Path) -> None:
    found = planned(
        tmp_path, data="/elsewhere", appservice={"ghosts": "_other_"}, homeserver={"server_name": "b.example"}
    )
    assert {step.what.partition(":")[0] for step in found.refused} == {
        "data", "appservice.ghosts", "homeserver.server_name",
    }  # fmt: skip


def test_a_stopped_bridge_is_compared_by_its_mappings(tmp_path: Path) -> None:
    new = settings(tmp_path, mappings=[*BASE["mappings"], SALES])
    steps = mapping_steps(new.config.mappings[:2], new.config.mappings)
    assert [step.what for step in steps] == ["mapping sales@company.example (mail) in #sales:company.example"]


def test_what_to_think_of_is_said(tmp_path: Path) -> None:
    only = {**SALES, "only": {"subject": ["*invoice*"]}}
    new = settings(tmp_path, mappings=[BASE["mappings"][0], only]).config
    made = Mapping(connector="mail", scope="support@company.example", room="!support")
    rooms = {"#support:company.example": "!support", SALES["room"]: "!sales"}
    also = Mapping(connector="mail", scope=SALES["scope"], room="!sales", private=True)
    gone = list(cautions(new.mappings, settings(tmp_path).config, [also], rooms))
    assert gone[-1] == (
        "mapping sales@company.example (mail) in !sales, private notes too was made in that room, too, and holds again "
        "from now on; !unmap there ends it"
    )
    said = list(cautions((), new, [made], rooms))
    assert said == [
        "nothing of connector helpdesk is mapped to a room",
        "what fits no filter of sales@company.example (mail) is refused: every mapping of it has one",
        "mapping support@company.example (mail) in !support was made in that room; the configuration decides from "
        "now on",
    ]
