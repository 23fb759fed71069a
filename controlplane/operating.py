"""Watchers and hooks, plugged to their neighbours: the part of the composition root that acts without being asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram

from controlplane.checkpoints.commands import CheckpointCommand, PushTarget
from controlplane.checkpoints.service import CheckpointService
from controlplane.clusters.reaching import ClusterApis
from controlplane.hook import addresses
from controlplane.hook.admission import Answer
from controlplane.hook.authority import Authority
from controlplane.hook.fitting import Traits
from controlplane.hook.listener import Listener
from controlplane.hook.running import HookServers
from controlplane.hook.running import Means as HookMeans
from controlplane.identity import Actor
from controlplane.settings import Settings
from controlplane.store.database import Store
from controlplane.store.records import Checkpoint, Job
from controlplane.store.secrets import Sealer
from controlplane.watcher.ports import Making, Means, Spawn
from controlplane.watcher.running import WatchLoops
from controlplane.workload import Workload

_ASKS_KEY: Final = "system/pod-digests-key"
_PATHS_KEY: Final = "system/hook-paths-key"
_ADMISSION_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0)
_START_S: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Nodes(Protocol):
    """What agents told of their nodes (``link.views``)."""

    def nodes(self, cluster: str = "") -> Sequence[Node]: ...


class Node(Protocol):
    """One node."""

    @property
    def node(self) -> str: ...

    @property
    def connected(self) -> bool: ...

    @property
    def facts(self) -> Traits: ...


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What watchers and hooks act through."""

    store: Store
    sealer: Sealer
    clusters: ClusterApis
    checkpoints: CheckpointService
    nodes: Nodes
    metrics: CollectorRegistry
    spawn: Spawn


async def compose(settings: Settings, given: Neighbours) -> tuple[WatchLoops, HookServers]:
    """The watch loops and the hooks' servers; nothing runs yet."""
    asks = await given.store.write(lambda db: given.sealer.get_or_make(db, _ASKS_KEY))
    paths = await given.store.write(lambda db: given.sealer.get_or_make(db, _PATHS_KEY))
    figures = Figures(given.metrics)
    hooks = HookServers(
        HookMeans(
            store=given.store,
            clusters=given.clusters,
            listener=Listener(settings.hook_addr),
            authority=Authority(settings.data_dir / "hook-tls"),
            reaching=addresses.read(settings, paths, os.environ),
            traits=lambda cluster: _traits(given.nodes, cluster),
            told=figures.admitted,
            spawn=given.spawn,
            key=asks,
            partial=settings.hook_partial,
        )
    )
    loops = WatchLoops(
        Means(
            store=given.store,
            clusters=given.clusters,
            checkpoints=Checkpointing(given.checkpoints),
            hooks=hooks,
            spawn=given.spawn,
            measured=figures.started,
            now=lambda: datetime.now(UTC),
            key=asks,
        )
    )
    return loops, hooks


class Checkpointing:
    """The checkpoints' use cases, as watchers ask for them."""

    def __init__(self, checkpoints: CheckpointService) -> None:
        self._checkpoints = checkpoints

    async def make(self, wanted: Making, actor: Actor) -> Job:
        """Start a checkpoint whose image is pushed to the cluster's registry right after it."""
        command = CheckpointCommand(
            wanted.namespace,
            wanted.pod,
            container_name=wanted.container,
            cluster_name=wanted.cluster,
            node_name=wanted.node,
        )
        return await self._checkpoints.checkpoint_and_push(command, PushTarget(), actor)

    async def of_job(self, job_id: str) -> Sequence[Checkpoint]:
        """The checkpoints that a job makes."""
        return await self._checkpoints.of_job(job_id)


class Figures:
    """What is counted of watchers and hooks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._admissions = Counter(
            "snap_admissions", "Reviews answered", ("hook", "result"), registry=registry
        )
        self._seconds = Histogram(
            "snap_admission_seconds",
            "Deciding on a review",
            buckets=_ADMISSION_S,
            registry=registry,
        )
        self._starts = Histogram(
            "snap_pod_start_seconds",
            "From a pod's creation until it was ready",
            ("cluster", "namespace", "owner", "how"),
            buckets=_START_S,
            registry=registry,
        )

    def admitted(self, hook: str, answer: Answer, took_s: float) -> None:
        """A review was answered."""
        result = "restore" if answer.restores else "cold" if answer.reason else "not_meant"
        self._admissions.labels(hook, result).inc()
        self._seconds.observe(took_s)

    def started(self, workload: Workload, ms: float, restored: bool) -> None:
        """A pod became ready."""
        owner = f"{workload.owner_kind}/{workload.owner_name}"
        how = "restored" if restored else "cold"
        self._starts.labels(workload.cluster, workload.namespace, owner, how).observe(ms / 1000)


def _traits(nodes: Nodes, cluster: str) -> Mapping[str, Traits]:
    """By node, also of agents that are away: what they told last is better than nothing."""
    return {node.node: node.facts for node in nodes.nodes(cluster)}
