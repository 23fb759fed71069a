"""The store on a real file: transactions, lock, schema, damage, sealed secrets."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from controlplane.errors import Broken
from controlplane.store import clock, secrets
from controlplane.store.database import Store, open_store
from controlplane.store.secrets import Sealer, open_sealer

COUNT = "SELECT count(*) FROM settings"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def put(db: Database, name: str) -> None:
    db.execute("INSERT INTO settings (name, value) VALUES (?, '')", [name])


async def count(store: Store) -> int:
    return await store.read(lambda db: int(db.execute(COUNT).fetchone()[0]))


async def test_a_write_that_raises_is_undone_alone(store: Store) -> None:
    def half(db: Database) -> None:
        put(db, "half")
        raise ValueError("no")

    tasks = [asyncio.create_task(store.write(lambda db, n=n: put(db, str(n)))) for n in range(50)]  # type: ignore[misc]
    with pytest.raises(ValueError, match="no"):
        await store.write(half)
    await asyncio.gather(*tasks)
    assert await count(store) == 50


async def test_a_transaction_that_the_database_ended_fails_all_its_writes(store: Store) -> None:
    def full_disk(db: Database) -> None:  # SQLite rolls everything back then
        db.conn.rollback()
        raise sqlite3.OperationalError("database or disk is full")

    entered, may_go = threading.Event(), threading.Event()

    def hold(_: Database) -> None:  # what comes meanwhile waits together
        entered.set()
        may_go.wait(5)

    blocked = asyncio.create_task(store.write(hold))
    await asyncio.to_thread(entered.wait, 5)
    tasks = [
        asyncio.create_task(store.write(write))
        for write in (lambda db: put(db, "before"), full_disk, lambda db: put(db, "after"))
    ]
    await asyncio.sleep(0)
    may_go.set()
    await blocked
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, Broken) for end in ends)
    assert await count(store) == 0
    await store.write(lambda db: put(db, "later"))
    assert await count(store) == 1


async def test_a_reader_can_not_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await store.read(lambda db: put(db, "x"))
    assert await count(store) == 0


async def test_a_cancelled_caller_does_not_undo_its_write(store: Store) -> None:
    task = asyncio.create_task(store.write(lambda db: put(db, "x")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.write(lambda db: put(db, "y"))
    assert await count(store) == 2


async def test_every_commit_is_synced(store: Store) -> None:
    def modes(db: Database) -> tuple[object, object]:
        synchronous = db.execute("PRAGMA synchronous").fetchone()[0]
        return db.execute("PRAGMA journal_mode").fetchone()[0], synchronous

    assert await store.write(modes) == ("wal", 2)  # 2 = FULL


def test_the_folder_is_locked(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Broken, match="in use by another snap-api"):
        open_store(tmp_path)


def test_it_opens_again_and_keeps_its_files_private(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    open_store(tmp_path).close()
    assert (tmp_path / "snap.db").stat().st_mode & 0o077 == 0


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    plain = sqlite3.connect(tmp_path / "snap.db")
    plain.execute("PRAGMA user_version=99")
    plain.close()
    with pytest.raises(Broken, match="newer version"):
        open_store(tmp_path)


@pytest.mark.parametrize("at", [0, 4096 * 3], ids=["header", "page"])
def test_a_damaged_file_is_refused(tmp_path: Path, at: int) -> None:
    open_store(tmp_path).close()
    file = tmp_path / "snap.db"
    content = bytearray(file.read_bytes())
    content[at : at + 512] = b"\xff" * 512
    file.write_bytes(bytes(content))
    with pytest.raises(Broken, match="damaged"):
        open_store(tmp_path)
    file.unlink()
    open_store(tmp_path).close()  # the lock was given back


async def test_secrets_are_sealed_under_their_names(store: Store, tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path, None)
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    await store.write(lambda db: sealer.put(db, "registry/a", b"password"))
    again = open_sealer(tmp_path, None)
    assert await store.read(lambda db: again.get(db, "registry/a")) == b"password"
    assert await store.read(lambda db: secrets.names(db, "registry/")) == ["registry/a"]
    sealed = sealer.seal("registry/a", b"password")
    assert b"password" not in sealed
    with pytest.raises(Broken, match="damaged"):
        sealer.open("registry/b", sealed)
    with pytest.raises(Broken, match="another key"):
        Sealer(b"k" * 32).open("registry/a", sealed)


@pytest.mark.parametrize("form", ["raw", "hex", "base64"])
def test_a_key_file_may_have_three_forms(tmp_path: Path, form: str) -> None:
    key = bytes(range(32))
    text = {"raw": key, "hex": key.hex().encode() + b"\n", "base64": base64.b64encode(key)}[form]
    (tmp_path / "key").write_bytes(text)
    assert open_sealer(tmp_path, tmp_path / "key").key_id == Sealer(key).key_id


@pytest.mark.parametrize("content", [b"", b"short", b"!" * 40], ids=repr)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(Broken):
        open_sealer(tmp_path, tmp_path / "key")


def test_ids_sort_in_the_order_they_were_made() -> None:
    ids = [clock.new_ulid() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(clock.is_ulid(one) for one in ids)
