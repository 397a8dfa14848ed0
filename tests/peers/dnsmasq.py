"""A real name server on loopback that knows only what a test tells it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.peers import Child, free_port, until
from tests.peers.dovecot import SYSTEM_PROGRAMS


class Dnsmasq:
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

    async def __aenter__(self) -> Self:
        self.child.start()
        try:
            await until(self._answers, "dnsmasq", every=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.child.tail()}") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.child.stop()

    async def _answers(self) -> bool:
        """It listens on TCP as well."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port, family=socket.AF_INET)
        except OSError:
            return False
        writer.close()
        return True
