"""The configuration: the example is whole and loads, every mistake is told at once, secrets never are."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from bridge.config import Config, ConfigError, connectors, load
from plugins.mail.config import Config as MailConfig
from tests.peers import ROOT

EXAMPLE = ROOT / "config" / "passerelle.yaml"
KNOWN = ", ".join(sorted(each.name for each in entry_points(group="passerelle.plugins")))
SECRETS = {
    "PASSERELLE_AS_TOKEN": "as-secret-4711",
    "PASSERELLE_HS_TOKEN": "hs-secret-4711",
    "PASSERELLE_SMTP_PASSWORD": "smtp-secret-4711",
}


def example() -> dict[str, Any]:
    """The example's settings, as YAML has them."""
    loaded: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return loaded


def loaded(path: Path, settings: Any, environment: dict[str, str] | None = None) -> Config:
    """These settings, from a file."""
    path = path / "passerelle.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return load(path, SECRETS if environment is None else environment)[0]


def problems(path: Path, settings: Any, environment: dict[str, str] | None = None) -> list[str]:
    """What is said against these settings."""
    with pytest.raises(ConfigError) as refused:
        loaded(path, settings, environment)
    return refused.value.problems


def inside(path: Path, **section: Any) -> Config:
    """The example with another `inside`."""
    return loaded(path, example() | {"inside": section})


# --- the example


def test_the_example_configuration_loads_with_its_secrets_in_the_environment() -> None:
    config, connectors = load(EXAMPLE, SECRETS)
    assert config.appservice.as_token.get_secret_value() == "as-secret-4711"
    assert config.data == EXAMPLE.parent / "data"
    kind, mail = connectors["mail"]
    assert kind.Config is MailConfig
    assert isinstance(mail, MailConfig)
    assert mail.smarthost.secret() == "smtp-secret-4711"
    assert {mapping.scope for mapping in config.mappings} == mail.addresses


def test_every_setting_is_explained_in_the_example() -> None:
    everything = documented()
    assert undocumented(Config, everything) == []
    assert undocumented(MailConfig, everything["connectors"]["mail"]) == []


def test_what_the_example_shows_as_a_default_is_the_default() -> None:
    """Commented settings show defaults, apart from those that have none worth showing."""
    samples = {"users", "hostname", "authserv_id", "certificate", "key", "ca_file", "password_file", "password_env"}
    samples |= {"host", "username", "password"}  # of imap
    shown = [
        (match[1], yaml.safe_load(match[2]))
        for line in EXAMPLE.read_text().splitlines()
        if (match := re.match(r" *#([a-z_]+): (.+)", line)) and match[1] not in samples
    ]
    assert len(shown) > 15
    wrong = [(key, value) for key, value in shown if value not in defaults(key)]
    assert wrong == []


def test_the_registration_sample_fits_the_example() -> None:
    registration = yaml.safe_load((ROOT / "registration.yaml").read_text())
    config, _ = load(EXAMPLE, SECRETS)
    users = [namespace["regex"] for namespace in registration["namespaces"]["users"]]
    ghost = f"{config.ghost_prefix}mail_jane=40customer.example:{config.homeserver.server_name}"
    sender = f"@{registration['sender_localpart']}:{config.homeserver.server_name}"
    assert registration["id"] == config.appservice.id
    assert registration["url"] == f"http://{config.appservice.listen}"
    assert all(any(re.fullmatch(regex, mxid) for regex in users) for mxid in (config.bot_mxid, ghost))
    assert not any(re.fullmatch(regex, sender) for regex in users)
    assert not any(re.fullmatch(regex, "@alice:company.example") for regex in users)
    assert all(each["exclusive"] for kind in registration["namespaces"].values() for each in kind)
    assert registration["namespaces"]["aliases"]
    assert registration["rate_limited"] is False
    assert registration["org.matrix.msc3202"] is registration["io.element.msc4190"] is True
    assert "PLACEHOLDER" in registration["as_token"]
    assert "PLACEHOLDER" in registration["hs_token"]


def documented() -> dict[str, Any]:
    """The example with every setting that it shows as a comment ("#key: value")."""
    tree: dict[str, Any] = yaml.safe_load(re.sub(r"(?m)^( *)#(?=[a-z_]+:)", r"\1", EXAMPLE.read_text()))
    return tree


def undocumented(model: type[BaseModel], shown: dict[str, Any], path: str = "") -> list[str]:
    """Settings of the model, and of the models in it, that are missing in `shown`."""
    missing = []
    for key, field in model.model_fields.items():
        inner = next((each for each in parts(field.annotation) if issubclass(each, BaseModel)), None)
        if key not in shown:
            missing.append(f"{path}{key}")
        elif inner is not None:
            value = shown[key][0] if isinstance(shown[key], list) else shown[key]
            missing += undocumented(inner, value, f"{path}{key}.")
    return missing


def parts(annotation: Any) -> list[type]:
    """The classes in a type, e.g. of tuple[Mailbox, ...]."""
    found = [part for argument in get_args(annotation) for part in parts(argument)]
    return [*found, annotation] if isinstance(annotation, type) else found


def defaults(key: str) -> list[Any]:
    """The defaults of every setting of that name, as YAML would have them."""
    models = [Config, MailConfig]
    found: list[Any] = []
    while models:
        for name, field in models.pop().model_fields.items():
            models += [part for part in parts(field.annotation) if issubclass(part, BaseModel)]
            if name == key and not field.is_required():
                value = field.get_default(call_default_factory=True)
                found += [sorted(value) if isinstance(value, frozenset | tuple) else value]
    return [*found, "25 MB"] if key == "max_size" else found


# --- mistakes


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    wrong = example()
    wrong["homeserver"]["url"] = "matrix.company.example"
    wrong["outward"]["hold"] = -1
    wrong["mappings"][0]["room"] = "support"
    wrong["connectors"]["mail"]["mailboxes"][0]["address"] = "support"
    wrong["connectors"]["mail"]["smarthost"]["port"] = 99999
    said = "\n".join(problems(tmp_path, wrong, {}))
    for place in (
        "homeserver.url: ",
        "outward.hold: ",
        "mappings.0.room: ",
        "connectors.mail.mailboxes.0.address: ",
        "connectors.mail.smarthost.port: ",
        "${PASSERELLE_AS_TOKEN}: ",
        "${PASSERELLE_SMTP_PASSWORD}: ",
    ):
        assert place in said


def test_an_unknown_key_is_an_error_wherever_it_is(tmp_path: Path) -> None:
    wrong = example()
    wrong["languages"] = "en"
    wrong["outward"]["holds"] = 3
    wrong["connectors"]["mail"]["listens"] = "here"
    wrong["connectors"]["mail"]["smarthost"]["passwort"] = "x"
    said = problems(tmp_path, wrong)
    expected = ("languages: ", "outward.holds: ", "connectors.mail.listens: ", "connectors.mail.smarthost.passwort: ")
    assert len(said) == len(expected)
    assert all(any(f": {place}" in line for line in said) for place in expected)


@pytest.mark.parametrize("name", ["matrix", "rooms", "the mail", ""])
def test_a_connector_is_not_called_as_a_part_of_the_bridge_nor_with_blanks(tmp_path: Path, name: str) -> None:
    wrong = example()
    wrong["connectors"][name] = wrong["connectors"]["mail"]
    (said,) = problems(tmp_path, wrong)
    assert "choose another name" in said


def test_a_mapping_to_an_unknown_connector_is_an_error(tmp_path: Path) -> None:
    wrong = example()
    wrong["mappings"][0]["connector"] = "mial"
    said = problems(tmp_path, wrong)
    assert [line.partition(": ")[2] for line in said] == [
        "mappings.0.connector: no connector is configured by this name; did you mean mail?"
    ]


def test_an_unknown_plugin_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    wrong = example()
    wrong["connectors"]["mail"]["plugin"] = "pigeon"
    assert [line for line in problems(tmp_path, wrong) if ": connectors.mail.plugin: " in line and KNOWN in line]


@pytest.mark.parametrize("text", ["", "- a list", "just text", "a: {b", "\x00"])
def test_a_file_that_is_no_configuration_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    assert len(problems(tmp_path, text)) == 1


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml", {})


# --- secrets


def test_no_mistake_shows_a_secret(tmp_path: Path) -> None:
    wrong = example()
    wrong["appservice"]["as_tokn"] = "${PASSERELLE_AS_TOKEN}"
    wrong["appservice"]["hs_token"] = ["${PASSERELLE_HS_TOKEN}"]
    wrong["connectors"]["mail"]["smarthost"] |= {"password": {"is": "smtp-secret-4711"}, "password_file": "/nowhere"}
    said = problems(tmp_path, wrong)
    assert len(said) >= 3
    assert "secret-4711" not in "\n".join(said)


def test_a_file_that_cannot_be_read_as_yaml_does_not_show_the_line_with_the_secret(tmp_path: Path) -> None:
    said = problems(tmp_path, 'appservice:\n  as_token: "as-secret-4711\n  hs_token: b: hs-secret-4711\n')
    assert "secret-4711" not in "\n".join(said)
    assert "line" in said[0]


def test_a_secret_can_be_the_first_line_of_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("as-secret-4711\nanother line\n")
    appservice = example()["appservice"] | {"as_token": f"${{file:{secret}}}", "hs_token": f"x${{file:{secret}}}y"}
    config = loaded(tmp_path, example() | {"appservice": appservice})
    assert config.appservice.as_token.get_secret_value() == "as-secret-4711"
    assert config.appservice.hs_token.get_secret_value() == "xas-secret-4711y"


@pytest.mark.parametrize(
    ("content", "named", "why"),
    [
        (None, "{}", "No such file or directory"),
        (b"\nas-secret-4711\n", "{}", "its first line is empty"),
        (b"as-secret-4711\xff\n", "{}", "it is not text in UTF-8"),
        (b"as-secret-4711\n", "token", "must be an absolute path"),
    ],
)
def test_a_file_of_a_secret_that_cannot_be_used_is_named_without_its_content(
    tmp_path: Path, content: bytes | None, named: str, why: str
) -> None:
    secret = tmp_path / "token"
    if content is not None:
        secret.write_bytes(content)
    place = named.format(secret)
    appservice = example()["appservice"] | {"as_token": f"${{file:{place}}}"}
    said = problems(tmp_path, example() | {"appservice": appservice})
    assert [line.partition(": ")[2] for line in said] == [f"appservice.as_token: ${{file:{place}}}: {why}"]


def test_a_loaded_configuration_does_not_print_its_secrets() -> None:
    config, connectors = load(EXAMPLE, SECRETS)
    assert "secret-4711" not in repr(config) + repr(connectors) + str(config.model_dump())


# --- who is inside


@pytest.mark.parametrize(
    "mxid",
    [
        "@passerelle:company.example",
        "@_passerelle_mail_jane=40customer.example:company.example",
        "@_passerelle_:company.example",
    ],
)
def test_the_bot_and_ghosts_are_ours_and_never_inside(tmp_path: Path, mxid: str) -> None:
    config = inside(tmp_path, users=[mxid])
    assert config.is_ours(mxid)
    assert not config.is_inside(mxid)


@pytest.mark.parametrize(
    "mxid",
    [
        "@_passerelle_mail_jane=40customer.example:evil.example",
        "@passerelle:evil.example",
        "@passerelle2:company.example",
        "@_passerelle_x:company.example.evil.example",
    ],
)
def test_a_user_who_only_looks_like_a_ghost_is_not_ours(tmp_path: Path, mxid: str) -> None:
    assert not inside(tmp_path).is_ours(mxid)


def test_people_of_our_own_server_are_inside_and_of_others_are_not(tmp_path: Path) -> None:
    config = inside(tmp_path)
    assert config.is_inside("@alice:company.example")
    for stranger in (
        "@alice:elsewhere.example",
        "@alice:company.example:8448",
        "@alice:company.example.evil",
        "alice",
        "",
    ):
        assert not config.is_inside(stranger)


def test_a_mail_domain_inside_makes_no_matrix_server_inside(tmp_path: Path) -> None:
    assert not inside(tmp_path, domains=["elsewhere.example"]).is_inside("@alice:elsewhere.example")


def test_named_servers_and_users_are_inside(tmp_path: Path) -> None:
    config = inside(tmp_path, servers=["branch.example"], users=["@partner:elsewhere.example"])
    assert config.is_inside("@anyone:branch.example")
    assert config.is_inside("@partner:elsewhere.example")
    assert not config.is_inside("@partner2:elsewhere.example")


def test_excepted_users_are_outside_by_id_and_by_beginning(tmp_path: Path) -> None:
    config = inside(
        tmp_path,
        servers=["branch.example"],
        users=["@_slack_boss:company.example"],
        except_users=["@intern:company.example", "@_slack_*"],
    )
    for outside in ("@intern:company.example", "@_slack_boss:company.example", "@_slack_a:branch.example"):
        assert not config.is_inside(outside)
    assert config.is_inside("@intern2:company.example")
    assert config.is_inside("@slack:company.example")


# --- where it is


PAGE = """\
homeserver:
  url: http://127.0.0.1:8008
  server_nmae: company.example
appservice:
  as_token: ${PASSERELLE_AS_TOKEN}
  hs_token: ${NOWHERE}
  listen: 29400
connectors:
  mail:
    plugin: mail
    mailboxes:
      - address: support@company.example
      - adress: sales@company.example
    smarthost:
      host: mail.company.example
      port: 99999
      port: 25
  helpdesk: {plugin: roundap}
permissions:
  map: {mial: [company.example]}
mappings:
  - {connector: mial, scope: x, room: support}
"""


def test_every_mistake_is_told_with_its_line_in_the_order_of_lines_and_with_what_was_meant(tmp_path: Path) -> None:
    assert problems(tmp_path, PAGE) == [
        "passerelle.yaml line 1: homeserver.server_name: this is needed and missing",
        "passerelle.yaml line 3: homeserver.server_nmae: there is no such setting here; did you mean server_name?",
        "passerelle.yaml line 6: appservice.hs_token: ${NOWHERE}: this environment variable is not set",
        "passerelle.yaml line 7: appservice.listen: Input should be a valid string",
        "passerelle.yaml line 13: connectors.mail.mailboxes.1.address: this is needed and missing",
        "passerelle.yaml line 13: connectors.mail.mailboxes.1.adress: there is no such setting here; "
        "did you mean address?",
        "passerelle.yaml line 17: connectors.mail.smarthost.port: this key stands twice in its section, "
        "in lines 16 and 17: keep one",
        f"passerelle.yaml line 18: connectors.helpdesk.plugin: must be one of: {KNOWN}; did you mean roundup?",
        "passerelle.yaml line 20: permissions.map.mial: no connector has this name; did you mean mail?",
        "passerelle.yaml line 22: mappings.0.room: must be a room id (!…) or an alias (#name:server)",
        "passerelle.yaml line 22: mappings.0.connector: no connector is configured by this name; did you mean mail?",
    ]


PEOPLE = """people:
  "@alice:company.example": {mail: a@company.example, helpdsk: alice}
  "@bob:elsewhere.example": {helpdesk: bob}
  carol: {helpdesk: carol}
  "@dora:company.example":
    helpdesk: Emil
  "@emil:company.example":
    helpdesk: " emil "
"""


def test_a_table_of_accounts_that_nobody_could_go_by_is_told_line_by_line(tmp_path: Path) -> None:
    wrong = example()
    helpdesk = {"plugin": "roundup", "url": "http://127.0.0.1:8917", "username": "bridge", "password": "x"}
    wrong["connectors"]["helpdesk"] = helpdesk
    text = yaml.safe_dump(wrong) + PEOPLE
    first = text.count("\n") - PEOPLE.count("\n") + 1
    assert [line.removeprefix("passerelle.yaml line ") for line in problems(tmp_path, text)] == [
        f"{first + 1}: people.@alice:company.example.mail: "
        "people have no accounts there: whoever writes names any address",
        f"{first + 1}: people.@alice:company.example.helpdsk: no connector has this name; did you mean helpdesk?",
        f"{first + 2}: people.@bob:elsewhere.example: belongs to nobody of the company: see inside",
        f"{first + 3}: people.carol: must be a Matrix id, such as @alice:company.example",
        f"{first + 7}: people.@emil:company.example.helpdesk: this account is @dora:company.example's already",
    ]


def test_a_scope_that_the_connector_does_not_have_is_told_with_those_that_it_has(tmp_path: Path) -> None:
    wrong = example()
    wrong["mappings"][0]["scope"] = "suport@company.example"
    wrong["mappings"][1]["scope"] = "postmaster"
    said = [line.partition(": ")[2] for line in problems(tmp_path, wrong)]
    assert said == [
        "mappings.0.scope: mail has no such scope; did you mean support@company.example?",
        "mappings.1.scope: mail has no such scope; it has: sales@company.example, support@company.example",
    ]


def test_a_connector_is_asked_for_its_scopes_once_for_all_mappings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    asked = list[str]()
    offered = connectors._offered
    monkeypatch.setattr(connectors, "_offered", lambda name, *rest: (asked.append(name), offered(name, *rest))[1])
    many = example()
    many["mappings"] += [{**many["mappings"][0], "room": f"!{nth}:company.example"} for nth in range(20)]
    loaded(tmp_path, many)
    assert sorted(asked) == sorted(set(asked))
    assert "mail" in asked


def test_an_unset_variable_is_told_once_and_not_as_a_wrong_value_too(tmp_path: Path) -> None:
    wrong = example()
    wrong["homeserver"]["url"] = "${NOWHERE}"
    wrong["retry"]["give_up"] = "${NOWHERE}"
    assert [line.partition(": ")[2] for line in problems(tmp_path, wrong)] == [
        "homeserver.url: ${NOWHERE}: this environment variable is not set",
        "retry.give_up: ${NOWHERE}: this environment variable is not set",
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("password: *secret-4711", "found undefined alias …"),
        ("password: !secret-4711", "could not determine a constructor for the tag …"),
        ("password: @secret-4711", "cannot start any token"),
        ("password: 2026-13-45", "put it in quotes"),
        ("password: {secret-4711", "expected ',' or '}'"),
        ("password: &a [*a]", "contains itself"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line_and_without_the_value(tmp_path: Path, line: str, why: str) -> None:
    said = problems(tmp_path, f"homeserver:\n  url: x\n  {line}\n")
    assert len(said) == 1
    assert re.match(r"passerelle\.yaml line [34]: ", said[0])
    assert why in said[0]
    assert "4711" not in said[0]
    assert "2026" not in said[0]


def test_what_an_anchor_shares_is_told_where_it_stands(tmp_path: Path) -> None:
    text = EXAMPLE.read_text() + "\nretry: &again {first: 1}\noutward:\n  <<: *again\n"
    said = problems(tmp_path, text)
    assert any(": retry: this key stands twice" in line for line in said)
    assert any("outward.first: there is no such setting here" in line for line in said)


def test_a_section_in_which_every_line_is_a_comment_is_as_good_as_none(tmp_path: Path) -> None:
    assert loaded(tmp_path, yaml.safe_dump(example()) + "\nretention:\n").retention == 365 * 86400


def test_a_fact_that_the_connector_does_not_know_is_told_with_those_that_it_knows(tmp_path: Path) -> None:
    wrong = example()
    wrong["mappings"][0]["only"] = {"subjct": "*invoice*", "weather": "rain"}
    said = [line.partition(": ")[2] for line in problems(tmp_path, wrong)]
    assert said[0] == "mappings.0.only.subjct: mail has no such fact to choose by; did you mean subject?"
    assert said[1].startswith("mappings.0.only.weather: mail has no such fact to choose by; it knows: ")
