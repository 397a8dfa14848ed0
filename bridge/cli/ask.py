"""Asking the running bridge over its admin socket, so that only one process ever writes to the store."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from bridge.config import Config, load, page
from bridge.web.admin import socket_of

ADDRESS = "http://bridge"  # whatever it is called, the socket leads there


def folder_of(path: Path) -> Path:
    """The data folder that a configuration file names, although the secrets in it may be known to the bridge alone.

    Raises `ConfigError` when the file cannot be read.
    """
    try:
        found = page.read(path.read_text(encoding="utf-8")).value
    except (OSError, ValueError, page.PageError):
        found = None
    data = found.get("data", "data") if isinstance(found, dict) else None
    return path.parent / data if isinstance(data, str) and "$" not in data else load(path)[0].data


@contextlib.asynccontextmanager
async def running(settings: Config) -> AsyncIterator[aiohttp.ClientSession | None]:
    """A session with the bridge that runs on this configuration's data folder; None when none runs."""
    async with running_on(settings.data) as session:
        yield session


@contextlib.asynccontextmanager
async def running_on(data: Path) -> AsyncIterator[aiohttp.ClientSession | None]:
    """A session with the bridge that runs on that data folder; None when none runs."""
    try:
        socket = socket_of(data)
    except PermissionError as error:
        sys.exit(f"The running bridge cannot be asked: {error}")
    if not await _answers(socket):
        yield None
        return
    async with aiohttp.ClientSession(ADDRESS, connector=aiohttp.UnixConnector(str(socket))) as session:
        yield session


async def _answers(socket: Path) -> bool:
    """Whether a bridge listens there; a killed one leaves its socket behind."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True
