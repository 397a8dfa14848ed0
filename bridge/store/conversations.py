"""The tables of conversations, items and messages: who belongs where, and where each message is on both sides."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Conversation:
    """A thread in a room; `root` is "" until the homeserver has its first message."""

    id: int
    room: str
    root: str
    latest: str
    title: str
    speaker: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on the other side, as one conversation speaks on it: in the name of `scope`."""

    id: int
    connector: str
    remote: str
    title: str
    scope: str
    aside: str = ""  # why the conversation hears nothing of it now: "outside", "gone"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation: never its words, only where it is."""

    id: int
    conversation: int
    item: int | None
    role: str  # inward, stranger, outward, internal, bot
    remote: str
    refs: tuple[str, ...]
    event: str
    sender: str
    title: str
    memo: str
    original: str
    uid: str
    room: str = ""  # where its event is, if not in the room of its conversation


_CONVERSATION = "c.id, c.room, COALESCE(c.root, ''), COALESCE(c.latest, ''), c.title, COALESCE(c.speaker, '')"
_MESSAGE = (
    "id, conversation, item, role, COALESCE(remote, ''), refs, COALESCE(event, ''), sender, title, memo,"
    " COALESCE(original, ''), COALESCE(uid, ''), COALESCE(room, '')"
)


class Conversations:
    """Conversations, items and messages, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # --- arrivals

    def first_time(self, key: str) -> bool:
        """Note an arrival; False when it was noted before."""
        done = self._db.execute("INSERT OR IGNORE INTO seen (key, at) VALUES (?, ?)", (key, time.time()))
        return done.rowcount == 1

    def is_noted(self, key: str) -> bool:
        """Whether that was noted before."""
        return self._db.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() is not None

    def take_back(self, event: str) -> bool:
        """Note that an event was redacted; False when that was noted before."""
        return self.first_time(f"redacted {event}")

    def taken_back(self, event: str) -> bool:
        """Whether an event was redacted."""
        return self.is_noted(f"redacted {event}")

    def cursor(self, connector: str) -> str:
        """Where the next poll of that connector goes on; "" before the first."""
        row = self._db.execute("SELECT value FROM cursor WHERE connector = ?", (connector,)).fetchone()
        return row[0] if row else ""

    def moved_on(self, connector: str, cursor: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO cursor (connector, value) VALUES (?, ?)", (connector, cursor))

    # --- conversations

    def add(self, room: str, title: str, root: str = "") -> Conversation:
        number = self._db.execute(
            "INSERT INTO conversation (room, root, title, created) VALUES (?, ?, ?, ?)",
            (room, root or None, title, time.time()),
        ).lastrowid
        assert number is not None
        return Conversation(number, room, root, root, title, "")

    def get(self, number: int) -> Conversation | None:
        return self._conversation("FROM conversation c WHERE c.id = ?", number)

    def of_root(self, event: str) -> Conversation | None:
        """The conversation with that thread, also when it went on in another room since."""
        return self._conversation("FROM conversation c WHERE c.root = ?", event) or self._conversation(
            "FROM former f JOIN conversation c ON c.id = f.conversation WHERE f.root = ?", event
        )

    def of_event(self, event: str) -> Conversation | None:
        """The conversation that one of its messages is known by."""
        return self.of_root(event) or self._conversation(
            "FROM message m JOIN conversation c ON c.id = m.conversation WHERE m.event = ?", event
        )

    def of_item(self, item: int, room: str) -> Conversation | None:
        return self._conversation(
            "FROM conversation_item l JOIN conversation c ON c.id = l.conversation WHERE l.item = ? AND c.room = ?"
            " ORDER BY c.id",
            item,
            room,
        )

    def all_of_item(self, item: int) -> list[tuple[Conversation, str]]:
        """Every conversation of an item, oldest first, and the scope in whose name it speaks."""
        rows = self._db.execute(
            f"SELECT {_CONVERSATION}, l.scope FROM conversation_item l JOIN conversation c ON c.id = l.conversation"
            " WHERE l.item = ? ORDER BY c.id",
            (item,),
        )
        return [(Conversation(*row[:-1]), row[-1]) for row in rows]

    def elsewhere(self, item: int, conversation: int) -> list[Conversation]:
        """The other conversations of an item."""
        rows = self._db.execute(
            f"SELECT {_CONVERSATION} FROM conversation_item l JOIN conversation c ON c.id = l.conversation"
            " WHERE l.item = ? AND c.id <> ?",
            (item, conversation),
        )
        return [Conversation(*row) for row in rows]

    def shown(self, conversation: int, event: str, room: str = "") -> None:
        """An event of the conversation is in the room: its root if it is the first, its latest in any case.

        With `room`: only if the conversation has not gone on in another one meanwhile.
        """
        self._db.execute(
            "UPDATE conversation SET latest = ?, root = COALESCE(root, ?) WHERE id = ? AND ? IN ('', room)",
            (event, event, conversation, room),
        )

    def spoke(self, conversation: int, mxid: str) -> None:
        self._db.execute("UPDATE conversation SET speaker = ? WHERE id = ?", (mxid, conversation))

    def _conversation(self, rest: str, *values: object) -> Conversation | None:
        row = self._db.execute(f"SELECT {_CONVERSATION} {rest}", values).fetchone()
        return Conversation(*row) if row else None

    # --- rooms that were upgraded

    def has_any(self, room: str) -> bool:
        """Whether a room has conversations."""
        return self._db.execute("SELECT 1 FROM conversation WHERE room = ? LIMIT 1", (room,)).fetchone() is not None

    def move(self, room: str, next_room: str) -> None:
        """The conversations of a room go on in another, each with a new root; where they were is remembered."""
        ours = "SELECT id FROM conversation WHERE room = ?"
        self._db.execute(
            "INSERT OR IGNORE INTO former (root, room, conversation, at)"
            " SELECT root, room, id, ? FROM conversation WHERE room = ? AND root IS NOT NULL",
            (time.time(), room),
        )
        self._db.execute(
            f"UPDATE message SET room = ? WHERE event IS NOT NULL AND room IS NULL AND conversation IN ({ours})",
            (room, room),
        )
        self._db.execute(f"UPDATE conversation_item SET card = NULL WHERE conversation IN ({ours})", (room,))
        self._db.execute(f"UPDATE line SET event = NULL WHERE conversation IN ({ours})", (room,))
        self._db.execute(
            "UPDATE conversation SET room = ?, root = NULL, latest = NULL WHERE room = ?", (next_room, room)
        )

    def former(self, conversation: int) -> tuple[str, str] | None:
        """(room, root) of the thread where a conversation was before its room was upgraded."""
        row: tuple[str, str] | None = self._db.execute(
            "SELECT room, root FROM former WHERE conversation = ? ORDER BY at DESC LIMIT 1", (conversation,)
        ).fetchone()
        return row

    def room_of(self, event: str) -> str:
        """The room of an event that a conversation knows, "" when none does."""
        row = self._db.execute(
            "SELECT room FROM (SELECT room, 0 AS rank FROM former WHERE root = ? UNION ALL SELECT COALESCE(m.room,"
            " c.room), CASE WHEN m.room IS NULL THEN 2 ELSE 1 END FROM message m JOIN conversation c"
            " ON c.id = m.conversation WHERE m.event = ?) AS known ORDER BY rank LIMIT 1",
            (event, event),
        ).fetchone()
        return row[0] if row else ""

    # --- items

    def add_item(self, connector: str, remote: str, title: str) -> int:
        number = self._db.execute(
            "INSERT INTO item (connector, remote, title, created) VALUES (?, ?, ?, ?)",
            (connector, remote, title, time.time()),
        ).lastrowid
        assert number is not None
        return number

    def link(self, conversation: int, item: int, scope: str) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO conversation_item (conversation, item, scope) VALUES (?, ?, ?)",
            (conversation, item, scope),
        )

    def speak_for(self, conversation: int, item: int, scope: str) -> None:
        """From now on the conversation speaks on the item in the name of that scope."""
        self._db.execute(
            "UPDATE conversation_item SET scope = ? WHERE conversation = ? AND item = ?", (scope, conversation, item)
        )

    def unlink(self, conversation: int, item: int) -> None:
        for table in ("conversation_item", "aside"):
            self._db.execute(f"DELETE FROM {table} WHERE conversation = ? AND item = ?", (conversation, item))

    def rename_item(self, item: int, remote: str, title: str) -> None:
        """The tool has given a name to what we began."""
        self._db.execute("UPDATE item SET remote = ?, title = ? WHERE id = ?", (remote, title, item))

    def stands(self, item: int) -> tuple[str, float]:
        """(JSON of the card, since when) of an item as it stood last; "" when that is not known."""
        row = self._db.execute("SELECT COALESCE(card, ''), card_at FROM item WHERE id = ?", (item,)).fetchone()
        return (row[0], row[1]) if row else ("", 0.0)

    def stood(self, item: int, title: str, card: str, when: float) -> None:
        """Note how an item stands."""
        self._db.execute("UPDATE item SET title = ?, card = ?, card_at = ? WHERE id = ?", (title, card, when, item))

    def card(self, conversation: int, item: int) -> str:
        """The event that shows there how the item stands, "" while there is none."""
        row = self._db.execute(
            "SELECT card FROM conversation_item WHERE conversation = ? AND item = ?", (conversation, item)
        ).fetchone()
        return row[0] or "" if row else ""

    def carded(self, conversation: int, item: int, event: str) -> None:
        self._db.execute(
            "UPDATE conversation_item SET card = ? WHERE conversation = ? AND item = ?", (event, conversation, item)
        )

    def items_of(self, conversation: int) -> list[Item]:
        rows = self._db.execute(
            "SELECT i.id, i.connector, i.remote, CASE a.why WHEN 'outside' THEN i.remote ELSE i.title END, l.scope,"
            " COALESCE(a.why, '') FROM conversation_item l JOIN item i ON i.id = l.item LEFT JOIN aside a"
            " ON a.item = l.item AND a.conversation = l.conversation WHERE l.conversation = ? ORDER BY i.id",
            (conversation,),
        )
        return [Item(*row) for row in rows]

    def item_named(self, connector: str, remote: str) -> int | None:
        row = self._db.execute("SELECT id FROM item WHERE connector = ? AND remote = ?", (connector, remote)).fetchone()
        return row[0] if row else None

    def items_referred(self, connector: str, refs: Sequence[str]) -> list[int]:
        """Items that the references belong to, the nearest ancestor's first, none twice."""
        found: dict[int, None] = {}
        for ref in refs:
            row = self._db.execute(
                "SELECT item FROM reference WHERE connector = ? AND remote = ?", (connector, ref)
            ).fetchone()
            if row:
                found[row[0]] = None
        return list(found)

    def refer(self, connector: str, remotes: Iterable[str], item: int) -> None:
        """Remember remote ids, seen or not, as belonging to an item; the first claim stays."""
        self._db.executemany(
            "INSERT OR IGNORE INTO reference (connector, remote, item) VALUES (?, ?, ?)",
            [(connector, remote, item) for remote in remotes],
        )

    def admit(self, item: int, accounts: Iterable[str]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO participant (item, account) VALUES (?, ?)",
            [(item, account) for account in accounts],
        )

    def dismiss(self, item: int) -> None:
        self._db.execute("DELETE FROM participant WHERE item = ?", (item,))

    def takes_part(self, item: int, account: str) -> bool:
        row = self._db.execute("SELECT 1 FROM participant WHERE item = ? AND account = ?", (item, account)).fetchone()
        return row is not None

    # --- messages

    def add_message(
        self,
        conversation: int,
        role: str,
        sender: str,
        *,
        item: int | None = None,
        remote: str = "",
        refs: Sequence[str] = (),
        event: str = "",
        title: str = "",
        memo: str = "",
        original: str = "",
        uid: str = "",
        room: str = "",
    ) -> int:
        number = self._db.execute(
            "INSERT INTO message (conversation, item, role, remote, refs, event, sender, title, memo, original, uid,"
            " room, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                conversation, item, role, remote or None, " ".join(refs), event or None, sender, title, memo,
                original or None, uid or None, room or None, time.time(),
            ),
        ).lastrowid  # fmt: skip
        assert number is not None
        return number

    def message(self, number: int) -> Message | None:
        return self._message("id = ?", number)

    def message_of_event(self, event: str) -> Message | None:
        """What an event is known as; a message that has left counts as outward, though it was said inside first."""
        return self._message("event = ? ORDER BY id DESC LIMIT 1", event)

    def message_of_uid(self, uid: str) -> Message | None:
        return self._message("uid = ?", uid)

    def messages_of_remote(self, remote: str) -> list[Message]:
        return self._messages("remote = ? ORDER BY id", remote)

    def last_inward(self, conversation: int, item: int) -> Message | None:
        """The newest message from outside that is no stranger's; a program's only when no person wrote."""
        return self._message(
            "conversation = ? AND role IN ('inward', 'automatic') AND item = ?"
            " ORDER BY role = 'inward' DESC, id DESC LIMIT 1",
            conversation,
            item,
        )

    def start_of(self, conversation: int, item: int) -> Message | None:
        """How an item was begun from inside; its memo has the recipients."""
        return self._message(
            "conversation = ? AND item = ? AND role = 'start' ORDER BY id DESC LIMIT 1", conversation, item
        )

    def last_original(self, conversation: int) -> Message | None:
        return self._message(
            "conversation = ? AND original IS NOT NULL AND role <> 'report' ORDER BY id DESC LIMIT 1", conversation
        )

    def answerable(self, conversation: int, item: int) -> Message | None:
        """The newest message of an item that an answer can follow, ours included."""
        return self._message(
            "conversation = ? AND item = ? AND role IN ('inward', 'outward') ORDER BY id DESC LIMIT 1",
            conversation,
            item,
        )

    def in_matrix(self, message: int, event: str, room: str = "") -> None:
        """It is shown by that event, in `room`, which its conversation may have left meanwhile."""
        self._db.execute(
            "UPDATE message SET event = ?, room = (SELECT NULLIF(NULLIF(?, c.room), '') FROM conversation c"
            " WHERE c.id = message.conversation) WHERE id = ?",
            (event, room, message),
        )

    def _message(self, where: str, *values: object) -> Message | None:
        found = self._messages(where, *values)
        return found[0] if found else None

    def _messages(self, where: str, *values: object) -> list[Message]:
        rows = self._db.execute(f"SELECT {_MESSAGE} FROM message WHERE {where}", values)
        return [Message(*(*row[:5], tuple(row[5].split()), *row[6:])) for row in rows]

    # --- marks

    def marked(self, target: str, key: str, event: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO mark (target, key, event) VALUES (?, ?, ?)", (target, key, event))

    def mark(self, target: str, key: str) -> str:
        row = self._db.execute("SELECT event FROM mark WHERE target = ? AND key = ?", (target, key)).fetchone()
        return row[0] if row else ""

    def unmarked(self, target: str, key: str) -> None:
        self._db.execute("DELETE FROM mark WHERE target = ? AND key = ?", (target, key))
