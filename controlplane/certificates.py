"""Certificates that are made here: an authority of our own, and what it signs for our servers.

Source: RFC 5280 (profile of certificates).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SKEW: Final = timedelta(minutes=5)  # clocks differ a little: certificates count from so long ago
Key = ec.EllipticCurvePrivateKey


def authority(
    name: str, life: timedelta, now: datetime | None = None
) -> tuple[x509.Certificate, Key]:
    """A new authority, good from ``now`` on, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        _builder((subject, subject), key.public_key(), life, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made, key


def leaf(
    signer: tuple[x509.Certificate, Key],
    name: str,
    names: Iterable[str],
    life: timedelta,
    now: datetime | None = None,
) -> tuple[x509.Certificate, Key]:
    """A certificate for a server that is reached under ``names``, signed by ``signer``; and its key."""
    ca, ca_key = signer
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    made = (
        _builder((subject, ca.subject), key.public_key(), life, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(general(sorted(names))), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return made, key


def general(names: Iterable[str]) -> list[x509.GeneralName]:
    """Host names and addresses as certificates name them."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def names_of(certificate: x509.Certificate) -> set[x509.GeneralName]:
    """The host names and addresses that a certificate is good for."""
    kind = x509.SubjectAlternativeName
    return set(certificate.extensions.get_extension_for_class(kind).value)


def read_key(path: Path) -> Key:
    """The key in ``path``. Blocks.

    Raises:
        OSError: it can't be read.
        TypeError, ValueError: it is no key of our kind.
    """
    found = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path.name} is of another kind")
    return found


def pem(value: x509.Certificate | Key) -> bytes:
    """A certificate or a key as text."""
    if isinstance(value, x509.Certificate):
        return value.public_bytes(serialization.Encoding.PEM)
    return value.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _builder(
    names: tuple[x509.Name, x509.Name],
    key: ec.EllipticCurvePublicKey,
    life: timedelta,
    now: datetime | None,
) -> x509.CertificateBuilder:
    subject, issuer = names
    begin = now or datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - SKEW)
        .not_valid_after(begin + life)
        .add_extension(identifier, critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
