"""The tests of what comes in: by polling, by webhooks, by listening; and of private notes."""

from __future__ import annotations

import time
from pathlib import Path

from bridge.model import Deferred, Page, Rejected, Request, Unavailable
from bridge.present import card as shown_card
from bridge.testing import samples
from bridge.testing.contract import Base, but, failure, needs, word
from bridge.testing.faults import RETRY_AFTER
from bridge.testing.office import LONG, Office

QUICK = 2.0  # seconds in which the largest webhook must be read


class Arriving(Base):
    """What comes in appears once, in order, only when it is genuine, and only where it may be seen."""

    @needs("arrives")
    async def test_what_people_say_appears_once_in_order_and_in_their_name(self, office: Office) -> None:
        item, _ = await self._begun(office)
        first, second = word(), word()
        for said in (first, second):
            await office.tool.say(item, said)
            await office.arrives(said)
        events = [each.event for said in (first, second) for each in office.posts(said)]
        assert len(events) == 2, "each message is shown once, as a message of its author"
        assert all(each.author for said in (first, second) for each in office.posts(said))

    @needs("arrives")
    async def test_nothing_appears_again_after_a_restart(self, office: Office) -> None:
        item, _ = await self._begun(office)
        before, after = word(), word()
        await office.tool.say(item, before)
        await office.arrives(before)
        await office.restart()
        await office.tool.say(item, after)
        await office.arrives(after)
        assert len(office.posts(before)) == 1

    @needs("poll")
    async def test_what_is_said_while_the_bridge_is_down_appears_once(self, office: Office) -> None:
        item, _ = await self._begun(office)
        said = word()
        office.pumping = False
        await office.stop()
        await office.tool.say(item, said)
        await office.start()
        await office.arrives(said)
        await self._later(office, item)
        assert len(office.posts(said)) == 1

    @needs("poll")
    async def test_the_first_poll_only_says_where_to_begin(self, office: Office) -> None:
        await office.stop_polling()
        office.pumping = False
        item = await office.tool.open(word(), word())
        page = await office.connector.poll("")
        assert page.envelopes == (), "a first poll brings nothing that was there before"
        assert page.cursor != "", "a first poll says where to begin"
        said = word()
        await office.tool.say(item, said)
        _, news = await self._news(office, page.cursor)
        assert any(said in each.text for each in news.envelopes)

    @needs("poll")
    async def test_a_page_that_comes_again_shows_nothing_twice(self, office: Office) -> None:
        """As after a crash between the poll and its commit."""
        item, _ = await self._begun(office)
        await office.stop_polling()
        office.pumping = False
        said = word()
        await office.tool.say(item, said)
        cursor, page = await self._news(office, await office.cursor())
        again = await office.connector.poll(cursor)
        assert {each.key for each in page.envelopes} <= {each.key for each in again.envelopes}
        for each in (page, again):
            await office.store.transact(office.rules.hub.accept_page, office.tool.name, each)
        await office.arrives(said)
        assert len(office.posts(said)) == 1

    @needs("poll")
    @but("cut")
    async def test_polling_waits_out_trouble(self, office: Office, trouble: str) -> None:
        item, _ = await self._begun(office)
        await office.stop_polling()
        office.pumping = False
        cursor = await office.cursor()
        await office.tool.hurt(trouble)
        error = await failure(office.connector.poll(cursor))
        assert isinstance(error, Unavailable | Deferred), f"poll must raise Unavailable, not {error!r}"
        if trouble == "429":
            assert getattr(error, "retry_after", None) == RETRY_AFTER
        said = word()
        await office.tool.say(item, said)
        await office.tool.heal()
        office.poll()
        await office.arrives(said)
        assert len(office.posts(said)) == 1

    # --- webhooks

    @needs("parse")
    async def test_a_forged_webhook_is_refused(self, office: Office) -> None:
        item, _ = await self._begun(office)
        said = word()
        requests = await self._held_back(office, item, said)
        for request in requests:
            for forged in samples.forged(request, said, sealed=office.tool.sealed):
                assert await office.post(forged) == 403, f"this is forged, and taken: {forged}"
        assert said not in office.everything()
        for request in requests:
            assert await office.post(request) == 200
        await office.arrives(said)

    @needs("parse")
    async def test_a_webhook_that_comes_again_shows_nothing_twice(self, office: Office) -> None:
        item, _ = await self._begun(office)
        said = word()
        requests = await self._held_back(office, item, said)
        for request in [each for each in requests for _ in range(2)] + requests:
            assert await office.post(request) == 200
        await office.arrives(said)
        office.delivered, office.pumping = len(office.tool.caught), True
        await self._later(office, item)
        assert len(office.posts(said)) == 1

    @needs("parse")
    async def test_webhooks_in_any_order_show_everything_once_and_the_newest_state(self, office: Office) -> None:
        item, _ = await self._begun(office)
        await office.stop_polling()
        office.pumping = False
        first, second = word(), word()
        await office.tool.say(item, first)
        await office.tool.change(item)
        await office.tool.say(item, second)
        requests = await office.held_back()
        cards = [each.card for request in requests for each in office.connector.parse(request) if each.card]
        for request in reversed(requests):
            assert await office.post(request) == 200
        for said in (first, second):  # one webhook may tell of both
            await office.arrives(said)
        assert (len(office.posts(first)), len(office.posts(second))) == (1, 1)
        if cards:  # in one lane: what the oldest event did to the card is shown before its words
            newest = shown_card(cards[-1])[0]
            assert office.card() == newest, "an older event must not change the card: see Envelope.when"

    @needs("parse", "tool.unknown")
    async def test_an_unknown_event_is_acknowledged_and_shows_nothing(self, office: Office) -> None:
        request = office.tool.signed(office.tool.unknown)
        before = office.everything()
        assert await office.post(request) == 200
        assert office.connector.parse(request) == []
        assert office.everything() == before

    @needs("parse")
    async def test_a_webhook_that_makes_no_sense_breaks_nothing(self, office: Office) -> None:
        """Signed, so that the plugin reads it: it is taken, or refused with `Rejected`, and nothing else."""
        item, _ = await self._begun(office)
        requests = await self._held_back(office, item, word())
        for body in samples.senseless([each.body for each in requests]):
            try:
                office.connector.parse(office.tool.signed(body))
            except Rejected:
                continue
            except Exception as error:
                raise AssertionError(f"parse must raise Rejected, not {error!r}, for {body[:1000]!r}") from error

    @needs("parse")
    async def test_a_huge_webhook_is_taken_or_refused_quickly(self, office: Office) -> None:
        item, _ = await self._begun(office)
        said = word()
        requests = await self._held_back(office, item, said)
        for body in samples.huge([each.body for each in requests], said):
            began = time.monotonic()
            assert await office.post(office.tool.signed(body)) in (200, 403, 413)
            assert time.monotonic() - began < QUICK, "the bridge stands still while a webhook is read"

    # --- listening

    @needs("run", "tool.again")
    async def test_what_is_handed_over_again_appears_once(self, office: Office) -> None:
        item, _ = await self._begun(office)
        said = word()
        await office.tool.say(item, said)
        await office.tool.again()
        await office.arrives(said)
        await self._later(office, item)
        assert len(office.posts(said)) == 1

    @needs("run", "tool.nonsense")
    async def test_nonsense_is_not_taken_and_stops_nobody(self, office: Office) -> None:
        item, _ = await self._begun(office)
        before = len(office.posts(""))
        await office.tool.nonsense()
        await self._later(office, item)
        assert len(office.posts("")) == before + 1

    # --- private notes

    @needs("arrives", "tool.whisper")
    async def test_a_private_note_stays_private(self, office: Office) -> None:
        item, _ = await self._begun(office)
        whispered = word()
        await office.tool.whisper(item, whispered)
        await self._later(office, item)
        assert whispered not in office.everything()

    @needs("arrives", "tool.whisper")
    async def test_a_private_note_reaches_a_room_that_may_see_it(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path, private=True) as office:
            item, _ = await self._begun(office)
            whispered = word()
            await office.tool.whisper(item, whispered)
            await office.arrives(whispered)

    # --- what they share

    async def _news(self, office: Office, cursor: str) -> tuple[str, Page]:
        """The first page with something in it, and the cursor it was asked with."""
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            page = await office.connector.poll(cursor)
            if page.envelopes:
                return cursor, page
            cursor = page.cursor
        raise AssertionError("poll does not bring what was said")

    async def _held_back(self, office: Office, item: str, said: str) -> list[Request]:
        await office.stop_polling()
        office.pumping = False
        await office.tool.say(item, said)
        return await office.held_back()
