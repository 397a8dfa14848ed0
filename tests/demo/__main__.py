"""`python -m tests.demo [--once]`: play the story, then stay up for people (or, once, say what was checked and end)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from typing import Any

STORY_HOLD = 2.0  # seconds; nobody sits at the keyboard while the story is played
PEOPLES_HOLD = 15.0  # the product's default
INTERRUPTED = 130
STOPPED = "\ndemo: stopped, nothing of it runs any more"


def main() -> None:
    options = _options()
    try:
        with asyncio.Runner() as runner:
            sys.exit(runner.run(_stoppable(options.once)))
    except KeyboardInterrupt:  # before there was anything to stop
        sys.exit(INTERRUPTED)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="play and check the story, then end")
    return parser.parse_args()


async def _stoppable(once: bool) -> int:
    """Ctrl-C, SIGTERM and a closed terminal end the demo in order; a second time they hurry it."""
    playing = asyncio.create_task(_play(once))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, playing.cancel)
    try:
        return await playing
    except asyncio.CancelledError:
        print(STOPPED, flush=True)
        return INTERRUPTED


async def _play(once: bool) -> int:
    from tests.demo import stage
    from tests.demo.checks import Checks
    from tests.demo.play import Play
    from tests.demo.transcript import Printer

    printer = Printer()
    printer.line("Passerelle: mail, tickets, opportunities, documents and chat are one conversation", "bold")
    try:
        async with stage.opened(printer, STORY_HOLD, fixed_ports=not once) as opened:
            play = Play(opened, Checks(printer))
            await _story(printer, play)
            if not once:
                with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how it ends
                    await _stay(printer, play)
    except stage.Busy as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if not once:
        print(STOPPED, flush=True)
    if play.checks.failures:
        printer.line(
            f"The logs are in {stage.FOLDER}: bridge/passerelle.log, synapse/synapse.log, roundup/roundup.log, demo.log"
        )
    return 1 if play.checks.failures else 0


async def _story(printer: Any, play: Any) -> None:
    from tests.demo.checks import SceneEnded
    from tests.demo.scenes import STORY

    for number, scene in enumerate(STORY, 1):
        title = " ".join(str(scene.__doc__).split())
        printer.scene(number, title)
        play.checks.begin(f"{number}. {title}")
        play.stage.transcript.left_place()
        try:
            with contextlib.suppress(SceneEnded):
                await scene(play)
        except Exception as error:
            play.checks.fail("the scene broke off", f"{type(error).__name__}: {error}")
        await play.quiet()
        play.checks.end()
    printer.line(f"\n{play.checks.verdict()}", "bold", "red" if play.checks.failures else "green")


async def _stay(printer: Any, play: Any) -> None:
    """Until somebody stops it."""
    from tests.demo.welcome import welcome

    printer.line()
    with printer.step(f"the bridge starts again, now with a hold of {PEOPLES_HOLD:g} s"):
        await play.stage.let_people_think(PEOPLES_HOLD)
    printer.line(welcome(play.stage))
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
