"""Rows of the job table, the keys of repeated requests, and the sequence of each node's news."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from controlplane.store import clock
from controlplane.store.records import Job, JobFailure, JobKind, JobResult, JobSpec, JobState
from controlplane.store.requests import Idempotency, JobFilter, NewJob, Page

_COLUMNS: Final = (
    "id, kind, state, epoch, cluster, node, namespace, owner, initiator, broadcast, task_name, "
    "spec_json, progress, message, bytes_done, bytes_total, bytes_per_s, result_json, "
    "error_json, cancel_requested, agent_lost, created_at, started_at, updated_at, ended_at"
)
_spec = msgspec.json.Decoder(JobSpec)
_result = msgspec.json.Decoder(JobResult)
_failure = msgspec.json.Decoder(JobFailure)
_encode = msgspec.json.Encoder().encode


def insert(db: Database, new: NewJob) -> Job:
    """Store a new job as queued, epoch 1.

    Raises:
        sqlite3.IntegrityError: its id is taken.
    """
    at = clock.now()
    job = Job(
        id=new.job_id or clock.new_ulid(),
        kind=new.kind,
        state=JobState.QUEUED,
        epoch=1,
        cluster=new.cluster,
        node=new.node,
        namespace=new.namespace,
        owner=new.actor.username,
        initiator=new.actor.initiator,
        broadcast=new.actor.broadcast,
        task_name=new.task_name,
        spec=new.spec,
        created_at=at,
        updated_at=at,
    )
    db.execute(
        f"INSERT INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * 25)})",  # noqa: S608 - constants
        _values(job),
    )
    _record_event(db, job)
    return job


def update(db: Database, job: Job, *, changed_state: bool) -> None:
    """Store what may change of ``job``; a change of state goes into its history."""
    db.execute(
        "UPDATE jobs SET state = ?, epoch = ?, progress = ?, message = ?, task_name = ?, "
        "bytes_done = ?, bytes_total = ?, bytes_per_s = ?, result_json = ?, error_json = ?, "
        "cancel_requested = ?, agent_lost = ?, started_at = ?, updated_at = ?, ended_at = ? "
        "WHERE id = ?",
        [
            job.state,
            job.epoch,
            job.progress,
            job.message,
            job.task_name,
            job.bytes_done,
            job.bytes_total,
            job.bytes_per_s,
            _json(job.result),
            _json(job.error),
            job.cancel_requested,
            job.agent_lost,
            job.started_at,
            job.updated_at,
            job.ended_at,
            job.id,
        ],
    )
    if changed_state:
        _record_event(db, job)


def update_progress(db: Database, changed: Iterable[Job]) -> None:
    """Store how far jobs are, and nothing else of them: by far the most frequent change."""
    db.conn.executemany(
        "UPDATE jobs SET progress = ?, message = ?, task_name = ?, bytes_done = ?, "
        "bytes_total = ?, bytes_per_s = ?, agent_lost = ?, updated_at = ? WHERE id = ?",
        [
            (
                *(job.progress, job.message, job.task_name, job.bytes_done, job.bytes_total),
                *(job.bytes_per_s, job.agent_lost, job.updated_at, job.id),
            )
            for job in changed
        ],
    )


def find(db: Database, job_id: str) -> Job | None:
    """The job ``job_id``."""
    rows = _select(db, "WHERE id = ?", [job_id])
    return rows[0] if rows else None


def find_several(db: Database, job_ids: Sequence[str]) -> dict[str, Job]:
    """Those of these jobs that there are, by id."""
    found = _select(db, "WHERE id IN (SELECT value FROM json_each(?))", [_text(job_ids)])
    return {job.id: job for job in found}


def page(db: Database, wanted: JobFilter, limit: int, before: str | None) -> Page:
    """Jobs that match, newest first, with ids below ``before``."""
    terms: list[tuple[str, Any]] = [
        ("state = ?", wanted.state),
        ("kind = ?", wanted.kind),
        ("cluster = ?", wanted.cluster or None),
        ("node = ?", wanted.node or None),
        ("id < ?", before),
    ]
    if wanted.owner:
        terms.append(("(owner = ? OR broadcast = 1)", wanted.owner))
    used = [(term, value) for term, value in terms if value is not None]
    where = "WHERE " + " AND ".join(term for term, _ in used) if used else ""
    found = _select(
        db, f"{where} ORDER BY id DESC LIMIT ?", [*(value for _, value in used), limit + 1]
    )
    more = len(found) > limit
    return Page(tuple(found[:limit]), found[limit - 1].id if more else None)


def open_jobs(db: Database, cluster: str = "", node: str = "") -> list[Job]:
    """Jobs that have not ended, oldest first: of one node, or of all."""
    where, values = "WHERE state IN ('queued', 'running')", []
    if cluster:
        where, values = where + " AND cluster = ? AND node = ?", [cluster, node]
    return _select(db, f"{where} ORDER BY id", values)


def busy_nodes(db: Database) -> list[tuple[str, str]]:
    """(cluster, node) of jobs that have not ended and are not flagged as lost."""
    query = (
        "SELECT DISTINCT cluster, node FROM jobs WHERE state IN ('queued', 'running') "
        "AND agent_lost = 0"
    )
    return [(cluster, node) for cluster, node in db.execute(query)]


def set_agent_lost(db: Database, nodes: Sequence[tuple[str, str]], *, lost: bool) -> list[Job]:
    """Mark the open jobs of these nodes; the ones that changed."""
    changed = []
    for cluster, node in nodes:
        for job in open_jobs(db, cluster, node):
            if job.agent_lost != lost:
                marked = msgspec.structs.replace(job, agent_lost=lost, bytes_per_s=0)
                update(db, marked, changed_state=False)
                changed.append(marked)
    return changed


def find_repeated(db: Database, username: str, key: Idempotency) -> Job | None:
    """The job that this user's same request made before."""
    rows = _select(
        db,
        "WHERE id = (SELECT job_id FROM idempotency WHERE username = ? AND key = ? "
        "AND body_sha256 = ?)",
        [username, key.key, key.body_sha256],
    )
    return rows[0] if rows else None


def remember_request(db: Database, username: str, key: Idempotency, job_id: str) -> None:
    """Keep that this request made this job."""
    db.execute(
        "INSERT INTO idempotency (username, key, body_sha256, job_id, created_at) "
        "VALUES (?, ?, ?, ?, ?)",
        [username, key.key, key.body_sha256, job_id, clock.now()],
    )


def stored_sequences(db: Database, nodes: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Up to which sequence each node's news are stored."""
    found = db.execute(
        "SELECT cluster, node, last_sequence FROM json_each(?) AS wanted CROSS JOIN agents "
        "ON cluster = json_extract(wanted.value, '$[0]') "
        "AND node = json_extract(wanted.value, '$[1]')",
        [_text(nodes)],
    )
    known = {(cluster, node): int(sequence) for cluster, node, sequence in found}
    return {node: known.get(node, 0) for node in nodes}


def store_sequences(db: Database, stored: Mapping[tuple[str, str], int]) -> None:
    """Keep up to which sequence the news of these nodes are stored."""
    db.conn.executemany(
        "INSERT INTO agents (cluster, node, last_sequence) VALUES (?, ?, ?) "
        "ON CONFLICT (cluster, node) DO UPDATE SET last_sequence = excluded.last_sequence",
        [(*node, sequence) for node, sequence in stored.items()],
    )


def _select(db: Database, rest: str, values: Sequence[Any]) -> list[Job]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM jobs {rest}", list(values))  # noqa: S608 - constants
    return [_job(row) for row in rows]


def _job(row: sqlite3.Row | tuple[Any, ...]) -> Job:
    (job_id, kind, state, epoch, cluster, node, namespace, owner, initiator, broadcast, *rest) = row
    (task_name, spec, progress, message, bytes_done, bytes_total, bytes_per_s, *rest) = rest
    result, error, *flags = rest
    cancel_requested, agent_lost, created_at, started_at, updated_at, ended_at = flags
    return Job(
        id=job_id,
        kind=JobKind(kind),
        state=JobState(state),
        epoch=epoch,
        cluster=cluster,
        node=node,
        namespace=namespace,
        owner=owner,
        initiator=initiator,
        broadcast=bool(broadcast),
        task_name=task_name,
        spec=_spec.decode(spec),
        progress=progress,
        message=message,
        bytes_done=bytes_done,
        bytes_total=bytes_total,
        bytes_per_s=bytes_per_s,
        result=None if result is None else _result.decode(result),
        error=None if error is None else _failure.decode(error),
        cancel_requested=bool(cancel_requested),
        agent_lost=bool(agent_lost),
        created_at=created_at,
        started_at=started_at,
        updated_at=updated_at,
        ended_at=ended_at,
    )


def _values(job: Job) -> list[Any]:
    return [
        *(job.id, job.kind, job.state, job.epoch, job.cluster, job.node, job.namespace),
        *(job.owner, job.initiator, job.broadcast, job.task_name, _json(job.spec)),
        *(job.progress, job.message, job.bytes_done, job.bytes_total, job.bytes_per_s),
        *(_json(job.result), _json(job.error), job.cancel_requested, job.agent_lost),
        *(job.created_at, job.started_at, job.updated_at, job.ended_at),
    ]


def _json(value: msgspec.Struct | None) -> str | None:
    return None if value is None else _encode(value).decode()


def _text(values: Sequence[Any]) -> str:
    return _encode(values).decode()


def _record_event(db: Database, job: Job) -> None:
    db.execute(
        "INSERT INTO job_events (job_id, at, state, epoch, message) VALUES (?, ?, ?, ?, ?)",
        [job.id, job.updated_at, job.state, job.epoch, job.message],
    )
