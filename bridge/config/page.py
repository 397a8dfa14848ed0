"""A page of YAML that knows the line of everything on it, and what is wrong there, told without showing any value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

Place = tuple[str, ...]  # keys and positions that lead to a value, from the top
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")  # what PyYAML quotes from the page: it may be a secret
_ODD = "put a value that begins with * & ! @ ` or % in quotes"


class PageError(Exception):
    """The text is no YAML. `line` counts from 1; 0 when it is not known."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


@dataclass(slots=True)
class Page:
    """What the text says, and where; `doubles` are keys that stand twice in one section, with both lines."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    doubles: list[tuple[Place, int, int]] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """The line of that place, or of the nearest one around it that is on the page."""
        return next((self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines), 1)

    def inner(self, place: Place) -> Place:
        """As much of the place as is on the page."""
        return next((place[:end] for end in range(len(place), -1, -1) if place[:end] in self.lines), ())


def read(text: str) -> Page:
    """Read one document. Raises `PageError`."""
    page = Page()
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is not None:
                _note(page, loader, root, (), frozenset())
                page.value = loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise PageError(*_explained(error)) from None
    except RecursionError:
        raise PageError(0, "this is nested too deeply") from None
    return page


def _note(page: Page, loader: yaml.SafeLoader, node: yaml.Node, place: Place, around: frozenset[int]) -> None:
    """Take down the line of a value and of all in it. An alias may lead to what it is in itself."""
    page.lines.setdefault(place, node.start_mark.line + 1)
    if id(node) in around:
        raise PageError(node.start_mark.line + 1, "this contains itself")
    for key, inner, line in _inner(loader, node):
        here = (*place, key)
        if isinstance(node, yaml.MappingNode) and here in page.lines:
            page.doubles.append((here, page.lines[here], line))
        page.lines[here] = line
        _note(page, loader, inner, here, around | {id(node)})


def _inner(loader: yaml.SafeLoader, node: yaml.Node) -> Iterator[tuple[str, yaml.Node, int]]:
    """Key or position, value and line of each part."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(_scalar(loader, key)), value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield str(number), value, value.start_mark.line + 1
    else:
        _scalar(loader, node)


def _scalar(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """A single value, told by its line when it looks like something that it is not (2026-13-45)."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if node.tag == "tag:yaml.org,2002:merge":  # "<<", which is resolved later
        return node.value
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError):
        what = "this looks like a number or a date, but is none: put it in quotes"
        raise PageError(node.start_mark.line + 1, what) from None


def _explained(error: yaml.YAMLError) -> tuple[int, str]:
    """Line and reason, without a word of the page itself."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "this is not YAML"
    what = _QUOTED.sub(_hidden, str(problem))
    if re.search(r"alias|anchor|tag|cannot start", what):
        what = f"{what}; {_ODD}"
    return (mark.line + 1 if mark else 0), what


def _hidden(quoted: re.Match[str]) -> str:
    """Punctuation and names of tokens (<scalar>) may be shown."""
    inner = quoted[1] or quoted[2] or ""
    return quoted[0] if len(inner) < 3 or (inner.startswith("<") and inner.endswith(">")) else "…"


class Mistakes:
    """What is wrong on a page, in the order of its lines."""

    def __init__(self, name: str, page: Page) -> None:
        self._name = name
        self._page = page
        self._found: list[tuple[int, str]] = []
        self._unread: set[Place] = set()  # nobody knows what stands there: no more is said of it

    def at(self, place: Place, what: str) -> None:
        """Something is wrong there."""
        line = self._page.line(place)
        where = f"{'.'.join(place)}: " if place else ""
        self._found.append((line, f"{self._name} line {line}: {where}{what}"))

    def unread(self, place: Place, what: str) -> None:
        """As `at`, of a value that could not be read."""
        self.at(place, what)
        self._unread.add(place)

    def doubles(self) -> None:
        """Keys that stand twice: the second one would win without a word."""
        for place, first, second in self._page.doubles:
            what = f"this key stands twice in its section, in lines {first} and {second}: keep one"
            self._found.append((second, f"{self._name} line {second}: {'.'.join(place)}: {what}"))

    def validated(self, model: type[BaseModel], raw: Any, place: Place = ()) -> Any:
        """The model of what stands there; None, and what is wrong taken down, when it cannot be made."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            for each in error.errors(include_input=False, include_url=False):  # an input may be a secret
                inner = tuple(str(part) for part in each["loc"])
                if self._page.inner((*place, *inner)) not in self._unread:
                    self.at((*place, *inner), self._reason(model, each["type"], each["msg"], inner))
            return None

    def _reason(self, model: type[BaseModel], kind: str, said: str, place: Place) -> str:
        if kind == "missing":
            return "this is needed and missing"
        if kind != "extra_forbidden":
            return said.removeprefix("Value error, ")
        known = sorted(_keys(model, place[:-1]))
        return f"there is no such setting here{suggestion(place[-1], known) or '; known: ' + ', '.join(known)}"

    @property
    def told(self) -> list[str]:
        """One line for each thing to mend, in the order in which they stand on the page."""
        return [what for _, what in sorted(self._found, key=lambda found: found[0])]


def suggestion(word: str, known: Iterable[str]) -> str:
    """ ", did you mean ...?" for a word that is nearly one of those; else ""."""
    near = get_close_matches(word.lower(), list(known), 1, 0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _keys(model: type[BaseModel], place: Place) -> set[str]:
    """The settings of the section that the place leads to; keys of dicts and positions are passed over."""
    for part in place:
        if part in model.model_fields:
            model = next(iter(_models(model.model_fields[part].annotation)), model)
    return set(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections in a type, such as Mailbox in tuple[Mailbox, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def filled(value: Any, environment: dict[str, str], mistakes: Mistakes, place: Place = ()) -> Any:
    """The value with ${NAME} from the environment and ${file:/path} from the first line of that file."""
    if isinstance(value, dict):
        return {key: filled(inner, environment, mistakes, (*place, str(key))) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, environment, mistakes, (*place, str(at))) for at, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match[1]:
            line, why = _first_line(Path(match[1]))
            if why:
                mistakes.unread(place, f"${{file:{match[1]}}}: {why}")
            return line
        if match[2] not in environment:
            mistakes.unread(place, f"${{{match[2]}}}: this environment variable is not set")
        return environment.get(match[2], match[0])

    return re.sub(r"\$\{(?:file:([^{}]+)|(\w+))\}", fill, value)


def _first_line(path: Path) -> tuple[str, str]:
    """What a secret's file holds; or why it cannot be used, told without its content."""
    if not path.is_absolute():
        return "?", "must be an absolute path"
    try:
        line = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        return "?", error.strerror or type(error).__name__
    except ValueError:
        return "?", "it is not text in UTF-8"
    return line or "?", "" if line else "its first line is empty"
