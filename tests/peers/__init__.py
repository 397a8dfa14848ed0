"""The world around the bridge, for tests, the demo and the benchmarks: real and stand-in servers on loopback.

Here is what all of them share: free ports, waiting for a state, and children that never outlive us.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1  # prctl(2)
_turns = itertools.count(int.from_bytes(os.urandom(2)))
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def free_port() -> int:
    """A TCP port on loopback that nobody listens on.

    Below the kernel's range for outgoing connections, so that none of those takes the port before its server does; in
    a quarter of it that tests running beside this one do not use; and one after the other, so that none is given away
    again while its server has yet to start.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    beside = int(worker) % 4 if worker.isdecimal() else 2 + os.getpid() % 2
    for _ in range(5000):
        port = 10_000 + beside * 5000 + next(_turns) % 5000
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port on 127.0.0.1")


async def until(look: Callable[[], Awaitable[T | None]], what: str, timeout: float = 60, every: float = 0.05) -> T:
    """Look again and again until it shows something true; for servers that tell nobody when they are ready."""
    try:
        async with asyncio.timeout(timeout):
            while not (found := await look()):
                await asyncio.sleep(every)
            return found
    except TimeoutError:
        raise AssertionError(f"after {timeout} s still waiting for {what}") from None


class Process(Protocol):
    """A process that was started, as subprocess.Popen has it."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...


class Child:
    """A command in a process group of its own that ends with us, whatever ends us."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path, environment: dict[str, str] | None = None):
        self.command = list(command)
        self.folder = folder
        self.log = log
        self.environment = environment or {}
        self.process: Process | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.command} was never started"
        return self.process.pid

    def start(self) -> None:
        assert not self.running, f"{self.command} runs already"
        self.process = self._spawned()
        _children.add(self)

    def kill(self) -> None:
        """SIGKILL to the child and everything it has started."""
        if self.process is not None and self in _children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        _children.discard(self)

    async def stop(self, timeout: float = 15) -> int:
        """SIGTERM, then SIGKILL when it does not heed; returns the exit code (0 when it was never started)."""
        if self.process is None:
            return 0
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            await until(self._ended, "the child's end", timeout, every=0.02)
        self.kill()
        return self.process.returncode

    def tail(self, lines: int = 30) -> str:
        """The end of its log, for a failure's message."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def _ended(self) -> bool:
        return not self.running

    def _spawned(self) -> Process:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into the kernel
            )


_children: set[Child] = set()


def die_with_parent() -> None:
    """Called in a child: the kernel kills it when the thread that started it ends."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@atexit.register
def _end_children() -> None:
    for child in list(_children):
        child.kill()
