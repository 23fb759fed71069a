"""Nodes carry our condition and labels as their agents report, written on change only, and gone when they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.clusters import following
from controlplane.clusters.following import ClusterFollowing, Keeper
from controlplane.clusters.upkeep import CaKeeper, NodeKeeper, RuntimeClassKeeper
from controlplane.kube.client import KubeClient
from controlplane.kube.informer import Pace
from controlplane.link.frames import NodeFacts, NodeStatus, Reason
from controlplane.link.views import NodeView
from tests.fakes.jobs import until
from tests.fakes.kube_server import Fault, KubeServer

PACE = Pace(watch_s=30, first_s=0.01, most_s=0.05)
NODE = "/api/v1/nodes/n1"
FACTS = NodeFacts(
    architecture="x86_64",
    kernel="6.18.0-1 (odd)",
    criu_version="4.2.1",
    oci_runtime="runc",
    oci_runtime_version="1.3.6",
    cpu_features=("avx", "sse"),
    restore_drivers=("runtime",),
)
READY = NodeView("c1", "n1", True, "", False, "1", FACTS, NodeStatus(ready=True))


@dataclass
class _Nodes:
    """What agents report."""

    seen: list[NodeView] = field(default_factory=lambda: [READY])
    away: float = 0.0

    def nodes(self, cluster: str = "") -> list[NodeView]:
        return [one for one in self.seen if one.cluster == cluster]

    def away_s(self, cluster: str, node: str) -> float:
        return self.away


class _Clusters:
    """One cluster, or none."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self.names = ["c1"]

    async def reachable(self) -> list[str]:
        return self.names

    async def client(self, cluster: str) -> KubeClient:
        return self._client


@asynccontextmanager
async def _following(client: KubeClient, *keepers: Keeper) -> AsyncIterator[ClusterFollowing]:
    """The cluster is followed, and nothing is kept but by ``_kept``."""
    made = ClusterFollowing(_Clusters(client), keepers, PACE)
    task = asyncio.create_task(made.run())
    try:
        await until(
            lambda: (f := made.of("c1")) is not None and f.pods.is_alive and f.nodes.is_alive
        )
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert made.everything() == []


async def _kept(made: ClusterFollowing, client: KubeClient, keeper: Keeper) -> None:
    """The keeper has done its work, and the informers have heard of it."""
    followed = made.of("c1")
    assert followed is not None
    await keeper(client, followed)


def _condition(fake: KubeServer) -> dict[str, Any]:
    conditions = fake.get(NODE)["status"]["conditions"]
    return next(c for c in conditions if c["type"] == "SnapReady")


def _labels(fake: KubeServer) -> dict[str, str]:
    labels = fake.get(NODE)["metadata"].get("labels") or {}
    return {k.removeprefix("snap.weaversoft.io/"): v for k, v in labels.items()}


def _node(fake: KubeServer) -> None:
    ready = {"type": "Ready", "status": "True"}
    fake.put(NODE, metadata={"labels": {"own": "kept"}}, status={"conditions": [ready]})


async def test_a_ready_node_says_so(client: KubeClient, fake: KubeServer) -> None:
    _node(fake)
    keeper = NodeKeeper(_Nodes())
    async with _following(client) as made:
        await _kept(made, client, keeper)
    assert _labels(fake) == {
        "own": "kept",
        "ready": "true",
        "runtime": "true",
        "arch": "x86_64",
        "cpu-features": _labels(fake)["cpu-features"],
        "kernel": "6.18.0-1-odd",
        "criu": "4.2.1",
        "oci-runtime": "runc-1.3.6",
    }
    assert len(_labels(fake)["cpu-features"]) == 16
    assert _condition(fake)["status"] == "True"
    assert [c["type"] for c in fake.get(NODE)["status"]["conditions"]] == ["Ready", "SnapReady"]


async def test_nothing_is_written_while_nothing_changes(
    client: KubeClient, fake: KubeServer
) -> None:
    _node(fake)
    keeper = NodeKeeper(_Nodes())
    async with _following(client) as made:
        await _kept(made, client, keeper)
        before = fake.get(NODE)["metadata"]["resourceVersion"]
        await until(lambda: _known(made) == before)
        patches = fake.asked[f"PATCH {NODE}"], fake.asked[f"PATCH {NODE}/status"]
        await _kept(made, client, keeper)
        assert patches == (fake.asked[f"PATCH {NODE}"], fake.asked[f"PATCH {NODE}/status"])


def _known(made: ClusterFollowing) -> str:
    followed = made.of("c1")
    node = followed.nodes.copies.get("", "n1") if followed else None
    return str(node["metadata"]["resourceVersion"]) if node else ""


async def test_a_node_whose_agent_is_gone_says_so_within_a_minute(
    client: KubeClient, fake: KubeServer
) -> None:
    _node(fake)
    nodes = _Nodes()
    keeper = NodeKeeper(nodes)
    async with _following(client) as made:
        await _kept(made, client, keeper)
        nodes.seen = [replace(READY, connected=False)]
        nodes.away = 10  # an agent that is being replaced
        await _kept(made, client, keeper)
        assert _labels(fake)["ready"] == "true"
        nodes.away = 46
        assert nodes.away + following.KEEP_EVERY_S < 60
        await until(lambda: _known(made) == fake.get(NODE)["metadata"]["resourceVersion"])
        await _kept(made, client, keeper)
    assert _labels(fake) == {"own": "kept", "runtime": "true"}
    assert (_condition(fake)["status"], _condition(fake)["reason"]) == ("Unknown", "AgentAway")


async def test_a_node_that_is_not_ready_says_why(client: KubeClient, fake: KubeServer) -> None:
    _node(fake)
    reason = Reason(code="no_criu", message="CRIU is missing.", remedy="Install it.")
    status = NodeStatus(ready=False, reasons=(reason,))
    facts = NodeFacts(architecture="x86_64")
    keeper = NodeKeeper(_Nodes([replace(READY, status=status, facts=facts)]))
    async with _following(client) as made:
        await _kept(made, client, keeper)
    assert _labels(fake) == {"own": "kept", "ready": "false", "arch": "x86_64"}
    found = _condition(fake)
    assert (found["status"], found["reason"]) == ("False", "NoCriu")
    assert found["message"] == "CRIU is missing. Install it."


async def test_a_node_that_takes_no_labels_holds_up_no_other(
    client: KubeClient, fake: KubeServer
) -> None:
    _node(fake)
    fake.put("/api/v1/nodes/n0", status={"conditions": []})
    fake.fail(Fault(422, times=9, matches=lambda r: r.path.startswith("/api/v1/nodes/n0")))
    nodes = _Nodes([replace(READY, node="n0"), READY])
    async with _following(client, NodeKeeper(nodes)):
        await until(lambda: "ready" in _labels(fake))


async def test_the_runtime_class_comes_with_the_first_prepared_node(
    client: KubeClient, fake: KubeServer
) -> None:
    keeper, path = RuntimeClassKeeper(), "/apis/node.k8s.io/v1/runtimeclasses/snap"
    fake.put(NODE, metadata={"labels": {"own": "kept"}})
    async with _following(client) as made:
        await _kept(made, client, keeper)
        assert fake.find(path) is None
        fake.put(NODE, metadata={"labels": {"snap.weaversoft.io/runtime": "true"}})
        await until(lambda: _known(made) == fake.get(NODE)["metadata"]["resourceVersion"])
        await _kept(made, client, keeper)
    found = fake.get(path)
    assert found["handler"] == "snap"
    assert found["scheduling"] == {"nodeSelector": {"snap.weaversoft.io/runtime": "true"}}


async def test_whom_to_trust_is_written_where_agents_live(
    client: KubeClient, fake: KubeServer
) -> None:
    ca = ["first"]
    keeper, path = CaKeeper(lambda: ca[0], "snap"), "/api/v1/namespaces/snap/configmaps/snap-ca"
    fake.put("/api/v1/namespaces/snap")
    async with _following(client) as made:
        await _kept(made, client, keeper)
        assert fake.get(path)["data"] == {"ca.pem": "first"}
        version = fake.get(path)["metadata"]["resourceVersion"]
        await _kept(made, client, keeper)
        assert fake.get(path)["metadata"]["resourceVersion"] == version
        ca[0] = "second"
        await _kept(made, client, keeper)
    assert fake.get(path)["data"] == {"ca.pem": "second"}


async def test_a_cluster_that_refuses_is_left_in_peace(
    client: KubeClient, fake: KubeServer
) -> None:
    fake.allows = lambda verb, _place: verb not in ("patch", "create")
    _node(fake)
    async with _following(client, NodeKeeper(_Nodes()), CaKeeper(lambda: "x", "snap")) as made:
        await until(lambda: fake.asked[f"PATCH {NODE}/status"] == 1)
        followed = made.of("c1")
        assert followed is not None
        assert followed.trouble == ""  # reading goes on
