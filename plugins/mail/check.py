"""The self-check of a mail system: does mail leave, does it arrive, and what does the DNS say of our domains."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from pathlib import Path

from bridge.model import Finding
from plugins.mail import identity
from plugins.mail.config import Config, Mailbox, endpoint
from plugins.mail.domains import Domains
from plugins.mail.imap import Account, apart
from plugins.mail.send import Submission


async def check(config: Config, submission: Submission, *, listening: bool) -> list[Finding]:
    """What `doctor` asks. `listening`: whether mail is taken already."""
    domains = dict.fromkeys(mailbox.address.rpartition("@")[2] for mailbox in config.mailboxes)
    looked_up = Domains(config.dns, config.smarthost.host)
    parts = await asyncio.gather(
        submission.check(),
        *(_listening(config, where, listening) for where in config.listeners),
        *(_account(mailbox, config.max_size) for mailbox in config.mailboxes if mailbox.imap),
        *(looked_up.check(domain) for domain in domains),
    )
    return [*(finding for part in parts for finding in part), *_addresses_too_long(config)]


async def _listening(config: Config, where: str, listening: bool) -> list[Finding]:
    if listening:
        return [Finding(True, f"taking mail on {where}")]
    try:
        config.tls()
        await _free(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and await _is_ours(where):
            return [Finding(True, f"a running bridge takes mail on {where}")]
        return [Finding(False, f"cannot take mail on {where}: {error}", "change listen, listen_lmtp or certificate")]
    return [Finding(True, f"{where} is free to take mail on")]


async def _is_ours(where: str) -> bool:
    """Whether what listens there greets as we do: doctor looks while the bridge runs, too."""
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(*endpoint(where))
            with contextlib.closing(writer):
                return (await reader.readline()).rstrip().endswith(b" Passerelle")
    except (OSError, TimeoutError, ValueError):
        return False


async def _free(where: str) -> None:
    """Raises `OSError` when we could not listen there."""
    if where.startswith("/"):
        if not Path(where).parent.is_dir():
            raise FileNotFoundError(f"there is no folder {Path(where).parent}")
        return
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, *endpoint(where))
    server.close()


async def _account(mailbox: Mailbox, max_size: int) -> list[Finding]:
    assert mailbox.imap is not None
    account = Account(mailbox.imap, max_size)
    try:
        return await apart(account.check)
    finally:
        account.drop()


def _addresses_too_long(config: Config) -> list[Finding]:
    return [
        Finding(False, f"{mailbox.address} is too long to be signed", "use a shorter one, or reply_address: plain")
        for mailbox in config.mailboxes
        if mailbox.reply_address == "signed" and len(mailbox.address.rpartition("@")[0]) > identity.LONGEST
    ]
