"""The admin socket: a Unix socket in the data folder (or, when its path is too long, in a folder of our own)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from bridge.admin.replay import LARGEST, Kept
from bridge.model import Rejected


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

    async def explain(self, text: str) -> list[str]:
        """What is known of an address, an item, an event or a delivery."""

    async def bring(self, kept: Kept) -> list[str]:
        """What a file with an arrival does, or would do. Raises `Rejected` when no connector reads it."""

    async def prune(self, dry: bool) -> dict[str, int]:
        """Remove what retention has ended and what nothing refers to; what was removed, or would be."""


LONGEST = 100  # bytes of a Unix socket's path; the kernel takes 107 (unix(7))


def socket_of(data: Path) -> Path:
    """Where the admin socket of that data folder is; in a private temporary folder when the path would be too long.

    Raises `PermissionError` when that folder is not ours alone.
    """
    path = data / "admin.sock"
    if len(os.fsencode(path)) <= LONGEST:
        return path
    name = hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:24]
    return _private_folder() / f"{name}.sock"


def _private_folder() -> Path:
    """A temporary folder that nobody else can enter; somebody else may have made one of that name before us."""
    folder = Path(tempfile.gettempdir()) / f"passerelle-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} must be a folder of our own with mode 0700: remove it, or shorten `data`")
    return folder


def bound(path: Path) -> socket.socket:
    """A socket at that path, which from its first moment only our own user can connect to; replaces a left one."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # of the whole process: no await in between
    try:
        listener.bind(os.fspath(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def admin(bridge: Running) -> web.Application:
    """What the command line asks for: each path is a method of `Running`."""

    async def status(_: web.Request) -> web.Response:
        return web.json_response({"trouble": bridge.trouble(), "queue": await bridge.depth()})

    async def dead_letters(_: web.Request) -> web.Response:
        return web.json_response(await bridge.dead_letters())

    async def replay(request: web.Request) -> web.Response:
        done = await bridge.replay(request.match_info["uid"])
        return web.json_response({"replayed": done}, status=200 if done else 404)

    async def prune(request: web.Request) -> web.Response:
        return web.json_response(await bridge.prune("dry" in request.query))

    async def explain(request: web.Request) -> web.Response:
        return web.json_response(await bridge.explain(request.query["what"]))

    async def bring(request: web.Request) -> web.Response:
        asked = request.query
        kept = Kept(asked["name"], await request.read(), asked["connector"], asked["scope"], dry="dry" in asked)
        try:
            return web.json_response(await bridge.bring(kept))
        except Rejected as error:
            return web.json_response([str(error)], status=422)

    app = web.Application(client_max_size=LARGEST)
    app.router.add_get("/explain", explain)
    app.router.add_post("/bring", bring)
    app.router.add_post("/prune", prune)
    app.router.add_get("/status", status)
    app.router.add_get("/dead-letters", dead_letters)
    app.router.add_post("/dead-letters/{uid}/replay", replay)
    return app
