"""`passerelle doctor`: looks at everything the bridge needs and says what to do about what is wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from bridge import config
from bridge.cli import ask
from bridge.cli.options import Commands, with_config
from bridge.doctor import Line, examine

MARKS = {"ok": "ok", "note": "--", "trouble": "!!"}


def add_to(acts: Commands) -> None:
    parser = acts.add_parser(
        "doctor", help="look at everything the bridge needs; exit status 1 when something is wrong"
    )
    with_config(parser)
    parser.add_argument(
        "--registration", type=Path, help="the registration file; default: registration.yaml beside the configuration"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each line")
    parser.set_defaults(act=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    try:
        settings, connectors = config.load(options.config)
    except config.ConfigError as error:
        for problem in error.problems:
            _show(Line("config", "trouble", problem, "mend it; config/passerelle.yaml explains every setting"), options)
        return 1
    _show(Line("config", "ok", f"{options.config} can be used"), options)
    beside = options.config.parent / "registration.yaml"
    paper = options.registration or (beside if beside.exists() else None)
    return asyncio.run(_examined(settings, connectors, paper, options))


async def _examined(
    settings: config.Config, connectors: config.Connectors, paper: Path | None, options: argparse.Namespace
) -> int:
    wrong = 0
    async with ask.running(settings) as session:
        async for line in examine(settings, connectors, session, paper):
            _show(line, options)
            wrong += line.state == "trouble"
    if not options.json:
        print(f"\n{wrong} to mend (!!)." if wrong else "\nAll is well.")
    return 1 if wrong else 0


def _show(line: Line, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(asdict(line), ensure_ascii=False), flush=True)
        return
    remedy = f"  -> {line.remedy}" if line.remedy else ""
    print(f"{MARKS[line.state]}  {line.about}: {line.what}{remedy}", flush=True)
