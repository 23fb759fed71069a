"""Drains, crowds of pods, short-lived certificates, missing checkpoints: SNAP never makes a pod fail."""

from __future__ import annotations

import base64
import itertools
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.devcluster.cluster import Cluster
from deploy.devcluster.operating import (
    CHECKPOINT,
    NOT_RESTORED,
    Operated,
    deployment,
    notes,
    operating,
    start_s,
    was_restored,
)

pytestmark = pytest.mark.cluster
CROWD = 200
LIFE_S = 60
ROUNDS = 300_000


@pytest.fixture(scope="module")
def operated(cluster: Cluster) -> Iterator[Operated]:
    """A watcher, one for drains, and a hook whose certificates last a minute."""
    with operating(cluster, "busy", SNAP_HOOK_CERT_LIFE=str(LIFE_S)) as made:
        rest = made.rest
        for name, trigger in (("w", "ready"), ("drains", "drain")):
            rest.post(
                "/operator/snapwatcher",
                {
                    "name": name,
                    "cluster_name": "dev",
                    "trigger": trigger,
                    "auto_delete_pod": False,
                },
            )
        rest.post("/snaphook", {"name": "h", "cluster_name": "dev"})
        rest.post("/snaphook/h/start", {})
        yield made
        rest.call("DELETE", "/snaphook/h")
        for name in ("w", "drains"):
            rest.call("DELETE", f"/operator/snapwatcher/{name}")
        cluster.delete("deployments", "--all")


# ends at once when it is told to
OBEDIENT = "trap 'exit 0' TERM; echo >/ready; while :; do echo tick; sleep 1 & wait $!; done"
SLEEPS = {"preStop": {"sleep": {"seconds": 20}}}


@pytest.mark.parametrize(
    "container",
    [
        # a shell is process 1 here and ignores SIGTERM: it runs until its grace time is over
        pytest.param({}, id="deaf"),
        pytest.param({"command": ["sh", "-c", OBEDIENT], "lifecycle": SLEEPS}, id="obedient"),
    ],
)
def test_a_drained_nodes_pod_is_checkpointed_before_it_goes(
    operated: Operated, container: dict[str, Any]
) -> None:
    cluster = operated.cluster
    manifest = deployment(cluster, "moving", 1, ROUNDS, **container)
    manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 30
    cluster.apply(manifest)
    (pod,) = operated.wait_ready("moving", 1)
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    operated.wait_checkpoint("w", "moving")
    try:
        cluster.kubectl(
            *("drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data"),
            *("--pod-selector=app=moving", "--timeout=240s"),
            timeout_s=260,
        )
        operated.wait(lambda: len(operated.checkpoints(name)) == 2, "the checkpoint of the drain")
        (successor,) = operated.wait_ready("moving", 1)
        assert successor["spec"]["nodeName"] != node
        operated.wait_restored(successor)
    finally:
        cluster.kubectl("uncordon", node)
        cluster.delete("deployment", "moving")
        operated.wait(lambda: is_gone(operated, "moving"), "the end of its pods")


def is_gone(operated: Operated, name: str) -> bool:
    return not operated.cluster.kubectl("get", "pods", "-l", f"app={name}", "-oname").strip()


def test_a_cordoned_nodes_pod_is_checkpointed_and_stays(operated: Operated) -> None:
    operated.deployment("staying", rounds=1_000)
    (pod,) = operated.wait_ready("staying", 1)
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    operated.wait_checkpoint("w", "staying")
    operated.cluster.kubectl("cordon", node)
    try:
        operated.wait(lambda: len(operated.checkpoints(name)) == 2, "the checkpoint of the cordon")
        (same,) = operated.wait_ready("staying", 1)
        assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    finally:
        operated.cluster.kubectl("uncordon", node)
        operated.cluster.delete("deployment", "staying")


RINGS = itertools.count()
# what it is called is in its memory, and told again and again
REPLICA = "me=$HOSTNAME; echo >/ready; while :; do echo $me >/me; sleep 1; done"


def test_each_pod_of_a_statefulset_comes_back_as_itself(operated: Operated) -> None:
    cluster = operated.cluster
    ring = f"ring{next(RINGS)}"  # a second try finds no checkpoints of the first one's pods
    manifest = deployment(cluster, ring, 2, 1, command=["sh", "-c", REPLICA])
    manifest["kind"] = "StatefulSet"
    manifest["spec"] |= {"serviceName": ring, "podManagementPolicy": "Parallel"}
    cluster.apply(manifest)
    try:
        first = operated.wait_ready(ring, 2)
        for name in (f"{ring}-0", f"{ring}-1"):
            operated.wait(lambda n=name: bool(operated.checkpoints(n)), f"a checkpoint of {name}")  # type: ignore[misc]
        cluster.kubectl("scale", f"statefulset/{ring}", "--replicas=0")
        operated.wait(lambda: is_gone(operated, ring), "the end of its pods")
        for pod in first:  # a checkpoint is listed a little before admission knows of it
            operated.wait(lambda p=pod: CHECKPOINT in notes(again(operated, ring, p)), "its offer")  # type: ignore[misc]
        cluster.kubectl("scale", f"statefulset/{ring}", "--replicas=3")
        pods = {p["metadata"]["name"]: p for p in operated.wait_ready(ring, 3)}
        assert f"no checkpoint of {ring}-2" in notes(pods.pop(f"{ring}-2"))[NOT_RESTORED]
        operated.wait_restored(*pods.values())
        for name in (f"{ring}-0", f"{ring}-1"):
            assert cluster.kubectl("exec", name, "--", "cat", "/me").strip() == name
    finally:
        cluster.delete("statefulset", ring)


def again(operated: Operated, ring: str, pod: dict[str, Any]) -> dict[str, Any]:
    """What admission would make of the pod that a StatefulSet puts in this one's place."""
    kept = {k: pod["metadata"][k] for k in ("name", "labels", "ownerReferences")}
    return operated.pretended(
        operated.cluster.get("statefulset", ring)["spec"]["template"] | {"metadata": kept}
    )


WITH_VOLUMES = "snap.weaversoft.io/restore-with-volumes"


def test_a_pod_with_a_claimed_volume_is_restored_only_if_it_accepts_that(
    operated: Operated,
) -> None:
    cluster = operated.cluster
    for one in (VOLUME, CLAIM):
        cluster.apply(one)
    command = ["sh", "-c", "echo >/ready; while :; do echo $HOSTNAME >/data/last; sleep 1; done"]
    mounts = [{"name": "data", "mountPath": "/data"}]
    manifest = deployment(cluster, "claimed", 1, 1, command=command, volumeMounts=mounts)
    template = manifest["spec"]["template"]
    template["metadata"]["annotations"] = {WITH_VOLUMES: "true"}
    template["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "kept"}}]
    cluster.apply(manifest)
    try:
        (first,) = operated.wait_ready("claimed", 1)
        operated.wait_checkpoint("w", "claimed")
        unasked = operated.next_pod("claimed", without=WITH_VOLUMES)
        assert "claimed volume at /data" in notes(unasked)[NOT_RESTORED]
        assert CHECKPOINT not in notes(unasked)
        assert "runtimeClassName" not in unasked["spec"]
        cluster.kubectl("scale", "deployment/claimed", "--replicas=2")
        pods = operated.wait_ready("claimed", 2)
        (later,) = [p for p in pods if p["metadata"]["uid"] != first["metadata"]["uid"]]
        operated.wait_restored(later)
    finally:
        cluster.delete("deployment", "claimed")
        cluster.delete("persistentvolumeclaim", "kept")
        cluster.delete("persistentvolume", "kept")


_ROOM = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "kept"},
    "spec": _ROOM
    | {
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/var/lib/kept", "type": "DirectoryOrCreate"},
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "kept"},
    "spec": _ROOM | {"volumeName": "kept", "resources": {"requests": {"storage": "1Gi"}}},
}


def test_many_pods_at_once_are_all_answered(operated: Operated) -> None:
    cluster = operated.cluster
    manifest = deployment(cluster, "crowd", CROWD, 1)
    manifest["spec"]["template"]["spec"]["schedulerName"] = "nobody"  # they need not run
    cluster.apply(manifest)
    try:
        operated.wait(lambda: len(operated.pods("crowd")) == CROWD, f"{CROWD} pods")
        told = [
            p["metadata"].get("annotations", {}).get(NOT_RESTORED) for p in operated.pods("crowd")
        ]
        assert set(told) == {"main: there is no checkpoint of this workload"}
    finally:
        cluster.delete("deployment", "crowd")


def test_a_deleted_checkpoint_means_a_cold_start(operated: Operated) -> None:
    operated.rest.call("POST", "/operator/snapwatcher/w/stop")
    try:
        operated.deployment("gone", rounds=1_000)
        (pod,) = operated.wait_ready("gone", 1)
        name = pod["metadata"]["name"]
        operated.rest.post("/operator/snapwatcher/w/start", {})
        made = operated.wait_checkpoint("w", "gone")
        operated.rest.post("/operator/snapwatcher/w/stop", {})
        status, answer = operated.rest.call("DELETE", f"/checkpoint/{made['id']}")
        assert status == 200, answer
        operated.wait_answer("gone", lambda pod: NOT_RESTORED in notes(pod), "no checkpoint")
        operated.cluster.kubectl("scale", "deployment/gone", "--replicas=2")
        pods = operated.wait_ready("gone", 2)
        (later,) = [p for p in pods if p["metadata"]["name"] != name]
        assert not was_restored(operated, later)
    finally:
        operated.rest.call("POST", "/operator/snapwatcher/w/start")
        operated.cluster.delete("deployment", "gone")


def test_a_registry_that_is_away_means_a_cold_start(operated: Operated) -> None:
    operated.deployment("distant", rounds=1_000)
    (pod,) = operated.wait_ready("distant", 1)
    name = pod["metadata"]["name"]
    operated.wait_checkpoint("w", "distant")
    other = "node1" if pod["spec"]["nodeName"] == "node2" else "node2"
    registry = operated.cluster.world.checkpoints
    operated.cluster.kubectl("cordon", pod["spec"]["nodeName"])  # the other node has nothing cached
    registry.kill()
    try:
        operated.cluster.kubectl("scale", "deployment/distant", "--replicas=2")
        pods = operated.wait_ready("distant", 2)
        (later,) = [p for p in pods if p["metadata"]["name"] != name]
        assert later["spec"]["nodeName"] == other
        assert CHECKPOINT in notes(later)
        assert not was_restored(operated, later)
        assert start_s(later) is not None
    finally:
        registry.start()
        operated.cluster.kubectl("uncordon", pod["spec"]["nodeName"])
        operated.cluster.delete("deployment", "distant")


def test_certificates_of_a_minute_are_renewed_while_pods_are_made(operated: Operated) -> None:
    cluster = operated.cluster
    manifest = deployment(cluster, "renewed", 1, 1)
    manifest["spec"]["template"]["spec"]["schedulerName"] = "nobody"  # they need not run
    cluster.apply(manifest)
    first, made = certificate(operated), 1

    def is_renewed() -> bool:
        nonlocal made
        made += 2
        cluster.kubectl("scale", "deployment/renewed", f"--replicas={made}")
        return certificate(operated) != first

    try:
        operated.wait(is_renewed, "another certificate", 2.0 * LIFE_S)
        is_renewed()  # a few more, after it
        operated.wait(lambda: len(operated.pods("renewed")) == made, f"{made} pods")
        told = [
            p["metadata"].get("annotations", {}).get(NOT_RESTORED) for p in operated.pods("renewed")
        ]
        assert set(told) == {"main: there is no checkpoint of this workload"}
        assert operated.rest.get("/snaphook/h/test-connectivity")["webhook_reached"] is True
    finally:
        cluster.delete("deployment", "renewed")


def certificate(operated: Operated) -> bytes | None:
    """What the hook shows to who connects now, by what the cluster was told of it."""
    (webhook,) = operated.cluster.get("mutatingwebhookconfiguration", "snap-h")["webhooks"]
    client = webhook["clientConfig"]
    url = urlsplit(client["url"])
    trusted = ssl.create_default_context(cadata=base64.b64decode(client["caBundle"]).decode())
    with (
        socket.create_connection((url.hostname, url.port), 10) as plain,
        trusted.wrap_socket(plain, server_hostname=url.hostname) as connection,
    ):
        return connection.getpeercert(binary_form=True)
