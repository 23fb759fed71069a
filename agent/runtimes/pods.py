"""Pods, containers and images as the container runtime tells of them, and what can be asked of it.

Source: Kubernetes container runtime interface, runtime/v1; the label names are the kubelet's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

LABEL_POD_NAME: Final = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE: Final = "io.kubernetes.pod.namespace"
LABEL_POD_UID: Final = "io.kubernetes.pod.uid"
LABEL_CONTAINER_NAME: Final = "io.kubernetes.container.name"


class ContainerState(StrEnum):
    """What a container is doing, in CRI's order of numbers."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    """The container runtime: ``containerd`` or ``cri-o``, its version, its CRI version."""

    name: str
    version: str
    api_version: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of the runtime (RuntimeReady, NetworkReady)."""

    type: str
    ok: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """How the runtime is. ``info`` holds its verbose answers, decoded where they are JSON."""

    conditions: tuple[Condition, ...]
    handlers: tuple[str, ...]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One pod sandbox. ``created_at_ns`` is since the epoch."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    ready: bool
    created_at_ns: int
    labels: dict[str, str]
    annotations: dict[str, str]
    runtime_handler: str


@dataclass(frozen=True, slots=True)
class SandboxDetail:
    """A sandbox and what its status adds: address, whose namespaces it has, verbose info."""

    sandbox: Sandbox
    ip: str
    host_network: bool
    host_pid: bool
    host_ipc: bool
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """One container as listed."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    image: str
    image_ref: str
    image_id: str
    created_at_ns: int
    labels: dict[str, str]
    annotations: dict[str, str]


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a container, as asked for by CRI."""

    container_path: str
    host_path: str
    read_only: bool = False
    propagation: int = 0


@dataclass(frozen=True, slots=True)
class ContainerDetail:
    """A container and what its status adds.

    Attributes:
        pid: of its first process in the node's pid namespace, 0 when it does not run.
        spec: its OCI configuration; empty when the runtime does not tell.
        info: the runtime's verbose answer (containerd: sandboxID, snapshotKey, runtimeOptions …).
        status_json: CRI's ContainerStatus in the JSON form that Go programs write and read.
    """

    container: Container
    pid: int
    started_at_ns: int
    finished_at_ns: int
    exit_code: int
    reason: str
    message: str
    log_path: str
    user_image: str
    mounts: tuple[Mount, ...]
    spec: dict[str, Any]
    info: dict[str, Any]
    status_json: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the node. ``repo_digests`` are NAME@DIGEST."""

    id: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A pod to be made. ``log_directory`` is where its containers' logs go, on the node."""

    name: str
    namespace: str
    uid: str
    log_directory: str
    runtime_handler: str = ""
    hostname: str = ""
    attempt: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    host_network: bool = False
    host_pid: bool = False
    share_processes: bool = False
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to be made in a pod. ``log_name`` is below the pod's log directory.

    Attributes:
        seccomp: ``runtime`` for the runtime's own profile, ``unconfined`` for none.
        memory_limit_bytes: 0 = none.
    """

    name: str
    image: str
    log_name: str
    attempt: int = 0
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    user: int | None = None
    group: int | None = None
    drop_capabilities: tuple[str, ...] = ()
    add_capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    read_only_root: bool = False
    seccomp: str = "unconfined"
    memory_limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ImageAccess:
    """Credentials for one pull; never in repr."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a container ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes
