"""The first configuration and its registration, as texts: pure functions of the answers that `passerelle init` got."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import NamedTuple
from urllib.parse import urlsplit

from bridge.model import Question, Starter

_URL = r"https?://[^\s/?#@]+(/[^\s?#@]*)?"
_ROOM = r"(#[^:\s]+:\S+|!\S+)?"
_NAME = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?"

QUESTIONS = (
    Question("homeserver", "Your homeserver's client-server URL, as the bridge reaches it", "http://127.0.0.1:8008",
             _URL, "http://127.0.0.1:8008"),
    Question("server-name", "Its server_name: the part of your Matrix user ids after the colon", "", _NAME,
             "company.example"),
    Question("address", "The bridge's URL, as the homeserver reaches it", "http://127.0.0.1:29400", _URL,
             "http://127.0.0.1:29400"),
    Question("listen", "host:port where the bridge listens for that", "{bind}", r"\S+:\d{1,5}", "127.0.0.1:29400"),
    Question("data", "Folder of the database and of everything received, relative to the configuration", "data",
             r"\S+", "data"),
    Question("domain", "The domain of your company's own addresses", "{server-name}",
             r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", "company.example"),
    Question("admin", "Your own Matrix id: you may do everything (empty: nobody may)", "", r"(@[^:\s]+:\S+)?",
             "@you:company.example"),
    Question("management-room", "Room where you are told of trouble: an alias or id (empty: none yet)", "", _ROOM,
             "#bridge-ops:company.example"),
    Question("room", "First room that is to see something: an alias or id (empty: none yet)", "", _ROOM,
             "#support:company.example"),
)  # fmt: skip

_CONFIG = """\
# The configuration of Passerelle. config/passerelle.yaml explains every setting; this file has those of a first start.
# It holds secrets: only the bridge's own user may read it. After a change: passerelle doctor --config {file}
#
# ${{NAME}} in a value is taken from the environment variable NAME, ${{file:/path}} is the first line of that file.

homeserver:
  # The client-server URL as the bridge reaches it.
  url: {homeserver}
  # The part of your user ids after the colon.
  server_name: {server_name}

appservice:
  # host:port where the homeserver reaches the bridge; `url` in the registration file leads here.
  listen: {listen}
  # These are what the registration file says, too.
  id: {id}
  as_token: '{as_token}'
  hs_token: '{hs_token}'
  bot: {bot}
  ghosts: {ghosts}

# The folder of the database and of everything received; relative to this file. Back it up.
data: {data}

# Where operators are told of trouble: a room id (!…) or an alias. Invite the bot there.
{management_room}

# Who belongs to the company. Everybody else is outside: shown, but obeyed in nothing.
inside:
  # The domains of your own addresses.
  domains: [{domain}]
  # Users of your server that are outside all the same: list the ghosts of every other bridge here.
  #except_users: ["@_slack_*"]

permissions:
  # Who may do everything, in every mapped room: Matrix ids or server names.
  administer: [{admin}]

outward:
  # Seconds in which a message on its way out can still be stopped (❌, !cancel) or changed (an edit).
  hold: 15

connectors:
  {connector}:
{section}
# Which part of a connector appears in which room. Invite the bot there, with the power to invite.
{mappings}
"""

_REGISTRATION = """\
id: {id}
# Where the homeserver reaches the bridge (`appservice.listen`).
url: {address}
as_token: '{as_token}'
hs_token: '{hs_token}'

# Not the bot: the homeserver lets only users of the namespaces below have devices, which encryption needs.
sender_localpart: {sender}

# Or ghosts would be slowed down after a handful of messages (the default is true).
rate_limited: false
receive_ephemeral: true
# Device lists and one-time keys in transactions (MSC3202); devices made without a login (MSC4190).
org.matrix.msc3202: true
io.element.msc4190: true

# Exclusive: nobody else can take these names.
namespaces:
  users:
    - regex: '@{bot}:{server}'
      exclusive: true
    - regex: '@{ghosts}.*:{server}'
      exclusive: true
  aliases:
    - regex: '#{ghosts}.*:{server}'
      exclusive: true
  rooms: []
"""

_OURS = """\
# What the homeserver knows of Passerelle. It holds secrets: only the homeserver and the bridge's admin may read it.
# Name it in the homeserver's configuration (Synapse: app_service_config_files) and restart the homeserver.

"""


def bound(address: str) -> str:
    """Where a bridge of that URL listens, as host:port: on this host only when the URL leads to this host."""
    parts = urlsplit(address)
    near = parts.hostname in ("localhost", "127.0.0.1", "::1")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{'127.0.0.1' if near else '0.0.0.0'}:{port if parts.port else 29400}"  # noqa: S104 - shown, and asked


class Names(NamedTuple):
    """What we are called: the registration's id, the bot's localpart, the beginning of those of ghosts."""

    id: str
    bot: str
    ghosts: str


def registration(server_name: str, address: str, tokens: tuple[str, str], names: Names, head: str = _OURS) -> str:
    """The registration file; `tokens` are as_token and hs_token. (Application Service API, "Registration")"""
    return head + _REGISTRATION.format(
        id=names.id,
        address=address.rstrip("/"),
        as_token=tokens[0],
        hs_token=tokens[1],
        sender=names.ghosts.rstrip("_"),
        bot=names.bot,
        ghosts=names.ghosts,
        server=server_name.replace(".", r"\.").replace("[", r"\[").replace("]", r"\]"),
    )


def config(
    answers: Mapping[str, str], tokens: tuple[str, str], names: Names, name: str, first: Starter, file: str
) -> str:
    """The configuration, with one connector called `name`."""
    management, admin = answers["management-room"], answers["admin"]
    return _CONFIG.format(
        file=file,
        homeserver=quoted(answers["homeserver"].rstrip("/")),
        server_name=quoted(answers["server-name"]),
        listen=quoted(answers["listen"]),
        data=quoted(answers["data"]),
        id=names.id,
        as_token=tokens[0],
        hs_token=tokens[1],
        bot=names.bot,
        ghosts=names.ghosts,
        management_room=f"management_room: {quoted(management)}"
        if management
        else f'#management_room: "#bridge-ops:{answers["server-name"]}"',
        domain=quoted(answers["domain"]),
        admin=quoted(admin) if admin else "",
        connector=name,
        section=indent(first.section, "    "),
        mappings=_mappings(answers, name, first.scope),
    )


def _mappings(answers: Mapping[str, str], name: str, scope: str) -> str:
    room = answers["room"]
    shown = quoted(room or f"#support:{answers['server-name']}")
    lines = f"mappings:\n  - connector: {name}\n    scope: {quoted(scope)}\n    room: {shown}"
    return lines if room else indent(lines, "#")


def steps(answers: Mapping[str, str], bot: str, config: str, registration: str, more: Sequence[str]) -> str:
    """What is to be done now, for people."""
    rooms = " and ".join(filter(None, (answers["room"], answers["management-room"])))
    who = f"@{bot}:{answers['server-name']}"
    todo = [
        [f"Let the homeserver read {registration}: it has mode 0600 and is yours. On Debian's Synapse, for example:",
         f"    install -o root -g matrix-synapse -m 0640 {registration} /etc/matrix-synapse/passerelle.yaml"],
        ["Name it in the homeserver's configuration, and restart the homeserver:",
         "    Synapse: app_service_config_files: [/etc/matrix-synapse/passerelle.yaml]"
         "    (homeserver.yaml, or a file in conf.d)",
         "    Dendrite: app_service_api.config_files    Conduit, Tuwunel: send the file's content to the admin room"],
        list(more),
        [f"Make {rooms}, without encryption."] if rooms else [],
        [f"passerelle run --config {config}    (as a service: config/passerelle.service)"],
        [f"Invite {who} into {rooms or 'each room you map'}, as a moderator. In the room:",
         f"    /invite {who}", f"    /op {who} 50"],
        [f"passerelle doctor --config {config}    says what is still wrong, and what to do"],
    ]  # fmt: skip
    numbered = [[f"{number}. {lines[0]}", *(f"   {line}" for line in lines[1:])] for number, lines in _kept(todo)]
    return "\n".join(line for lines in numbered for line in lines)


def _kept(todo: Sequence[list[str]]) -> list[tuple[int, list[str]]]:
    return list(enumerate((lines for lines in todo if lines), 1))


def quoted(value: str) -> str:
    """A string as YAML has it: what JSON writes is YAML too."""
    return json.dumps(value, ensure_ascii=False)
