"""The page for admins is true: its commands are run as they stand there, and three rooms are mapped at its end."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import ABSENT
from tests.e2e.looking import says
from tests.peers import ROOT
from tests.peers.employee import Employee
from tests.peers.host import Host
from tests.peers.world import Sink, letter

GUIDE = (ROOT / "docs" / "admin.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<kind>sh|yaml)\b.*\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
BOT = "@passerelle:company.example"
CONFIG = "/etc/passerelle/passerelle.yaml"


class Guide:
    """The page, section by section; `left` are the blocks of commands that nobody has run."""

    def __init__(self) -> None:
        parts = re.split(r"^## (.*)\n", GUIDE, flags=re.MULTILINE)
        self.sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        self.left = [found["text"] for found in BLOCK.finditer(GUIDE)]

    def blocks(self, section: str, kind: str = "sh") -> Iterator[str]:
        for found in BLOCK.finditer(self.sections[section]):
            if found["kind"] == kind:
                if found["text"] in self.left:
                    self.left.remove(found["text"])
                yield found["text"]

    def typed(self, section: str) -> list[str]:
        """What the section shows indented: to be typed in a room, or what is said."""
        return re.findall(r"^    (\S.*)$", BLOCK.sub("", self.sections[section]), re.MULTILINE)


def inserted(config: str, block: str) -> str:
    """The configuration after somebody has put the block's parts under the keys that its comments name."""
    lines = config.split("\n")
    for part in block.split("# under ")[1:]:
        keys, _, text = part.partition("\n")
        at = 0
        for key in keys.split(", "):
            at = next(number for number in range(at, len(lines)) if lines[number].strip() == key) + 1
        lines[at:at] = text.rstrip("\n").split("\n")
    return "\n".join(lines)


def shape(line: str) -> str:
    """A line of the doctor's whatever its figures are."""
    return re.sub(r"\d+(\.\d+)?", "0", line)


class Reader:
    """Somebody who follows the page on a host and is `@you` in a client."""

    def __init__(self, guide: Guide, host: Host, you: Employee) -> None:
        self.guide = guide
        self.host = host
        self.you = you

    async def make(self, name: str, alias: str | None = None) -> str:
        return await self.you.create_room(name, alias=alias)

    async def call(self, room: str) -> None:
        """Type the lines that bring the bot into a room."""
        for line in self.guide.typed("6. Start it"):
            word, _, rest = line.partition(" ")
            if word == "/invite":
                await self.you.invite(room, rest)
            elif word == "/op":
                mxid, level = rest.split()
                await self.you.client.room_put_state(room, "m.room.power_levels", {"users": {mxid: int(level)}})
        await self.you.see(room, lambda event: event["sender"] == BOT and event["type"] == "m.room.message")

    async def mail(self, to: str, subject: str, room: str) -> str:
        """Somebody outside writes; returns the thread in which it is seen."""
        written = letter(to=to, subject=subject, body=f"This is about: {subject}.")
        await self.host.postfix.post("carol@outside.example", [to], written.as_bytes())
        return str((await self.you.see(room, says(f"about: {subject}.")))["event_id"])

    async def doctor(self, status: int = 0) -> str:
        """What it says, once the bridge has looked into its rooms."""
        assert self.host.bridge is not None
        await self.host.bridge.ready()
        return await self.host.sh(list(self.guide.blocks("6. Start it"))[-1], status)


@contextlib.asynccontextmanager
async def begun(guide: Guide, sink: Sink) -> AsyncIterator[Reader]:
    """The page as far as a homeserver and a mail server that know of the bridge."""
    async with Host(sink.port) as host:
        for section in list(guide.sections)[:4]:
            for block in guide.blocks(section):
                await host.sh(block)
        homeserver = await host.homeserver()
        account = await homeserver.register("you", "secret of yours")
        async with Employee(homeserver.url, account.mxid, account.password, account.device, account.token) as you:
            yield Reader(guide, host, you)


@pytest.mark.debian("postfix", "postconf")
async def test_who_follows_the_guide_has_three_mapped_rooms_a_restored_backup_and_an_upgrade(sink: Sink) -> None:
    if os.getuid() != 0:
        pytest.skip(f"{ABSENT} postfix, and root to run it")
    guide = Guide()
    async with begun(guide, sink) as reader:
        host, you = reader.host, reader.you

        # 5 and 6: two rooms, and the doctor sees that the bot was forgotten in one
        support, ops = await reader.make("support", "support"), await reader.make("ops", "bridge-ops")
        start, _ = guide.blocks("6. Start it")
        await host.sh(start)
        await reader.call(support)
        await you.see(support, says("support@company.example", BOT))
        said = {shape(line) for line in (await reader.doctor(1)).splitlines()}
        shown = [line for line in guide.typed("6. Start it") if not line.startswith("/")]
        assert [line for line in shown if shape(line) not in said] == []
        await reader.call(ops)
        await you.see(ops, says("I tell operators here", BOT))
        assert (await reader.doctor()).endswith("\nAll is well.\n")
        thread = await reader.mail("support@company.example", "a broken printer", support)
        await you.say(support, "!reply We are on our way.", thread=thread)
        await you.see(support, says("To: ", BOT))
        await you.say(support, "!send", thread=thread)
        left = await sink.wait_for(lambda mail: "on our way" in mail.text)
        assert left.recipients == ("carol@outside.example",)

        # 7: the second room
        sales = await reader.make("sales", "sales")
        await reader.call(sales)
        (block,) = guide.blocks("7. A second room, in the configuration", "yaml")
        config = host.path(CONFIG)
        config.write_text(inserted(config.read_text(), block))
        (block,) = guide.blocks("7. A second room, in the configuration")
        assert "+ at once      mapping sales@company.example (mail) in #sales:company.example" in await host.sh(block)
        await reader.mail("sales@company.example", "a price list", sales)

        # 8: the third
        third = await reader.make("whatever")
        await reader.call(third)
        for line in guide.typed("8. A third room, in chat"):
            asked = await you.say(third, line)
            await you.see(third, says("support@company.example", BOT), after=asked)
        await reader.mail("support@company.example", "Invoice 17", third)
        await reader.mail("support@company.example", "paper", support)
        assert (await reader.doctor()).endswith("\nAll is well.\n")

        # what the second half has to type
        for section in ("Backup and restore", "Upgrades"):
            for block in guide.blocks(section):
                await host.sh(block)
            await reader.mail("support@company.example", f"an invoice after {section}", third)
        assert "All is well." in await reader.doctor()
    assert guide.left == []
