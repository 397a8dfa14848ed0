"""Send a mail to the running demo by hand, or answer one of those that left it."""

from __future__ import annotations

import argparse
import asyncio
import json
import mimetypes
import sys
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from email.utils import getaddresses
from pathlib import Path

import aiosmtplib

from tests.peers import ROOT
from tests.peers.world import Attachment, letter, post

NOTE = ROOT / ".demo" / "demo.json"


def main() -> None:
    options = _options()
    try:
        note = json.loads(NOTE.read_text())
    except OSError:
        sys.exit("No demo runs here: make demo")
    message = _message(options, Path(note["outgoing"]))
    to = [address for _, address in getaddresses([str(message["To"])])]
    try:
        print(asyncio.run(post(note["host"], note["port"], options.sender, to, message)))
    except aiosmtplib.SMTPRecipientsRefused as error:
        sys.exit(f"Not taken: {error.recipients[0].code} {error.recipients[0].message}")
    except (OSError, aiosmtplib.SMTPException) as error:
        sys.exit(f"Not taken: {error}. Does the demo run? make demo")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.demo.mail", description=__doc__)
    parser.add_argument("--to", default="support@company.example")
    parser.add_argument("--from", dest="sender", default="you@outside.example")
    parser.add_argument("--subject", default="Hello")
    parser.add_argument("--body", help="default: what is typed or piped in")
    parser.add_argument("--attach", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument(
        "--answer", nargs="?", const=Path(), type=Path, metavar="EML", help="answer this mail (default: the last)"
    )
    return parser.parse_args()


def _message(options: argparse.Namespace, outgoing: Path) -> EmailMessage:
    answered = _answered(options.answer, outgoing) if options.answer is not None else None
    if options.body is None and sys.stdin.isatty():
        print("The text, then Ctrl-D:", file=sys.stderr)
    body = sys.stdin.read() if options.body is None else options.body
    files = [Attachment(path.name, path.read_bytes(), _type(path)) for path in options.attach]
    if answered is None:
        return letter(options.sender, options.to, options.subject, f"{body}\n", attachments=files)
    subject = str(answered["Subject"] or "")
    ancestors = [*str(answered["References"] or "").split(), str(answered["Message-ID"])]
    return letter(
        options.sender, str(answered["Reply-To"] or answered["From"]),
        subject if subject.lower().startswith("re:") else f"Re: {subject}", f"{body}\n",
        attachments=files, in_reply_to=ancestors[-1], references=ancestors,
    )  # fmt: skip


def _answered(file: Path, outgoing: Path) -> EmailMessage:
    mails = sorted(outgoing.glob("*.eml"))
    if file == Path() and not mails:
        sys.exit("No mail has left yet.")
    parsed = BytesParser(policy=SMTP).parsebytes((mails[-1] if file == Path() else file).read_bytes())
    assert isinstance(parsed, EmailMessage)
    return parsed


def _type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


if __name__ == "__main__":
    main()
