"""The tests of files: what people put on an item is in its thread, and what employees send is on the item."""

from __future__ import annotations

from bridge.testing.contract import abilities_of, needs, word
from bridge.testing.leaving import Leaving, file_named
from bridge.testing.office import Office


class Carrying(Leaving):
    """Files arrive once, both ways, with their name and every byte of them; in doubt, `Leaving` sends them too."""

    @needs("arrives", "tool.attach")
    async def test_a_file_that_people_put_on_an_item_appears_once_and_whole(self, office: Office) -> None:
        item, conversation = await self._begun(office)
        name, data = file_named(word())
        await office.tool.attach(item, name, data)
        await office.until(lambda: office.files(name), f"a file {name} is shown in the room")
        await self._later(office, item)
        shown = office.files(name)
        assert [each.conversation for each in shown] == [conversation], "it is shown once, in the thread of its item"
        assert await office.content(shown[0]) == data, f"{name} is shown with other bytes"
        assert shown[0].author, "it is shown in the name of who put it there"

    @needs("send", "reached", "tool.files")
    async def test_a_file_that_an_employee_sends_is_there_once_and_whole(self, office: Office) -> None:
        item, conversation = await self._begun(office)
        sent = word()
        await self._share(office, sent, conversation)
        await office.gone()
        await self._check_file(office, item, sent)
        if "arrives" in abilities_of(self.plugin, self.tool):
            await self._later(office, item)
            assert office.posts(sent) == [], "a file of ours is no news"
