"""Templates that look at JSON from outside: they can do nothing else, and not for long. Pure."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2 import ChainableUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import do_int
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.model import Rejected
from bridge.text import clean, one_line

SECONDS, LONGEST, SHORT = 0.1, 100_000, 500  # of CPU for one webhook; characters of its text, of all else
FILTERS = ("default", "first", "last", "length", "lower", "upper", "trim", "title", "string", "tojson")
ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Filter, nodes.Test, nodes.If, nodes.For, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or,
    nodes.Not, nodes.Concat, nodes.Add, nodes.Sub, nodes.List, nodes.Tuple, nodes.Keyword,
)  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """Templates that can look at what came, and do nothing else: no calls, assignments or macros, and none of the
    operators that make much of little. Loops and output have a limit in time.
    """

    def __init__(self) -> None:
        super().__init__(undefined=ChainableUndefined, finalize=self._shown, keep_trailing_newline=False)
        known: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in FILTERS}
        known["int"], known["round"], known["cut"] = _whole, _rounded, _cut
        self.filters = {name: self._bounded(filter) for name, filter in known.items()}
        self.filters |= {"join": self._joined, "timed": self._timed}
        self.globals = {}
        self.end = 0.0

    def checked(self, source: str) -> Any:
        """The compiled template. Raises `ValueError` saying what cannot be in it."""
        try:
            tree = self.parse(source)
            for node in tree.iter_child_nodes():
                self._check(node)
            for loop in tree.find_all(nodes.For):
                loop.iter = nodes.Filter(loop.iter, "timed", [], [], None, None)
            return self.template_class.from_code(self, self.compile(tree), {})
        except (TemplateError, RecursionError) as error:
            raise ValueError(f"the template {source[:60]!r}: {error}") from None

    def _check(self, node: nodes.Node) -> None:
        if not isinstance(node, ALLOWED):
            raise ValueError(f"templates cannot use {type(node).__name__.lower()} here (line {node.lineno})")
        if isinstance(node, nodes.Filter) and node.name == "timed":
            raise ValueError("templates have no filter timed")
        for child in node.iter_child_nodes():
            self._check(child)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return super().getattr(obj, attribute) if isinstance(obj, LoopContext) else self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What stands there in JSON, also under "items" or "keys"; never what Python knows by that name."""
        if isinstance(obj, dict) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        if isinstance(obj, list | str) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=obj, name=argument)

    def text(self, template: Any, values: Mapping[str, Any], limit: int) -> str:
        """What it says of `values`, cut to `limit` characters. Raises `Rejected`."""
        found, size = [], 0
        try:
            for piece in template.generate(values):
                self._tick()
                found.append(piece)
                size += len(piece)
                if size > limit:
                    break
        except (TemplateError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise Rejected(f"a template fails: {one_line(str(error))[:200]}") from None
        return clean("".join(found)[: limit + 1]).strip()

    def _tick(self) -> None:
        if time.thread_time() > self.end:
            raise SecurityError("it takes too long")

    def _bounded(self, filter: Callable[..., Any]) -> Callable[..., Any]:
        """The filter in time: nothing stops it once it has begun, so it is given no long text."""

        @functools.wraps(filter)
        def bounded(*given: Any, **named: Any) -> Any:
            self._tick()
            return filter(*(each[:LONGEST] if isinstance(each, str) else each for each in given), **named)

        return bounded

    def _timed(self, values: Any) -> Iterator[Any]:
        for value in values if isinstance(values, list | str | dict) else ():
            self._tick()
            yield value

    def _joined(self, values: Any, between: str = "") -> str:
        found, size = [], 0
        for value in self._timed(values):
            found.append(self._shown(value)[:LONGEST])
            size += len(found[-1]) + len(between)
            if size > LONGEST:
                break
        return str(between)[:SHORT].join(found)

    def _shown(self, value: Any) -> str:
        self._tick()
        if isinstance(value, bool | dict | list):
            return json.dumps(value)
        return str(value) if isinstance(value, str | int | float) else ""


def _whole(value: Any, default: int = 0) -> int:
    return do_int(value, default)  # without its bases: in some, numbers of any length are read


def _rounded(value: Any, digits: int = 0) -> Any:
    return round(value, max(-9, min(digits, 9)))  # Jinja's makes a number of as many digits as it is told


def _cut(value: Any, length: int) -> str:
    return str(value)[: int(length)]


SANDBOX = Sandbox()
