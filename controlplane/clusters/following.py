"""Every cluster whose API server can be asked is followed: its pods and nodes, and what is kept right in it.

A follower per cluster, for as long as the cluster is set up. No failure of an API server ends one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from controlplane.clusters import projections
from controlplane.errors import Retryable, SnapError
from controlplane.kube.client import KubeClient
from controlplane.kube.informer import Informer, Pace, Wanted
from controlplane.kube.resources import NODES, PODS

LOOK_EVERY_S: Final = (
    2.0  # for clusters that were set up, changed or removed; asks our own store only
)
KEEP_EVERY_S: Final = 5.0
_AGAIN_MOST_S: Final = 60.0
_PACE: Final = Pace()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Followed:
    """What is known of a cluster by its API server; see ``Informer`` for how current that is."""

    cluster: str
    pods: Informer
    nodes: Informer

    @property
    def trouble(self) -> str:
        """Why what is known may be old; empty while it is current."""
        for what, informer in (("pods", self.pods), ("nodes", self.nodes)):
            if informer.last_error:
                return f"{what} are not watched: {informer.last_error}"
            if not informer.is_synced:
                return f"{what} are not listed yet"
        return ""


class Keeper(Protocol):
    """Keeps something right in a cluster; called again and again, and cheap when all is well."""

    async def __call__(self, client: KubeClient, followed: Followed) -> None: ...


class Clusters(Protocol):
    """The clusters that are set up (``reaching.ClusterApis``)."""

    async def reachable(self) -> Sequence[str]:
        """The names of those that have an address and a credential."""
        ...

    async def client(self, cluster: str) -> KubeClient: ...


@dataclass(slots=True)
class _Upkeep:
    """How a keeper fares in a cluster."""

    keeper: Keeper
    again_at: float = 0.0
    failures: int = 0
    said: str = ""


@dataclass(slots=True)
class _Follower:
    followed: Followed
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


class ClusterFollowing:
    """Follows the clusters while ``run`` runs.

    Args:
        keepers: what is kept right in each.
    """

    def __init__(
        self, clusters: Clusters, keepers: Sequence[Keeper] = (), pace: Pace = _PACE
    ) -> None:
        self._clusters = clusters
        self._keepers = tuple(keepers)
        self._pace = pace
        self._followers: dict[str, _Follower] = {}

    def of(self, cluster: str) -> Followed | None:
        """What is known of a cluster; None for one that has no API server that we could ask."""
        follower = self._followers.get(cluster)
        return None if follower is None else follower.followed

    def answers(self, cluster: str) -> bool:
        """Whether a cluster has an API server that can be asked, as far as is known."""
        followed = self.of(cluster)
        return followed is not None and not followed.pods.last_error

    def node_of(self, cluster: str, namespace: str, pod: str) -> str:
        """The node that a pod runs on, as the API server says now; empty where it is not known."""
        followed = self.of(cluster)
        if followed is None or not followed.pods.is_alive:
            return ""
        found = followed.pods.copies.get(namespace, pod)
        return projections.node_of_pod(found) if found is not None else ""

    def everything(self) -> list[Followed]:
        """What is known of each."""
        return [follower.followed for follower in self._followers.values()]

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for cluster in list(self._followers):
                await self._leave(cluster)

    async def look(self) -> None:
        """Begin with clusters that are new, end with those that are gone."""
        wanted = set(await self._clusters.reachable())
        for cluster in self._followers.keys() - wanted:
            await self._leave(cluster)
        for cluster in sorted(wanted - self._followers.keys()):
            self._begin(cluster)

    def _begin(self, cluster: str) -> None:
        async def connect() -> KubeClient:
            return await self._clusters.client(cluster)

        followed = Followed(
            cluster,
            pods=Informer(connect, _pods(), pace=self._pace),
            nodes=Informer(connect, _nodes(), pace=self._pace),
        )
        work = {
            "pods": followed.pods.run(),
            "nodes": followed.nodes.run(),
            "upkeep": self._keep(connect, followed),
        }
        tasks = [
            asyncio.create_task(one, name=f"{what} of {cluster}") for what, one in work.items()
        ]
        self._followers[cluster] = _Follower(followed, tasks)

    async def _leave(self, cluster: str) -> None:
        tasks = self._followers.pop(cluster).tasks
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _keep(self, connect: Callable[[], Awaitable[KubeClient]], followed: Followed) -> None:
        """Call each keeper, those that fail less and less often."""
        upkeep = [_Upkeep(keeper) for keeper in self._keepers]
        with suppress(TimeoutError):  # an account that may not list nodes may still do the rest
            async with asyncio.timeout(KEEP_EVERY_S):
                await followed.nodes.wait_watched()
        while True:
            for one in upkeep:
                if time.monotonic() >= one.again_at:
                    await _try(one, connect, followed)
            await asyncio.sleep(KEEP_EVERY_S)


async def _try(
    one: _Upkeep, connect: Callable[[], Awaitable[KubeClient]], followed: Followed
) -> None:
    try:
        await one.keeper(await connect(), followed)
    except SnapError as failure:
        one.failures += 1
        wait_s = min(_AGAIN_MOST_S, KEEP_EVERY_S * 2 ** min(one.failures, 8))
        if isinstance(failure, Retryable):
            wait_s = max(failure.after_s, min(wait_s, 2 * KEEP_EVERY_S))
        one.again_at = time.monotonic() + wait_s
        words = f"{failure.message} ({failure.details})"
        if words != one.said:
            _log.warning("%s of cluster %s: %s", one.keeper, followed.cluster, words)
        one.said = words
    else:
        one.failures, one.said = 0, ""


def _pods() -> Wanted:
    return Wanted(PODS.path(), keep=projections.pod, indexes={"node": projections.node_of_pod})


def _nodes() -> Wanted:
    return Wanted(NODES.path(), keep=projections.node)
