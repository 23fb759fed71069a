"""The folder of parts around CRIU's images: what is written before a dump, and what is made of it after.

All that is known before the freeze is written before it, so that a checkpoint can be finished from
its folder alone, by this agent or by the next one.

Source: checkpointctl's metadata (``config.dump``: ContainerConfig), containerd's restore
(``status.dump``), CRI-O's restore (the annotation ``io.kubernetes.cri-o.Annotations`` in the spec).
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from agent import errors
from agent.checkpoint import shelf
from agent.checkpoint.inspection import Inspected
from agent.checkpoint.plan import options_text
from agent.formats import (
    cgroup_folders,
    core_images,
    criu_images,
    criu_wire,
    fingerprint,
    layout,
    overlay,
    pending_signals,
    periodic_timers,
    record,
    slave_mounts,
    tcp_close,
    template,
)
from agent.formats.fingerprint import Fingerprint
from agent.formats.record import CheckpointRecord

_RAW: Final = "raw"  # what the script copied in the window, in the overlay's own form
_CRIO_ANNOTATIONS: Final = "io.kubernetes.cri-o.Annotations"
_log = logging.getLogger(__name__)


class NodeFacts(Protocol):
    """What the fingerprint takes from the node's probe."""

    @property
    def architecture(self) -> str:
        """As OCI names it."""

    @property
    def kernel(self) -> str:
        """Release."""

    @property
    def criu_version(self) -> str:
        """Of the node's CRIU."""

    @property
    def oci_runtime(self) -> str:
        """runc or crun."""

    @property
    def oci_runtime_version(self) -> str:
        """Its version."""

    @property
    def runtime(self) -> str:
        """containerd or cri-o."""

    @property
    def runtime_version(self) -> str:
        """Its version."""

    @property
    def cgroup_version(self) -> str:
        """v1 or v2."""

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """Flags of the processor."""

    @property
    def engines(self) -> tuple[str, ...]:
        """The checkpoint engines that work here, best first; none: not looked at yet."""


@dataclass(frozen=True, slots=True)
class ImageNames:
    """The container's image: as asked for, NAME@DIGEST (empty: no registry knows it), config digest."""

    name: str
    ref: str
    id: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a checkpoint comes from: the job, its engine, the node, the image."""

    job_id: str
    engine: str
    facts: NodeFacts
    image: ImageNames
    left_running: bool


def begin(place: Path, origin: Origin, one: Inspected) -> None:
    """Write all of a checkpoint that is known before its dump, the record (not complete) first. Blocks."""
    (place / layout.SNAP_DIR).mkdir(parents=True, exist_ok=True, mode=0o700)
    record.write(place, _record(origin, one))
    started = _time(one.found.detail.container.created_at_ns)
    write_json(place / layout.CONFIG_DUMP, config_dump(one, origin.image, started))
    write_json(place / layout.SPEC_DUMP, _with_crio_annotations(one.spec, one))
    (place / layout.STATUS_DUMP).write_bytes(one.found.detail.status_json)
    (place / layout.TEMPLATE).write_bytes(template.encode(one.template))
    (place / layout.FINGERPRINT).write_bytes(fingerprint.encode(_fingerprint(origin, one)))
    (place / layout.CRIU_CONF).write_text(options_text())
    (place / layout.ROOT_MODE).write_text(f"{one.root_mode:o}\n")
    volumes = [{"name": v.name, "destination": v.destination, "kind": v.kind} for v in one.volumes]
    if volumes:
        (place / layout.VOLUMES_INDEX).write_bytes(msgspec.json.encode(volumes))


def _record(origin: Origin, one: Inspected) -> CheckpointRecord:
    box, container = one.found.sandbox.sandbox, one.found.detail.container
    facts = origin.facts
    return CheckpointRecord(
        checkpoint_id=one.found.target.checkpoint_id,
        job_id=origin.job_id,
        namespace=box.namespace,
        pod_name=box.name,
        pod_uid=box.uid,
        container_name=container.name,
        container_id=container.id,
        engine=origin.engine,
        created_at=now(),
        image_name=origin.image.name,
        image_ref=origin.image.ref,
        image_id=origin.image.id,
        runtime=f"{facts.runtime} {facts.runtime_version}".strip(),
        oci_runtime=f"{_binary(origin, one)} {facts.oci_runtime_version}".strip(),
        criu_options=options_text() if origin.engine == "runc" else "",
        warnings=(*one.warnings, *_of_engine(origin, one)),
        left_running=origin.left_running,
    )


def _of_engine(origin: Origin, one: Inspected) -> tuple[str, ...]:
    said = []
    saved = [*(volume.name for volume in one.volumes), *(["/dev/shm"] if one.shm_used else [])]  # noqa: S108
    if origin.engine != "runc" and saved:
        names = ", ".join(saved)
        said.append(f"Engine {origin.engine} does not save what is in the volumes {names}.")
    if not origin.image.ref:
        said.append(
            f"No registry is known for image {origin.image.name}; containerd's own restore of "
            "this checkpoint needs one."
        )
    return tuple(said)


def _binary(origin: Origin, one: Inspected) -> str:
    return one.oci.binary if one.oci else origin.facts.oci_runtime


def _fingerprint(origin: Origin, one: Inspected) -> Fingerprint:
    facts, box = origin.facts, one.found.sandbox.sandbox
    return Fingerprint(
        architecture=facts.architecture,
        kernel=facts.kernel,
        criu_version=facts.criu_version,
        oci_runtime=_binary(origin, one),
        oci_runtime_version=facts.oci_runtime_version,
        runtime=facts.runtime,
        runtime_version=facts.runtime_version,
        cgroup_version=facts.cgroup_version,
        image_name=origin.image.name,
        image_ref=origin.image.ref,
        image_id=origin.image.id,
        cpu_features=facts.cpu_features,
        criu_options=options_text(),
        engine=origin.engine,
        cut=origin.engine == "runc",
        volumes=tuple(volume.name for volume in one.volumes),
        addresses=one.addresses,
        host_files=one.host_files,
        namespace=box.namespace,
        pod_name=box.name,
        container_name=one.found.name,
    )


def config_dump(one: Inspected, image: ImageNames, started: str) -> dict[str, Any]:
    """checkpointctl's ContainerConfig."""
    name = one.found.name
    box = one.found.sandbox.sandbox
    return {
        "id": one.found.id,
        "name": f"{name}_{box.name}_{box.namespace}_{box.uid}_{one.found.detail.container.attempt}",
        "rootfsImage": image.name,
        "rootfsImageRef": image.ref or image.id,
        "rootfsImageName": image.name,
        "runtime": one.found.detail.info.get("runtimeType") or (one.oci.binary if one.oci else ""),
        "createdTime": started,
        "checkpointedTime": now(),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": False,
    }


def _with_crio_annotations(spec: dict[str, Any], one: Inspected) -> dict[str, Any]:
    annotations = dict(spec.get("annotations") or {})
    of_container = dict(one.found.detail.container.annotations)
    annotations.setdefault(_CRIO_ANNOTATIONS, json.dumps(of_container, sort_keys=True))
    return {**spec, "annotations": annotations}


def settle(place: Path, pause_ms: float | None) -> CheckpointRecord:
    """Make the dump in ``place`` a checkpoint: what lay beside is put in its place. Blocks.

    Called again after it was interrupted, it goes on.

    Args:
        pause_ms: as the script measured it; None: as CRIU did, which knows more exactly.

    Raises:
        Broken: CRIU left no images although it said that all went well.
        Refused: the file changes can't be expressed in an archive.
    """
    if not (place / layout.CHECKPOINT_DIR / "inventory.img").is_file():
        raise errors.Broken(
            "CRIU reported success and left no images; look at the node's disk.",
            code=errors.CHECKPOINT_FAILED,
        )
    for name in (layout.DUMP_LOG, layout.STATS_DUMP):
        for origin in (place / "work" / name, place / layout.CHECKPOINT_DIR / name):
            if origin.is_file():
                origin.replace(place / name)
    _convert_upper(place)
    _name_cgroups(place)
    _relax(place)
    for folder in ("work", _RAW):
        shutil.rmtree(place / folder, ignore_errors=True)
    if (place / layout.VOLUMES_DIR).is_dir() and not any((place / layout.VOLUMES_DIR).iterdir()):
        (place / layout.VOLUMES_DIR).rmdir()
    return complete(place, _measured_ms(place) if pause_ms is None else pause_ms)


def complete(place: Path, pause_ms: float) -> CheckpointRecord:
    """Note in fingerprint and record what only the dump could tell; from now on it is offered. Blocks."""
    known = fingerprint.read(place)
    memory = core_images.pages_bytes(place / layout.CHECKPOINT_DIR)
    changed = msgspec.structs.replace(known, memory_bytes=memory)
    (place / layout.FINGERPRINT).write_bytes(fingerprint.encode(changed))
    done = msgspec.structs.replace(
        record.read(place), size_bytes=shelf.size_bytes(place), pause_ms=pause_ms, complete=True
    )
    record.write(place, done)
    return done


def _convert_upper(place: Path) -> None:
    raw, target = place / _RAW / "upper.tar", place / layout.ROOTFS_DIFF
    if not raw.is_file():
        return
    partial = target.with_name(target.name + ".tmp")
    try:
        with raw.open("rb") as upper, partial.open("wb") as layer:
            overlay.upper_to_layer(upper, layer)
    except overlay.OverlayError as cause:
        raise errors.Refused(
            f"The container's file changes can't be saved: {cause}; mount its overlay without "
            "redirect_dir and metacopy."
        ) from cause
    partial.replace(target)


def _name_cgroups(place: Path) -> None:
    try:
        cgroup_folders.complete(place / layout.CHECKPOINT_DIR)
    except ValueError as cause:  # without them no runtime could restore it
        raise errors.Broken(
            "CRIU's image of the cgroups can't be read; look at the node's disk.",
            code=errors.CHECKPOINT_FAILED,
            details=str(cause),
        ) from cause


def _relax(place: Path) -> None:
    """Take out of the images what would tie them to this node or to us for no reason."""
    images = place / layout.CHECKPOINT_DIR
    try:
        tcp_close.relax(images)
        slave_mounts.make_private(images)
        pending_signals.forget_continue(images)
        periodic_timers.arm(images)
    except (OSError, ValueError) as cause:  # as good as before; most restores do without
        _log.warning("the images of checkpoint %s stay as CRIU wrote them: %s", place.name, cause)


def _measured_ms(place: Path) -> float:
    """From freeze to thaw by CRIU's statistics; 0 when it left none."""
    try:
        image = (place / layout.STATS_DUMP).read_bytes()
        stats = criu_wire.dump_stats_of(criu_images.first(image))
    except (OSError, ValueError):
        return 0.0
    return (stats.freezing_time_us + stats.frozen_time_us) / 1000


def write_json(path: Path, value: dict[str, Any]) -> None:
    """``value`` as JSON with sorted keys."""
    path.write_text(json.dumps(value, sort_keys=True))


def now() -> str:
    """This moment, RFC 3339 UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(since_epoch_ns: int) -> str:
    moment = datetime.fromtimestamp(since_epoch_ns / 1e9, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
