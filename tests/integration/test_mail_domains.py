"""What the self-check says of a mailbox's domain, by a real name server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bridge.model import Finding
from plugins.mail import domains
from plugins.mail.domains import Domains
from tests.peers import free_port
from tests.peers.dnsmasq import Dnsmasq

pytestmark = pytest.mark.debian("dnsmasq-base", "dnsmasq")
MX = "mx-host=company.example,mx.company.example,10"
HOSTS = ["host-record=smart.company.example,192.0.2.25", "host-record=mx.company.example,192.0.2.1"]
DMARC = 'txt-record=_dmarc.company.example,"v=DMARC1; p=none"'


def spf(record: str, name: str = "company.example") -> str:
    return f'txt-record={name},"{record}"'


async def found(folder: Path, *records: str, smarthost: str = "smart.company.example") -> list[Finding]:
    """The findings about MX, SPF and DMARC."""
    async with Dnsmasq(folder, [*HOSTS, *records]) as server:
        return await Domains([server.where], smarthost).check("company.example")


async def test_a_domain_with_everything_is_fine(tmp_path: Path) -> None:
    said = await found(tmp_path, MX, DMARC, spf("v=spf1 a:smart.company.example -all"))
    assert [each.ok for each in said] == [True] * 3
    assert [each.what for each in said] == [
        "company.example: mail goes to mx.company.example",
        "the SPF record of company.example allows 192.0.2.25 (smarthost)",
        "company.example has a DMARC record",
    ]


async def test_a_domain_with_nothing_is_told_what_to_add(tmp_path: Path) -> None:
    said = await found(tmp_path)
    assert [each.ok for each in said] == [False] * 3
    assert all(each.remedy for each in said)
    assert "no MX record" in said[0].what
    assert "v=spf1 mx a:smart.company.example -all" in said[1].remedy
    assert "v=DMARC1" in said[2].remedy


@pytest.mark.parametrize(
    ("record", "allowed"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", True),
        ("v=spf1 ip4:198.51.100.0/24 -all", False),
        ("v=spf1 ip6:2001:db8::/32 ~all", False),
        ("v=spf1 mx -all", False),
        ("v=spf1 mx/24 -all", True),
        ("v=spf1 a:smart.company.example ~all", True),
        ("v=spf1 include:_spf.provider.example -all", True),
        ("v=spf1 -include:_spf.provider.example +all", False),
        ("v=spf1 redirect=_spf.provider.example", True),
        ("v=spf1 -all", False),
        ("v=spf1 ?all", True),
        ("v=spf1", True),
    ],
)
async def test_whether_the_smarthost_may_send_is_judged_as_receivers_do(
    tmp_path: Path, record: str, allowed: bool
) -> None:
    provider = spf("v=spf1 ip4:192.0.2.25 -all", "_spf.provider.example")
    said = await found(tmp_path, MX, DMARC, spf(record), provider)
    assert said[1].ok is allowed, said[1]


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 include:loop.example -all",
        "v=spf1 exists:%{i}.company.example -all",
        "v=spf1 include:%{d}.company.example -all",
        "v=spf1 ptr -all",
    ],
)
async def test_what_cannot_be_judged_is_said_and_counts_as_no_failure(tmp_path: Path, record: str) -> None:
    said = await found(tmp_path, MX, DMARC, spf(record), spf("v=spf1 include:loop.example -all", "loop.example"))
    assert said[1].ok
    assert "SPF record" in said[1].what
    assert "cannot be judged" in said[1].what or "look-ups" in said[1].what


async def test_two_spf_records_are_an_error(tmp_path: Path) -> None:
    said = await found(tmp_path, MX, DMARC, spf("v=spf1 -all"), spf("v=spf1 +all"))
    assert not said[1].ok
    assert "2 SPF records" in said[1].what


async def test_name_servers_that_do_not_answer_are_no_failure_and_cost_little_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(domains, "TIMEOUT", 0.4)
    began = time.monotonic()
    said = await Domains([f"127.0.0.1:{free_port()}"], "smart.company.example").check("company.example")
    assert time.monotonic() - began < 10
    assert [each.ok for each in said] == [True] * 3
    assert all("cannot be looked up" in each.what for each in said)


async def test_names_that_are_reserved_for_examples_are_not_looked_up() -> None:
    assert await Domains([], "smart.company.example").check("company.example") == []
