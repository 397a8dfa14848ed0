"""What the admin socket answers about configurations: what one would change, that it shall, and what became of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from aiohttp import web

from bridge.admin.plan import Changed, Outcome, Plan
from bridge.config import ConfigError


class Changeable(Protocol):
    """What can be given another configuration."""

    async def plan(self, path: Path) -> Plan:
        """Raises `ConfigError`."""

    async def apply(self, path: Path, digest: str) -> Outcome:
        """Raises `ConfigError`, `Changed`."""

    @property
    def outcome(self) -> Outcome:
        """Of the last `apply`."""


def applying(app: web.Application, bridge: Changeable) -> None:
    """Add POST /plan and POST /apply with {"path", "digest"}, and GET /applied, to an application.

    A file that cannot be used is answered with 422 and {"problems"}, what is not as it was shown with 409.
    """

    async def plan(request: web.Request) -> web.Response:
        asked = await request.json()
        try:
            return web.json_response(asdict(await bridge.plan(Path(asked["path"]))))
        except ConfigError as error:
            return web.json_response({"problems": error.problems}, status=422)

    async def apply(request: web.Request) -> web.Response:
        asked = await request.json()
        try:
            return web.json_response(asdict(await bridge.apply(Path(asked["path"]), asked["digest"])))
        except ConfigError as error:
            return web.json_response({"problems": error.problems}, status=422)
        except Changed as error:
            return web.json_response({"problems": [str(error)]}, status=409)

    async def applied(_: web.Request) -> web.Response:
        return web.json_response(asdict(bridge.outcome))

    app.router.add_post("/plan", plan)
    app.router.add_post("/apply", apply)
    app.router.add_get("/applied", applied)
