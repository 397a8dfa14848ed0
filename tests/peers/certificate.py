"""A throw-away certificate for servers on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A throw-away certificate for localhost; who trusts `file` as an authority trusts the server."""

    file: Path
    key: Path

    @classmethod
    def make(
        cls, folder: Path, names: Sequence[str] = ("localhost", "127.0.0.1"), *, expired: bool = False
    ) -> Certificate:
        """Write a new key and its self-signed certificate into `folder`; an expired one ended an hour ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = cls(folder / "certificate.pem", folder / "key.pem")
        made.file.write_bytes(_self_signed(key, names, expired).public_bytes(serialization.Encoding.PEM))
        form, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, bare))
        return made

    def context(self) -> ssl.SSLContext:
        """For a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


def _self_signed(key: ec.EllipticCurvePrivateKey, names: Iterable[str], expired: bool) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Passerelle test")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + (datetime.timedelta(hours=-1) if expired else datetime.timedelta(days=30)))
        .add_extension(x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
