"""The configuration of one mail system: how its mail arrives, its smarthost and its mailboxes."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bridge.connector import ConnectorConfig
from bridge.text.plain import spoken as spoken  # noqa: PLC0414 - beside `size`, which reads it back
from plugins.mail import identity

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
LOCAL = "local"  # a peer on the other side of a socket in the file system, whose rights say who may come
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def size(value: Any) -> Any:
    """A number of bytes from 25000000 or "25 MB" (as `spoken` says it). Raises `ValueError`."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B?)\s*", value.upper())
    unit = match and (match[2] if match[2] in UNITS else f"{match[2]}B")
    if not match or unit is None:
        raise ValueError('must be a number of bytes, or a size such as "25 MB"')
    return int(float(match[1]) * UNITS[unit])


Size = Annotated[int, BeforeValidator(size)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(Section):
    """A server that we log in to."""

    host: str = Field(description="Name of the server, as its certificate has it")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="starttls and tls verify the server's certificate; none is for a server on this host"
    )
    ca_file: Path | None = Field(None, description="PEM file of a certificate authority to trust besides the system's")
    username: str = Field("", description="Login name; empty: no login")
    password: SecretStr | None = Field(None, description="Its password; better kept out of the file as ${NAME}")
    password_file: Path | None = Field(None, description="File whose first line is the password, read at each login")
    password_env: str = Field("", description="Environment variable that holds the password")
    timeout: float = Field(60, gt=0, description="Seconds to wait for an answer")

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        given = [bool(self.password), bool(self.password_file), bool(self.password_env)]
        if sum(given) > 1:
            raise ValueError("give one of password, password_file and password_env")
        if any(given) != bool(self.username):
            raise ValueError("username and a password (password, password_file or password_env) go together")
        if self.username and self.security == "none" and not is_loopback(self.host):
            raise ValueError("security none would send the password unencrypted: use starttls or tls")
        return self

    def tls(self) -> ssl.SSLContext:
        """What verifies the server's certificate. Raises `OSError` when `ca_file` cannot be read."""
        context = ssl.create_default_context()
        if self.ca_file:
            context.load_verify_locations(self.ca_file)
        return context

    def secret(self) -> str:
        """The password now, "" when there is none. Raises `OSError` or `ValueError` when it cannot be read."""
        if self.password_file:
            return self.password_file.read_text(encoding="utf-8").partition("\n")[0].strip()
        if self.password_env:
            if self.password_env not in os.environ:
                raise ValueError(f"the environment variable {self.password_env} is not set")
            return os.environ[self.password_env]
        return self.password.get_secret_value() if self.password else ""


class Smarthost(Server):
    """The server that takes our outward mail."""

    port: int = Field(587, ge=1, le=65535, description="587 goes with starttls, 465 with tls, 25 with none")
    timeout: float = Field(60, gt=0, description="Seconds to wait for an answer; ten times as long after the message")


class Imap(Server):
    """The account on an IMAP server in which a mailbox's mail already is."""

    port: int = Field(993, ge=1, le=65535, description="993 goes with tls, 143 with starttls or none")
    security: Literal["starttls", "tls", "none"] = Field(
        "tls", description="tls and starttls verify the server's certificate; none is for a server on this host"
    )
    username: str = Field(min_length=1, description="Login name")
    timeout: float = Field(30, gt=0, description="Seconds to wait for an answer")
    folders: tuple[str, ...] = Field(("INBOX",), min_length=1, description="The folders whose new mail is shown")
    sent: str = Field("", description="The folder of sent mail; empty: the one that the server marks as such")
    keep_sent: bool = Field(
        True, description="Put what we send into the folder of sent mail; false where the smarthost does that"
    )
    since: date | None = Field(
        None,
        description="At the first start, show mail that came on or after this day; empty: only what comes from now on",
    )
    every: float = Field(60, ge=1, le=1500, description="Seconds between two looks, however silent the server is")
    idle: bool = Field(
        True, description="Where the server offers IDLE, be told of new mail in the first folder at once"
    )

    @field_validator("folders")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or not all(value):
            raise ValueError("name each folder once")
        return value


class Mailbox(Section):
    """An address that people write to, and as which employees answer."""

    address: str = Field(
        description="The mailbox, e.g. support@company.example; also the scope that a room is mapped to"
    )
    name: str = Field("", description="What correspondents see beside the reply address, e.g. Company Support")
    signature: str = Field("", description="Plain text put under every mail that employees send from here")
    reply_address: Literal["signed", "plain"] = Field(
        "signed",
        description="signed: answers and bounces come to support+r….…@ and are recognised by it; "
        "plain: to the bare address, for mail servers without plus addressing",
    )
    quote_line: str = Field("On {date}, {name} wrote:", description="Line above quoted mail; may use {date} and {name}")
    transcript_line: str = Field("From our conversation so far:", description="Line above a transcript")
    imap: Imap | None = Field(None, description="The IMAP account in which its mail is, where no server hands it over")

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        address = identity.canonical(value.strip())
        if not identity.is_address(address) or not address.isascii():
            raise ValueError("must be a mail address such as support@company.example")
        return address

    @field_validator("quote_line")
    @classmethod
    def _placeholders(cls, value: str) -> str:
        unknown = set(re.findall(r"{(.*?)}", value)) - {"date", "name"}
        if unknown:
            raise ValueError(f"may use {{date}} and {{name}} only, not {{{unknown.pop()}}}")
        return value


class Config(ConnectorConfig):
    """One mail system."""

    listen: str = Field(
        "",
        description="host:port where the mail server hands over mail, by SMTP; "
        "default: 127.0.0.1:2525 when neither listen_lmtp nor imap brings the mail",
    )
    listen_lmtp: str = Field("", description="host:port, or path of a socket, where it hands over mail by LMTP")
    hostname: str = Field("", description="How we greet other mail servers; default: domain of the first mailbox")
    max_size: Size = Field(25_000_000, ge=1000, description="Largest mail taken: bytes, or a size such as 25 MB")
    mailboxes: tuple[Mailbox, ...] = Field(min_length=1, description="The addresses that rooms can be mapped to")
    smarthost: Smarthost = Field(description="The server that takes our outward mail")
    authserv_id: str = Field(
        "", description="Name by which your mail server signs its Authentication-Results; empty: no sender is verified"
    )
    max_connections: int = Field(
        100,
        ge=1,
        description="SMTP connections at the same time; more are asked to wait. Without trusted_relays one address has "
        "at most an eighth of them, one network (/24, /64) a quarter",
    )
    rate: int = Field(100, ge=0, description="Mails per sender and mailbox in 10 minutes before 450; 0: no limit")
    certificate: Path | None = Field(None, description="PEM file: the listener then offers STARTTLS")
    key: Path | None = Field(None, description="PEM file of the certificate's key, unless in the same file")
    trusted_relays: tuple[Network, ...] = Field(
        (), description="Networks whose servers may hand over mail, e.g. 10.0.0.0/8; empty: everybody who can connect"
    )
    dns: tuple[str, ...] = Field(
        (), description="host:port of name servers that the self-check asks; empty: those of this host"
    )

    @field_validator("listen", "listen_lmtp")
    @classmethod
    def _listen(cls, value: str, info: ValidationInfo) -> str:
        if value and not _is_endpoint(value) and not (value.startswith("/") and info.field_name == "listen_lmtp"):
            or_path = ", or the path of a socket" if info.field_name == "listen_lmtp" else ""
            raise ValueError(f"must be host:port, such as 127.0.0.1:2525 or [::1]:2525{or_path}")
        return value

    @field_validator("dns")
    @classmethod
    def _name_servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _is_endpoint(each) or not _is_ip(endpoint(each)[0]):
                raise ValueError(f"{each} must be an IP address and a port, such as 127.0.0.1:53")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        addresses = [mailbox.address for mailbox in self.mailboxes]
        double = next((one for one in addresses if addresses.count(one) > 1), None)
        if double:
            raise ValueError(f"mailboxes: {double} is listed twice")
        if self.key and not self.certificate:
            raise ValueError("key: needs certificate")
        open_to_many = any(not is_loopback(endpoint(each)[0]) for each in self.listeners if not each.startswith("/"))
        if self.authserv_id and not self.trusted_relays and open_to_many:
            raise ValueError(
                "authserv_id: whoever can connect could forge it; list your mail servers in trusted_relays"
            )
        return self

    @cached_property  # asked for with every mail
    def addresses(self) -> frozenset[str]:
        return frozenset(mailbox.address for mailbox in self.mailboxes)

    @property
    def smtp(self) -> str:
        """Where SMTP is listened to; "" when it is not."""
        others = self.listen_lmtp or any(mailbox.imap for mailbox in self.mailboxes)
        return self.listen or ("" if others else "127.0.0.1:2525")

    @property
    def listeners(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.smtp, self.listen_lmtp)))

    @property
    def greeting(self) -> str:
        return self.hostname or self.mailboxes[0].address.rpartition("@")[2]

    def trusts(self, peer: str) -> bool:
        """Whether a host with that IP address may hand over mail; `LOCAL` has come through a socket of this host."""
        if not self.trusted_relays or peer == LOCAL:
            return True
        found = ip_of(peer)
        return found is not None and any(found in network for network in self.trusted_relays)

    def tls(self) -> ssl.SSLContext | None:
        """What the listener offers with STARTTLS. Raises `OSError` when the certificate cannot be read."""
        if not self.certificate:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def mailbox(self, address: str) -> Mailbox | None:
        """The configured mailbox with that address, or None."""
        return next((mailbox for mailbox in self.mailboxes if mailbox.address == address.lower()), None)


def endpoint(listen: str) -> tuple[str, int]:
    """Host and port of "host:port"; ("", -1) when it is neither."""
    host, _, port = listen.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdecimal() and port.isascii() else ("", -1)


def ip_of(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a peer as sockets name it; None when it is none."""
    try:
        found = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_endpoint(value: str) -> bool:
    host, port = endpoint(value)
    return bool(host) and 0 <= port <= 65535


def _is_ip(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
