"""The store: one SQLite file, one thread that writes, a few that read.

How to use it: a query is a plain function of the open database, run by ``await store.read(fn)`` or
``await store.write(fn)``::

    user = await store.read(lambda db: users.find(db, username))
    await store.write(lambda db: users.insert(db, user))

A write returns after its transaction is on disk (WAL, ``synchronous=FULL``). Writes that wait
together share one commit, each inside a savepoint of its own: one that raises is undone alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlite_utils import Database

from controlplane.errors import INSUFFICIENT_STORAGE, Broken
from controlplane.store import migrations
from controlplane.store.revisions import Revisions

T = TypeVar("T")
Query = Callable[[Database], T]

FILE: Final = "snap.db"
_READERS: Final = 3
_TOGETHER: Final = 256  # writes that share one commit at most; bounds the time that one waits
_log = logging.getLogger(__name__)


class Store:
    """The open database of one data folder, made by ``open_store``; ``close`` unlocks it."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self._path = path
        self._lock_fd = lock_fd
        self._local = threading.local()
        self._opened: list[Database] = []
        self.revisions: Final = Revisions()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._writes: queue.SimpleQueue[tuple[Query[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._writer.start()

    async def read(self, query: Query[T]) -> T:
        """What ``query`` finds in a snapshot of the database; it can't write."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, query)

    async def write(self, query: Query[T]) -> T:
        """Run ``query`` in a transaction; return when that is on disk.

        A cancelled caller does not undo it: the write happens or not, as a whole.

        Raises:
            Exception: what ``query`` raised; its own changes are undone then.
        """
        future: Future[T] = Future()
        self._writes.put((query, future))
        return await asyncio.shield(asyncio.wrap_future(future))

    def close(self) -> None:
        """Finish the writes that were given, close all connections, unlock the folder. Blocks."""
        self._writes.put(None)
        self._writer.join()
        self._readers.shutdown()
        for database in self._opened:
            database.close()
        os.close(self._lock_fd)

    def _read(self, query: Query[T]) -> T:
        database: Database | None = getattr(self._local, "database", None)
        if database is None:
            database = connect(self._path)
            database.execute("PRAGMA query_only=on")
            self._local.database = database
            self._opened.append(database)
        database.execute("BEGIN")  # several statements of one query see one snapshot
        try:
            return query(database)
        finally:
            database.conn.rollback()

    def _write_loop(self) -> None:
        database = connect(self._path)
        self.revisions.watch(database)
        going = True
        while going:
            batch, going = self._next_batch()
            if batch:
                _commit_together(database, batch, self.revisions.committed)
        database.close()

    def _next_batch(self) -> tuple[list[tuple[Query[Any], Future[Any]]], bool]:
        """Wait for a write, then take what else is there already; False as second: that was all."""
        batch: list[tuple[Query[Any], Future[Any]]] = []
        item = self._writes.get()
        while item is not None:
            batch.append(item)
            if len(batch) == _TOGETHER:
                return batch, True
            try:
                item = self._writes.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False


def open_store(data_dir: Path) -> Store:
    """Open the database in ``data_dir``, made and brought up to date if need be. Blocks.

    Raises:
        Broken: another process uses the folder, it can't be made, the file is damaged, or a newer
            version wrote it.
    """
    make_folder(data_dir)
    lock_fd = _lock(data_dir)
    try:
        path = data_dir / FILE
        prepare(path)
        return Store(path, lock_fd)
    except BaseException:
        os.close(lock_fd)
        raise


def make_folder(data_dir: Path) -> None:
    """Make the data folder, 0700, if it is not there. Blocks.

    Raises:
        Broken: it can't be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as cause:
        raise Broken(
            f"The data folder {data_dir} can't be made ({cause.strerror}); "
            "give another one by SNAP_DATA_DIR."
        ) from cause


@contextmanager
def lock_folder(data_dir: Path) -> Iterator[None]:
    """Keep every other process off the folder for the block. Blocks.

    Raises:
        Broken: another process uses it.
    """
    lock_fd = _lock(data_dir)
    try:
        yield
    finally:
        os.close(lock_fd)


@contextmanager
def locked_database(data_dir: Path) -> Iterator[Database]:
    """The database, up to date and for this block alone; for commands that need the server stopped. Blocks.

    Raises:
        Broken: as ``open_store``; or there is none.
    """
    path = data_dir / FILE
    if not path.exists():
        raise Broken(f"There is no database in {data_dir}; set SNAP_DATA_DIR.")
    with lock_folder(data_dir):
        prepare(path)
        database = connect(path)
        try:
            yield database
        finally:
            database.close()


def connect(path: Path) -> Database:
    """A connection to the database file with the settings that all of ours have."""
    plain = sqlite3.connect(path, check_same_thread=False, timeout=10, cached_statements=256)
    database = Database(plain, recursive_triggers=False, execute_plugins=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA foreign_keys=ON")
    return database


def _lock(data_dir: Path) -> int:
    try:
        lock_fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as cause:
        raise Broken(
            f"The data folder {data_dir} can't be written ({cause.strerror}); "
            "this user needs to own it, or give another one by SNAP_DATA_DIR."
        ) from cause
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip()
        os.close(lock_fd)
        raise Broken(
            f"The data folder {data_dir} is in use by another snap-api (process {holder or '?'}); "
            "stop that one first or give this one another SNAP_DATA_DIR."
        ) from cause
    with contextlib.suppress(OSError):  # a full disk; what follows says so
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, str(os.getpid()).encode(), 0)
    return lock_fd


def prepare(path: Path) -> None:
    """Check the file, and bring its schema up to date. Blocks.

    Raises:
        Broken: it is damaged, or a newer version wrote it.
    """
    path.touch(mode=0o600)
    try:
        database = connect(path)
        try:
            _check_integrity(path, database)
            _migrate(path, database)
        finally:
            database.close()
    except sqlite3.DatabaseError as cause:
        if _is_full(cause):
            raise _unwritten(cause) from cause
        raise Broken(_damaged(path), details=str(cause)) from cause


def _check_integrity(path: Path, database: Database) -> None:
    answer = database.execute("PRAGMA integrity_check(5)").fetchall()
    if answer != [("ok",)]:
        raise Broken(_damaged(path), details="; ".join(str(row[0]) for row in answer))


def _damaged(path: Path) -> str:
    return f"The database {path} is damaged; restore the data folder from a backup."


def _migrate(path: Path, database: Database) -> None:
    found = int(database.execute("PRAGMA user_version").fetchone()[0])
    known = len(migrations.STEPS)
    if found > known:
        raise Broken(
            f"The database {path} was written by a newer version of SNAP (schema {found}, this one "
            f"knows up to {known}); install that version or restore a backup made by this one."
        )
    for number, step in enumerate(migrations.STEPS[found:], start=found + 1):
        script = f"BEGIN IMMEDIATE; {step}; PRAGMA user_version={number}; COMMIT;"
        database.conn.executescript(script)
        _log.info("database schema is now %d", number)


def _commit_together(
    database: Database,
    batch: list[tuple[Query[Any], Future[Any]]],
    committed: Callable[[], None],
) -> None:
    """Run every write of the batch in its own savepoint, commit once, then tell the callers."""
    done: list[tuple[Future[Any], Any]] = []
    failed: list[tuple[Future[Any], Exception]] = []
    try:
        database.execute("BEGIN IMMEDIATE")
        for query, future in batch:
            try:
                with database.atomic():
                    done.append((future, query(database)))
            except Exception as error:
                if not database.conn.in_transaction:  # a full disk ends the whole transaction
                    raise sqlite3.OperationalError(str(error)) from error
                failed.append((future, _told(error)))
        database.execute("COMMIT")
        committed()
    except sqlite3.Error as error:  # disk full, I/O error: nobody's write happened
        database.conn.rollback()
        broken = _unwritten(error)
        done, failed = [], [(future, broken) for _, future in batch]
    for future, value in done:
        if not future.cancelled():
            future.set_result(value)
    for future, failure in failed:
        if not future.cancelled():
            future.set_exception(failure)


def _told(error: Exception) -> Exception:
    """What the caller of a write that failed alone gets to see."""
    return _unwritten(error) if isinstance(error, sqlite3.Error) and _is_full(error) else error


def _is_full(error: sqlite3.Error) -> bool:
    return "disk is full" in str(error)  # its code is lost where the whole transaction was ended


def _unwritten(error: sqlite3.Error) -> Broken:
    if _is_full(error):
        return Broken(
            "The control plane's disk is full, nothing was changed; make room in its data folder.",
            code=INSUFFICIENT_STORAGE,
            details=str(error),
        )
    return Broken("The database could not be written.", details=str(error))
