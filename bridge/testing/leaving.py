"""The tests of what leaves: it arrives once whatever happens, and does not come back as news."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from bridge.model import Deferred, Rejected, Unavailable, Unconfirmed
from bridge.testing.contract import Base, abilities_of, needs, word
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
        await self._through(office, trouble, office.say(f"!reply {sent}", conversation))
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
        """The answer to each single step of it is lost, and the bridge starts again before the next attempt.

        It is a file, where files can be sent: those take the most steps.
        """
        files = "tool.files" in abilities_of(self.plugin, self.tool)
        item, conversation = await self._begun(office)
        await office.stop_polling()
        nth, struck = 1, True
        while struck:
            sent = word()
            act = self._share(office, sent, conversation) if files else office.say(f"!reply {sent}", conversation)
            struck = await self._interrupted(office, nth, act)
            await (self._check_file(office, item, sent) if files else self._check_said(office, item, sent))
            nth += 1
        assert nth > 2, "nothing has changed anything: does the plugin send elsewhere?"

    @needs("create")
    async def test_a_new_item_in_doubt_is_not_made_twice(self, office: Office) -> None:
        files = abilities_of(self.plugin, self.tool) >= {"makes", "tool.files"}
        nth, struck = 1, True
        while struck:
            title = word()
            act = self._make_of(office, title) if files else office.say(self._make(office, title, word()))
            struck = await self._interrupted(office, nth, act)
            if files:
                await self._check_file(office, await office.made(), title)
            made = sum(title in each for each in await office.tool.titles())
            assert made == 1, f"one item is to be made, and {made} were"
            nth += 1
        assert nth > 2, "nothing has changed anything: does the plugin create elsewhere?"

    @needs("create")
    async def test_a_new_item_made_in_trouble_is_made_once(self, office: Office, trouble: str) -> None:
        await office.stop_polling()
        title = word()
        await self._through(office, trouble, office.say(self._make(office, title, word())))
        assert sum(title in each for each in await office.tool.titles()) == 1

    @needs("http", "leaves")
    async def test_nothing_that_leaves_is_lost_while_a_proxy_answers_404(self, office: Office) -> None:
        """The proxy has lost the tool: no item is gone by that, and nothing is refused for good."""
        able = abilities_of(self.plugin, self.tool)
        sent, title = word(), word()
        if able >= {"send", "reached"}:
            item, conversation = await self._begun(office)
            await office.stop_polling()
            await self._through(office, "404", office.say(f"!reply {sent}", conversation))
            await self._check_said(office, item, sent)
        if "create" in able:
            await self._through(office, "404", office.say(self._make(office, title, word())))
            assert sum(title in each for each in await office.tool.titles()) == 1

    # --- what they share

    async def _through(self, office: Office, trouble: str, act: Awaitable[object]) -> None:
        """Do it while the tool is in trouble, until all is well and it has left."""
        office.failures.clear()
        await office.tool.hurt(trouble)
        await act
        began = time.monotonic()
        error = await office.failed()
        meant = isinstance(error, Unavailable | Deferred | Unconfirmed)
        assert meant, f"what leaves waits when the tool is in trouble: raise Unavailable or Unconfirmed, not {error!r}"
        await office.tool.heal()
        await office.gone()
        assert await office.drafts() == [], "it was given up"
        if trouble == "429":
            assert time.monotonic() - began >= RETRY_AFTER, "Retry-After was not passed on"

    async def _interrupted(self, office: Office, nth: int, act: Awaitable[object]) -> bool:
        """Send it, losing the answer to its nth step and starting again; whether there was such a step."""
        office.failures.clear()
        office.crashing = True
        await office.tool.hurt("cut", nth)
        await act

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

    async def _share(self, office: Office, stem: str, conversation: int) -> None:
        """A file is shown in the thread, and then sent."""
        await office.react("📤", await office.share(*file_named(stem), conversation), conversation)

    async def _make_of(self, office: Office, title: str) -> None:
        """A new item of a file that was shown in the room."""
        shared = await office.share(*file_named(title))
        await office.say(self._make(office, title, "").strip(), answers=shared)

    async def _check_file(self, office: Office, item: str, stem: str) -> None:
        name, data = file_named(stem)
        found = [each for each in await office.tool.files(item) if stem in each[0]]
        assert [each[0] for each in found] == [name], (
            f"{name} is to be on {item} once, not {[each[0] for each in found]}"
        )
        assert found[0][1] == data, f"{name} is there with other bytes"

    def _make(self, office: Office, title: str, text: str) -> str:
        return " ".join(filter(None, [f"!{self.plugin.command}", office.tool.recipient, f"{title}\n{text}"]))


def file_named(stem: str) -> tuple[str, bytes]:
    """A name as people give them, and what no text could be."""
    return f"{stem} é.bin", b"\x00\xff\r\n\n\x1a" + stem.encode()
