"""News of many nodes share a transaction; one node's trouble is its own; each hears when its own are on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from controlplane.identity import Actor, Role
from controlplane.jobs.gathering import Gathering
from controlplane.store import jobs as rows
from controlplane.store.database import Query, Store, T, open_store
from controlplane.store.records import Job, JobKind, JobResult, JobSpec, JobState, JobUpdate
from controlplane.store.requests import NewJob


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
    assert await store.read(lambda db: rows.stored_sequence(db, "dev", "cursed")) == 0


async def test_older_leases_are_refused_among_others(store: Counted) -> None:
    job = await insert(store, "node-1")
    told: list[Job] = []
    gathering = Gathering(store, Effects(), told.append, spawn)
    late = news(job, 1, "completed", epoch=0)
    assert await gathering.take(("dev", "node-1"), [late]) == 1
    assert told == []
    assert (await store.read(lambda db: rows.find(db, job.id))) == job
