"""The pods of a cluster: by its Kubernetes API, else as its agents know them; and whose cluster is meant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from controlplane.clusters.directory import ClusterDirectory
from controlplane.clusters.following import Followed
from controlplane.errors import CLUSTER_CONNECTION_FAILED, SnapError
from controlplane.store import choices
from controlplane.store.database import Store

COUNT_S: Final = 10.0  # for so long a count is good enough
COUNT_WAIT_S: Final = 0.5
_STATES: Final = {"running": "running", "exited": "terminated"}


class Container(Protocol):
    """A container that an agent told of."""

    @property
    def name(self) -> str: ...

    @property
    def container_id(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def image(self) -> str: ...

    @property
    def image_ref(self) -> str: ...


class Pod(Protocol):
    """A pod that an agent told of."""

    @property
    def pod_name(self) -> str: ...

    @property
    def namespace(self) -> str: ...

    @property
    def pod_uid(self) -> str: ...

    @property
    def ready(self) -> bool: ...

    @property
    def labels(self) -> Any: ...

    @property
    def containers(self) -> Sequence[Container]: ...


class Session(Protocol):
    """An agent that is connected."""

    @property
    def cluster(self) -> str: ...


class Nodes(Protocol):
    """The nodes, by their agents."""

    def sessions(self, cluster: str = "") -> Sequence[Session]:
        """The agents that are connected."""
        ...

    async def pods(self, cluster: str) -> Sequence[tuple[str, Pod]]:
        """Every pod that they know, with its node."""
        ...


class Apis(Protocol):
    """The Kubernetes APIs (``reaching``)."""

    async def check(self, cluster: str) -> str: ...

    async def pods(self, cluster: str) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Reached:
    """How a cluster was reached: ``by`` is ``kubernetes`` or ``agents``."""

    cluster: str
    by: str


class ClusterPods:
    """Finds pods, and remembers for each user which cluster is looked at."""

    def __init__(
        self,
        store: Store,
        directory: ClusterDirectory,
        apis: Apis,
        nodes: Nodes,
        followed: Callable[[], Sequence[Followed]] = tuple,
    ) -> None:
        self._store = store
        self._directory = directory
        self._apis = apis
        self._nodes = nodes
        self._followed = followed
        self._counting: asyncio.Task[None] | None = None
        self._counted_at = 0.0
        self._counted = 0

    async def choose(self, cluster: str, username: str) -> Reached:
        """Remember that ``username`` looks at ``cluster`` from now on, if it can be reached.

        Raises:
            NotFound: there is no such cluster.
            SnapError: CLUSTER_CONNECTION_FAILED, neither its API server nor an agent of it is there.
        """
        name = await self._directory.resolve(cluster)
        by = "kubernetes"
        try:
            await self._apis.check(name)
        except SnapError as failure:
            if failure.code != CLUSTER_CONNECTION_FAILED or not self._nodes.sessions(name):
                raise
            by = "agents"
        await self._store.write(lambda db: choices.put(db, username, name))
        return Reached(name, by)

    async def resolve(self, cluster: str) -> str:
        """The name of the cluster that is meant; raises as ``ClusterDirectory.resolve``."""
        return await self._directory.resolve(cluster)

    async def of_user(self, username: str, cluster: str = "") -> list[dict[str, Any]]:
        """The pods of ``cluster``, else of the one that ``username`` chose, else of the only one.

        They are as Kubernetes has them.

        Raises:
            NotFound: there is no cluster.
            Refused: there are several, and none was chosen.
            SnapError: CLUSTER_CONNECTION_FAILED.
        """
        chosen = cluster or await self._store.read(lambda db: choices.get(db, username))
        return await self.of_cluster(await self._directory.resolve(chosen))

    async def of_cluster(self, cluster: str) -> list[dict[str, Any]]:
        """The pods of a cluster, as Kubernetes has them; from agents where its API can't be reached.

        Raises:
            SnapError: CLUSTER_CONNECTION_FAILED, neither its API server nor an agent of it is there.
        """
        try:
            return await self._apis.pods(cluster)
        except SnapError as failure:
            if failure.code != CLUSTER_CONNECTION_FAILED or not self._nodes.sessions(cluster):
                raise
        return [_as_kubernetes(node, pod) for node, pod in await self._nodes.pods(cluster)]

    async def count(self) -> int:
        """How many pods there are: as the API servers say, and of clusters without one as the connected
        agents knew some seconds ago; a silent node holds nobody up.
        """
        listed = sum(len(one.pods.copies) for one in self._followed() if one.pods.is_synced)
        return listed + await self._count_by_agents()

    async def _count_by_agents(self) -> int:
        now = time.monotonic()
        if self._counting is None or (self._counting.done() and now > self._counted_at + COUNT_S):
            self._counted_at = now
            self._counting = asyncio.create_task(self._count(), name="count pods")
        if not self._counting.done():
            await asyncio.wait([self._counting], timeout=COUNT_WAIT_S)
        return self._counted

    async def _count(self) -> None:
        listed = {one.cluster for one in self._followed() if one.pods.is_synced}
        clusters = sorted({session.cluster for session in self._nodes.sessions()} - listed)
        found = await asyncio.gather(*(self._nodes.pods(cluster) for cluster in clusters))
        self._counted = sum(len(pods) for pods in found)


def _as_kubernetes(node: str, pod: Pod) -> dict[str, Any]:
    """What an agent told of a pod, in the words of the Kubernetes API."""
    return {
        "metadata": {
            "name": pod.pod_name,
            "namespace": pod.namespace,
            "uid": pod.pod_uid,
            "labels": dict(pod.labels),
        },
        "spec": {
            "nodeName": node,
            "containers": [
                {"name": c.name, "image": c.image or c.image_ref} for c in pod.containers
            ],
        },
        "status": {
            "phase": "Running" if pod.ready else "Unknown",
            "containerStatuses": [
                {
                    "name": c.name,
                    "containerID": c.container_id,
                    "image": c.image,
                    "imageID": c.image_ref,
                    "state": {_STATES.get(c.state, "waiting"): {}},
                }
                for c in pod.containers
            ],
        },
    }
