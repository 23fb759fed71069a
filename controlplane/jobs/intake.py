"""What agents report, put into the table: each batch in one transaction, older leases refused."""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec
from sqlite_utils import Database

from controlplane.jobs import transitions
from controlplane.store import clock
from controlplane.store import jobs as rows
from controlplane.store.records import ENDED, Job, JobKind, JobState, JobUpdate

_log = logging.getLogger(__name__)
_sequence = operator.attrgetter("sequence")
Node = tuple[str, str]  # cluster, node


class Effects(Protocol):
    """What a job's news mean to other rows (``checkpoints.outcomes``)."""

    def apply(self, db: Database, job: Job) -> None:
        """Called inside the transaction that stores the job's new state or result."""
        ...

    async def after(self, job: Job) -> None:
        """Called once that transaction is on disk, when the job has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Brief:
    """What an agent's journal says of a job."""

    epoch: int
    state: JobState


@dataclass(frozen=True, slots=True)
class Journal:
    """What a node says of itself when it comes back.

    Attributes:
        last_sequence: the highest sequence that it has given out.
        jobs: by id.
    """

    last_sequence: int
    jobs: Mapping[str, Brief] = field(default_factory=dict)


class Stored(NamedTuple):
    """What came of a node's news: up to which sequence they are stored, the jobs that changed."""

    up_to_sequence: int
    changed: list[Job]


@dataclass(slots=True)
class Reconciled:
    """What came of comparing a journal with the table.

    Attributes:
        up_to_sequence: news up to here are stored.
        start: jobs to send (again); ``cancel``: (job id, epoch) to stop.
        changed: jobs whose row changed.
    """

    up_to_sequence: int
    start: list[Job] = field(default_factory=list)
    cancel: list[tuple[str, int]] = field(default_factory=list)
    changed: list[Job] = field(default_factory=list)


def store(db: Database, said: Mapping[Node, Sequence[JobUpdate]], effects: Effects) -> list[Stored]:
    """Store news of nodes, each node's as it said them; what came of each, in the same order.

    News that were stored before are skipped, so what is repeated changes nothing. Of a job's
    progress only the last is written. Rows are read and written many at a time: by far most news
    are of progress.
    """
    before = rows.stored_sequences(db, list(said))
    fresh = {node: _fresh(updates, before[node]) for node, updates in said.items()}
    wanted = {news.job_id for updates in fresh.values() for news in updates}
    intake = _Intake(db, effects, rows.find_several(db, sorted(wanted)))
    done = [
        Stored(updates[-1].sequence if updates else before[node], intake.take(node, updates))
        for node, updates in fresh.items()
    ]
    rows.update_progress(db, intake.progressed.values())
    moved = {n: updates[-1].sequence for n, updates in fresh.items() if updates}
    rows.store_sequences(db, moved)
    return done


class _Intake:
    """The jobs that a batch of news is about, as they become one by one.

    Attributes:
        progressed: jobs of which only the progress has to be written yet.
    """

    def __init__(self, db: Database, effects: Effects, jobs: dict[str, Job]) -> None:
        self._db = db
        self._effects = effects
        self._jobs = jobs
        self._at = clock.now()
        self.progressed: dict[str, Job] = {}

    def take(self, node: Node, updates: Sequence[JobUpdate]) -> list[Job]:
        """The jobs that a node's news changed."""
        changed = {}
        for news in _coalesced(updates):
            job = self._advanced(node, news)
            if job is not None:
                changed[job.id] = job
        return list(changed.values())

    def _advanced(self, node: Node, news: JobUpdate) -> Job | None:
        job = self._jobs.get(news.job_id)
        if job is None or (job.cluster, job.node) != node:
            _log.warning(
                "node %s of %s reports on job %s, not its own", node[1], node[0], news.job_id
            )
            return None
        after = transitions.advance(job, news, self._at)
        if after is None:
            _log.info(
                "job %s is %s under epoch %d: news %s of epoch %d refused",
                *(job.id, job.state, job.epoch, news.state, news.epoch),
            )
            return None
        self._jobs[job.id] = kept = _without_report(after)
        changed_state = after.state is not job.state
        if changed_state or news.result is not None:
            self.progressed.pop(job.id, None)
            rows.update(self._db, kept, changed_state=changed_state)
            self._effects.apply(self._db, after)
        else:
            self.progressed[job.id] = kept
        return kept


def reconcile(db: Database, node: Node, journal: Journal, effects: Effects) -> Reconciled:
    """Compare a node's journal with the table after a time apart."""
    stored = rows.stored_sequences(db, [node])[node]
    if journal.last_sequence < stored:  # the node lost its journal and counts from the start
        stored = journal.last_sequence
        rows.store_sequences(db, {node: stored})
    done = Reconciled(stored)
    open_jobs = rows.open_jobs(db, *node)
    for job in open_jobs:
        _reconcile_job(db, job, journal.jobs.get(job.id), done, effects)
    known = {job.id for job in open_jobs}
    done.cancel += [  # the table has closed these
        (job_id, brief.epoch)
        for job_id, brief in journal.jobs.items()
        if job_id not in known and brief.state not in ENDED
    ]
    return done


def _reconcile_job(
    db: Database, job: Job, brief: Brief | None, done: Reconciled, effects: Effects
) -> None:
    if brief is not None:
        if brief.epoch < job.epoch:
            done.start.append(job)  # it has the job under a lease that was renewed since
        if job.cancel_requested and brief.state not in ENDED:
            done.cancel.append((job.id, job.epoch))
        current = msgspec.structs.replace(job, agent_lost=False)
    elif job.cancel_requested:
        message = "Cancelled; the node did not know of it."
        current = transitions.ended_here(job, JobState.CANCELLED, message)
    else:
        current = msgspec.structs.replace(
            job, epoch=job.epoch + 1, agent_lost=False, updated_at=clock.now()
        )
        done.start.append(current)
    if current != job:
        rows.update(db, current, changed_state=current.state is not job.state)
        effects.apply(db, current)
        done.changed.append(current)


def _without_report(job: Job) -> Job:
    """The job as it may lie in the table: what a report shows was in a process's memory."""
    if job.kind is not JobKind.ANALYZE or job.result is None:
        return job
    return msgspec.structs.replace(job, result=msgspec.structs.replace(job.result, report_json=""))


def _fresh(updates: Sequence[JobUpdate], stored: int) -> list[JobUpdate]:
    """The updates that are not stored yet, in the order in which they were made."""
    return sorted((u for u in updates if u.sequence > stored), key=_sequence)


def _coalesced(updates: Sequence[JobUpdate]) -> list[JobUpdate]:
    """The updates without progress that a later one in the batch overtakes."""
    latest = {u.job_id: u.sequence for u in updates}
    return [
        u
        for u in updates
        if u.state in ENDED or u.result is not None or u.sequence == latest[u.job_id]
    ]
