"""``/jobs``: work that goes on, and how to end it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, ClassVar, Final, TypeVar

import msgspec
from msgspec import Meta

from controlplane.api.calls import Accepted, Call, Reply
from controlplane.api.fields import Cursor, Id, Limit, Name, NodeName
from controlplane.api.routing import Section
from controlplane.errors import Failed
from controlplane.identity import Role
from controlplane.store.records import Job, JobKind, JobState
from controlplane.store.requests import JobFilter

SECTION: Final = Section("Jobs", "Long work: its state, its result, its end.")
T = TypeVar("T")
Rate = Annotated[
    int | None,
    Meta(description="How fast bytes_done rises, over the last seconds; null while not known."),
]
Remaining = Annotated[
    float | None,
    Meta(description="Seconds that this step goes on at that rate; null while not known."),
]


class JobList(msgspec.Struct):
    """Which jobs."""

    aliases: ClassVar[dict[str, str]] = {"state": "status"}
    status: JobState | None = None
    kind: JobKind | None = None
    cluster_name: Name | None = None
    node_name: NodeName | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class JobWanted(msgspec.Struct):
    """Which job."""

    id: Id


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed."""

    code: str
    message: str
    details: str


class PushAnswer(msgspec.Struct, frozen=True):
    """One push that a job did."""

    checkpoint_id: str
    image: str
    image_digest: str
    size_bytes: int
    pushed_bytes: int
    duration_ms: float


class JobAnswer(msgspec.Struct, frozen=True):
    """One job."""

    job_id: str
    kind: str
    status: str
    task_name: str
    message: str
    progress: float
    cluster_name: str
    node_name: str
    namespace: str
    owner: str
    initiator: str
    checkpoint_ids: list[str]
    pushes: list[PushAnswer]
    error: JobError | None
    bytes_done: int
    bytes_total: int
    bytes_per_s: Rate
    remaining_s: Remaining
    cancel_requested: bool
    agent_lost: bool
    created_at: str
    started_at: str | None
    updated_at: str
    ended_at: str | None
    success: bool = True


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, newest first; ``next_cursor`` asks for more."""

    jobs: list[JobAnswer]
    next_cursor: str | None
    success: bool = True


@SECTION.route("GET", "/jobs", takes=JobList, gives=JobPage)
async def list_jobs(call: Call, wanted: JobList) -> JobPage:
    """Jobs, newest first: one's own and those of watchers and hooks; administrators see all."""
    found = await call.services.jobs.list(
        JobFilter(
            state=wanted.status,
            kind=wanted.kind,
            cluster=wanted.cluster_name or "",
            node=wanted.node_name or "",
        ),
        call.actor,
        wanted.limit,
        wanted.cursor,
    )
    return JobPage([describe(job) for job in found.items], found.next_cursor)


@SECTION.route("GET", "/jobs/{id}", takes=JobWanted, gives=JobAnswer, errors=("JOB_NOT_FOUND",))
async def get_job(call: Call, wanted: JobWanted) -> JobAnswer:
    """One job."""
    return describe(await call.services.jobs.get(wanted.id, call.actor))


@SECTION.route(
    "POST",
    "/jobs/{id}/cancel",
    takes=JobWanted,
    gives=JobAnswer,
    needs=Role.OPERATOR,
    errors=("JOB_NOT_FOUND", "CONFLICT"),
)
async def cancel_job(call: Call, wanted: JobWanted) -> JobAnswer:
    """Ask for a job's end; it is over when its node says so."""
    return describe(await call.services.jobs.cancel(wanted.id, call.actor))


def describe(job: Job) -> JobAnswer:
    """A job as users see it."""
    result, error = job.result, job.error
    spec = job.spec
    ids = [t.checkpoint_id for t in spec.checkpoint.containers] if spec.checkpoint else []
    ids += [push.checkpoint_id for push in spec.pushes] + list(spec.checkpoint_ids)
    return JobAnswer(
        job_id=job.id,
        kind=job.kind,
        status=job.state,
        task_name=job.task_name,
        message=job.message,
        progress=job.progress,
        cluster_name=job.cluster,
        node_name=job.node,
        namespace=job.namespace,
        owner=job.owner,
        initiator=job.initiator,
        checkpoint_ids=list(dict.fromkeys(ids)),
        pushes=[
            PushAnswer(
                p.checkpoint_id, p.image, p.digest, p.size_bytes, p.pushed_bytes, p.duration_ms
            )
            for p in (result.pushes if result else ())
        ],
        error=JobError(error.code, error.message, error.details) if error else None,
        bytes_done=job.bytes_done,
        bytes_total=job.bytes_total,
        bytes_per_s=job.bytes_per_s or None,
        remaining_s=job.remaining_s,
        cancel_requested=job.cancel_requested,
        agent_lost=job.agent_lost,
        created_at=job.created_at,
        started_at=job.started_at,
        updated_at=job.updated_at,
        ended_at=job.ended_at,
    )


async def outcome(
    call: Call, job: Job, wait: bool, answer: Callable[[Job], Awaitable[T]]
) -> T | Reply:
    """What a request that started ``job`` answers: its result, or 202 when it isn't waited for.

    202 is also the answer when the job takes longer than requests may, and when the server stops.

    Raises:
        Failed: the job failed or was cancelled.
    """
    if wait and not job.is_ended:
        job = await call.services.jobs.wait(job.id, call.services.settings.request_wait_s)
    if not job.is_ended or not wait:
        return Reply(Accepted(job.id, job.state), 202)
    if job.state is JobState.COMPLETED:
        return await answer(job)
    if job.error is not None:
        raise Failed(job.error.message, code=job.error.code, details=job.error.details)
    raise Failed(f"Job {job.id} was cancelled.", code="CONFLICT")
