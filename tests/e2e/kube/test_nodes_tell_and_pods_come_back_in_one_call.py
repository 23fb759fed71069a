"""Our control plane and agents on a real cluster: nodes say what agents report, a pod is restored in one call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from deploy.devcluster.cluster import Cluster
from deploy.devcluster.operating import Operated, operating
from deploy.devnode.world import CLUSTER
from tests.e2e import moving

pytestmark = pytest.mark.cluster
PREFIX = "snap.weaversoft.io/"


def _pod(cluster: Cluster, name: str, **spec: object) -> dict[str, Any]:
    container = {"name": "app", "image": f"{cluster.world.base.host}/counter:latest"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec},
    }


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Operated]:
    """Both programs, the control plane with the administrator's kubeconfig, the CA's namespace there."""
    cluster.kubectl("create", "namespace", "snap")
    with operating(cluster, "tells") as made:
        made.wait(
            lambda: made.rest.get(f"/cluster/status/{CLUSTER}")["status"] == "healthy",
            "both agents",
        )
        yield made
    cluster.kubectl("delete", "namespace", "snap", "--timeout=50s")


def _condition(cluster: Cluster, node: str) -> dict[str, Any]:
    conditions = cluster.get("node", node)["status"]["conditions"]
    return next((c for c in conditions if c["type"] == "SnapReady"), {})


def _labels(cluster: Cluster, node: str) -> dict[str, str]:
    return dict(cluster.get("node", node)["metadata"]["labels"])


def _wait_ready(cluster: Cluster, node: str) -> None:
    cluster.wait(lambda: _condition(cluster, node).get("status") == "True", f"{node} to be ready")


def test_nodes_say_that_they_are_ready(cluster: Cluster, deployed: Operated) -> None:
    for node in ("node1", "node2"):
        _wait_ready(cluster, node)
        # the condition and the labels are two writes
        cluster.wait(lambda: _labels(cluster, node).get(PREFIX + "ready") == "true", "labels")  # noqa: B023
        labels = _labels(cluster, node)
        assert labels[PREFIX + "runtime"] == "true"
        assert labels[PREFIX + "cpu-features"]
        assert labels[PREFIX + "oci-runtime"].startswith("runc-")
    cluster.wait(lambda: cluster.exists("runtimeclass", "snap"), "the runtime class")
    scheduling = cluster.get("runtimeclass", "snap")["scheduling"]
    assert scheduling == {"nodeSelector": {PREFIX + "runtime": "true"}}
    cluster.wait(lambda: cluster.exists("configmap", "snap-ca", "snap"), "the CA")
    ca = cluster.get("configmap", "snap-ca", "snap")["data"]["ca.pem"]
    assert ca.startswith("-----BEGIN CERTIFICATE-----")


def test_a_pod_is_restored_in_one_call(cluster: Cluster, deployed: Operated) -> None:
    cluster.wait(lambda: cluster.exists("runtimeclass", "snap"), "the runtime class")
    cluster.apply(_pod(cluster, "counter", nodeSelector={"kubernetes.io/hostname": "node1"}))
    cluster.wait_pod("counter")
    cluster.wait(lambda: cluster.kubectl("logs", "counter").count("tick") > 20, "ticks")
    # the node's name is left out: Kubernetes says where the pod is
    asked = {"pod_name": "counter", "namespace": "default", "cluster_name": CLUSTER}
    _, made = deployed.rest.call("POST", "/checkpoint/kubelet/checkpoint-and-push", asked)
    assert made["success"], made
    pod = cluster.get("pod", "counter")
    cluster.delete("pod", "counter")
    path = f"/checkpoint/{made['checkpoint_id']}/restore"
    # the selector of the first pod came with its template, so node 1 it is
    _, told = deployed.rest.call("POST", path, {"pod_name": "again"})
    assert told.get("success"), told
    assert (told["driver"], told["node_name"], told["pod_name"]) == ("runtime", "node1", "again")
    assert told["restore_ms"] > 0
    assert "restored" in told["proof"]
    again = cluster.wait_pod("again")
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]
    assert again["metadata"]["annotations"][PREFIX + "checkpoint-id"] == made["checkpoint_id"]
    assert _first_tick(cluster, "again") > 15  # it goes on, it does not begin
    for pod_name, reason in (("counter", "Checkpointed"), ("again", "Restored")):
        for about in (pod_name, "node1"):
            cluster.wait(partial(_has_event, cluster, about, reason), f"{reason} of {about}")
    cluster.delete("pod", "again")


def _first_tick(cluster: Cluster, pod: str) -> int:
    cluster.wait(lambda: "tick" in cluster.kubectl("logs", pod), f"{pod} to say something")
    lines = cluster.kubectl("logs", pod).splitlines()
    return int(next(line for line in lines if line.startswith("tick")).split()[1])


def _has_event(cluster: Cluster, about: str, reason: str) -> bool:
    found = json.loads(cluster.kubectl("get", "events", "-A", "-ojson"))["items"]
    return any(e["involvedObject"]["name"] == about and e["reason"] == reason for e in found)


def test_a_pod_moves_to_the_node_that_is_named(cluster: Cluster, deployed: Operated) -> None:
    node1 = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}
    wish = [{"weight": 1, "preference": {"matchExpressions": [node1]}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": wish}}
    cluster.apply(_pod(cluster, "mover", affinity=affinity))
    before = cluster.wait_pod("mover")["spec"]["nodeName"]
    other = "node2" if before == "node1" else "node1"
    cluster.wait(lambda: cluster.kubectl("logs", "mover").count("tick") > 20, "ticks")
    asked = {"pod_name": "mover", "namespace": "default", "cluster_name": CLUSTER}
    _, made = deployed.rest.call("POST", "/checkpoint/kubelet/checkpoint-and-push", asked)
    path = f"/checkpoint/{made['checkpoint_id']}/restore"
    _, told = deployed.rest.call("POST", path, {"node_name": other})
    assert told.get("success"), told
    assert (told["driver"], told["node_name"]) == ("runtime", other)
    moved = cluster.wait_pod(told["pod_name"])
    assert moved["spec"]["nodeName"] == other
    assert _first_tick(cluster, told["pod_name"]) > 15
    cluster.delete("pod", told["pod_name"])
    cluster.delete("pod", "mover")


def test_a_restored_pod_that_crashes_starts_cold_and_says_so(
    cluster: Cluster, deployed: Operated
) -> None:
    cluster.wait(lambda: cluster.exists("runtimeclass", "snap"), "the runtime class")
    cluster.apply(_pod(cluster, "steady"))
    cluster.wait_pod("steady")
    cluster.wait(lambda: cluster.kubectl("logs", "steady").count("tick") > 20, "ticks")
    asked = {"pod_name": "steady", "namespace": "default", "cluster_name": CLUSTER}
    _, made = deployed.rest.call("POST", "/checkpoint/kubelet/checkpoint-and-push", asked)
    path = f"/checkpoint/{made['checkpoint_id']}/restore"
    _, told = deployed.rest.call("POST", path, {"pod_name": "crashing"})
    assert told.get("success"), told
    assert _first_tick(cluster, "crashing") > 15
    pod = cluster.wait_pod("crashing")
    node = int(pod["spec"]["nodeName"][-1])
    said = [o for o in deployed.agents[node].restores() if o["pod_uid"] == pod["metadata"]["uid"]]
    assert [one["action"] for one in said] == ["restored"]
    cluster.node(node).run(["kill", "-KILL", str(said[0]["pid"])])
    cluster.wait(partial(_has_started_again, cluster, "crashing"), "the kubelet's restart")
    assert _first_tick(cluster, "crashing") == 1  # once only: not over and over from one moment
    for about in ("crashing", f"node{node}"):
        cluster.wait(partial(_has_event, cluster, about, "StartedCold"), f"StartedCold of {about}")
    cluster.delete("pod", "crashing")
    cluster.delete("pod", "steady")


def _has_started_again(cluster: Cluster, pod: str) -> bool:
    (status,) = cluster.get("pod", pod)["status"]["containerStatuses"]
    return bool(status["restartCount"] == 1 and status["ready"])


@pytest.fixture
def pulls(cluster: Cluster) -> Iterator[None]:
    with moving.pulling(cluster, "default"):
        yield


@pytest.mark.usefixtures("pulls")
def test_the_runtime_itself_restores_where_that_is_asked_for(
    cluster: Cluster, deployed: Operated
) -> None:
    cluster.apply(_pod(cluster, "plain"))
    cluster.wait_pod("plain")
    cluster.wait(lambda: cluster.kubectl("logs", "plain").count("tick") > 20, "ticks")
    asked = {"pod_name": "plain", "namespace": "default", "cluster_name": CLUSTER}
    _, made = deployed.rest.call("POST", "/checkpoint/kubelet/checkpoint-and-push", asked)
    assert made["success"], made
    path = f"/checkpoint/{made['checkpoint_id']}/restore"
    _, told = deployed.rest.call("POST", path, {"pod_name": "by-image", "driver": "image"})
    assert told.get("success"), told
    assert told["driver"] == "image"
    assert "runtimeClassName" not in cluster.wait_pod("by-image")["spec"]
    assert _first_tick(cluster, "by-image") > 15
    for name in ("plain", "by-image"):
        cluster.delete("pod", name)


def test_a_restore_that_starts_cold_is_told(cluster: Cluster, deployed: Operated) -> None:
    cluster.apply(_pod(cluster, "odd"))
    before = cluster.wait_pod("odd")["spec"]["nodeName"]
    asked = {"pod_name": "odd", "namespace": "default", "cluster_name": CLUSTER}
    _, made = deployed.rest.call("POST", "/checkpoint/kubelet/checkpoint-and-push", asked)
    path = f"/checkpoint/{made['checkpoint_id']}/restore"
    # the other node has nothing of the checkpoint, and can't get it
    wanted = {"pod_name": "cold", "node_name": "node2" if before == "node1" else "node1"}
    cluster.world.checkpoints.kill()
    try:
        status, told = deployed.rest.call("POST", path, wanted)
    finally:
        cluster.world.checkpoints.start()
    assert (status, told["code"]) == (502, "RESTORE_FAILED"), told
    assert "was removed again" in told["error"]
    cluster.wait(lambda: not cluster.exists("pod", "cold"), "the cold pod to be gone")
    cluster.delete("pod", "odd")


def _pods_in_default(deployed: Operated) -> int | None:
    figures = deployed.rest.get("/cluster/statistics")["namespaces"]
    return next((one["total_pods"] for one in figures if one["namespace"] == "default"), None)


def _troubled(deployed: Operated) -> list[str]:
    troubles = deployed.rest.get("/cluster/statistics")["kubernetes_troubles"]
    return [one["cluster_name"] for one in troubles]


def test_figures_are_the_clusters_and_an_api_server_that_is_away_is_told(
    cluster: Cluster, deployed: Operated
) -> None:
    def kubernetes() -> dict[str, Any]:
        _, status = deployed.rest.call("GET", f"/cluster/status/{CLUSTER}")
        return dict(status["kubernetes"] or {})

    cluster.wait(lambda: kubernetes().get("watched") is True, "the watch")
    assert kubernetes()["nodes"] == 2
    cluster.apply(_pod(cluster, "counted"))
    cluster.wait_pod("counted")
    there = len(cluster.kubectl("get", "pods", "-oname").split())
    cluster.wait(lambda: _pods_in_default(deployed) == there, "the pod's count")
    cluster.daemon("kube-apiserver").kill()
    try:
        cluster.wait(lambda: kubernetes().get("watched") is False, "the trouble")
        told = kubernetes()
        assert told["error"]
        assert told["failing_since"]
        assert told["nodes"] == 2  # as it was known last
        # the figures are as much as a second old
        cluster.wait(lambda: _troubled(deployed) == [CLUSTER], "the trouble beside the figures")
        assert _pods_in_default(deployed) == there
    finally:
        cluster.bring_back("kube-apiserver")
    cluster.wait(lambda: kubernetes().get("watched") is True, "the watch again")
    cluster.delete("pod", "counted")
    # 0, or no figure where no checkpoint keeps the namespace in the list
    cluster.wait(lambda: (_pods_in_default(deployed) or 0) == there - 1, "the count to follow")


def _restart_elsewhere(cluster: Cluster) -> None:
    """Have the API server begin after changes that no watch of pods was told."""
    maps = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"other-{number}"}}
        for number in range(20)
    ]
    for verb in ("create", "delete"):
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": maps})
        cluster.kubectl(verb, "-f", "-", text_in=text)
    cluster.daemon("kube-apiserver").kill()
    cluster.bring_back("kube-apiserver")


def test_an_api_server_that_forgot_where_the_watch_was_is_listed_anew(
    cluster: Cluster, deployed: Operated
) -> None:
    def watched() -> bool:
        _, status = deployed.rest.call("GET", f"/cluster/status/{CLUSTER}")
        return bool((status["kubernetes"] or {}).get("watched"))

    def forgotten() -> bool:
        """Whether the real answer, 410, was heard since the first restart."""
        log = deployed.plane.log.read_text()[known:]
        return "/api/v1/pods is listed anew: too old resource version" in log

    cluster.wait(watched, "the watch")
    cluster.apply(_pod(cluster, "early"))
    cluster.wait_pod("early")
    there = len(cluster.kubectl("get", "pods", "-oname").split())
    cluster.wait(lambda: _pods_in_default(deployed) == there, "the pod's count")
    known = len(deployed.plane.log.read_text())
    for _ in range(3):  # a bookmark may come just before the server goes
        _restart_elsewhere(cluster)
        cluster.delete("pod", "early", "default", "--now")
        for name in ("late-1", "late-2"):
            cluster.apply(_pod(cluster, name))
        deployed.wait(watched, "the watch again")
        if forgotten():
            break
    assert forgotten(), deployed.plane.log.read_text()[known:]
    came = "the count of what came meanwhile"
    cluster.wait(lambda: _pods_in_default(deployed) == there + 1, came)
    assert _troubled(deployed) == []
    for name in ("late-1", "late-2"):
        cluster.delete("pod", name)


def test_a_node_whose_agent_is_gone_says_so_within_a_minute(
    cluster: Cluster, deployed: Operated
) -> None:
    _wait_ready(cluster, "node2")
    deployed.agents[2].kill()
    try:
        # a minute, and what a busy machine adds to it
        cluster.wait(lambda: _condition(cluster, "node2").get("reason") == "AgentAway", "it", 90)
        told = {PREFIX + "ready", PREFIX + "kernel"}
        cluster.wait(lambda: not told & _labels(cluster, "node2").keys(), "its labels to go")
    finally:
        deployed.agents[2].start()
    _wait_ready(cluster, "node2")
