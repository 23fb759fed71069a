"""Backups: one tar (0600) of the database as it is at one moment, and of the TLS identity, sealed.

The key file stays out of it: whoever finds a backup can open no secret with it. Uploaded archives stay out too.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from controlplane import durable
from controlplane.errors import Broken, Refused
from controlplane.store import clock, secrets
from controlplane.store.database import FILE, lock_folder, make_folder, prepare
from controlplane.store.secrets import Sealer

_DATABASE: Final = "snap.db"
_TLS: Final = "tls.sealed"
_TLS_LIMIT_BYTES: Final = 1 << 20
_SECRET_NAME: Final = "backup/tls"  # noqa: S105 - what its seal is bound to


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back.

    Attributes:
        kept: where the database that was there before lies now; None if there was none.
    """

    kept: Path | None


def backup(data_dir: Path, key_file: Path | None, target: Path) -> int:
    """Write a backup of a control plane that may be running; its size in bytes. Blocks.

    Raises:
        Refused: ``target`` exists already, or there is no database in the folder.
        Broken: it, or the key, can't be read or written.
    """
    source = data_dir / FILE
    if not source.exists():
        raise Refused(f"There is no database in {data_dir}; set SNAP_DATA_DIR.")
    if target.exists():
        raise Refused(f"{target} exists already; choose another name.")
    sealer = Sealer(*secrets.read_keys(secrets.key_path(data_dir, key_file)))
    try:
        with _partial(target) as file, tempfile.TemporaryDirectory(dir=target.parent) as folder:
            copy = Path(folder) / _DATABASE
            _copy_database(source, copy)
            with tarfile.open(fileobj=file, mode="w") as tar:
                tar.add(copy, _DATABASE, filter=_anonymous)
                if (data_dir / "tls").is_dir():
                    _add_tls(tar, data_dir / "tls", sealer)
    except (OSError, sqlite3.Error) as cause:
        raise Broken(f"The backup {target} can't be written.", details=str(cause)) from cause
    return target.stat().st_size


def restore(data_dir: Path, key_file: Path | None, source: Path) -> Restored:
    """Put a backup in the place of what is in the folder; that database is kept beside it. Blocks.

    Raises:
        Refused: it is no backup; it was made by a newer version; its key is not here.
        Broken: another process uses the folder, or it can't be made.
    """
    make_folder(data_dir)
    with lock_folder(data_dir), tempfile.TemporaryDirectory(dir=data_dir) as folder:
        fresh = Path(folder)
        try:
            _unpack(source, fresh)
        except (OSError, tarfile.TarError) as cause:
            raise Refused(f"{source} can't be read as a backup.", details=str(cause)) from cause
        prepare(fresh / _DATABASE)
        _check_key(fresh, secrets.key_path(data_dir, key_file))
        kept = _exchange_database(fresh / _DATABASE, data_dir / FILE)
        if (fresh / "tls").is_dir():
            shutil.rmtree(data_dir / "tls", ignore_errors=True)
            (fresh / "tls").rename(data_dir / "tls")
        return Restored(kept)


def _copy_database(source: Path, copy: Path) -> None:
    """One moment of the database, whoever writes it meanwhile."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as there,
        closing(sqlite3.connect(copy)) as here,
    ):
        there.backup(here)  # all pages in one step: one snapshot
        here.execute("PRAGMA journal_mode=DELETE")


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[IO[bytes]]:
    """A file that is called ``target`` once it is complete."""
    partial = target.with_name(f".{target.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _add_tls(tar: tarfile.TarFile, folder: Path, sealer: Sealer) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as inner:
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            inner.add(file, file.name, filter=_anonymous)
    sealed = sealer.seal(_SECRET_NAME, plain.getvalue())
    member = _anonymous(tarfile.TarInfo(_TLS))
    member.size = len(sealed)
    tar.addfile(member, io.BytesIO(sealed))


def _unpack(source: Path, fresh: Path) -> None:
    with tarfile.open(source, mode="r:") as tar:
        found = {member.name: member for member in tar if member.isreg()}
        database = found.get(_DATABASE)
        if database is None:
            raise tarfile.TarError("there is no database in it")
        for name in (_DATABASE, _TLS):
            content = tar.extractfile(found[name]) if name in found else None
            if content is not None:
                with content, (fresh / name).open("xb") as file:
                    shutil.copyfileobj(content, file)
    (fresh / _DATABASE).chmod(0o600)


def _check_key(fresh: Path, key_file: Path) -> None:
    """Open what is sealed in the backup, and unpack the TLS identity.

    Raises:
        Refused: the key that it needs is not there.
    """
    with closing(sqlite3.connect(fresh / _DATABASE)) as database:
        rows = database.execute("SELECT name, sealed FROM secrets").fetchall()
    tls = fresh / _TLS
    if not rows and not tls.exists():
        return
    try:
        sealer = Sealer(*secrets.read_keys(key_file))
        for name, sealed in rows:
            sealer.open(name, sealed)
        if tls.exists() and tls.stat().st_size <= _TLS_LIMIT_BYTES:
            _unpack_tls(sealer.open(_SECRET_NAME, tls.read_bytes()), fresh / "tls")
    except Broken as cause:
        raise Refused(
            f"The key file {key_file} does not open this backup; put the key there that was in use when it was "
            "made (backups leave it out).",
            details=cause.message,
        ) from cause


def _unpack_tls(content: bytes, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as inner:
        for member in inner:
            file = inner.extractfile(member) if member.isreg() else None
            if file is not None:
                path = folder / Path(member.name).name
                path.touch(mode=0o600)
                path.write_bytes(file.read())


def _exchange_database(fresh: Path, place: Path) -> Path | None:
    """Put the new file in the old one's place at once; where the old one is now."""
    kept = None
    if place.exists():
        with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(place)) as old:
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what only its log has goes in
        stamp = clock.now().replace(":", "").replace("-", "")
        kept = place.with_name(f"{place.name}.before-{stamp}")
        os.link(place, kept)
    for suffix in ("-wal", "-shm"):  # they belong to the old one
        place.with_name(place.name + suffix).unlink(missing_ok=True)
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    fresh.replace(place)
    durable.sync_folder(place.parent)
    return kept
