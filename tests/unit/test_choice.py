"""Which mappings take what arrives: filters and their precedence."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bridge.choice import chosen, facts_of, fits, leaves_out
from bridge.config import Config, Mapping
from bridge.model import Author, Card, Envelope, Unavailable
from bridge.places import Places
from bridge.texts import Texts

NOBODY = Author("desk", "carol")
INVOICES: dict[str, Any] = {"subject": ["*invoice*", "*facture*"]}


def mapping(room: str, only: dict[str, Any] | None = None, scope: str = "post", **more: Any) -> Mapping:
    return Mapping.model_validate({"connector": "desk", "scope": scope, "room": room, "only": only or {}, **more})


def places(*declared: Mapping, made: tuple[Mapping, ...] = ()) -> Places:
    found = Places(
        Config.model_validate(
            {
                "homeserver": {"url": "http://hs", "server_name": "company.example"},
                "appservice": {"as_token": "a", "hs_token": "h"},
                "connectors": {"desk": {}},
                "mappings": declared,
            }
        ),
        Texts("en"),
    )
    found.make(made)
    for each in (*declared, *made):
        found.recall(each.room, each.room)
    return found


# --- filters


@pytest.mark.parametrize(
    ("pattern", "value", "fit"),
    [
        ("open", "open", True),
        ("open", "reopened", False),
        ("*open*", "reopened", True),
        ("OPEN", "open", True),
        ("straße", "STRASSE", True),
        ("*@customer.example", "jane@customer.example", True),
        ("*@customer.example", "jane@customer.example.evil.example", False),
        ("[Jira]*", "[jira] Pump is loud", True),
        ("[Jira]*", "Jira", False),
        ("[!a]", "b", False),
        ("issue ?", "Issue 7", True),
        ("*", "", True),
        ("", "", True),
        ("", "x", False),
        ("*one\ntwo", "zero one\nTwo", True),
    ],
)
def test_a_pattern_is_the_whole_value_with_stars_for_anything(pattern: str, value: str, fit: bool) -> None:
    assert fits({"state": [pattern]}, {"state": [value]}) is fit


def test_every_fact_must_fit_and_of_each_one_pattern_with_one_of_its_values() -> None:
    facts = {"state": ["open"], "address": ["info@company.example", "sales@company.example"]}
    assert fits({"state": ["new", "open"], "address": ["sales@*"]}, facts)
    assert not fits({"state": ["new", "closed"], "address": ["sales@*"]}, facts)
    assert not fits({"state": ["open"], "priority": ["urgent"]}, facts)
    assert fits({"priority": ["", "low"]}, facts)  # a fact that is not known is empty
    assert not fits({"state": []}, facts)
    assert fits({}, facts)


def test_a_pattern_full_of_stars_costs_nothing_to_speak_of() -> None:
    begun = time.perf_counter()
    assert not fits({"subject": ["*a" * 100 + "b"]}, {"subject": ["a" * 1000]})
    assert time.perf_counter() - begun < 10  # or it never ends


def test_facts_are_what_the_plugin_gives_and_the_fields_of_the_card() -> None:
    card = Card("job1", "job1", "Pump", fields=(("State", "open"), ("assigned to", "alice")))
    envelope = Envelope(
        "desk", ("post",), "k", "1", NOBODY, 0.0, card=card, facts=(("state", "o"), ("subject", "x" * 5000))
    )
    assert facts_of(envelope) == {"state": ["o", "open"], "assigned-to": ["alice"], "subject": ["x" * 1000]}


# --- precedence


PLAIN, OTHER, FILTERED, TOO = (
    mapping("!plain"), mapping("!other"), mapping("!bills", INVOICES), mapping("!too", {"subject": "*"})
)  # fmt: skip


@pytest.mark.parametrize(
    ("mappings", "subject", "taking"),
    [
        ([PLAIN, OTHER], "Invoice 7", [PLAIN, OTHER]),
        ([PLAIN, FILTERED], "Invoice 7", [FILTERED]),
        ([PLAIN, FILTERED], "Hello", [PLAIN]),
        ([PLAIN, OTHER, FILTERED], "Hello", [PLAIN, OTHER]),
        ([FILTERED, TOO, PLAIN], "Facture 7", [FILTERED, TOO]),
        ([FILTERED, TOO, PLAIN], "Hello", [TOO]),
        ([FILTERED], "Hello", []),
        ([], "Hello", []),
    ],
)
def test_what_fits_a_filter_goes_where_it_is_asked_for_and_all_else_where_nothing_is(
    mappings: list[Mapping], subject: str, taking: list[Mapping]
) -> None:
    assert chosen(mappings, lambda: {"subject": [subject]}) == taking


def test_without_filters_nobody_asks_for_facts_nor_for_conversations() -> None:
    def never() -> Any:
        raise AssertionError

    assert places(PLAIN, OTHER).rooms_of("desk", ["post"], never, never) == {"!plain": "post", "!other": "post"}


def test_each_scope_is_judged_by_itself_and_a_room_gets_it_once() -> None:
    bills = mapping("!plain", INVOICES, scope="bills")
    found = places(PLAIN, bills, mapping("!rest", scope="bills"))
    assert found.rooms_of("desk", ["bills", "post"], lambda: {"subject": ["Invoice"]}) == {"!plain": "bills"}
    assert found.rooms_of("desk", ["bills", "post"]) == {"!plain": "post", "!rest": "bills"}


def test_a_conversation_stays_in_its_room_whatever_the_filters_say() -> None:
    found = places(PLAIN, FILTERED)
    assert found.rooms_of("desk", ["post"], lambda: {"subject": ["Hello"]}, lambda: {"!bills"}) == {"!bills": "post"}
    assert found.rooms_of("desk", ["post"], lambda: {"subject": ["Invoice"]}, lambda: {"!plain"}) == {"!plain": "post"}
    assert found.rooms_of("desk", ["post"], lambda: {"subject": ["Hello"]}, lambda: {"!gone"}) == {"!plain": "post"}


def test_a_room_that_is_not_known_yet_keeps_what_it_may_be_for_from_being_lost() -> None:
    found = places(PLAIN)
    found.declare([PLAIN, mapping("#unknown:company.example", INVOICES)])
    with pytest.raises(Unavailable):
        found.rooms_of("desk", ["post"], lambda: {"subject": ["Hello"]})


def test_a_scope_whose_mappings_all_filter_leaves_something_out() -> None:
    assert leaves_out([FILTERED, TOO])
    assert not leaves_out([FILTERED, PLAIN])
    assert not leaves_out([])


def test_a_scope_that_is_only_mapped_for_what_is_linked_leaves_out_what_is_new() -> None:
    quiet = mapping("!quiet", new=False)
    assert leaves_out([quiet])
    assert leaves_out([quiet, FILTERED])
    assert not leaves_out([quiet, PLAIN])


# --- the same place


def test_what_is_declared_comes_before_what_was_made_for_the_same_room_by_any_of_its_names() -> None:
    declared, made = mapping("#post:company.example"), mapping("!post", private=True)
    found = places(declared)
    found.make([made])
    found.recall("!post", "!post")
    assert found.mappings == [declared, made]  # nobody knows yet that it is the same room
    found.resolve("#post:company.example", "!post")
    assert found.mappings == [declared]
    assert not found.private("!post", "desk", "post")
    assert found.rooms_of("desk", ["post"]) == {"!post": "post"}
    found.declare([])
    assert found.mappings == [made]
