"""The record beside a checkpoint's parts on the node (``snap.json``): what it is, for push, delete and retention."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.formats import layout


class CheckpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint on this node.

    Attributes:
        image_name: as the pod asked for it; ``image_ref`` is NAME@DIGEST, ``image_id`` the config digest.
        runtime: name and version of the container runtime ("containerd 2.1.9").
        complete: False while the dump is not finished; such a folder is never offered.
        pushed: image@digest references this checkpoint was pushed as.
        pushed_at: RFC 3339, when it was pushed last; empty: never.
        left_running: whether the container went on after the dump.
    """

    checkpoint_id: str
    job_id: str
    namespace: str
    pod_name: str
    pod_uid: str
    container_name: str
    container_id: str
    engine: str
    created_at: str
    image_name: str = ""
    image_ref: str = ""
    image_id: str = ""
    runtime: str = ""
    oci_runtime: str = ""
    criu_options: str = ""
    size_bytes: int = 0
    pause_ms: float = 0.0
    revision: int = 1
    complete: bool = False
    pinned: bool = False
    warnings: tuple[str, ...] = ()
    pushed: tuple[str, ...] = ()
    pushed_at: str = ""
    left_running: bool = True
    parent: str = ""  # checkpoint that this one is a delta of


def read(parts: Path) -> CheckpointRecord:
    """The record of the checkpoint in ``parts``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it can't be read.
    """
    try:
        return msgspec.json.decode((parts / layout.RECORD).read_bytes(), type=CheckpointRecord)
    except msgspec.MsgspecError as cause:
        raise ValueError(f"{parts / layout.RECORD} is damaged: {cause}") from cause


def write(parts: Path, record: CheckpointRecord) -> None:
    """Put ``record`` beside the parts, whole or not at all."""
    partial = parts / (layout.RECORD + ".tmp")
    partial.write_bytes(msgspec.json.encode(record))
    partial.replace(parts / layout.RECORD)
