"""Installed by Helm on a real cluster: agents join by their tokens, checkpoint, survive an upgrade, leave nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.devcluster.cluster import Cluster
from deploy.devnode.rest import Rest
from deploy.devnode.world import REGISTRY
from deploy.helm import rendering
from deploy.images import building

pytestmark = pytest.mark.cluster

NAMESPACE = "snap-test"
VOLUME = "/var/lib/snap-api-volume"
SETTLE_S = 120.0
Files = dict[str, tuple[int, bytes]]


class Release:
    """The chart, installed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.before = _prepared(cluster)
        registry = cluster.world.base
        self._sets = [
            f"networkPolicy.nodeCIDRs={{{cluster.world.instance.address(1)}/32}}",
            "agent.prepare=auto",
            "agent.settings.SNAP_RUNTIME_RESTART=pkill -x containerd",  # the node's init starts it
        ]
        for half, layout in building.ready(print).items():
            reference = layout.push(registry.host, registry.ca)
            name, _, digest = reference.partition("@")
            self._sets += [f"images.{half}.repository={name}", f"images.{half}.digest={digest}"]

    def helm(self, *words: str) -> str:
        """Run Helm as the cluster's administrator."""
        return rendering.helm(
            print, [*words, "-n", NAMESPACE, "--kubeconfig", str(self.cluster.layout.kubeconfig)]
        )

    def put(self, verb: str, *sets: str) -> None:
        """Install or upgrade, and wait until everything runs."""
        words = [word for one in (*self._sets, *sets) for word in ("--set", one)]
        storage = ["--set-string", "api.persistence.storageClass="]
        chart = str(rendering.CHART)
        self.helm(verb, "snap", chart, *words, *storage, "--wait", "--timeout", "180s")

    def rest(self) -> Rest:
        """The control plane, logged in with the password that the chart made."""
        secret = self.cluster.get("secret", "snap-admin", NAMESPACE)
        password = base64.b64decode(secret["data"]["admin-password"]).decode()
        service = self.cluster.get("service", "snap-api", NAMESPACE)
        rest = Rest(f"http://{service['spec']['clusterIP']}:8000")
        rest.login("admin", password)
        return rest

    def wait_joined(self) -> None:
        """Wait until both nodes are ready and their agents connected, in the control plane's eyes."""
        rest = self.rest()

        def are_joined() -> bool:
            status, told = rest.call("GET", "/cluster/status/main")
            nodes = told["nodes"] if status == 200 else []  # 404 until the first one joins
            joined = [node for node in nodes if node["connected"] and node["status"] == "ready"]
            return len(joined) == 2

        self.cluster.wait(
            are_joined,
            "both agents",
            SETTLE_S,
            lambda: self.cluster.kubectl("-n", NAMESPACE, "describe", "pods"),
        )


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """Installed once; every trace is gone afterwards."""
    for number in (1, 2):
        cluster.node(number).make_bare()
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.node(1).run(["mkdir", "-p", VOLUME])
    cluster.apply(_volume())
    try:
        made = Release(cluster)
        made.put("install")
        yield made
    finally:
        cluster.delete("namespace", NAMESPACE)
        cluster.delete("persistentvolume", "snap-api")
        for number in (1, 2):
            cluster.node(number).equip()


def test_both_nodes_join_and_helm_agrees(release: Release) -> None:
    release.wait_joined()
    assert "Phase:          Succeeded" in release.helm("test", "snap")


def test_the_agent_may_do_no_more_than_was_promised(release: Release) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:snap-agent"
    may = release.cluster.kubectl(
        "auth", "can-i", "create", "nodes", "--subresource=checkpoint", account
    )
    assert may.strip() == "yes"
    anybody = _rights(release.cluster, "default")
    assert _rights(release.cluster, "snap-agent") - anybody == {"nodes/checkpoint"}


def test_a_pod_is_checkpointed_before_and_after_an_upgrade(release: Release) -> None:
    cluster = release.cluster
    release.wait_joined()
    cluster.apply(_pod("counted", cluster))
    cluster.wait_pod("counted")
    wanted = {"pod_name": "counted", "namespace": "default"}
    first = release.rest().post("/checkpoint/kubelet/checkpoint", wanted)
    assert first["node_name"] == "node1"
    release.put("upgrade", "agent.podAnnotations.again=yes", "api.podAnnotations.again=yes")
    release.wait_joined()
    rest = release.rest()
    second = rest.post("/checkpoint/kubelet/checkpoint", wanted)
    known = {one["id"] for one in rest.get("/checkpoint/list")["checkpoints"]}
    assert {first["checkpoint_id"], second["checkpoint_id"]} <= known
    assert cluster.get("pod", "counted")["status"]["containerStatuses"][0]["restartCount"] == 0
    cluster.delete("pod", "counted", "default", "--now")


def test_a_pod_goes_on_on_the_other_node(release: Release) -> None:
    cluster = release.cluster
    release.wait_joined()
    rest = release.rest()
    rest.post("/config/registry/create", {"name": REGISTRY, **cluster.world.registry_details()})
    cluster.apply(_pod("moved", cluster))
    cluster.wait_pod("moved")
    cluster.wait(lambda: _ticks(cluster, "moved")[-1:] > [5], "a few ticks")
    pushed = rest.post(
        "/checkpoint/kubelet/checkpoint-and-push",
        {"pod_name": "moved", "namespace": "default", "registry": REGISTRY},
    )
    last = _ticks(cluster, "moved")[-1]
    cluster.delete("pod", "moved", "default", "--now")
    wanted = {"node_name": "node2", "pod_name": "there"}
    path = f"/checkpoint/{pushed['checkpoint_id']}/restore"
    restored = rest.post(path, wanted, timeout_s=SETTLE_S)
    assert (restored["node_name"], restored["driver"]) == ("node2", "runtime")
    cluster.wait(lambda: bool(_ticks(cluster, "there")), "its first line", SETTLE_S)
    assert 5 < _ticks(cluster, "there")[0] <= last
    cluster.delete("pod", "there", "default", "--now")


def test_nothing_of_it_stays_in_the_cluster_or_on_its_nodes(release: Release) -> None:
    cluster = release.cluster
    assert _prepared(cluster) != release.before
    agents = _agents(cluster)
    assert set(agents) == {"node1", "node2"}
    release.helm("uninstall", "snap", "--wait", "--timeout", "180s")
    left = json.loads(
        cluster.kubectl(
            "get", "all,clusterroles,clusterrolebindings,runtimeclasses", "-A", "-ojson"
        )
    )
    assert not [one["metadata"]["name"] for one in left["items"] if _is_ours(one)]
    nodes = json.loads(cluster.kubectl("get", "nodes", "-ojson"))["items"]
    assert not [name for node in nodes for name in node["metadata"]["labels"] if "snap." in name]
    conditions = {one["type"] for node in nodes for one in node["status"]["conditions"]}
    assert "SnapReady" not in conditions
    assert _prepared(cluster) == release.before
    for name, uid in agents.items():  # none of them would have prepared again
        place = cluster.node(int(name[-1])).host_path("/var/lib/snap/prepare/undone")
        assert place.read_text() == uid


def _prepared(cluster: Cluster) -> Files:
    """What preparing may change on the nodes."""
    found: Files = {}
    for number in (1, 2):
        node = cluster.node(number)
        for folder in ("/etc/containerd", "/opt/snap/bin", "/opt/snap/criu", "/usr/local/sbin"):
            for path in node.host_path(folder).rglob("*"):
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = (path.lstat().st_mode, content)
    return found


def _agents(cluster: Cluster) -> dict[str, str]:
    """The id of each node's agent pod."""
    which = "app.kubernetes.io/component=agent"
    found = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", which, "-ojson"))
    return {one["spec"]["nodeName"]: one["metadata"]["uid"] for one in found["items"]}


def _rights(cluster: Cluster, account: str) -> set[str]:
    """The resources that a service account may do anything with."""
    who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    lines = cluster.kubectl("auth", "can-i", "--list", who).splitlines()[1:]
    return {line.split()[0] for line in lines if not line.startswith(" ")}


def _ticks(cluster: Cluster, name: str) -> list[int]:
    """What a counter's pod has counted to, line by line."""
    lines = cluster.kubectl("logs", name).splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tick ")]


def _is_ours(found: dict[str, Any]) -> bool:
    return str(found["metadata"]["name"]).startswith("snap")


def _pod(name: str, cluster: Cluster) -> dict[str, Any]:
    image = f"{cluster.world.base.host}/counter:latest"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": "node1",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": image}],
        },
    }


def _volume() -> dict[str, Any]:
    on_node1 = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "snap-api"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "local": {"path": VOLUME},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node1]}]}},
        },
    }
