"""What a job that checkpointed, or pushed, is answered with: both dialects, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from controlplane.api.checkpoint_views import path_label
from controlplane.store.records import Checkpoint, Job


class Made(msgspec.Struct, frozen=True):
    """One container's checkpoint among several."""

    checkpoint_id: str
    container_name: str
    container_id: str
    checkpoint_path: str
    filename: str
    size_bytes: int
    pause_ms: float
    image: str | None
    image_digest: str | None
    warnings: tuple[str, ...]


class CheckpointAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's container was checkpointed; with ``"*"`` the first one is told of here, all in ``checkpoints``."""

    success: bool = True
    message: str
    pod_id: str
    container_ids: list[str]
    checkpoint_path: str
    checkpoint_id: str
    job_id: str
    pod_name: str
    namespace: str
    node_name: str
    cluster_name: str
    engine: str
    size_bytes: int
    pause_ms: float
    sha256: str | None
    filename: str
    warnings: list[str]
    checkpoints: list[Made]


class PushResult(msgspec.Struct, frozen=True):
    """What the older server told of a push."""

    message: str
    image_tag: str


class PushedAnswer(CheckpointAnswer, frozen=True, kw_only=True):
    """A pod's container was checkpointed and pushed."""

    image: str
    image_tag: str
    image_digest: str
    push_result: PushResult


def created(job: Job, checkpoints: Sequence[Checkpoint]) -> CheckpointAnswer:
    """The answer of a checkpoint job that is done."""
    return CheckpointAnswer(message="Checkpoint created successfully", **_created(job, checkpoints))


def pushed(job: Job, checkpoints: Sequence[Checkpoint]) -> PushedAnswer:
    """The answer of a job that checkpointed and pushed."""
    images = [image for checkpoint in checkpoints for image in checkpoint.images[:1]]
    image = images[0].image if images else ""
    return PushedAnswer(
        message="Combined checkpoint and push operation completed successfully",
        image=image,
        image_tag=image,
        image_digest=images[0].digest if images else "",
        push_result=PushResult("Checkpoint image successfully committed and pushed", image),
        **_created(job, checkpoints),
    )


def _created(job: Job, checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    first = checkpoints[0]
    return {
        "pod_id": first.pod_uid,
        "container_ids": [c.container_id for c in checkpoints],
        "checkpoint_path": path_label(first),
        "checkpoint_id": first.id,
        "job_id": job.id,
        "pod_name": first.pod_name,
        "namespace": first.namespace,
        "node_name": first.node,
        "cluster_name": first.cluster,
        "engine": first.engine,
        "size_bytes": sum(c.size_bytes for c in checkpoints),
        "pause_ms": max(c.pause_ms for c in checkpoints),
        "sha256": first.sha256,
        "filename": first.filename,
        "warnings": [warning for c in checkpoints for warning in c.warnings],
        "checkpoints": [_made(c) for c in checkpoints],
    }


def _made(checkpoint: Checkpoint) -> Made:
    image = checkpoint.images[0] if checkpoint.images else None
    return Made(
        checkpoint_id=checkpoint.id,
        container_name=checkpoint.container_name,
        container_id=checkpoint.container_id,
        checkpoint_path=path_label(checkpoint),
        filename=checkpoint.filename,
        size_bytes=checkpoint.size_bytes,
        pause_ms=checkpoint.pause_ms,
        image=image.image if image else None,
        image_digest=image.digest if image else None,
        warnings=checkpoint.warnings,
    )
