"""News of many nodes share a transaction; one node's trouble is its own; each hears when its own are on disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from controlplane.identity import Actor, Role
from controlplane.jobs.gathering import Gathering
from controlplane.jobs.pacing import SLOW_S
from controlplane.store import jobs as rows
from controlplane.store.database import Query, Store, T, open_store
from controlplane.store.records import Job, JobKind, JobResult, JobSpec, JobState, JobUpdate
from controlplane.store.requests import NewJob
from tests.fakes.jobs import until


class Counted(Store):
    """The store, counting writes."""

    writes = 0

    async def write(self, query: Query[T]) -> T:
        self.writes += 1
        return await super().write(query)


class Effects:
    """Fails for the jobs of one node, when they end."""

    def apply(self, db: Database, job: Job) -> None:
        if job.node == "cursed":
            raise ValueError("not this one")

    async def after(self, job: Job) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Counted]:
    opened = open_store(tmp_path)
    opened.__class__ = Counted
    assert isinstance(opened, Counted)
    yield opened
    opened.close()


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


async def insert(store: Store, node: str) -> Job:
    new = NewJob(JobKind.CHECKPOINT, "dev", node, JobSpec(), Actor("ann", Role.OPERATOR), "Task")
    return await store.write(lambda db: rows.insert(db, new))


def news(job: Job, sequence: int, state: str = "running", **more: Any) -> JobUpdate:
    fields = {"job_id": job.id, "epoch": job.epoch, "sequence": sequence, "state": JobState(state)}
    return JobUpdate(**fields | more)  # type: ignore[arg-type]


async def test_what_comes_together_is_one_write(store: Counted) -> None:
    jobs = [await insert(store, f"node-{n}") for n in range(50)]
    told: list[Job] = []
    gathering = Gathering(store, Effects(), told.append, spawn)
    before = store.writes
    sequences = await asyncio.gather(
        *(gathering.take(("dev", job.node), [news(job, 7, progress=5.0)]) for job in jobs)
    )
    assert sequences == [7] * 50
    assert store.writes == before + 1
    assert {job.id for job in told} == {job.id for job in jobs}
    assert all(job.progress == 5.0 for job in told)


async def test_progress_is_coalesced_per_job_over_frames_and_results_never_are(
    store: Counted,
) -> None:
    first, second = await insert(store, "node-1"), await insert(store, "node-1")
    told: list[Job] = []
    gathering = Gathering(store, Effects(), told.append, spawn)
    frames = [[news(first, n, progress=float(n))] for n in range(1, 10)]
    frames.append([news(second, 10, "completed", result=JobResult(report_json="kept"))])
    frames.append([news(first, 11, progress=11.0)])
    await asyncio.gather(*(gathering.take(("dev", "node-1"), frame) for frame in frames))
    assert [(job.id, job.progress) for job in told] == [(second.id, 100.0), (first.id, 11.0)]
    assert told[0].result == JobResult(report_json="kept")


async def test_one_that_can_not_be_stored_hinders_nobody(store: Counted) -> None:
    good, bad = await insert(store, "good"), await insert(store, "cursed")
    told: list[Job] = []
    gathering = Gathering(store, Effects(), told.append, spawn)
    taken = await asyncio.gather(
        gathering.take(("dev", "cursed"), [news(bad, 3, "completed")]),
        gathering.take(("dev", "good"), [news(good, 4, "completed")]),
        return_exceptions=True,
    )
    assert isinstance(taken[0], ValueError)
    assert taken[1] == 4
    assert [job.id for job in told] == [good.id]
    assert (await store.read(lambda db: rows.find(db, bad.id))) == bad
    cursed = ("dev", "cursed")
    assert await store.read(lambda db: rows.stored_sequences(db, [cursed])) == {cursed: 0}


async def test_older_leases_are_refused_among_others(store: Counted) -> None:
    job = await insert(store, "node-1")
    told: list[Job] = []
    gathering = Gathering(store, Effects(), told.append, spawn)
    late = news(job, 1, "completed", epoch=0)
    assert await gathering.take(("dev", "node-1"), [late]) == 1
    assert told == []
    assert (await store.read(lambda db: rows.find(db, job.id))) == job


async def test_what_is_told_is_what_lies_in_the_table(store: Counted) -> None:
    """Progress before and after a change of state, in one batch: the last word wins in both places."""
    jobs = [await insert(store, f"node-{n}") for n in range(3)]
    told: list[Job] = []
    gathering = Gathering(store, Effects(), told.append, spawn)
    await asyncio.gather(
        gathering.take(("dev", "node-0"), [news(jobs[0], 1, progress=3.0, message="reads")]),
        gathering.take(
            ("dev", "node-1"),
            [
                news(jobs[1], 4, progress=40.0, message="pushes", result=JobResult()),
                news(jobs[1], 5, progress=50.0, bytes_done=7),
            ],
        ),
        gathering.take(("dev", "node-2"), [news(jobs[2], 9, "completed")]),
    )
    stored = [await store.read(lambda db, one=job: rows.find(db, one.id)) for job in jobs]  # type: ignore[misc]
    assert told == stored
    assert [job.progress for job in told] == [3.0, 50.0, 100.0]
    assert (told[1].message, told[1].bytes_done) == ("pushes", 7)


async def test_each_node_has_its_own_sequence(store: Counted) -> None:
    nodes = [("dev", "a"), ("dev", 'b"]'), ("other", "a"), ("dev", "never seen")]
    await store.write(lambda db: rows.store_sequences(db, {n: i for i, n in enumerate(nodes[:3])}))
    found = await store.read(lambda db: rows.stored_sequences(db, nodes))
    assert found == dict(zip(nodes, [0, 1, 2, 0], strict=True))


async def test_agents_are_asked_for_fewer_news_once_storing_takes_long(store: Counted) -> None:
    job = await insert(store, "node-1")
    gathering = Gathering(store, Effects(), lambda _: None, spawn)
    held = threading.Event()
    holding = asyncio.create_task(store.write(lambda _: held.wait(30)))
    storing = asyncio.create_task(gathering.take(("dev", "node-1"), [news(job, 1, progress=5.0)]))
    loop = asyncio.get_running_loop()
    loop.call_later(2 * SLOW_S, held.set)
    assert await storing == 1
    await holding
    await until(lambda: gathering.pace.every_s() > SLOW_S)
