"""Tryton's JSON-RPC (trytond 8.0, protocols/dispatcher.py): sessions, what its errors mean, rows and their times."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from bridge.connector import Http, ServerConfig
from bridge.model import Deferred, Rejected, Unavailable, Unconfirmed
from bridge.text import one_line

PAGE, LISTED, OVERLAP = 50, 1000, timedelta(minutes=10)  # a row bears the time at which its transaction began
_MARK = re.compile(r"\s*\[?passerelle\.[a-z2-7.]+\]?")
_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")


class Conflict(Deferred):
    """Somebody else was quicker."""


class Rpc:
    """The models of one database, as one account; `context` is what that works with: its company, language …"""

    def __init__(self, http: Http, database: str, config: ServerConfig) -> None:
        self.context: Mapping[str, Any] = {}
        self._http, self._path, self._config, self._session = http, f"{database}/rpc/", config, ""

    async def search(
        self, model: str, domain: Any, fields: Any, limit: int = 1000, order: Any = None, context: Any = None
    ) -> list[Any]:
        """The rows that the domain selects. Raises as `ask`."""
        return list(await self.ask(model, "search_read", domain, 0, limit, order, list(fields), context=context))

    async def since(
        self, model: str, field: str, domain: list[Any], fields: Any, at: dict[str, Any] | None
    ) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
        """New rows by the time in `field`, each with it, and where to go on; None: only where to begin.

        It goes on by that time, since pages shift; `seen` is what the overlap brings again: that is only listed.
        """
        if not at:
            return [], await self._begin(model, field, domain)
        since, place, size, known = at["since"], at["place"], at["size"], at["seen"]
        later, order = [*domain, [field, ">=", moment_of(place)]], [[field, "ASC"], ["id", "ASC"]]
        listed = [(stamp_of(row[field]), row["id"]) for row in await self.search(model, later, [field], size, order)]
        fresh = [(stamp, number) for stamp, number in listed if f"{number} {stamp}" not in known]
        new = await self._whole(model, field, fields, [number for _, number in fresh[:PAGE]])
        seen = known | {f"{row['id']} {stamp}": stamp for stamp, row in new}
        seen |= {f"{number} {stamp}": stamp for stamp, number in fresh[:PAGE]}
        last, full, rest = (listed[-1][0] if listed else place), len(listed) == size, len(fresh) > PAGE
        if rest:
            return new, at | {"seen": seen, "rest": True}
        if not full:
            since = max(since, (datetime.fromisoformat(last) - OVERLAP).isoformat(timespec="microseconds"))
        size = size * 2 if full and last == place else LISTED  # perhaps all of one moment
        kept = {key: stamp for key, stamp in seen.items() if stamp >= since}
        return new, {"since": since, "place": last if full else since, "size": size, "seen": kept, "rest": full}

    async def _begin(self, model: str, field: str, domain: list[Any]) -> dict[str, Any]:
        """Where to go on from what there is: behind all of the last moment."""
        rows = await self.search(model, domain, [field], PAGE, [[field, "DESC NULLS LAST"]])
        begin = stamp_of(rows[0][field] if rows else None)
        if len(rows) == PAGE and rows[0][field] and rows[-1][field] == rows[0][field]:  # perhaps not all of it
            rows = await self.search(model, [*domain, [field, "=", rows[0][field]]], [field], 1_000_000)
        seen = {f"{row['id']} {begin}": begin for row in rows if row[field] and stamp_of(row[field]) == begin}
        return {"since": begin, "place": begin, "size": LISTED, "seen": seen, "rest": False}

    async def _whole(self, model: str, field: str, fields: Any, numbers: list[int]) -> list[tuple[str, Any]]:
        """Rows by their ids, each with its time, by which they are in order. What is gone meanwhile is left out."""
        rows = await self.search(model, [["id", "in", numbers]], fields) if numbers else []
        return sorted(((stamp_of(row[field]), row) for row in rows), key=lambda each: (each[0], each[1]["id"]))

    async def ask(self, model: str, method: str, *params: Any, context: Any = None, do: bool = False) -> Any:
        """What a model's method returns; `do`: it changes something (all is POST, what only reads too).

        Raises `Rejected` with Tryton's words, `Conflict`, `Deferred` for its own mistakes, `Unavailable`; and
        `Unconfirmed` when the answer to a change is lost.
        """
        for _ in range(2):
            if not self._session:
                await self._login()
            said = await self._call(f"model.{model}.{method}", [*params, {**self.context, **(context or {})}], do)
            if self._session:
                return said
        raise Unavailable("Tryton ends every session at once")

    async def _login(self) -> None:
        """A session, since a password takes long to verify."""
        user, password = self._config.login
        number, token, *_ = await self._call("common.db.login", [user, {"password": password}, "en"])
        self._session = b64encode(f"{user}:{number}:{token}".encode()).decode()
        self.context = await self._call("model.res.user.get_preferences", [True, {}]) or {}

    async def _call(self, method: str, params: list[Any], do: bool = False) -> Any:
        """The result; nothing, and no session any more, when that has ended."""
        lost = Unconfirmed if do else Unavailable
        headers, accept = ({"Authorization": f"Session {self._session}"}, (401, 404)) if self._session else ({}, (404,))
        body = {"id": 0, "method": method, "params": params}
        try:
            reply = await self._http.request("POST", self._path, json=body, headers=headers, accept=accept)
        except Unconfirmed as error:
            raise lost(str(error)) from None
        if reply.status == 401:
            self._session = ""
            return None
        said = reply.json()
        if "result" in said:
            return said["result"]
        raise _meaning(said.get("error")) or lost(f"Tryton answered {reply.status}, and nothing that makes sense")


def _meaning(error: Any) -> Exception | None:
    """What an error is for a delivery: [kind, its arguments] for people, [reason, traceback] of a mistake."""
    kind, why = error[:2] if isinstance(error, list) and len(error) > 1 else ("", "")
    if kind == "ConcurrencyException":
        return Conflict(str(why))
    if kind in ("UserError", "UserWarning"):
        said = " ".join(filter(None, why[kind == "UserWarning" :][:2]))
        return Rejected(one_line(_MARK.sub("", said))[:500])  # a mark that it quotes is nothing for people
    return Deferred(f"Tryton failed: {one_line(str(kind))[:300]}") if kind else None


def stamp_of(moment: Mapping[str, int] | None) -> str:
    """A time as text that sorts as the times do."""
    return datetime(*(moment[part] for part in _PARTS) if moment else (1970, 1, 1)).isoformat(timespec="microseconds")


def moment_of(stamp: str) -> dict[str, Any]:
    """Back to what Tryton takes."""
    at = datetime.fromisoformat(stamp)
    return {"__class__": "datetime", **{part: getattr(at, part) for part in _PARTS}}


def just_before(stamp: str) -> dict[str, Any]:
    """The moment before that time, as Tryton takes it."""
    return moment_of((datetime.fromisoformat(stamp) - timedelta(microseconds=1)).isoformat())
