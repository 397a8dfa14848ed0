"""`python -m tests.crash`: progress on the way, one line of JSON at the end, exit status 1 unless nothing is lost."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash.run import Plan, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often the bridge is killed (default: 100)")
    parser.add_argument("--seed", type=int, help="the same seed plans the same load, faults and kills")
    parser.add_argument("--minutes", type=float, help="spread the kills over so long (default: 4.5 s for each)")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    minutes = options.kills * 4.5 / 60 if options.minutes is None else options.minutes
    logging.getLogger("nio").setLevel(logging.CRITICAL)  # the employees' clients meet a homeserver that is away
    folder = Path(tempfile.mkdtemp(prefix="passerelle-crash-"))
    count = asyncio.run(run(Plan(options.kills, seed, minutes * 60), folder, lambda line: print(line, flush=True)))
    print(json.dumps(count.line()), flush=True)
    if count.sound:
        shutil.rmtree(folder)
    else:
        print(f"what happened is in {folder}", file=sys.stderr)
    sys.exit(not count.sound)


if __name__ == "__main__":
    main()
