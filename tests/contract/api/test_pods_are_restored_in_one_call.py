"""POST /checkpoint/{id}/restore makes the pod, waits for what its agent tells, and is honest about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.checkpoints import podwatching
from controlplane.clusters.configs import ClusterDraft
from controlplane.kube.resources import Object
from controlplane.store.records import Restore
from tests.fakes import kube_server
from tests.fakes.api_server import Server
from tests.fakes.fleet import DIGEST
from tests.fakes.jobs import until
from tests.fakes.kube_server import TOKEN, Fault, KubeServer

PODS = "/api/v1/namespaces/default/pods"
ANNOTATION = "snap.weaversoft.io/"
LIVE: dict[str, Any] = {
    "metadata": {
        "labels": {"app": "test-app", "pod-template-hash": "abc12"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept"},
        "ownerReferences": [
            {"kind": "ReplicaSet", "name": "rs", "uid": "u", "apiVersion": "apps/v1"}
        ],
    },
    "spec": {
        "nodeName": "node-1",
        "serviceAccountName": "powerful",
        "containers": [
            {
                "name": "test-app",
                "image": "app:1",
                "env": [{"name": "SECRET", "value": "canary-env"}],
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {
                        "name": "kube-api-access-x",
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    },
                ],
            }
        ],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "kube-api-access-x", "projected": {}},
        ],
        "tolerations": [
            {
                "key": "node.kubernetes.io/not-ready",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
            {"key": "own", "operator": "Exists"},
        ],
    },
    "status": {"phase": "Running"},
}


@pytest.fixture
async def kube(server: Server) -> AsyncIterator[KubeServer]:
    """The API server of ``c1``, with the pod ``default/test-app`` and its node."""
    async with kube_server.running() as made:
        draft = ClusterDraft("c1", api_server_url=made.url, token=TOKEN)
        await server.services.clusters.update(draft)
        server.fleet.is_answering = True
        live = made.put(f"{PODS}/test-app", **json.loads(json.dumps(LIVE)))
        live["metadata"]["uid"] = "pod-12345"  # as the node has it
        made.put("/api/v1/nodes/node-2")
        yield made
        await server.services.cluster_apis.close()


async def _checkpoint(server: Server) -> str:
    body = {"pod_name": "test-app", "namespace": "default", "cluster_name": "c1"}
    path = "/checkpoint/kubelet/checkpoint-and-push?registry=r1"
    made = await server.call("POST", path, body)
    assert made.status == 200, made.json
    return str(made.json["checkpoint_id"])


def _restore(pod: Object, action: str = "restored", reason: str = "") -> Restore:
    metadata = pod["metadata"]
    return Restore(
        cluster="c1",
        node="node-2",
        sequence=1,
        container_id="c" * 64,
        container_name="test-app",
        namespace=metadata["namespace"],
        pod_name=metadata["name"],
        pod_uid=metadata["uid"],
        image=f"registry.example:5000/x@{DIGEST}",
        action=action,
        code="" if action == "restored" else "template_differs",
        reason=reason,
        details="",
        mode="eager" if action == "restored" else "",
        at="2026-01-15T10:30:00.000Z",
        prepare_ms=100.0,
        restore_ms=420.5,
        start_ms=800.0,
    )


@asynccontextmanager
async def _when_made(kube: KubeServer, then: Callable[[Object], None]) -> AsyncIterator[None]:
    """Do what a node would do with the new pod."""

    def fresh() -> list[Object]:
        return [p for p in kube.all("/api/v1/pods") if p["metadata"]["name"] != "test-app"]

    async def act() -> None:
        await until(fresh)
        then(fresh()[0])

    task = asyncio.create_task(act())
    try:
        yield
        await task
    finally:
        task.cancel()


async def test_a_pod_goes_on_from_its_checkpoint(server: Server, kube: KubeServer) -> None:
    checkpoint = await _checkpoint(server)
    async with _when_made(kube, lambda pod: server.fleet.arrivals.heard([_restore(pod)])):
        path = f"/checkpoint/{checkpoint}/restore"
        answer = await server.call("POST", path, {"node_name": "node-2", "restore": "lazy"})
    assert answer.status == 200, answer.json
    told = answer.json
    assert told["node_name"] == "node-2"
    assert (told["driver"], told["restore_ms"], told["namespace"]) == ("runtime", 420.5, "default")
    assert DIGEST in told["proof"]
    pod = kube.get(f"{PODS}/{told['pod_name']}")
    annotations, spec = pod["metadata"]["annotations"], pod["spec"]
    image = json.loads(annotations[ANNOTATION + "checkpoint"])["test-app"]
    assert image.endswith("@" + DIGEST)
    assert annotations[ANNOTATION + "checkpoint-id"] == checkpoint
    assert annotations[ANNOTATION + "checkpoint-digest"] == DIGEST
    assert annotations[ANNOTATION + "restore-mode"] == "lazy"
    assert annotations["note"] == "kept"
    assert pod["metadata"]["labels"] == {"app": "test-app", ANNOTATION + "mutated": "true"}
    assert "ownerReferences" not in pod["metadata"]
    assert spec["runtimeClassName"] == "snap"
    assert spec["serviceAccountName"] == "default"
    assert spec["automountServiceAccountToken"] is True
    assert "nodeName" not in spec
    assert [v["name"] for v in spec["volumes"]] == ["data"]
    assert [m["name"] for m in spec["containers"][0]["volumeMounts"]] == ["data"]
    assert [t["key"] for t in spec["tolerations"]] == ["own"]
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["node-2"]


async def test_one_that_starts_cold_is_told_and_removed(server: Server, kube: KubeServer) -> None:
    checkpoint = await _checkpoint(server)
    reason = "the command differs"
    async with _when_made(
        kube, lambda pod: server.fleet.arrivals.heard([_restore(pod, "cold", reason)])
    ):
        answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", {})
    assert (answer.status, answer.json["code"]) == (502, "RESTORE_FAILED")
    assert reason in answer.json["error"]
    assert "removed" in answer.json["error"]
    assert [p["metadata"]["name"] for p in kube.all("/api/v1/pods")] == ["test-app"]


def _broken(kube: KubeServer, pod: Object) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    status = {"phase": "Pending", "containerStatuses": [{"name": "test-app", "state": waiting}]}
    kube.put(f"{PODS}/{pod['metadata']['name']}/status", status=status)


async def test_one_that_can_not_be_started_is_told(server: Server, kube: KubeServer) -> None:
    checkpoint = await _checkpoint(server)
    async with _when_made(kube, lambda pod: _broken(kube, pod)):
        answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", {})
    assert (answer.status, answer.json["code"]) == (502, "RESTORE_FAILED")
    assert "no such image" in answer.json["error"]


async def test_a_pod_that_no_node_takes_is_given_up(
    server: Server, kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podwatching, "UNSCHEDULED_S", 0.0)
    checkpoint = await _checkpoint(server)

    def unschedulable(pod: Object) -> None:
        condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes"}
        path = f"{PODS}/{pod['metadata']['name']}/status"
        kube.put(path, status={"phase": "Pending", "conditions": [condition]})

    async with _when_made(kube, unschedulable):
        answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", {})
    assert answer.status == 502
    assert "no node takes it: 0/2 nodes" in answer.json["error"]


async def test_a_node_that_is_being_prepared_is_told_apart(
    server: Server, kube: KubeServer
) -> None:
    checkpoint = await _checkpoint(server)
    server.fleet.restores, server.fleet.is_preparing = (), True
    body = {"node_name": "node-1"}
    answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", body)
    assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    assert "Node node-1 is being prepared" in answer.json["error"]


async def test_the_image_driver_is_used_only_when_it_is_named(
    server: Server, kube: KubeServer
) -> None:
    checkpoint = await _checkpoint(server)
    server.fleet.restores = ("image",)
    refused = await server.call("POST", f"/checkpoint/{checkpoint}/restore", {})
    assert refused.status == 409
    assert "prepare" in refused.json["error"]

    def run(pod: Object) -> None:
        path = f"{PODS}/{pod['metadata']['name']}"
        kube.put(path, spec={"nodeName": "node-2"})
        kube.put(path + "/status", status={"phase": "Running"})

    body = {"driver": "image", "pod_name": "again"}
    async with _when_made(kube, run):
        answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", body)
    assert (answer.status, answer.json["driver"]) == (200, "image")
    spec = kube.get(f"{PODS}/again")["spec"]
    assert spec["containers"][0]["image"].endswith("@" + DIGEST)
    assert "runtimeClassName" not in spec


async def test_the_image_driver_is_refused_where_no_runtime_restores_images(
    server: Server, kube: KubeServer
) -> None:
    checkpoint = await _checkpoint(server)
    server.fleet.restores = ("runtime",)
    for node in ({}, {"node_name": "node-1"}):
        body = {"driver": "image", **node}
        answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", body)
        assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
        assert "use driver runtime" in answer.json["error"]


async def test_another_namespace_needs_a_share_and_an_account_an_administrator(
    server: Server, kube: KubeServer
) -> None:
    checkpoint = await _checkpoint(server)
    path = f"/checkpoint/{checkpoint}/restore"
    denied = await server.call("POST", path, {"namespace": "other"})
    assert denied.status == 403
    assert "share" in denied.json["error"]
    denied = await server.call("POST", path, {"service_account": "powerful"}, by="olga")
    assert denied.status == 403
    share = {"namespaces": ["other"]}
    assert (await server.call("POST", f"/checkpoint/{checkpoint}/share", share)).status == 200
    async with _when_made(kube, lambda pod: server.fleet.arrivals.heard([_restore(pod)])):
        body = {"namespace": "other", "service_account": "powerful"}
        answer = await server.call("POST", path, body)
    assert (answer.status, answer.json["namespace"]) == (200, "other")
    pod = kube.get(f"/api/v1/namespaces/other/pods/{answer.json['pod_name']}")
    assert pod["spec"]["serviceAccountName"] == "powerful"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"node_name": "node-9"}, 404, "NODE_NOT_FOUND"),
        ({"pod_name": "test-app"}, 409, "CONFLICT"),
    ],
    ids=["node", "name"],
)
async def test_what_can_not_be_is_refused(
    server: Server, kube: KubeServer, body: dict[str, str], status: int, code: str
) -> None:
    checkpoint = await _checkpoint(server)
    answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", body)
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_without_the_api_server_a_checkpoint_is_made_and_says_so_at_the_restore(
    server: Server, kube: KubeServer
) -> None:
    kube.fail(Fault(503, matches=lambda request: request.path == f"{PODS}/test-app"))
    checkpoint = await _checkpoint(server)
    answer = await server.call("POST", f"/checkpoint/{checkpoint}/restore", {})
    assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    assert "template" in answer.json["error"]


async def test_the_template_is_sealed_and_goes_with_its_checkpoint(
    server: Server, kube: KubeServer, tmp_path: Path
) -> None:
    checkpoint = await _checkpoint(server)
    sealed = await server.store.read(
        lambda db: db.execute(
            "SELECT name FROM secrets WHERE name LIKE 'pod-template/%'"
        ).fetchall()
    )
    assert len(sealed) == 1
    for file in (tmp_path / "data").iterdir():
        assert not file.is_file() or b"canary-env" not in file.read_bytes()
    assert "canary-env" not in str((await server.call("GET", "/checkpoint/list")).json)
    body = {"keep_image": True}
    assert (await server.call("DELETE", f"/checkpoint/{checkpoint}", body)).status == 200
    left = await server.store.read(
        lambda db: db.execute(
            "SELECT name FROM secrets WHERE name LIKE 'pod-template/%'"
        ).fetchall()
    )
    assert left == []
