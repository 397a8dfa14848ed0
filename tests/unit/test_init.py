"""`passerelle init`: both files or none, never overwritten, readable by nobody else, and good enough to start with."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.cli import first, init, main
from bridge.config import load
from bridge.doctor.registration import compared
from plugins.mail.config import Config as MailConfig
from tests.peers import ROOT

SERVER = "company.example"


def initialised(folder: Path, *flags: str) -> Any:
    """Its exit status: 0, or why not."""
    with pytest.raises(SystemExit) as ended:
        main(["init", "--folder", str(folder), *flags])
    return ended.value.code


def answered(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Somebody sits at the terminal; returns what was asked."""
    asked: list[str] = []
    waiting = iter(answers)

    def reply(prompt: str) -> str:
        asked.append(prompt)
        return next(waiting, "")

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", reply)
    monkeypatch.setattr("getpass.getpass", reply)
    return asked


# --- what it writes


def test_one_flag_is_enough_for_a_configuration_that_loads_and_a_registration_that_fits_it(tmp_path: Path) -> None:
    assert initialised(tmp_path, "--server-name", SERVER) == 0
    config, connectors = load(tmp_path / "passerelle.yaml", {})
    assert config.homeserver.server_name == SERVER
    assert config.inside.domains == {SERVER}
    assert config.mappings == ()
    assert config.data == tmp_path / "data"
    mail = connectors["mail"][1]
    assert isinstance(mail, MailConfig)
    assert mail.addresses == {f"support@{SERVER}"}
    assert (mail.smarthost.host, mail.smarthost.port, mail.smarthost.security) == (f"mail.{SERVER}", 587, "starttls")
    assert [line.state for line in compared(tmp_path / "registration.yaml", config)] == ["ok"]


def test_every_answer_lands_where_it_belongs(tmp_path: Path) -> None:
    flags = {
        "homeserver": "https://matrix.firm.example/", "server-name": "firm.example:8448",
        "address": "http://bridge.lan:9000", "domain": "firm.test", "admin": "@ann:firm.example:8448",
        "management-room": "#ops:firm.example:8448", "room": "!abc:firm.example", "mailbox": "Desk@firm.test",
        "mail-listen": "0.0.0.0:25", "smarthost": "smtp.firm.test:465", "smarthost-user": 'b"ot',
        "smarthost-password": "se'cr\\et: #4711",
    }  # fmt: skip
    assert initialised(tmp_path, *(part for name, value in flags.items() for part in (f"--{name}", value))) == 0
    config, connectors = load(tmp_path / "passerelle.yaml", {})
    mail = connectors["mail"][1]
    assert config.homeserver.url == "https://matrix.firm.example"
    assert config.appservice.listen == "0.0.0.0:9000"
    assert config.may_administer("@ann:firm.example:8448")
    assert config.management_room == "#ops:firm.example:8448"
    assert [(each.connector, each.scope, each.room) for each in config.mappings] == [
        ("mail", "desk@firm.test", "!abc:firm.example")
    ]
    assert (mail.smarthost.security, mail.smarthost.username) == ("tls", 'b"ot')
    assert mail.smarthost.secret() == "se'cr\\et: #4711"
    assert mail.trusts("10.1.2.3")
    assert not mail.trusts("8.8.8.8")
    paper = yaml.safe_load((tmp_path / "registration.yaml").read_text())
    assert paper["url"] == "http://bridge.lan:9000"
    assert re.fullmatch(paper["namespaces"]["users"][0]["regex"], "@passerelle:firm.example:8448")


def test_both_files_are_ours_alone_and_their_tokens_are_fresh_long_and_the_same(tmp_path: Path) -> None:
    tokens = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert initialised(folder, "--server-name", SERVER) == 0
        paper = yaml.safe_load((folder / "registration.yaml").read_text())
        service = load(folder / "passerelle.yaml", {})[0].appservice
        assert service.as_token.get_secret_value() == paper["as_token"]
        assert service.hs_token.get_secret_value() == paper["hs_token"]
        tokens |= {paper["as_token"], paper["hs_token"]}
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len(tokens) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in tokens)


def test_the_sample_for_development_is_what_init_writes() -> None:
    names = first.Names("passerelle", "passerelle", "_passerelle_")
    tokens = "PLACEHOLDER-replace-me-as-token", "PLACEHOLDER-replace-me-hs-token"
    text = first.registration(SERVER, "http://127.0.0.1:29400", tokens, names, head="")
    assert (ROOT / "registration.yaml").read_text().endswith(text)


def test_what_to_do_next_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    initialised(tmp_path, "--server-name", SERVER, "--room", "#support:company.example")
    said = capsys.readouterr().out
    for words in (
        str(tmp_path / "registration.yaml"), "app_service_config_files", "restart the homeserver", "-m 0640",
        "Invite @passerelle:company.example into #support:company.example", "passerelle doctor --config",
        "passerelle run --config", "support@company.example    smtp:[127.0.0.1]:2525",
    ):  # fmt: skip
        assert words in said
    assert yaml.safe_load((tmp_path / "registration.yaml").read_text())["as_token"] not in said


# --- what it refuses


@pytest.mark.parametrize("name", init.FILES)
@pytest.mark.parametrize("kind", ["file", "link"])
def test_it_never_overwrites_and_writes_both_or_none(tmp_path: Path, name: str, kind: str) -> None:
    there = tmp_path / name
    if kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to(tmp_path / "nowhere")
    assert "never overwrites" in initialised(tmp_path, "--server-name", SERVER)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert kind == "link" or there.read_text() == "mine"


def test_what_appears_meanwhile_is_kept_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = init._write

    def late(files: dict[Path, str]) -> None:
        (tmp_path / "registration.yaml").write_text("mine")
        write(files)

    monkeypatch.setattr(init, "_write", late)
    assert "Nothing was written" in initialised(tmp_path, "--server-name", SERVER)
    assert [path.name for path in tmp_path.iterdir()] == ["registration.yaml"]
    assert (tmp_path / "registration.yaml").read_text() == "mine"


def test_every_flag_that_is_missing_or_wrong_is_told_at_once(tmp_path: Path) -> None:
    said = initialised(tmp_path, "--address", "bridge.lan", "--room", "support", "--mailbox", "support")
    assert all(f"--{name}: " in said for name in ("server-name", "address", "room", "mailbox"))
    assert "it must look like http://127.0.0.1:29400" in said
    assert list(tmp_path.iterdir()) == []


def test_answers_that_do_not_go_together_are_told_before_anything_is_written(tmp_path: Path) -> None:
    flags = ("--smarthost", "mail.company.example:99999", "--server-name", SERVER)
    assert "smarthost.port" in initialised(tmp_path, *flags)
    assert list(tmp_path.iterdir()) == []


# --- in a terminal


def test_in_a_terminal_what_no_flag_says_is_asked_with_its_default_until_it_makes_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answered(monkeypatch, "matrix", "", "firm.example", "", "", "", "", "@ann:firm.example")
    assert initialised(tmp_path, "--room", "#desk:firm.example", "--smarthost-user", "bridge") == 0
    config, _ = load(tmp_path / "passerelle.yaml", {"PASSERELLE_SMTP_PASSWORD": "x"})
    assert config.homeserver.server_name == "firm.example"
    assert config.homeserver.url == "http://127.0.0.1:8008"
    assert config.may_administer("@ann:firm.example")
    assert [each.room for each in config.mappings] == ["#desk:firm.example"]
    assert "it must look like http://127.0.0.1:8008" in capsys.readouterr().out
    assert len([each for each in asked if each.startswith("Your homeserver's")]) == 2
    assert any(each.endswith("[support@firm.example]: ") for each in asked)
    assert not any("First room" in each for each in asked)


def test_whoever_goes_away_from_the_terminal_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: str) -> str:
        raise EOFError

    answered(monkeypatch)
    monkeypatch.setattr("builtins.input", gone)
    assert "Nothing was written" in initialised(tmp_path)
    assert list(tmp_path.iterdir()) == []
