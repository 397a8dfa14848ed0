"""The command line: run the bridge, look after what it could not deliver."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import unicodedata
from pathlib import Path
from typing import Any

import aiohttp

from bridge import __version__, app, config, store
from bridge.web.admin import socket_of


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `passerelle`. Exit status: 0 done, 1 it failed and says why, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        sys.exit(options.act(options) or 0)
    except config.ConfigError as error:
        sys.exit("The configuration cannot be used:\n  " + "\n  ".join(error.problems))
    except store.StoreBusy as error:
        sys.exit(str(error))
    except store.Error as error:
        sys.exit(f"The database cannot be used: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="passerelle", description="Ties Matrix conversations to business.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--log", default="info", choices=["debug", "info", "warning", "error"])
    acts = parser.add_subparsers(required=True, metavar="command")
    run = acts.add_parser("run", help="run the bridge until SIGTERM or Ctrl-C")
    run.set_defaults(act=_run)
    letters = acts.add_parser("dead-letters", help="list, show and replay what could not be delivered")
    letters.add_argument("what", choices=["list", "show", "replay"])
    letters.add_argument("uid", nargs="?", help="which one (as list names it); for replay also: all")
    letters.set_defaults(act=_dead_letters)
    for each in (run, letters):
        each.add_argument("--config", type=Path, default=Path("passerelle.yaml"), help="default: passerelle.yaml")
    return parser


# --- run


def _run(options: argparse.Namespace) -> int:
    settings, connectors = config.load(options.config)
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:  # not on every platform; the bridge is the same, slower
        factory = asyncio.new_event_loop  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(_serve(settings, connectors))
        except ExceptionGroup as group:
            if isinstance(error := _first(group), OSError | store.Error):  # a port that is taken, say
                sys.exit(f"The bridge cannot run: {error}")
            raise
    return 0


def _first(error: Exception) -> Exception:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


async def _serve(settings: config.Config, connectors: dict[str, Any]) -> None:
    async with app.opened(settings, connectors) as bridge:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, bridge.stop)
        await bridge.run()


# --- dead letters


def _dead_letters(options: argparse.Namespace) -> int:
    settings, connectors = config.load(options.config)
    if options.what != "list" and not options.uid:
        sys.exit(f"Which one? passerelle dead-letters {options.what} UID (list shows them)")
    return asyncio.run(_on_letters(settings, connectors, options.what, options.uid))


async def _on_letters(settings: config.Config, connectors: dict[str, Any], what: str, uid: str) -> int:
    """Ask the running bridge; when none runs, do it on the store itself."""
    try:
        socket = socket_of(settings.data)
    except PermissionError as error:
        sys.exit(f"The running bridge cannot be asked: {error}")
    if not await _answers(socket):
        async with app.opened(settings, connectors) as bridge:
            return await _act(what, uid, bridge.dead_letters, bridge.replay)

    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:

        async def letters() -> list[dict[str, Any]]:
            async with session.get("http://bridge/dead-letters") as answer:
                return list(await answer.json())

        async def replay(name: str) -> bool:
            async with session.post(f"http://bridge/dead-letters/{name}/replay") as answer:
                return answer.status == 200

        return await _act(what, uid, letters, replay)


async def _answers(socket: Path) -> bool:
    """Whether a bridge listens there; a killed one leaves its socket behind."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


async def _act(what: str, uid: str, letters: Any, replay: Any) -> int:
    found = await letters()
    chosen = [each for each in found if uid in (each["uid"], "all", None)]
    if what == "list":
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


def printable(text: str) -> str:
    """What another server said, on one line and harmless to a terminal: a space for each control character."""
    kept = (" " if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one for one in text)
    return "".join(kept)
