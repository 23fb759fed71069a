"""How many clusters, nodes, checkpoints and pods there are; counted at most once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from sqlite_utils import Database

from controlplane.clusters.following import Followed
from controlplane.kube.copies import NAMESPACE
from controlplane.store import checkpoints, clusters
from controlplane.store.database import Store

_GOOD_FOR_S: Final = 1.0
Place = tuple[str, str]
"""Cluster and namespace."""


class Node(Protocol):
    """A node whose agent joined at some time; stale: silent for more than a minute."""

    @property
    def cluster(self) -> str: ...

    @property
    def stale(self) -> bool: ...


class Fleet(Protocol):
    """The nodes, connected or not."""

    def nodes(self, cluster: str = "") -> Sequence[Node]: ...


@dataclass(frozen=True, slots=True)
class InNamespace:
    """What there is in a namespace; ``total_pods`` is None where no API server tells."""

    cluster: str
    namespace: str
    total_checkpoints: int
    total_pods: int | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """The totals that users see.

    Attributes:
        active_clusters: those of which an agent reported within a minute.
        troubles: by cluster, why what its API server has may be old.
    """

    total_clusters: int
    active_clusters: int
    total_checkpoints: int
    total_nodes: int
    total_pods: int
    namespaces: tuple[InNamespace, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)


class Counting:
    """Counts, and remembers the answer for a second: many who ask cost no more than one.

    Args:
        pods: how many pods the clusters run, as far as they can be reached.
        rising: seconds that never jump.
        followed: what is known of clusters by their API servers.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        pods: Callable[[], Awaitable[int]],
        rising: Callable[[], float],
        followed: Callable[[], Sequence[Followed]] = tuple,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._pods = pods
        self._rising = rising
        self._followed = followed
        self._lock = asyncio.Lock()
        self._last: tuple[float, Statistics] | None = None
        self._checkpoints: tuple[int, dict[Place, int]] = (-1, {})  # as of a revision

    async def __call__(self) -> Statistics:
        """The totals, at most a second old."""
        async with self._lock:
            if self._last is None or self._rising() - self._last[0] > _GOOD_FOR_S:
                self._last = (self._rising(), await self._count())
            return self._last[1]

    async def _count(self) -> Statistics:
        known = await self._store.read(_names)
        checkpoints_in = await self._count_checkpoints()
        followed = [one for one in self._followed() if one.cluster in known]
        synced = [one for one in followed if one.pods.is_synced]
        pods_in = {
            (one.cluster, namespace): count
            for one in synced
            for namespace, count in one.pods.copies.counts(NAMESPACE).items()
        }
        without = {one.cluster: 0 for one in synced}  # where it is known that no pod is left
        nodes = [node for node in self._fleet.nodes() if node.cluster in known]
        active = {node.cluster for node in nodes if not node.stale}
        return Statistics(
            total_clusters=len(known),
            active_clusters=len(active),
            total_checkpoints=sum(checkpoints_in.values()),
            total_nodes=len(nodes),
            total_pods=await self._pods(),
            namespaces=tuple(
                InNamespace(
                    *place, checkpoints_in.get(place, 0), pods_in.get(place, without.get(place[0]))
                )
                for place in sorted(checkpoints_in.keys() | pods_in.keys())
            ),
            troubles={one.cluster: one.trouble for one in followed if one.trouble},
        )

    async def _count_checkpoints(self) -> dict[Place, int]:
        """By namespace; counted again only after one changed: there may be very many."""
        revision = self._store.revisions.of("checkpoints")
        if self._checkpoints[0] != revision:
            self._checkpoints = (revision, await self._store.read(checkpoints.count_by_place))
        return self._checkpoints[1]


def _names(db: Database) -> frozenset[str]:
    return frozenset(c.name for c in clusters.everything(db))
