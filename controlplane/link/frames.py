"""What agents say, without protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from controlplane.store.records import JobState, JobUpdate, Record


class NodeFacts(Record, frozen=True):
    """What a node has; versions as its tools print them."""

    os: str = ""
    kernel: str = ""
    architecture: str = ""
    runtime: str = ""
    runtime_version: str = ""
    oci_runtime: str = ""
    oci_runtime_version: str = ""
    criu_version: str = ""
    kubelet_version: str = ""
    cgroup_version: str = ""
    engines: tuple[str, ...] = ()
    restore_drivers: tuple[str, ...] = ()
    criu_features: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    runc_version: str = ""


class Reason(Record, frozen=True):
    """Why a node is not ready, or what is limited, and what to do."""

    code: str
    message: str
    remedy: str = ""


class NodeStatus(Record, frozen=True):
    """How a node is: its agent's last report. ``taken_at`` is the node's own clock."""

    taken_at: str = ""
    ready: bool = False
    reasons: tuple[Reason, ...] = ()
    disk_total_bytes: int = 0
    disk_free_bytes: int = 0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    agent_memory_bytes: int = 0
    running_jobs: int = 0
    queued_jobs: int = 0
    checkpoints: int = 0
    cpu_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class JobBrief:
    """What an agent's journal says of one job."""

    job_id: str
    epoch: int
    state: JobState


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of an agent; ``signature`` proves that it holds the key."""

    cluster: str
    node: str
    agent_version: str
    boot_id: str
    facts: NodeFacts
    public_key: bytes
    signature: bytes
    last_sequence: int
    jobs: tuple[JobBrief, ...]


@dataclass(frozen=True, slots=True)
class StatusNews:
    """A heartbeat; ``facts`` only when they changed."""

    status: NodeStatus
    facts: NodeFacts | None


@dataclass(frozen=True, slots=True)
class JobNews:
    """Updates of jobs."""

    updates: tuple[JobUpdate, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """The agent has done what frames up to this number told it."""

    up_to_sequence: int


@dataclass(frozen=True, slots=True)
class PodContainer:
    """A container of a pod on that node; ``state`` is created, running, exited or unknown."""

    name: str
    container_id: str
    state: str
    image: str = ""
    image_ref: str = ""


@dataclass(frozen=True, slots=True)
class PodAnswer:
    """Whether a pod is there, or all ``pods``. ``error``: the runtime did not answer, so nobody knows."""

    request_id: str
    found: bool
    error: str = ""
    ready: bool = False
    pod_uid: str = ""
    pod_name: str = ""
    namespace: str = ""
    containers: tuple[PodContainer, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    pods: tuple[PodAnswer, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchiveRefused:
    """An archive can't be sent."""

    transfer_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an archive; ``total_bytes`` (of the whole) comes with the first."""

    transfer_id: str
    offset: int
    data: bytes = field(repr=False)
    total_bytes: int
    last: bool


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """A grant as it is sent."""

    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class RestoreNews:
    """What became of containers that were to be restored, as dicts of ``Restore``'s fields but for the node."""

    outcomes: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame of a newer agent that this version can't read."""


Said = Hello | StatusNews | JobNews | Taken | PodAnswer | ArchiveRefused | RestoreNews | Unknown

encode = msgspec.json.Encoder().encode
