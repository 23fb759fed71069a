"""The records that the store keeps and the use cases pass around: jobs, what they are told, what
came of them, checkpoints, images. Immutable; secrets are not in them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class JobKind(StrEnum):
    """What a job does."""

    CHECKPOINT = "checkpoint"
    PUSH = "push"
    CHECKPOINT_AND_PUSH = "checkpoint_and_push"
    FETCH = "fetch"
    PREFETCH = "prefetch"
    DELETE = "delete"
    ANALYZE = "analyze"
    PREPARE = "prepare"
    IMPORT = "import"
    RESTORE = "restore"


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CheckpointStatus(StrEnum):
    """Where a checkpoint is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


class Place(StrEnum):
    """Where a checkpoint's archive is: made of the parts on its node, or a file on this server."""

    NODE = "node"
    UPLOADED = "uploaded"


ENDED: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of all records: immutable, made by field names.

    They hold values, tuples and other records only, so that none is ever part of a cycle: the collector
    needs not look at them, of which thousands are made a second.
    """


class ContainerTarget(Record, frozen=True):
    """One container to checkpoint, under the id that its checkpoint will have."""

    checkpoint_id: str
    container_name: str
    container_id: str = ""


class CheckpointSpec(Record, frozen=True):
    """Checkpoint these containers of one pod, frozen together.

    Attributes:
        engine: auto, runc, kubelet or cri.
        timeout_s: for the dump, from freeze to thaw.
        strict: refuse what the engine could only warn about.
    """

    namespace: str
    pod_name: str
    containers: tuple[ContainerTarget, ...]
    pod_uid: str = ""
    engine: str = "auto"
    leave_running: bool = True
    timeout_s: float = 120.0
    strict: bool = False


class PushSpec(Record, frozen=True):
    """Make an image of a checkpoint and push it.

    Attributes:
        registry: name of a registry config, whose password is unsealed only when the job goes out;
            empty: the address and credentials are sealed with the job (``job/<id>``).
        host: host[:port], for the image's name.
    """

    checkpoint_id: str
    registry: str
    host: str
    repository: str
    tag: str
    compression: str = "zstd"

    @property
    def image(self) -> str:
        """``<host>/<repository>:<tag>``."""
        return f"{self.host}/{self.repository}:{self.tag}"


class FetchSpec(Record, frozen=True):
    """Bring an image (``<host>/<repository>@sha256:…``) into a node's cache."""

    checkpoint_id: str
    image: str
    registry: str


class AnalyzeSpec(Record, frozen=True):
    """Look into a checkpoint."""

    checkpoint_id: str
    analysis_type: str
    other_checkpoint_id: str = ""
    with_values: bool = False


class ImportSpec(Record, frozen=True):
    """Take an archive that a user uploaded; ``transfer_id`` is the job's own id."""

    checkpoint_id: str
    transfer_id: str
    size_bytes: int
    pod_name: str
    namespace: str = ""
    container_name: str = ""
    sha256: str = ""
    created_at: str = ""


class JobSpec(Record, frozen=True):
    """What a node is told to do; the parts that its kind needs are set."""

    checkpoint: CheckpointSpec | None = None
    pushes: tuple[PushSpec, ...] = ()
    checkpoint_ids: tuple[str, ...] = ()
    fetches: tuple[FetchSpec, ...] = ()
    analyze: AnalyzeSpec | None = None
    undo: bool = False
    import_: ImportSpec | None = None


class RegistryAccess(Record, frozen=True):
    """How to reach a registry, with its password: lives for one call, is never stored or logged."""

    host: str
    username: str = ""
    password: str = ""
    verify_ssl: bool = True
    ca_pem: str = ""
    plain_http: bool = False
    repository_prefix: str = ""

    def __repr__(self) -> str:
        return f"RegistryAccess(host={self.host!r}, username={self.username!r})"


class CheckpointResult(Record, frozen=True):
    """What came of one container's checkpoint (fields as in the proto)."""

    checkpoint_id: str
    container_name: str = ""
    container_id: str = ""
    pod_uid: str = ""
    engine: str = ""
    size_bytes: int = 0
    pause_ms: float = 0.0
    image_ref: str = ""
    created_at: str = ""
    fingerprint_json: str = "{}"
    criu_options: str = ""
    template_json: str = "{}"
    warnings: tuple[str, ...] = ()
    revision: int = 1
    left_running: bool = True


class PushResult(Record, frozen=True):
    """What came of one push: ``digest`` is the manifest's; ``pushed_bytes`` went over the wire."""

    checkpoint_id: str
    image: str
    digest: str
    size_bytes: int = 0
    pushed_bytes: int = 0
    duration_ms: float = 0.0


class JobResult(Record, frozen=True):
    """What a completed job gives back."""

    checkpoints: tuple[CheckpointResult, ...] = ()
    pushes: tuple[PushResult, ...] = ()
    report_json: str = ""


class JobFailure(Record, frozen=True):
    """Why a job failed: a code of the REST API, one sentence, the cause in the tool's own words."""

    code: str
    message: str
    details: str = ""


class Job(Record, frozen=True):
    """One row of the job table.

    Attributes:
        epoch: of its lease; rises each time the job is handed out anew.
        owner: the user it belongs to; ``initiator`` the part of SNAP that asked for it.
        broadcast: everybody may see its progress.
        progress: 0-100.
        bytes_done, bytes_total: of its step, 0 where bytes are not its measure.
        bytes_per_s: how fast they move; 0 while not known.
        agent_lost: its node has not been heard of for minutes; a late result still counts.
    """

    id: str
    kind: JobKind
    state: JobState
    epoch: int
    cluster: str
    node: str
    namespace: str
    owner: str
    initiator: str
    broadcast: bool
    task_name: str
    spec: JobSpec
    progress: float = 0.0
    message: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_s: int = 0
    result: JobResult | None = None
    error: JobFailure | None = None
    cancel_requested: bool = False
    agent_lost: bool = False
    created_at: str = ""
    started_at: str | None = None
    updated_at: str = ""
    ended_at: str | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    @property
    def remaining_s(self) -> float | None:
        """How long its step goes on if it stays as fast; None while that is not known."""
        if self.bytes_per_s <= 0:
            return None
        return round(max(0, self.bytes_total - self.bytes_done) / self.bytes_per_s, 1)


class JobUpdate(Record, frozen=True):
    """One piece of news from an agent; ``sequence`` rises over all that a node reports."""

    job_id: str
    epoch: int
    sequence: int
    state: JobState
    progress: float = 0.0
    message: str = ""
    task_name: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_s: int = 0
    result: JobResult | None = None
    error: JobFailure | None = None


class Image(Record, frozen=True):
    """One push of a checkpoint."""

    checkpoint_id: str
    image: str
    registry: str
    digest: str
    size_bytes: int = 0
    pushed_bytes: int = 0
    duration_ms: float = 0.0
    job_id: str = ""
    pushed_at: str = ""

    @property
    def reference(self) -> str:
        """``<host>/<repository>@sha256:…``: what is restored."""
        return f"{self.repository}@{self.digest}"

    @property
    def repository(self) -> str:
        """``<host>/<repository>`` without the tag."""
        return self.image.rpartition(":")[0]


class Checkpoint(Record, frozen=True):
    """One container's checkpoint.

    Attributes:
        filename: ``<pod>-<id>.tar``, under which it is downloaded.
        sha256: of the download, once known.
        image_ref: the container's own image, NAME@DIGEST.
        local: its parts lie on the node.
        place: where its archive is.
        inspected: a report of the whole of it is kept.
        restore_mode: how memory comes where a pod does not say: eager, lazy or auto; "": as the node does.
        images: its pushes, newest first.
    """

    id: str
    job_id: str
    cluster: str
    node: str
    namespace: str
    pod_name: str
    container_name: str
    filename: str
    status: CheckpointStatus
    owner: str
    created_at: str
    pod_uid: str = ""
    container_id: str = ""
    engine: str = ""
    size_bytes: int = 0
    pause_ms: float = 0.0
    sha256: str | None = None
    revision: int = 1
    image_ref: str = ""
    left_running: bool = True
    labels_json: str = "{}"
    template_json: str = "{}"
    fingerprint_json: str = "{}"
    criu_options: str = ""
    warnings: tuple[str, ...] = ()
    error: JobFailure | None = None
    pinned: bool = False
    local: bool = False
    expires_at: str | None = None
    completed_at: str | None = None
    place: Place = Place.NODE
    inspected: bool = False
    restore_mode: str = ""
    images: tuple[Image, ...] = ()

    @property
    def is_uploaded(self) -> bool:
        """Whether it came as an archive and lies on this server."""
        return self.place is Place.UPLOADED


class Restore(Record, frozen=True):
    """How a container that asked for a restore was started.

    Attributes:
        sequence: rises on its node.
        image: as the pod named it, ``<host>/<repository>@sha256:…``.
        action: restored, cold, failed; ``code`` and ``reason`` say why for the last two.
        mode: eager or lazy; "" when it started cold.
        at: by the node's own clock.
        prepare_ms: asked until answered; restore_ms: until restored; start_ms: asked until let go.
    """

    cluster: str
    node: str
    sequence: int
    container_id: str
    container_name: str
    namespace: str
    pod_name: str
    pod_uid: str
    image: str
    action: str
    code: str
    reason: str
    details: str
    mode: str
    at: str
    prepare_ms: float
    restore_ms: float
    start_ms: float
