"""What runs a watcher on its cluster."""

from __future__ import annotations

from typing import Protocol

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

    def is_started(self, name: str) -> bool:
        """Whether there is a loop of ``name``, though its cluster may be away just now."""
        ...

    def is_alive(self, name: str) -> bool:
        """Whether the watch of ``name`` really runs now."""
        ...

    def failure(self, name: str) -> tuple[str, float] | None:
        """Why the watch of ``name`` does not run just now, and since when (Unix seconds); None: it does."""
        ...
