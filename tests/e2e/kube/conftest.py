"""A real API server under the assertions of tests/contract/kube, which the fake one is held to as well."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from controlplane.kube import client as kube
from controlplane.kube.access import Access
from controlplane.kube.client import KubeClient
from deploy.devcluster.cluster import Cluster

SPACE = "snap-contract"
AUDIENCE = "snap-agent"


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own, with its default account."""
    cluster.kubectl("create", "namespace", SPACE)
    cluster.wait(lambda: cluster.exists("serviceaccount", "default", SPACE), "the account")
    yield SPACE
    cluster.kubectl("delete", "namespace", SPACE, "--timeout=50s")


@pytest.fixture
def space(cluster: Cluster, namespace: str) -> Iterator[None]:
    """The namespace, without what a test leaves in it."""
    yield
    cluster.kubectl("delete", "configmaps", "-n", namespace, "-l", "made-by=test")


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubeClient]:
    """The administrator's client."""
    made = await kube.connect(Access("e2e", kubeconfig=cluster.layout.kubeconfig.read_text()))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def guarded(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A pod that no budget lets go."""
    labels = {"app": "guarded"}
    container = {"name": "app", "image": f"{cluster.world.base.host}/counter:latest"}
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "guarded", "namespace": namespace, "labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "guarded", "namespace": namespace},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
    }
    cluster.apply(pod)
    cluster.apply(budget)
    cluster.wait_pod("guarded", namespace)

    def is_seen() -> bool:
        found = cluster.get("poddisruptionbudget", "guarded", namespace)
        return bool(found.get("status", {}).get("currentHealthy") == 1)

    cluster.wait(is_seen, "the budget")
    yield "guarded"
    cluster.delete("poddisruptionbudget", "guarded", namespace)
    cluster.delete("pod", "guarded", namespace)


@pytest.fixture
def pod_token(cluster: Cluster, namespace: str) -> tuple[str, str]:
    """A service account's token, and its audience."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    body = json.dumps({"spec": {"audiences": [AUDIENCE], "expirationSeconds": 600}})
    made = json.loads(cluster.kubectl("create", "--raw", path, "-f", "-", text_in=body))
    return str(made["status"]["token"]), AUDIENCE
