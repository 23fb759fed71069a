"""The whole circle on a real cluster: a slow workload is checkpointed by itself, and its later pods start from that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from statistics import median

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
ROUNDS = 8_000_000  # well below a minute of computing
WEBHOOK = "mutatingwebhookconfiguration"


@pytest.fixture(scope="module")
def operated(cluster: Cluster) -> Iterator[Operated]:
    """A watcher that looks at all namespaces, and a hook."""
    with operating(cluster, "circle") as made:
        rest = made.rest
        rest.post(
            "/operator/snapwatcher", {"name": "w", "cluster_name": "dev", "auto_delete_pod": False}
        )
        rest.post("/snaphook", {"name": "h", "cluster_name": "dev"})
        rest.post("/snaphook/h/start", {})
        yield made
        rest.call("DELETE", "/snaphook/h")
        rest.call("DELETE", "/operator/snapwatcher/w")
        cluster.delete("deployments", "--all")


def test_the_cluster_calls_the_hook(operated: Operated) -> None:
    # an API server hears of a webhook a moment after it was made
    asked = "/snaphook/h/test-connectivity"
    operated.wait(lambda: bool(operated.rest.get(asked)["webhook_reached"]), "its call")


def test_a_slow_deployment_goes_round_the_circle(operated: Operated) -> None:
    operated.deployment("slow", rounds=ROUNDS)
    (first,) = operated.wait_ready("slow", 1)
    cold_s = start_s(first)
    assert cold_s is not None
    assert not was_restored(operated, first)
    operated.wait_checkpoint("w", "slow")
    operated.cluster.kubectl("scale", "deployment/slow", "--replicas=6")
    pods = operated.wait_ready("slow", 6)
    later = [p for p in pods if p["metadata"]["uid"] != first["metadata"]["uid"]]
    assert {p["spec"]["nodeName"] for p in pods} == {"node1", "node2"}
    times = [start_s(p) or 0.0 for p in later]
    print(f"cold {cold_s:.0f} s, restored {sorted(times)} s")  # noqa: T201 - figures for who runs it with -s
    operated.wait_restored(*later)
    assert median(times) < cold_s / 2  # Kubernetes tells whole seconds, and five start at once
    assert len(operated.checkpoints("slow")) == 1
    operated.wait(lambda: _figures(operated), "figures of starts")


def _figures(operated: Operated) -> bool:
    (found,) = operated.checkpoints("slow")
    if found["cold_start_ms"] is None or found["restore_ms"] is None:
        return False
    print(f"cold_start_ms {found['cold_start_ms']}, restore_ms {found['restore_ms']}")  # noqa: T201 - figures for who runs it with -s
    return bool(found["restore_ms"] < found["cold_start_ms"])


def test_a_new_template_is_cold_once_then_restored(operated: Operated) -> None:
    changed = deployment(operated.cluster, "slow", 1, ROUNDS + 1)
    operated.cluster.apply(changed)
    operated.cluster.kubectl(
        *("rollout", "status", "deployment/slow", "--timeout=300s"), timeout_s=320
    )
    (cold,) = operated.wait_ready("slow", 1)
    assert not was_restored(operated, cold)
    assert "no checkpoint" in notes(cold)[NOT_RESTORED]
    operated.wait_checkpoint("w", "slow", 2)  # that of the new template is the second
    operated.cluster.kubectl("scale", "deployment/slow", "--replicas=2")
    pods = operated.wait_ready("slow", 2)
    (later,) = [p for p in pods if p["metadata"]["uid"] != cold["metadata"]["uid"]]
    operated.wait_restored(later)


def test_a_hook_runs_before_its_pod_counts_as_started(operated: Operated) -> None:
    cluster = operated.cluster
    manifest = deployment(cluster, "hooked", 1, 1_000)
    words = [
        "sh",
        "-c",
        "sleep 2; date +%s >/hooked; echo $SNAP_POD_NAME $SNAP_POD_IP >>/hooked; exit 7",
    ]
    manifest["spec"]["template"]["metadata"]["annotations"] = {
        "snap.weaversoft.io/post-restore": "exec",
        "snap.weaversoft.io/post-restore-command": json.dumps(words),
    }
    cluster.apply(manifest)
    (first,) = operated.wait_ready("hooked", 1)
    operated.wait_checkpoint("w", "hooked")
    cluster.kubectl("scale", "deployment/hooked", "--replicas=2")
    pods = operated.wait_ready("hooked", 2)
    (later,) = [p for p in pods if p["metadata"]["uid"] != first["metadata"]["uid"]]
    name, address = later["metadata"]["name"], later["status"]["podIP"]
    operated.wait_restored(later)
    ended, said = cluster.kubectl("exec", name, "--", "cat", "/hooked").splitlines()
    started = later["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    assert int(ended) <= datetime.fromisoformat(started).timestamp()
    assert said == f"{name} {address}"
    told = json.loads(cluster.kubectl("exec", name, "--", "cat", "/run/snap/restored.json"))
    assert (told["pod_ip"], told["node"]) == (address, later["spec"]["nodeName"])
    operated.wait_event(later, "PostRestoreHookFailed", "ended with 7")
    cluster.delete("deployment", "hooked")


def test_a_confined_pods_hook_has_no_more_rights_than_it(operated: Operated) -> None:
    """What the Pod Security Standard "restricted" lets through: another user, nothing to gain, nothing to write to."""
    cluster = operated.cluster
    probe = {"exec": {"command": ["sh", "-c", "[ -e /work/ready ]"]}, "periodSeconds": 1}
    manifest = deployment(
        cluster,
        "confined",
        1,
        1,
        command=["sh", "-c", "echo >/work/ready; while :; do echo tick; sleep 1; done"],
        startupProbe=probe | {"failureThreshold": 60},
        readinessProbe=probe,
        volumeMounts=[{"name": "work", "mountPath": "/work"}],
        securityContext={
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    )
    words = [
        "sh",
        "-c",
        "id -u >/work/hooked; cat /proc/self/status $SNAP_RESTORED_FILE >>/work/hooked",
    ]
    template = manifest["spec"]["template"]
    template["spec"]["volumes"] = [{"name": "work", "emptyDir": {}}]
    template["metadata"]["annotations"] = {
        "snap.weaversoft.io/post-restore": "exec",
        "snap.weaversoft.io/post-restore-command": json.dumps(words),
    }
    cluster.apply(manifest)
    (first,) = operated.wait_ready("confined", 1)
    operated.wait_checkpoint("w", "confined")
    cluster.kubectl("scale", "deployment/confined", "--replicas=2")
    pods = operated.wait_ready("confined", 2)
    (later,) = [p for p in pods if p["metadata"]["uid"] != first["metadata"]["uid"]]
    operated.wait_restored(later)
    name = later["metadata"]["name"]
    said = cluster.kubectl("exec", name, "--", "cat", "/work/hooked")
    assert said.startswith("1000\n")
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert {status[field] for field in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert f'"pod_name": "{name}"' in said
    cluster.delete("deployment", "confined")


def test_a_webhook_that_is_edited_or_deleted_comes_back(operated: Operated) -> None:
    cluster = operated.cluster
    patch = json.dumps([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}])
    cluster.kubectl("patch", WEBHOOK, "snap-h", "--type=json", f"-p={patch}")

    def is_right() -> bool:
        if not cluster.exists(WEBHOOK, "snap-h"):
            return False
        return bool(cluster.get(WEBHOOK, "snap-h")["webhooks"][0]["failurePolicy"] == "Ignore")

    operated.wait(is_right, "the webhook as it was")
    cluster.delete(WEBHOOK, "snap-h")
    operated.wait(is_right, "the webhook again")


def test_an_api_server_that_restarts_is_watched_again(operated: Operated) -> None:
    operated.cluster.daemon("kube-apiserver").kill()
    operated.cluster.bring_back("kube-apiserver")

    def is_watched() -> bool:
        return bool(operated.rest.get("/operator/snapwatcher/w/status")["thread_alive"])

    operated.wait(is_watched, "the watch")
    operated.deployment("after", rounds=100_000)
    operated.wait_ready("after", 1)
    operated.wait_checkpoint("w", "after")
    operated.cluster.delete("deployment", "after")


def test_pods_start_cold_while_the_control_plane_is_away(operated: Operated) -> None:
    operated.plane.kill()
    try:
        operated.deployment("alone", rounds=1_000)
        (pod,) = operated.wait_ready("alone", 1)
        took_s = start_s(pod)
        print(f"ready after {took_s} s without the control plane")  # noqa: T201 - figures for who runs it with -s
        assert CHECKPOINT not in notes(pod)
    finally:
        operated.plane.start()

    def is_back() -> bool:
        hook = operated.rest.get("/snaphook/h")
        watcher = operated.rest.get("/operator/snapwatcher/w/status")
        return bool(hook["is_running"] and watcher["thread_alive"])

    operated.wait(is_back, "hook and watcher as they were")
    operated.cluster.delete("deployment", "alone")
