"""Small pictures, drawn here: a demo needs photos, and a checkout does not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

Colour = tuple[int, int, int]
SIDE = 96


def ticket() -> bytes:
    """A ticket, printed upside down (with good will)."""

    def colour(x: int, y: int) -> Colour:
        if not (12 < x < 84 and 24 < y < 72):
            return (70, 80, 96)
        return (30, 30, 30) if y % 8 < 3 and x > 20 + (y * 7) % 40 else (250, 246, 230)

    return png(colour)


def printer() -> bytes:
    """A printer with a green light."""

    def colour(x: int, y: int) -> Colour:
        if (x - 74) ** 2 + (y - 52) ** 2 < 20:
            return (40, 220, 90)
        if 14 < x < 82 and 40 < y < 76:
            return (120, 128, 140)
        return (245, 245, 245) if 28 < x < 68 and 16 < y <= 40 else (34, 60, 90)

    return png(colour)


def png(colour: Callable[[int, int], Colour]) -> bytes:
    """A PNG file (RFC 2083) whose pixels `colour` chooses."""
    rows = b"".join(b"\0" + bytes(part for x in range(SIDE) for part in colour(x, y)) for y in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
