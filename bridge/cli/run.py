"""`passerelle run`: the bridge itself, until SIGTERM or Ctrl-C; SIGHUP applies its configuration file."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from bridge import config, store
from bridge.admin.plan import Settings
from bridge.cli.options import Commands, with_config
from bridge.succession import Succession, first
from bridge.watch import logs


def add_to(acts: Commands) -> None:
    parser = acts.add_parser("run", help="run the bridge until SIGTERM or Ctrl-C")
    with_config(parser).set_defaults(act=_run)


def _run(options: argparse.Namespace) -> int:
    settings = Settings(*config.load(options.config))

    def log_as(settings: config.Config) -> None:
        logs.start(settings.log.format, options.log or settings.log.level)

    log_as(settings.config)
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:  # not on every platform; the bridge is the same, slower
        factory = asyncio.new_event_loop  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(_serve(Succession(options.config.absolute(), settings, log_as)))
        except ExceptionGroup as group:
            if isinstance(error := first(group), OSError | store.Error):  # a port that is taken, say
                sys.exit(f"The bridge cannot run: {error}")
            raise
    return 0


async def _serve(bridge: Succession) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, bridge.stop)
    loop.add_signal_handler(signal.SIGHUP, bridge.reload)
    await bridge.run()
