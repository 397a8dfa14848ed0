"""The admin socket: a Unix socket in the data folder, readable by the bridge's own user only."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web


class Running(Protocol):
    """What the command line may ask of a running bridge."""

    def trouble(self) -> dict[str, str]:
        """What is not ready, by name."""

    async def depth(self) -> dict[str, int]:
        """Rows of the queue by "destination state"."""

    async def dead_letters(self) -> list[dict[str, Any]]:
        """Every delivery given up."""

    async def replay(self, uid: str) -> bool:
        """Try one again; False when there is none of that name."""


LONGEST = 100  # bytes of a Unix socket's path; the kernel takes 107 (unix(7))


def socket_of(data: Path) -> Path:
    """Where the admin socket of that data folder is; in the temporary folder when the path would be too long."""
    socket = data / "admin.sock"
    if len(os.fsencode(socket)) <= LONGEST:
        return socket
    name = hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"passerelle-{name}.sock"


def admin(bridge: Running) -> web.Application:
    """GET /status, GET /dead-letters, POST /dead-letters/{uid}/replay."""

    async def status(_: web.Request) -> web.Response:
        return web.json_response({"trouble": bridge.trouble(), "queue": await bridge.depth()})

    async def dead_letters(_: web.Request) -> web.Response:
        return web.json_response(await bridge.dead_letters())

    async def replay(request: web.Request) -> web.Response:
        done = await bridge.replay(request.match_info["uid"])
        return web.json_response({"replayed": done}, status=200 if done else 404)

    app = web.Application()
    app.router.add_get("/status", status)
    app.router.add_get("/dead-letters", dead_letters)
    app.router.add_post("/dead-letters/{uid}/replay", replay)
    return app
