"""One conversation from mail to chat and back, on a real homeserver."""

from __future__ import annotations

from tests.conftest import Company
from tests.e2e.looking import marks, says
from tests.peers.employee import body, relation, thread_of

JANE = "Jane Doe <jane@customer.example>"


async def test_a_mail_becomes_a_thread_and_a_reply_leaves_on_purpose(company: Company) -> None:
    room = company.room
    first = await company.post(sender=JANE, subject="Printer on fire", body="Please help!")
    root = await company.alice.see(room, says("Please help!"))
    assert "Printer on fire" in body(root)
    assert root["sender"].startswith("@_passerelle_mail_jane=40customer.example:")

    await company.bob.say(room, "Not again…", thread=root["event_id"])
    asked = await company.alice.say(room, "!reply We are on our way.", thread=root["event_id"])
    preview = await company.alice.see(room, says("jane@customer.example", company.bot))
    assert thread_of(preview) == root["event_id"]

    mail = await company.sink.wait_for(lambda mail: True)
    assert "We are on our way." in mail.text
    assert b"Not again" not in mail.data
    assert mail["In-Reply-To"] == first["Message-ID"]
    await company.alice.see(room, marks(asked, "✉️"))

    await company.post(
        sender=JANE, subject="Re: Printer on fire", body="Thank you.", in_reply_to=mail["Message-ID"],
        references=(first["Message-ID"], mail["Message-ID"]),
    )  # fmt: skip
    thanks = await company.alice.see(room, says("Thank you."))
    assert thread_of(thanks) == root["event_id"]
    assert relation(thanks)["m.in_reply_to"]["event_id"] == asked, "a mail that answers ours is a reply to it"
    assert thanks["content"]["m.mentions"]["user_ids"] == [company.alice.mxid]
