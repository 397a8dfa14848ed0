"""`!me`: whose accounts in the tools are whose."""

from __future__ import annotations

from bridge.commands.acts import Acts
from bridge.commands.parse import Command
from bridge.connector import Connector
from bridge.items import Items
from bridge.model import RoomEvent
from bridge.outward import Refusal
from bridge.store import Conversation, Tx
from bridge.texts import Texts


class Accounts:
    """Each method is a rule: it runs inside one transaction. All raise `Refusal` with a sentence for who asked."""

    def __init__(self, acts: Acts, items: Items, connectors: dict[str, Connector], say: Texts) -> None:
        self._acts = acts
        self._items = items
        self._connectors = connectors
        self._say = say

    def me(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!me`: one's accounts; `!me TOOL account`: a code that proves one; `!me TOOL -`: forget it."""
        name, _, account = command.first_line.partition(" ")
        if not name:
            return self._acts.answer(tx, event, conversation, self._accounts(tx, event.sender))
        account = account.strip()
        self._may_claim(tx, event.sender, name, account)
        if account == "-":
            tx.people.disowns(event.sender, name)
            return self._acts.answer(tx, event, conversation, self._say("account-forgotten", connector=name))
        number = conversation.id if conversation else 0
        code = self._items.claim(tx, event.sender, name, account, event.room, number)
        body = self._say("account-code", code=code, connector=name, account=account)
        return self._acts.answer(tx, event, conversation, body)

    def _may_claim(self, tx: Tx, mxid: str, name: str, account: str) -> None:
        """Raises `Refusal` when there is nothing to prove there, or an administrator has decided."""
        connector = self._connectors.get(name)
        if connector is None or connector.addressed or not account:
            provable = [name for name, each in sorted(self._connectors.items()) if is_provable(each)]
            raise Refusal(self._say("me-usage", connectors=", ".join(provable) or "–"))
        if fixed := tx.people.declared(mxid).get(name):
            raise Refusal(self._say("account-fixed", connector=name, account=fixed))
        if not is_provable(connector):
            raise Refusal(self._say("account-unprovable", connector=name))
        if tx.people.reserved(name, account):
            raise Refusal(self._say("account-others", connector=name, account=account))

    def _accounts(self, tx: Tx, mxid: str) -> str:
        """A line for each tool in which this person has an account, or could prove one."""
        known, fixed, lines = tx.people.accounts(mxid), tx.people.declared(mxid), list[str]()
        for name, connector in sorted(self._connectors.items()):
            if account := known.get(name):
                key = "account-declared" if name in fixed else "account"
                lines.append(self._say(key, connector=name, account=account))
            elif is_provable(connector):
                lines.append(self._say("account-unknown", connector=name))
        return "\n".join(lines) or self._say("no-accounts")


def is_provable(connector: Connector) -> bool:
    """Whether people can write a code into that tool, and it is heard here. Where recipients are named, anybody can
    write in any name.
    """
    kind = type(connector)
    heard = (kind.poll, kind.parse, kind.run) != (Connector.poll, Connector.parse, Connector.run)
    return heard and kind.send is not Connector.send and not connector.addressed
