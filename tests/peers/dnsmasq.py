"""A real name server on loopback that knows only what a test tells it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.peers import Child, free_port
from tests.peers.dovecot import SYSTEM_PROGRAMS
from tests.peers.server import Server


class Dnsmasq(Server):
    """Its records are dnsmasq's own options, such as "mx-host=company.example,mx.company.example,10"."""

    def __init__(self, folder: Path, records: Sequence[str]) -> None:
        self.port = free_port()
        self.where = f"127.0.0.1:{self.port}"
        config = folder / "dnsmasq.conf"
        lines = [
            f"port={self.port}", "listen-address=127.0.0.1", "bind-interfaces", "no-resolv", "no-hosts",
            "keep-in-foreground", "user=", f"pid-file={folder / 'dnsmasq.pid'}", "local=/#/", *records,
        ]  # fmt: skip
        config.write_text("\n".join(lines) + "\n")
        found = shutil.which("dnsmasq") or shutil.which("dnsmasq", path=SYSTEM_PROGRAMS) or "dnsmasq"
        self.child = Child([found, f"--conf-file={config}"], folder, folder / "dnsmasq.log")

    async def answers(self) -> bool:
        """It listens on TCP as well."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, family=socket.AF_INET)
        writer.close()
        return True
