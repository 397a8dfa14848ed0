"""One conversation from mail to chat and back, on a real homeserver."""

from __future__ import annotations

from typing import Any

from tests.conftest import Company


def words(event: dict[str, Any]) -> str:
    return str(event.get("content", {}).get("body", ""))


def says(text: str, sender: str = "") -> Any:
    """Whether an event of somebody (whose id contains `sender`) contains this text."""
    return lambda event: text in words(event) and sender in event["sender"]


async def test_a_mail_becomes_a_thread_and_a_reply_leaves_on_purpose(company: Company) -> None:
    first = await company.post(
        sender="Jane Doe <jane@customer.example>", subject="Printer on fire", body="Please help!", message_id="<m1@customer.example>"
    )
    root = await company.alice.see(company.room, says("Please help!"))
    assert "Printer on fire" in words(root)
    assert root["sender"].startswith("@_passerelle_mail_jane=40customer.example:")

    await company.bob.say(company.room, "Not again…", thread=root["event_id"])
    asked = await company.alice.say(company.room, "!reply We are on our way.", thread=root["event_id"])
    preview = await company.alice.see(company.room, says("jane@customer.example", company.bot))
    assert preview["content"]["m.relates_to"]["event_id"] == root["event_id"]

    mail = await company.sink.wait_for(lambda mail: True)
    assert "We are on our way." in mail.text
    assert "Not again" not in mail.data.decode()
    assert mail["In-Reply-To"] == first["Message-ID"]
    await company.alice.see(
        company.room, lambda event: event["type"] == "m.reaction" and event["content"]["m.relates_to"]["key"] == "✉️" and event["content"]["m.relates_to"]["event_id"] == asked
    )

    await company.post(
        sender="Jane Doe <jane@customer.example>", subject="Re: Printer on fire", body="Thank you.",
        in_reply_to=mail["Message-ID"], references=(mail["Message-ID"],),
    )  # fmt: skip
    thanks = await company.alice.see(company.room, says("Thank you."))
    assert thanks["content"]["m.relates_to"]["event_id"] == root["event_id"]
    assert thanks["content"]["m.mentions"]["user_ids"] == [company.alice.mxid]
