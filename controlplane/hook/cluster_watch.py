"""What admission needs to know of a cluster, followed there: nodes, the RuntimeClass, the webhooks of our hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed
from controlplane.hook.fitting import Traits
from controlplane.hook.index import ClusterSeen
from controlplane.hook.nodes import read_node
from controlplane.hook.webhook import MANAGED, MANAGER
from controlplane.kube.client import KubeClient
from controlplane.kube.informer import Change, Informer, Wanted
from controlplane.kube.resources import MUTATING_WEBHOOKS, NODES, RUNTIME_CLASSES, Object
from controlplane.kube.workloads import RUNTIME_CLASS

SYNC_S: Final = 15.0
Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


class ClusterWatch:
    """Follows one cluster from ``start`` until ``stop``.

    Args:
        connect: gives the client.
        traits: what agents told of the cluster's nodes, by name.
        on_webhook: a webhook configuration of ours was changed, or is gone (None).
    """

    def __init__(
        self,
        cluster: str,
        connect: Callable[[], Awaitable[KubeClient]],
        traits: Callable[[], Mapping[str, Traits]],
        on_webhook: Callable[[str, Object | None], None],
    ) -> None:
        self.cluster = cluster
        self._traits = traits
        self._on_webhook = on_webhook
        self._is_stale = True
        self._seen = ClusterSeen()
        self._tasks: list[asyncio.Task[Any]] = []
        named = {"fieldSelector": f"metadata.name={RUNTIME_CLASS}"}
        ours = {"labelSelector": f"{MANAGED}={MANAGER}"}
        self._nodes = Informer(connect, Wanted(NODES.path(), keep=_of_node), self._node_changed)
        self._classes = Informer(connect, Wanted(RUNTIME_CLASSES.path(), named), self._changed)
        self._webhooks = Informer(
            connect, Wanted(MUTATING_WEBHOOKS.path(), ours), self._webhook_changed
        )

    @property
    def is_alive(self) -> bool:
        """Whether it is followed; it stays so while the API server is away."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def error(self) -> str:
        """Why it is not up to date; empty: it is."""
        return next((i.last_error for i in self._informers() if i.last_error), "")

    @property
    def seen(self) -> ClusterSeen:
        """The cluster as it is known now."""
        if self._is_stale:
            self._is_stale = False
            nodes = [read_node(node) for node in self._nodes.copies]
            self._seen = ClusterSeen(len(self._classes.copies) > 0, nodes, self._traits())
        return self._seen

    def refresh(self) -> None:
        """What agents tell of their nodes may have changed."""
        self._is_stale = True

    async def start(self, spawn: Spawn) -> None:
        """Follow it; returns when all of it was read once.

        Raises:
            Failed: CLUSTER_CONNECTION_FAILED, that takes too long; nothing is followed then.
        """
        self._tasks = [
            spawn(informer.run(), f"follow {self.cluster} for hooks")
            for informer in self._informers()
        ]
        try:
            async with asyncio.timeout(SYNC_S):
                for informer in self._informers():
                    await informer.wait_synced()
        except TimeoutError as cause:
            details = self.error or f"unreachable: no answer within {SYNC_S:g} s"
            await self.stop()
            raise Failed(
                f"Cluster {self.cluster} can't be watched with the stored credential.",
                code=CLUSTER_CONNECTION_FAILED,
                details=details,
            ) from cause
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Follow it no longer."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def webhook(self, name: str) -> Object | None:
        """A webhook configuration of ours, as it is there."""
        return self._webhooks.copies.get("", name)

    def _informers(self) -> tuple[Informer, ...]:
        return (self._nodes, self._classes, self._webhooks)

    def _changed(self, _change: Change) -> None:
        self._is_stale = True

    def _node_changed(self, change: Change) -> None:
        # kubelets write to their nodes all the time, hardly ever something that matters here
        if change.before is None or read_node(change.before) != read_node(change.object):
            self._is_stale = True

    def _webhook_changed(self, change: Change) -> None:
        name = str(change.object["metadata"]["name"])
        self._on_webhook(name, self.webhook(name))


def _of_node(node: Object) -> Object:
    """What is read of a node: a large cluster's would be much to keep."""
    metadata, spec, status = (node.get(part) or {} for part in ("metadata", "spec", "status"))
    kept = ("name", "labels", "resourceVersion", "uid")
    return {
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": {k: spec[k] for k in ("unschedulable", "taints") if k in spec},
        "status": {
            "conditions": [
                {"type": c.get("type"), "status": c.get("status")}
                for c in status.get("conditions") or ()
            ]
        },
    }
