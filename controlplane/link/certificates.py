"""The server's certificate for agents: made here with a CA of its own, or the operator's files."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.errors import Broken

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 90
_RENEW_BEFORE: Final = timedelta(days=LEAF_DAYS / 3)
_ALWAYS: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the server shows: chain and key; ``ca_pem`` is whom agents should trust."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes


def from_files(chain: Path, key: Path, ca: Path | None) -> Certificate:
    """The operator's own certificate. Blocks.

    Raises:
        Broken: a file can't be read, or certificate and key don't belong together.
    """
    try:
        chain_pem, key_pem = chain.read_bytes(), key.read_bytes()
        ca_pem = ca.read_bytes() if ca else chain_pem
        leaf = x509.load_pem_x509_certificate(chain_pem)
        private = serialization.load_pem_private_key(key_pem, password=None)
    except OSError as cause:
        raise Broken(f"{cause.filename} can't be read ({cause.strerror}).") from cause
    except (ValueError, TypeError) as cause:
        raise Broken(f"{chain} and {key} are not a certificate and its key (PEM).") from cause
    if leaf.public_key() != private.public_key():
        raise Broken(f"{key} is not the key of {chain}.")
    return Certificate(chain_pem, key_pem, ca_pem)


def made(folder: Path, names: Iterable[str]) -> Certificate:
    """The certificate in ``folder``, made or renewed there if need be; its CA stays. Blocks.

    Args:
        names: host names and addresses besides this host's own and localhost.

    Raises:
        Broken: what lies there can't be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = {*_ALWAYS, socket.gethostname(), *names}
    try:
        ca, ca_key = _load_or_make_ca(folder)
        chain, key = folder / "server.pem", folder / "server.key"
        if not (chain.exists() and key.exists() and _is_good(chain.read_bytes(), ca, wanted)):
            _make_leaf(ca, ca_key, wanted, (chain, key))
        ca_pem = ca.public_bytes(serialization.Encoding.PEM)
        return Certificate(chain.read_bytes(), key.read_bytes(), ca_pem)
    except (OSError, ValueError, TypeError) as cause:
        raise Broken(f"The certificates in {folder} can't be used.", details=str(cause)) from cause


def _load_or_make_ca(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate, key_file = folder / "ca.pem", folder / "ca.key"
    if not (certificate.exists() and key_file.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SNAP control plane CA")])
        usage = _usage(ca=True)
        builder = _builder(name, name, key.public_key(), CA_DAYS)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        made_now = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        _write(key_file, _pem(key))
        _write(certificate, made_now.public_bytes(serialization.Encoding.PEM))
    loaded = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise TypeError("ca.key is of another kind")
    return x509.load_pem_x509_certificate(certificate.read_bytes()), loaded


def _make_leaf(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    names: Iterable[str],
    files: tuple[Path, Path],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SNAP control plane")])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    leaf = (
        _builder(subject, ca.subject, key.public_key(), LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general(sorted(names))), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    _write(files[1], _pem(key))
    _write(files[0], leaf.public_bytes(encoding) + ca.public_bytes(encoding))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ a little
        .not_valid_after(now + timedelta(days=days))
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


def _general(names: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _is_good(chain_pem: bytes, ca: x509.Certificate, wanted: set[str]) -> bool:
    """Whether the leaf is the CA's, has every name, and lasts a while."""
    leaf = x509.load_pem_x509_certificate(chain_pem)
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, TypeError, ValueError):
        return False
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if not set(_general(wanted)) <= set(names):
        return False
    return leaf.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
