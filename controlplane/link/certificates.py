"""The server's certificate for agents: made here with a CA of its own, or the operator's files."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from controlplane import certificates, durable
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
            _make_leaf((ca, ca_key), wanted, (chain, key))
        return Certificate(chain.read_bytes(), key.read_bytes(), certificates.pem(ca))
    except (OSError, ValueError, TypeError) as cause:
        raise Broken(f"The certificates in {folder} can't be used.", details=str(cause)) from cause


def _load_or_make_ca(folder: Path) -> tuple[x509.Certificate, certificates.Key]:
    certificate, key_file = folder / "ca.pem", folder / "ca.key"
    if not (certificate.exists() and key_file.exists()):
        ca, key = certificates.authority("SNAP control plane CA", timedelta(days=CA_DAYS))
        durable.write(key_file, certificates.pem(key))
        durable.write(certificate, certificates.pem(ca))
    loaded = certificates.read_key(key_file)
    return x509.load_pem_x509_certificate(certificate.read_bytes()), loaded


def _make_leaf(
    signer: tuple[x509.Certificate, certificates.Key],
    names: Iterable[str],
    files: tuple[Path, Path],
) -> None:
    leaf, key = certificates.leaf(signer, "SNAP control plane", names, timedelta(days=LEAF_DAYS))
    durable.write(files[1], certificates.pem(key))
    durable.write(files[0], certificates.pem(leaf) + certificates.pem(signer[0]))


def _is_good(chain_pem: bytes, ca: x509.Certificate, wanted: set[str]) -> bool:
    """Whether the leaf is the CA's, has every name, and lasts a while."""
    leaf = x509.load_pem_x509_certificate(chain_pem)
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, TypeError, ValueError):
        return False
    if not set(certificates.general(wanted)) <= certificates.names_of(leaf):
        return False
    return leaf.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE
