"""How many clusters, nodes, checkpoints and pods there are; counted at most once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sqlite_utils import Database

from controlplane.store import checkpoints, clusters
from controlplane.store.database import Store

_GOOD_FOR_S: Final = 1.0


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
class Statistics:
    """The totals that users see.

    Attributes:
        active_clusters: those of which an agent reported within a minute.
    """

    total_clusters: int
    active_clusters: int
    total_checkpoints: int
    total_nodes: int
    total_pods: int


class Counting:
    """Counts, and remembers the answer for a second: many who ask cost no more than one.

    Args:
        pods: how many pods the clusters run, as far as they can be reached.
        rising: seconds that never jump.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        pods: Callable[[], Awaitable[int]],
        rising: Callable[[], float],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._pods = pods
        self._rising = rising
        self._lock = asyncio.Lock()
        self._last: tuple[float, Statistics] | None = None
        self._checkpoints: tuple[int, int] | None = None  # revision, how many

    async def __call__(self) -> Statistics:
        """The totals, at most a second old."""
        async with self._lock:
            if self._last is None or self._rising() - self._last[0] > _GOOD_FOR_S:
                self._last = (self._rising(), await self._count())
            return self._last[1]

    async def _count(self) -> Statistics:
        known = await self._store.read(_names)
        total_checkpoints = await self._count_checkpoints()
        nodes = [node for node in self._fleet.nodes() if node.cluster in known]
        active = {node.cluster for node in nodes if not node.stale}
        return Statistics(
            total_clusters=len(known),
            active_clusters=len(active),
            total_checkpoints=total_checkpoints,
            total_nodes=len(nodes),
            total_pods=await self._pods(),
        )

    async def _count_checkpoints(self) -> int:
        """Counted again only after one changed: there may be very many."""
        revision = self._store.revisions.of("checkpoints")
        if self._checkpoints is None or self._checkpoints[0] != revision:
            self._checkpoints = (revision, await self._store.read(checkpoints.count))
        return self._checkpoints[1]


def _names(db: Database) -> frozenset[str]:
    return frozenset(c.name for c in clusters.everything(db))
