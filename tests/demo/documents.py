"""The documents of the demo: a real WebDAV server with a folder for deals."""

from __future__ import annotations

from pathlib import Path

from tests.peers.dav import BRIDGE, WsgiDav

CONNECTOR, SCOPE = "documents", "Deals"


class Documents(WsgiDav):
    """What is saved in it lies in its `files`."""

    def connector(self) -> dict[str, object]:
        """How the bridge is told of it; it looks often, since nobody likes to wait in a demo."""
        login = {"username": BRIDGE, "password": self.password(BRIDGE)}
        return {"plugin": "webdav", "url": self.url, "every": 1, **login}

    def saved(self) -> dict[str, bytes]:
        """What people see there: content by name."""
        found = (path for path in Path(self.files / SCOPE).iterdir() if not path.name.startswith("."))
        return {path.name: path.read_bytes() for path in found}
