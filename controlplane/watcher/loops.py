"""What runs a watcher on its cluster."""

from __future__ import annotations

from typing import Protocol

from controlplane.errors import CONFLICT, Failed
from controlplane.store.watchers import WatcherRow


class Loops(Protocol):
    """The watch loops, one for each watcher that runs."""

    async def start(self, watcher: WatcherRow) -> None:
        """Begin to watch; returns when the cluster was reached.

        Raises:
            SnapError: it can't be watched; CLUSTER_CONNECTION_FAILED when it can't be reached.
        """
        ...

    async def stop(self, name: str) -> None:
        """End the loop of ``name``; fine if there is none."""
        ...

    def is_alive(self, name: str) -> bool:
        """Whether the loop of ``name`` runs."""
        ...


class Clusters(Protocol):
    """The clusters' Kubernetes APIs (``clusters.reaching``)."""

    async def check(self, cluster: str) -> str: ...


class NoLoops:
    """This version reaches a watcher's cluster, and says that it does not watch it yet."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def start(self, watcher: WatcherRow) -> None:
        """Always raises: what is wrong with the cluster, else that nothing watches it."""
        version = await self._clusters.check(watcher.cluster)
        raise Failed(
            f"Cluster {watcher.cluster} answers ({version}), but this version of SNAP does not "
            "watch clusters yet; checkpoint by POST /checkpoint/kubelet/checkpoint.",
            code=CONFLICT,
        )

    async def stop(self, name: str) -> None:
        """Nothing runs."""

    def is_alive(self, name: str) -> bool:  # noqa: ARG002 - nothing runs
        """Never."""
        return False
