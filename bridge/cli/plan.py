"""`passerelle plan` and `apply`: what the configuration would change, and changing it while the bridge runs."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from bridge import config
from bridge.admin.plan import Plan, Step, cautions, mapping_steps
from bridge.cli import ask
from bridge.cli.options import Commands, printable, with_config
from bridge.store.search import applied

CHANGES = 3  # exit status of `plan` when there is something to apply; 2 is what a wrong usage ends with
LONGEST = 120.0  # seconds that a bridge may take to start anew: what is in flight ends first
_WHEN = {"at once": "at once", "anew": "starts anew", "stopped": "STOP FIRST"}


def add_to(acts: Commands) -> None:
    parser = acts.add_parser("plan", help="show what the configuration would change (exit status 3: something)")
    with_config(parser).set_defaults(act=lambda options: asyncio.run(_plan(options.config)))
    parser = acts.add_parser("apply", help="change the running bridge to what the configuration says")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    with_config(parser).set_defaults(act=lambda options: asyncio.run(_apply(options)))


async def _plan(path: Path) -> int:
    async with ask.running_on(ask.folder_of(path)) as session:
        plan = await _asked(session, path) if session else await _stopped(path)
    _show(plan)
    if session is None:
        print("The bridge does not run: of its settings only mappings are remembered to compare with.")
    return CHANGES if plan.steps else 0


async def _apply(options: argparse.Namespace) -> int:
    path = options.config
    async with ask.running_on(ask.folder_of(path)) as session:
        if session is None:
            config.load(path)
            print(f"The bridge does not run; it will use {path} when it starts.")
            return 0
        plan = await _asked(session, path)
        _show(plan)
        if not plan.steps:
            return 0
        if plan.refused:
            print("Stop the bridge for this, change the file, and start it again.", file=sys.stderr)
            return 1
        if not options.yes and not await asyncio.to_thread(_agreed):
            print("Nothing is changed.")
            return 1
        outcome = await _answer(await session.post("/apply", json=_request(path, plan.digest)))
    if outcome["state"] == "starting":
        print("The bridge starts anew …", flush=True)
        outcome = await _ended(path, plan.digest)
    print(*map(printable, outcome["told"]), sep="\n", end="\n" if outcome["told"] else "")
    print("Applied." if outcome["state"] == "done" else "Nothing is changed.")
    return 0 if outcome["state"] == "done" else 1


def _agreed() -> bool:
    if not sys.stdin.isatty():
        sys.exit("Nobody can be asked here: type --yes to apply this.")
    return input("Apply this? [y/N] ").strip().lower() in ("y", "yes", "o", "oui")


def _request(path: Path, digest: str = "") -> dict[str, str]:
    return {"path": str(path.absolute()), "digest": digest}


async def _asked(session: aiohttp.ClientSession, path: Path) -> Plan:
    """The running bridge reads the file: with its own environment, in which secrets are."""
    found = await _answer(await session.post("/plan", json=_request(path)))
    return Plan(tuple(Step(**step) for step in found["steps"]), tuple(found["warnings"]), found["digest"])


async def _answer(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    if answer.status == 409:
        sys.exit(f"Nothing is changed: {(await answer.json())['problems'][0]}")
    if answer.status == 422:
        raise config.ConfigError((await answer.json())["problems"])
    answer.raise_for_status()
    found: dict[str, Any] = await answer.json()
    return found


async def _ended(path: Path, digest: str) -> dict[str, Any]:
    """How the change ends; meanwhile the bridge that was asked goes, and another comes."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        await asyncio.sleep(0.2)
        try:
            async with ask.running_on(ask.folder_of(path)) as session:
                outcome = await _answer(await session.get("/applied")) if session else {}
        except (aiohttp.ClientError, OSError):
            continue  # it is just going, or coming
        if outcome.get("digest") == digest and outcome["state"] != "starting":
            return outcome
    sys.exit(f"The bridge did not say within {LONGEST:g} s how it ended; its log does, and passerelle plan shows.")


async def _stopped(path: Path) -> Plan:
    """Against the mappings that were applied last."""
    settings, _ = config.load(path)
    old, made = await asyncio.to_thread(applied, settings.data)
    return Plan(tuple(mapping_steps(old, settings.mappings)), tuple(cautions(old, settings, made, {})))


def _show(plan: Plan) -> None:
    for step in plan.steps:
        print(f"{step.sign} {_WHEN[step.when]:<12} {printable(step.what)}")
    for warning in plan.warnings:
        print(f"! {printable(warning)}")
    if not plan.steps:
        print("Nothing to do: the bridge is as the configuration says.")
    elif plan.anew:
        print(f"{len(plan.steps)} changes. The bridge starts its parts anew for it: who speaks to it comes again.")
    else:
        print(f"{len(plan.steps)} changes.")
