"""How checkpoints that are there are shown: in lists, and with all that is known of one."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from controlplane.store.records import Checkpoint, Place, Restore
from controlplane.store.starts import StartTimes

_FOLDER: Final = "/app/checkpoints"  # a label that clients know; nothing is ever opened there
_UNITS: Final = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))


class CheckpointItem(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint in a list.

    ``cold_start_ms``, ``restore_ms``: how long pods of its workload took from their creation until they were ready,
    cold and restored: medians of those that were watched.
    """

    id: str
    pod_name: str
    namespace: str
    created_at: str
    size: str
    status: str
    checkpoint_name: str
    analysis_result: str | None = None
    scan_result: bool = False
    node_name: str
    cluster_name: str
    container_name: str
    size_bytes: int
    image: str | None
    image_digest: str | None
    filename: str
    expires_at: str | None
    pinned: bool
    engine: str
    pause_ms: float
    cold_start_ms: float | None = None
    restore_ms: float | None = None


class CheckpointsPage(msgspec.Struct, frozen=True):
    """Checkpoints, newest first; ``next_cursor`` asks for more."""

    checkpoints: list[CheckpointItem]
    next_cursor: str | None
    success: bool = True


class ImageItem(msgspec.Struct, frozen=True):
    """One push of a checkpoint."""

    image: str
    image_digest: str
    reference: str
    registry: str
    size_bytes: int
    pushed_at: str


class CheckpointError(msgspec.Struct, frozen=True):
    """Why a checkpoint failed."""

    code: str
    message: str
    details: str


class RestoreSeen(msgspec.Struct, frozen=True):
    """How one container that asked for this checkpoint was started."""

    action: str
    code: str
    reason: str
    mode: str
    namespace: str
    pod_name: str
    container_name: str
    cluster_name: str
    node_name: str
    at: str
    start_ms: float


class RestoresSeen(msgspec.Struct, frozen=True):
    """The starts from a checkpoint's images that their nodes told of."""

    count: int = 0
    last: RestoreSeen | None = None


class CheckpointDetails(CheckpointItem, frozen=True, kw_only=True):
    """One checkpoint with all that is known."""

    success: bool = True
    checkpoint_path: str
    job_id: str
    owner: str
    pod_id: str
    container_id: str
    sha256: str | None
    base_image: str
    criu_options: str
    left_running: bool
    on_node: bool
    place: Place
    completed_at: str | None
    warnings: tuple[str, ...]
    restore: str | None
    error: CheckpointError | None
    images: list[ImageItem]
    restores: RestoresSeen = RestoresSeen()


class Shared(msgspec.Struct, frozen=True):
    """Where a checkpoint may be restored too."""

    message: str
    checkpoint_id: str
    namespaces: list[str]
    success: bool = True


def item(checkpoint: Checkpoint, times: StartTimes) -> CheckpointItem:
    """A checkpoint as lists show it."""
    return CheckpointItem(
        **_item(checkpoint), cold_start_ms=times.cold_ms, restore_ms=times.restored_ms
    )


def detailed(
    checkpoint: Checkpoint, restores: int = 0, last: Restore | None = None
) -> CheckpointDetails:
    """A checkpoint with all that users may know of it; ``last`` of its ``restores``."""
    seen = RestoresSeen(restores, _restore(last) if last else None)
    return CheckpointDetails(**detailed_fields(checkpoint), restores=seen)


def _restore(one: Restore) -> RestoreSeen:
    return RestoreSeen(
        action=one.action,
        code=one.code,
        reason=one.reason,
        mode=one.mode,
        namespace=one.namespace,
        pod_name=one.pod_name,
        container_name=one.container_name,
        cluster_name=one.cluster,
        node_name=one.node,
        at=one.at,
        start_ms=one.start_ms,
    )


def detailed_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of ``CheckpointDetails``."""
    error = checkpoint.error
    return _item(checkpoint) | {
        "checkpoint_path": path_label(checkpoint),
        "job_id": checkpoint.job_id,
        "owner": checkpoint.owner,
        "pod_id": checkpoint.pod_uid,
        "container_id": checkpoint.container_id,
        "sha256": checkpoint.sha256,
        "base_image": checkpoint.image_ref,
        "criu_options": checkpoint.criu_options,
        "left_running": checkpoint.left_running,
        "on_node": checkpoint.local,
        "place": checkpoint.place,
        "completed_at": checkpoint.completed_at,
        "warnings": checkpoint.warnings,
        "restore": checkpoint.restore_mode or None,
        "error": CheckpointError(error.code, error.message, error.details) if error else None,
        "images": [
            ImageItem(i.image, i.digest, i.reference, i.registry, i.size_bytes, i.pushed_at)
            for i in checkpoint.images
        ],
    }


def size_words(size_bytes: int) -> str:
    """A size as the reference writes it: ``150MB``."""
    for unit_bytes, name in _UNITS:
        if size_bytes >= unit_bytes:
            amount = size_bytes / unit_bytes
            return f"{amount:.0f}{name}" if amount >= 10 else f"{amount:.1f}{name}"
    return f"{size_bytes}B"


def _item(checkpoint: Checkpoint) -> dict[str, Any]:
    image = checkpoint.images[0] if checkpoint.images else None
    return {
        "id": checkpoint.id,
        "pod_name": checkpoint.pod_name,
        "namespace": checkpoint.namespace,
        "created_at": checkpoint.created_at,
        "size": size_words(checkpoint.size_bytes),
        "status": checkpoint.status,
        "checkpoint_name": checkpoint.filename,
        "analysis_result": _analysis(checkpoint),
        "node_name": checkpoint.node,
        "cluster_name": checkpoint.cluster,
        "container_name": checkpoint.container_name,
        "size_bytes": checkpoint.size_bytes,
        "image": image.image if image else None,
        "image_digest": image.digest if image else None,
        "filename": checkpoint.filename,
        "expires_at": checkpoint.expires_at,
        "pinned": checkpoint.pinned,
        "engine": checkpoint.engine,
        "pause_ms": checkpoint.pause_ms,
    }


def _analysis(checkpoint: Checkpoint) -> str | None:
    return checkpoint.filename.removesuffix(".tar") + ".json" if checkpoint.inspected else None


def path_label(checkpoint: Checkpoint) -> str:
    """Where clients are told that its archive lies."""
    return f"{_FOLDER}/{checkpoint.filename}"
