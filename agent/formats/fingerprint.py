"""The fingerprint of a checkpoint (``snap/fingerprint.json``): what its restore needs of a node.

What the *pod* must ask for is the template (formats/template.py).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.formats import layout


class HostFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the node's own that the container had open, by its path in there; without a size it is a folder."""

    path: str
    size_bytes: int | None = None


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a checkpoint was taken, and what it needs.

    Attributes:
        architecture: as OCI names it (amd64, arm64).
        cpu_features: flags of /proc/cpuinfo, sorted; a process may have chosen code by them.
        kernel: release, as ``uname -r`` says.
        oci_runtime: runc or crun, with its version.
        runtime: containerd or cri-o, with its version.
        cgroup_version: v1 or v2.
        image_ref: the container's image NAME@DIGEST where the runtime knows it.
        image_id: digest of that image's configuration.
        memory_bytes: of the pages that a restore brings in.
        criu_options: one per line, as CRIU's configuration file spells them; used again at restore.
        cut: whether files, volumes and memory are of one moment (engine runc) or files came later.
        volumes: names of the volumes whose content is in the archive.
        addresses: of its pod, that it listens at; a pod with another one can't have it.
        host_files: of hostPath volumes, that it has open.
    """

    architecture: str
    kernel: str
    criu_version: str
    oci_runtime: str
    oci_runtime_version: str
    runtime: str
    runtime_version: str
    cgroup_version: str
    image_name: str
    image_ref: str
    image_id: str
    cpu_model: str = ""
    cpu_features: tuple[str, ...] = ()
    memory_bytes: int = 0
    criu_options: str = ""
    engine: str = ""
    cut: bool = True
    volumes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    host_files: tuple[HostFile, ...] = ()
    namespace: str = ""
    pod_name: str = ""
    container_name: str = ""
    node: str = ""


def read(parts: Path) -> Fingerprint:
    """The fingerprint of the checkpoint in ``parts``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it can't be read.
    """
    try:
        return msgspec.json.decode((parts / layout.FINGERPRINT).read_bytes(), type=Fingerprint)
    except msgspec.MsgspecError as cause:
        raise ValueError(f"{layout.FINGERPRINT} is damaged: {cause}") from cause


def encode(fingerprint: Fingerprint) -> bytes:
    """Its JSON, the same bytes for the same fingerprint."""
    return msgspec.json.encode(fingerprint, order="deterministic")
