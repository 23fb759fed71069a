"""What a checkpoint image says of itself on its manifest: for CRI-O, containerd, checkpointctl, and us.

Source: CRI-O, internal/lib/restore.go; containerd, internal/cri/server/container_checkpoint_linux.go;
checkpointctl, internal/types.go (``org.criu.checkpoint.*``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from agent.formats import layout
from agent.formats.record import CheckpointRecord

CONTENT: Final = layout.ANNOTATION_PREFIX + "content"  # of a layer: metadata, files, memory
UNPACKED_BYTES: Final = layout.ANNOTATION_PREFIX + "unpacked-bytes"  # of a layer, its tar's size
PARENT: Final = layout.ANNOTATION_PREFIX + "parent"  # the checkpoint that this one is a delta of
_RECORD: Final = layout.ANNOTATION_PREFIX + "record"
_CRIO_NAME: Final = "io.kubernetes.cri-o.annotations.checkpoint.name"
_CRIU: Final = "org.criu.checkpoint."
_CREATED: Final = "org.opencontainers.image.created"


def of(record: CheckpointRecord, parts: Path) -> dict[str, str]:
    """The manifest's annotations; the same for the same checkpoint, whenever it is pushed. Blocking."""
    _, _, base_digest = record.image_ref.rpartition("@")
    found = {
        _CREATED: record.created_at,
        _CRIO_NAME: record.container_name,
        _CRIU + "container.name": record.container_name,
        _CRIU + "engine.name": record.runtime.split(" ")[0],
        _CRIU + "runtime.name": record.oci_runtime.split(" ")[0],
        _CRIU + "pod.name": record.pod_name,
        _CRIU + "pod.namespace": record.namespace,
        _CRIU + "rootfsImageUserRequested": record.image_name,
        _CRIU + "rootfsImageName": record.image_ref or record.image_name,
        _CRIU + "rootfsImageID": record.image_id,
    }
    ours = {
        "checkpoint-id": record.checkpoint_id,
        "source": "/".join([record.namespace, record.pod_name, record.container_name]),
        "pod-uid": record.pod_uid,
        "engine": record.engine,
        "base-digest": base_digest,
        "criu-options": record.criu_options,
        "pause-ms": f"{record.pause_ms:.1f}",
        "fingerprint": _compact(parts / layout.FINGERPRINT),
    }
    found.update({layout.ANNOTATION_PREFIX + key: value for key, value in ours.items()})
    found[PARENT] = record.parent
    found[_RECORD] = msgspec.json.encode(_kept(record)).decode()
    return {key: value for key, value in sorted(found.items()) if value}


def record_of(annotations: Mapping[str, str]) -> CheckpointRecord:
    """The record of a checkpoint whose image carries ``annotations``; of others', what they say.

    Raises:
        ValueError: the image says nothing that makes a record.
    """
    own = annotations.get(_RECORD)
    if own:
        try:
            return _kept(msgspec.json.decode(own, type=CheckpointRecord))
        except msgspec.MsgspecError as cause:
            raise ValueError(f"the image's record is damaged: {cause}") from cause
    name = annotations.get(_CRIU + "container.name") or annotations.get(_CRIO_NAME, "")
    return CheckpointRecord(
        checkpoint_id="",
        job_id="",
        namespace=annotations.get(_CRIU + "pod.namespace", ""),
        pod_name=annotations.get(_CRIU + "pod.name", ""),
        pod_uid="",
        container_name=name,
        container_id="",
        engine="",
        created_at=annotations.get(_CREATED, ""),
        image_name=annotations.get(_CRIU + "rootfsImageUserRequested", ""),
        image_ref=annotations.get(_CRIU + "rootfsImageName", ""),
        image_id=annotations.get(_CRIU + "rootfsImageID", ""),
        runtime=annotations.get(_CRIU + "engine.name", ""),
        oci_runtime=annotations.get(_CRIU + "runtime.name", ""),
        complete=True,
    )


def _kept(record: CheckpointRecord) -> CheckpointRecord:
    """Without what changes while the checkpoint lies on a node."""
    return msgspec.structs.replace(record, complete=True, pinned=False, pushed=(), pushed_at="")


def _compact(path: Path) -> str:
    """A JSON file's content on one line; "" where there is none."""
    try:
        return json.dumps(json.loads(path.read_bytes()), separators=(",", ":"), sort_keys=True)
    except (FileNotFoundError, ValueError):
        return ""
