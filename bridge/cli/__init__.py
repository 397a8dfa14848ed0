"""The command line: each module of this package is one family of commands."""

from __future__ import annotations

import argparse
import sys

from bridge import __version__, config, store
from bridge.cli import backup, doctor, explain, init, letters, plan, run
from bridge.watch import logs


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `passerelle`. Exit status: 0 done, 1 it failed and says why, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    logs.start("text", options.log or "warning")
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
    parser.add_argument(
        "--log",
        choices=["debug", "info", "warning", "error"],
        help="what matters less is left out of the log (run: as the configuration says; else warning)",
    )
    acts = parser.add_subparsers(required=True, metavar="command")
    for family in (init, doctor, run, plan, explain, letters, backup):
        family.add_to(acts)
    return parser
