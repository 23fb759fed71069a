"""Statistics, status and where a pod is come from informers, and an API server that fails is told, not suffered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.clusters.following import ClusterFollowing
from controlplane.clusters.statistics import Counting, InNamespace
from controlplane.kube.client import KubeClient
from controlplane.kube.informer import Pace
from controlplane.store import checkpoints, clusters
from controlplane.store.clusters import ClusterRow
from controlplane.store.database import open_store
from controlplane.store.records import Checkpoint, CheckpointStatus
from tests.fakes.fleet import FakeFleet
from tests.fakes.jobs import until
from tests.fakes.kube_server import Fault, KubeServer


class _Clusters:
    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def reachable(self) -> list[str]:
        return ["c1"]

    async def client(self, cluster: str) -> KubeClient:
        return self._client


@pytest.fixture
async def following(client: KubeClient) -> AsyncIterator[ClusterFollowing]:
    """The cluster ``c1`` is followed."""
    made = ClusterFollowing(_Clusters(client), (), Pace(watch_s=30, first_s=0.01, most_s=0.05))
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _pod(fake: KubeServer, namespace: str, name: str) -> None:
    status: dict[str, Any] = {"phase": "Running", "containerStatuses": []}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    fake.put(path, spec={"nodeName": "n1"}, status=status)


def _checkpoint(cluster: str, namespace: str) -> Checkpoint:
    """One of a pod that is gone."""
    named = f"{cluster}-{namespace}"
    return Checkpoint(
        id=named,
        job_id="job",
        cluster=cluster,
        node="n1",
        namespace=namespace,
        pod_name="gone",
        container_name="app",
        filename=f"{named}.tar",
        status=CheckpointStatus.COMPLETED,
        owner="admin",
        created_at="2026-01-01T00:00:00Z",
    )


async def _none() -> int:
    return 0


async def test_pods_are_counted_by_namespace(
    following: ClusterFollowing, fake: KubeServer, tmp_path: Path
) -> None:
    for namespace, name in (("a", "one"), ("a", "two"), ("b", "three")):
        _pod(fake, namespace, name)
    await until(lambda: following.answers("c1") and following.node_of("c1", "b", "three"))
    store = open_store(tmp_path / "data")
    try:
        await store.write(lambda db: clusters.put(db, ClusterRow("c1")))
        await store.write(lambda db: clusters.put(db, ClusterRow("unreachable")))
        await store.write(lambda db: checkpoints.insert(db, _checkpoint("c1", "left")))
        await store.write(lambda db: checkpoints.insert(db, _checkpoint("unreachable", "a")))
        counting = Counting(store, FakeFleet(), _none, time.monotonic, following.everything)
        counted = await counting()
    finally:
        store.close()
    assert counted.namespaces == (
        InNamespace("c1", "a", 0, 2),
        InNamespace("c1", "b", 0, 1),
        InNamespace("c1", "left", 1, 0),  # it is known that no pod is there
        InNamespace("unreachable", "a", 1, None),
    )
    assert counted.troubles == {}


@pytest.mark.parametrize(
    "status", [403, 410, 429, 503, 0], ids=["403", "410", "429", "503", "silent"]
)
async def test_an_api_server_that_fails_is_told(
    following: ClusterFollowing, fake: KubeServer, tmp_path: Path, status: int
) -> None:
    _pod(fake, "a", "one")
    await until(lambda: following.node_of("c1", "a", "one"))
    fake.fail(Fault(status, times=1_000_000))
    fake.drop_watches()
    followed = following.of("c1")
    assert followed is not None
    await until(lambda: not followed.pods.is_alive or status == 0)
    store = open_store(tmp_path / "data")
    try:
        await store.write(lambda db: clusters.put(db, ClusterRow("c1")))
        counting = Counting(store, FakeFleet(), _none, time.monotonic, following.everything)
        async with asyncio.timeout(1):
            counted = await counting()
    finally:
        store.close()
    assert counted.namespaces == (InNamespace("c1", "a", 0, 1),)  # as it was known last
    if status not in (0, 410):
        await until(lambda: str(status) in followed.trouble)


async def test_kubernetes_says_where_a_pod_is(
    following: ClusterFollowing, fake: KubeServer
) -> None:
    _pod(fake, "a", "one")
    await until(lambda: following.node_of("c1", "a", "one") == "n1")
    assert following.node_of("c1", "a", "none") == ""
    assert following.node_of("other", "a", "one") == ""
    followed = following.of("c1")
    assert followed is not None
    kept = followed.pods.copies.get("a", "one")
    assert "canary-env" not in json.dumps(kept)
    assert "containers" not in (kept or {})["spec"]
