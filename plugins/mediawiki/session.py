"""MediaWiki's action API: the session of a bot password, and what its answers mean, whose errors come as 200."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from bridge.connector import Http, Reply
from bridge.model import Rejected, Unavailable, Unconfirmed
from bridge.text import one_line

LAPSED = {"assertuserfailed", "assertnameduserfailed", "badtoken", "notloggedin"}
# About us, or about the wiki: it is the same with the next message. Any other code is about this one.
TROUBLE = {
    "readonly", "maxlag", "ratelimited", "permissiondenied", "readapidenied", "writeapidenied", "blocked",
    "autoblocked", "unknown_action",
}  # fmt: skip
_COOKIE = re.compile(r"(?:^|, )([^=;,\s]+)=([^;,]*)")  # several Set-Cookie in one line


class Refused(Rejected):
    """The wiki says no, by a code: editconflict, articleexists, protectedpage …"""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.code = code


class Session:
    """`login` is a bot password's: Name@application and the password."""

    def __init__(self, name: str, http: Http, login: tuple[str, str]) -> None:
        self._name, self._http, self._login = name, http, login
        self._cookies: dict[str, str] = {}
        self._token, self._entering = "", asyncio.Lock()
        self.account = ""  # once logged in

    async def query(self, what: Mapping[str, str], *, long: bool = False) -> Any:
        """What action=query answers, as a whole; `long`: the question does not fit into an address."""
        said = await self._asked({"action": "query", **what}, "POST" if long else "GET")
        part(said, "query" if "query" in said else "batchcomplete")  # where there is nothing to tell
        return {"query": {}, **said}

    async def html(self, wikitext: str, title: str) -> str:
        """How that text looks on the page of that title."""
        what = {"action": "parse", "text": wikitext, "title": title, "contentmodel": "wikitext", "prop": "text"}
        plain = {"disablelimitreport": "1", "disableeditsection": "1", "disabletoc": "1"}
        return str(part(await self._asked(what | plain, "POST"), "parse", "text"))

    async def edit(self, what: Mapping[str, str]) -> Any:
        """What action=edit answers when it is done (newrevid, pageid, title …). Raises `Refused`."""
        reply = await self._asked({"action": "edit", **what}, "POST", changes=True)
        said = reply.get("edit", {}) if isinstance(reply, dict) else {}
        if said.get("result") != "Success":
            if "captcha" in said:
                raise Unavailable(f"{self._name} wants a captcha solved: give its account the right skipcaptcha")
            raise Refused(f"{self._name} does not take it: {said.get('info') or said.get('code') or 'no reason'}", "")
        return said

    async def _asked(self, what: Mapping[str, str], method: str, *, changes: bool = False) -> Any:
        """Logged in as ourselves, and once again when the session has ended meanwhile."""
        for last in (False, True):
            token = await self._entered()
            proof = {"token": token} if changes else {}
            try:
                return await self._call({"assert": "user", "maxlag": "5", **what, **proof}, method, changes)
            except Refused as error:
                if error.code not in LAPSED or last:
                    raise Unavailable(str(error)) if error.code in LAPSED else error from None
                self._token = "" if self._token == token else self._token
        raise AssertionError

    async def _entered(self) -> str:
        """The token of our session, begun if there is none."""
        async with self._entering:
            if not self._token:
                self._cookies.clear()
                found = await self._call({"action": "query", "meta": "tokens", "type": "login"}, "GET")
                proof = {"lgtoken": part(found, "query", "tokens", "logintoken"), "lgpassword": self._login[1]}
                said = part(await self._call({"action": "login", "lgname": self._login[0], **proof}, "POST"), "login")
                if said.get("result") != "Success":
                    reason = said.get("reason") or said.get("result")
                    raise Unavailable(f"{self._name} does not let {self._login[0]} in: {reason}"[:500])
                self.account = part(said, "lgusername")
                found = await self._call({"action": "query", "meta": "tokens"}, "GET")
                self._token = part(found, "query", "tokens", "csrftoken")
            return self._token

    async def _call(self, what: Mapping[str, str], method: str, changes: bool = False) -> Any:
        """One request, and what it means. Unless it changes something, nothing is different when it fails."""
        form = {"format": "json", "formatversion": "2", **what}
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        body = urlencode(form, errors="replace").encode() if method == "POST" else None
        headers |= {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        try:
            query = None if body else form
            reply = await self._http.request(method, "api.php", query=query, body=body, headers=headers, accept=(404,))
            if reply.status == 404:  # the wiki itself says all that it has to say with 200
                raise Unavailable(f"{self._name} has no api.php at its url (404)")
            return self._read(reply)
        except Unconfirmed as error:
            if changes:
                raise
            raise Unavailable(str(error)) from None

    def _read(self, reply: Reply) -> Any:
        """What it says. Raises what its error means, `Unconfirmed` when nobody can tell."""
        found = _COOKIE.findall(reply.headers.get("set-cookie", ""))
        self._cookies |= {name: value for name, value in found if value != "deleted"}
        try:
            said = reply.json()
        except Unavailable as strange:
            raise Unconfirmed(str(strange)) from None
        error = said.get("error") if isinstance(said, dict) else {}
        if error is None:
            return said
        code, reason = (error.get("code"), reply.reason) if isinstance(error, dict) else (None, "")
        if not isinstance(code, str) or not code or code.startswith("internal_api_error"):
            raise Unconfirmed(f"{self._name} fails: {reason or 'it does not say why'}")
        if code in TROUBLE:
            wait = reply.headers.get("retry-after", "")
            seconds = float(wait) if wait.isdecimal() else None
            why = one_line(f"{reason or code} {error.get('readonlyreason') or ''}")[:500]
            raise Unavailable(f"{self._name} takes nothing now: {why}", seconds)
        raise Refused(reason or code, code)


def part(said: Any, *names: str) -> Any:
    """What an answer has by these names, one in the other. Raises `Unavailable` when it has not."""
    for name in names:
        if not isinstance(said, dict) or name not in said:
            raise Unavailable(f"the wiki's answer has no {name}")
        said = said[name]
    return said
