"""The watchers that run, each with a watch of its own."""

from __future__ import annotations

from controlplane.store.watchers import WatcherRow
from controlplane.watcher.ports import Means
from controlplane.watcher.watching import Watch


class WatchLoops:
    """One watch for each watcher that runs."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._watches: dict[str, Watch] = {}

    async def start(self, watcher: WatcherRow) -> None:
        """Begin to watch; returns when the cluster was reached.

        Raises:
            SnapError: CLUSTER_CONNECTION_FAILED.
        """
        await self.stop(watcher.name)
        watch = Watch(watcher, self._means)
        await watch.start()
        self._watches[watcher.name] = watch

    async def stop(self, name: str) -> None:
        """End the watch of ``name``; fine if there is none."""
        watch = self._watches.pop(name, None)
        if watch is not None:
            await watch.stop()

    def is_started(self, name: str) -> bool:
        """Whether there is a watch of ``name``, though its cluster may be away just now."""
        watch = self._watches.get(name)
        return watch is not None and watch.is_started

    def is_alive(self, name: str) -> bool:
        """Whether the watch of ``name`` really runs now."""
        watch = self._watches.get(name)
        return watch is not None and watch.is_alive

    def failure(self, name: str) -> tuple[str, float] | None:
        """Why the watch of ``name`` does not run just now, and since when (Unix seconds)."""
        watch = self._watches.get(name)
        return None if watch is None else watch.failure
