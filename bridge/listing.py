"""How a list of what was found looks in a room. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from bridge.text.plain import one_line

LONGEST, LONGEST_URL = 120, 2000  # characters of a title, and of an address


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was found: what it is called, where it is, what else to know, and other ways to it."""

    title: str
    url: str
    about: str = ""
    more: tuple[tuple[str, str], ...] = ()  # what it is called, and its address


def spoken(lines: Iterable[Line], tail: Sequence[str]) -> tuple[str, str]:
    """(body, html), a line for each, and the tail below."""
    known = list(lines)
    body = "\n".join([*map(_plain, known), *tail])
    listed = f"<ul>{''.join(map(_rich, known))}</ul>" if known else ""
    return body, listed + "<br>".join(map(escape, tail))


def _plain(line: Line) -> str:
    addresses = [_safe(line.url), *(_safe(url) for _, url in line.more)]
    about = f" ({_short(line.about)})" if line.about else ""
    return f"• {_short(line.title)}{about} {' · '.join(filter(None, addresses))}".rstrip()


def _rich(line: Line) -> str:
    about = f" ({escape(_short(line.about))})" if line.about else ""
    more = [_anchor(name, url) for name, url in line.more]
    return f"<li>{' · '.join([_anchor(line.title, line.url) + about, *more])}</li>"


def _anchor(name: str, url: str) -> str:
    shown = escape(_short(name))
    return f'<a href="{escape(_safe(url))}">{shown}</a>' if _safe(url) else shown


def _safe(url: str) -> str:
    """An address that people can follow, and that clients do not take for anything else; "" for any other."""
    sound = url.startswith(("https://", "http://")) and len(url) <= LONGEST_URL and len(url.split()) == 1
    return url if sound else ""


def _short(text: str) -> str:
    line = one_line(text[: 4 * LONGEST])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
