"""What is known of a node: facts that hardly change, vitals that do, and why it can't do something."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the node is not ready, or what is limited, and what to do about it.

    Attributes:
        code: for programs, CamelCase ("CriuMissing").
        blocking: nothing can be checkpointed as it is; otherwise something is only limited.
    """

    code: str
    message: str
    remedy: str
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the node has. An empty string: it is not there, or could not be asked."""

    os: str = ""
    kernel: str = ""
    architecture: str = ""
    runtime: str = ""  # containerd, cri-o
    runtime_version: str = ""
    oci_runtime: str = ""  # runc, crun
    oci_runtime_version: str = ""
    runc_version: str = ""
    criu_version: str = ""
    kubelet_version: str = ""
    cgroup_version: str = ""  # v1, v2
    engines: tuple[str, ...] = ()  # usable here, best first
    restore_drivers: tuple[str, ...] = ()  # usable here, best first
    criu_features: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the node is right now."""

    disk_total_bytes: int
    disk_free_bytes: int
    memory_total_bytes: int
    memory_available_bytes: int
    agent_memory_bytes: int
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class Readiness:
    """Facts and what follows from them."""

    facts: NodeFacts
    reasons: tuple[Reason, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether containers of this node can be checkpointed."""
        return not any(reason.blocking for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a heartbeat says. ``facts`` only when they changed."""

    taken_at: str
    readiness: Readiness
    vitals: Vitals
    running_jobs: int
    queued_jobs: int
    checkpoints: int
    with_facts: bool


@dataclass(frozen=True, slots=True)
class PodContainer:
    """A container of a pod that was found."""

    name: str
    container_id: str
    state: str  # created, running, exited, unknown
    image: str
    image_ref: str


@dataclass(frozen=True, slots=True)
class FoundPod:
    """A pod that runs here. ``ready``: its sandbox is."""

    uid: str
    name: str
    namespace: str
    ready: bool
    labels: tuple[tuple[str, str], ...]
    containers: tuple[PodContainer, ...]
