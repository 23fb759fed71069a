"""The node's own key: made at the first start, registered at the first join, proved at every later one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import durable, errors

_KEY_FILE: Final = "node.pem"


class Identity:
    """An Ed25519 key pair; the private half stays in its file (0600) and in this process."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public_key(self) -> bytes:
        """The public half, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, text: bytes) -> bytes:
        """The signature over ``text``, 64 bytes."""
        return self._key.sign(text)


def load(folder: Path) -> Identity:
    """The identity kept in ``folder``; made there if there is none. Blocks.

    Raises:
        Broken: a key is there and can't be read. It is not replaced: the control plane would refuse
            another.
        OSError: the folder can't be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    file = folder / _KEY_FILE
    try:
        pem = file.read_bytes()
    except FileNotFoundError:
        return Identity(_make(file))
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise _broken(file) from cause
    if not isinstance(key, Ed25519PrivateKey):
        raise _broken(file)
    return Identity(key)


def _make(file: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    durable.write(file, pem)
    return key


def _broken(file: Path) -> errors.Broken:
    return errors.Broken(
        f"The node's key {file} can't be read; restore it, or remove it and have an administrator "
        "reset the node's identity."
    )
