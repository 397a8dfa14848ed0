"""`passerelle init`: asks what it needs to know, and writes a first configuration and the registration for it."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import secrets
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from bridge import config
from bridge.cli import first
from bridge.cli.options import Commands
from bridge.connector import Connector
from bridge.model import Question

FILES = ("passerelle.yaml", "registration.yaml")


def add_to(acts: Commands) -> None:
    parser = acts.add_parser("init", help="write a first configuration and a registration; never overwrites")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write them; default: here")
    plugins = _plugins()
    parser.add_argument("--plugin", choices=sorted(plugins), default=min(plugins, default=""), help="the first tool")
    asked = {each.name: each for kind in plugins.values() for each in kind.questions}
    for name, question in ({each.name: each for each in first.QUESTIONS} | asked).items():
        parser.add_argument(f"--{name}", metavar="", help=question.text.replace("%", "%%"))
    parser.set_defaults(act=_init)


def _plugins() -> dict[str, type[Connector]]:
    """Those that have questions for a first configuration."""
    found: dict[str, type[Connector]] = {}
    for point in entry_points(group="passerelle.plugins"):
        try:
            kind = point.load()
        except (ImportError, AttributeError):  # somebody's package is broken: who uses it is told by its connector
            continue
        if kind.questions:
            found[point.name] = kind
    return found


def _init(options: argparse.Namespace) -> int:
    plugin = _plugins()[options.plugin]
    paths = [options.folder.absolute() / name for name in FILES]
    for path in paths:
        if path.exists() or path.is_symlink():
            sys.exit(f"{path} is there already, and init never overwrites: move it away, or name another --folder")
    try:
        answers = _answers((*first.QUESTIONS, *plugin.questions), vars(options))
    except (KeyboardInterrupt, EOFError):
        sys.exit("\nNothing was written.")
    service = config.Appservice.model_fields
    names = first.Names(*(str(service[key].default) for key in ("id", "bot", "ghosts")))
    tokens = secrets.token_hex(32), secrets.token_hex(32)
    starter = plugin.starter(answers)
    text = first.config(answers, tokens, names, options.plugin, starter, str(paths[0]))
    _check(text, paths[0])
    paper = first.registration(answers["server-name"], answers["address"], tokens, names)
    try:
        _write({paths[0]: text, paths[1]: paper})
    except OSError as error:
        sys.exit(f"Nothing was written: {error}")
    print(f"\nWritten, readable by you alone:\n  {paths[0]}\n  {paths[1]}\n\nWhat to do now:")
    print(first.steps(answers, names.bot, str(paths[0]), str(paths[1]), starter.steps))
    return 0


def _answers(questions: tuple[Question, ...], given: Mapping[str, str | None]) -> dict[str, str]:
    """From flags; what they do not say is asked in a terminal, and elsewhere taken as its default."""
    answers: dict[str, str] = {}
    wrong: list[str] = []
    terminal = sys.stdin.isatty()
    for question in questions:
        known = {**answers, "bind": first.bound(answers.get("address") or "http://127.0.0.1:29400")}
        default = re.sub(r"\{([a-z-]+)\}", lambda match: known.get(match[1], ""), question.default)  # noqa: B023
        flag = given.get(question.name.replace("-", "_"))
        answer = flag if flag is not None else _asked(question, default) if terminal else default
        if problem := _problem(question, answer):
            wrong.append(f"--{question.name}: {problem}")
        answers[question.name] = answer
    if wrong:
        sys.exit("Nothing was written. These flags are missing or wrong:\n  " + "\n  ".join(wrong))
    return answers


def _asked(question: Question, default: str) -> str:
    """The answer of somebody in a terminal, once it makes sense."""
    while True:
        prompt = f"{question.text}{f' [{default}]' if default else ''}: "
        answer = (getpass.getpass(prompt) if question.secret else input(prompt)).strip() or default
        problem = _problem(question, answer)
        if not problem:
            return answer
        print(f"  {problem}")


def _problem(question: Question, answer: str) -> str:
    """Why that is no answer, "" when it is one."""
    if re.fullmatch(question.pattern, answer):
        return ""
    return f"{question.text}; it must look like {question.example}" if question.example else question.text


def _check(text: str, path: Path) -> None:
    """What is written must load, apart from secrets that are not where they will be."""
    unset = {name: "?" for name in re.findall(r"\$\{(\w+)\}", text)}
    try:
        config.read(re.sub(r"\$\{file:[^{}]+\}", "?", text), path, unset | dict(os.environ))
    except config.ConfigError as error:
        sys.exit("Nothing was written. These answers do not go together:\n  " + "\n  ".join(error.problems))


def _write(files: Mapping[Path, str]) -> None:
    """All of them, or none. Raises `OSError`, `FileExistsError` when one is there already."""
    made: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            made.append(path)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        for path in made:
            path.unlink()
        raise
