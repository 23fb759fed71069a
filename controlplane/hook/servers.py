"""What makes a hook work: its webhook in the cluster, and the server that answers reviews."""

from __future__ import annotations

from typing import Protocol

from controlplane.store.hooks import HookRow


class Servers(Protocol):
    """The hooks that run."""

    async def start(self, hook: HookRow) -> None:
        """Register the webhook in its cluster and answer it.

        Raises:
            SnapError: that can't be; CLUSTER_CONNECTION_FAILED when the cluster can't be reached.
        """
        ...

    async def stop(self, hook: HookRow) -> None:
        """Take the webhook away again; fine if there is none."""
        ...

    def url(self, hook: HookRow) -> str:
        """Where the hook's cluster reaches it."""
        ...

    async def probe(self, hook: HookRow) -> str:
        """Have the hook's cluster call it; why it does not, empty if it does. Raises as ``start``."""
        ...

    def is_running(self, name: str) -> bool:
        """Whether reviews of ``name`` are answered."""
        ...

    async def renew(self, hook: HookRow) -> None:
        """Give the webhook a new certificate; raises as ``start``."""
        ...
