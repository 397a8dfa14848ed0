"""Which of a scope's mappings take an envelope: those with a filter that fits, else those without a filter. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache

from bridge import config
from bridge.connector import Connector
from bridge.model import Card, Envelope

LONGEST = 1000  # characters of a fact that are compared
Facts = Mapping[str, Sequence[str]]


def facts_of(envelope: Envelope) -> Facts:
    """Values by name: what the plugin gives, and the card's fields by their labels ("assigned to" is assigned-to)."""
    return _facts((*envelope.facts, *(envelope.card.fields if envelope.card else ())))


def facts_of_card(card: Card) -> Facts:
    """The card's fields by their labels: fewer facts than what arrives may have."""
    return _facts(card.fields)


def _facts(pairs: Iterable[tuple[str, str]]) -> Facts:
    found: dict[str, list[str]] = {}
    for label, value in pairs:
        found.setdefault("-".join(label.lower().split()), []).append(value[:LONGEST])
    return found


def home_of(connector: Connector, card: Card) -> str:
    """The scope that an item belongs to: as its card says, else the connector's only one; "" when nobody can tell."""
    declared = connector.scopes()
    return card.scope or connector.scope or (declared[0] if len(declared) == 1 else "")


def chosen(mappings: Sequence[config.Mapping], facts: Callable[[], Facts]) -> list[config.Mapping]:
    """Of the mappings of one scope those that take what has these facts; `facts` is asked for only if one filters."""
    if not any(mapping.only for mapping in mappings):
        return list(mappings)
    known = facts()
    fitting = [mapping for mapping in mappings if mapping.only and fits(mapping.only, known)]
    return fitting or [mapping for mapping in mappings if not mapping.only]


def fits(only: Mapping[str, Iterable[str]], facts: Facts) -> bool:
    """Whether each fact that is named fits one of its patterns; one that is not known is empty."""
    return all(
        any(_pattern(pattern).match(value.casefold()) for pattern in patterns for value in facts.get(name) or ("",))
        for name, patterns in only.items()
    )


def leaves_out(mappings: Sequence[config.Mapping]) -> bool:
    """Whether a scope with these mappings takes only what fits a filter, or nothing new: everything else is refused."""
    return bool(mappings) and all(mapping.only or not mapping.new for mapping in mappings)


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    """`*` is anything, `?` one character, all else itself: a subject may well have a word in brackets."""
    return re.compile(translate(pattern.casefold().replace("[", "[[]")))
