"""Whose account in a tool is whose by the configuration: whether that fits the people and connectors there are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bridge.config.connectors import Connectors
from bridge.config.page import Mistakes, suggestion

if TYPE_CHECKING:
    from bridge.config import Config

_MXID = re.compile(r"@[^:\s]+:\S+")


def fits(config: Config, connectors: Connectors, mistakes: Mistakes) -> None:
    """Take down every line of `people` that nobody could go by."""
    owners: dict[tuple[str, str], str] = {}
    for mxid, accounts in config.people.items():
        if not _MXID.fullmatch(mxid):
            mistakes.at(("people", mxid), "must be a Matrix id, such as @alice:company.example")
        elif not config.is_inside(mxid):
            mistakes.at(("people", mxid), "belongs to nobody of the company: see inside")
        for name, account in accounts.items():
            place = ("people", mxid, name)
            if name not in config.connectors:
                mistakes.at(place, f"no connector has this name{suggestion(name, config.connectors)}")
            elif name in connectors and connectors[name][0].addressed:
                mistakes.at(place, "people have no accounts there: whoever writes names any address")
            other = owners.setdefault((name, account.strip().casefold()), mxid)
            if other != mxid:
                mistakes.at(place, f"this account is {other}'s already")
