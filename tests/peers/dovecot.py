"""A real Dovecot on loopback: IMAP, with and without TLS, for any user name.

Started by root it is Debian's as it is: mail belongs to nobody, logins run as dovenull. Started by somebody else, all
of it is theirs. The system's own Dovecot is neither used nor changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import grp
import imaplib
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from imapclient import IMAPClient

from tests.peers import Child, free_port
from tests.peers.certificate import Certificate
from tests.peers.server import Server

PASSWORD = "secret-4711"
SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"
CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/out.log
protocols = imap
listen = 127.0.0.1
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
first_valid_uid = 1
first_valid_gid = 1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
auth_username_format = %n
recipient_delimiter = +
mail_uid = {owner}
mail_gid = {owner_group}
mail_home = {folder}/mail/%n
mail_location = maildir:~/Maildir
mail_fsync = never
mailbox_idle_check_interval = 1 s
mail_max_userip_connections = 100
imap_capability = {capability}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner_group} home={folder}/mail/%n allow_all_users=yes
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Gesendet {{
    auto = create
    special_use = \\Sent
  }}
  mailbox Orders {{
    auto = create
  }}
  mailbox Archive {{
    auto = create
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""
WITHOUT_IDLE = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE LITERAL+ AUTH=PLAIN SPECIAL-USE UIDPLUS NAMESPACE"


class Dovecot(Server):
    """One server in a folder of its own, which all users may enter; stopped and started again it stays the same."""

    def __init__(self, *, idle: bool = True) -> None:
        self.host = "127.0.0.1"
        self.folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self.port, self.tls_port = free_port(), free_port()
        self.folder.chmod(0o755)
        self.certificate = Certificate.make(self.folder)
        self.idle = idle
        found = shutil.which("dovecot") or shutil.which("dovecot", path=SYSTEM_PROGRAMS)
        assert found, "needs the Debian package dovecot-imapd"
        config = self.folder / "dovecot.conf"
        self.child = Child([found, "-F", "-c", str(config)], self.folder, self.folder / "out.log")
        config.write_text(self._config())

    def _config(self) -> str:
        root = os.getuid() == 0
        me, mine = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
        mails = self.folder / "mail"
        mails.mkdir()
        if root:
            shutil.chown(mails, "nobody", "nogroup")
        return CONFIG.format(
            folder=self.folder, port=self.port, tls_port=self.tls_port, password=PASSWORD,
            certificate=self.certificate.file, key=self.certificate.key,
            internal="dovecot" if root else me, internal_group="dovecot" if root else mine,
            login="dovenull" if root else me,
            owner="nobody" if root else me, owner_group="nogroup" if root else mine,
            capability="" if self.idle else WITHOUT_IDLE,
        )  # fmt: skip

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def answers(self) -> bool:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        line = await reader.readline()
        writer.close()
        return line.startswith(b"* OK")

    def imap(self, user: str, **changes: Any) -> dict[str, Any]:
        """The `imap` section of that user's account."""
        plain = {
            "host": "localhost", "port": self.port, "security": "none", "username": user, "password": PASSWORD,
            "timeout": 5, "every": 1,
        }  # fmt: skip
        return plain | changes

    def account(self, user: str) -> Account:
        """Somebody with that user's account open in a mail program."""
        return Account(self, user)

    async def admin(self, *words: str) -> str:
        """What `doveadm …` says."""
        command = shutil.which("doveadm") or shutil.which("doveadm", path=SYSTEM_PROGRAMS) or "doveadm"
        process = await asyncio.create_subprocess_exec(
            command, "-c", str(self.folder / "dovecot.conf"), *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return said.decode()


class Account:
    """A person's mail program. Each act has a connection of its own."""

    def __init__(self, server: Dovecot, user: str) -> None:
        self.server = server
        self.user = user

    async def put(self, raw: bytes, folder: str = "INBOX", when: float | None = None) -> int:
        """Put a mail there, as a delivery or a move does; `when` it came. Returns its UID."""
        at = imaplib.Time2Internaldate(when if when is not None else time.time())

        def act(client: IMAPClient) -> int:
            answer = client._imap.append(
                client._normalise_folder(folder), None, at, raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            )
            assert answer[0] == "OK", answer
            return int(answer[1][0].split()[2].rstrip(b"]"))

        return await self._connected(act)

    async def mails(self, folder: str) -> dict[int, dict[bytes, Any]]:
        """Flags and whole content of each mail of a folder, by UID."""

        def act(client: IMAPClient) -> dict[int, dict[bytes, Any]]:
            client.select_folder(folder, readonly=True)
            found: dict[int, dict[bytes, Any]] = client.fetch(client.search(), ["FLAGS", "BODY.PEEK[]"])
            return found

        return await self._connected(act)

    async def renumber(self, folder: str = "INBOX") -> None:
        """Give the folder another UIDVALIDITY, as a restored backup has."""
        await self.server.admin(
            "mailbox", "update", "-u", self.user, "--uid-validity", str(int(time.time()) + 1000), folder
        )

    async def _connected(self, act: Any) -> Any:
        def run() -> Any:
            with contextlib.closing(_Open(self.server, self.user)) as opened:
                return act(opened.client)

        return await asyncio.to_thread(run)


class _Open:
    def __init__(self, server: Dovecot, user: str) -> None:
        self.client = IMAPClient(server.host, server.port, ssl=False, timeout=10)
        self.client.login(user, PASSWORD)

    def close(self) -> None:
        self.client.logout()
