"""`passerelle run`: the bridge itself, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Any

from bridge import app, config, store
from bridge.cli.options import Commands, with_config


def add_to(acts: Commands) -> None:
    parser = acts.add_parser("run", help="run the bridge until SIGTERM or Ctrl-C")
    with_config(parser).set_defaults(act=_run)


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
