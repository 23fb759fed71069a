"""What the API needs of the rest of the control plane; ``composing.py`` plugs it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from controlplane.api.metrics import Metrics
from controlplane.api.remembering import Remembered
from controlplane.checkpoints.analysis import Analyses
from controlplane.checkpoints.placing import Placing
from controlplane.checkpoints.restoring import PodRestoring
from controlplane.checkpoints.service import CheckpointService
from controlplane.checkpoints.uploads import Uploads
from controlplane.clusters.configs import ClusterConfigs
from controlplane.clusters.following import Followed
from controlplane.clusters.pods import ClusterPods
from controlplane.clusters.reaching import ClusterApis
from controlplane.clusters.reports import NodeReports
from controlplane.clusters.statistics import Statistics
from controlplane.clusters.tokens import JoinTokens
from controlplane.hook.service import Hooks
from controlplane.identity import Actor
from controlplane.jobs.service import JobService
from controlplane.registries.configs import RegistryConfigs
from controlplane.settings import Settings
from controlplane.users.audit import AuditLog
from controlplane.users.keys import ApiKeys
from controlplane.users.service import Users
from controlplane.watcher.service import Watchers


class Reason(Protocol):
    """Why a node is not ready, or what is limited, and what to do."""

    @property
    def message(self) -> str: ...

    @property
    def remedy(self) -> str: ...


class NodeFacts(Protocol):
    """What a node has."""

    @property
    def engines(self) -> tuple[str, ...]: ...

    @property
    def restore_drivers(self) -> tuple[str, ...]: ...

    @property
    def criu_version(self) -> str: ...

    @property
    def runtime(self) -> str: ...

    @property
    def runtime_version(self) -> str: ...

    @property
    def oci_runtime(self) -> str: ...

    @property
    def oci_runtime_version(self) -> str: ...

    @property
    def runc_version(self) -> str: ...

    @property
    def kubelet_version(self) -> str: ...

    @property
    def kernel(self) -> str: ...

    @property
    def architecture(self) -> str: ...


class NodeStatus(Protocol):
    """What a node's agent last reported."""

    @property
    def ready(self) -> bool: ...

    @property
    def reasons(self) -> Sequence[Reason]: ...


class Node(Protocol):
    """A node whose agent joined at some time; ``last_seen`` is RFC 3339, stale is more than a minute ago."""

    @property
    def cluster(self) -> str: ...

    @property
    def node(self) -> str: ...

    @property
    def connected(self) -> bool: ...

    @property
    def last_seen(self) -> str: ...

    @property
    def stale(self) -> bool: ...

    @property
    def facts(self) -> NodeFacts: ...

    @property
    def status(self) -> NodeStatus: ...


class Fleet(Protocol):
    """The nodes, connected or not."""

    def nodes(self, cluster: str = "") -> Sequence[Node]: ...


class Event(Protocol):
    """One piece of news of a job."""

    def encoded(self) -> bytes:
        """The message that is sent, as JSON."""
        ...


class News(Protocol):
    """What one reader is told."""

    async def batch(self) -> Sequence[Event]:
        """What came since the last one, as soon as there is anything.

        Empty when the reader is too slow to keep up or the server stops.
        """
        ...


class Progress(Protocol):
    """The hub that tells of jobs while they run."""

    def subscribe(self, actor: Actor, since: int | None) -> AbstractAsyncContextManager[News]:
        """News for ``actor``: first the running jobs' latest, then as it comes."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must work for the control plane to be ready."""

    name: str
    ok: bool
    message: str = ""


async def _nothing() -> None:
    """Nobody wants to hear of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The ports of the API.

    Attributes:
        followed: what is known of a cluster by its API server; None where none can be asked.
        wall: Unix seconds.
        rising: seconds that never jump.
        checks: what ``/ready`` asks.
        lists: answers that are the same for everybody.
        registries_changed: called after registry configs changed, so that agents hear of it.
    """

    settings: Settings
    users: Users
    registries: RegistryConfigs
    clusters: ClusterConfigs
    fleet: Fleet
    statistics: Callable[[], Awaitable[Statistics]]
    progress: Progress
    join_tokens: JoinTokens
    checks: Callable[[], Awaitable[Sequence[Check]]]
    audit: AuditLog
    jobs: JobService
    checkpoints: CheckpointService
    uploads: Uploads
    analyses: Analyses
    metrics: Metrics
    cluster_apis: ClusterApis
    pods: ClusterPods
    node_reports: NodeReports
    api_keys: ApiKeys
    watchers: Watchers
    hooks: Hooks
    placing: Placing
    restoring: PodRestoring
    followed: Callable[[str], Followed | None]
    wall: Callable[[], float]
    rising: Callable[[], float]
    lists: Remembered = field(default_factory=Remembered)
    registries_changed: Callable[[], Awaitable[None]] = _nothing
