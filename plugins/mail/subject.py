"""What is put before the subject of an answer or of a mail passed on, in the languages mail programs speak. Pure."""

from __future__ import annotations

import re

_ANSWERED = "re|aw|sv|antw|rif|odp|vs|回复"
_PASSED_ON = "fwd?|tr|wg|rv|i|enc|doorst|vb"
_END = r"\s{0,9}(?:\[\d{1,9}\]\s{0,9})?[:：]\s{0,9}"  # some count: "Re[2]:"

_ANSWER = re.compile(rf"\s{{0,9}}(?:(?:{_ANSWERED}){_END})+", re.IGNORECASE)
_FORWARD = re.compile(rf"\s{{0,9}}(?:{_PASSED_ON}){_END}", re.IGNORECASE)
_MARKS = re.compile(rf"\s{{0,9}}(?:(?:{_ANSWERED}|{_PASSED_ON}){_END})+", re.IGNORECASE)


def topic(subject: str) -> str:
    """The subject without these marks."""
    return _without(_MARKS, subject)


def unanswered(subject: str) -> str:
    """The subject without the marks of answers; that it was passed on still says something."""
    return _without(_ANSWER, subject)


def is_forward(subject: str) -> bool:
    """Whether a mail of that subject passes another one on: then what it quotes is what it is about."""
    return _FORWARD.match(subject) is not None


def _without(marks: re.Pattern[str], subject: str) -> str:
    found = marks.match(subject)
    return subject[found.end() if found else 0 :].strip()
