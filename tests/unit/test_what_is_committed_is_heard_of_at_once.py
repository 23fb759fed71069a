"""A commit wakes those who wait for it; the index of admission follows it without being asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database

from controlplane.hook import indexing
from controlplane.hook.index import Index
from controlplane.store import starts
from controlplane.store.database import Store, open_store
from controlplane.workload import Workload

WAIT_S = 20.0
WORKLOAD = Workload("c1", "apps", "Deployment", "web", "main", "hash", "sha256:1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def put_start(uid: str) -> Callable[[Database], None]:
    """A write to one of the tables that admission's index is made of."""

    def write(db: Database) -> None:
        starts.put(db, WORKLOAD, uid, 1.0, restored=False)

    return write


async def test_a_commit_sets_the_event_of_its_tables_only(store: Store) -> None:
    with store.revisions.news("starts") as news, store.revisions.news("grants") as others:
        await store.write(put_start("a"))
        async with asyncio.timeout(WAIT_S):
            await news.wait()
        news.clear()
        await store.write(lambda db: db.execute("INSERT INTO settings VALUES ('a', 'b')"))
        assert not news.is_set()
        assert not others.is_set()


async def test_who_waits_no_longer_is_not_woken(store: Store) -> None:
    with store.revisions.news("starts") as news:
        pass
    await store.write(put_start("a"))
    assert not news.is_set()


def test_a_loop_that_has_ended_does_not_stop_the_writer(store: Store) -> None:
    async def wait(left: ExitStack) -> None:
        left.enter_context(store.revisions.news("starts"))

    async def write() -> int:
        await store.write(put_start("a"))
        await store.write(put_start("b"))
        return store.revisions.of("starts")

    with ExitStack() as left:
        asyncio.run(wait(left))
        assert asyncio.run(write()) == 2


class Followed:
    """The index as it is made, with the moments."""

    def __init__(self) -> None:
        self.made: list[tuple[float, Index]] = []
        self.told = asyncio.Event()

    def __call__(self, index: Index) -> None:
        self.made.append((time.monotonic(), index))
        self.told.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.made) < count:
                self.told.clear()
                await self.told.wait()


@asynccontextmanager
async def following(store: Store) -> AsyncIterator[Followed]:
    followed = Followed()
    task = asyncio.create_task(indexing.follow(store, followed))
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_index_follows_a_commit_without_a_wait(store: Store) -> None:
    took = []
    async with following(store) as followed:
        await followed.wait(1)
        for number in range(20):
            made = len(followed.made)
            await store.write(put_start(str(number)))
            committed = time.monotonic()
            await followed.wait(made + 1)
            took.append(followed.made[-1][0] - committed)
    assert min(took) < 0.1, took  # the rest and the making; the machine may have been busy at times


async def test_commits_without_end_do_not_keep_it_busy_all_the_time(store: Store) -> None:
    async with following(store) as followed:
        await followed.wait(1)
        began, number = time.monotonic(), 0
        while time.monotonic() - began < 1.0:
            number += 1
            await store.write(put_start(str(number)))
        # at most one for each rest, however many commits there were
        assert len(followed.made) - 1 <= (time.monotonic() - began) / indexing.REST_S[0] + 1
        before = len(followed.made)
        await store.write(put_start("last"))
        await followed.wait(before + 1)
