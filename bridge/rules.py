"""Every rule of one bridge, wired: what is decided inside transactions, without any server."""

from __future__ import annotations

from bridge.commands import Commands
from bridge.commands.accounts import Accounts
from bridge.commands.acts import Acts
from bridge.commands.find import Finds
from bridge.commands.items import ItemActs
from bridge.commands.maps import Maps
from bridge.commands.rooms import RoomActs
from bridge.commands.start import Starts
from bridge.config import Config, Permissions
from bridge.connector import Connector
from bridge.hearing import Hearing
from bridge.hub import Hub
from bridge.items import Items
from bridge.moving import Moving
from bridge.outward import Outward
from bridge.permissions import Permits
from bridge.places import Places
from bridge.texts import Texts


class Rules:
    """The rules for arrivals; and, once connectors are there (they need these rules), those for what people do."""

    acts: Acts
    maps: Maps
    finds: Finds
    hearing: Hearing

    def __init__(self, config: Config) -> None:
        self.config = config
        self.say = Texts(config.language)
        self.places = Places(config, self.say)
        self.permits = Permits(config, self.say)
        self.items = Items(self.places, self.say)
        self.moving = Moving(config, self.places, self.items, self.say)
        self.outward = Outward(config, self.places, self.items, self.say)
        self.hub = Hub(config, self.places, self.outward, self.items, self.say)

    def connect(self, connectors: dict[str, Connector]) -> None:
        """What people can do with these connectors."""
        self.acts = Acts(self.places, self.outward, connectors, self.say)
        starts = Starts(self.places, self.outward, connectors, self.say)
        on_items = ItemActs(self.places, self.acts, connectors, self.say)
        self.finds = Finds(self.places, connectors, self.say)
        accounts = Accounts(self.acts, self.items, connectors, self.say)
        self.maps = Maps(self.places, self.acts, self.permits, connectors, self.say)
        self.hub.on_probe = self.maps.trials.came_back
        rooms = RoomActs(self.places, self.acts, self.outward, self.moving, connectors, self.say)
        commands = Commands(
            self.permits, self.acts, starts, on_items, self.finds, accounts, self.maps, rooms, self.outward, self.say
        )
        self.hearing = Hearing(self.config, self.places, commands, self.outward, self.moving, self.say)

    def permit(self, permissions: Permissions) -> None:
        """From now on people may do this."""
        self.permits.change(permissions)
