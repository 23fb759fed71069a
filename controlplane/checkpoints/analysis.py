"""Looking into checkpoints: who may see what, on which node it is read, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from controlplane import errors, permissions
from controlplane.checkpoints import lookup, reports
from controlplane.checkpoints.ports import Jobs
from controlplane.checkpoints.reports import Reports
from controlplane.errors import Conflict, Denied, Failed, NotFound, Refused
from controlplane.identity import Actor, Role
from controlplane.store.database import Store
from controlplane.store.records import (
    AnalyzeSpec,
    Checkpoint,
    CheckpointStatus,
    Job,
    JobKind,
    JobSpec,
)
from controlplane.store.requests import NewJob

_FOR_ALL: Final = "summary"  # shows figures only, nothing out of memory


@dataclass(frozen=True, slots=True)
class AnalysisCommand:
    """What to look at.

    Attributes:
        checkpoint: id, path, file name or name; ``pod_name``: the pod it must be of, empty for any.
        other: as ``checkpoint``: what to compare with, for ``diff`` and nothing else.
        with_values: show what environment variables hold.
        refresh: read the images again, although a report is there.
    """

    checkpoint: str
    analysis_type: str
    pod_name: str = ""
    other: str = ""
    with_values: bool = False
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was begun: either the report is there already, or ``job`` makes it."""

    checkpoint: Checkpoint
    spec: AnalyzeSpec
    report: dict[str, Any] | None
    job: Job | None

    @property
    def subject(self) -> str:
        """For the audit log."""
        return subject_of(self.spec)


class Analyses:
    """Begins analyses and gives their reports."""

    def __init__(self, store: Store, reports: Reports, jobs: Jobs) -> None:
        self._store = store
        self._reports = reports
        self._jobs = jobs

    async def begin(self, command: AnalysisCommand, actor: Actor) -> Analysis:
        """Find the report, or have the checkpoint's node make it.

        Raises:
            Denied: a viewer asks for more than the summary, or an operator outside of its namespaces.
            NotFound: CHECKPOINT_NOT_FOUND: there is none, or its parts are gone.
            Refused, Conflict: it is not complete, or can't be compared with the other one.
            AgentUnavailable: its node's agent is away, and there is no report yet.
        """
        found = await self._find(command.checkpoint, command.pod_name, command, actor)
        other = await self._other(command, found, actor)
        spec = AnalyzeSpec(
            checkpoint_id=found.id,
            analysis_type=command.analysis_type,
            other_checkpoint_id=other.id if other else "",
            with_values=command.with_values,
        )
        if not command.refresh and (report := await self._stored(spec)) is not None:
            return Analysis(found, spec, report, None)
        for checkpoint in filter(None, (found, other)):
            _check_on_node(checkpoint)
        job = await self._jobs.start(
            NewJob(
                kind=JobKind.ANALYZE,
                cluster=found.cluster,
                node=found.node,
                spec=JobSpec(analyze=spec),
                actor=actor,
                task_name="Inspecting Checkpoint",
                namespace=found.namespace,
            )
        )
        return Analysis(found, spec, None, job)

    async def report(self, job: Job) -> dict[str, Any]:
        """The report of a job that is complete.

        Raises:
            Failed: it was not kept (the checkpoint was deleted meanwhile).
        """
        assert job.spec.analyze is not None  # noqa: S101 - only analyses come here
        report = await self._stored(job.spec.analyze)
        if report is None:
            raise Failed("The report is gone; ask for it again.", code=errors.CONFLICT)
        return report

    async def known(self, command: AnalysisCommand, actor: Actor) -> Analysis:
        """The report that was made before.

        Raises:
            NotFound: there is no such checkpoint, or nobody asked for this report yet.
            Denied: as ``begin``.
        """
        found = await self._find(command.checkpoint, command.pod_name, command, actor)
        spec = AnalyzeSpec(checkpoint_id=found.id, analysis_type=command.analysis_type)
        report = await self._stored(spec)
        if report is None:
            message = f"Checkpoint {found.id} was not analysed yet; ask for the analysis first."
            raise NotFound(message, code=errors.CHECKPOINT_NOT_FOUND)
        return Analysis(found, spec, report, None)

    async def _stored(self, spec: AnalyzeSpec) -> dict[str, Any] | None:
        report = await self._store.read(lambda db: self._reports.find(db, spec))
        if report is not None and reports.shows_values(spec):
            await self._store.write(lambda db: reports.forget(db, spec))
        return report

    async def _find(
        self, named: str, pod_name: str, command: AnalysisCommand, actor: Actor
    ) -> Checkpoint:
        if (command.analysis_type != _FOR_ALL or command.with_values) and not actor.has(
            Role.OPERATOR
        ):
            raise Denied("A checkpoint holds a process's memory; viewers see its summary only.")
        found = await self._store.read(lambda db: lookup.find(db, named, pod_name))
        if command.analysis_type != _FOR_ALL:
            permissions.require_namespace(actor, found.namespace)
        if found.status is not CheckpointStatus.COMPLETED:
            raise Conflict(f"Checkpoint {found.id} is {found.status}; it can't be analysed.")
        return found

    async def _other(
        self, command: AnalysisCommand, found: Checkpoint, actor: Actor
    ) -> Checkpoint | None:
        if command.analysis_type != "diff":
            return None
        if not command.other:
            raise Refused(
                "Field `other` is missing: a diff needs another checkpoint to compare with.",
                code=errors.VALIDATION_ERROR,
            )
        other = await self._find(command.other, "", command, actor)
        if (other.cluster, other.node) != (found.cluster, found.node):
            raise Conflict(
                f"Checkpoint {found.id} lies on node {found.node}, {other.id} on {other.node}; "
                "only checkpoints on one node can be compared."
            )
        return other


def _check_on_node(checkpoint: Checkpoint) -> None:
    """Raise if no node can read the checkpoint's images."""
    if checkpoint.is_uploaded:
        raise Conflict(
            f"Checkpoint {checkpoint.id} was uploaded; its archive lies on no node, where it would be read."
        )
    if not checkpoint.local:
        message = (
            f"The parts of checkpoint {checkpoint.id} are not on node {checkpoint.node} any more."
        )
        raise NotFound(message, code=errors.CHECKPOINT_NOT_FOUND)


def subject_of(spec: AnalyzeSpec) -> str:
    """What was looked at, in the words of the audit log."""
    said = f"checkpoint/{spec.checkpoint_id} {spec.analysis_type}"
    if spec.other_checkpoint_id:
        said += f" with checkpoint/{spec.other_checkpoint_id}"
    return said + (" with values" if reports.shows_values(spec) else "")
