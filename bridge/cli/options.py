"""What the commands have in common: how they are added to the parser, which configuration they use, what they print."""

from __future__ import annotations

import argparse
import unicodedata
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # generic in the type checker only


def with_config(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Let the command be told which configuration file to use."""
    parser.add_argument("--config", type=Path, default=Path("passerelle.yaml"), help="default: passerelle.yaml")
    return parser


def printable(text: str) -> str:
    """What another server said, on one line and harmless to a terminal: a space for each control character."""
    kept = (" " if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one for one in text)
    return "".join(kept)
