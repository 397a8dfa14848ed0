"""One kind of tool of each family, with a real server: how people use it, and all that it holds."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from bridge.text.plain import spoken
from plugins.alertmanager.alerts import item_of
from tests.crash.floor import PROOF, RULE, Floor
from tests.peers.alertmanager import LOGIN, RECEIVER, TOKEN
from tests.peers.alertmanager import Alertmanager as AlertmanagerPeer
from tests.peers.dav import Radicale, WsgiDav
from tests.peers.roundup import BRIDGE, NAME, Refused, Roundup
from tests.peers.tryton import DATABASE, MODEL
from tests.peers.tryton import Refused as RpcRefused
from tests.peers.tryton import Tryton as TrytonPeer

MARK = re.compile(r"\[[krts]-[a-z0-9-]+\]")  # of what a customer says, of a reply, of a new item, of a silence
AWAY = (aiohttp.ClientError, Refused, RpcRefused, OSError)  # what people see of a server that is in trouble
OURS = "passerelle."  # begins what the bridge marks its own with


@dataclass(frozen=True)
class Comment:
    """Something that is said on an item, or what is done to it in our name; in the order of the numbers."""

    number: int
    item: str
    creator: str
    mark: str
    ours: bool = False


@dataclass(frozen=True)
class There:
    """All that a tool holds: the mark in each item's title, or ""; the comments; what an item's card must say now."""

    titles: dict[str, str]
    comments: list[Comment] = field(default_factory=list)
    shows: dict[str, str] = field(default_factory=dict)

    def marks(self) -> set[str]:
        return {mark for mark in (*self.titles.values(), *(each.mark for each in self.comments)) if mark}


def mark_in(text: str | None) -> str:
    found = MARK.search(text or "")
    return found[0] if found else ""


class Family:
    """A server that people use past all faults, and the bridge through them."""

    name: ClassVar[str]  # of its connector
    scope: ClassVar[str]
    card: ClassVar[str]  # how the words of its cards begin: the item
    begins: ClassVar[str] = ""  # what makes an item of talk
    acts: ClassVar[str] = "!reply Dear customer,"  # what leaves in a thread, "" for nothing
    writes: ClassVar[Sequence[str]] = ()  # requests that may change something, as the proxy counts them
    looks: ClassVar[int] = 2  # more requests than this: the bridge has looked twice
    lasting: ClassVar[bool] = True  # killed and started again it knows what it knew
    program: ClassVar[str] = ""  # of a Debian package
    hook: str = ""  # where it calls the bridge
    server: Any

    @property
    def origin(self) -> str:
        return str(self.server.url).rstrip("/")

    def config(self, way: str) -> dict[str, Any]:
        """The connector, which reaches the server at `way`."""
        raise NotImplementedError

    async def person(self, number: int) -> str:
        """The account of a customer there, made where that is needed."""
        return ("alice", "bob")[number % 2]

    async def open(self, title: str, words: str, by: str) -> None:
        """Somebody makes an item."""
        raise NotImplementedError

    async def say(self, item: str, words: str, by: str) -> None:
        """Somebody says something on it, or else changes it."""
        raise NotImplementedError

    async def there(self) -> There:
        """Ask the tool itself."""
        raise NotImplementedError

    def open_to_talk(self, there: There) -> list[str]:
        """Items on which customers may say more, oldest first."""
        return list(there.titles)

    def takes_acts(self, title: str) -> bool:
        """Whether employees act on the item of that card."""
        return True


class Tickets(Family):
    """Issues of Roundup."""

    name, scope, card, begins = "helpdesk", "issue", r"(issue\d+): ", "!ticket"
    writes = (f"POST {NAME}", f"PATCH {NAME}")

    def __init__(self, folder: Path) -> None:
        self.server = Roundup(folder)

    @property
    def origin(self) -> str:
        return str(self.server.origin)

    def config(self, way: str) -> dict[str, Any]:
        login = {"username": BRIDGE, "password": self.server.password(BRIDGE)}
        return {"plugin": "roundup", "url": f"{way}/{NAME}/", "web": self.server.url, "every": 1, **login}

    async def person(self, number: int) -> str:
        name = f"k{number}"
        account = {"username": name, "password": self.server.password(name), "address": f"{name}@outside.example"}
        await self.server.call("POST", "user", "admin", {**account, "roles": "User"})
        return name

    async def open(self, title: str, words: str, by: str) -> None:
        await self.server.open(title, words, by=by)

    async def say(self, item: str, words: str, by: str) -> None:
        await self.server.comment(item.removeprefix("issue"), words, by=by)

    async def there(self) -> There:
        fields = {"@verbose": "3", "@page_size": "100000"}
        issues = await self.server.call("GET", "issue", "admin", params={**fields, "@fields": "title,messages"})
        found = await self.server.call("GET", "msg", "admin", params={**fields, "@fields": "content,creator.username"})
        messages = {each["id"]: each for each in found["collection"]}
        comments = [
            Comment(int(linked["id"]), f"issue{issue['id']}", who, mark_in(message["content"]), who == BRIDGE)
            for issue in issues["collection"]
            for linked in issue["messages"]
            if (message := messages[linked["id"]]) and (who := message["creator.username"])
        ]
        return There({f"issue{each['id']}": mark_in(each["title"]) for each in issues["collection"]}, comments)


class Deals(Family):
    """Opportunities of Tryton, by their ids (numbers that were given at once may be the same); all that the bridge asks
    is a POST to one address.
    """

    name, scope, begins = "crm", "opportunities", "!deal"
    card = r"opportunity#\S+: .*\n.*\n\S+/sale\.opportunity/(\d+);"
    writes, looks = (f"POST {DATABASE}",), 16

    def __init__(self, folder: Path) -> None:
        self.server = TrytonPeer(folder)

    def config(self, way: str) -> dict[str, Any]:
        login = {"username": "bridge", "password": self.server.password("bridge")}
        return {"plugin": "tryton", "url": f"{way}/", "web": self.server.url, "database": DATABASE, "every": 1, **login}

    async def open(self, title: str, words: str, by: str) -> None:
        await self.server.open(title, words, by=by)

    async def say(self, item: str, words: str, by: str) -> None:
        await self.server.chat(int(item), words, by=by)

    async def there(self) -> There:
        deals = await self.server.all("description", "comment", "reference", "create_uid.login")
        first = [
            Comment(0, str(each["id"]), each["create_uid."]["login"], mark_in(each["comment"]))
            for each in deals
            if mark_in(each["comment"]) and not (each["reference"] or "").startswith(OURS)
        ]
        fields = ["content", "channel.resource", "user.login", "create_uid.login"]
        about = [["channel.resource", "like", f"{MODEL},%"]]
        order = [["id", "ASC"]]
        chat = await self.server.call("ir.chat.message", "search_read", about, 0, None, order, fields, by="bridge")
        said = [_chatted(each) for each in chat]
        return There({str(each["id"]): mark_in(each["description"]) for each in deals}, [*first, *said])


def _chatted(row: Any) -> Comment:
    item = row["channel."]["resource"].partition(",")[2]
    who = (row["user."] or row["create_uid."])["login"]
    return Comment(row["id"], item, who, mark_in(row["content"]), f"[{OURS}" in row["content"])


class Documents(Family):
    """Files in a folder of WsgiDAV: nothing is said on them, they grow."""

    name, scope, card, begins, acts = "docs", "Deals", r"(Deals/[^:\n]+)\n", "!doc", ""
    writes = ("PUT Deals", "MOVE Deals", "PROPPATCH Deals")

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.server = WsgiDav(folder)

    def config(self, way: str) -> dict[str, Any]:
        login = {"username": "bridge", "password": self.server.password("bridge")}
        return {"plugin": "webdav", "url": f"{way}/", "every": 1, **login}

    async def open(self, title: str, words: str, by: str) -> None:
        await self.server.write(f"Deals/{title}.txt", words)

    async def say(self, item: str, words: str, by: str) -> None:
        await self.server.write(item, (self.server.files / item).read_text() + words)

    async def there(self) -> There:
        files = {f"Deals/{path.name}": path for path in sorted((self.server.files / "Deals").glob("[!.]*"))}
        titles = {name: mark_in(name) for name in files}
        return There(titles, [], {name: f"size: {spoken(path.stat().st_size)}" for name, path in files.items()})


class Machines(Family):
    """Alerts of Alertmanager, by webhook and by looking; what leaves are silences, where nothing more fires."""

    name, scope, card, acts = "machines", RECEIVER, r"(alert-[0-9a-f]{12}): ", "!silence 2h"
    writes, lasting = ("POST api",), False  # alerts are in its memory
    program = "prometheus-alertmanager"
    most = 15  # alerts of a group: of more than twenty, not each is told

    def __init__(self, folder: Path) -> None:
        self.server = AlertmanagerPeer(folder)
        self._numbers, self._kinds = itertools.count(), itertools.cycle(("Quiet", "Loud"))

    def config(self, way: str) -> dict[str, Any]:
        self.server.hook = self.hook
        login = dict(zip(("username", "password"), LOGIN, strict=True))
        receivers = {"receivers": [RECEIVER], "token": TOKEN}
        return {"plugin": "alertmanager", "url": f"{way}/", "web": self.server.url, "every": 1, **receivers, **login}

    async def open(self, title: str, words: str, by: str) -> None:
        await self._fire(f"{next(self._kinds)}: {title}", words)

    async def say(self, item: str, words: str, by: str) -> None:
        await self._fire(next(name for name, known in (await self._groups()).items() if known == item), words)

    async def _fire(self, name: str, words: str) -> None:
        await self.server.fire(name, words.replace("\n", " "), instance=f"n{next(self._numbers)}")

    async def _groups(self) -> dict[str, str]:
        names = {each["labels"]["alertname"] for each in await self.server.call("GET", "alerts")}
        return {name: _group(name) for name in sorted(names)}

    async def there(self) -> There:
        alerts = sorted(await self.server.call("GET", "alerts"), key=lambda each: str(each["startsAt"]))
        said = [
            Comment(
                number, _group(each["labels"]["alertname"]), "alertmanager", mark_in(each["annotations"]["summary"])
            )
            for number, each in enumerate(alerts)
        ]
        self._loud = {_group(name) for each in alerts if (name := each["labels"]["alertname"]).startswith("Loud")}
        done = [_silence(each) for each in await self.server.silences()]
        return There({each.item: "" for each in said}, [*said, *done])

    def open_to_talk(self, there: There) -> list[str]:
        loud = [item for item in there.titles if item in self._loud]
        return [item for item in loud if sum(each.item == item for each in there.comments) < self.most]

    def takes_acts(self, title: str) -> bool:
        return ": Quiet: " in title


def _silence(found: Any) -> Comment:
    [name] = [each["value"] for each in found["matchers"] if each["name"] == "alertname"]
    return Comment(0, _group(name), "", mark_in(found["comment"]), ours=True)


def _group(name: str) -> str:
    return item_of(RECEIVER, {"alertname": name, "service": "shop"})


class Tasks(Family):
    """Tasks of Radicale. Whose a comment is, nobody knows there."""

    name, scope, card, begins = "tasks", "ops", r"(ops/[^:\n]+\.ics): ", "!task"
    writes = ("PUT team",)

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.server = Radicale(folder)

    @property
    def origin(self) -> str:
        return str(self.server.origin)

    def config(self, way: str) -> dict[str, Any]:
        login = {"username": "bridge", "password": self.server.password("bridge")}
        return {"plugin": "caldav", "url": f"{way}/team/", "every": 1, **login}

    async def open(self, title: str, words: str, by: str) -> None:
        now, text = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), words.replace("\n", "\\n")
        name = re.sub("[^a-z0-9]", "-", title.lower())
        await self.server.write(name, f"CREATED:{now}", f"SUMMARY:{title}", f"DESCRIPTION:{text}")

    async def say(self, item: str, words: str, by: str) -> None:
        """Nobody overwrites what another has written meanwhile."""
        url, login = f"{self.origin}/team/{item}", aiohttp.encode_basic_auth(by, self.server.password(by))
        async with aiohttp.ClientSession(headers={"Authorization": login}) as http:
            while True:
                async with http.get(url) as answer:
                    answer.raise_for_status()
                    text, tag = await answer.text(), answer.headers["ETag"]
                line = f"COMMENT:{words}".replace("\n", "\\n")
                headers = {"If-Match": tag, "Content-Type": "text/calendar"}
                text = text.replace("END:VTODO", f"{line}\r\nEND:VTODO")
                async with http.put(url, data=text.encode(), headers=headers) as answer:
                    if answer.status != 412:
                        answer.raise_for_status()
                        return

    async def there(self) -> There:
        titles, comments = dict[str, str](), list[Comment]()
        for name in self.server.names():
            item, ours = f"ops/{name}", name.startswith(OURS)
            for number, line in enumerate(await self.server.lines(name.removesuffix(".ics"))):
                kind, mark = line.partition(":")[0], mark_in(line)
                if kind.startswith("SUMMARY"):
                    titles[item] = mark
                elif kind.startswith("COMMENT"):
                    comments.append(Comment(number, item, "ops", mark, "X-PASSERELLE" in kind))
                elif kind.startswith("DESCRIPTION") and not ours:
                    comments.append(Comment(0, item, "ops", mark))
        return There(titles, comments)


class Anything(Family):
    """Machines that somebody's script tells of by webhook; it is called back, each key once."""

    name, scope, card, begins = "floor", "floor", r"floor:(m\d+): ", "!hook"
    writes, looks, lasting = ("POST in",), -1, False  # it calls, and is never looked at

    def __init__(self, folder: Path) -> None:
        self.server = Floor()

    def config(self, way: str) -> dict[str, Any]:
        self.server.hook = self.hook
        known = {"version": 1, "scopes": [self.scope], "proof": PROOF, "rules": [RULE], "answer": {"item": "machine"}}
        return {"plugin": "webhook", "url": f"{way}/in", **known}

    async def open(self, title: str, words: str, by: str) -> None:
        self.server.open(title, words, by)

    async def say(self, item: str, words: str, by: str) -> None:
        self.server.say(item, words, by)

    async def there(self) -> There:
        comments = [
            Comment(number, machine, by, mark_in(words), by == "bridge")
            for number, machine, by, words in self.server.said
        ]
        return There({machine: mark_in(name) for machine, name in self.server.machines.items()}, comments)


KNOWN: Sequence[type[Family]] = (Tickets, Deals, Documents, Machines, Tasks, Anything)
FAMILIES: Sequence[Any] = [each for each in KNOWN if not each.program or shutil.which(each.program)]
ABSENT = [each.name for each in KNOWN if each not in FAMILIES]  # their Debian package is not installed
