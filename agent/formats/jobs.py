"""The jobs an agent can be given, as the rest of the agent sees them (the wire's shapes are link/wire's)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

JobId = NewType("JobId", str)
CheckpointId = NewType("CheckpointId", str)  # a ULID, minted by the control plane
ContainerId = NewType("ContainerId", str)
PodUid = NewType("PodUid", str)


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


ENDED: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: ENDED,
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class ContainerTarget:
    """One container to checkpoint, under the id that its checkpoint will have."""

    checkpoint_id: CheckpointId
    container_name: str
    container_id: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """Checkpoint these containers of one pod, all frozen together.

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


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """How to reach a registry; ``password`` is never logged (it is left out of repr)."""

    host: str
    username: str = ""
    password: str = field(default="", repr=False)
    verify_ssl: bool = True
    ca_pem: str = field(default="", repr=False)
    plain_http: bool = False
    repository_prefix: str = ""


@dataclass(frozen=True, slots=True)
class PushSpec:
    """Turn a checkpoint on this node into an image and push it."""

    checkpoint_id: CheckpointId
    registry: RegistryAccess
    repository: str
    tag: str
    compression: str = "zstd"  # zstd, gzip, none


@dataclass(frozen=True, slots=True)
class FetchSpec:
    """Bring an image ``<host>/<repository>@sha256:…`` into this node's cache."""

    image: str
    checkpoint_id: str = ""
    registry: RegistryAccess | None = None


@dataclass(frozen=True, slots=True)
class AnalyzeSpec:
    """Look into a checkpoint; ``with_values`` shows what environment variables hold."""

    checkpoint_id: CheckpointId
    analysis_type: str
    other_checkpoint_id: str = ""
    with_values: bool = False


@dataclass(frozen=True, slots=True)
class ImportSpec:
    """Take an archive in that a user uploaded; it is fetched as ``transfer_id``.

    Attributes:
        sha256: of the whole archive, hex; empty: not told.
        created_at: RFC 3339 UTC.
    """

    checkpoint_id: CheckpointId
    transfer_id: str
    size_bytes: int
    pod_name: str
    namespace: str = ""
    container_name: str = ""
    sha256: str = ""
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the control plane gave it.

    Attributes:
        epoch: rises with each lease; older ones are stale.
        undo: of a preparation: take it back.
    """

    job_id: JobId
    epoch: int
    kind: JobKind
    checkpoint: CheckpointSpec | None = None
    pushes: tuple[PushSpec, ...] = ()
    checkpoint_ids: tuple[CheckpointId, ...] = ()
    fetches: tuple[FetchSpec, ...] = ()
    analyze: AnalyzeSpec | None = None
    import_: ImportSpec | None = None
    undo: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointResult:
    """What came of one container's checkpoint.

    Attributes:
        size_bytes: of all parts on disk.
        pause_ms: from freeze to thaw, as the dump measured it.
        image_ref: the container's image, NAME@DIGEST where the runtime knows it.
        created_at: RFC 3339 UTC.
        template_json: what a new pod must ask for to fit (command, env, mounts …).
    """

    checkpoint_id: CheckpointId
    container_name: str
    container_id: str
    pod_uid: str
    engine: str
    size_bytes: int
    pause_ms: float
    image_ref: str
    created_at: str
    fingerprint_json: str = "{}"
    criu_options: str = ""
    template_json: str = "{}"
    warnings: tuple[str, ...] = ()
    revision: int = 1
    left_running: bool = True


@dataclass(frozen=True, slots=True)
class PushResult:
    """What came of one push. ``pushed_bytes`` counts what went over the wire, ``size_bytes`` all blobs."""

    checkpoint_id: CheckpointId
    image: str
    digest: str
    size_bytes: int
    pushed_bytes: int
    duration_ms: float


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a completed job gives back. ``report_json`` may show memory: it is left out of repr."""

    checkpoints: tuple[CheckpointResult, ...] = ()
    pushes: tuple[PushResult, ...] = ()
    report_json: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job failed: a code of the REST API, one sentence, the cause in the tool's own words."""

    code: str
    message: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """One piece of news of a job. Progress may be coalesced on the way, results never are.

    Attributes:
        sequence: rises over everything this node reports; kept by the journal.
        progress: 0-100.
        bytes_done, bytes_total: of the step that runs, 0 where bytes are not its measure.
        bytes_per_s: of these, over the last seconds; 0 while not known.
        task_name: what users read in front of the bar ("Create Checkpoint").
    """

    job_id: JobId
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


@dataclass(frozen=True, slots=True)
class JobBrief:
    """What an agent that joins says of a job that the control plane may still wait for."""

    job_id: JobId
    epoch: int
    state: JobState


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is: ``percent`` of the step itself (0-100), a sentence, and bytes where they count.

    Who counts them leaves ``bytes_per_s`` alone: it comes from how the count moves.
    """

    percent: float
    message: str
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_s: int = 0


Report = Callable[[Progress], None]  # cheap, never blocks, callable from worker threads
