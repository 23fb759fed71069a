"""What makes a hook work: its webhook in the cluster, and the server that answers reviews."""

from __future__ import annotations

from typing import Protocol

from controlplane.errors import CONFLICT, Failed
from controlplane.store.hooks import HookRow


class Servers(Protocol):
    """The hooks that run."""

    async def start(self, hook: HookRow) -> None:
        """Register the webhook in its cluster and answer it.

        Raises:
            SnapError: that can't be; CLUSTER_CONNECTION_FAILED when the cluster can't be reached.
        """
        ...

    async def stop(self, name: str) -> None:
        """Take the webhook away again; fine if there is none."""
        ...

    def is_running(self, name: str) -> bool:
        """Whether reviews of ``name`` are answered."""
        ...

    async def renew(self, hook: HookRow) -> None:
        """Give the webhook a new certificate; raises as ``start``."""
        ...


class Clusters(Protocol):
    """The clusters' Kubernetes APIs (``clusters.reaching``)."""

    async def check(self, cluster: str) -> str: ...


class NoServers:
    """This version reaches a hook's cluster, and says that it does not answer reviews yet."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def start(self, hook: HookRow) -> None:
        """Always raises: what is wrong with the cluster, else that nothing would answer."""
        version = await self._clusters.check(hook.cluster)
        raise Failed(
            f"Cluster {hook.cluster} answers ({version}), but this version of SNAP does not answer "
            "admission reviews yet; annotate pods yourself.",
            code=CONFLICT,
        )

    async def stop(self, name: str) -> None:
        """Nothing runs."""

    def is_running(self, name: str) -> bool:  # noqa: ARG002 - nothing runs
        """Never."""
        return False

    async def renew(self, hook: HookRow) -> None:
        """As ``start``."""
        await self.start(hook)
