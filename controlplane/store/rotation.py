"""A new key for the stored secrets. The control plane must be stopped: the data folder is locked for it.

Three steps, and after a crash between any two of them everything can still be opened: the new key goes into the
key file before the old one; every secret is sealed anew in one transaction; the old key leaves the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from controlplane.errors import Broken
from controlplane.store import secrets
from controlplane.store.database import locked_database
from controlplane.store.secrets import KEY_BYTES, Sealer


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done.

    Attributes:
        resealed: how many secrets.
        key_id: of the key that seals from now on, hex.
        old_key_gone: False when the key file could not be written; its other lines may be removed now.
    """

    resealed: int
    key_id: str
    key_file: Path
    old_key_gone: bool


def rotate(data_dir: Path, key_file: Path | None) -> Rotated:
    """Seal every stored secret with a new key. Blocks.

    A key file with several lines is a rotation that was begun (here, or by whoever put a new key on the first line of
    a file that can't be written from here): it is completed, with no further key.

    Raises:
        Broken: another process uses the folder; a secret can't be opened; the key file can't be written.
    """
    path = secrets.key_path(data_dir, key_file)
    with locked_database(data_dir) as database:
        keys = secrets.read_keys(path)
        if len(keys) == 1:
            keys = [os.urandom(KEY_BYTES), *keys]
            try:
                secrets.write_keys(path, *keys)
            except OSError as cause:
                raise Broken(
                    f"The key file {path} can't be written ({cause.strerror}); put a new key on a line before "
                    "the old one yourself, and run this again."
                ) from cause
        sealer = Sealer(*keys)
        resealed = _reseal(database, sealer)
        # what was sealed with the old key leaves the file, its free pages and its log too
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Rotated(resealed, sealer.key_id.hex(), path, _drop_old(path, keys[0]))


def _reseal(database: Database, sealer: Sealer) -> int:
    database.execute("BEGIN IMMEDIATE")
    try:
        rows = database.execute("SELECT name, sealed FROM secrets").fetchall()
        for name, sealed in rows:
            database.execute(
                "UPDATE secrets SET sealed = ? WHERE name = ?",
                [sealer.seal(name, sealer.open(name, sealed)), name],
            )
        database.execute("COMMIT")
    except BaseException:
        database.conn.rollback()
        raise
    return len(rows)


def _drop_old(path: Path, key: bytes) -> bool:
    try:
        secrets.write_keys(path, key)
    except OSError:
        return False
    return True
