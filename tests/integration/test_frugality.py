"""How many requests the homeserver gets for a mail: on a real one each of them costs more than all that we do."""

from __future__ import annotations

from pathlib import Path

from tests.peers import free_port
from tests.peers.bridge import BridgeProcess, configuration, write
from tests.peers.instant import Instant
from tests.peers.synapse import Registration
from tests.peers.world import letter, post

ROOM, MAILBOX = "!support:company.example", "support@company.example"
SENDER = "carol@outside.example"


async def test_a_short_mail_of_a_known_sender_costs_one_request(tmp_path: Path) -> None:
    listen, smtp = f"127.0.0.1:{free_port()}", free_port()
    async with Instant(tmp_path, f"http://{listen}") as homeserver:
        config = configuration(
            homeserver.url,
            Registration(f"http://{listen}"),
            listen,
            smtp=f"127.0.0.1:{smtp}",
            smarthost=("127.0.0.1", free_port()),
            rooms={MAILBOX: ROOM},
            data=tmp_path / "data",
        )
        async with BridgeProcess(write(tmp_path / "passerelle.yaml", config)):
            first = letter(subject="First")
            await post("127.0.0.1", smtp, SENDER, [MAILBOX], first)
            before = (await homeserver.wait_for_sends(1))["requests"]

            await post("127.0.0.1", smtp, SENDER, [MAILBOX], letter(subject="Second"))
            answer = letter(subject="Re: First", in_reply_to=str(first["Message-ID"]))
            await post("127.0.0.1", smtp, SENDER, [MAILBOX], answer)
            after = (await homeserver.wait_for_sends(3))["requests"]

    more = {kind: count - before.get(kind, 0) for kind, count in after.items() if count != before.get(kind, 0)}
    assert more == {"PUT send": 2}
