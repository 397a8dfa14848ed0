"""The catalogue of sentences."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from bridge.texts import CATALOGUE, Texts

SOURCES = "".join(path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "bridge").rglob("*.py"))


def fields(sentence: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(sentence) if field}


@pytest.mark.parametrize("key", CATALOGUE)
def test_both_languages_say_the_same_and_it_is_said_somewhere(key: str) -> None:
    english, french = CATALOGUE[key]
    assert fields(english) == fields(french)
    assert english != french
    assert re.search(rf"""["']{key}["'](?!: \()""", SOURCES) or key.startswith("help-")


def test_every_sentence_asked_for_exists() -> None:
    asked = set(re.findall(r'_?say\(\s*"([a-z-]+)"', SOURCES))
    assert asked <= set(CATALOGUE)


def test_a_bridge_can_speak_french() -> None:
    assert Texts("fr")("no-words") == "(pas de texte)"
