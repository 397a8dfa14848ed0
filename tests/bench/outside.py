"""A mail server that does nothing but take mail, a process of its own: aiosmtpd as it comes, on uvloop.

Beside it the bridge's speed is measured; and it is the smarthost, which notes when each mail came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import uvloop
from aiosmtpd.smtp import SMTP

from tests.bench.mails import MARK


class Nothing:
    """aiosmtpd's hooks: everything is taken and dropped."""

    def __init__(self) -> None:
        self.count = 0
        self.came: dict[str, float] = {}

    async def handle_DATA(self, _server: SMTP, _session: Any, envelope: Any) -> str:
        self.count += 1
        mark = MARK.search(envelope.content[:2000].decode("utf-8", "replace"))
        if mark:
            self.came[f"{mark[2]} {mark[1]}"] = time.monotonic()
        return "250 2.0.0 taken"


async def serve(port: int, notes: Path | None) -> None:
    """Take mail until SIGTERM; SIGUSR1 writes down what came."""
    loop, ended, nothing = asyncio.get_running_loop(), asyncio.Event(), Nothing()

    def note() -> None:
        if notes:
            fresh = notes.with_suffix(".new")
            fresh.write_text(json.dumps(nothing.came))
            fresh.replace(notes)

    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, note)
    await loop.create_server(lambda: SMTP(nothing, hostname="mx.outside.example", loop=loop), "127.0.0.1", port)
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--notes", type=Path)
    asked = parser.parse_args()
    uvloop.run(serve(asked.port, asked.notes))


if __name__ == "__main__":
    main()
