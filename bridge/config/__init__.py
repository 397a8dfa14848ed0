"""The configuration: one YAML file, secrets from the environment or files, frozen models, every problem at once."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Set
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator, model_validator

from bridge.config import connectors as configured
from bridge.config import page, people
from bridge.config.connectors import Connectors as Connectors
from bridge.config.page import Mistakes
from bridge.http import trusting


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:29400 or [::1]:29400")
    return value


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has one line for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Homeserver(Section):
    """The homeserver as this bridge reaches it."""

    url: str = Field(description="Client-server URL as the bridge reaches it, e.g. http://127.0.0.1:8008")
    server_name: str = Field(description="The part of user ids after the colon")
    in_flight: int = Field(16, ge=1, le=256, description="Requests to the homeserver at the same time")
    timeout: float = Field(60, gt=0, description="Seconds until a request counts as failed")
    ca_file: Path | None = Field(None, description="PEM file of a certificate authority to trust besides the system's")

    @field_validator("ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        _usable(lambda: trusting(value))
        return value

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")


class Appservice(Section):
    """What the registration file says, and where we listen for the homeserver."""

    listen: str = Field("127.0.0.1:29400", description="host:port where the homeserver reaches the bridge")
    id: str = Field("passerelle", description="The id in the registration file")
    as_token: SecretStr = Field(description="The as_token of the registration file")
    hs_token: SecretStr = Field(description="The hs_token of the registration file")
    bot: str = Field("passerelle", description="Localpart of the bot (not the sender_localpart)")
    ghosts: str = Field("_passerelle_", description="Prefix of the ghosts' localparts")
    max_body: int = Field(64 * 2**20, ge=2**20, description="Largest transaction taken, in bytes")
    certificate: Path | None = Field(None, description="PEM file: the listener then speaks TLS 1.2 or newer, only")
    key: Path | None = Field(None, description="PEM file of the certificate's key, unless in the same file")

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        return _host_and_port(value)

    @model_validator(mode="after")
    def _certified(self) -> Appservice:
        if self.key and not self.certificate:
            raise ValueError("key: needs certificate")
        _usable(self.tls)
        return self

    def tls(self) -> ssl.SSLContext | None:
        """What the listener shows, None without a certificate. Raises `OSError` when that cannot be used."""
        if not self.certificate:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context


class Web(Section):
    """What strangers may ask of the listener, webhooks above all; who shows the hs_token is not limited."""

    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="Networks of your reverse proxies; only from them X-Forwarded-For is believed"
    )
    per_minute: int = Field(
        600, ge=0, description="Requests of one address in a minute (its network: 4 times as many); 0: no limit"
    )
    at_once: int = Field(16, ge=1, le=64, description="Requests of one address at the same time (its network: twice)")


def _usable(load: Callable[[], object]) -> None:
    """Raises `ValueError` with the reason when a PEM file cannot be used."""
    try:
        load()
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"the PEM file cannot be used: {error.strerror or error}") from None


class Inside(Section):
    """Who belongs to the company. Everybody else is outside and can ask for nothing."""

    domains: frozenset[str] = Field(
        frozenset(), description="Domains of the company's own addresses; a sender in them counts only when verified"
    )
    servers: frozenset[str] = Field(frozenset(), description="Matrix servers besides our own whose users are inside")
    users: frozenset[str] = Field(frozenset(), description="Single Matrix user ids that are inside")
    except_users: frozenset[str] = Field(
        frozenset(), description="User ids (or prefixes ending in *) that are outside although their server is inside"
    )


class Outward(Section):
    """How a message leaves the company."""

    hold: float = Field(15, ge=0, le=3600, description="Seconds in which an outward message can still be stopped")
    ask_again: float = Field(600, ge=10, description="Seconds after which a message not yet sent is asked again")
    domains: frozenset[str] = Field(
        frozenset(), description="When set, the only domains of addresses that messages may go to"
    )
    max_size: int = Field(25_000_000, ge=1000, description="Largest sum of a message's files, in bytes")
    per_address: int = Field(
        20, ge=0, description="Messages of one mailbox to one address in 10 minutes before it is asked; 0: never"
    )


EVERYBODY = "*"


class Permissions(Section):
    """Who of the company may do what: Matrix ids, server names, or "*" for everybody inside."""

    use: frozenset[str] = Field(frozenset({EVERYBODY}), description="Who may answer outward, ask and change items")
    map: dict[str, frozenset[str]] = Field(
        {}, description='Who may map rooms in chat, by connector ("*": every connector); administrators always may'
    )
    administer: frozenset[str] = Field(frozenset(), description="Who may do everything, in every mapped room")


class Retry(Section):
    """How long a delivery is tried."""

    first: float = Field(1, gt=0, description="Seconds before the second attempt; doubled each time, with jitter")
    longest: float = Field(300, gt=0, description="Most seconds between two attempts")
    give_up: float = Field(5 * 86400, gt=0, description="Seconds after which a delivery becomes a dead letter")


class Metrics(Section):
    """Where Prometheus may ask."""

    listen: str = Field("", description='host:port of GET /metrics, never the appservice\'s listener; "": nowhere')

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        return _host_and_port(value) if value else value


class Log(Section):
    """What the log looks like; it goes to stderr."""

    format: str = Field("text", pattern="^(text|json)$", description="text, or json: one object on each line")
    level: str = Field("info", pattern="^(debug|info|warning|error)$", description="What matters less is left out")


class Rooms(Section):
    """Rooms that conversations get of their own (`!room`)."""

    space: str = Field("", description="Space that they are put into: room id or alias; the bot must be invited there")

    @field_validator("space")
    @classmethod
    def _space(cls, value: str) -> str:
        if value and not re.match(r"^(!\S+|#[^:\s]+:\S+)$", value):
            raise ValueError("must be a room id (!…) or an alias (#name:server)")
        return value


class Mapping(Section):
    """A connector's scope and the room where its conversations live."""

    connector: str = Field(description="Name of a connector below")
    scope: str = Field(description="What of it: a mailbox address, a project …")
    room: str = Field(description="Room id (!…) or alias (#…:server)")
    private: bool = Field(False, description="Whether the room may see the tool's private notes")
    new: bool = Field(True, description="Whether new items appear by themselves, or only what people link or mention")
    only: dict[str, tuple[str, ...]] = Field(
        {},
        description="Take only what fits: a fact by its name, and a pattern or a list of them (* stands for anything)",
    )

    @field_validator("only", mode="before")
    @classmethod
    def _patterns(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: (one,) if isinstance(one, str) else one for key, one in value.items()}

    @field_validator("room")
    @classmethod
    def _room(cls, value: str) -> str:
        if not re.match(r"^(!\S+|#[^:\s]+:\S+)$", value):
            raise ValueError("must be a room id (!…) or an alias (#name:server)")
        return value


class Config(Section):
    """All that an admin decides."""

    homeserver: Homeserver
    appservice: Appservice
    web: Web = Web()
    data: Path = Field(Path("data"), description="Folder of the database and the spool, relative to this file")
    management_room: str = Field("", description="Room id or alias where operators are told of trouble")
    rooms: Rooms = Rooms()
    inside: Inside = Inside()
    permissions: Permissions = Permissions()
    people: dict[str, dict[str, Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]]] = Field(
        {}, description="Accounts of people in the tools: Matrix id, then connector and account; wins over !me"
    )
    outward: Outward = Outward()
    retry: Retry = Retry()
    metrics: Metrics = Metrics()
    log: Log = Log()
    retention: float = Field(365 * 86400, gt=0, description="Seconds that raw messages and files are kept")
    max_file: int = Field(50_000_000, ge=1000, description="Largest file taken from or given to Matrix, in bytes")
    inline_text: int = Field(4000, ge=200, le=20000, description="Characters shown before a text becomes a file")
    catch_up: float = Field(600, gt=0, description="Seconds between two looks for events the homeserver did not push")
    language: str = Field("en", pattern="^(en|fr)$", description="Language of the bot: en or fr")
    connectors: dict[str, Any] = Field(description="name: {plugin: …, and what that plugin needs}")
    mappings: tuple[Mapping, ...] = ()

    @property
    def bot_mxid(self) -> str:
        return f"@{self.appservice.bot}:{self.homeserver.server_name}"

    @property
    def ghost_prefix(self) -> str:
        return f"@{self.appservice.ghosts}"

    def is_ours(self, mxid: str) -> bool:
        """Whether the user is the bot or a ghost of this bridge."""
        return mxid == self.bot_mxid or (
            mxid.startswith(self.ghost_prefix) and mxid.endswith(f":{self.homeserver.server_name}")
        )

    def is_inside(self, mxid: str) -> bool:
        """Whether a Matrix user belongs to the company: never a ghost of any bridge, never a federated user."""
        if self.is_ours(mxid) or any(_matches(mxid, pattern) for pattern in self.inside.except_users):
            return False
        server = mxid.partition(":")[2]
        return mxid in self.inside.users or server in {self.homeserver.server_name, *self.inside.servers}

    def may_use(self, mxid: str) -> bool:
        """Whether somebody may ask the bridge for anything."""
        permissions = self.permissions
        listed = permissions.use.union(*permissions.map.values(), permissions.administer)
        return self.is_inside(mxid) and _listed(mxid, listed)

    def may_map(self, mxid: str, connector: str) -> bool:
        """Whether somebody may map rooms to scopes of that connector."""
        by_connector = self.permissions.map
        listed = by_connector.get(connector, frozenset()) | by_connector.get(EVERYBODY, frozenset())
        return self.is_inside(mxid) and _listed(mxid, listed | self.permissions.administer)

    def may_administer(self, mxid: str) -> bool:
        return self.is_inside(mxid) and _listed(mxid, self.permissions.administer)


def _listed(mxid: str, names: Set[str]) -> bool:
    return not names.isdisjoint((mxid, mxid.partition(":")[2], EVERYBODY))


def _matches(mxid: str, pattern: str) -> bool:
    return mxid.startswith(pattern[:-1]) if pattern.endswith("*") else mxid == pattern


def load(path: Path, environment: dict[str, str] | None = None) -> tuple[Config, Connectors]:
    """Read the file; returns the configuration and the connectors.

    `${NAME}` in a value is replaced from the environment, `${file:/path}` by the first line of that file. Raises
    `ConfigError` with every problem found, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file; name yours with --config, or make one: init"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or type(error).__name__}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: it is not text in UTF-8"]) from None
    return read(text, path, environment)


def read(text: str, path: Path, environment: dict[str, str] | None = None) -> tuple[Config, Connectors]:
    """As `load`, of a text that is, or will be, in that file."""
    try:
        found = page.read(text)
    except page.PageError as error:
        where = f"{path.name} line {error.line}" if error.line else path.name
        raise ConfigError([f"{where}: {error}"]) from None
    if not isinstance(found.value, dict):
        raise ConfigError([f"{path.name}: must be a mapping of keys to values; see config/passerelle.yaml"])
    mistakes = Mistakes(path.name, found)
    mistakes.doubles()
    raw = page.filled(found.value, dict(os.environ) if environment is None else environment, mistakes)
    raw = {key: value for key, value in raw.items() if value is not None or key not in Config.model_fields}
    config = mistakes.validated(Config, raw)  # a section in which every line is a comment is as good as none
    connectors = configured.connectors(raw.get("connectors"), mistakes)
    configured.fits(raw, connectors, mistakes)
    if config is not None:
        people.fits(config, connectors, mistakes)
    if mistakes.told or config is None:
        raise ConfigError(mistakes.told)
    data = config.data if config.data.is_absolute() else path.parent / config.data
    named = {name: {"plugin": section["plugin"]} for name, section in config.connectors.items()}  # no secret of theirs
    return config.model_copy(update={"data": data, "connectors": named}), connectors
