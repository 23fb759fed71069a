"""What the news of a job mean to checkpoints: their states, their images, the grants to restore."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from sqlite_utils import Database

from controlplane import errors
from controlplane.checkpoints import podtemplates
from controlplane.checkpoints.grants import Grants
from controlplane.checkpoints.ports import Announcer
from controlplane.checkpoints.reports import WHOLE, Reports, forget_checkpoint
from controlplane.store import checkpoints as rows
from controlplane.store import clock, secrets
from controlplane.store import grants as grant_rows
from controlplane.store.records import (
    Checkpoint,
    CheckpointResult,
    CheckpointStatus,
    Image,
    Job,
    JobFailure,
    JobKind,
    JobState,
    PushResult,
)

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MAKING: Final = frozenset({JobKind.CHECKPOINT, JobKind.CHECKPOINT_AND_PUSH})
_OPEN: Final = frozenset({CheckpointStatus.PENDING, CheckpointStatus.RUNNING})
_STATUS: Final = {
    JobState.QUEUED: CheckpointStatus.PENDING,
    JobState.RUNNING: CheckpointStatus.RUNNING,
    JobState.COMPLETED: CheckpointStatus.FAILED,  # of those that the result does not name
    JobState.FAILED: CheckpointStatus.FAILED,
    JobState.CANCELLED: CheckpointStatus.CANCELLED,
}
_UNNAMED: Final = JobFailure(
    code=errors.CHECKPOINT_FAILED, message="The node ended the job without this checkpoint."
)


class Outcomes:
    """Writes a job's consequences in the transaction that stores its news (``jobs.Effects``)."""

    def __init__(self, grants: Grants, reports: Reports | None = None) -> None:
        self._grants = grants
        self._reports = reports
        self._announcer: Announcer | None = None
        self._ended: Callable[[Job], Awaitable[None]] | None = None

    def attach(
        self,
        announcer: Announcer,
        ended: Callable[[Job], Awaitable[None]] | None = None,
    ) -> None:
        """Plug in who tells the nodes, and who is told when a job that makes checkpoints has ended."""
        self._announcer = announcer
        self._ended = ended

    def apply(self, db: Database, job: Job) -> None:
        """Bring checkpoints, images and grants in line with ``job``."""
        if job.kind in _MAKING:
            self._apply_checkpoints(db, job)
        for push in job.result.pushes if job.result else ():
            self._apply_push(db, job, push)
        if job.kind is JobKind.ANALYZE and self._reports is not None:
            self._apply_report(db, job, self._reports)
        if job.kind is JobKind.DELETE and job.state is JobState.COMPLETED:
            for checkpoint_id in job.spec.checkpoint_ids:
                mark_deleted(db, checkpoint_id)
        if job.is_ended:
            secrets.delete(db, f"job/{job.id}")

    async def after(self, job: Job) -> None:
        """Tell the nodes of the cluster what they may restore now, and others what was made."""
        if job.kind in _MAKING and self._ended is not None:
            await self._ended(job)
        if self._announcer is None:
            return
        if job.result and job.result.pushes:
            await self._announcer.added(job.cluster, [push.digest for push in job.result.pushes])
        elif job.kind is JobKind.DELETE and job.state is JobState.COMPLETED:
            await self._announcer.removed(job.cluster)

    def _apply_checkpoints(self, db: Database, job: Job) -> None:
        results = {r.checkpoint_id: r for r in job.result.checkpoints} if job.result else {}
        for checkpoint in rows.of_job(db, job.id):
            result = results.get(checkpoint.id)
            if checkpoint.status not in _OPEN:
                continue
            if result is not None:
                rows.update(db, completed(checkpoint, result))
            elif checkpoint.status is not _STATUS[job.state]:
                rows.update(db, _following(checkpoint, job))

    def _apply_report(self, db: Database, job: Job, reports: Reports) -> None:
        """Keep what an analysis gave, unless its checkpoint was deleted meanwhile."""
        spec = job.spec.analyze
        checkpoint = rows.find(db, spec.checkpoint_id) if spec else None
        if checkpoint is not None and checkpoint.status is not CheckpointStatus.DELETED:
            reports.keep(db, job)
            if spec is not None and spec.analysis_type == WHOLE:
                rows.update(db, msgspec.structs.replace(checkpoint, inspected=True))

    def _apply_push(self, db: Database, job: Job, push: PushResult) -> None:
        """Record a push and let the checkpoint's own namespace restore it."""
        asked = {spec.checkpoint_id: spec for spec in job.spec.pushes}.get(push.checkpoint_id)
        checkpoint = rows.find(db, push.checkpoint_id)
        if asked is None or checkpoint is None or not _DIGEST.fullmatch(push.digest):
            return  # not what was asked for: no grant comes of it
        image = Image(
            checkpoint_id=push.checkpoint_id,
            image=asked.image,
            registry=asked.registry,
            digest=push.digest,
            size_bytes=push.size_bytes,
            pushed_bytes=push.pushed_bytes,
            duration_ms=push.duration_ms,
            job_id=job.id,
            pushed_at=clock.now(),
        )
        rows.put_image(db, image)
        if checkpoint.is_uploaded:
            return  # an administrator decides: who wrote the archive is not known
        self._grants.allow(
            db, (push.digest, job.cluster, checkpoint.id), [checkpoint.namespace], job.owner
        )


def mark_deleted(db: Database, checkpoint_id: str) -> Checkpoint | None:
    """The checkpoint is gone: its row stays as history, its grants do not."""
    checkpoint = rows.find(db, checkpoint_id)
    if checkpoint is None:
        return None
    for grant in grant_rows.of_checkpoint(db, checkpoint_id):
        grant_rows.delete(db, grant.digest, grant.cluster)
    forget_checkpoint(db, checkpoint_id)
    gone = msgspec.structs.replace(
        checkpoint, status=CheckpointStatus.DELETED, local=False, pinned=False
    )
    rows.update(db, gone)
    podtemplates.forget_unused(db, [checkpoint.job_id])
    return gone


def completed(checkpoint: Checkpoint, result: CheckpointResult) -> Checkpoint:
    """``checkpoint`` with what came of it."""
    return msgspec.structs.replace(
        checkpoint,
        status=CheckpointStatus.COMPLETED,
        container_id=result.container_id or checkpoint.container_id,
        pod_uid=result.pod_uid or checkpoint.pod_uid,
        engine=result.engine,
        size_bytes=result.size_bytes,
        pause_ms=result.pause_ms,
        image_ref=result.image_ref or checkpoint.image_ref,
        fingerprint_json=result.fingerprint_json or "{}",
        criu_options=result.criu_options,
        template_json=result.template_json or "{}",
        # those from before the job first; told again, nothing is there twice
        warnings=tuple(dict.fromkeys((*checkpoint.warnings, *result.warnings))),
        revision=result.revision or 1,
        left_running=result.left_running,
        local=True,
        completed_at=clock.now(),
        error=None,
    )


def _following(checkpoint: Checkpoint, job: Job) -> Checkpoint:
    failed = job.state in (JobState.FAILED, JobState.COMPLETED)
    return msgspec.structs.replace(
        checkpoint,
        status=_STATUS[job.state],
        error=(job.error or _UNNAMED) if failed else None,
        completed_at=job.ended_at,
    )
