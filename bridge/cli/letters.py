"""`passerelle dead-letters`: list, show and replay what could not be delivered."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from bridge import app, config
from bridge.cli import ask
from bridge.cli.options import Commands, printable, with_config

Letters = list[dict[str, Any]]


def add_to(acts: Commands) -> None:
    parser = acts.add_parser("dead-letters", help="list, show and replay what could not be delivered")
    parser.add_argument("what", choices=["list", "show", "replay"])
    parser.add_argument("uid", nargs="?", help="which one (as list names it); for replay also: all")
    with_config(parser).set_defaults(act=_dead_letters)


def _dead_letters(options: argparse.Namespace) -> int:
    settings, connectors = config.load(options.config)
    if options.what != "list" and not options.uid:
        sys.exit(f"Which one? passerelle dead-letters {options.what} UID (list shows them)")
    return asyncio.run(_on_letters(settings, connectors, options.what, options.uid))


async def _on_letters(settings: config.Config, connectors: dict[str, Any], what: str, uid: str) -> int:
    """Ask the running bridge; when none runs, do it on the store itself."""
    async with ask.running(settings) as session:
        if session is None:
            async with app.opened(settings, connectors) as bridge:
                return await _act(what, uid, bridge.dead_letters, bridge.replay)

        async def letters() -> Letters:
            async with session.get("/dead-letters") as answer:
                return list(await answer.json())

        async def replay(name: str) -> bool:
            async with session.post(f"/dead-letters/{name}/replay") as answer:
                return answer.status == 200

        return await _act(what, uid, letters, replay)


async def _act(
    what: str, uid: str, letters: Callable[[], Awaitable[Letters]], replay: Callable[[str], Awaitable[bool]]
) -> int:
    found = await letters()
    chosen = [each for each in found if uid in (each["uid"], "all", None)]
    if what == "list" or (uid == "all" and not found):
        for each in found:
            print(f"{each['uid']}  {each['destination']:<10} {each['kind']:<8} {printable(each['error'])}")
        print(f"{len(found)} dead letters" if found else "No dead letters.")
        return 0
    if not chosen:
        print(f"There is no dead letter {uid}; passerelle dead-letters list shows them.", file=sys.stderr)
        return 1
    for each in chosen:
        if what == "show":
            shown = json.dumps({**each, "payload": json.loads(each["payload"])}, indent=2, ensure_ascii=False)
            print(*map(printable, shown.split("\n")), sep="\n")
        else:
            print(f"{each['uid']}: {'will be tried again' if await replay(each['uid']) else 'no longer there'}")
    return 0
