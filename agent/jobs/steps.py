"""What each kind of job does, cut in the steps that the journal knows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import agent
from agent import errors
from agent.formats.jobs import Job, JobKind, PushResult, PushSpec, Report
from agent.jobs.journal import Entry
from agent.jobs.ports import Analyst, Checkpointer, Fetcher, Importer, Preparer, Pusher, Shelf
from agent.jobs.progress import Span, spans

Gained = dict[str, Any]  # changes to an Entry

CHECKPOINT_WEIGHT: Final = 35.0  # of a job's scale; compressing and sending takes the rest
SUPPORTED: Final = (
    JobKind.CHECKPOINT,
    JobKind.PUSH,
    JobKind.CHECKPOINT_AND_PUSH,
    JobKind.FETCH,
    JobKind.PREFETCH,
    JobKind.DELETE,
    JobKind.ANALYZE,
    JobKind.IMPORT,
    JobKind.PREPARE,
)
TASK_NAMES: Final = {
    JobKind.CHECKPOINT: "Create Checkpoint",
    JobKind.PUSH: "Push Checkpoint Image",
    JobKind.CHECKPOINT_AND_PUSH: "Create and Push Checkpoint",
    JobKind.FETCH: "Fetch Checkpoint Image",
    JobKind.PREFETCH: "Prefetch Checkpoint Image",
    JobKind.DELETE: "Delete Checkpoint",
    JobKind.ANALYZE: "Analyze Checkpoint",
    JobKind.IMPORT: "Create and Push Checkpoint Container",
    JobKind.PREPARE: "Prepare Node",
}
BEGINNINGS: Final = {
    JobKind.CHECKPOINT: "Checkpointing",
    JobKind.PUSH: "Pushing the image",
    JobKind.FETCH: "Fetching the image",
    JobKind.DELETE: "Deleting the checkpoint",
    JobKind.ANALYZE: "Analyzing the checkpoint",
    JobKind.IMPORT: "Taking the archive in",
    JobKind.PREPARE: "Looking at the node",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``kind`` and which of the job's pushes, fetches or checkpoints it is about."""

    kind: JobKind
    index: int
    span: Span

    @property
    def name(self) -> str:
        """How the journal names it."""
        return f"{self.kind}/{self.index}"


def check(job: Job) -> None:
    """Whether this version can do ``job``, by its form alone.

    Raises:
        Refused: it can't, or something is missing in it.
    """
    if job.kind not in SUPPORTED:
        kinds = ", ".join(SUPPORTED)
        raise errors.Refused(
            f"The agent on this node (version {agent.__version__}) can't do {job.kind} jobs; "
            f"it can do {kinds}.",
            code=errors.VALIDATION_ERROR,
        )
    needed = {
        JobKind.CHECKPOINT: bool(job.checkpoint and job.checkpoint.containers),
        JobKind.PUSH: bool(job.pushes),
        JobKind.CHECKPOINT_AND_PUSH: bool(
            job.checkpoint and job.checkpoint.containers and job.pushes
        ),
        JobKind.FETCH: bool(job.fetches),
        JobKind.PREFETCH: bool(job.fetches),
        JobKind.DELETE: bool(job.checkpoint_ids),
        JobKind.ANALYZE: bool(job.analyze and job.analyze.checkpoint_id),
        JobKind.IMPORT: job.import_ is not None,
        JobKind.PREPARE: True,
    }
    if not needed[job.kind]:
        raise errors.Refused(
            f"The {job.kind} job {job.job_id} does not say what to work on.",
            code=errors.VALIDATION_ERROR,
        )


def plan(job: Job) -> tuple[Step, ...]:
    """The steps of ``job``, in order, each with its part of the job's scale."""
    kinds: list[tuple[JobKind, int]] = []
    if job.kind in {JobKind.CHECKPOINT, JobKind.CHECKPOINT_AND_PUSH}:
        kinds.append((JobKind.CHECKPOINT, 0))
    if job.kind is JobKind.IMPORT:
        kinds.append((JobKind.IMPORT, 0))
    if job.kind in {JobKind.PUSH, JobKind.CHECKPOINT_AND_PUSH, JobKind.IMPORT}:
        kinds += [(JobKind.PUSH, index) for index in range(len(job.pushes))]
    if job.kind in {JobKind.FETCH, JobKind.PREFETCH}:
        kinds += [(JobKind.FETCH, index) for index in range(len(job.fetches))]
    if job.kind in {JobKind.DELETE, JobKind.IMPORT}:  # what was taken in for a push goes after it
        kinds += [(JobKind.DELETE, index) for index in range(len(job.checkpoint_ids))]
    if job.kind in {JobKind.ANALYZE, JobKind.PREPARE}:
        kinds.append((job.kind, 0))
    rest = (100.0 - CHECKPOINT_WEIGHT) / max(1, len(job.pushes))
    weights = tuple(CHECKPOINT_WEIGHT if kind is JobKind.CHECKPOINT else rest for kind, _ in kinds)
    return tuple(
        Step(kind, index, span) for (kind, index), span in zip(kinds, spans(weights), strict=True)
    )


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work of the steps."""

    checkpointer: Checkpointer
    shelf: Shelf
    pusher: Pusher
    fetcher: Fetcher
    analyst: Analyst
    importer: Importer
    preparer: Preparer


class Steps:
    """Takes steps, by the workers it is given."""

    def __init__(self, workers: Workers) -> None:
        self._checkpointer = workers.checkpointer
        self._shelf = workers.shelf
        self._pusher = workers.pusher
        self._fetcher = workers.fetcher
        self._analyst = workers.analyst
        self._importer = workers.importer
        self._preparer = workers.preparer

    async def take(self, step: Step, entry: Entry, *, begun: bool, report: Report) -> Gained:
        """Take ``step`` of ``entry``'s job and return what it gave, as changes to the entry.

        Args:
            begun: an agent that died had begun this very step; what is there is looked at first.

        Raises:
            SnapError: it failed.
        """
        job = entry.job
        assert job is not None  # noqa: S101 - a tombstone has no steps
        match step.kind:
            case JobKind.CHECKPOINT:
                return await self._checkpoint(job, begun=begun, report=report)
            case JobKind.PUSH:
                pushed = await self._push(job, job.pushes[step.index], report)
                return {"pushes": (*entry.pushes, pushed)}
            case JobKind.FETCH:
                await self._fetcher.fetch(job.fetches[step.index], report)
            case JobKind.IMPORT:
                assert job.import_ is not None  # noqa: S101 - check() saw it
                await self._importer.take(job.import_, report)
            case JobKind.DELETE:
                await asyncio.to_thread(self._shelf.delete, job.checkpoint_ids[step.index])
            case JobKind.ANALYZE:
                assert job.analyze is not None  # noqa: S101 - check() saw it
                return {"report_json": await self._analyst.analyze(job.analyze, report)}
            case JobKind.PREPARE if job.undo:
                await self._preparer.undo(report)
            case JobKind.PREPARE:
                await self._preparer.prepare(report)
        return {}

    async def undo(self, step: Step, entry: Entry, report: Report) -> None:
        """Leave nothing of a ``step`` that a dead agent had begun and that was cancelled since.

        Only a dump leaves something behind (it runs on by itself): it is waited for and removed; and
        an archive that came half.
        """
        if entry.job is not None and entry.job.import_ is not None:
            await asyncio.to_thread(self._shelf.delete, entry.job.import_.checkpoint_id)
            return
        if step.kind is not JobKind.CHECKPOINT or entry.job is None or not entry.job.checkpoint:
            return
        spec = entry.job.checkpoint
        # it may have failed by itself, and cleared up; Broken is told: a container stays frozen
        with suppress(errors.CommandFailed, errors.Retryable):
            await self._checkpointer.recover(entry.job.job_id, spec, report)
        for target in spec.containers:
            await asyncio.to_thread(self._shelf.delete, target.checkpoint_id)

    async def _push(self, job: Job, push: PushSpec, report: Report) -> PushResult:
        """Push; what was taken in for it does not stay if it fails."""
        if job.import_ is not None:  # at once, unless an agent that ended removed it
            await self._importer.take(job.import_, report)
        parts = await asyncio.to_thread(self._shelf.parts, push.checkpoint_id)
        try:
            return await self._pusher.push(parts, push, report)
        except BaseException:
            if job.import_ is not None:
                gone = asyncio.to_thread(self._shelf.delete, job.import_.checkpoint_id)
                await asyncio.shield(gone)
            raise

    async def _checkpoint(self, job: Job, *, begun: bool, report: Report) -> Gained:
        spec = job.checkpoint
        assert spec is not None  # noqa: S101 - check() saw it
        results = await self._checkpointer.recover(job.job_id, spec, report) if begun else None
        if results is None:
            results = await self._checkpointer.checkpoint(job.job_id, spec, report)
        return {"checkpoints": results}
