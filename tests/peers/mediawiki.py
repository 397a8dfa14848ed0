"""A real MediaWiki on loopback: the Debian package on SQLite behind PHP's own web server, seeded once and copied.

The system's own wiki is neither used nor changed; only its program is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.peers import Child, free_port
from tests.peers.server import Seed, Server

PROGRAM = Path("/usr/share/mediawiki")
PRESENT = str(PROGRAM / "extensions-core/ReplaceText/maintenance/replaceAll.php")  # of few that are executable
BRIDGE, CLERK = "Bridge@passerelle", "Clerk@passerelle"  # bot passwords: one that may write, one that may only read
PEOPLE = ("Alice", "Bob", "Admin")
SPACE, OTHER = "Deals", "Laboratory"  # namespaces of their own
SETTINGS = """<?php
$wgServer = getenv('WIKI_ORIGIN') ?: 'http://127.0.0.1'; $wgScriptPath = ''; $wgSitename = 'Wiki';
$wgCapitalLinks = false; $wgLanguageCode = 'en'; $wgArticlePath = '/wiki/$1'; $wgUsePathInfo = true;
$wgDBtype = 'sqlite'; $wgDBname = 'wiki'; $wgSQLiteDataDir = __DIR__ . '/db';
$wgDBservers = [ [ 'type' => 'sqlite', 'dbname' => 'wiki', 'dbDirectory' => $wgSQLiteDataDir, 'tablePrefix' => '',
  'variables' => [ 'synchronous' => 'OFF' ], 'load' => 1, 'flags' => DBO_DEFAULT ] ];
$wgCacheDirectory = __DIR__ . '/cache'; $wgLocalisationCacheConf['store'] = 'array';
$wgLocalisationCacheConf['manualRecache'] = is_dir( __DIR__ . '/cache' );
// A database of its own: else what waits for a session waits for whoever writes a page.
$wgObjectCaches[CACHE_DB] = [ 'class' => SqlBagOStuff::class, 'server' => [ 'type' => 'sqlite', 'dbname' => 'wikicache',
  'tablePrefix' => '', 'variables' => [ 'synchronous' => 'OFF' ], 'dbDirectory' => $wgSQLiteDataDir,
  'trxMode' => 'IMMEDIATE', 'flags' => 0 ] ];
$wgMainCacheType = CACHE_NONE; $wgSessionCacheType = CACHE_DB; $wgSecretKey = str_repeat( '0', 64 );
$wgExtraNamespaces += [ 3000 => 'Deals', 3001 => 'Deals_talk', 3002 => 'Laboratory', 3003 => 'Laboratory_talk' ];
foreach ( [ 'read', 'edit', 'createaccount' ] as $right ) $wgGroupPermissions['*'][$right] = false;
$wgGroupPermissions['user']['move'] = true; $wgRateLimits = []; $wgPasswordAttemptThrottle = [];
$wgPasswordConfig['pbkdf2']['cost'] = 1; $wgEnableEmail = false; $wgPingback = false; $wgJobRunRate = 0;
$wgReadOnlyFile = __DIR__ . '/readonly'; $wgDiff3 = '/usr/bin/diff3'; $wgUseInstantCommons = false;
"""
PHP = ("-d", "opcache.enable=1", "-d", "opcache.memory_consumption=96", "-d", "opcache.validate_timestamps=0")
GRANTS = {"Bridge": "basic,editpage,createeditmovepage,highvolume", "Clerk": "basic"}
Answer = dict[str, Any]


class Refused(Exception):
    """It answered with an error."""

    def __init__(self, error: Answer) -> None:
        super().__init__(f"{error.get('code')}: {error.get('info')}")
        self.code = error.get("code")


class MediaWiki(Server):
    """A wiki, and people who write there."""

    door = "/api.php?format=json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mediawiki"
        self.port = free_port()
        self.origin = self.url = f"http://127.0.0.1:{self.port}"
        command = ["php", *PHP, "-S", f"127.0.0.1:{self.port}", "-t", str(PROGRAM)]
        # Without workers PHP's server is one process, which a request that never ends would hold up.
        environment = _environment(self.folder) | {"WIKI_ORIGIN": self.origin, "PHP_CLI_SERVER_WORKERS": "2"}
        self.child = Child(command, PROGRAM, folder / "mediawiki.log", environment)
        self._logins: dict[str, tuple[dict[str, str], str]] = {}  # cookies and token by user

    def prepare(self) -> None:
        PLANTED.copy(self.folder)

    async def stop(self) -> None:
        self.child.kill()

    def password(self, user: str) -> str:
        name, _, app = user.partition("@")
        return hashlib.md5(name.encode()).hexdigest() if app else f"{name}-pass-1234"

    @contextlib.contextmanager
    def read_only(self, reason: str) -> Iterator[None]:
        """Nothing can be written."""
        file = self.folder / "readonly"
        file.write_text(reason)
        try:
            yield
        finally:
            file.unlink()

    def forget(self) -> None:
        """Everybody must log in again."""
        self._logins.clear()

    # --- people at work

    async def edit(self, title: str, text: str, by: str = "Alice", **more: Any) -> Answer:
        """Somebody writes a page anew, or with `section`, `appendtext` … a part of it; returns what the wiki says."""
        what = {"appendtext": text} if more.pop("append", False) else {"text": text}
        return dict((await self.act(by, "edit", title=title, **what, **more))["edit"])

    async def talk(self, page: str, text: str, by: str = "Alice", heading: str = "", signed: bool = True) -> Answer:
        """Somebody adds a comment to its talk page, under a heading of its own or at the end."""
        words = f"{text} ~~~~" if signed else text
        place = {"section": "new", "sectiontitle": heading} if heading else {"append": True}
        return await self.edit(talk_of(page), words if heading else f"\n\n:{words}", by, **place)

    async def text(self, title: str) -> str:
        """How the page stands now; "" when there is none."""
        found = await self.ask("Admin", "query", titles=title, prop="revisions", rvprop="content", rvslots="main")
        page = found["query"]["pages"][0]
        return str(page["revisions"][0]["slots"]["main"]["content"]) if "revisions" in page else ""

    async def history(self, title: str) -> list[Answer]:
        """Its revisions, the newest first: revid, user, comment."""
        found = await self.ask("Admin", "query", titles=title, prop="revisions", rvprop="ids|user|comment", rvlimit=50)
        return list(found["query"]["pages"][0].get("revisions", ()))

    async def titles(self, space: int) -> list[str]:
        found = await self.ask("Admin", "query", list="allpages", apnamespace=space, aplimit="max")
        return [page["title"] for page in found["query"]["allpages"]]

    async def ask(self, by: str, action: str, **what: Any) -> Answer:
        """Ask its API as this user, logged in once. Raises `Refused`."""
        if by not in self._logins:
            await self._log_in(by)
        return await self._call(self._logins[by][0], action=action, **what)

    async def act(self, by: str, action: str, **what: Any) -> Answer:
        """The same with a token."""
        if by not in self._logins:
            await self._log_in(by)
        return await self.ask(by, action, token=self._logins[by][1], **what)

    async def _log_in(self, user: str) -> None:
        cookies: dict[str, str] = {}
        found = await self._call(cookies, action="query", meta="tokens", type="login")
        token = found["query"]["tokens"]["logintoken"]
        said = await self._call(cookies, action="login", lgname=user, lgpassword=self.password(user), lgtoken=token)
        assert said["login"]["result"] == "Success", said
        found = await self._call(cookies, action="query", meta="tokens")
        self._logins[user] = cookies, found["query"]["tokens"]["csrftoken"]

    async def _call(self, cookies: dict[str, str], **what: Any) -> Answer:
        """One POST; the cookies it sets are put among `cookies`."""
        form = {"format": "json", "formatversion": "2", **{name: str(value) for name, value in what.items()}}
        async with (
            aiohttp.ClientSession(cookies=cookies) as http,
            http.post(f"{self.url}/api.php", data=form) as answer,
        ):
            said = await answer.json(content_type=None)
            cookies |= {name: morsel.value for name, morsel in answer.cookies.items()}
        if "error" in said:
            raise Refused(said["error"])
        return dict(said)


def talk_of(page: str) -> str:
    space, _, rest = page.rpartition(":")
    return f"{space} talk:{rest}" if space else f"Talk:{rest}"


def _plant(home: Path) -> None:
    (home / "db").mkdir(parents=True)
    admin = "Admin-pass-1234"
    _php(
        home, "install", "--confpath", str(home), "--dbtype", "sqlite", "--dbname", "wiki", "--dbpath", f"{home}/db",
        "--scriptpath", "", "--server", "http://127.0.0.1", "--lang", "en", "--pass", admin, "Wiki", "Admin",
    )  # fmt: skip
    (home / "LocalSettings.php").write_text(SETTINGS)
    _php(home, "rebuildLocalisationCache", "--lang", "en", "--skip-message-purge")
    for user in ("Alice", "Bob", *GRANTS):
        _php(home, "createAndPromote", user, f"{user}-pass-1234")
    for user, grants in GRANTS.items():
        token = hashlib.md5(user.encode()).hexdigest()
        _php(home, "createBotPassword", "--appid", "passerelle", "--grants", grants, user, token)


def _php(home: Path, script: str, *arguments: str) -> None:
    command = ["php", str(PROGRAM / "maintenance" / f"{script}.php"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "MW_CONFIG_FILE"}
    environment |= _environment(home) if script != "install" else {}
    said = subprocess.run(command, cwd=PROGRAM, env=environment, capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(f"MediaWiki could not be seeded ({script}):\n{said.stdout}{said.stderr}")


def _environment(home: Path) -> dict[str, str]:
    return {"MW_CONFIG_FILE": str(home / "LocalSettings.php")}


PLANTED = Seed("mediawiki", (SETTINGS, PEOPLE, GRANTS), _plant)
