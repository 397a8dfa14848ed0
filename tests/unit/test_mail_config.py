"""How mail may arrive, as configuration says it: the samples load, and what makes no sense is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bridge.config import load
from plugins.mail.config import LOCAL, Config
from tests.peers import ROOT

SUPPORT = "support@company.example"
IMAP = {"host": "imap.company.example", "username": "support", "password": "secret-4711"}
SECRETS = {
    "PASSERELLE_AS_TOKEN": "as-secret-4711",
    "PASSERELLE_HS_TOKEN": "hs-secret-4711",
    "PASSERELLE_SMTP_PASSWORD": "smtp-secret-4711",
    "PASSERELLE_IMAP_PASSWORD": "imap-secret-4711",
}


def config(imap: dict[str, Any] | None = None, **more: Any) -> Config:
    mailbox = {"address": SUPPORT, **({"imap": IMAP | imap} if imap is not None else {})}
    return Config.model_validate({"mailboxes": [mailbox], "smarthost": {"host": "localhost"}, **more})


@pytest.mark.parametrize("name", ["mail-imap.yaml", "mail-lmtp.yaml"])
def test_each_sample_loads_in_place_of_the_examples_mail(tmp_path: Path, name: str) -> None:
    whole = yaml.safe_load((ROOT / "config" / "passerelle.yaml").read_text())
    sample = yaml.safe_load((ROOT / "config" / name).read_text())
    assert set(sample) == {"connectors", "mappings"}
    path = tmp_path / "passerelle.yaml"
    path.write_text(yaml.safe_dump(whole | sample))
    settings, connectors = load(path, SECRETS)
    mail = connectors["mail"][1]
    assert isinstance(mail, Config)
    assert {mapping.scope for mapping in settings.mappings} == mail.addresses
    assert not mail.smtp
    assert "4711" not in repr(connectors)


def test_smtp_is_listened_to_unless_something_else_brings_the_mail() -> None:
    assert config().listeners == ("127.0.0.1:2525",)
    assert config({}).listeners == ()
    assert config(listen_lmtp="/run/lmtp.sock").listeners == ("/run/lmtp.sock",)
    assert config({}, listen="[::1]:25", listen_lmtp="127.0.0.1:24").listeners == ("[::1]:25", "127.0.0.1:24")


def test_what_an_account_says_is_understood() -> None:
    imap = config({"since": date(2026, 11, 1), "folders": ["INBOX", "Orders"]}).mailboxes[0].imap
    assert imap is not None
    assert (imap.port, imap.security, imap.since, imap.secret()) == (993, "tls", date(2026, 11, 1), "secret-4711")


@pytest.mark.parametrize(
    ("imap", "said"),
    [
        ({"security": "none"}, "security none would send the password unencrypted"),
        ({"password": None}, "go together"),
        ({"username": ""}, "at least 1 character"),
        ({"password_env": "X"}, "give one of password"),
        ({"folders": []}, "at least 1 item"),
        ({"folders": ["INBOX", "INBOX"]}, "name each folder once"),
        ({"since": "yesterday"}, "valid date"),
        ({"every": 0}, "greater than or equal to 1"),
        ({"every": 1800}, "less than or equal to 1500"),
        ({"folder": "INBOX"}, "Extra inputs"),
    ],
)
def test_an_account_that_makes_no_sense_is_refused(imap: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        config(imap)
    assert "4711" not in str(refused.value.errors(include_input=False))


@pytest.mark.parametrize("where", ["lmtp.sock", "localhost", ":24", "127.0.0.1:99999"])
def test_a_place_to_listen_to_is_an_address_and_port_or_a_path(where: str) -> None:
    with pytest.raises(ValidationError, match="or the path of a socket"):
        config(listen_lmtp=where)
    with pytest.raises(ValidationError, match=r"must be host:port"):
        config(listen="/run/smtp.sock")


def test_who_could_forge_a_verdict_must_be_known() -> None:
    with pytest.raises(ValidationError, match="trusted_relays"):
        config(listen_lmtp="0.0.0.0:24", authserv_id="mx")
    assert config(listen_lmtp="/run/lmtp.sock", authserv_id="mx")
    assert config({}, authserv_id="mx")


def test_a_socket_is_guarded_by_its_folder_and_not_by_networks() -> None:
    relays = config(listen_lmtp="/run/lmtp.sock", trusted_relays=["10.0.0.0/8"])
    assert relays.trusts(LOCAL)
    assert not relays.trusts("")
    assert not relays.trusts("127.0.0.1")


@pytest.mark.parametrize("server", ["ns.company.example:53", "127.0.0.1", "127.0.0.1:70000"])
def test_a_name_server_is_an_address_and_a_port(server: str) -> None:
    with pytest.raises(ValidationError, match="IP address and a port"):
        config(dns=[server])
