"""Who asks: the container that is being created, as its bundle's ``config.json`` describes it.

Source: annotations of containerd (pkg/cri/annotations) and CRI-O (pkg/annotations); both runtimes write theirs
over whatever a pod brings along, and containerd passes only the pod annotations that its handler names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.formats import layout
from agent.restore import post_restore
from agent.restore.post_restore import Hook

CONFIG_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Asker:
    """A container that is being created.

    Attributes:
        attempt: restarts before this one, None where the runtime does not write it down.
        image: the checkpoint image that the pod names for it, "" for none.
        again: whether the pod wants restarts restored too.
        mode: how its memory is to come (``laziness``), as the pod says it; "" when it says nothing.
        hook: what is to be done in it once it is restored; None: nothing.
    """

    spec: dict[str, Any]
    container_name: str
    sandbox_id: str
    attempt: int | None
    image: str
    again: bool
    mode: str = ""
    hook: Hook | None = None


def read(config: Path) -> Asker | None:
    """The asking container; None when it is a sandbox or no container of a pod.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no OCI configuration, or an annotation of the pod is malformed.
    """
    with config.open("rb") as stream:
        text = stream.read(CONFIG_BYTES + 1)
    if len(text) > CONFIG_BYTES:
        raise ValueError("config.json is too large")
    try:
        spec = msgspec.json.decode(text, type=dict[str, Any])
        annotations = msgspec.convert(spec.get("annotations") or {}, dict[str, str])
    except msgspec.MsgspecError as cause:
        raise ValueError(f"config.json is damaged: {cause}") from cause
    return _of_crio(spec, annotations) or _of_containerd(spec, annotations)


def _of_crio(spec: dict[str, Any], annotations: Mapping[str, str]) -> Asker | None:
    if annotations.get("io.kubernetes.cri-o.ContainerType") != "container":
        return None
    name = annotations.get("io.kubernetes.container.name", "")
    restarts = annotations.get("io.kubernetes.container.restartCount", "")
    attempt = int(restarts) if restarts.isdecimal() else None
    return _asker(
        spec, annotations, name, annotations.get("io.kubernetes.cri-o.SandboxID", ""), attempt
    )


def _of_containerd(spec: dict[str, Any], annotations: Mapping[str, str]) -> Asker | None:
    if "io.kubernetes.cri-o.ContainerType" in annotations:
        return None
    if annotations.get("io.kubernetes.cri.container-type") != "container":
        return None
    name = annotations.get("io.kubernetes.cri.container-name", "")
    return _asker(
        spec, annotations, name, annotations.get("io.kubernetes.cri.sandbox-id", ""), None
    )


def _asker(
    spec: dict[str, Any],
    annotations: Mapping[str, str],
    name: str,
    sandbox_id: str,
    attempt: int | None,
) -> Asker:
    again = annotations.get(layout.ANNOTATION_RESTORE_AGAIN) == "true"
    image = _image(annotations.get(layout.ANNOTATION_CHECKPOINT, ""), name)
    mode = annotations.get(layout.ANNOTATION_RESTORE_MODE, "")
    hook = post_restore.read(annotations, name) if image else None
    return Asker(spec, name, sandbox_id, attempt, image, again, mode, hook)


def _image(annotation: str, container_name: str) -> str:
    """The image that ``annotation`` names for the container."""
    if not annotation:
        return ""
    try:
        named = msgspec.json.decode(annotation, type=dict[str, str])
    except msgspec.MsgspecError as cause:
        raise ValueError(
            f'annotation {layout.ANNOTATION_CHECKPOINT} must be JSON like {{"<container>": '
            f'"<registry>/<repository>@sha256:…"}}: {cause}'
        ) from cause
    return named.get(container_name, "")
