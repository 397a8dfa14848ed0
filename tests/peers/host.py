"""A host on which a page of instructions is followed: its /etc, /opt and /var are in a folder of ours.

The shell and its tools are real; so are the homeserver, the mail server and the bridge, which it starts as the page
says. What would change the real host only seems to: users, services, a virtual environment.
"""

from __future__ import annotations

import asyncio
import configparser
import itertools
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from tests.peers import ROOT, free_port, until
from tests.peers.bridge import BridgeProcess, Forked, prepare
from tests.peers.postfix import Postfix
from tests.peers.synapse import Registration, Synapse

FOREIGN = re.compile(r"(?<![\w./])/(etc|opt|var)/")
ASK = """\
#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/{port}
printf '%s\\0' "${{0##*/}}" "$@" >&3
printf '\\n' >&3
read -r status <&3
cat <&3
exit "$status"
"""
KNOWN = """\
known() { grep -qx -- "$1" USERS || { echo "there is no user $1" >&2; exit 1; }; }
"""
SHIMS = {
    "adduser": 'echo "${@: -1}" >>USERS',
    "sudo": '[ "$1" = -u ] && known "$2" && shift 2 && exec "$@"',
    "install": """\
rest=()
while [ $# -gt 0 ]; do
    case $1 in -o | -g) known "$2"; shift ;; *) rest+=("$1") ;; esac
    shift
done
exec INSTALL "${rest[@]}"
""",
    "python3": '[ "$1 $2" = "-m venv" ] && mkdir -p "$3/bin" && ln -s BIN/pip BIN/passerelle "$3/bin/"',
    # What is locked is what we run with, or pip would have to ask the network; our own code is not built.
    "pip": """\
[ "$1" = install ] || exit 2
if [ "${@: -1}" = . ]; then exec test -f pyproject.toml; fi
exec PYTHON -m pip --disable-pip-version-check "$@" --quiet --no-deps --dry-run --no-index
""",
}


class CompanyPostfix(Postfix):
    """As Debian sets it up for a company: its domain is local, all else goes to the relay."""

    def __init__(self, relay: int) -> None:
        super().__init__("")
        self.relay = relay

    def _write(self) -> None:
        super()._write()
        file = self.folder / "etc" / "main.cf"
        ours = ("mydestination", "local_recipient_maps", "virtual_", "default_transport")
        kept = [line for line in file.read_text().splitlines() if not line.startswith(ours)]
        more = ["mydestination = company.example, localhost", f"relayhost = [127.0.0.1]:{self.relay}"]
        file.write_text("\n".join([*kept, *more, ""]))


class Host:
    """`sh` runs lines of the page. `relay`: the port of a mail server that takes what leaves."""

    def __init__(self, relay: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="host-"))
        self.postfix = CompanyPostfix(relay)
        self.synapse = Synapse(
            self.folder / "synapse", Registration("http://127.0.0.1:9"), settings={"app_service_config_files": []}
        )
        self.bridge: BridgeProcess | None = None
        self._ports = {8008: self.synapse.port, 25: self.postfix.port, 2525: free_port(), 29400: free_port()}
        self._units: set[str] = set()
        self._numbers = itertools.count()
        self._asked: asyncio.Server | None = None
        self._starting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        prepare()
        self._asked = await asyncio.start_server(self._ask, "127.0.0.1", 0)
        try:
            self._make()
            await self.postfix.__aenter__()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.postfix.__aexit__(kind, error, trace)
        await self._end()

    async def _end(self) -> None:
        if self.bridge is not None:
            await self.bridge.stop()
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        await self.synapse.stop()
        assert self._asked is not None
        self._asked.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def homeserver(self) -> Synapse:
        """The homeserver, once it answers: the page goes on while it starts."""
        assert self._starting is not None, "nobody has started it"
        await self._starting
        return self.synapse

    # --- what the page sees

    async def sh(self, lines: str, status: int = 0) -> str:
        """Run lines of the page in a checkout, to the first that fails; what they say, as the page would have it."""
        environment = os.environ | {
            "PATH": f"{self.folder}/bin:/usr/local/sbin:/usr/sbin:/sbin:{os.environ['PATH']}",
            "MAIL_CONFIG": str(self.postfix.folder / "etc"),
        }
        process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", self.here(lines), cwd=ROOT, env=environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = self.there((await process.communicate())[0].decode())
        assert process.returncode == status, f"{lines}\nended with {process.returncode}:\n{said}"
        return said

    def here(self, text: str) -> str:
        """Paths and ports of the page as they are on this host."""
        moved = FOREIGN.sub(lambda found: f"{self.folder}{found[0]}", text)
        return re.sub(
            r"(?<=127\.0\.0\.1)(\]?):(\d+)\b", lambda found: f"{found[1]}:{self._ports.get(int(found[2]), 0)}", moved
        )

    def there(self, text: str) -> str:
        """The other way round."""
        for page, ours in self._ports.items():
            text = text.replace(f"127.0.0.1:{ours}", f"127.0.0.1:{page}")
        return text.replace(str(self.folder), "")

    def path(self, name: str) -> Path:
        """Where this host has a file of the page."""
        return Path(self.here(name))

    # --- what stands in for the rest of it

    def _make(self) -> None:
        for name in (
            "bin",
            "synapse",
            "etc/matrix-synapse/conf.d",
            "etc/systemd/system",
            "opt",
            "var/lib",
            "var/backups",
        ):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / "users").write_text("root\nmatrix-synapse\n")
        (self.folder / "etc" / "postfix").symlink_to(self.postfix.folder / "etc")
        self.synapse.child.command += ["-c", str(self.folder / "etc" / "matrix-synapse" / "conf.d")]
        assert self._asked is not None
        port = self._asked.sockets[0].getsockname()[1]
        known = {"USERS": f"{self.folder}/users", "BIN": f"{self.folder}/bin", "PYTHON": sys.executable}
        known["INSTALL"] = shutil.which("install") or "install"
        for name, lines in SHIMS.items():
            text = f"#!/bin/bash\n{KNOWN}{lines}\n"
            for word, meaning in known.items():
                text = text.replace(word, meaning)
            self._command(name, text)
        for name in ("passerelle", "systemctl"):
            self._command(name, ASK.format(port=port))

    def _command(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A command of the shell asks us to do what it stands for."""
        name, *words = (await reader.readuntil(b"\0\n"))[:-2].decode().split("\0")
        try:
            status, said = await (self._passerelle(words) if name == "passerelle" else self._systemctl(words))
        except (AssertionError, OSError, KeyError) as error:
            status, said = 99, f"{name}: {error!r}\n"
        writer.write(f"{status}\n{said}".encode())
        writer.close()

    async def _passerelle(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "init":  # the ports that it would choose are those of others here
            words += ["--address", f"http://127.0.0.1:{self._ports[29400]}"]
            words += ["--mail-listen", f"127.0.0.1:{self._ports[2525]}"]
        log = self.folder / f"said-{next(self._numbers)}"
        child = Forked(words, ROOT, log)
        child.start()

        async def ended() -> bool:
            return not child.running

        await until(ended, f"passerelle {words[0]} to end", timeout=60, every=0.02)
        return await child.stop(), log.read_text()

    async def _systemctl(self, words: list[str]) -> tuple[int, str]:
        act, *units = (word for word in words if word != "--now")
        if act == "daemon-reload":
            self._units = {file.name for file in self.path("/etc/systemd/system").iterdir()}
        elif (act, units) == ("restart", ["matrix-synapse"]):
            self._starting = asyncio.create_task(self.synapse.restart(), name="Synapse")
        elif (act, units) == ("reload", ["postfix"]):
            await self.postfix.reload()
        elif units == ["passerelle"] and act in ("enable", "start", "stop", "restart"):
            assert "passerelle.service" in self._units, "no such unit was loaded"
            await self._serve(act)
        else:
            return 1, f"systemctl {shlex.join(words)}: what is that?\n"
        return 0, ""

    async def _serve(self, act: str) -> None:
        """What the unit says, until the bridge lives: with no room made it is not ready yet."""
        if self.bridge is not None and act in ("stop", "restart"):
            await self.bridge.stop()
        if act == "stop":
            return
        unit = configparser.RawConfigParser(strict=False)
        unit.read(self.path("/etc/systemd/system/passerelle.service"))
        program, run, option, config = shlex.split(self.here(unit["Service"]["ExecStart"]))
        assert (run, option, os.access(program, os.X_OK)) == ("run", "--config", True), program
        if self.bridge is None:
            self.bridge = BridgeProcess(Path(config), log=self.folder / "passerelle.log")
        await self.bridge.start(wait=False)
        await until(self._lives, "the bridge to live")

    async def _lives(self) -> bool:
        assert self.bridge is not None
        assert self.bridge.running, self.bridge.child.tail()
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.bridge.url}/live") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False
