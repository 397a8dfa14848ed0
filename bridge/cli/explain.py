"""`passerelle explain` and `replay`: what the bridge knows of something, and what it makes of a file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import aiohttp

from bridge import app, config
from bridge.admin.replay import LARGEST, Kept
from bridge.cli import ask
from bridge.cli.options import Commands, printable, with_config
from bridge.model import Rejected


def add_to(acts: Commands) -> None:
    parser = acts.add_parser("explain", help="which mapping, conversation, recipients and policy apply to something")
    parser.add_argument("what", help="an address, a tool's key or web address, a link to a message, a delivery's id")
    with_config(parser).set_defaults(act=lambda options: asyncio.run(_explain(options.config, options.what)))
    parser = acts.add_parser("replay", help="bring in what was kept of an arrival in a file")
    parser.add_argument(
        "file", type=Path, help='what its connector reads, or a webhook as JSON: "headers", "body", "query"'
    )
    parser.add_argument("--connector", default="", help="which one shall read it (default: the only one that can)")
    parser.add_argument("--to", default="", metavar="SCOPE", help="for this scope instead of what the file says")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would do")
    with_config(parser).set_defaults(act=lambda options: asyncio.run(_replay(options)))


async def _explain(path: Path, what: str) -> int:
    async with ask.running_on(ask.folder_of(path)) as session:
        if session is None:
            async with app.opened(*config.load(path)) as bridge:
                await bridge.recall()
                return _show(await bridge.explain(what))
        return _show(await _lines(await session.get("/explain", params={"what": what})))


async def _replay(options: argparse.Namespace) -> int:
    try:
        if options.file.stat().st_size > LARGEST:
            sys.exit(f"{options.file} is larger than {LARGEST} bytes.")
        data = options.file.read_bytes()
    except OSError as error:
        sys.exit(f"{options.file} cannot be read: {error.strerror or error}")
    kept = Kept(options.file.name, data, options.connector, options.to, options.dry_run)
    try:
        return _show(await _brought(options.config, kept))
    except Rejected as error:
        sys.exit(f"Nothing can be made of it: {printable(str(error))}")


async def _brought(path: Path, kept: Kept) -> list[str]:
    async with ask.running_on(ask.folder_of(path)) as session:
        if session is None:
            async with app.opened(*config.load(path)) as bridge:
                await bridge.recall()
                return await bridge.bring(kept)
        asked = {"name": kept.name, "connector": kept.connector, "scope": kept.scope} | (
            {"dry": ""} if kept.dry else {}
        )
        answer = await session.post("/bring", params=asked, data=kept.data)
        lines = await _lines(answer)
        if answer.status == 422:
            raise Rejected(lines[0])
        return lines


async def _lines(answer: aiohttp.ClientResponse) -> list[str]:
    if answer.status != 422:
        answer.raise_for_status()
    found: list[str] = await answer.json()
    return found


def _show(lines: list[str]) -> int:
    print(*map(printable, lines), sep="\n")
    return 0
