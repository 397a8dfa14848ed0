"""How people name the items of a tool in what they write: by a key (issue12), or by a web address."""

from __future__ import annotations

import re


class Names:
    """`key` and `path` are patterns, each with one group around the item's number or name.

    `path` is looked for below each of the `sites` (web addresses; scheme and host in any case), with anything behind a
    further "/", "?" or "#". Linear in the length of the text, if the patterns are.
    """

    def __init__(self, key: str, path: str, *sites: str) -> None:
        bases = [re.split(r"(?<=[^/:])/", f"{site.rstrip('/')}/", maxsplit=1) for site in sites]
        known = "|".join(rf"(?i:{re.escape(origin)})/{re.escape(folder)}" for origin, folder in bases)
        self._key = re.compile(key, re.IGNORECASE | re.ASCII)
        self._address = re.compile(rf"(?:{known}){path}(?:[/?#].*)?", re.ASCII)

    def find(self, text: str) -> str:
        """What the group matched when `text`, spaces around it aside, is a key or an address; else ""."""
        found = self._key.fullmatch(text.strip()) or self._address.fullmatch(text.strip())
        return found[1] if found else ""
