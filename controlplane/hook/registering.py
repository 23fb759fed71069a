"""Telling clusters of hooks: their webhook configurations, made, put right, taken away; and whether they are called."""

from __future__ import annotations

from typing import Any, Final, Protocol

from controlplane.errors import NotFound
from controlplane.hook import webhook
from controlplane.hook.addresses import Reaching
from controlplane.hook.authority import Authority
from controlplane.hook.webhook import Registration
from controlplane.kube.client import KubeClient
from controlplane.kube.resources import MUTATING_WEBHOOKS, PODS, Object
from controlplane.kube.workloads import SNAP
from controlplane.store.hooks import HookRow

PROBED: Final = "default"  # where the pod of a probe pretends to be


class Clusters(Protocol):
    """The clusters' Kubernetes APIs (``clusters.reaching``)."""

    async def client(self, cluster: str) -> KubeClient: ...


class Registrar:
    """Keeps what clusters are told of hooks in line with what it should be."""

    def __init__(self, clusters: Clusters, reaching: Reaching, authority: Authority) -> None:
        self._clusters = clusters
        self._reaching = reaching
        self._authority = authority

    def is_right(self, hook: HookRow, found: Object | None) -> bool:
        """Whether a configuration says what it should."""
        return found is not None and webhook.says_the_same(found, self._wanted(hook))

    async def register(self, hook: HookRow) -> bool:
        """Make the cluster's configuration say what it should; whether it did not.

        Raises:
            SnapError: the cluster can't be told; Conflict when somebody else changes it just now.
        """
        wanted = self._wanted(hook)
        path = MUTATING_WEBHOOKS.path(name=webhook.name_of(hook.name))
        client = await self._clusters.client(hook.cluster)
        try:
            found = await client.get(path)
        except NotFound:
            await client.create(MUTATING_WEBHOOKS.path(), wanted)
            return True
        if webhook.says_the_same(found, wanted):
            return False
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await client.replace(path, wanted | {"metadata": wanted["metadata"] | version})
        return True

    async def unregister(self, hook: HookRow) -> None:
        """Take the configuration away; fine if there is none. Raises as ``register``."""
        client = await self._clusters.client(hook.cluster)
        try:
            await client.delete(MUTATING_WEBHOOKS.path(name=webhook.name_of(hook.name)))
        except NotFound:
            return

    async def pretend(self, hook: HookRow, name: str) -> None:
        """Have the cluster pretend to create a pod, for which it calls the hook. Raises what it says of the pod."""
        client = await self._clusters.client(hook.cluster)
        await client.create(PODS.path(PROBED), _pod(name), params={"dryRun": "All"})

    def _wanted(self, hook: HookRow) -> Object:
        reaching = self._reaching
        return webhook.configuration(
            Registration(
                hook=hook.name,
                url=reaching.url(hook),
                path=reaching.path(hook),
                ca_pem=self._authority.bundle_pem,
                service=reaching.service_of(hook),
                left_alone=reaching.left_alone(),
            )
        )


def pod_of(review: Any) -> str:
    """The name of the pod in a review that was answered."""
    metadata = (review["request"].get("object") or {}).get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _pod(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {SNAP: "true"}},
        "spec": {"containers": [{"name": "probe", "image": "snap.invalid/probe"}]},
    }
