"""Looking for conversations by what they are called and who takes part in them, for people."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence

NEWEST = 5000  # conversations of the rooms that are looked through
MOST_NAMES = 100  # people whose name has a word, for each word

_SAID = "m.conversation = c.id AND m.role IN ('inward', 'stranger', 'automatic', 'colleague', 'outward', 'internal')"


class Titles:
    """Reads only, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def find(self, words: Sequence[str], rooms: Collection[str], most: int) -> list[tuple[int, float]]:
        """(our number, when something was said last) of conversations in these rooms whose title or people have all
        the words, the newest first.
        """
        if not rooms or not words:
            return []
        values: list[object] = [*rooms, NEWEST]
        clauses = []
        for word in words:
            clause, more = self._has(word)
            clauses.append(clause)
            values += more
        rows = self._db.execute(
            "SELECT c.id, COALESCE((SELECT m.created FROM message m WHERE m.conversation = c.id ORDER BY m.id DESC"
            " LIMIT 1), c.created) AS at FROM (SELECT id, title, created FROM conversation"
            f" WHERE room IN ({_marks(rooms)}) AND root IS NOT NULL ORDER BY id DESC LIMIT ?) c"
            f" WHERE {' AND '.join(clauses)} ORDER BY at DESC, c.id DESC LIMIT {int(most)}",
            values,
        )
        return rows.fetchall()

    def at(self, conversation: int) -> float:
        """When something was said in it last."""
        row = self._db.execute("SELECT MAX(created) FROM message WHERE conversation = ?", (conversation,)).fetchone()
        return row[0] or 0.0

    def _has(self, word: str) -> tuple[str, list[object]]:
        """A condition on conversation `c`, and its values."""
        spellings = [f"%{_plain(each)}%" for each in dict.fromkeys(_spellings(word))]
        people = self._people(spellings)
        senders = _any("m.sender", spellings)
        takers = _any("t.account", spellings)
        clause = (
            f"({_any('c.title', spellings)}"
            f" OR EXISTS (SELECT 1 FROM message m WHERE {_SAID}"
            f" AND ((m.sender NOT LIKE '@%' AND {senders}) OR m.sender IN ({_marks(people)})))"
            " OR EXISTS (SELECT 1 FROM conversation_item l JOIN participant t ON t.item = l.item"
            f" WHERE l.conversation = c.id AND ({takers} OR t.account IN ({_marks(people)}))))"
        )
        return clause, [*spellings, *spellings, *people, *spellings, *people]

    def _people(self, spellings: list[str]) -> list[str]:
        """Accounts and Matrix ids of those whose name has the word."""
        ghosts = self._db.execute(
            f"SELECT account FROM ghost WHERE {_any('name', spellings)} LIMIT {MOST_NAMES}", spellings
        ).fetchall()
        staff = self._db.execute(
            f"SELECT mxid FROM profile WHERE {_any('name', spellings)} LIMIT {MOST_NAMES}", spellings
        ).fetchall()
        return [name for (name,) in (*ghosts, *staff)]


def _any(column: str, spellings: Sequence[str]) -> str:
    return "(" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for _ in spellings) + ")"


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _plain(word: str) -> str:
    """A word as LIKE takes it literally."""
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _spellings(word: str) -> Iterator[str]:
    """LIKE knows upper and lower case of ASCII only."""
    yield word
    if not word.isascii():
        yield from (word.lower(), word.upper(), word.capitalize())
