"""Sealed secrets: AES-256-GCM with the name bound in, so that a record can't pass for another.

A sealed record is ``version (1) | key id (8) | nonce (12) | ciphertext and tag``. The key comes
from ``SNAP_SECRET_KEY_FILE`` or is made in the data folder (0600); backups leave it out. The file may
hold several keys, one per line: the first one seals, all of them open (``rotation`` uses that).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlite_utils import Database

from controlplane import durable
from controlplane.errors import Broken
from controlplane.store import clock

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_KEY_ID: Final = slice(1, 9)
_NONCE: Final = slice(9, 21)
_FILE: Final = "secret.key"


class Sealer:
    """Seals secrets with one key, opens what was sealed with it or with an older one."""

    def __init__(self, key: bytes, *older: bytes) -> None:
        for each in (key, *older):
            if len(each) != KEY_BYTES:
                raise Broken(
                    f"The key that seals secrets must have {KEY_BYTES} bytes, not {len(each)}."
                )
        self._ciphers = {_key_id(each): AESGCM(each) for each in (key, *older)}
        self.key_id: Final = _key_id(key)

    def __repr__(self) -> str:
        return f"Sealer(key_id={self.key_id.hex()})"

    def seal(self, name: str, secret: bytes) -> bytes:
        """``secret`` sealed under ``name``."""
        nonce = os.urandom(12)
        cipher = self._ciphers[self.key_id]
        return _VERSION + self.key_id + nonce + cipher.encrypt(nonce, secret, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """The secret that was sealed under ``name``.

        Raises:
            Broken: sealed with another key, under another name, or damaged.
        """
        cipher = self._ciphers.get(sealed[_KEY_ID])
        if sealed[:1] != _VERSION or cipher is None:
            raise Broken(
                f"The stored secret {name} was sealed with another key; give the key that was used "
                "then (SNAP_SECRET_KEY_FILE), or store the secret again."
            )
        try:
            return cipher.decrypt(sealed[_NONCE], sealed[21:], name.encode())
        except InvalidTag as cause:
            raise Broken(f"The stored secret {name} is damaged; store it again.") from cause

    def put(self, db: Database, name: str, secret: bytes) -> None:
        """Store ``secret`` under ``name``, in place of what was there."""
        db.execute(
            "INSERT INTO secrets (name, sealed, updated_at) VALUES (?, ?, ?) ON CONFLICT (name) "
            "DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at",
            [name, self.seal(name, secret), clock.now()],
        )

    def get(self, db: Database, name: str) -> bytes | None:
        """The secret stored under ``name``; None if there is none."""
        row = db.execute("SELECT sealed FROM secrets WHERE name = ?", [name]).fetchone()
        return None if row is None else self.open(name, row[0])

    def get_or_make(self, db: Database, name: str, size_bytes: int = 32) -> bytes:
        """The secret ``name``, made of random bytes if there is none yet (in a write)."""
        secret = self.get(db, name)
        if secret is None:
            secret = os.urandom(size_bytes)
            self.put(db, name, secret)
        return secret


def names(db: Database, prefix: str) -> list[str]:
    """Names of stored secrets that begin with ``prefix``."""
    found = db.execute(
        "SELECT name FROM secrets WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name", [prefix]
    )
    return [row[0] for row in found]


def delete(db: Database, name: str) -> bool:
    """Forget the secret ``name``; whether there was one."""
    return db.execute("DELETE FROM secrets WHERE name = ?", [name]).rowcount > 0


def open_sealer(data_dir: Path, key_file: Path | None) -> Sealer:
    """The sealer of this installation; its key is made at the first start. Blocks.

    Raises:
        Broken: the key file can't be read or holds no key.
    """
    path = key_path(data_dir, key_file)
    if key_file is None and not path.exists():
        write_keys(path, os.urandom(KEY_BYTES))
    return Sealer(*read_keys(path))


def key_path(data_dir: Path, key_file: Path | None) -> Path:
    """Where the keys are."""
    return key_file or data_dir / _FILE


def key_id_of(sealed: bytes) -> bytes:
    """With which key a record was sealed."""
    return sealed[_KEY_ID]


def read_keys(path: Path) -> list[bytes]:
    """The keys in the file: the one that seals, then older ones that still open. Blocks.

    Raises:
        Broken: the key file can't be read or holds no key.
    """
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise Broken(
            f"The key file {path} can't be read ({cause.strerror}); stored secrets stay sealed."
        ) from cause
    if len(content) == KEY_BYTES:
        return [content]
    return [_decoded(line) for line in content.split()] or [b""]


def write_keys(path: Path, *keys: bytes) -> None:
    """Put ``keys`` in the file at once, 0600; after a crash it holds these or the ones before. Blocks."""
    durable.write(path, b"".join(key.hex().encode() + b"\n" for key in keys))


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"snap-key-id\n" + key).digest()[:8]


def _decoded(text: bytes) -> bytes:
    """The key in ``text``: hex or base64."""
    try:
        return bytes.fromhex(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        pass
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as cause:
        raise Broken(
            "The key file holds no key of 32 bytes (raw, hex or base64 are understood)."
        ) from cause
