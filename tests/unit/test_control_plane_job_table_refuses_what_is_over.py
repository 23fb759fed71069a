"""The job table on a real file: transitions, leases, repeated news, comparison of journals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from controlplane.identity import Actor, Role
from controlplane.jobs import intake, transitions
from controlplane.jobs.intake import Brief, Journal
from controlplane.store import jobs as rows
from controlplane.store.database import Store, open_store
from controlplane.store.records import (
    ENDED,
    Job,
    JobKind,
    JobResult,
    JobSpec,
    JobState,
    JobUpdate,
)
from controlplane.store.requests import NewJob

NODE = ("dev", "node-1")
ACTOR = Actor("ann", Role.OPERATOR)


class NoEffects:
    """Nothing follows."""

    def apply(self, db: Database, job: Job) -> None: ...

    async def after(self, job: Job) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def new(node: str = "node-1") -> NewJob:
    return NewJob(JobKind.CHECKPOINT, "dev", node, JobSpec(), ACTOR, "Create Checkpoint")


def news(job: Job, sequence: int, state: str, **more: object) -> JobUpdate:
    fields = {"job_id": job.id, "epoch": job.epoch, "sequence": sequence, "state": JobState(state)}
    return JobUpdate(**fields | more)  # type: ignore[arg-type]


async def take(store: Store, *updates: JobUpdate, node: tuple[str, str] = NODE) -> int:
    [(up_to, _)] = await store.write(lambda db: intake.store(db, {node: updates}, NoEffects()))
    return up_to


async def find(store: Store, job: Job) -> Job:
    found = await store.read(lambda db: rows.find(db, job.id))
    assert found is not None
    return found


async def insert(store: Store, request: NewJob) -> Job:
    return await store.write(lambda db: rows.insert(db, request))


@pytest.mark.parametrize("ended", sorted(ENDED))
@pytest.mark.parametrize("state", list(JobState))
async def test_nothing_follows_an_end(store: Store, ended: JobState, state: JobState) -> None:
    job = await insert(store, new())
    await take(store, news(job, 1, ended))
    await take(store, news(job, 2, state, message="late"))
    found = await find(store, job)
    assert (found.state, found.message) == (ended, "")


def test_the_table_knows_every_state() -> None:
    assert set(transitions.TRANSITIONS) == set(JobState)


async def test_an_older_lease_is_refused(store: Store) -> None:
    job = await insert(store, new())
    done = await store.write(lambda db: intake.reconcile(db, NODE, Journal(0), NoEffects()))
    assert [again.epoch for again in done.start] == [2]
    assert await take(store, news(job, 1, "completed")) == 1  # seen, and not taken
    assert (await find(store, job)).state is JobState.QUEUED
    await take(store, news(done.start[0], 2, "completed"))
    assert (await find(store, job)).state is JobState.COMPLETED


async def test_repeated_news_change_nothing(store: Store) -> None:
    job = await insert(store, new())
    await take(store, news(job, 5, "running", progress=70.0))
    assert await take(store, news(job, 5, "running", progress=10.0)) == 5
    assert await take(store, news(job, 4, "failed")) == 5
    found = await find(store, job)
    assert (found.state, found.progress) == (JobState.RUNNING, 70.0)


async def test_progress_is_coalesced_and_results_are_not(store: Store) -> None:
    jobs = [await insert(store, new()) for _ in range(3)]
    batch = [news(jobs[0], n, "running", progress=float(n)) for n in range(1, 50)]
    batch.append(news(jobs[1], 50, "completed", result=JobResult(report_json="{}")))
    batch.append(news(jobs[2], 51, "running"))
    batch.append(news(jobs[2], 52, "failed"))
    assert await take(store, *batch) == 52
    states = [(await find(store, job)).state for job in jobs]
    assert states == [JobState.RUNNING, JobState.COMPLETED, JobState.FAILED]
    assert (await find(store, jobs[0])).progress == 49.0
    assert (await find(store, jobs[1])).result == JobResult(report_json="{}")


async def test_rate_and_remaining_time_are_kept_while_they_are_true(store: Store) -> None:
    job = await insert(store, new())
    count = {"bytes_done": 300, "bytes_total": 1000, "bytes_per_s": 200}
    await take(store, news(job, 1, "running"), news(job, 2, "running", **count))
    found = await find(store, job)
    assert (found.bytes_per_s, found.remaining_s) == (200, 3.5)
    await take(store, news(job, 3, "running", message="something without bytes"))
    found = await find(store, job)
    assert (found.bytes_done, found.bytes_total) == (300, 1000)
    assert (found.bytes_per_s, found.remaining_s) == (0, None)
    await take(store, news(job, 4, "running", bytes_done=0, bytes_total=5000))  # another step
    found = await find(store, job)
    assert (found.bytes_done, found.bytes_total, found.remaining_s) == (0, 5000, None)


async def test_a_lost_node_says_nothing_of_its_speed(store: Store) -> None:
    job = await insert(store, new())
    count = {"bytes_done": 300, "bytes_total": 1000, "bytes_per_s": 200}
    await take(store, news(job, 1, "running", **count))
    await store.write(lambda db: rows.set_agent_lost(db, [NODE], lost=True))
    found = await find(store, job)
    assert (found.bytes_done, found.bytes_per_s, found.remaining_s) == (300, 0, None)


@pytest.mark.parametrize(("state", "done"), [("completed", 1000), ("failed", 300)])
async def test_an_ended_job_moves_no_bytes(store: Store, state: str, done: int) -> None:
    job = await insert(store, new())
    count = {"bytes_done": 300, "bytes_total": 1000, "bytes_per_s": 200}
    await take(store, news(job, 1, "running", **count))
    await take(store, news(job, 2, state, bytes_per_s=200))
    found = await find(store, job)
    assert (found.bytes_done, found.bytes_total) == (done, 1000)
    assert (found.bytes_per_s, found.remaining_s) == (0, None)


async def test_news_of_another_nodes_job_are_refused(store: Store) -> None:
    job = await insert(store, new("node-2"))
    await take(store, news(job, 1, "completed"))
    assert (await find(store, job)).state is JobState.QUEUED


async def test_journals_are_compared(store: Store) -> None:
    known, unknown, ended, stale = [await insert(store, new()) for _ in range(4)]
    await store.write(lambda db: rows.store_sequences(db, {NODE: 7}))
    stale = await store.write(lambda db: _renewed(db, stale))
    journal = Journal(
        9,
        {
            known.id: Brief(1, JobState.RUNNING),
            ended.id: Brief(1, JobState.COMPLETED),
            stale.id: Brief(1, JobState.RUNNING),
            "CLOSED-HERE": Brief(3, JobState.RUNNING),
            "OLD-STORY": Brief(1, JobState.FAILED),
        },
    )
    done = await store.write(lambda db: intake.reconcile(db, NODE, journal, NoEffects()))
    assert done.up_to_sequence == 7
    assert sorted((job.id, job.epoch) for job in done.start) == sorted(
        [(unknown.id, 2), (stale.id, 2)]
    )
    assert done.cancel == [("CLOSED-HERE", 3)]


async def test_a_node_that_lost_its_journal_counts_anew(store: Store) -> None:
    job = await insert(store, new())
    await take(store, news(job, 900, "running"))
    done = await store.write(lambda db: intake.reconcile(db, NODE, Journal(0), NoEffects()))
    assert done.up_to_sequence == 0
    await take(store, news(done.start[0], 1, "completed"))
    assert (await find(store, job)).state is JobState.COMPLETED


async def test_a_lost_node_keeps_its_job_and_a_late_result_counts(store: Store) -> None:
    job = await insert(store, new())
    await insert(store, new())
    await take(store, news(job, 1, "running"))
    assert await store.read(rows.busy_nodes) == [NODE]
    await store.write(lambda db: rows.set_agent_lost(db, [NODE], lost=True))
    assert await store.read(rows.busy_nodes) == []  # it is known by now
    lost = await find(store, job)
    assert (lost.state, lost.agent_lost) == (JobState.RUNNING, True)
    await take(store, news(job, 2, "completed"))
    late = await find(store, job)
    assert (late.state, late.agent_lost) == (JobState.COMPLETED, False)


def _renewed(db: Database, job: Job) -> Job:
    db.execute("UPDATE jobs SET epoch = 2 WHERE id = ?", [job.id])
    found = rows.find(db, job.id)
    assert found is not None
    return found


async def test_a_job_has_one_name_whatever_its_node_calls_it(store: Store) -> None:
    job = await insert(store, new())
    await take(store, news(job, 1, "running", task_name="Something Else"))
    assert (await find(store, job)).task_name == "Create Checkpoint"
