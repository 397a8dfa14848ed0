"""The kit itself: a plugin with one fault fails just the checks that are about it. The sound one is the guide's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import importlib.util
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ConfigDict, Field

from bridge import http
from bridge.connector import Connector, ConnectorConfig
from bridge.model import Author, Envelope, Page, Rejected, Sent, Unavailable
from bridge.store import new_uid
from bridge.testing import Contract, Office, Tool
from bridge.testing.faults import free_port
from tests.peers import ROOT

GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
PATIENCE = 2.5
AT_ONCE = 6
SHARE = 4  # each fault meets the checks that are about it, and one in so many of the others: all together meet them all


def written(folder: Path) -> Any:
    """The guide's modules."""
    for kind, name, text in re.findall(r"^```(\w*) (\S+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}" if kind == "python" else text)
    for name in ("jobs", "passerelle_jobs", "test_jobs"):
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules["test_jobs"]


HOME = tempfile.TemporaryDirectory(prefix="guide-")  # removed when Python ends
FOLDER = Path(HOME.name)
guide = written(FOLDER)
Jobs: Any = guide.Jobs
JobsTool: Any = guide.JobsTool


# --- plugins that have one fault


class Forgettable(Jobs):
    """It looks at no signature."""

    def parse(self, request: Any) -> Any:
        return self.envelopes(plugin().read(plugin().Event, request.body, Rejected))


class AsciiOnly(Jobs):
    """A signature that is no ASCII breaks it."""

    def parse(self, request: Any) -> Any:
        secret = self.config.secret.get_secret_value().encode()
        given = request.headers.get("x-jobs-signature", "")
        if not hmac.compare_digest(given, hmac.new(secret, request.body, hashlib.sha256).hexdigest()):
            raise Rejected("forged")
        return self.envelopes(plugin().read(plugin().Event, request.body, Rejected))


class Hooked(Jobs):
    """It takes webhooks only."""

    poll = Connector.poll


class Polled(Jobs):
    """It polls only."""

    parse = Connector.parse


class Fickle(Hooked):
    """The same webhook has another key each time."""

    def envelopes(self, event: Any) -> Any:
        return [replace(each, key=new_uid()) for each in super().envelopes(event)]


class Wavering(Polled):
    """The same polled event has another key each time."""

    def envelopes(self, event: Any) -> Any:
        return [replace(each, key=new_uid()) for each in super().envelopes(event)]


class Hasty(Jobs):
    """An event happened when we heard of it."""

    def envelopes(self, event: Any) -> Any:
        return [replace(each, when=time.time()) for each in super().envelopes(event)]


class Strict(Jobs):
    """An unknown event is refused."""

    def envelopes(self, event: Any) -> Any:
        if event.type == "backup-made":
            raise Rejected("what is that?")
        return super().envelopes(event)


class Brittle(Jobs):
    """What makes no sense is an exception of the language."""

    def parse(self, request: Any) -> Any:
        return super().parse(request) if json.loads(request.body)["type"] else []


class Ponderous(Jobs):
    """It takes its time over a large body."""

    def parse(self, request: Any) -> Any:
        time.sleep(3 if len(request.body) > 2**20 else 0)
        return super().parse(request)


class Echoing(Jobs):
    """It takes its own work for news."""

    def envelopes(self, event: Any) -> Any:
        return super().envelopes(event.model_copy(update={"by": "somebody"}))


class Nameless(Jobs):
    """It shows what people say as nobody's."""

    def envelopes(self, event: Any) -> Any:
        return [replace(each, author=Author(self.name, "")) for each in super().envelopes(event)]


class Indiscreet(Jobs):
    """It knows no private notes."""

    def envelopes(self, event: Any) -> Any:
        return [replace(each, private=False) for each in super().envelopes(event)]


class Discreet(Jobs):
    """It leaves private notes out for everybody."""

    def envelopes(self, event: Any) -> Any:
        return [each for each in super().envelopes(event) if not each.private]


class Archivist(Jobs):
    """The first poll brings everything that ever was."""

    async def poll(self, cursor: str) -> Any:
        return await super().poll(cursor or "0")


class Forgetful(Jobs):
    """It begins anew at each start."""

    async def poll(self, cursor: str) -> Any:
        self.begun = getattr(self, "begun", False)
        page, self.begun = await super().poll(cursor if self.begun else ""), True
        return page


class Carefree(Jobs):
    """A poll that fails has brought nothing."""

    async def poll(self, cursor: str) -> Any:
        try:
            return await super().poll(cursor)
        except Unavailable:
            return Page((), cursor)


class Once(Jobs):
    """It remembers in memory what it has polled."""

    async def poll(self, cursor: str) -> Any:
        page = await super().poll(cursor)
        self.known = getattr(self, "known", set())
        news = tuple(each for each in page.envelopes if each.key not in self.known)
        self.known |= {each.key for each in news}
        return replace(page, envelopes=news)


class Repeating(Jobs):
    """It never looks for what it has sent."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        return await super().send(replace(delivery, attempts=1), draft)


class Remembering(Jobs):
    """It looks only into its own memory."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        self.sent = getattr(self, "sent", set())
        if delivery.uid in self.sent:
            return Sent(delivery.uid)
        self.sent.add(delivery.uid)
        return await super().send(replace(delivery, attempts=1), draft)


class Doubling(Jobs):
    """It says everything twice."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        await super().send(replace(delivery, uid=new_uid(), attempts=1), draft)
        return await super().send(delivery, draft)


class Believing(Jobs):
    """A 200 is a yes."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        job = await self.ask(plugin().Job, "GET", self.path(draft.remote)) if delivery.attempts > 1 else None
        if job is None or not any(note.ref == delivery.uid for note in job.notes):
            await self.http.request("POST", f"{self.path(draft.remote)}/notes", form=self.form(delivery, draft))
        return Sent(delivery.uid)


class Timid(Jobs):
    """Whatever goes wrong is for good."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        try:
            return await super().send(delivery, draft)
        except Exception as error:
            raise Rejected(str(error)) from None


class Stubborn(Jobs):
    """Nothing is ever for good."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        try:
            return await super().send(delivery, draft)
        except Rejected as error:
            raise Unavailable(str(error)) from None


class Impatient(Jobs):
    """It does not pass on when to come again."""

    async def send(self, delivery: Any, draft: Any) -> Any:
        try:
            return await super().send(delivery, draft)
        except Unavailable as error:
            raise Unavailable(str(error)) from None


class Mute(Jobs):
    """It deletes without a word, and does not say so."""

    silent = False


class Thrifty(Jobs):
    """It leaves files out."""

    def form(self, delivery: Any, draft: Any) -> Any:
        return super().form(delivery, replace(draft, files=()))


class Fertile(Jobs):
    """It never looks for what it has made."""

    async def create(self, delivery: Any, draft: Any) -> Any:
        return await super().create(replace(delivery, attempts=1), draft)


class Gullible(Jobs):
    """A 200 is a new item."""

    async def create(self, delivery: Any, draft: Any) -> Any:
        try:
            return await super().create(delivery, draft)
        except plugin().Unconfirmed:
            return Sent(delivery.uid)


class Blurred(Jobs):
    """It does not know its items by their address."""

    def match(self, text: str) -> Any:
        return super().match("" if "://" in text else text)


class Inventive(Jobs):
    """There is every item."""

    async def fetch(self, item: str) -> Any:
        try:
            return await super().fetch(item)
        except Rejected:
            return plugin().Card(item, item, "?")


class Cold(Jobs):
    """An item that cannot be seen now is none."""

    async def fetch(self, item: str) -> Any:
        try:
            return await super().fetch(item)
        except Unavailable as error:
            raise Rejected(str(error)) from None


class Blank(Jobs):
    """What people change shows on no card."""

    def envelopes(self, event: Any) -> Any:
        return [replace(each, card=None) if event.type == "set" else each for each in super().envelopes(event)]


class Nosy(Jobs):
    """It looks for words in every queue."""

    async def find(self, words: Any, scopes: Any) -> Any:
        return await super().find(words, ["repairs"])


class Fluent(Jobs):
    """A word can be a query."""

    async def find(self, words: Any, scopes: Any) -> Any:
        found = [await super(Fluent, self).find(each, scopes) for each in re.split(r"OR|\|", words)]
        return [card for cards in found for card in cards]


class Vague(Jobs):
    """Trouble is nothing found."""

    async def find(self, words: Any, scopes: Any) -> Any:
        try:
            return await super().find(words, scopes)
        except (Unavailable, plugin().Deferred):
            return []


class Blabbing(Jobs):
    """What is found is for everybody."""

    async def find(self, words: Any, scopes: Any) -> Any:
        return [replace(card, private=False) for card in await super().find(words, scopes)]


class Borderless(Jobs):
    """All is one scope."""

    def card(self, job: Any) -> Any:
        return replace(super().card(job), scope="")


class Frank(Jobs):
    """No item is private."""

    def card(self, job: Any) -> Any:
        return replace(super().card(job), private=False)


class Prudish(Jobs):
    """A private item is refused to everybody."""

    async def fetch(self, item: str) -> Any:
        card = await super().fetch(item)
        if card.private:
            raise Rejected("that is private")
        return card


class Eternal(Jobs):
    """What is gone may be refused for other reasons."""

    async def ask(self, *args: Any, **what: Any) -> Any:
        try:
            return await super().ask(*args, **what)
        except plugin().Gone as error:
            raise Rejected(str(error)) from None


class Credulous(Jobs):
    """Whoever says 404 is the tool."""

    async def ask(self, kind: Any, method: str, path: str, **what: Any) -> Any:
        reply = await self.http.request(method, path, accept=(404,), **what)
        if reply.status == 404:
            raise plugin().Gone("there is no such job")
        return plugin().read(kind, reply.body, Unavailable if method == "GET" else plugin().Unconfirmed)


class Lying(Jobs):
    """A change is done when it was asked for."""

    async def change(self, change: Any) -> Any:
        before = await self.fetch(change.item)
        with contextlib.suppress(Unavailable, plugin().Unconfirmed):
            return await super().change(change)
        return before


class Toggling(Jobs):
    """Asking twice undoes it."""

    async def change(self, change: Any) -> Any:
        card = await self.fetch(change.item)
        if change.value in ("open", "done") and dict(card.fields)["state"] == change.value:
            change = replace(change, value="open" if change.value == "done" else "done")
        return await super().change(change)


class Obedient(Jobs):
    """A word that makes no sense is taken for done."""

    async def change(self, change: Any) -> Any:
        with contextlib.suppress(Rejected):
            return await super().change(change)
        return await self.fetch(change.item)


class Worried(Jobs):
    """Something is always wrong."""

    async def check(self) -> Any:
        return [*await super().check(), plugin().Finding(False, "hm", "do something")]


class Content(Jobs):
    """All is always well."""

    async def check(self) -> Any:
        return [plugin().Finding(True, "fine")]


class Silent(Jobs):
    """A key that nobody explains."""

    class Config(guide.Jobs.Config):
        queues: tuple[str, ...]


class Unwritten(Jobs):
    """A key that is on no page."""

    class Config(guide.Jobs.Config):
        hidden_key: str = Field("", description="What it is for")


class Open(Jobs):
    """A secret that shows."""

    class Config(guide.Jobs.Config):
        token: str = Field(description="Its token")

    def __init__(self, name: str, config: Any, port: Any) -> None:
        told = SimpleNamespace(get_secret_value=lambda: config.token)
        super().__init__(name, config.model_copy(update={"token": told}), port)


class Homeless(Jobs):
    """It does not know what it has."""

    async def offers(self) -> Any:
        return ["elsewhere"]


class Choosy(Jobs):
    """It promises what nobody can choose by."""

    filters = {"state": "open or done", "colour": "which"}  # noqa: RUF012


class Loose(Jobs):
    """A key that does not exist is no mistake."""

    class Config(guide.Jobs.Config):
        model_config = ConfigDict(extra="ignore")


FAULTS: dict[Any, set[str]] = {
    Forgettable: {"a_forged_webhook_is_refused"},
    Mute: {"what_is_deleted_is_noticed_although_nobody_asks"},
    AsciiOnly: {"a_forged_webhook_is_refused"},
    Fickle: {"a_webhook_that_comes_again_shows_nothing_twice"},
    Wavering: {"a_page_that_comes_again_shows_nothing_twice"},
    Hasty: {"webhooks_in_any_order_show_everything_once_and_the_newest_state"},
    Strict: {"an_unknown_event_is_acknowledged_and_shows_nothing"},
    Brittle: {"a_webhook_that_makes_no_sense_breaks_nothing"},
    Ponderous: {"a_huge_webhook_is_taken_or_refused_quickly"},
    Echoing: {"our_own_words_do_not_come_back", "a_file_that_an_employee_sends_is_there_once_and_whole"},
    Nameless: {"what_people_say_appears_once_in_order_and_in_their_name"},
    Indiscreet: {"a_private_note_stays_private"},
    Discreet: {"a_private_note_reaches_a_room_that_may_see_it"},
    Archivist: {"the_first_poll_only_says_where_to_begin"},
    Forgetful: {"what_is_said_while_the_bridge_is_down_appears_once"},
    Carefree: {"polling_waits_out_trouble"},
    Once: {"a_page_that_comes_again_shows_nothing_twice"},
    Repeating: {"a_message_in_doubt_is_not_sent_twice", "what_is_sent_in_trouble_arrives_once"},
    Remembering: {
        "a_message_in_doubt_is_not_sent_twice", "what_is_sent_in_trouble_arrives_once",
        "nothing_that_leaves_is_lost_while_a_proxy_answers_404",
    },
    Doubling: {
        "what_an_employee_sends_reaches_the_item_once", "our_own_words_do_not_come_back",
        "a_message_in_doubt_is_not_sent_twice", "what_is_sent_in_trouble_arrives_once",
        "a_refusal_is_told_and_the_next_message_goes", "a_file_that_an_employee_sends_is_there_once_and_whole",
        "nothing_that_leaves_is_lost_while_a_proxy_answers_404",
    },
    Believing: {
        "what_is_sent_in_trouble_arrives_once", "what_is_sent_to_an_item_that_was_deleted_is_not_sent_and_told",
        "nothing_that_leaves_is_lost_while_a_proxy_answers_404",
    },
    Timid: {
        "what_is_sent_in_trouble_arrives_once", "what_is_sent_to_an_item_that_was_deleted_is_not_sent_and_told",
        "nothing_that_leaves_is_lost_while_a_proxy_answers_404",
    },
    Stubborn: {
        "a_refusal_is_told_and_the_next_message_goes", "what_is_sent_to_an_item_that_was_deleted_is_not_sent_and_told",
    },
    Impatient: {"what_is_sent_in_trouble_arrives_once"},
    Thrifty: {
        "a_file_that_an_employee_sends_is_there_once_and_whole", "a_message_in_doubt_is_not_sent_twice",
        "a_new_item_in_doubt_is_not_made_twice",
    },
    Fertile: {"a_new_item_in_doubt_is_not_made_twice", "a_new_item_made_in_trouble_is_made_once"},
    Gullible: {"a_new_item_made_in_trouble_is_made_once"},
    Blurred: {
        "an_item_is_known_by_its_name_its_key_and_its_address", "a_private_item_shows_no_more_than_its_key_and_link",
        "an_item_of_another_scope_shows_no_more_than_its_key_and_link",
    },
    Inventive: {
        "what_is_deleted_is_noticed_although_nobody_asks",
        "an_item_that_does_not_exist_is_refused",
        "the_card_of_what_is_deleted_says_so_and_nothing_can_be_sent_to_it",
    },
    Cold: {"looking_at_an_item_waits_out_trouble", "a_404_of_a_proxy_says_nothing_of_any_item"},
    Blank: {"a_change_by_people_appears_on_the_card"},
    Nosy: {
        "an_item_is_found_by_a_word_of_its_title_among_its_scope_only", "an_item_of_another_scope_is_found_there_only",
    },
    Fluent: {"words_that_are_searched_are_never_a_query"},
    Vague: {"a_search_in_trouble_is_not_called_nothing_found", "a_404_of_a_proxy_says_nothing_of_any_item"},
    Blabbing: {"a_private_item_is_found_as_private"},
    Borderless: {
        "an_item_of_another_scope_shows_no_more_than_its_key_and_link", "an_item_of_another_scope_is_found_there_only",
    },
    Frank: {"a_private_item_shows_no_more_than_its_key_and_link", "a_private_item_is_found_as_private"},
    Prudish: {
        "a_private_item_shows_no_more_than_its_key_and_link", "a_private_item_is_shown_in_a_room_that_may_see_it",
    },
    Eternal: {
        "what_is_deleted_is_noticed_although_nobody_asks",
        "the_card_of_what_is_deleted_says_so_and_nothing_can_be_sent_to_it",
        "what_is_sent_to_an_item_that_was_deleted_is_not_sent_and_told",
    },
    Credulous: {
        "a_404_of_a_proxy_says_nothing_of_any_item", "nothing_that_leaves_is_lost_while_a_proxy_answers_404",
    },
    Lying: {"a_change_in_trouble_is_not_called_done"},
    Toggling: {"a_change_is_done_and_read_back_and_asking_twice_does_no_harm"},
    Obedient: {"a_change_that_makes_no_sense_is_refused"},
    Worried: {"the_self_check_is_content_when_all_is_well"},
    Content: {"the_self_check_names_trouble_and_its_remedy"},
    Silent: {"every_configuration_key_has_a_description"},
    Unwritten: {"every_configuration_key_is_explained_on_the_page"},
    Open: {"an_unknown_configuration_key_is_an_error_and_no_secret_shows"},
    Homeless: {"what_a_room_can_be_mapped_to_is_offered"},
    Choosy: {"what_mappings_may_choose_by_is_known_of_what_arrives"},
    Loose: {"an_unknown_configuration_key_is_an_error_and_no_secret_shows"},
}  # fmt: skip


# --- a plugin that listens: lines of "WHO ITEM TEXT" on a socket, answered with "ok"


class Lines(Connector):
    """The least that a plugin which listens can be."""

    class Config(ConnectorConfig):
        listen: int = Field(description="The port")

    def scopes(self) -> list[str]:
        return ["all"]

    async def run(self) -> None:
        server = await asyncio.start_server(self.served, "127.0.0.1", self.config.listen)
        async with server:
            self.up = True
            await server.serve_forever()

    def started(self) -> bool:
        return getattr(self, "up", False)

    async def served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ValueError, asyncio.LimitOverrunError, UnicodeDecodeError):
            envelope = self.envelope((await reader.readline()).decode())
            await self.port.accept(envelope)
            writer.write(b"ok\n")
        writer.close()

    def envelope(self, line: str) -> Envelope:
        who, item, text = line.strip().split(" ", 2)
        key = hashlib.sha256(line.encode()).hexdigest()
        author = Author(self.name, who, who)
        return Envelope(self.name, ("all",), key, key, author, time.time(), title=item, text=text, item=item)


class Stuttering(Lines):
    """What comes again is new."""

    def envelope(self, line: str) -> Envelope:
        return replace(super().envelope(line), key=new_uid())


class Greedy(Lines):
    """It takes whatever comes."""

    def envelope(self, line: str) -> Envelope:
        return super().envelope(line if line.count(" ") > 1 else f"x x {line}")


class LinesTool(Tool):
    scope = "all"

    async def __aenter__(self) -> Any:
        self.port = free_port()
        return self

    def config(self, url: str) -> dict[str, Any]:
        return {"listen": self.port}

    async def open(self, title: str, text: str) -> str:
        await self.say(title, text)
        return title

    async def say(self, item: str, text: str) -> None:
        self.last = f"carol {item} {text}\n"
        await self.again()

    async def again(self) -> None:
        await self.hand_over(self.last)

    async def nonsense(self) -> None:
        await self.hand_over("nonsense\n")

    async def hand_over(self, line: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(line.encode())
        await reader.read()
        writer.close()


LISTENING: dict[Any, set[str]] = {
    Lines: set(),
    Stuttering: {"what_is_handed_over_again_appears_once"},
    Greedy: {"nonsense_is_not_taken_and_stops_nobody"},
}


# --- a plugin that shows files: notes of "file|NAME|CONTENT", the content in base64


class Filing(Polled):
    """Such a note is a file."""

    async def poll(self, cursor: str) -> Any:
        page = await super().poll(cursor)
        return replace(page, envelopes=tuple([await self.filed(each) for each in page.envelopes]))

    async def filed(self, envelope: Any) -> Any:
        if not envelope.text.startswith("file|"):
            return envelope
        _, name, content = envelope.text.split("|")
        file = await self.port.spool.keep(name, "application/octet-stream", self.read(base64.b64decode(content)))
        return replace(envelope, text="", files=(file,))

    def read(self, data: bytes) -> bytes:
        return data


class Tidying(Filing):
    """It takes every file for text."""

    def read(self, data: bytes) -> bytes:
        return data.replace(b"\r\n", b"\n")


class Shelving(Filing):
    """It gives every file twice."""

    async def filed(self, envelope: Any) -> Any:
        found = await super().filed(envelope)
        return replace(found, files=found.files * 2)


# --- what runs them


def plugin() -> Any:
    return sys.modules["passerelle_jobs"]


class Quick(JobsTool):
    """It makes few kinds of trouble: the sound plugin meets them all."""

    troubles = ("down", "cut", "429", "error")


class Cabinet(Quick):
    """Carol puts files on jobs."""

    async def attach(self, item: str, name: str, data: bytes) -> None:
        await self.say(item, f"file|{name}|{base64.b64encode(data).decode()}")


FILING: dict[Any, set[str]] = {
    Filing: set(),
    Tidying: {"a_file_that_people_put_on_an_item_appears_once_and_whole"},
    Shelving: {"a_file_that_people_put_on_an_item_appears_once_and_whole"},
}


def kit(plugin: Any, tool: Any) -> type[Contract]:
    names = {"plugin": plugin, "tool": tool, "page": FOLDER / "README.md", "patience": PATIENCE}
    return type("TestIt", (Contract,), names)


@dataclass(frozen=True)
class Check:
    """One test of the kit, as pytest would run it."""

    name: str
    trouble: str = ""

    async def failure(self, contract: type[Contract], folder: Path) -> str:
        test = getattr(contract(), f"test_{self.name}")
        wanted = test.__code__.co_varnames[1 : test.__code__.co_argcount]
        given: dict[str, Any] = {"tmp_path": folder} if "tmp_path" in wanted else {}
        given |= {"trouble": self.trouble} if "trouble" in wanted else {}
        try:
            async with contextlib.AsyncExitStack() as stack:
                if "office" in wanted:
                    office: Office = await stack.enter_async_context(contract().opened(folder))
                    given["office"] = office
                await test(**given)
        except (Exception, pytest.fail.Exception) as error:
            return f"{self.trouble} {error!r}"[:2000]
        return ""


def checks(contract: type[Contract]) -> Iterator[Check]:
    for name in sorted(dir(contract)):
        test = getattr(contract, name)
        if name.startswith("test_") and test is not None:
            parts = test.__code__.co_varnames[: test.__code__.co_argcount]
            troubles = [each for each in contract.tool.troubles if each not in getattr(test, "but", ())]
            yield from (Check(name[5:], each) for each in (troubles if "trouble" in parts else [""]))


def met(fault: Any) -> Iterator[Check]:
    """The checks that a plugin with that fault meets."""
    number = list(FAULTS).index(fault)
    for place, check in enumerate(checks(kit(fault, Quick))):
        if check.name in FAULTS[fault] or place % SHARE == number % SHARE:
            yield check


async def failing(
    contract: type[Contract], folder: Path, expected: Set[str] = frozenset(), among: Iterable[Check] = ()
) -> dict[str, str]:
    """How the checks fail that do, by name; several run at once.

    They share one event loop, so a fault that makes it stand still makes its neighbours late: one that fails against
    expectation counts when it fails alone too.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, check: Check) -> tuple[Check, str]:
        async with room:
            own = folder / str(number)
            own.mkdir()
            return check, await check.failure(contract, own)

    chosen = list(among) or list(checks(contract))
    found = await asyncio.gather(*(one(number, check) for number, check in enumerate(chosen)))
    failed = {check.name: why for check, why in found if why and check.name in expected}
    for number, check in enumerate(check for check, why in found if why and check.name not in expected):
        own = folder / f"alone{number}"
        own.mkdir()
        if why := await check.failure(contract, own):
            failed[check.name] = why
    return failed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr("bridge.testing.office.LONG", 4.0)
    monkeypatch.setattr("bridge.testing.arriving.LONG", 4.0)
    monkeypatch.setattr("bridge.testing.arriving.QUICK", 2.5)


async def test_a_sound_plugin_passes_every_check(tmp_path: Path) -> None:
    assert await failing(kit(Jobs, JobsTool), tmp_path) == {}


@pytest.mark.parametrize("faulty", FAULTS, ids=lambda each: each.__name__)
async def test_a_fault_fails_just_the_checks_that_are_about_it(faulty: Any, tmp_path: Path) -> None:
    found = await failing(kit(faulty, Quick), tmp_path, FAULTS[faulty], met(faulty))
    assert set(found) == FAULTS[faulty], found


@pytest.mark.parametrize("listening", LISTENING, ids=lambda each: each.__name__)
async def test_the_same_holds_for_plugins_that_listen(listening: Any, tmp_path: Path) -> None:
    expected = LISTENING[listening] | {"every_configuration_key_is_explained_on_the_page"}
    found = await failing(kit(listening, LinesTool), tmp_path, expected)
    assert set(found) == expected, found


@pytest.mark.parametrize("filing", FILING, ids=lambda each: each.__name__)
async def test_the_same_holds_for_plugins_that_show_files(filing: Any, tmp_path: Path) -> None:
    contract = kit(filing, Cabinet)
    about = [each for each in checks(contract) if "file" in each.name]
    found = await failing(contract, tmp_path, FILING[filing], about)
    assert set(found) == FILING[filing], found


def test_every_check_has_a_plugin_that_fails_it() -> None:
    contracts = kit(Jobs, JobsTool), kit(Lines, LinesTool), kit(Filing, Cabinet)
    known = {each.name for contract in contracts for each in checks(contract)}
    caught = set().union(*FAULTS.values(), *LISTENING.values(), *FILING.values())
    assert known - caught == {"nothing_appears_again_after_a_restart"}


def test_checks_of_what_a_plugin_cannot_do_do_not_exist() -> None:
    names = {each.name for each in checks(kit(Lines, LinesTool))}
    assert not [name for name in names if re.search("poll|webhook|sent|private|item|change|self_check", name)]
