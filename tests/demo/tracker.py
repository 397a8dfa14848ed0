"""The issue tracker of the demo: a real Roundup that knows the company's people, two more, and one password."""

from __future__ import annotations

from pathlib import Path

from tests.peers.roundup import BRIDGE, PLANTED, Roundup

CONNECTOR = "helpdesk"
ERIN, TOM = "erin", "tom"  # who works in Roundup and has no Matrix client; a customer
MORE = {ERIN: ("Erin Voss", "erin@company.example"), TOM: ("Tom Weber", "tom@theatre.example")}


class Tracker(Roundup):
    """A tracker whose people have one password, so that somebody at a keyboard can be any of them."""

    def __init__(self, folder: Path, port: int, people: dict[str, tuple[str, str]], password: str) -> None:
        super().__init__(folder, port)
        self.people = people | MORE
        self._password = password

    def password(self, user: str) -> str:
        return self._password if user in self.people else super().password(user)

    @staticmethod
    def made_before() -> bool:
        """Whether one lies ready in this checkout; to make one takes a few seconds."""
        return PLANTED.made.exists()

    async def hire(self) -> None:
        """Let it know everybody by name, address and password."""
        known = {each["username"]: each["id"] for each in await self._users()}
        for user, (name, address) in self.people.items():
            wanted = {"realname": name, "address": address, "password": self._password}
            if user not in known:
                await self.call("POST", "user", "admin", {"username": user, "roles": "User", **wanted})
                continue
            tag = (await self.call("GET", f"user/{known[user]}", "admin"))["@etag"]
            await self.call("PATCH", f"user/{known[user]}", "admin", {"@etag": tag, **wanted})

    async def _users(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = (await self.call("GET", "user", "admin", params={"@verbose": "2"}))["collection"]
        return found

    def connector(self) -> dict[str, object]:
        """How the bridge is told of it; it looks often, since nobody likes to wait in a demo."""
        password = self.password(BRIDGE)
        return {"plugin": "roundup", "url": self.url, "username": BRIDGE, "password": password, "every": 1}
