"""The tests of what leaves: it arrives once whatever happens, and does not come back as news."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bridge.model import Deferred, Rejected, Unavailable, Unconfirmed
from bridge.testing.contract import Base, needs, word
from bridge.testing.faults import RETRY_AFTER
from bridge.testing.office import Office


class Leaving(Base):
    """Messages and new items reach the tool exactly once."""

    @needs("send", "reached")
    async def test_what_an_employee_sends_reaches_the_item_once(self, office: Office) -> None:
        item, conversation = await self._begun(office)
        sent = word()
        await office.say(f"!reply {sent}", conversation)
        await office.gone()
        await self._check_said(office, item, sent)

    @needs("send", "arrives")
    async def test_our_own_words_do_not_come_back(self, office: Office) -> None:
        item, conversation = await self._begun(office)
        sent = word()
        await office.say(f"!reply {sent}", conversation)
        await office.gone()
        await self._check_said(office, item, sent)
        await office.tool.echo(item)
        await self._later(office, item)
        assert office.posts(sent) == []

    @needs("send", "reached")
    async def test_what_is_sent_in_trouble_arrives_once(self, office: Office, trouble: str) -> None:
        item, conversation = await self._begun(office)
        await office.stop_polling()
        sent = word()
        await self._through(office, trouble, lambda: office.say(f"!reply {sent}", conversation))
        await self._check_said(office, item, sent)

    @needs("send", "reached")
    async def test_a_refusal_is_told_and_the_next_message_goes(self, office: Office) -> None:
        item, conversation = await self._begun(office)
        await office.stop_polling()
        refused, sent = word(), word()
        await office.tool.hurt("refusal")
        await office.say(f"!reply {refused}", conversation)
        error = await office.failed()
        assert isinstance(error, Rejected), f"a refusal for good is Rejected, not {error!r}"
        await office.gone()
        await office.tool.heal()
        await office.say(f"!reply {sent}", conversation)
        await office.gone()
        await self._check_said(office, item, sent)
        assert [row.state for row in await office.drafts()] == ["dead"]

    @needs("send", "reached")
    async def test_a_message_in_doubt_is_not_sent_twice(self, office: Office) -> None:
        """The answer to each single step of it is lost, and the bridge starts again before the next attempt."""
        item, conversation = await self._begun(office)
        await office.stop_polling()
        nth, struck = 1, True
        while struck:
            sent = word()
            struck = await self._interrupted(office, nth, f"!reply {sent}", conversation)
            await self._check_said(office, item, sent)
            nth += 1
        assert nth > 2, "nothing has changed anything: does the plugin send elsewhere?"

    @needs("create")
    async def test_a_new_item_in_doubt_is_not_made_twice(self, office: Office) -> None:
        nth, struck = 1, True
        while struck:
            title = word()
            struck = await self._interrupted(office, nth, self._make(office, title, word()), 0)
            made = sum(title in each for each in await office.tool.titles())
            assert made == 1, f"one item is to be made, and {made} were"
            nth += 1
        assert nth > 2, "nothing has changed anything: does the plugin create elsewhere?"

    @needs("create")
    async def test_a_new_item_made_in_trouble_is_made_once(self, office: Office, trouble: str) -> None:
        await office.stop_polling()
        title = word()
        await self._through(office, trouble, lambda: office.say(self._make(office, title, word())))
        assert sum(title in each for each in await office.tool.titles()) == 1

    # --- what they share

    async def _through(self, office: Office, trouble: str, act: Callable[[], Any]) -> None:
        """Do it while the tool is in trouble, until all is well and it has left."""
        await office.tool.hurt(trouble)
        await act()
        began = time.monotonic()
        error = await office.failed()
        meant = isinstance(error, Unavailable | Deferred | Unconfirmed)
        assert meant, f"what leaves waits when the tool is in trouble: raise Unavailable or Unconfirmed, not {error!r}"
        await office.tool.heal()
        await office.gone()
        assert await office.drafts() == [], "it was given up"
        if trouble == "429":
            assert time.monotonic() - began >= RETRY_AFTER, "Retry-After was not passed on"

    async def _interrupted(self, office: Office, nth: int, command: str, conversation: int) -> bool:
        """Send it, losing the answer to its nth step and starting again; whether there was such a step."""
        office.failures.clear()
        office.crashing = True
        await office.tool.hurt("cut", nth)
        await office.say(command, conversation)

        async def over() -> bool:
            return bool(office.failures) or not [row for row in await office.drafts() if row.state != "dead"]

        await office.until(over, "it has left, or has failed")
        struck = office.tool.struck()
        office.crashing = False
        if struck:
            await office.restart()
            await office.stop_polling()
        await office.gone()
        await office.tool.heal()
        return struck

    async def _check_said(self, office: Office, item: str, sent: str) -> None:
        times = sum(sent in each for each in await office.tool.said(item))
        assert times == 1, f"it is to be said once on {item}, and is there {times} times"

    def _make(self, office: Office, title: str, text: str) -> str:
        return " ".join(filter(None, [f"!{self.plugin.command}", office.tool.recipient, f"{title}\n{text}"]))
