"""A real Postfix on loopback that hands what comes for one domain to LMTP or SMTP of ours. It needs root.

The system's own Postfix is neither used nor changed; only its users are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.peers import free_port, until
from tests.peers.dovecot import SYSTEM_PROGRAMS
from tests.peers.world import post

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.company.example
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
local_recipient_maps =
virtual_mailbox_domains = company.example
virtual_transport = {transport}
default_transport = error:nothing leaves from here
disable_dns_lookups = yes
smtp_host_lookup = native
lmtp_destination_recipient_limit = 50
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
message_size_limit = 52428800
maillog_file_prefixes = {folder}
maillog_file = {folder}/postfix.log
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
notify_classes =
"""
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One mail server in a folder of its own, which all users may enter."""

    def __init__(self, transport: str) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-"))
        self.transport = transport
        self._pid = 0

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._write)
        try:
            await _run("postfix", "-c", str(self.folder / "etc"), "check")
            await _run("/usr/lib/postfix/sbin/master", "-c", str(self.folder / "etc"), "-w")
            self._pid = int((self.folder / "spool" / "pid" / "master.pid").read_text())
            await until(self._answers, "Postfix", every=0.02)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
            await until(self._gone, "the end of Postfix", every=0.02)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def reload(self) -> None:
        """Read main.cf again."""
        await _run("postfix", "-c", str(self.folder / "etc"), "reload")

    async def post(self, sender: str, recipients: list[str], mail: bytes) -> None:
        """Somebody hands it a mail."""
        await post(self.host, self.port, sender, recipients, mail)

    def log(self) -> list[str]:
        """What it has written down of deliveries: a line for each recipient and attempt."""
        file = self.folder / "postfix.log"
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        return [line for line in lines if " status=" in line]

    async def tried(self, *words: str, count: int = 1) -> list[str]:
        """At least so many of these lines that have all these words."""

        async def found() -> list[str] | None:
            lines = [line for line in self.log() if all(word in line for word in words)]
            return lines if len(lines) >= count else None

        try:
            return await until(found, f"Postfix to log {words}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.log()}") from None

    async def is_empty(self) -> None:
        """Wait until nothing waits in its queue."""

        async def empty() -> bool:
            queues = ("incoming", "active", "deferred", "maildrop", "hold")
            return not any(file.is_file() for queue in queues for file in (self.folder / "spool" / queue).rglob("*"))

        await until(empty, "an empty queue")

    def _write(self) -> None:
        self.folder.chmod(0o755)
        for name in ("etc", "spool", "data"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        (self.folder / "etc" / "main.cf").write_text(MAIN.format(folder=self.folder, transport=self.transport))
        (self.folder / "etc" / "master.cf").write_text(MASTER.format(port=self.port))

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            line = await reader.readline()
            writer.close()
        except OSError:
            return False
        return line.startswith(b"220")

    async def _gone(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{self._pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


async def _run(*command: str) -> None:
    program = shutil.which(command[0]) or shutil.which(command[0], path=SYSTEM_PROGRAMS) or command[0]
    process = await asyncio.create_subprocess_exec(
        program, *command[1:], stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
