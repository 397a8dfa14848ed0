"""Text on its way between mail, tools and Matrix."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.text import (
    clean,
    html_to_text,
    matrix_to_html,
    matrix_to_text,
    safe_html,
    text_to_html,
    trim,
)
from bridge.text.plain import decode, decode_words
from plugins.mail.quotes import fold, fold_html, unflow

SHOWN = "p br strong em u del code pre a ul ol li h1 h2 h3 h4 blockquote sup sub table thead tbody tr th td"
ALLOWED = set(SHOWN.split())
PIECES = (
    "<p> </p> <div> </div> <b> </b> <i> <ul> <li> </ul> <table> <tr> <td> <th> </table> <br> <script> </script> "
    "<style> <!-- --> <![if> <pre> </pre> <blockquote> </blockquote> <head> <title> <mx-reply> </mx-reply> &amp; "
    "&#x202e; &#xD800; &lt; < > \" '"
)
TAG = re.compile(r"</?([a-zA-Z0-9-]+)([^>]*)>")
HANG = 20.0  # seconds of CPU; the point is that it ends

SOUP = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(PIECES.split()),
        st.sampled_from(
            [
                '<a href="javascript:alert(1)">',
                "<a href='https://example.org/?a=1&b=2'>",
                "</a>",
                '<img src="https://example.org/pixel" alt="a <b> c">',
                '<p onclick="x()" style="display:none">',
                '<a href="data:text/html,x" x="',
            ]
        ),
    ),
    max_size=40,
).map("".join)


def tags(html: str) -> set[str]:
    return {found[1].lower() for found in TAG.finditer(html)}


# Plain text


def test_clean_drops_what_breaks_homeservers_and_readers() -> None:
    assert clean("a\ud800b\x00c\x07d\u202ee\u2066f") == "abcdef"
    assert clean("tab\tstays") == "tab\tstays"


@pytest.mark.parametrize("newline", ["\r\n", "\r", "\n", "\u2028", "\x0c"])
def test_every_kind_of_newline_becomes_the_same(newline: str) -> None:
    assert clean(f"a{newline}b") == "a\nb"
    assert clean(f"é{newline}b") == "é\nb"


def test_at_most_two_blank_lines_follow_each_other() -> None:
    assert clean("a\n\n \n\t\n\n\nb") == "a\n\n\nb"
    assert clean("a\n\n\nb") == "a\n\n\nb"


@given(st.text())
def test_clean_text_is_clean(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    once.encode()


def test_a_short_text_is_not_trimmed() -> None:
    assert trim("one\ntwo\n") == ("one\ntwo\n", False)


def test_a_long_text_is_trimmed_at_the_end_of_a_line() -> None:
    assert trim("first line here\nsecond line here", limit=20) == ("first line here", True)


def test_a_long_line_is_trimmed_at_the_end_of_a_word() -> None:
    assert trim("some words in a row", limit=12) == ("some words", True)


def test_a_text_of_one_long_word_is_cut() -> None:
    assert trim("x" * 100, limit=10) == ("x" * 10, True)


def test_too_many_lines_are_trimmed() -> None:
    assert trim("\n".join("abc"), lines=2) == ("a\nb", True)


@given(st.text(), st.integers(1, 50), st.integers(1, 5))
def test_a_trimmed_text_begins_the_whole_one(text: str, limit: int, lines: int) -> None:
    short, cut = trim(text, limit, lines)
    assert text.startswith(short)
    assert cut or short == text
    assert not cut or (len(short) <= limit and short.count("\n") < lines)


def test_text_becomes_html_with_links() -> None:
    assert text_to_html("a < b\nsee https://example.org/x?a=1&b=2.") == (
        'a &lt; b<br>see <a href="https://example.org/x?a=1&amp;b=2">https://example.org/x?a=1&amp;b=2</a>.'
    )


def test_a_link_keeps_the_brackets_it_opened() -> None:
    assert 'href="https://example.org/a_(b)"' in text_to_html("(https://example.org/a_(b))")


@given(st.text())
def test_text_as_html_has_no_tags_but_breaks_and_links(text: str) -> None:
    assert tags(text_to_html(text)) <= {"br", "a"}


def test_flowed_text_is_joined_and_its_quotes_stay_apart() -> None:
    assert unflow("one \ntwo\n> three \n> four\n-- \nsig") == "one two\n> three four\n-- \nsig"
    assert unflow("  indented\nsplit \nhere", delsp=True) == " indented\nsplithere"


def test_bytes_are_decoded_whatever_their_charset_claims() -> None:
    assert decode("é".encode(), "utf-8") == "é"
    assert decode(b"\xe9\x93", "iso-8859-1") == "é“"
    assert decode("é".encode(), "no-such-charset") == "é"
    assert decode(b"\xe9", "us-ascii") == "é"
    assert decode(b"\x00\xff", "base64") == "\x00ÿ"
    assert decode(b"abc", "punycode") == "abc"
    assert decode(b"abc", "a\x00b") == "abc"


def test_a_character_split_over_two_encoded_words_survives() -> None:
    assert decode_words("=?utf-8?B?w6?= =?utf-8?B?k=?=") != ""
    assert decode_words("=?utf-8?Q?caf=C3?=\r\n =?utf-8?Q?=A9_noir?= au lait") == "café noir au lait"


def test_what_is_no_encoded_word_stays() -> None:
    assert decode_words("a =?b c?= =?utf-8?x?y?=") == "a =?b c?= =?utf-8?x?y?="


# Matrix to mail


def test_the_quote_of_a_rich_reply_never_leaves() -> None:
    html = "<mx-reply><blockquote>internal <b>words</b></blockquote></mx-reply>Hello"
    assert matrix_to_html(html) == "Hello"
    assert matrix_to_text("> <@alice:example.org> internal\n> words\n\nHello", is_reply=True) == "Hello"


@pytest.mark.parametrize(
    "html",
    [
        "Hello<mx-reply>internal",
        "Hello<MX-Reply><mx-reply>a</mx-reply>internal</MX-Reply>",
        "Hello<mx-reply x='y'><title>internal</mx-reply></title>internal",
    ],
)
def test_a_broken_quote_of_a_rich_reply_never_leaves(html: str) -> None:
    assert matrix_to_html(html) == "Hello"


def test_a_quote_that_the_employee_typed_stays() -> None:
    assert matrix_to_text("> a quote\n\nan answer", is_reply=True) == "> a quote\n\nan answer"


def test_a_mention_leaves_as_a_name() -> None:
    html = 'Ask <a href="https://matrix.to/#/@alice:example.org">Alice</a>'
    assert matrix_to_html(html) == "Ask Alice"
    assert matrix_to_text("Ask [Alice](https://matrix.to/#/@alice:example.org)") == "Ask Alice"
    assert matrix_to_text("Ask @alice:example.org", html) == "Ask Alice"


def test_a_mention_without_a_name_leaves_without_the_server() -> None:
    html = '<a href="https://matrix.to/#/%40alice%3Aexample.org">@alice:example.org</a>'
    assert matrix_to_html(html) == "alice"


@pytest.mark.parametrize(
    "address",
    [
        "https://matrix.to/#/!room:example.org/$event?via=example.org",
        "matrix:roomid/room:example.org",
        "mxc://example.org/abc",
        "https://chat.example.org/#/room/!room:example.org",
    ],
)
def test_no_address_inside_the_homeserver_leaves(address: str) -> None:
    assert matrix_to_html(f'see <a href="{address}">here</a>, {address}') == "see here,"
    assert matrix_to_text(f"see {address} now") == "see  now"


def test_marks_of_matrix_clients_are_gone_and_the_text_stays() -> None:
    html = (
        '<font color="#f00" data-mx-color="#f00">red</font> <span data-mx-spoiler="why">hidden</span> '
        '<img src="mxc://example.org/a" data-mx-emoticon alt=":cat:">'
    )
    assert matrix_to_html(html) == "red hidden :cat:"


# Foreign HTML


def test_only_tags_that_clients_show_are_kept() -> None:
    html = (
        "<h6>T</h6><center>c</center><p><b>b</b> <i>i</i> <s>s</s> <u>u</u> <font color=red>f</font></p><hr><dl>d</dl>"
    )
    assert safe_html(html) == ("<h4>T</h4>c<p><strong>b</strong> <em>i</em> <del>s</del> <u>u</u> f</p>d")


def test_blocks_become_lines() -> None:
    assert safe_html("<div>a</div><div><div>b</div></div><div><br></div><div>c</div>") == "a<br>b<br><br>c"
    assert html_to_text("<div>a</div><div><div>b</div></div><div><br></div><div>c</div>") == "a\nb\n\nc"


def test_nothing_remote_is_loaded() -> None:
    assert safe_html('<img src="https://example.org/p.gif" alt="a &quot;logo&quot;"><img src="cid:x">') == 'a "logo"'


def test_links_go_to_the_web_or_to_mail_only() -> None:
    assert safe_html('<a href="javascript:x">a</a><a href=" java\nscript:x">b</a><a href="/rel">c</a>') == "abc"
    assert safe_html('<a href="mailto:a@b.c" onclick="x">m</a>') == '<a href="mailto:a@b.c">m</a>'


def test_an_outsider_makes_no_mention() -> None:
    assert safe_html('<a href="https://matrix.to/#/@boss:example.org">Boss</a>') == "Boss"


def test_scripts_styles_titles_comments_and_hidden_text_are_left_out() -> None:
    html = (
        "<head><title>t</title><style>p{}</style></head><!-- c --><script>document.write('<p>x</p>')</script>"
        '<div style="display: none">preview</div><p>shown</p><!--[if mso]>o<![endif]-->'
    )
    assert safe_html(html) == "<p>shown</p>"
    assert html_to_text(html) == "shown"


def test_tables_of_data_stay_tables_and_layout_goes() -> None:
    data = "<table><tr><td>1<td>2<tr><td>3<td>4</table>"
    assert safe_html(data) == (
        "<table><tbody><tr><td>1</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></tbody></table>"
    )
    assert safe_html(f"<table><tr><td>a</td></tr><tr><td>{data}</td></tr></table>") == f"a{safe_html(data)}"


def test_old_html_without_closing_tags_is_not_taken_for_deep() -> None:
    assert safe_html("<p>x" * 300 + "<p><b>last</b>").endswith("<p><strong>last</strong></p>")
    assert safe_html("<ul>" + "<li>x" * 300 + "<li><b>last</b></ul>").endswith("<li><strong>last</strong></li></ul>")


def test_text_with_links_says_where_they_lead() -> None:
    assert html_to_text('<a href="https://example.org/a">here</a> <a href="https://b.org">https://b.org</a>') == (
        "here (https://example.org/a) https://b.org"
    )


def test_unfinished_html_still_has_its_text() -> None:
    assert html_to_text("<style>oops") == "oops"
    assert html_to_text("a < b <") == "a < b <"
    assert html_to_text('<div style="display:none">only this') == "only this"


def test_entities_never_smuggle_controls() -> None:
    assert safe_html("a&#x202e;b&#1;c&#xD800;") == "abc\ufffd"


@settings(max_examples=300)
@given(SOUP)
def test_safe_html_has_only_allowed_tags_and_addresses(html: str) -> None:
    safe = safe_html(html)
    assert tags(safe) <= ALLOWED
    for name, attributes in TAG.findall(safe):
        assert not attributes.strip() or (name == "a" and re.fullmatch(r' href="(https?:|mailto:)[^"]*"', attributes))
    assert "\u202e" not in safe
    safe.encode()


@settings(max_examples=200)
@given(SOUP)
def test_safe_html_is_stable(html: str) -> None:
    safe = safe_html(html)
    assert html_to_text(safe).split() == html_to_text(safe_html(safe)).split()


@settings(max_examples=200)
@given(SOUP)
def test_no_html_breaks_any_reader_of_it(html: str) -> None:
    html_to_text(html).encode()
    folded, lines = fold_html(html)
    assert html.startswith(folded)
    assert (lines == 0) == (folded == html)
    assert "<mx-reply" not in matrix_to_html(html)


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 50_000 + "hi",
        "<b>" * 50_000 + "hi",
        "<table><tr><td>" * 30_000 + "hi",
        "<blockquote type=cite>" * 40_000 + "hi",
        "<a " * 300_000 + "hi",
        "hi" + "<!--" * 200_000,
        "hi" + "<" * 900_000,
        "hi" + "&" * 900_000,
        "hi" + '<a x="' * 150_000,
        "hi <img " + "a" * 900_000 + ">",
        "hi" + "<svg>" * 190_000,
        "hi" + "".join(f"<font size={i}><b class={i}><i><u>" for i in range(8000)) + "<p>x" * 10_000,
        "hi" + "x" * 3_000_000,
    ],
    ids=lambda html: html[:16],
)
def test_hostile_html_gives_its_text_in_bounded_time(html: str) -> None:
    start = time.process_time()
    assert "hi" in html_to_text(html)
    assert "hi" in safe_html(html)
    fold_html(html)
    assert time.process_time() - start < HANG


# Quotes in plain text

QUOTED = "> first\n> second"


@pytest.mark.parametrize(
    "attribution",
    [
        "On Mon, 3 Jan 2022 at 10:00, Alice Martin <alice@example.org> wrote:",
        "On Mon, 3 Jan 2022 at 10:00, Alice Martin\n<alice@example.org> wrote:",
        "Le lun. 3 janv. 2022 à 10:00, Alice Martin <alice@example.org> a écrit :",
        "Le 03/01/2022 à 10:00, Alice a écrit\xa0:",
        "Am 03.01.22 um 10:00 schrieb Alice:",
        "Am 03.01.2022 um 10:00 schrieb Alice <alice@example.org>:",
        "Op 3 jan. 2022 om 10:00 schreef Alice <alice@example.org>:",
        "Il giorno 3 gen 2022, alle ore 10:00, Alice <alice@example.org> ha scritto:",
        "El 3 ene 2022, a las 10:00, Alice <alice@example.org> escribió:",
        "Alice Martin <alice@example.org> wrote:",
    ],
)
def test_an_attributed_quote_is_folded(attribution: str) -> None:
    assert fold(f"Thanks!\n\n{attribution}\n\n{QUOTED}\n") == ("Thanks!", attribution.count("\n") + 3)


def test_a_quote_without_attribution_is_folded() -> None:
    assert fold(f"Thanks!\n\n{QUOTED}\n\n") == ("Thanks!", 2)


def test_a_dated_attribution_folds_what_is_not_marked() -> None:
    text = "Thanks!\n\nOn Mon, 3 Jan 2022 at 10:00, Alice <a@example.org> wrote:\n\nfirst\nsecond"
    assert fold(text) == ("Thanks!", 3)


def test_a_sentence_that_tells_who_wrote_is_not_folded() -> None:
    text = "Hello,\n\nYesterday Bob wrote:\nthe server is down.\n\nI think he is wrong."
    assert fold(text) == (text, 0)


@pytest.mark.parametrize(
    "header",
    [
        "-----Original Message-----\nFrom: Alice",
        "-----Message d'origine-----\nDe : Alice",
        "-----Message d’origine-----",
        "-----Ursprüngliche Nachricht-----",
        "________________________________\nFrom: Alice\nSent: Monday\nTo: Bob\nSubject: Re: x",
        "From: Alice <a@example.org>\nSent: Monday, 3 January 2022 10:00\nTo: Bob\nSubject: Re: x",
        "*From:* Alice\n*Date:* Monday\n*To:* Bob",
        "De : Alice <a@example.org>\nEnvoyé : lundi 3 janvier 2022 10:00\nÀ : Bob\nObjet : Re: x",
        "Von: Alice\nGesendet: Montag\nAn: Bob\nBetreff: AW: x",
    ],
)
def test_an_unmarked_copy_is_folded(header: str) -> None:
    text, lines = fold(f"Thanks!\n\nAlice\n\n{header}\n\nold words\nmore")
    assert text == "Thanks!\n\nAlice"
    assert lines == header.count("\n") + 3


def test_the_footer_of_a_list_is_no_quote() -> None:
    text = "Hello\n________________________________\nusers mailing list\nhttps://example.org/"
    assert fold(text) == (text, 0)


@pytest.mark.parametrize(
    "mark",
    [
        "---------- Forwarded message ---------",
        "Begin forwarded message:",
        "-------- Message transféré --------",
        "-------- Forwarded Message --------",
        "Début du message réexpédié :",
        "-------- Weitergeleitete Nachricht --------",
    ],
)
def test_a_forwarded_message_is_never_folded(mark: str) -> None:
    text = (
        f"FYI\n\n{mark}\nFrom: Alice\nDate: Monday\nTo: Bob\nSubject: x\n\nwords\n\nOn 3 Jan 2022, Bob wrote:\n{QUOTED}"
    )
    assert fold(text) == (text, 0)
    marked = f"FYI\n\n> {mark}\n> \n{QUOTED}"
    assert fold(marked) == (marked, 0)


def test_an_answer_to_a_forwarded_message_is_folded() -> None:
    text = "Thanks!\n\nOn 3 Jan 2022, Bob wrote:\n> ---------- Forwarded message ---------\n> words"
    assert fold(text) == ("Thanks!", 3)


def test_answers_between_quotes_keep_everything() -> None:
    text = "On 3 Jan 2022, Bob wrote:\n> one?\nyes\n> two?\nno"
    assert fold(text) == (text, 0)
    trailing = "Bob wrote:\n> one?\nyes\n> two?"
    assert fold(trailing) == (trailing, 0)


def test_a_text_is_never_folded_to_nothing() -> None:
    text = f"On 3 Jan 2022, Bob wrote:\n{QUOTED}"
    assert fold(text) == (text, 0)


@given(
    st.lists(
        st.sampled_from(["> q", "", "words", "Bob wrote:", "On 3 Jan 2022 Al wrote:", "From: x", "Sent: y", "To: z"])
    )
)
def test_folding_keeps_a_beginning_with_words(lines: list[str]) -> None:
    text = "\n".join(lines)
    kept, folded = fold(text)
    assert text.startswith(kept)
    assert folded == 0 or kept.strip()
    assert fold(kept)[0] == kept or folded


@pytest.mark.parametrize(
    "text",
    [
        "On x wrote:\n" * 70_000,
        "De:\n" * 200_000,
        "On " + "a wrote " * 100_000 + ":",
        ("On " + "wrote " * 60 + ":\n") * 2500,
        "> x\n" * 200_000,
        "_" * 900_000,
        (" " * 8 + "--" + " " * 80 + "\n") * 9000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_is_folded_in_bounded_time(text: str) -> None:
    start = time.process_time()
    fold(text)
    clean(text)
    text_to_html(text)
    matrix_to_text(text)
    assert time.process_time() - start < HANG


# Quotes in HTML

ATTRIBUTION = "On Mon, 3 Jan 2022 at 10:00, Alice &lt;a@example.org&gt; wrote:"


@pytest.mark.parametrize(
    "quote",
    [
        f'<div class="gmail_quote"><div dir="ltr" class="gmail_attr">{ATTRIBUTION}<br></div>'
        '<blockquote class="gmail_quote" style="margin:0">old<br>words</blockquote></div>',
        f'<div>{ATTRIBUTION}</div><blockquote type="cite"><div>old<br>words</div></blockquote>',
        f'<div class="moz-cite-prefix">{ATTRIBUTION}</div><blockquote type="cite" cite="mid:x">old words</blockquote>',
        '<div id="appendonsend"></div><hr><div id="divRplyFwdMsg"><b>From:</b> Alice</div><div>old words</div>',
        f'<div id="ydp1yahoo_quoted_1" class="yahoo_quoted"><div>{ATTRIBUTION}</div><div>old words</div></div>',
        f'<div class="protonmail_quote">{ATTRIBUTION}<br><blockquote class="protonmail_quote" type="cite">old<br>words'
        "</blockquote></div>",
        '<span id="OutlookMessageHeader">From: Alice</span><p>old words</p>',
        "<p>-----Original Message-----</p><p>old words</p>",
        "<p><b><span>From:</span></b> Alice<br><b>Sent:</b> Monday<br><b>To:</b> Bob<br><b>Subject:</b> x</p>old words",
        "<p><b>De&nbsp;:</b> Alice<br><b>Envoyé&nbsp;:</b> lundi<br><b>À&nbsp;:</b> Bob<br><b>Objet :</b> x</p>old",
    ],
)
def test_the_quotes_of_the_usual_clients_are_folded(quote: str) -> None:
    html, lines = fold_html(f"<html><body><div>Thanks!<br><br></div>{quote}<br></body></html>")
    assert html_to_text(html) == "Thanks!"
    assert lines > 0


def test_answers_after_and_between_quotes_in_html_keep_everything() -> None:
    for html in (
        "<blockquote type=cite>one?</blockquote>yes<blockquote type=cite>two?</blockquote>",
        "Hi<blockquote type=cite>one?</blockquote><p>yes</p>",
        "Hi<div class=gmail_quote><div>Al wrote:</div><blockquote class=gmail_quote>one?</blockquote><div>yes</div>"
        "<blockquote class=gmail_quote>two?</blockquote></div>",
        "Hi<blockquote type=cite>-----Original Message-----<br>one?</blockquote><p>yes</p>",
    ):
        assert fold_html(html) == (html, 0)


def test_a_forwarded_message_in_html_is_never_folded() -> None:
    for html in (
        "FYI<div class=gmail_quote><div>---------- Forwarded message ---------<br>From: Al</div>words</div>",
        "FYI<br>Begin forwarded message:<br><blockquote type=cite>words</blockquote>",
        "FYI<div>-------- Message transféré --------</div>x<div class=gmail_quote>words</div>",
    ):
        assert fold_html(html) == (html, 0)


def test_html_is_never_folded_to_nothing() -> None:
    html = "<div><br></div><div class=gmail_quote>Al wrote: <blockquote>words</blockquote></div>"
    assert fold_html(html) == (html, 0)


def test_words_before_a_quote_that_are_no_attribution_stay() -> None:
    html, lines = fold_html("<p>Thanks. As you wrote here:</p><blockquote type=cite>old</blockquote>")
    assert html_to_text(html) == "Thanks. As you wrote here:"
    assert lines == 1
