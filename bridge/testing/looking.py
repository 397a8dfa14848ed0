"""The tests of items, their changes, the self-check and the configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bridge.choice import facts_of, home_of
from bridge.connector import ConnectorConfig
from bridge.model import Card, Change, Deferred, Page, Rejected, Unavailable, Unconfirmed
from bridge.present import card as shown_card
from bridge.testing import samples
from bridge.testing.contract import Base, but, failure, needs, word
from bridge.testing.office import Office


class Looking(Base):
    """Items are recognised and changed, and what an administrator needs is there."""

    @needs("match", "fetch")
    async def test_an_item_is_known_by_its_name_its_key_and_its_address(self, office: Office) -> None:
        title = word()
        item = await office.tool.open(title, word())
        card = await office.connector.fetch(item)
        assert (card.item, title in card.title) == (item, True)
        known = {text: office.connector.match(text) for text in (item, card.url) if text}
        assert known == dict.fromkeys(known, item)
        named = office.connector.match(card.key or item)  # perhaps only the tool knows whose key that is
        assert named == item or (await office.connector.fetch(named)).item == item
        strange = ["", "hello", "https://elsewhere.invalid/", f"{card.url}://[", "x" * 2000]
        assert {text: office.connector.match(text) for text in strange} == dict.fromkeys(strange, "")

    @needs("fetch")
    async def test_an_item_that_does_not_exist_is_refused(self, office: Office) -> None:
        item = await office.tool.open(word(), word())
        error = await failure(office.connector.fetch(f"{item}999999"))
        assert isinstance(error, Rejected), f"fetch must raise Rejected, not {error!r}"

    @needs("fetch")
    @but("cut")
    async def test_looking_at_an_item_waits_out_trouble(self, office: Office, trouble: str) -> None:
        item = await office.tool.open(word(), word())
        await office.tool.hurt(trouble)
        error = await failure(office.connector.fetch(item))
        assert isinstance(error, Unavailable | Deferred), f"fetch must raise Unavailable, not {error!r}"

    async def test_what_a_room_can_be_mapped_to_is_offered(self, office: Office) -> None:
        offers = await office.connector.offers()
        assert office.tool.scope in offers, f"offers must have {office.tool.scope}, not only {list(offers)}"

    @needs("filters", "poll")
    async def test_what_mappings_may_choose_by_is_known_of_what_arrives(self, office: Office) -> None:
        await office.stop_polling()
        office.pumping = False
        cursors = [await office.cursor()]
        await office.tool.open(word(), word())
        page = await office.until(lambda: self._polled(office, cursors), "poll brings what is new")
        known = set().union(*map(facts_of, page.envelopes))
        unknown = set(self.plugin.filters) - known
        assert not unknown, f"no fact and no field of the card is called {', '.join(unknown)}"

    async def _polled(self, office: Office, cursors: list[str]) -> Page | None:
        """The first page that says anything; the way there is kept."""
        page = await office.connector.poll(cursors[-1])
        cursors.append(page.cursor)
        return page if page.envelopes else None

    @needs("arrives", "fetch", "tool.change")
    async def test_a_change_by_people_appears_on_the_card(self, office: Office) -> None:
        item, _ = await self._begun(office)
        await office.tool.change(item)
        card = shown_card(await office.connector.fetch(item))[0]
        await office.until(lambda: office.card() == card, f"the room shows {card}")

    @needs("find")
    async def test_an_item_is_found_by_a_word_of_its_title_among_its_scope_only(self, office: Office) -> None:
        title, scope = word(), office.tool.scope
        item = await office.tool.open(title, word())
        found = await office.until(lambda: office.connector.find(title, [scope]), f"find finds {title} in {scope}")
        assert [card.item for card in found] == [item]
        assert home_of(office.connector, found[0]) == scope, "Card.scope must say to which scope an item belongs"
        assert [card.item for card in await office.connector.find(title.upper(), [word(), scope])] == [item]
        for scopes in ([word()], []):
            assert list(await office.connector.find(title, scopes)) == [], f"it is not in {scopes}"
        for words in (word(), f"{title} {word()}"):
            assert list(await office.connector.find(words, [scope])) == [], "find wants all the words"

    @needs("find", "fetch", "tool.elsewhere")
    async def test_an_item_of_another_scope_is_found_there_only(self, office: Office) -> None:
        title = word()
        item = await office.tool.elsewhere(title, word())
        there = home_of(office.connector, await office.connector.fetch(item))
        found = await office.until(lambda: office.connector.find(title, [there]), f"find finds {title} in {there}")
        assert [(card.item, home_of(office.connector, card)) for card in found] == [(item, there)]
        assert list(await office.connector.find(title, [office.tool.scope])) == []

    @needs("find", "tool.privately")
    async def test_a_private_item_is_found_as_private(self, office: Office) -> None:
        title = word()
        await office.tool.privately(title, word())
        found = await office.until(lambda: office.connector.find(title, [office.tool.scope]), f"find finds {title}")
        assert [card.private for card in found] == [True]

    @needs("find")
    async def test_words_that_are_searched_are_never_a_query(self, office: Office) -> None:
        title, scope = word(), office.tool.scope
        await office.tool.open(title, word())
        await office.until(lambda: office.connector.find(title, [scope]), f"find finds {title} in {scope}")
        for around in ('"{}"', "%{}%", "*{}*", "\\{}\\", "'{}'", "({}", "[{}]", "{}: & \U0001f600"):
            error = await failure(office.connector.find(around.format(title), [scope]))
            assert error is None, f"{around} may find or not find, but find raises {error!r}"
        queries = ("{} OR {}", "{}|{}", "-{} {}", "NOT {} {}", "{}' OR title='{}", '{}" OR "{}', "{}, {}", "{}%) {}")
        for query in queries:
            found = await office.connector.find(query.format(word(), title), [scope])
            assert list(found) == [], f"the words of {query} are not all in the title"

    @needs("find")
    @but("cut")
    async def test_a_search_in_trouble_is_not_called_nothing_found(self, office: Office, trouble: str) -> None:
        await office.tool.hurt(trouble)
        error = await failure(office.connector.find(word(), [office.tool.scope]))
        assert isinstance(error, Unavailable | Deferred), f"find must raise Unavailable, not {error!r}"

    @needs("change", "fetch")
    async def test_a_change_is_done_and_read_back_and_asking_twice_does_no_harm(self, office: Office) -> None:
        await office.stop_polling()
        item = await office.tool.open(word(), word())
        assert set(office.tool.words) == set(self.plugin.words), "Tool.words has two values for each of the words"
        for name, (one, other) in office.tool.words.items():
            cards = [await self._changed(office, item, name, value) for value in (one, one, other)]
            assert (cards[0] == cards[1], cards[0] == cards[2]) == (True, False)
            assert await office.connector.fetch(item) == cards[2]

    @needs("change")
    async def test_a_change_that_makes_no_sense_is_refused(self, office: Office) -> None:
        await office.stop_polling()
        item = await office.tool.open(word(), word())
        for name in office.tool.words:
            error = await failure(self._changed(office, item, name, word()))
            assert isinstance(error, Rejected), f"change must raise Rejected, not {error!r}"

    @needs("change")
    async def test_a_change_in_trouble_is_not_called_done(self, office: Office, trouble: str) -> None:
        await office.stop_polling()  # the change alone is asked
        item = await office.tool.open(word(), word())
        for name, (one, other) in office.tool.words.items():
            await self._changed(office, item, name, one)
            await office.tool.hurt(trouble)
            error = await failure(self._changed(office, item, name, other))
            meant = isinstance(error, Unavailable | Deferred | Unconfirmed)
            assert meant, f"change must raise Unavailable or Unconfirmed, not {error!r}"
            await office.tool.heal()
            await self._changed(office, item, name, other)

    # --- self-check and configuration

    @needs("check")
    async def test_the_self_check_is_content_when_all_is_well(self, office: Office) -> None:
        findings = await office.connector.check()
        assert findings
        assert [each for each in findings if not each.ok] == []

    @needs("check")
    async def test_the_self_check_names_trouble_and_its_remedy(self, office: Office) -> None:
        for trouble in office.tool.noticed:
            await office.tool.hurt(trouble)
            findings = await office.connector.check()
            assert [each for each in findings if not each.ok and each.remedy], f"with {trouble}: {findings}"

    async def test_every_configuration_key_has_a_description(self) -> None:
        assert [key for key, field in samples.keys(self.plugin.Config) if not field.description] == []

    async def test_every_configuration_key_is_explained_on_the_page(self) -> None:
        page = samples.read(self.page)
        assert [key for key, _ in samples.keys(self.plugin.Config) if not samples.names(page, key)] == []

    async def test_an_unknown_configuration_key_is_an_error_and_no_secret_shows(self, office: Office) -> None:
        assert issubclass(self.plugin.Config, ConnectorConfig)
        settings = office.tool.config("http://127.0.0.1:1/")
        with pytest.raises(ValidationError, match="no_such_key"):
            self.plugin.Config.model_validate({**settings, "no_such_key": 1})
        assert samples.open_secrets(self.plugin.Config) == [], "these must be of type SecretStr"

    # --- what they share

    async def _changed(self, office: Office, item: str, name: str, value: str) -> Card:
        return await office.connector.change(Change(item, name, value, "", "Alice Martin"))
