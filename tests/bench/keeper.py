"""What a webhook costs at least, a process of its own: an aiohttp that commits the body to SQLite and says 200."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop
from aiohttp import web


def opened(path: Path) -> sqlite3.Connection:
    """As durable as the bridge's own: what was said yes to survives a power cut."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, body BLOB)")
    return connection


async def serve(port: int, path: Path) -> None:
    """Until SIGTERM. One thread writes, a commit for each: what is simplest."""
    connection, thread, ended = opened(path), ThreadPoolExecutor(1), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def keep(request: web.Request) -> web.Response:
        body = await request.read()
        await loop.run_in_executor(thread, connection.execute, "INSERT INTO kept (body) VALUES (?)", (body,))
        return web.Response(text="kept")

    app = web.Application()
    app.router.add_post("/hooks/floor", keep)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", type=Path, required=True)
    asked = parser.parse_args()
    uvloop.run(serve(asked.port, asked.database))


if __name__ == "__main__":
    main()
