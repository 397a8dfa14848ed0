"""Real CalDAV and WebDAV servers on loopback: Radicale and WsgiDAV, with nothing but a folder each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import aiohttp

from tests.peers import Child, free_port
from tests.peers.server import Server

BRIDGE = "bridge"
PEOPLE = ("alice", "bob", BRIDGE, "team")
MKCALENDAR = """<C:mkcalendar xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><D:set><D:prop>
<C:supported-calendar-component-set><C:comp name="VTODO"/></C:supported-calendar-component-set>
</D:prop></D:set></C:mkcalendar>"""


class Dav(Server):
    """One server in one folder, and people who speak to it directly."""

    module: ClassVar[str]
    path: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = self.origin + self.path
        self.child = Child([sys.executable, "-m", self.module, *self.arguments()], folder, folder / "server.log")

    def arguments(self) -> list[str]:
        """For its command line; writes what they name."""
        raise NotImplementedError

    def password(self, user: str) -> str:
        return f"{user}-secret"

    async def call(
        self, method: str, path: str, body: Any = None, by: str = "alice", **headers: str
    ) -> tuple[int, str]:
        """The status and the text; the path is encoded already."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields["Authorization"] = aiohttp.encode_basic_auth(by, self.password(by))
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.origin + path, data=body, headers=fields) as answer,
        ):
            return answer.status, await answer.text()


class Radicale(Dav):
    """Lists /team/NAME/ that everybody may write to; but /team/fixed/ the bridge may only read."""

    module, path = "radicale", "/team/"

    def arguments(self) -> list[str]:
        users = "".join(f"{name}:{self.password(name)}\n" for name in PEOPLE)
        (self.folder / "users").write_text(users)
        (self.folder / "rights").write_text(
            f"[fixed]\nuser: {BRIDGE}\ncollection: team/fixed(/.*)?\npermissions: Rr\n\n"
            "[all]\nuser: .+\ncollection: .*\npermissions: RWrw\n"
        )
        (self.folder / "config").write_text(
            f"[server]\nhosts = 127.0.0.1:{self.port}\n"
            f"[auth]\ntype = htpasswd\nhtpasswd_filename = {self.folder}/users\nhtpasswd_encryption = plain\n"
            "delay = 0\n"
            f"[rights]\ntype = from_file\nfile = {self.folder}/rights\n"
            f"[storage]\nfilesystem_folder = {self.folder}/collections\n"
        )
        return ["-C", str(self.folder / "config")]

    async def start(self) -> None:
        await super().start()
        await self.call("PROPFIND", "/team/", by="team", Depth="0")  # makes the principal
        await self.list("ops")

    async def list(self, name: str) -> None:
        await self.call("MKCALENDAR", f"/team/{name}/", MKCALENDAR, by="team")

    async def write(self, name: str, *lines: str, folder: str = "ops") -> None:
        """A task of these content lines, there or not."""
        text = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:tests", "BEGIN:VTODO", f"UID:{name}", *lines]
        body = "\r\n".join([*text, "END:VTODO", "END:VCALENDAR", ""])
        status, said = await self.call("PUT", f"/team/{folder}/{name}.ics", body, Content_Type="text/calendar")
        assert status in (201, 204), said

    async def lines(self, name: str, folder: str = "ops") -> list[str]:
        """Its content lines, unfolded."""
        status, text = await self.call("GET", f"/team/{folder}/{name}.ics")
        assert status == 200, text
        return text.replace("\r\n ", "").split("\r\n")

    async def remove(self, name: str, folder: str = "ops") -> None:
        await self.call("DELETE", f"/team/{folder}/{name}.ics")

    def names(self, folder: str = "ops") -> list[str]:
        found = (self.folder / "collections" / "collection-root" / "team" / folder).glob("*.ics")
        return sorted(path.name for path in found)


class WsgiDav(Dav):
    """A folder, /, whose content is in `files`; but /fixed may only be read."""

    module, path = "wsgidav.server.server_cli", "/"

    def __init__(self, folder: Path, *, properties: bool = True) -> None:
        self.properties = properties  # whether it keeps those that it does not know
        super().__init__(folder)

    def arguments(self) -> list[str]:
        self.files = self.folder / "files"
        (self.files / "Deals").mkdir(parents=True, exist_ok=True)
        (self.files / "fixed").mkdir(exist_ok=True)
        fixed = f'"/fixed": {{root: "{self.files}/fixed", readonly: true}}'
        users = ", ".join(f"{name}: {{password: {self.password(name)}}}" for name in PEOPLE)
        (self.folder / "dav.yaml").write_text(
            f'host: 127.0.0.1\nport: {self.port}\nprovider_mapping: {{"/": "{self.files}", {fixed}}}\n'
            f"property_manager: {str(self.properties).lower()}\nlock_storage: true\n"
            "http_authenticator: {accept_basic: true, accept_digest: false, default_to_digest: false}\n"
            f'simple_dc: {{user_mapping: {{"*": {{{users}}}}}}}\n'
        )
        return ["--config", str(self.folder / "dav.yaml")]

    async def write(self, path: str, text: str | bytes) -> None:
        """Somebody saves a file; the path as people read it."""
        status, said = await self.call("PUT", f"/{quote(path)}", text)
        assert status in (201, 204), said
