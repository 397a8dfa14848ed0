"""The CRM of the demo: a real Tryton whose people are Alice and Dora, who has no Matrix client."""

from __future__ import annotations

from typing import Any

from tests.peers.tryton import BRIDGE, DATABASE, PLANTED, Tryton

CONNECTOR, SCOPE = "crm", "opportunities"
DORA = ("dora", "Dora Lang")


class Crm(Tryton):
    """Knows Dora as well; she sells."""

    @staticmethod
    def made_before() -> bool:
        """Whether one lies ready in this checkout; to make one takes up to a minute."""
        return PLANTED.made.exists()

    async def hire(self) -> None:
        """Let it know Dora, who may all that Alice may."""
        [alice] = await self.call(
            "res.user", "search_read", [["login", "=", "alice"]], 0, 1, None, ["groups", "company"]
        )
        [party] = await self.call("party.party", "create", [{"name": DORA[1]}], by="admin")
        employed = {"party": party, "company": alice["company"]}
        [employee] = await self.call("company.employee", "create", [employed], by="admin")
        user = {
            "login": DORA[0], "name": DORA[1], "password": self.password(DORA[0]), "email": "dora@company.example",
            "companies": [["add", [alice["company"]]]], "company": alice["company"],
            "employees": [["add", [employee]]], "employee": employee, "groups": [["add", alice["groups"]]],
        }  # fmt: skip
        await self.call("res.user", "create", [user], by="admin")

    async def belongs(self, number: int, party: str) -> None:
        """Dora makes a party and sets it."""
        [made] = await self.call("party.party", "create", [{"name": party}], by=DORA[0])
        [found] = await self.call("sale.opportunity", "search", [["number", "=", str(number)]], 0, 1, None)
        await self.change(found, DORA[0], party=made)

    async def stands(self, number: int) -> dict[str, Any]:
        """An opportunity by its number, as text."""
        fields = ["description", "state", "amount", "conversion_probability", "party.rec_name", "comment"]
        [found] = await self.call("sale.opportunity", "search_read", [["number", "=", str(number)]], 0, 1, None, fields)
        amount, party = found["amount"], found["party."]
        return {
            "description": found["description"], "state": found["state"], "comment": found["comment"] or "",
            "amount": amount["decimal"] if amount else "", "probability": f"{found['conversion_probability']:.0%}",
            "party": party["rec_name"] if party else "",
        }  # fmt: skip

    def connector(self) -> dict[str, object]:
        """How the bridge is told of it; it looks often, since nobody likes to wait in a demo."""
        login = {"username": BRIDGE, "password": self.password(BRIDGE)}
        return {"plugin": "tryton", "url": self.url, "database": DATABASE, "every": 1, **login}
