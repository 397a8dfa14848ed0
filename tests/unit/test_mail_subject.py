"""What stands before a subject: what a conversation is called, how an answer is titled, what was passed on."""

from __future__ import annotations

import pytest

from plugins.mail.subject import is_forward, topic, unanswered


@pytest.mark.parametrize(
    "subject",
    [
        "Printer on fire",
        "Re: Printer on fire",
        "RE: re: AW: Printer on fire",
        "Re[2]: Printer on fire",
        "Re : Printer on fire",
        "回复：Printer on fire",
        "Fwd: Printer on fire",
        "TR: RE: Printer on fire",
        "Re: WG: Printer on fire",
        "  Re:Printer on fire ",
    ],
)
def test_a_conversation_is_called_the_same_whoever_answers_or_passes_it_on(subject: str) -> None:
    assert topic(subject) == "Printer on fire"


@pytest.mark.parametrize(
    "subject", ["Reply: yes", "Ref: 4711", "Regarding: us", "Fire: now", "Re Printer", "12:30 Re: x"]
)
def test_words_that_only_look_like_a_mark_stay(subject: str) -> None:
    assert topic(subject) == unanswered(subject) == subject


def test_that_a_mail_was_passed_on_stays_in_the_subject_of_its_answer() -> None:
    assert unanswered("Re: Fwd: Printer") == "Fwd: Printer"
    assert topic("Re:") == ""


@pytest.mark.parametrize(
    ("subject", "forward"),
    [
        ("Fwd: x", True),
        ("FW: x", True),
        ("I: x", True),
        ("doorst: x", True),
        ("Re: Fwd: x", False),
        ("Forward x", False),
    ],
)
def test_what_was_passed_on_is_known_by_its_subject(subject: str, forward: bool) -> None:
    assert is_forward(subject) == forward


def test_endless_marks_and_spaces_take_no_time() -> None:
    for hostile in ("Re:" * 100_000, "Re: " + " " * 200_000 + "x", "re[" + "1" * 200_000, " " * 200_000):
        topic(hostile), unanswered(hostile), is_forward(hostile)
