"""Frames from agents. What a newer agent sends and we don't know becomes ``Unknown``, or the nearest we have."""

from __future__ import annotations

import operator
from typing import Any, Final

from controlplane.link import frames
from controlplane.store.records import (
    CheckpointResult,
    JobFailure,
    JobResult,
    JobState,
    JobUpdate,
    PushResult,
)
from snap_protos.snap.v1 import link_pb2 as pb

DETAILS_CHARS: Final = 8192
_STATUS: Final = tuple(n for n in frames.NodeStatus.__struct_fields__ if n != "reasons")
_plain_status: Final = operator.attrgetter(*_STATUS)
_STATES: Final = {state.value: state for state in JobState}


def said(frame: pb.AgentFrame) -> frames.Said:
    """An agent's frame."""
    match frame.WhichOneof("frame"):
        case "hello":
            return _hello(frame.hello)
        case "status":
            facts = _facts(frame.status.facts) if frame.status.HasField("facts") else None
            return frames.StatusNews(_status(frame.status), facts)
        case "updates":
            return frames.JobNews(tuple(_update(u) for u in frame.updates.updates))
        case "ack":
            return frames.Taken(frame.ack.up_to_sequence)
        case "pod_found":
            return _pod(frame.pod_found)
        case "archive_refused":
            no = frame.archive_refused
            return frames.ArchiveRefused(no.transfer_id, no.code, no.message)
        case "restore_outcomes":
            told = frame.restore_outcomes.outcomes
            return frames.RestoreNews(tuple(_outcome(one) for one in told))
        case _:
            return frames.Unknown()


def _outcome(told: pb.RestoreOutcome) -> dict[str, Any]:
    """``details`` is a log's tail: no more of it than a person reads."""
    fields = {one.name: getattr(told, one.name) for one in told.DESCRIPTOR.fields}
    return fields | {"details": told.details[-DETAILS_CHARS:]}


def _hello(hello: pb.Hello) -> frames.Hello:
    return frames.Hello(
        cluster=hello.cluster,
        node=hello.node,
        agent_version=hello.agent_version,
        boot_id=hello.boot_id,
        facts=_facts(hello.facts),
        public_key=hello.public_key,
        signature=hello.signature,
        last_sequence=hello.last_sequence,
        jobs=tuple(
            frames.JobBrief(brief.job_id, brief.epoch, _state(brief.state)) for brief in hello.jobs
        ),
    )


def _facts(facts: pb.NodeFacts) -> frames.NodeFacts:
    lists = {"engines", "restore_drivers", "criu_features", "cpu_features"}
    plain: dict[str, Any] = {
        name: tuple(getattr(facts, name)) if name in lists else getattr(facts, name)
        for name in frames.NodeFacts.__struct_fields__
    }
    return frames.NodeFacts(**plain)


def _status(status: pb.NodeStatus) -> frames.NodeStatus:
    plain = dict(zip(_STATUS, _plain_status(status), strict=True))
    reasons = (
        frames.Reason(code=r.code, message=r.message, remedy=r.remedy) for r in status.reasons
    )
    return frames.NodeStatus(**plain, reasons=tuple(reasons))


def _pod(found: pb.PodFound) -> frames.PodAnswer:
    return frames.PodAnswer(
        request_id=found.request_id,
        found=found.found,
        error=found.error,
        ready=found.ready,
        pod_uid=found.pod_uid,
        pod_name=found.pod_name,
        namespace=found.namespace,
        labels=dict(found.labels),
        containers=tuple(
            frames.PodContainer(c.name, c.container_id, c.state, c.image, c.image_ref)
            for c in found.containers
        ),
        pods=tuple(_pod(pod) for pod in found.pods),
    )


def _state(text: str) -> JobState:
    return _STATES.get(text, JobState.RUNNING)  # a newer agent's: neither begun nor ended for us


def _update(update: pb.JobUpdate) -> JobUpdate:
    return JobUpdate(
        job_id=update.job_id,
        epoch=update.epoch,
        sequence=update.sequence,
        state=_state(update.state),
        progress=update.progress,
        message=update.message,
        task_name=update.task_name,
        bytes_done=update.bytes_done,
        bytes_total=update.bytes_total,
        bytes_per_s=update.bytes_per_s,
        result=_result(update.result) if update.HasField("result") else None,
        error=_failure(update.error) if update.HasField("error") else None,
    )


def _failure(error: pb.JobFailure) -> JobFailure:
    return JobFailure(code=error.code, message=error.message, details=error.details)


def _result(result: pb.JobResult) -> JobResult:
    checkpoint_fields = set(CheckpointResult.__struct_fields__) - {"warnings"}
    return JobResult(
        checkpoints=tuple(
            CheckpointResult(
                **{name: getattr(c, name) for name in checkpoint_fields},
                warnings=tuple(c.warnings),
            )
            for c in result.checkpoints
        ),
        pushes=tuple(
            PushResult(**{name: getattr(p, name) for name in PushResult.__struct_fields__})
            for p in result.pushes
        ),
        report_json=result.report_json,
    )
