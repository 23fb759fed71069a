"""An answer is kept until what it was made of changes, and made once however many ask."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlite_utils import Database

from controlplane.api.remembering import Remembered
from controlplane.store import checkpoints, clock
from controlplane.store.database import open_store
from controlplane.store.records import Checkpoint, CheckpointStatus


class Maker:
    """Counts how often it was asked; waits until it may answer."""

    def __init__(self) -> None:
        self.made = 0
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self) -> bytes:
        self.made += 1
        await self.may.wait()
        return b"x" * 10


async def test_an_answer_is_made_again_only_after_a_change() -> None:
    kept, make = Remembered(), Maker()
    for revision, made in ((1, 1), (1, 1), (2, 2), (2, 2)):
        assert await kept.answer("list", revision, make) == b"x" * 10
        assert make.made == made
    await kept.answer("another", 2, make)
    assert make.made == 3


async def test_many_who_ask_at_once_wait_for_one_making() -> None:
    kept, make = Remembered(), Maker()
    make.may.clear()
    asking = [asyncio.create_task(kept.answer("list", 1, make)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()  # whoever began it hangs up
    await asyncio.sleep(0)
    make.may.set()
    answers = await asyncio.gather(*asking[1:])
    assert answers == [b"x" * 10] * 19
    assert make.made == 1


async def test_a_making_that_fails_is_not_kept() -> None:
    kept, make = Remembered(), Maker()

    async def fail() -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await kept.answer("list", 1, fail)
    assert await kept.answer("list", 1, make) == b"x" * 10


async def test_what_was_asked_for_longest_ago_is_forgotten_first() -> None:
    kept, make = Remembered(limit_bytes=25), Maker()
    for key in ("a", "b", "a", "c", "a"):
        await kept.answer(key, 1, make)
    assert make.made == 3
    await kept.answer("b", 1, make)
    assert make.made == 4


async def test_a_change_of_a_checkpoint_is_another_revision_when_its_caller_hears(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    try:
        checkpoint = Checkpoint(
            id=clock.new_ulid(),
            job_id="j",
            cluster="c",
            node="n",
            namespace="d",
            pod_name="p",
            container_name="app",
            filename="p.tar",
            status=CheckpointStatus.PENDING,
            owner="o",
            created_at=clock.now(),
        )
        first = store.revisions.of("checkpoints", "images")
        await store.write(lambda db: checkpoints.insert(db, checkpoint))
        second = store.revisions.of("checkpoints", "images")
        assert second != first
        await store.write(lambda db: db.execute("INSERT INTO settings VALUES ('a', 'b')"))
        assert store.revisions.of("checkpoints", "images") == second

        def undone(db: Database) -> None:
            checkpoints.update(db, checkpoint)

        await store.write(undone)
        assert store.revisions.of("checkpoints", "images") != second
    finally:
        store.close()
