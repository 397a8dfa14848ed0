"""`passerelle backup`, `restore` and `prune`: the bridge's memory copied, brought back, and cleared of what is over."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from bridge import config, store
from bridge.cli import ask
from bridge.cli.options import Commands, with_config
from bridge.store import Pruned, backup
from bridge.text.plain import spoken

_GUARD = "It holds the bridge's secret and what customers wrote: keep it as safe as the data folder itself."
_AFTERWARDS = """\
Start the bridge. What people asked to send before now, and what had not left when the backup was made, waits for
their !send: it may have left since. What arrived after the backup is in the rooms, and this bridge does not know it."""


def add_to(acts: Commands) -> None:
    making = acts.add_parser("backup", help="copy database and spool into one file; the bridge may be running")
    making.add_argument("target", type=Path, help="a new file, or a folder for one that is named by the time")
    with_config(making).set_defaults(act=_backup)
    bringing = acts.add_parser("restore", help="make the data folder of a backup; the bridge must not be running")
    bringing.add_argument("backup", type=Path, help="the file")
    with_config(bringing).set_defaults(act=_restore)
    clearing = acts.add_parser("prune", help="remove now what retention has ended and what nothing refers to")
    clearing.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    with_config(clearing).set_defaults(act=_prune)


def _backup(options: argparse.Namespace) -> int:
    settings, _ = config.load(options.config)
    try:
        target, manifest = backup.write(settings.data, options.target)
    except (backup.Unusable, OSError) as error:
        sys.exit(f"No backup was made: {error}")
    size = spoken(target.stat().st_size)
    print(f"{target}: {size}, the database (schema {manifest.schema_}) and {manifest.files} files. {_GUARD}")
    if manifest.gone:
        print(f"{manifest.gone} files that messages refer to are no longer kept (retention is over).")
    for name in manifest.damaged:
        print(f"Left out, because it is damaged on the disk: {settings.data / name}", file=sys.stderr)
    return 0


def _restore(options: argparse.Namespace) -> int:
    settings, _ = config.load(options.config)
    try:
        manifest = backup.restore(options.backup, settings.data)
    except (backup.Unusable, OSError) as error:
        sys.exit(f"{options.backup} was not restored: {error}")
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.made))
    print(f"{settings.data} is as it was at {made}: the database and {manifest.files} files.\n{_AFTERWARDS}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    settings, connectors = config.load(options.config)
    try:
        removed = asyncio.run(_pruned(settings, connectors, options.dry_run))
    except OSError as error:
        sys.exit(f"Not everything could be removed: {error}")
    print("Would be removed:" if options.dry_run else "Removed:")
    for count, what in (
        (removed.contents, "messages as they came and files, older than retention"),
        (removed.words, "messages whose words were kept to answer them, older than retention"),
        (removed.orphans, "files that nothing refers to any more"),
        (removed.letters, "dead letters and unsent drafts, older than retention"),
        (removed.arrivals, "notes of arrivals, older than retention"),
        (removed.copies, "copies of the database from before upgrades"),
    ):
        print(f"{count:>8}  {what}")
    print(f"{spoken(removed.freed)} in all. What the database no longer needs it uses again; a backup leaves it out.")
    return 0


async def _pruned(settings: config.Config, connectors: dict[str, Any], dry: bool) -> Pruned:
    """Ask the running bridge; when none runs, do it on the store itself."""
    async with ask.running(settings) as session:
        if session is not None:
            async with session.post("/prune", params={"dry": ""} if dry else {}) as answer:
                if answer.status != 200:
                    raise OSError(f"the running bridge said {answer.status}; its log says why")
                return Pruned(**await answer.json())
        if not (settings.data / "passerelle.db").exists():
            sys.exit(f"There is no database in {settings.data}: has a bridge ever run with this configuration?")
        async with store.opened(settings.data) as memory:
            before = time.time() - settings.retention
            return await memory.prune(before, partial(_fade, connectors), orphans=True, dry=dry)


def _fade(connectors: dict[str, Any], connector: str, memo: str) -> str:
    return str(connectors[connector][0].without_words(memo)) if connector in connectors else ""
