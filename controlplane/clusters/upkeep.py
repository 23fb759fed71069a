"""What is kept right in each cluster: what its nodes say, the runtime class, and whom agents should trust.

Source: kubernetes.io/docs/concepts/containers/runtime-class (handler, scheduling).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from controlplane.clusters import nodelabels
from controlplane.clusters.following import Followed
from controlplane.clusters.nodelabels import RUNTIME, NodeSeen
from controlplane.errors import NotFound, Refused
from controlplane.kube.client import KubeClient
from controlplane.kube.requests import PatchKind
from controlplane.kube.resources import CONFIG_MAPS, NODES, RUNTIME_CLASSES, Object
from controlplane.store import clock

GRACE_S: Final = 15.0  # an agent that is restarted is back by then; silence is seen after 30 s more
RUNTIME_CLASS: Final = "snap"
CA_NAME: Final = "snap-ca"
CA_KEY: Final = "ca.pem"
_LOOK_AGAIN_S: Final = 600.0
_AT_ONCE: Final = 100
_MANAGED: Final = {"app.kubernetes.io/managed-by": "snap", "app.kubernetes.io/part-of": "snap"}


class SeenNode(NodeSeen, Protocol):
    """A node whose agent joined at some time."""

    @property
    def node(self) -> str: ...

    @property
    def connected(self) -> bool: ...


class Nodes(Protocol):
    """The nodes by their agents (``link``)."""

    def nodes(self, cluster: str = "") -> Sequence[SeenNode]: ...

    def away_s(self, cluster: str, node: str) -> float:
        """Seconds since a node was heard of, at most since this process began."""
        ...


class NodeKeeper:
    """Has each Node say what its agent reports, and writes only what differs."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def __str__(self) -> str:
        return "labels of nodes"

    async def __call__(self, client: KubeClient, followed: Followed) -> None:
        """Write what differs.

        Raises:
            SnapError: the API server refuses, or is away.
        """
        if not followed.nodes.is_alive:
            return  # what a node says now is not known
        refused: Refused | None = None
        for number, seen in enumerate(self._nodes.nodes(followed.cluster)):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # of thousands, others get their turn between
            node = followed.nodes.copies.get("", seen.node)
            if node is None:
                continue
            try:
                await self._write(client, followed.cluster, seen, node)
            except Refused as failure:  # of this node: the others are not held up
                refused = failure
        if refused is not None:
            raise refused

    async def _write(self, client: KubeClient, cluster: str, seen: SeenNode, node: Object) -> None:
        is_here = seen.connected or self._nodes.away_s(cluster, seen.node) < GRACE_S
        changes = nodelabels.label_changes(node, nodelabels.labels(seen, is_here=is_here))
        wanted = nodelabels.condition(seen, is_here=is_here, now=_now())
        condition = nodelabels.condition_change(node, wanted)
        try:
            if condition is not None:
                body = {"status": {"conditions": [condition]}}
                path = NODES.path(name=seen.node, sub="status")
                await client.patch(path, body, PatchKind.STRATEGIC)
            if changes:
                await client.patch(NODES.path(name=seen.node), {"metadata": {"labels": changes}})
        except NotFound:
            return  # the node was removed from the cluster meanwhile


class RuntimeClassKeeper:
    """Makes the RuntimeClass ``snap``, which sends pods to prepared nodes, once there is one."""

    def __init__(self) -> None:
        self._seen_at: dict[str, float] = {}

    def __str__(self) -> str:
        return "the runtime class"

    async def __call__(self, client: KubeClient, followed: Followed) -> None:
        """Make it, or put right what sends pods to nodes.

        Raises:
            SnapError: the API server refuses, or is away.
        """
        seen_at = self._seen_at.get(followed.cluster)
        if seen_at is not None and time.monotonic() < seen_at + _LOOK_AGAIN_S:
            return
        if not any(_is_prepared(node) for node in followed.nodes.copies):
            return
        path = RUNTIME_CLASSES.path(name=RUNTIME_CLASS)
        wanted = {"nodeSelector": {RUNTIME: "true"}}
        try:
            found = await client.get(path)
        except NotFound:
            found = {}
        if found.get("scheduling", {}).get("nodeSelector", {}).get(RUNTIME) != "true":
            body = {
                "apiVersion": RUNTIME_CLASSES.api,
                "kind": "RuntimeClass",
                "metadata": {"name": RUNTIME_CLASS, "labels": _MANAGED},
                "handler": RUNTIME_CLASS,
                "scheduling": wanted,
            }
            await client.patch(path, body, PatchKind.APPLY)
        self._seen_at[followed.cluster] = time.monotonic()


class CaKeeper:
    """Writes whom agents should trust into each cluster.

    Args:
        ca_pem: gives it.
        namespace: of the ConfigMap; a cluster without that namespace is left alone.
    """

    def __init__(self, ca_pem: Callable[[], str], namespace: str) -> None:
        self._ca_pem = ca_pem
        self._namespace = namespace
        self._written: dict[str, tuple[str, float]] = {}

    def __str__(self) -> str:
        return f"ConfigMap {self._namespace}/{CA_NAME}"

    async def __call__(self, client: KubeClient, followed: Followed) -> None:
        """Write it where it is missing or another.

        Raises:
            SnapError: the API server refuses, or is away.
        """
        ca_pem = self._ca_pem()
        written, at = self._written.get(followed.cluster, ("", 0.0))
        if written == ca_pem and time.monotonic() < at + _LOOK_AGAIN_S:
            return
        path = CONFIG_MAPS.path(self._namespace, CA_NAME)
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CA_NAME, "labels": _MANAGED},
            "data": {CA_KEY: ca_pem},
        }
        try:
            await client.patch(path, body, PatchKind.APPLY)
        except NotFound:
            return  # no such namespace: no agents of ours are installed there by now
        self._written[followed.cluster] = (ca_pem, time.monotonic())


def _is_prepared(node: Object) -> bool:
    return ((node.get("metadata") or {}).get("labels") or {}).get(RUNTIME) == "true"


def _now() -> str:
    return clock.now()[:19] + "Z"
