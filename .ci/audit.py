"""`make audit`: are vulnerabilities known of what requirements.lock names? pip-audit asks https://osv.dev.

Ends with 1 when one is known. Where the database cannot be reached it says "not run" and ends with 0: that says nothing
about the dependencies. OSV_URL names another database that speaks as OSV does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOL = "pip-audit==2.10.1"
VENV = ROOT / ".venv-audit"  # its 30 packages are none of ours
OSV = os.environ.get("OSV_URL", "https://api.osv.dev/v1/query")
KNOWN = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.4.1"}  # vulnerable for sure


def unreachable() -> str:
    """Why the database cannot be asked, "" when it can: it must know of what everybody knows."""
    request = urllib.request.Request(OSV, json.dumps(KNOWN).encode(), {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310 - the operator's own URL
            return "" if json.load(answer).get("vulns") else "it knows nothing of a vulnerability that everybody knows"
    except (OSError, ValueError) as error:
        return str(error)


def main() -> int:
    if why := unreachable():
        print(f"audit: not run: no advisory database reachable ({OSV}: {why})")
        return 0
    program = VENV / "bin" / "pip-audit"
    try:
        if not program.exists():
            run(sys.executable, "-m", "venv", "--clear", VENV)
            (VENV / ".gitignore").write_text("*\n")
            run(VENV / "bin" / "pip", "install", "--quiet", TOOL)
    except subprocess.CalledProcessError:
        print(f"audit: not run: {TOOL} cannot be installed")
        return 0
    lock = ("--strict", "--require-hashes", "--disable-pip", "--requirement", ROOT / "requirements.lock")
    try:
        run(program, *lock, "--progress-spinner", "off", "--vulnerability-service", "osv", "--osv-url", OSV)
    except subprocess.CalledProcessError:
        return 1
    return 0


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - our own words


if __name__ == "__main__":
    sys.exit(main())
