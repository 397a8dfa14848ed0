"""What the demo says when the story is over: how to join, how to see the tools, how to write from outside."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.demo.crm import DORA
from tests.demo.stage import PASSWORD, ROOMS, SERVER, Stage
from tests.demo.tracker import TOM
from tests.peers import ROOT
from tests.peers.tryton import DATABASE

TEXT = """
The demo stays up. What you do now appears here too. Ctrl-C stops everything.

  Join with any Matrix client on this machine
    homeserver   {homeserver}
    users        {users}
    password     {password}
    rooms        {rooms}, in the space “Company”
    in a thread  !help, !reply text, 📤 on your own message; everything else stays inside

  Open the tracker in a browser
    Roundup      {tracker}
    users        {trackers}
    password     {password}
    an issue is a thread in #support; !ticket in a thread, or 🎫 on any message there, makes one

  The other tools
    Tryton       {crm} (database {database}), for a Tryton 8.0 client: {seller}, password {selling}
    documents    {documents}Deals/ in a browser: alice, password {reading}
    !deal and !doc in a thread of #support make an opportunity and a document

  Write from outside
    {python} -m tests.demo.mail --to support@company.example --from you@outside.example --subject "Hello"
    curl --url smtp://{smtp} --mail-from you@outside.example --mail-rcpt support@company.example -T - <<END
    From: you@outside.example
    Subject: Hello from curl

    Is anybody there?
    END

  Read what leaves
    {outgoing}/*.eml, and here as it leaves
    {python} -m tests.demo.mail --answer --from you@outside.example --body "Thank you"
    answers the last of them

  Logs
    {logs}
"""


def welcome(stage: Stage) -> str:
    host, port = stage.smtp
    return TEXT.format(
        homeserver=stage.synapse.url,
        users="  ".join(person.mxid for person in stage.people.values()),
        password=PASSWORD,
        rooms="  ".join(f"#{name}:{SERVER}" for name in ROOMS),
        tracker=stage.tracker.url,
        crm=stage.crm.url,
        database=DATABASE,
        seller=DORA[0],
        selling=stage.crm.password(DORA[0]),
        documents=stage.documents.url,
        reading=stage.documents.password("alice"),
        trackers="  ".join(f"{user}{' (a customer)' if user == TOM else ''}" for user in stage.tracker.people),
        python=_short(Path(sys.executable)),
        smtp=f"{host}:{port}",
        outgoing=_short(stage.outbox.folder),
        logs="  ".join(map(_short, (stage.bridge.log, stage.synapse.folder / "synapse.log", stage.tracker.child.log))),
    )


def _short(path: Path) -> str:
    """As one types it in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
