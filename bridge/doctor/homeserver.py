"""The homeserver as the bridge needs it: it answers, knows our tokens and names, does not slow us down, reaches us."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from bridge.config import Config
from bridge.doctor.door import Door
from bridge.doctor.line import Line, note, ok, reason, trouble
from bridge.matrix.client import DEVICE
from bridge.text.plain import spoken

SKEW = 30.0  # seconds that the clocks may differ
PUBLIC = "_matrix/client/versions"
BURST = 14  # requests at once, more than Synapse lets an ordinary user make
_RESTART = "and restart the homeserver: it reads registrations only when it starts"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the homeserver; status 0: there was none, and `error` says why."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    error: str = ""

    @property
    def code(self) -> str:
        return str(self.body.get("errcode", ""))

    @property
    def why(self) -> str:
        """Status, code and the homeserver's own words."""
        words = (str(self.status or ""), self.code, str(self.body.get("error", "")) or self.error)
        return " ".join(filter(None, words))


class Asked:
    """The client-server API with our as_token (but for `PUBLIC`), by default as the bot."""

    def __init__(self, session: aiohttp.ClientSession, config: Config) -> None:
        self._session = session
        self._url = config.homeserver.url
        self._token = config.appservice.as_token.get_secret_value()
        self.bot = config.bot_mxid

    async def __call__(self, method: str, path: str, who: str | None = None, **query: str) -> Said:
        """`path` is encoded already; `who` "" is the application service itself. Never raises for a bad answer."""
        who = self.bot if who is None else who
        params = query | ({"user_id": who} if who else {})
        headers = {} if path == PUBLIC else {"Authorization": f"Bearer {self._token}"}  # or a wrong one is refused
        body: Any = {} if method == "POST" else None
        try:
            async with self._session.request(
                method, f"{self._url}/{path}", params=params, headers=headers, json=body
            ) as answer:
                found = await answer.json(content_type=None)
                date = answer.headers.get("Date", "")
                return Said(answer.status, found if isinstance(found, dict) else {}, date)
        except TimeoutError:
            return Said(0, error="it takes too long")
        except ValueError:
            return Said(0, error="what answers there does not speak JSON")
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "")
            return Said(0, error=f"its certificate is not valid ({why}): see `homeserver.ca_file`")
        except aiohttp.ClientConnectorError as error:
            return Said(0, error=reason(error.os_error))
        except aiohttp.ClientError as error:
            return Said(0, error=type(error).__name__)


class Homeserver:
    """After `check`: whether the homeserver `speaks` to us, and whether the bot is `known` there."""

    def __init__(self, config: Config, ask: Asked, door: Door) -> None:
        self._config = config
        self._ask = ask
        self._door = door
        self.speaks = False
        self.known = False

    async def check(self) -> list[Line]:
        said = await self._ask("GET", PUBLIC, "")
        url = self._config.homeserver.url
        if said.status != 200 or not isinstance(said.body.get("versions"), list):
            what = f"{url} is not answered by a homeserver: {said.why}"
            return [trouble("homeserver", what, f"see `homeserver.url`; try: curl {url}/{PUBLIC}")]
        newest = str((said.body["versions"] or ["?"])[-1])
        lines = [ok("homeserver", f"{url} answers (Matrix {newest})"), self._clock(said.date)]
        refused = await self._token()
        lines.append(refused or ok("registration", "the homeserver accepts our as_token"))
        if not refused:
            self.speaks = True
            lines += [line for part in await asyncio.gather(self._names(), self._ping()) for line in part]
        return lines

    def _clock(self, date: str) -> Line:
        try:
            theirs = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return note("clock", "the homeserver does not tell its time")
        skew = time.time() - theirs
        if abs(skew) > SKEW:
            what = f"this host's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the homeserver's"
            return trouble("clock", what, "set both by NTP (timedatectl set-ntp true): times decide what is still held")
        return ok("clock", "agrees with the homeserver's")

    # --- who we are to it

    async def _token(self) -> Line | None:
        """Trouble with the token itself, if any."""
        said = await self._ask("GET", "_matrix/client/v3/account/whoami", "")
        if said.status in (401, 403):
            what = f"the homeserver does not know our as_token: {said.why}"
            remedy = "name the registration file in its configuration, with the same token as `appservice.as_token`,"
            return trouble("registration", what, f"{remedy} {_RESTART}")
        if said.status != 200:
            return trouble("registration", f"the homeserver does not say who we are: {said.why}", "see its log")
        mxid = str(said.body.get("user_id", ""))
        server = self._config.homeserver.server_name
        if mxid.partition(":")[2] != server:
            theirs = mxid.partition(":")[2]
            return trouble("registration", f"its server_name is {theirs}, not {server}", "see `homeserver.server_name`")
        if mxid == self._config.bot_mxid:
            remedy = f"give the registration another sender_localpart, such as _{self._config.appservice.bot},"
            return trouble("registration", "the bot is the sender_localpart user", f"{remedy} {_RESTART}")
        return None

    async def _names(self) -> list[Line]:
        """The bot's and the ghosts' names, what the bot may, and how fast."""
        config = self._config
        ghost = f"{config.ghost_prefix}doctor:{config.homeserver.server_name}"
        bot, ghosts = await asyncio.gather(*(self._who(mxid) for mxid in (config.bot_mxid, ghost)))
        foreign = [what for what, said in (("the bot", bot), ("ghosts", ghosts)) if not _is_ours(said)]
        if foreign:
            prefix, server = config.appservice.ghosts, config.homeserver.server_name.replace(".", r"\.")
            wanted = f"@{config.appservice.bot}:{server} and @{prefix}.*:{server}"
            what = f"the registration does not give us the names of {' and '.join(foreign)}"
            return [trouble("registration", what, f"its namespaces.users must have {wanted}; mend it, {_RESTART}")]
        names = ok("registration", f"gives us {config.bot_mxid} and {config.ghost_prefix}…")
        self.known = bot.status == 200
        if not self.known:
            return [names, note("bot", f"{config.bot_mxid} is not registered yet; the first start does that")]
        return [names, *await asyncio.gather(self._device(), self._speed(), self._size())]

    async def _who(self, mxid: str, **query: str) -> Said:
        return await self._ask("GET", "_matrix/client/v3/account/whoami", mxid, **query)

    async def _device(self) -> Line:
        device = {"device_id": DEVICE, "org.matrix.msc3202.device_id": DEVICE}
        said = await self._who(self._config.bot_mxid, **device)
        if said.status == 200:
            return ok("bot", f"{self._config.bot_mxid} is registered and has its device")
        remedy = f"io.element.msc4190: true must be in the registration; add it, {_RESTART}"
        return trouble("bot", f"{self._config.bot_mxid} has no device: {said.why}", remedy)

    async def _speed(self) -> Line:
        """Ask so often for a room that does not exist that an ordinary user would be told to wait."""
        path = f"_matrix/client/v1/rooms/!doctor:{self._config.homeserver.server_name}/hierarchy"
        said = await asyncio.gather(*(self._ask("GET", path) for _ in range(BURST)))
        if any(each.status == 429 for each in said):
            remedy = f"rate_limited: false must be in the registration (true is the default); mend it, {_RESTART}"
            return trouble("rate limits", "the homeserver slows the bridge down (429)", remedy)
        return ok("rate limits", f"none met in {BURST} requests at once")

    async def _size(self) -> Line:
        said = await self._ask("GET", "_matrix/client/v1/media/config")
        most, ours = said.body.get("m.upload.size"), self._config.max_file
        if not isinstance(most, int):
            return note("files", "the homeserver does not say how large a file it takes")
        if most < ours:
            what = f"the homeserver takes files up to {spoken(most)}, the bridge would give it {spoken(ours)}"
            return trouble("files", what, f"max_file: {most}, or raise the homeserver's max_upload_size")
        return ok("files", f"the homeserver takes files up to {spoken(most)}")

    # --- whether it reaches us

    async def _ping(self) -> list[Line]:
        """Ask it to knock at our door (Application Service API, "Pinging"). Synapse may miss it while it retries."""
        path = f"_matrix/client/v1/appservice/{self._config.appservice.id}/ping"
        for pause in (0.1, 0.3, 0.0):
            said = await self._ask("POST", path, "")
            if said.status not in (0, 502, 504) or said.body.get("status") in (401, 403):
                break
            await asyncio.sleep(pause)
        return [self._heard(said)]

    def _heard(self, said: Said) -> Line:
        service, status = self._config.appservice, said.body.get("status")
        if said.status == 200 and self._door.mine and not self._door.knocks:
            remedy = f"its `url` must lead to {service.listen} on this host; mend it, {_RESTART}"
            return trouble("ping", "something else answers where the registration's `url` leads", remedy)
        if said.status == 200:
            return ok("ping", f"the homeserver reaches us ({said.body.get('duration_ms', '?')} ms)")
        if status in (401, 403) or self._door.strangers:
            remedy = f"make hs_token the same in both files, {_RESTART}"
            return trouble("ping", "the homeserver comes with another hs_token than `appservice.hs_token`", remedy)
        if said.code == "M_URL_NOT_SET":
            return trouble("ping", "the registration has no url", f"url: http://{service.listen}; add it, {_RESTART}")
        if said.status == 403:
            remedy = "make the registration's id and `appservice.id` the same; then restart whichever you changed"
            return trouble("ping", f"the registration has another id than {service.id}: {said.why}", remedy)
        if said.status == 404:
            return note("ping", f"this homeserver cannot be asked to reach us: {said.why}")
        remedy = f"the registration's `url` must lead from the homeserver to {service.listen} here; see firewall and"
        return trouble(
            "ping", f"the homeserver cannot reach us: {said.why}", f"{remedy} containers; mend it, {_RESTART}"
        )


def _is_ours(said: Said) -> bool:
    """Whether a user is in our namespaces: it is there, or only not registered yet. Homeservers say it in words."""
    return said.status == 200 or "not registered" in str(said.body.get("error", ""))
