"""Wikitext: what comes in is told as people mean it, what leaves means nothing, and nothing hostile takes long."""

from __future__ import annotations

import time

import pytest

from plugins.mediawiki import wikitext
from plugins.mediawiki.wikitext import Titles

SIGNATURE = "[[User:Alice|Alice]] ([[User talk:Alice|talk]]) 14:56, 22 November 2026 (UTC)"


@pytest.mark.parametrize(
    ("old", "new", "added"),
    [
        ("", "== A ==\none", "== A ==\none"),
        ("a\nb", "a\nx\n\n\n\ny\nb", "x\n\ny"),
        ("a\nb", "b", ""),
        ("a\na", "a\na\na", "a"),
        ("a", "changed", "changed"),
    ],
)
def test_what_is_added_to_a_page_are_the_lines_that_it_did_not_have(old: str, new: str, added: str) -> None:
    assert wikitext.added(old, new) == added


def test_a_signature_is_left_out_where_it_is_the_authors_own_and_at_the_end() -> None:
    for words in ("I agree. ", "I agree.--", "I agree. — "):
        assert wikitext.unsigned(f"== A ==\n{words}{SIGNATURE}", "Alice") == "== A ==\nI agree."
    for text in (f"I agree. {SIGNATURE}", f"{SIGNATURE} and more", "see [[User:Bob]], whose (UTC)"):
        assert wikitext.unsigned(text, "Bob") == text


@pytest.mark.parametrize(
    "line", ["{{x}}", "~~~~", "[[a]]", "* a", "== a ==", "a<b", "R&amp;D", "__TOC__", "''a''", " a"]
)
def test_what_leaves_means_nothing_in_wikitext(line: str) -> None:
    literal = wikitext.literal(line)
    assert (literal.startswith("<nowiki>"), literal.endswith("</nowiki>")) == (True, True)
    assert not set("<>") & set(literal[8:-9])


def test_plain_words_and_addresses_leave_as_they_are() -> None:
    assert wikitext.literal("Yes: 3, at https://a.example/x?y=1!") == "Yes: 3, at https://a.example/x?y=1!"
    assert (
        wikitext.literal("[see https://a.example/x]") == "<nowiki>[see </nowiki>https://a.example/x<nowiki>]</nowiki>"
    )


def test_a_comment_stands_at_the_end_of_its_section_with_all_below_it() -> None:
    page = "top\n== A ==\none\n=== deeper ===\ntwo\n\n== B ==\nthree\n"
    assert wikitext.placed(page, ":x", "A", "M")[0] == page.replace("two\n\n", "two\n\n:x\n\n").rstrip()
    assert wikitext.placed(page, ":x", "B", "M") == (f"{page}\n:x", "B")
    assert wikitext.placed(page, ":x", "C", "M") == (f"{page}\n== M ==\n:x", "M")
    assert wikitext.placed("", ":x", "", "M") == ("== M ==\n:x", "M")


def test_nothing_hostile_takes_long() -> None:
    began, names = time.monotonic(), Titles("wiki", "/wiki/$1", "https://w.example/")
    for part in (
        "=",
        "= ",
        "[[",
        "[[Alice",
        "~~~~",
        "<a ",
        '<a href="',
        "/*",
        "passerelle.",
        "https://",
        "%5B",
        "&a=b",
        "\n",
    ):
        text = part * (400_000 // len(part))
        wikitext.added(text, f"{text}x")
        wikitext.placed(text, ":x", "A", "M")
        wikitext.unsigned(text, "Alice")
        wikitext.absolute(text, "https://w.example/")
        wikitext.literal(text)
        wikitext.reason(text)
        wikitext.heading_of(text, text)
        names.find(f"https://w.example/index.php?{text[:2000]}")
        names.find(f"wiki:{text[:2000]}")
    assert time.monotonic() - began < 10
