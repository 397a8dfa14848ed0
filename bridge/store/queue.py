"""The `queue` table: deliveries from the commit that asked for them to the commit that crosses them out."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable

from bridge.model import Delivery, Lifecycle

_COLUMNS = "id, uid, lane, destination, kind, payload, state, conversation, created, attempts, due, doubt, error, hold"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8


def new_uid() -> str:
    """A fresh delivery id: 20 characters of [a-z2-7], 100 random bits."""
    return os.urandom(20).translate(_LETTERS).decode()


def passes(error: Exception) -> bool:
    """Trouble of the disk or a lock; anything else the database says it would say again and again."""
    return isinstance(error, OSError | sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


class QueueTable:
    """Rows of the queue, within one transaction.

    `fresh` collects those that became ready in it, `moved` where drafts stand since: (uid, state, or "gone").
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.fresh: list[Delivery] = []
        self.moved: list[tuple[str, str]] = []

    def add(
        self,
        lane: str,
        destination: str,
        kind: str,
        payload: str,
        *,
        conversation: int | None = None,
    ) -> Delivery:
        """Write a delivery down at the end of its lane."""
        uid, now = new_uid(), time.time()
        number = self._db.execute(
            "INSERT INTO queue (uid, lane, destination, kind, payload, state, conversation, created)"
            " VALUES (?, ?, ?, ?, ?, 'ready', ?, ?)",
            (uid, lane, destination, kind, payload, conversation, now),
        ).lastrowid
        assert number is not None
        delivery = Delivery(number, uid, lane, destination, kind, payload, "ready", conversation, now)
        self.fresh.append(delivery)
        return delivery

    def add_draft(
        self, lane: str, destination: str, payload: str, conversation: int, author: str, source: str, cause: str
    ) -> str:
        """Write down an outward message that nobody has confirmed yet; returns its uid."""
        uid = new_uid()
        self._db.execute(
            "INSERT INTO queue (uid, lane, destination, kind, payload, state, conversation, created, author, source,"
            " cause) VALUES (?, ?, ?, 'draft', ?, 'asked', ?, ?, ?, ?, ?)",
            (uid, lane, destination, payload, conversation, time.time(), author, source, cause),
        )
        self.moved.append((uid, "asked"))
        return uid

    def get(self, uid: str) -> Delivery | None:
        return self._one("uid = ?", uid)

    def begin(self, delivery: Delivery) -> Delivery | None:
        """Note that an attempt begins; None when the row is no longer there or no longer ready."""
        self._db.execute(
            "UPDATE queue SET attempts = attempts + 1, doubt = COALESCE(doubt, ?) WHERE id = ? AND state = 'ready'",
            (time.time(), delivery.id),
        )
        found = self._one("id = ?", delivery.id)
        return found if found and found.state == "ready" else None

    def postpone(self, delivery: Delivery, due: float, error: str) -> None:
        """Try again at `due`; `delivery.doubt` says whether the other side may have taken it all the same."""
        self._db.execute(
            "UPDATE queue SET attempts = MAX(attempts, ?), due = ?, error = ?, doubt = ? WHERE id = ?",
            (delivery.attempts, due, error, delivery.doubt, delivery.id),
        )

    def amend(self, uid: str, payload: str) -> None:
        self._db.execute("UPDATE queue SET payload = ? WHERE uid = ?", (payload, uid))

    def move(self, uid: str, state: Lifecycle, *, hold: float | None = None, error: str = "") -> None:
        """Change where a draft stands; `ready` puts it at the end of its lane."""
        self.moved.append((uid, state))
        if state == "ready":
            self._append(uid)
            return
        self._db.execute(
            "UPDATE queue SET state = ?, error = ?, hold = COALESCE(?, hold) WHERE uid = ?", (state, error, hold, uid)
        )

    def _append(self, uid: str) -> None:
        """A new place at the end of the lane, the same identity; a dead letter gets its full time again.

        That it was attempted is not forgotten: the other side may have it, so whoever delivers it looks first.
        """
        row = self._db.execute(
            "SELECT uid, lane, destination, kind, payload, conversation, source, cause, preview, author, doubt,"
            " CASE WHEN attempts > 0 THEN 1 ELSE 0 END, CASE state WHEN 'dead' THEN ? ELSE created END"
            " FROM queue WHERE uid = ?",
            (time.time(), uid),
        ).fetchone()
        self._db.execute("DELETE FROM queue WHERE uid = ?", (uid,))
        self._db.execute(
            "INSERT INTO queue (uid, lane, destination, kind, payload, conversation, source, cause, preview, author,"
            " doubt, attempts, created, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'ready')",
            row,
        )
        appended = self.get(uid)
        assert appended is not None
        self.fresh.append(appended)

    def previewed(self, uid: str, event: str) -> None:
        self._db.execute("UPDATE queue SET preview = ? WHERE uid = ?", (event, uid))

    def preview_of(self, uid: str) -> str:
        row = self._db.execute("SELECT preview FROM queue WHERE uid = ?", (uid,)).fetchone()
        return row[0] or "" if row else ""

    def touched_by(self, event: str) -> list[Delivery]:
        """Drafts whose words, request or preview is that event."""
        return self._many("source = ? OR cause = ? OR preview = ?", event, event, event)

    def from_source(self, event: str) -> list[Delivery]:
        """Drafts whose words are in that event."""
        return self._many("source = ?", event)

    def made_of(self, event: str) -> list[Delivery]:
        """Drafts that may contain words or files of that event besides their own source."""
        sought = event.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
        return self._many("kind = 'draft' AND payload LIKE ? ESCAPE '\\'", f'%"{sought}"%')

    def waiting(self, conversation: int, *states: Lifecycle) -> list[Delivery]:
        """Drafts and dead letters of a conversation, oldest first."""
        marks = ", ".join("?" * len(states))
        # The second condition says nothing new, but with it SQLite uses the index on drafts and dead letters.
        return self._many(f"conversation = ? AND state <> 'ready' AND state IN ({marks})", conversation, *states)

    def stoppable(self, conversation: int) -> list[Delivery]:
        """Drafts of a conversation that have not left, released or not."""
        return self._many("conversation = ? AND kind = 'draft' AND state <> 'dead'", conversation)

    def drafts_ready(self) -> list[Delivery]:
        return self._many("state = 'ready' AND kind = 'draft'")

    def revive(self, uid: str, state: Lifecycle, text: str) -> None:
        """A dead letter is asked again, as new as on the first day; but that it was attempted is not forgotten."""
        self._db.execute(
            "UPDATE queue SET state = ?, payload = ?, attempts = CASE WHEN attempts > 0 THEN 1 ELSE 0 END,"
            " doubt = NULL, error = '', preview = NULL, created = ? WHERE uid = ? AND state = 'dead'",
            (state, text, time.time(), uid),
        )
        self.moved.append((uid, state))

    def on_their_way(self) -> list[Delivery]:
        """Drafts that nobody has to confirm any more, and changes of items."""
        return self._many(
            "kind = 'draft' AND state IN ('asked', 'held', 'ready') OR kind = 'change' AND state = 'ready'"
        )

    def for_none_of(self, destinations: Iterable[str]) -> list[Delivery]:
        """What waits for any other destination."""
        known = tuple(destinations)
        return self._many(f"state <> 'dead' AND destination NOT IN ({', '.join('?' * len(known))})", *known)

    def held(self) -> list[Delivery]:
        return self._many("state = 'held'")

    def in_state(self, state: Lifecycle) -> list[Delivery]:
        return self._many("state = ?", state)

    def remove(self, number: int) -> None:
        self._db.execute("DELETE FROM queue WHERE id = ?", (number,))

    def drop(self, uid: str) -> None:
        """It does not leave: nor does it count among what was released."""
        self._db.execute("DELETE FROM queue WHERE uid = ?", (uid,))
        self._db.execute("DELETE FROM released_to WHERE uid = ?", (uid,))
        self.moved.append((uid, "gone"))

    def bury(self, delivery: Delivery, error: str) -> None:
        """Give up: the row stays as a dead letter and its lane goes on."""
        self._db.execute(
            "UPDATE queue SET state = 'dead', error = ?, doubt = ? WHERE id = ?", (error, delivery.doubt, delivery.id)
        )

    def keep_dead(self, delivery: Delivery, text: str, error: str) -> str:
        """A dead letter beside the delivery that was crossed out, under an identity of its own; returns its uid."""
        uid = new_uid()
        self._db.execute(
            "INSERT INTO queue (uid, lane, destination, kind, payload, state, conversation, created, error)"
            " VALUES (?, ?, ?, ?, ?, 'dead', ?, ?, ?)",
            (uid, delivery.lane, delivery.destination, delivery.kind, text, delivery.conversation, time.time(), error),
        )
        return uid

    def keep_unknown(self, kind: str, text: str, error: str) -> str:
        """An event or envelope that could not be understood, as a dead letter; returns its uid."""
        uid = new_uid()
        self._db.execute(
            "INSERT INTO queue (uid, lane, destination, kind, payload, state, created, error)"
            " VALUES (?, 'hub', 'hub', ?, ?, 'dead', ?, ?)",
            (uid, kind, text, time.time(), error),
        )
        return uid

    def lanes(self) -> list[tuple[str, str, float]]:
        """(lane, destination, when its first delivery is due) of every lane with something to deliver."""
        return self._db.execute(
            "SELECT lane, destination, due FROM queue AS first WHERE state = 'ready' AND NOT EXISTS (SELECT 1"
            " FROM queue WHERE lane = first.lane AND id < first.id AND state = 'ready') ORDER BY lane"
        ).fetchall()

    def head(self, lane: str, after: int, limit: int) -> list[Delivery]:
        """The next deliveries of a lane after a place in it."""
        return self._many(f"lane = ? AND id > ? AND state = 'ready' ORDER BY id LIMIT {int(limit)}", lane, after)

    def unsent(self, lane: str, kind: str) -> list[Delivery]:
        """What waits in a lane of one kind; the first of it may be under way."""
        return self._many("lane = ? AND kind = ? AND state = 'ready'", lane, kind)

    def figures(self) -> dict[tuple[str, str], tuple[int, float]]:
        """By (destination, state): how many rows, and when the oldest was written down."""
        rows = self._db.execute(
            "SELECT destination, state, COUNT(*), MIN(created) FROM queue GROUP BY destination, state"
        )
        return {(destination, state): (count, since) for destination, state, count, since in rows}

    def recent_to(self, connector: str, scope: str, account: str, since: float, but: str) -> int:
        """How many messages, `but` not counted, were released since then in the name of `scope` to that account."""
        row = self._db.execute(
            "SELECT COUNT(*) FROM released_to"
            " WHERE connector = ? AND scope = ? AND account = ? AND at > ? AND uid <> ?",
            (connector, scope, account, since, but),
        ).fetchone()
        return int(row[0])

    def note_released(self, uid: str, connector: str, scope: str, accounts: Iterable[str]) -> None:
        now = time.time()
        self._db.execute("DELETE FROM released_to WHERE at < ?", (now - 3600,))
        self._db.executemany(
            "INSERT OR REPLACE INTO released_to (connector, scope, account, uid, at) VALUES (?, ?, ?, ?, ?)",
            [(connector, scope, account, uid, now) for account in accounts],
        )

    def _one(self, where: str, *values: object) -> Delivery | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM queue WHERE {where}", values).fetchone()
        return Delivery(*row) if row else None

    def _many(self, where: str, *values: object) -> list[Delivery]:
        order = "" if "ORDER BY" in where else " ORDER BY id"
        return [
            Delivery(*row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM queue WHERE {where}{order}", values)
        ]
