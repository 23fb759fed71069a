"""What watchers need of their neighbours; ``composing.py`` plugs them in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from controlplane.identity import Actor
from controlplane.kube.client import KubeClient
from controlplane.store.database import Store
from controlplane.store.records import Checkpoint, Job
from controlplane.workload import Workload

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


class Clusters(Protocol):
    """The clusters' Kubernetes APIs (``clusters.reaching``)."""

    async def client(self, cluster: str) -> KubeClient: ...


class Checkpoints(Protocol):
    """Makes checkpoints, and pushes them."""

    async def make(self, wanted: Making, actor: Actor) -> Job:
        """Start the job.

        Raises:
            SnapError: it was not started.
        """
        ...

    async def of_job(self, job_id: str) -> Sequence[Checkpoint]:
        """The checkpoints that a job makes."""
        ...


class Hooks(Protocol):
    """The hooks that run (``hook``)."""

    def covering(self, cluster: str, pod: Mapping[str, Any]) -> str:
        """Why a new pod like ``pod`` would not start from a checkpoint there; empty: it would."""
        ...


@dataclass(frozen=True, slots=True)
class Making:
    """A checkpoint to make; ``container`` ``*`` means all, frozen together."""

    cluster: str
    namespace: str
    pod: str
    node: str
    container: str


class Claims:
    """Workloads whose checkpoint is being begun just now, by any watcher: nobody else begins one.

    Attributes:
        ended: rises whenever that is over; what was read of the store before may not show the checkpoint.
    """

    def __init__(self) -> None:
        self._held: set[Workload] = set()
        self.ended = 0

    def __contains__(self, workload: Workload) -> bool:
        return workload in self._held

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, workloads: set[Workload]) -> None:
        """Nobody else begins a checkpoint of these from now on."""
        self._held |= workloads

    def release(self, workloads: set[Workload]) -> None:
        """It is begun, or was not."""
        self._held -= workloads
        self.ended += 1


@dataclass(frozen=True, slots=True)
class Means:
    """What watchers work with.

    Attributes:
        key: of the digests of what containers ask for.
        measured: hears of each start that was measured: of what, milliseconds, restored or not.
        claims: shared by all watchers.
        evicting: held from the look at a pod's neighbours until its own eviction shows among them.
    """

    store: Store
    clusters: Clusters
    checkpoints: Checkpoints
    hooks: Hooks
    spawn: Spawn
    measured: Callable[[Workload, float, bool], None]
    now: Callable[[], datetime]
    key: bytes = field(repr=False)
    claims: Claims = field(default_factory=Claims)
    evicting: asyncio.Lock = field(default_factory=asyncio.Lock)
