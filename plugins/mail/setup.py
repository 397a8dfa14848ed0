"""What `passerelle init` asks about mail, and the first configuration that it makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bridge.model import Question, Starter
from plugins.mail.config import endpoint, is_loopback

_ENDPOINT = r"\S+:\d{1,5}"
_HOST = r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]"

QUESTIONS = (
    Question("mailbox", "First mail address that a room is to see", "support@{domain}", r"[^\s@]+@[^\s@]+\.[^\s@]+",
             "support@company.example"),
    Question("mail-listen", "host:port where your mail server hands over its mail", "127.0.0.1:2525", _ENDPOINT,
             "127.0.0.1:2525"),
    Question("smarthost", "Mail server that takes what leaves, as its certificate names it (host or host:port)",
             "mail.{domain}", rf"({_HOST})(:\d{{1,5}})?", "mail.company.example:587"),
    Question("smarthost-user", "Name for the login there (empty: none is needed)", "", r"\S*", "passerelle"),
    Question("smarthost-password", "Its password, or where it is kept: ${NAME} or ${file:/path} (empty: no login)", "",
             r"[^\x00-\x1f\x7f]*", "${file:/etc/passerelle/smarthost-password}", secret=True),
)  # fmt: skip
_LOCAL = '["127.0.0.0/8", "::1/128"]'
_PRIVATE = '["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]'

_SECTION = """\
plugin: mail
# host:port where your mail server hands over mail for the addresses below.
listen: {listen}
# Networks whose mail servers may hand over mail.
trusted_relays: {relays}
# The name with which your mail server signs its Authentication-Results (RFC 8601). Without it no sender counts as
# verified, and a colleague's mail is treated like a stranger's.
#authserv_id: mx.{domain}
# The addresses that rooms can be mapped to, and in whose name employees answer.
mailboxes:
  - address: {mailbox}
    # What correspondents see beside the address.
    name: {name}
    # signed: answers find their thread by an address such as {local}+r….…@{at}. plain: for mail servers that know no
    # plus addresses.
    #reply_address: signed
# The mail server that takes what leaves.
smarthost:
  host: {host}
  port: {port}
  # starttls or tls: its certificate is verified. none: only for a server on this very host.
  security: {security}
"""


def starter(answers: Mapping[str, str]) -> Starter:
    """The section, its first mailbox, and what is to be done on the mail server."""
    mailbox, listen = answers["mailbox"], answers["mail-listen"]
    local, _, at = mailbox.rpartition("@")
    host, port = _smarthost(answers["smarthost"])
    near = is_loopback(host)
    section = _SECTION.format(
        listen=_quoted(listen),
        relays=_LOCAL if is_loopback(endpoint(listen)[0]) else _PRIVATE,
        domain=answers["domain"],
        mailbox=_quoted(mailbox),
        name=_quoted(local.replace(".", " ").title()),
        local=local,
        at=at,
        host=_quoted(host),
        port=port,
        security="tls" if port == 465 else "none" if near and port != 587 else "starttls",
    )
    if answers["smarthost-user"]:
        password = answers["smarthost-password"] or "${PASSERELLE_SMTP_PASSWORD}"
        section += f"  username: {_quoted(answers['smarthost-user'])}\n  password: {_quoted(password)}\n"
    return Starter(section, mailbox.lower(), _steps(mailbox, listen))


def _smarthost(given: str) -> tuple[str, int]:
    host, port = endpoint(given) if not given.endswith("]") else ("", -1)
    return (host, port) if host else (given.strip("[]"), 25 if is_loopback(given.strip("[]")) else 587)


def _steps(mailbox: str, listen: str) -> tuple[str, ...]:
    host, port = endpoint(listen)
    local, _, at = mailbox.rpartition("@")
    return (
        f"Let your mail server hand over {mailbox} and {local}+…@{at} (answers, bounces). In Postfix, where {at} is in",
        "mydestination (docs/admin.md tells of others):",
        "    postconf -e 'recipient_delimiter = +' 'transport_maps = $default_database_type:/etc/postfix/transport'",
        "    postconf -e 'local_recipient_maps = proxy:unix:passwd.byname $alias_maps $transport_maps'",
        f"    echo '{mailbox}    smtp:[{host}]:{port}' >> /etc/postfix/transport",
        "    postmap /etc/postfix/transport && postfix reload",
    )


def _quoted(value: str) -> str:
    """A string as YAML has it: what JSON writes is YAML too."""
    return json.dumps(value, ensure_ascii=False)
