"""The story: one function a scene, its docstring the title; STORY is the order in which they are played.

A new tool brings a module with its scenes and puts them where they belong in the day.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.demo.play import Play
from tests.demo.scenes import border, deal, desk, sales, support, trouble

Scene = Callable[[Play], Awaitable[None]]

STORY: tuple[Scene, ...] = (
    support.the_bot_is_invited,
    support.a_customer_writes,
    support.colleagues_talk,
    support.alice_replies,
    support.the_customer_answers,
    support.bob_sends_his_own_words_and_a_photo,
    support.a_reply_is_cancelled,
    support.a_new_mail_pauses_a_reply,
    sales.a_chat_becomes_mail,
    sales.an_edit_during_the_hold,
    desk.a_mail_becomes_a_ticket,
    desk.roundup_answers,
    desk.alice_answers_both,
    desk.a_message_becomes_an_issue,
    desk.a_customer_opens_an_issue,
    desk.an_issue_gets_a_room,
    desk.what_was_said_is_found,
    deal.a_customer_wants_more,
    deal.a_mail_becomes_an_opportunity,
    deal.a_file_becomes_a_document,
    deal.the_customer_is_answered,
    trouble.a_refusal_is_told,
    trouble.the_original_is_kept,
    trouble.a_bounce_is_pinned,
    trouble.a_stranger_guesses_an_id,
    border.nothing_else_has_left,
)
