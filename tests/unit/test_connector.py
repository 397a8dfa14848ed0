"""What plugins build on: an item is changed once, and read back before anybody calls it done."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.connector import Connector, ServerConfig
from bridge.model import Deferred, Delivery, Draft, Recipients, Rejected, Unavailable, Unconfirmed

NOTHING: Any = None
DESK = Connector("desk", None, NOTHING)


class Item:
    """An item of a tool; `clashes`: how often others are quicker; `deaf`: yes is said, and nothing done."""

    def __init__(self, clashes: int = 0, *, deaf: bool = False, fails: Exception | None = None) -> None:
        self.state, self.clashes, self.deaf, self.fails = "open", clashes, deaf, fails
        self.writes = 0

    async def read(self) -> str:
        if self.fails and self.writes:
            raise self.fails
        return self.state

    async def close(self, found: str) -> bool:
        assert found == self.state
        if self.clashes:
            self.clashes -= 1
            return False
        self.writes += 1
        self.state = found if self.deaf else "closed"
        return True

    async def ensure(self) -> str:
        return await DESK.ensure(self.read, lambda state: state == "closed", self.close, "state of job1")


async def test_what_holds_already_is_not_done_again() -> None:
    item = Item()
    assert [await item.ensure(), await item.ensure()] == ["closed", "closed"]
    assert item.writes == 1


async def test_it_is_asked_again_where_others_were_quicker_but_not_for_ever() -> None:
    item = Item(clashes=3)
    assert await item.ensure() == "closed"
    assert item.writes == 1
    with pytest.raises(Unavailable, match="state of job1 is being changed by others"):
        await Item(clashes=9).ensure()


async def test_a_yes_is_not_believed() -> None:
    with pytest.raises(Rejected, match="desk said yes and has not changed state of job1"):
        await Item(deaf=True).ensure()


@pytest.mark.parametrize("failure", [Unavailable("away"), Deferred("later")])
async def test_what_cannot_be_read_after_it_was_written_is_in_doubt(failure: Exception) -> None:
    with pytest.raises(Unconfirmed, match=str(failure)):
        await Item(fails=failure).ensure()


@pytest.mark.parametrize(
    ("title", "text", "heading"),
    [
        ("Pump\nis loud\x00", "It rattles.", "Pump is loud"),
        ("", "It rattles.\nLoudly.", "It rattles. Loudly."),
        (" ", "\x07", "…"),
        ("x" * 500, "", "x" * 200),
    ],
)
def test_something_new_always_has_a_name_of_one_line(title: str, text: str, heading: str) -> None:
    draft = Draft("desk", "jobs", 1, title, "@a:b", "Alice", Recipients(()), account="alice", text=text)
    assert draft.heading == heading
    assert draft.plain == (text.strip("\x07").strip() or "…")


def test_an_earlier_attempt_may_have_succeeded() -> None:
    first = Delivery(1, "uid", "lane", "desk", "draft", "{}", "ready", 1, 0.0, attempts=1)
    assert not first.again
    assert Delivery(1, "uid", "lane", "desk", "draft", "{}", "ready", 1, 0.0, attempts=2).again


def test_people_get_the_address_that_is_theirs() -> None:
    said = {"url": "http://10.0.0.1:8080/", "username": "bridge", "password": "x"}
    assert ServerConfig.model_validate(said).site == "http://10.0.0.1:8080"
    assert ServerConfig.model_validate(said | {"web": "https://desk.example/"}).site == "https://desk.example"
