"""Certificate authorities, and the registries' certificate of one instance."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_PEM: Final = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of one authority and one leaf."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Leaf:
    """Whom a certificate is for.

    Attributes:
        names: addresses and DNS names that it serves under.
        organization: its group, in Kubernetes' reading of client certificates.
    """

    common_name: str
    names: Sequence[str] = ()
    organization: str = ""
    usages: tuple[x509.ObjectIdentifier, ...] = (SERVER,)


class Authority:
    """A certificate authority whose key lives here."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._certificate.public_bytes(_PEM)

    @property
    def key_pem(self) -> bytes:
        """Its key, for programs that sign by it."""
        return key_pem(self._key)

    def issue(self, leaf: Leaf) -> tuple[bytes, bytes]:
        """Certificate and key of ``leaf`` in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier
        builder = (
            _builder(_name(leaf.common_name, leaf.organization), self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(leaf.usages), critical=False)
            .add_extension(identifier(self._identifier), critical=False)
        )
        if leaf.names:
            names = x509.SubjectAlternativeName([_general_name(name) for name in leaf.names])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM), key_pem(key)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """``key`` in PKCS 8, not encrypted."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_key(path: Path, pem: bytes) -> None:
    """Write a key so that nobody else ever could read it."""
    path.touch(mode=0o600)
    path.write_bytes(pem)


def make(folder: Path, address: str) -> Certificates:
    """Make an authority and a certificate for ``address`` (an IP) in ``folder``; the authority's key is not kept."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(f"snap devnode CA {address}")
    certificate, key = authority.issue(Leaf("registry", (address, "127.0.0.1")))
    made = Certificates(folder / "ca.crt", folder / "registry.crt", folder / "registry.key")
    made.ca.write_bytes(authority.pem)
    made.certificate.write_bytes(certificate)
    write_key(made.key, key)
    return made


def _name(common: str, organization: str = "") -> x509.Name:
    group = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*group, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
