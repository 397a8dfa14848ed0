"""Coming and going: invitations that are followed or declined, and rooms that are left when nobody is there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mautrix.errors import MatrixRequestError

from bridge.config import Config
from bridge.matrix.ghosts import Ghosts
from bridge.matrix.rooms import Rooms
from bridge.model import Deferred, Delivery, Unavailable
from bridge.payload import Decline, Enter, Left, Post
from bridge.places import Places, link
from bridge.queue import Crossing
from bridge.store import Store, Tx
from bridge.texts import Texts

log = logging.getLogger(__name__)

MOST_TOLD = 10  # inviters that operators hear of in a day


class Doors:
    """Where the bot and the ghosts are, by what people want."""

    def __init__(
        self, config: Config, store: Store, ghosts: Ghosts, places: Places, rooms: Rooms, say: Texts
    ) -> None:  # fmt: skip
        self._config = config
        self._store = store
        self._ghosts = ghosts
        self._places = places
        self._rooms = rooms
        self._say = say
        self.on_deserted: Callable[[Tx, str], None] = lambda tx, room: None  # nobody is left in a conversation's own

    # --- invited

    async def enter(self, delivery: Delivery, invitation: Enter) -> Crossing:
        """Come, say what is possible here and which right is missing."""
        room = invitation.room
        await self._rooms.prepare(room)
        await self._rooms.resolve()  # an alias of the configuration may be this room's
        self._rooms.look()
        await self._rooms.upgrades.entered(room)
        if await self._rooms.is_space(room):  # nobody talks there
            return lambda tx: None
        scopes = self._places.mappings_of(room)
        encrypted = room in self._places.encrypted
        lacking = await self._rooms.missing_rights(room) if room != self._places.management and not encrypted else []
        lines = [self._hello(room)]
        if not scopes:  # in a mapped room it is said once, and again only when it changes
            lines += [self._say("lacks-right", right=self._say(right)) for right in lacking]

        def greet(tx: Tx) -> None:
            if self._places.succeeds(room) and tx.conversations.first_time(f"greeted {room}"):
                return  # people were told there what it replaces
            self._places.post(tx, Post(room, "\n".join(lines), notice=True, mentions=(invitation.sender,)))
            if scopes:
                self._places.tell_rights(tx, room, lacking)

        return greet

    def _hello(self, room: str) -> str:
        if room in self._places.encrypted:
            return self._say("encrypted" if self._places.mappings_of(room) else "hello-encrypted")
        if self._places.mappings_of(room):
            return self._say("hello", scopes=self._places.spoken(room))
        if room == self._places.management:
            return self._say("hello-management")
        return self._say("hello-unmapped", room=room)

    async def decline(self, delivery: Delivery, invitation: Decline) -> Crossing:
        """Say no. Whose homeserver does not take that is asked again later, and nobody else waits for it."""
        bot = invitation.mxid == self._config.bot_mxid
        if bot and await self._replaces_ours(invitation.room):  # whoever upgrades a room may be of another company
            return lambda tx: self._places.post(tx, Enter(invitation.room, invitation.sender))
        try:
            await self._ghosts.leave(invitation.mxid, invitation.room)
        except Unavailable as error:
            raise Deferred(str(error)) from None
        return (lambda tx: self.declined(tx, invitation)) if bot else (lambda tx: None)

    async def _replaces_ours(self, room: str) -> bool:
        return any([await self._rooms.upgrades.is_replaced_by(each, room) for each in self._places.awaiting()])

    def declined(self, tx: Tx, invitation: Decline) -> None:
        """A rule. Operators hear once a day of each inviter, and of few in a day: outsiders can invite without end."""
        today = int(time.time() // 86400)
        told = f"declined {today}"
        slot = next((each for each in range(MOST_TOLD) if not tx.conversations.is_noted(f"{told} {each}")), None)
        if slot is None or not tx.conversations.first_time(f"{told} {invitation.sender}"):
            return
        tx.conversations.first_time(f"{told} {slot}")
        body = self._say(
            "declined", who=invitation.sender, whom=invitation.mxid, room=link(invitation.room)
        )  # its name could say anything
        last = [self._say("declined-more")] if slot == MOST_TOLD - 1 else []
        self._places.tell_operators(tx, "\n".join([body, *last]))

    # --- left alone

    async def left(self, delivery: Delivery, left: Left) -> Crossing:
        """When nobody is there any more, nobody of ours stays; but the bot does as long as something is mapped."""
        room = left.room
        try:
            members = await self._ghosts.members(room)
        except MatrixRequestError:  # the bot is not there
            return lambda tx: None
        if self._places.is_own(room):  # guests are there to talk with us; and whoever is not invited can never come
            people = [*members, *await self._ghosts.invited(room)]
            return lambda tx: None if any(map(self._config.is_inside, people)) else self.on_deserted(tx, room)
        if any(not self._config.is_ours(mxid) for mxid in members):
            return lambda tx: None
        if room in self._places.wanted():
            return lambda tx: self._tell_empty(tx, room)
        log.info("nobody is left in %s", room)
        for mxid in sorted(members, key=lambda mxid: mxid == self._config.bot_mxid):  # the bot is the last
            await self._ghosts.leave(mxid, room)
        return lambda tx: None

    def _tell_empty(self, tx: Tx, room: str) -> None:
        today = int(time.time() // 86400)
        if room != self._places.management and tx.conversations.first_time(f"empty {room} {today}"):
            body = self._say("empty", room=self._places.name(room), scopes=self._places.spoken(room))
            self._places.tell_operators(tx, body)
