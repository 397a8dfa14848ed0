"""`!test`: a mapping is tried from end to end, and each step is told in the thread as it happens.

A trial is a row in the lane of its connector: it is looked at, it is sent, it waits to come back. So it goes on after a
crash, and it ends: with its arrival, with a no, or when its time is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from bridge import payload
from bridge.commands.acts import Acts
from bridge.commands.parse import Command
from bridge.commands.start import thread_of
from bridge.config import Mapping
from bridge.connector import Connector
from bridge.model import Author, Delivery, Envelope, Finding, RoomEvent, Sent
from bridge.outward import Refusal
from bridge.payload import Post, Trial
from bridge.permissions import Permits
from bridge.places import Places
from bridge.store import Conversation, Tx
from bridge.text.plain import one_line
from bridge.texts import Texts

WAIT = 60.0  # seconds in which it must come back


class Trials:
    """Each method is a rule: it runs inside one transaction."""

    def __init__(
        self, places: Places, acts: Acts, permits: Permits, connectors: dict[str, Connector], say: Texts
    ) -> None:
        self._places = places
        self._acts = acts
        self._permits = permits
        self._connectors = connectors
        self._say = say

    def test(self, tx: Tx, event: RoomEvent, command: Command, conversation: Conversation | None) -> None:
        """`!test [scope]`. Raises `Refusal`."""
        mapping = self._meant(event.room, command.first_line)
        if why := self._permits.why_not(event.sender, "test", mapping.connector):
            raise Refusal(why)
        conversation = conversation or thread_of(tx, event, f"!test {mapping.scope}", self._say)
        only = "; ".join(f"{name}: {', '.join(patterns)}" for name, patterns in mapping.only.items()) or "-"
        names = {"scope": mapping.scope, "connector": mapping.connector, "only": only}
        self._acts.answer(tx, event, conversation, self._say("test-begins", **names))
        trial = Trial(event.room, mapping.scope, event.id)
        lane = f"{mapping.connector}:{conversation.id}:test"  # of its own: nothing waits behind it
        tx.queue.add(lane, mapping.connector, "trial", payload.dump(trial), conversation=conversation.id)

    def _meant(self, room: str, scope: str) -> Mapping:
        """The mapping that is named, or the only one there is."""
        here = self._places.mappings_of(room)
        found = [each for each in here if scope.lower() in ("", each.scope.lower())]
        if not here:
            raise Refusal(self._say("test-unmapped"))
        if not found or len({(each.connector, each.scope) for each in found}) > 1:
            raise Refusal(self._say("test-which", scopes=", ".join(sorted({each.scope for each in here}))))
        return found[0]

    # --- its steps

    def looked(
        self, tx: Tx, delivery: Delivery, trial: Trial, missing: Sequence[str] | None, findings: Sequence[Finding]
    ) -> float:
        """What the room (None: it could not be asked) and the tool say before anything is sent; it goes on at once."""
        rights = "; ".join(self._say(right) for right in missing or ())
        key = "test-unknown-rights" if missing is None else "test-rights" if rights else "test-rights-fine"
        lines = [self._say(key, rights=rights)]
        for each in findings:
            remedy = f" — {each.remedy}" if each.remedy and not each.ok else ""
            lines.append(f"{'✓' if each.ok else '✗'} {one_line(each.what)}{remedy}")
        self._tell(tx, delivery, trial, "\n".join(lines))
        tx.queue.amend(delivery.uid, payload.dump(replace(trial, step="send")))
        return time.time()

    def sent(self, tx: Tx, delivery: Delivery, trial: Trial, sent: Sent) -> float | None:
        """The other side has it; it may even have come back before we heard so."""
        self._tell(tx, delivery, trial, self._say("test-sent", reply=one_line(sent.reply), seconds=round(WAIT)))
        row = tx.queue.get(delivery.uid)
        back = payload.load(Trial, row.payload).back if row else None
        if back is not None:
            self._arrived(tx, delivery, trial, back, 0)
            return None
        tx.queue.amend(delivery.uid, payload.dump(replace(trial, step="wait", sent=time.time())))
        return time.time() + WAIT

    def read(self, tx: Tx, delivery: Delivery, trial: Trial, news: int | None) -> None:
        """Nothing can be sent through this tool to try it; but it was asked what is new, if it can be asked."""
        names = {"connector": delivery.destination, "scope": trial.scope, "count": news}
        self._tell(tx, delivery, trial, self._say("test-silent" if news is None else "test-read", **names))
        self._show(tx, delivery, trial, Author(delivery.destination, delivery.destination, delivery.destination))

    def refused(self, tx: Tx, delivery: Delivery, trial: Trial, reason: str) -> None:
        """It ends here: a trial is not tried again."""
        self._tell(tx, delivery, trial, self._say("test-refused", reason=one_line(reason)))

    def lost(self, tx: Tx, delivery: Delivery, trial: Trial, hint: str) -> None:
        """Its time is over."""
        self._tell(tx, delivery, trial, self._say("test-lost", seconds=round(WAIT), hint=hint))

    def came_back(self, tx: Tx, envelope: Envelope) -> None:
        """What arrives is a trial of ours, or a report about one; one whose time is over is nobody's concern."""
        row = tx.queue.get(envelope.probe)
        if row is None or row.kind != "trial":
            return
        trial = payload.load(Trial, row.payload)
        if envelope.report:
            self.refused(tx, row, trial, envelope.report.reason)
        elif trial.step != "wait":
            tx.queue.amend(row.uid, payload.dump(replace(trial, back=envelope.author)))
            return
        else:
            self._arrived(tx, row, trial, envelope.author, round(time.time() - trial.sent))
        tx.queue.drop(row.uid)

    def _arrived(self, tx: Tx, delivery: Delivery, trial: Trial, author: Author, seconds: int) -> None:
        self._tell(tx, delivery, trial, self._say("test-arrived", seconds=seconds, scope=trial.scope))
        self._show(tx, delivery, trial, author)

    def _show(self, tx: Tx, delivery: Delivery, trial: Trial, author: Author) -> None:
        """By a ghost, as what comes from outside is."""
        self._places.post(tx, Post(trial.room, self._say("test-message"), author=author), delivery.conversation)

    def _tell(self, tx: Tx, delivery: Delivery, trial: Trial, body: str) -> None:
        self._places.post(tx, Post(trial.room, body, notice=True, answers=trial.event), delivery.conversation)
