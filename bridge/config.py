"""The configuration: one YAML file, secrets from the environment or files, frozen models, every problem at once."""

from __future__ import annotations

import os
import re
from collections.abc import Set
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from bridge.connector import Connector


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


class Mapping(Section):
    """A connector's scope and the room where its conversations live."""

    connector: str = Field(description="Name of a connector below")
    scope: str = Field(description="What of it: a mailbox address, a project …")
    room: str = Field(description="Room id (!…) or alias (#…:server)")
    private: bool = Field(False, description="Whether the room may see the tool's private notes")
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
    data: Path = Field(Path("data"), description="Folder of the database and the spool, relative to this file")
    management_room: str = Field("", description="Room id or alias where operators are told of trouble")
    inside: Inside = Inside()
    permissions: Permissions = Permissions()
    outward: Outward = Outward()
    retry: Retry = Retry()
    retention: float = Field(365 * 86400, gt=0, description="Seconds that raw messages and files are kept")
    max_file: int = Field(50_000_000, ge=1000, description="Largest file taken from or given to Matrix, in bytes")
    inline_text: int = Field(4000, ge=200, le=20000, description="Characters shown before a text becomes a file")
    catch_up: float = Field(600, gt=0, description="Seconds between two looks for events the homeserver did not push")
    language: str = Field("en", pattern="^(en|fr)$", description="Language of the bot: en or fr")
    connectors: dict[str, Any] = Field(description="name: {plugin: …, and what that plugin needs}")
    mappings: tuple[Mapping, ...] = ()

    @model_validator(mode="after")
    def _mapped_connectors_exist(self) -> Config:
        unknown = sorted({m.connector for m in self.mappings} - set(self.connectors))
        if unknown:
            raise ValueError(f"mappings name connectors that are not configured: {', '.join(unknown)}")
        return self

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


def load(
    path: Path, environment: dict[str, str] | None = None
) -> tuple[Config, dict[str, tuple[type[Connector], Any]]]:
    """Read the file; returns the configuration and, by connector name, its plugin class and validated config.

    `${NAME}` in a value is replaced from the environment, `${file:/path}` by the first line of that file. Raises
    `ConfigError` with every problem found.
    """
    problems: list[str] = []
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: {_where(error)}"]) from None
    if not isinstance(raw, dict):
        raise ConfigError([f"{path}: must be a mapping of keys to values; see config/passerelle.yaml"])
    raw = _filled(raw, dict(os.environ) if environment is None else environment, problems)
    config = _validated(Config, raw, "", problems)
    connectors = _connectors(raw.get("connectors"), problems)
    if problems or config is None:
        raise ConfigError(problems)
    data = config.data if config.data.is_absolute() else path.parent / config.data
    named = {name: {"plugin": section["plugin"]} for name, section in config.connectors.items()}  # no secret of theirs
    return config.model_copy(update={"data": data, "connectors": named}), connectors


def _where(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the line itself: it may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or "this is not YAML"
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}" if mark else what


def _connectors(raw: Any, problems: list[str]) -> dict[str, tuple[type[Connector], Any]]:
    plugins = {point.name: point for point in entry_points(group="passerelle.plugins")}
    found: dict[str, tuple[type[Connector], Any]] = {}
    for name, section in (raw if isinstance(raw, dict) else {}).items():
        where = f"connectors.{name}"
        if not isinstance(section, dict) or section.get("plugin") not in plugins:
            problems.append(f"{where}.plugin: must be one of: {', '.join(sorted(plugins))}")
            continue
        plugin: type[Connector] = plugins[section["plugin"]].load()
        body = {key: value for key, value in section.items() if key != "plugin"}
        found[name] = (plugin, _validated(plugin.Config, body, f"{where}.", problems))
    return found


def _validated(model: type[BaseModel], raw: Any, prefix: str, problems: list[str]) -> Any:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):  # an input may be a secret
            problems.append(f"{prefix}{'.'.join(str(part) for part in each['loc'])}: {each['msg']}")
        return None


def _filled(value: Any, environment: dict[str, str], problems: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, environment, problems) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, environment, problems) for inner in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match[1]:
            return _first_line(Path(match[1]), problems)
        if match[2] not in environment:
            problems.append(f"${{{match[2]}}}: this environment variable is not set")
        return environment.get(match[2], "")

    return re.sub(r"\$\{(?:file:([^{}]+)|(\w+))\}", fill, value)


def _first_line(path: Path, problems: list[str]) -> str:
    """What a secret's file holds; when it cannot be used that is a problem, told without its content."""
    line, why = "", "its first line is empty"
    try:
        if path.is_absolute():
            line = path.read_text(encoding="utf-8").partition("\n")[0].strip()
        else:
            why = "must be an absolute path"
    except OSError as error:
        why = error.strerror or type(error).__name__
    except ValueError:
        why = "it is not text in UTF-8"
    if not line:
        problems.append(f"${{file:{path}}}: {why}")
    return line
