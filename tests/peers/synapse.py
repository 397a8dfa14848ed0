"""A real Synapse on loopback: SQLite, one listener, no federation, an application service registered."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.peers import Child, free_port
from tests.peers.server import Server

SHARED_SECRET = "only-for-tests"
UNLIMITED = {"per_second": 100_000, "burst_count": 100_000}


@dataclass(frozen=True)
class Registration:
    """What the homeserver knows of the bridge."""

    url: str
    id: str = "passerelle"
    as_token: str = "as-token-for-tests"
    hs_token: str = "hs-token-for-tests"
    bot: str = "passerelle"
    ghosts: str = "_passerelle_"
    sender_localpart: str = "_passerelle"  # not the bot: encryption needs a bot that is a namespaced user

    def document(self, server_name: str) -> dict[str, Any]:
        """The registration file's content."""
        server, ghosts, bot = re.escape(server_name), re.escape(self.ghosts), re.escape(self.bot)
        return {
            "id": self.id,
            "url": self.url,
            "as_token": self.as_token,
            "hs_token": self.hs_token,
            "sender_localpart": self.sender_localpart,
            "rate_limited": False,
            "receive_ephemeral": True,
            "org.matrix.msc3202": True,
            "io.element.msc4190": True,
            "namespaces": {
                "users": [_exclusive(f"@{ghosts}.*:{server}"), _exclusive(f"@{bot}:{server}")],
                "aliases": [_exclusive(f"#{ghosts}.*:{server}")],
                "rooms": [],
            },
        }


@dataclass(frozen=True)
class Account:
    """A user of the homeserver, logged in or not."""

    mxid: str
    password: str = field(repr=False)
    device: str = ""
    token: str = field(default="", repr=False)


class Synapse(Server):
    """A homeserver, and its administrator."""

    door = "/_matrix/client/versions"

    def __init__(
        self,
        folder: Path,
        registration: Registration,
        port: int | None = None,
        server_name: str = "company.example",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.registration = registration
        self.port = port or free_port()
        self.server_name = server_name
        self.settings = settings or {}
        self.url = f"http://127.0.0.1:{self.port}"
        self.child = Child(
            [sys.executable, "-m", "synapse.app.homeserver", "-c", "homeserver.yaml"], folder, folder / "stdout.log"
        )

    async def register(self, localpart: str, password: str, displayname: str | None = None) -> Account:
        """Make a user through the shared-secret admin API and log it in."""
        path = f"{self.url}/_synapse/admin/v1/register"
        async with aiohttp.ClientSession() as http:
            async with http.get(path) as answer:
                nonce = (await answer.json())["nonce"]
            body = {
                "nonce": nonce,
                "username": localpart,
                "password": password,
                "displayname": displayname or localpart.capitalize(),
                "admin": False,
                "mac": _mac(nonce, localpart, password),
            }
            async with http.post(path, json=body) as answer:
                said = await answer.json()
        if "access_token" not in said:
            raise RuntimeError(f"Synapse did not register {localpart}: {said}")
        return Account(said["user_id"], password, said["device_id"], said["access_token"])

    async def ping_appservice(self) -> bool:
        """Ask the homeserver to reach the bridge now, which also ends its back-off."""
        path = f"{self.url}/_matrix/client/v1/appservice/{self.registration.id}/ping"
        headers = {"Authorization": f"Bearer {self.registration.as_token}"}
        async with aiohttp.ClientSession(headers=headers) as http, http.post(path, json={}) as answer:
            return answer.status == 200

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        key = self.folder / "signing.key"
        if not key.exists():
            seed = base64.b64encode(os.urandom(32)).decode().rstrip("=")
            key.write_text(f"ed25519 a_test {seed}\n")
        self._yaml("registration.yaml", self.registration.document(self.server_name))
        self._yaml("log.yaml", _logging(self.folder / "synapse.log"))
        self._yaml("homeserver.yaml", self._configuration() | self.settings)

    def _yaml(self, name: str, document: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(document, sort_keys=False))

    def _configuration(self) -> dict[str, Any]:
        listener = {"port": self.port, "type": "http", "bind_addresses": ["127.0.0.1"]}
        return {
            "server_name": self.server_name,
            "public_baseurl": f"{self.url}/",
            "listeners": [listener | {"resources": [{"names": ["client"]}]}],
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}},
            "signing_key_path": str(self.folder / "signing.key"),
            "log_config": str(self.folder / "log.yaml"),
            "media_store_path": str(self.folder / "media"),
            "app_service_config_files": [str(self.folder / "registration.yaml")],
            "registration_shared_secret": SHARED_SECRET,
            "macaroon_secret_key": SHARED_SECRET,
            "form_secret": SHARED_SECRET,
            "bcrypt_rounds": 4,  # logins are not what the tests are about
            "report_stats": False,
            "trusted_key_servers": [],
            "federation_domain_whitelist": [],
            "presence": {"enabled": False},
            # What nobody here looks at takes a fifth of the time of every event.
            "push": {"enabled": False},
            "stats": {"enabled": False},
            "user_directory": {"enabled": False},
            "update_user_directory_from_worker": "nobody",
            "url_preview_enabled": False,
            "enable_room_list_search": False,
            "max_upload_size": "100M",
            "experimental_features": {
                "msc2409_to_device_messages_enabled": True,
                "msc3202_transaction_extensions": True,
            },
            **_no_limits(),
        }


def _exclusive(regex: str) -> dict[str, Any]:
    return {"regex": regex, "exclusive": True}


def _no_limits() -> dict[str, Any]:
    plain = ("message", "registration", "admin_redaction", "joins_per_room", "third_party_invite", "room_creation")
    return {f"rc_{name}": UNLIMITED for name in (*plain, "reports", "delayed_event_mgmt")} | {
        "rc_login": {"address": UNLIMITED, "account": UNLIMITED, "failed_attempts": UNLIMITED},
        "rc_joins": {"local": UNLIMITED, "remote": UNLIMITED},
        "rc_invites": {"per_room": UNLIMITED, "per_user": UNLIMITED, "per_issuer": UNLIMITED},
        "rc_presence": {"per_user": UNLIMITED},
    }


def _logging(file: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(file), "formatter": "plain"}},
        "root": {"level": "WARNING", "handlers": ["file"]},
    }


def _mac(nonce: str, localpart: str, password: str) -> str:
    """What proves to the admin API that we know the shared secret (Synapse's docs, admin_api/register_api)."""
    said = "\0".join((nonce, localpart, password, "notadmin"))
    return hmac.new(SHARED_SECRET.encode(), said.encode(), hashlib.sha1).hexdigest()
