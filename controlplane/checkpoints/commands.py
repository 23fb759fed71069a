"""What can be asked of ``CheckpointService``, as the REST edge hands it over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from controlplane.store.records import Checkpoint, CheckpointStatus
from controlplane.store.starts import StartTimes


@dataclass(frozen=True, slots=True)
class CheckpointCommand:
    """Checkpoint a pod's container. What is empty is found out.

    Attributes:
        cluster_name: empty: by ``kube_api_address``, else the only cluster.
        node_name: empty: asked of the cluster's agents.
        container_name: ``"*"``: all but sidecars, frozen together; empty: the only one.
        timeout_s: for the dump; None: the agent's default.
        restore_mode: eager, lazy or auto for pods that do not say; empty: as the node does.
        idempotency_key: the header, with ``body`` the bytes it came with.
    """

    namespace: str
    pod_name: str
    container_name: str = ""
    cluster_name: str = ""
    kube_api_address: str = ""
    node_name: str = ""
    engine: str = "auto"
    leave_running: bool = True
    timeout_s: float | None = None
    strict: bool = False
    restore_mode: str = ""
    idempotency_key: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class PushTarget:
    """Where an image goes.

    Attributes:
        registry: name of a registry config, or its host; empty or "default": the cluster's, else
            the only one.
        image_name, tag: empty: by the naming scheme.
        compression: zstd, gzip or none.
        username, password: in place of the config's, for this job only.
    """

    registry: str = ""
    image_name: str = ""
    tag: str = ""
    compression: str = "zstd"
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class CheckpointFilter:
    """Which checkpoints; empty fields match all, ``status`` None all but deleted ones."""

    cluster_name: str = ""
    namespace: str = ""
    pod_name: str = ""
    status: CheckpointStatus | None = None


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    """Newest first; ``next_cursor`` is None at the end.

    Attributes:
        times: how long pods of their workloads took to start, by checkpoint id; of those that are known.
    """

    checkpoints: tuple[Checkpoint, ...]
    next_cursor: str | None
    times: Mapping[str, StartTimes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArchiveSize:
    """How large an archive is, and its etag without quotes."""

    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive, open for reading.

    Attributes:
        size_bytes: of the whole archive, whatever part was asked for.
        etag: without quotes; the same bytes have the same one.
        body: the bytes asked for; closing it (``aclose``) stops the node.
    """

    size_bytes: int
    etag: str
    body: AsyncGenerator[bytes, None]
