"""The registration file, compared with the configuration: what differs is found before the homeserver says no."""

from __future__ import annotations

import re
import stat
from hmac import compare_digest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridge.config import Config, page
from bridge.doctor.line import Line, note, ok, trouble

ABOUT = "registration file"


def compared(path: Path | None, config: Config) -> list[Line]:
    """What is wrong in the file. Blocks: for a thread."""
    if path is None:
        return []
    try:
        found = page.read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        return [trouble(ABOUT, f"{path}: {why}", "name it with --registration")]
    except page.PageError as error:
        return [trouble(ABOUT, f"{path} line {error.line}: {error}", "mend it; registration.yaml shows one")]
    said = found.value if isinstance(found.value, dict) else {}
    mend = "make both the same, and restart the homeserver"
    wrong = [
        trouble(ABOUT, f"{path.name} line {found.line(place)}: {what}", mend) for place, what in _wrong(said, config)
    ]
    return [*wrong, *_read_by_others(path)] or [ok(ABOUT, f"{path} fits the configuration")]


def _wrong(said: dict[str, Any], config: Config) -> list[tuple[page.Place, str]]:
    service = config.appservice
    found: list[tuple[page.Place, str]] = []
    if said.get("id") != service.id:
        found.append((("id",), f"id is not {service.id}, as `appservice.id` is"))
    for key, secret in (("as_token", service.as_token), ("hs_token", service.hs_token)):
        if not compare_digest(str(said.get(key, "")).encode(), secret.get_secret_value().encode()):
            found.append(((key,), f"{key} differs from `appservice.{key}`"))
    port = urlsplit(str(said.get("url", ""))).port
    if said.get("url") and port and str(port) != service.listen.rpartition(":")[2]:
        found.append((("url",), f"url leads to port {port}, the bridge listens on {service.listen}"))
    if said.get("rate_limited") is not False:
        found.append((("rate_limited",), "rate_limited must be false, or ghosts are slowed down"))
    if said.get("io.element.msc4190") is not True:
        found.append(
            (("io.element.msc4190",), "io.element.msc4190 must be true, or the bot and ghosts have no devices")
        )
    return [*found, *_names(said, config)]


def _names(said: dict[str, Any], config: Config) -> list[tuple[page.Place, str]]:
    """Whether the bot and the ghosts are exclusively ours, and nobody else is."""
    server, place = config.homeserver.server_name, ("namespaces", "users")
    found: list[tuple[page.Place, str]] = []
    if said.get("sender_localpart") == config.appservice.bot:
        found.append((("sender_localpart",), "the bot must be another user than sender_localpart"))
    for what, mxid in (("the bot", config.bot_mxid), ("ghosts", f"{config.ghost_prefix}x:{server}")):
        if not _ours(said, mxid):
            found.append((place, f"no exclusive namespace has {what} ({mxid})"))
    if _ours(said, f"@somebody.else:{server}"):
        found.append((place, "the exclusive namespaces take everybody's names"))
    return found


def _ours(said: dict[str, Any], mxid: str) -> bool:
    spaces = said.get("namespaces")
    users = spaces.get("users") if isinstance(spaces, dict) else None
    for each in users if isinstance(users, list) else ():
        if isinstance(each, dict) and each.get("exclusive") is True and _matches(str(each.get("regex", "")), mxid):
            return True
    return False


def _matches(regex: str, mxid: str) -> bool:
    try:
        return re.match(regex, mxid) is not None  # from the beginning on, as Synapse does
    except re.error:
        return False


def _read_by_others(path: Path) -> list[Line]:
    if path.stat().st_mode & stat.S_IROTH:
        return [note(ABOUT, f"everybody on this host may read {path}, with its tokens", f"chmod o= {path}")]
    return []
