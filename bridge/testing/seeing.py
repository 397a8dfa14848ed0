"""The tests of what rooms see: items of other scopes, private items, items that are there no more."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from pathlib import Path

from bridge.model import Card, Change, Deferred, Gone, Page, Unavailable, Unconfirmed
from bridge.present import card as shown_card
from bridge.present import pointed_at
from bridge.testing.contract import Base, abilities_of, failure, needs, word
from bridge.testing.office import Office


class Seeing(Base):
    """A room sees what its mapping lets it see, and what is deleted is said to be."""

    @needs("match", "fetch", "tool.elsewhere")
    async def test_an_item_of_another_scope_shows_no_more_than_its_key_and_link(self, office: Office) -> None:
        item = await office.tool.elsewhere(word(), word())
        card = await office.connector.fetch(item)
        strange = card.scope not in ("", office.tool.scope)
        assert strange, f"Card.scope must say to which scope an item belongs, not {card.scope!r}"
        await self._only_named(office, item, card, "link-outside")

    @needs("match", "fetch", "tool.privately")
    async def test_a_private_item_shows_no_more_than_its_key_and_link(self, office: Office) -> None:
        said = word()
        item = await office.tool.privately(word(), said)
        card = await office.connector.fetch(item)
        assert card.private, "Card.private must say that not everybody may see an item"
        await self._only_named(office, item, card, "link-private")
        assert said not in office.everything()

    @needs("match", "fetch", "tool.privately")
    async def test_a_private_item_is_shown_in_a_room_that_may_see_it(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path, private=True) as office:
            item = await office.tool.privately(word(), word())
            card = await office.connector.fetch(item)
            await office.say(card.url or item)
            await office.until(lambda: office.shows(shown_card(card)[0]), f"the room shows {card}")

    @needs("match", "fetch", "tool.delete")
    async def test_the_card_of_what_is_deleted_says_so_and_nothing_can_be_sent_to_it(self, office: Office) -> None:
        item, conversation = await self._begun(office)
        await office.tool.delete(item)
        changes = [Change(item, name, value, "", "Alice Martin") for name, (value, _) in office.tool.words.items()]
        errors = [await failure(office.connector.fetch(item))]
        errors += [await failure(office.connector.change(change)) for change in changes]
        wrong = [error for error in errors if not isinstance(error, Gone)]
        assert not wrong, f"fetch and change must raise Gone, not {wrong}"
        await office.say(f"!link {item}")
        await self._says_that_it_is_deleted(office)
        told = office.rules.say("item-gone", key="", connector=office.tool.name).strip()
        await office.until(lambda: told in office.everything(), "the thread says that it is deleted")
        await office.say(f"!reply {word()}", conversation)
        refusal = office.rules.say("aside-gone", title="", connector=office.tool.name).strip()
        await office.until(lambda: refusal in office.everything(), "a reply to it is refused")
        assert not [row for row in await office.drafts() if row.kind == "draft"]

    @needs("poll", "match", "fetch", "tool.delete")
    async def test_what_is_deleted_is_noticed_although_nobody_asks(self, office: Office) -> None:
        """Where no poll tells of it, set `silent`."""
        item, _ = await self._begun(office)
        await office.tool.delete(item)
        await self._says_that_it_is_deleted(office)

    @needs("send", "tool.delete")
    async def test_what_is_sent_to_an_item_that_was_deleted_is_not_sent_and_told(self, office: Office) -> None:
        item, conversation = await self._begun(office)
        await office.tool.delete(item)
        await office.say(f"!reply {word()}", conversation)
        error = await office.failed()
        assert isinstance(error, Gone), f"send must raise Gone, not {error!r}"
        await self._says_that_it_is_deleted(office)

    @needs("match", "fetch", "http")
    async def test_a_404_of_a_proxy_says_nothing_of_any_item(self, office: Office) -> None:
        """The proxy has lost the tool. An item that is lost by that would be called deleted, and not followed."""
        item, _ = await self._begun(office)
        await office.stop_polling()
        cursor, scopes = await office.cursor(), [office.tool.scope]
        changes = [Change(item, name, value, "", "Alice Martin") for name, (value, _) in office.tool.words.items()]
        await office.tool.hurt("404")
        asked: list[Awaitable[object]] = [office.connector.fetch(item), *map(office.connector.change, changes)]
        asked += [office.connector.find(word(), scopes)] if "find" in abilities_of(self.plugin, self.tool) else []
        errors = [await failure(each) for each in asked]
        wrong = [error for error in errors if not isinstance(error, Unavailable | Deferred | Unconfirmed)]
        assert not wrong, f"fetch, change and find must raise Unavailable, not {wrong}: be sure that the tool says no"
        page = await self._brought(office, cursor)
        assert not page or not page.envelopes, f"poll must bring nothing, or raise Unavailable, not bring {page}"

    # --- what they share

    async def _brought(self, office: Office, cursor: str) -> Page | None:
        with contextlib.suppress(Unavailable, Deferred):
            return await office.connector.poll(cursor) if "poll" in abilities_of(self.plugin, self.tool) else None
        return None

    async def _says_that_it_is_deleted(self, office: Office) -> None:
        deleted = office.rules.say("state-deleted")
        await office.until(lambda: deleted in office.card(), "the card says that it is deleted")

    async def _only_named(self, office: Office, item: str, card: Card, why: str) -> None:
        """Pasted, it is a minimal card; it cannot be followed; and what is said of it does not appear."""
        typed = card.url or item
        bare = pointed_at(card, typed, item)
        await office.say(f"See {typed}")
        await office.until(lambda: office.shows(shown_card(bare)[0]), f"the room shows {bare}")
        await office.say(f"!link {typed}")
        refusal = office.rules.say(why, item=bare.key, connector=office.tool.name)
        await office.until(lambda: office.shows(refusal), refusal)
        if "arrives" in abilities_of(self.plugin, self.tool):
            known, _ = await self._begun(office)
            said = word()
            await office.tool.say(item, said)
            await self._later(office, known)
            assert said not in office.everything(), "Envelope.scopes must say to which scope an item belongs"
        assert not office.shows(shown_card(card)[0])
