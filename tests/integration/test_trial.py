"""`!test`: a mapping is tried on real servers, and each step is told; nobody outside hears of it."""

from __future__ import annotations

from email.utils import parseaddr

import pytest

from bridge.commands import trial
from tests.conftest import Company, company_with
from tests.e2e.looking import says
from tests.peers.bridge import running_bridge
from tests.peers.employee import body, thread_of
from tests.peers.roundup import Roundup

ADMINISTERED = company_with(permissions={"administer": ["@alice:company.example"]})


@ADMINISTERED
async def test_a_mapping_of_mail_is_tried_from_the_smarthost_back_to_the_room(company: Company) -> None:
    asked = await company.alice.say(company.room, "!test")
    await company.alice.see(company.room, says("No right is missing"))
    mail = await company.sink.wait_for(lambda mail: company.mailbox in mail.recipients)
    sent = await company.alice.see(company.room, says("✓ Sent"))
    assert thread_of(sent) == asked
    await company.deliver(mail.data, sender=mail.sender, recipients=list(mail.recipients))
    await company.alice.see(company.room, says("✓ It came back after"))
    shown = await company.alice.see(company.room, says("This is a test."))
    assert thread_of(shown) == asked
    assert parseaddr(company.mailbox)[1].partition("@")[0] in shown["sender"]
    await company.deliver(mail.data, sender=mail.sender, recipients=list(mail.recipients))  # comes once more
    await company.post(subject="A real one", body="A real letter.")
    await company.alice.see(company.room, says("A real letter."))
    assert sum("Test of the way" in body(each) for each in company.alice.timeline(company.room)) == 0


@company_with(permissions={"administer": ["@alice:company.example"]}, bridge=False)
async def test_a_mail_that_does_not_come_back_is_told_with_what_to_look_at(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "WAIT", 0.5)
    async with running_bridge(company.bridge.config):
        await company.alice.say(company.room, "!test")
        lost = await company.alice.see(company.room, says("has not come back"))
        assert f"hand over what is for {company.mailbox} to {':'.join(map(str, company.smtp))}" in body(lost)


@ADMINISTERED
async def test_a_smarthost_that_says_no_ends_the_trial_with_its_words(company: Company) -> None:
    company.sink.faults.add("rcpt", "550 5.7.1 not from you")
    await company.alice.say(company.room, f"!test {company.mailbox}")
    ended = await company.alice.see(company.room, says("It ends here"))
    assert "not from you" in body(ended)


@ADMINISTERED
async def test_who_may_not_map_may_not_try_and_an_unknown_scope_is_told(company: Company) -> None:
    await company.bob.say(company.room, "!test")
    await company.bob.see(company.room, says("alice", company.bot))
    await company.alice.say(company.room, "!test nothing@company.example")
    await company.alice.see(company.room, says(f"one of {company.mailbox}"))
    assert not company.sink.mails


@ADMINISTERED
async def test_a_tracker_is_asked_and_nothing_is_written_there(company: Company, desk: Roundup) -> None:
    await company.alice.say(company.room, "!test issue")
    await company.alice.see(company.room, says("says what is new"))
    await company.alice.see(company.room, says("This is a test."))
