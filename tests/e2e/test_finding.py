"""`!find` on a real homeserver with its full-text search: each room hears of itself, each person of his own rooms."""

from __future__ import annotations

import asyncio

import nio

from tests.conftest import Company, company_with
from tests.e2e.looking import says
from tests.peers.employee import Employee, body, relation

JANE = "Jane Doe <jane@customer.example>"
BOARD, SALES = "board@company.example", "sales@company.example"


async def found(company: Company, who: Employee, room: str, words: str) -> str:
    """What the bot answers."""
    asked = await who.say(room, f"!find {words}")
    answer = await who.see(
        room,
        lambda event: (
            relation(event).get("m.in_reply_to", {}).get("event_id") == asked and event["sender"] == company.bot
        ),
    )
    return body(answer)


async def mapped(company: Company) -> tuple[str, str]:
    """A room of the board, which Bob is not in; and a room of sales which claims to have replaced it."""
    board = await company.alice.create_room("board", invite=[company.bot], powers={company.bot: 50})
    made = await company.alice.client.room_create(
        name="sales", invite=[company.bot, company.bob.mxid], predecessor={"room_id": board, "event_id": "$any"},
        power_level_override={"users": {company.bot: 50}},
    )  # fmt: skip
    assert isinstance(made, nio.RoomCreateResponse)
    await company.bob.join(made.room_id)
    mailboxes = [*company.config["connectors"]["mail"]["mailboxes"], {"address": BOARD}, {"address": SALES}]
    mappings = [
        *company.config["mappings"],
        {"connector": "mail", "scope": BOARD, "room": board},
        {"connector": "mail", "scope": SALES, "room": made.room_id},
    ]
    await company.reconfigure(connectors={"mail": {"mailboxes": mailboxes}}, mappings=mappings)
    return board, made.room_id


@company_with(bridge=False)
async def test_nothing_of_another_room_is_found_where_it_may_not_be_seen(company: Company) -> None:
    board, sales = await mapped(company)
    await company.post(BOARD, sender=JANE, subject="The merger", body="Zebra is the word.")
    await company.post(SALES, sender=JANE, subject="A fence", body="Zebra behind it.")
    _, fence = await asyncio.gather(
        company.alice.see(board, says("Zebra is the word.")), company.alice.see(sales, says("Zebra behind it."))
    )
    await company.bob.say(sales, "A zebra in the hall", thread=fence["event_id"])

    here = await found(company, company.bob, sales, "zebra")
    assert here.startswith("• A fence https://matrix.to/#/")
    assert "\n" not in here, "one line for each conversation, and none of the room that this one claims to replace"
    for words in ("BEHIND", "doe"):
        assert "A fence" in await found(company, company.bob, sales, words)
    for words in ("merger", "zebra OR merger", '"zebra" word'):
        assert await found(company, company.bob, sales, words) == "Nothing here has all of these words."
    assert await found(company, company.bob, company.room, "zebra") == "Nothing here has all of these words."

    for who, titles in ((company.bob, {"A fence"}), (company.alice, {"A fence", "The merger"})):
        direct = await who.create_room("direct", invite=[company.bot])
        await who.see(direct, says("!map", company.bot))
        lines = (await found(company, who, direct, "zebra")).splitlines()
        assert {line.partition(" (")[0].removeprefix("• ") for line in lines} == titles
    await who.invite(direct, company.bob.mxid)
    assert "Nothing is mapped to this room" in await found(company, company.alice, direct, "zebra")
