"""Clusters as users look at them: their pods, their nodes' reports, where their images go, their keys."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.store.records import JobFailure
from tests.fakes.api_server import Server

REPORT = {
    "cluster_name": "c1",
    "node_name": "old-node",
    "timestamp": "2026-01-15T10:30:00Z",
    "checks": {
        "crio": "crio:crio version 1.31.2",
        "criu": "criu:Version: 3.19",
        "criu_config": "criu_config:pass:auto_configured",
    },
}


async def test_each_user_looks_at_a_cluster(server: Server) -> None:
    await server.call("POST", "/config/clusters/create", {"name": "c2"})
    several = await server.call("GET", "/pod/list", by="vera")
    assert (several.status, several.json["code"]) == (404, "CLUSTER_NOT_FOUND")
    named = await server.call("GET", "/pod/list?cluster_name=c1", by="vera")
    assert named.status == 200
    assert json.loads(named.json["pods"])["items"]
    login = await server.call("POST", "/kubectl/login", {"cluster_config_name": "c1"}, by="vera")
    assert login.json["message"] == "Logged in to the kubernetes cluster"
    assert login.json["reached_by"] == "agents"
    items = json.loads((await server.call("GET", "/pod/list", by="vera")).json["pods"])["items"]
    assert [(p["metadata"]["name"], p["spec"]["nodeName"]) for p in items] == [
        ("test-app", "node-1")
    ]
    assert (await server.call("GET", "/pod/list", by="olga")).status == 404


async def test_a_cluster_out_of_reach_is_not_looked_at(server: Server) -> None:
    server.fleet.connected = False
    login = await server.call("POST", "/kubectl/login", {"cluster_config_name": "c1"})
    assert (login.status, login.json["code"]) == (502, "CLUSTER_CONNECTION_FAILED")
    unknown = await server.call("POST", "/kubectl/login", {"cluster_config_name": "nope"})
    assert unknown.json["code"] == "CLUSTER_NOT_FOUND"


async def test_nodes_report_with_their_clusters_token(server: Server) -> None:
    token = (await server.call("POST", "/config/clusters/c1/agent-token")).json["token"]
    taken = await server.call("POST", "/cluster/status/report", REPORT, by=token)
    assert taken.json["message"] == "Status reported for node old-node"
    summary = (await server.call("GET", "/cluster/status/summary?cluster_name=c1")).json
    nodes = {n["node_name"]: n for n in summary["cluster_status"]["node_details"]}
    assert nodes["old-node"]["ready"]
    bad = REPORT | {"checks": REPORT["checks"] | {"criu": "criu:fail:not_installed"}}  # type: ignore[operator]
    await server.call("POST", "/cluster/status/report", bad, by=token)
    summary = (await server.call("GET", "/cluster/status/summary?cluster_name=c1")).json
    assert summary["message"] == "Cluster status: 1/2 nodes ready"
    other = await server.call(
        "POST", "/cluster/status/report", REPORT | {"cluster_name": "c2"}, by=token
    )
    assert (other.status, other.json["code"]) == (403, "PERMISSION_DENIED")
    late = await server.call(
        "POST", "/cluster/status/report", REPORT | {"timestamp": "yesterday"}, by=token
    )
    assert late.status == 400
    assert "`timestamp`" in late.json["error"]


async def test_a_cluster_cache_is_chosen(server: Server) -> None:
    path = "/config/clusterCache"
    wanted = {"cluster": "c1", "registry": "r1"}
    none = (await server.call("GET", f"{path}/get/c1", by="vera")).json
    assert none["cluster_cache_details"] is None
    made = await server.call("POST", f"{path}/create", wanted)
    assert made.json["cluster_cache_details"]["repo"] == "snap_images"
    assert (await server.call("POST", f"{path}/create", wanted)).json["code"] == "CONFLICT"
    unknown = await server.call("PUT", f"{path}/update", wanted | {"registry": "nope"})
    assert (unknown.status, unknown.json["code"]) == (404, "REGISTRY_NOT_FOUND")
    listed = (await server.call("GET", f"{path}/list")).json["cluster_caches"]
    assert listed == [{"cluster_cache_details": wanted | {"repo": "snap_images"}}]
    assert (await server.call("DELETE", f"{path}/delete", {"cluster": "c1"})).status == 200
    assert (await server.call("GET", f"{path}/list")).json["cluster_caches"] == []


async def test_keys_go_in_and_never_come_out(server: Server) -> None:
    body: dict[str, Any] = {"name": "k1", "api_key": {"a": "canary-a", "b": "canary-b"}}
    made = await server.call("POST", "/config/secret/create", body)
    again = await server.call("POST", "/config/secret/create", body)
    body["api_key"] = {"a": "********", "c": "canary-c"}
    changed = await server.call("PUT", "/config/secret/update", body)
    listed = await server.call("GET", "/config/secret/list")
    assert (made.status, again.status, changed.status) == (200, 409, 200)
    assert listed.json["secrets"][0]["api_key"] == {"a": "********", "c": "********"}
    body["api_key"] = {"d": "********"}
    assert (await server.call("PUT", "/config/secret/update", body)).status == 409
    body["name"] = "k2"
    assert (await server.call("POST", "/config/secret/create", body)).status == 400
    for answer in (made, again, changed, listed, await server.call("GET", "/audit")):
        assert "canary" not in answer.content.decode()
    for file in server.store._path.parent.glob("snap.db*"):
        assert b"canary" not in file.read_bytes()
    assert (await server.call("DELETE", "/config/secret/delete", {"name": "k1"})).status == 200


async def test_images_are_brought_to_nodes(server: Server) -> None:
    pod = {"pod_name": "test-app", "namespace": "default", "cluster_name": "c1"}
    made = await server.call("POST", "/checkpoint/kubelet/checkpoint", pod)
    path = f"/checkpoint/{made.json['checkpoint_id']}"
    early = await server.call("POST", f"{path}/prefetch", {"nodes": ["node-1"]})
    assert (early.status, early.json["code"]) == (409, "CONFLICT")
    pushed = await server.call("POST", "/checkpoint/kubelet/checkpoint-and-push", pod)
    path = f"/checkpoint/{pushed.json['checkpoint_id']}"
    brought = await server.call("POST", f"{path}/prefetch", {"nodes": ["node-1", "node-1"]})
    assert brought.status == 200, brought.json
    assert [(n["node_name"], n["status"]) for n in brought.json["nodes"]] == [
        ("node-1", "completed")
    ]
    fetch = server.fleet.started[-1].spec.fetches[0]
    assert fetch.image == f"{pushed.json['image'].rpartition(':')[0]}@{pushed.json['image_digest']}"
    nowhere = await server.call("POST", f"{path}/prefetch", {"nodes": ["node-1", "node-9"]})
    assert (nowhere.status, nowhere.json["code"]) == (404, "NODE_NOT_FOUND")
    restored = await server.call("POST", f"{path}/restore", {})
    assert (restored.status, restored.json["code"]) == (502, "CLUSTER_CONNECTION_FAILED")
    cluster_pod = {"metadata": {"name": "test-app"}, "spec": {"containers": [{"name": "test-app"}]}}
    hook = await server.call(
        "POST", "/pod/webhook", {"cluster_name": "c1", "pod_data": cluster_pod}
    )
    assert hook.json["generated_image_tag"] == pushed.json["image_tag"]


async def test_all_containers_are_pushed_in_one_go(server: Server) -> None:
    body = {"pod_name": "test-app", "namespace": "default", "registry": "registry.example:5000"}
    done = await server.call(
        "POST", "/automation/trigger", body | {"username": "u", "password": "p"}
    )
    assert done.status == 200, done.json
    tag = done.json["image_tags"][0]
    assert f"{tag['image_repo']}:{tag['tag']}" == done.json["image_tag"]
    assert tag["container_id"] == "container-67890"


async def test_what_a_node_refuses_is_told(server: Server) -> None:
    server.fleet.failure = JobFailure(code="VALIDATION_ERROR", message="Not in this version.")
    answer = await server.call("POST", "/cluster/c1/nodes/node-1/prepare", {})
    assert (answer.status, answer.json["error"]) == (400, "Not in this version.")
    alone = await server.call("POST", "/cluster/nodes/node-1/prepare")
    assert alone.status == 400
    reset = await server.call("POST", "/cluster/c1/nodes/node-1/reset-identity")
    assert (reset.status, reset.json["code"]) == (404, "NODE_NOT_FOUND")


@pytest.mark.parametrize("token", [" ", "two\nlines", "two words", "t\u00f6ken"], ids=ascii)
async def test_a_token_that_can_be_none_is_not_kept(server: Server, token: str) -> None:
    wanted = {"name": "c9", "kube_api_url": "https://127.0.0.1:1", "token": token}
    refused = await server.call("POST", "/config/cluster/create", wanted)
    assert (refused.status, refused.json["code"]) == (400, "VALIDATION_ERROR")
    assert "`token`" in refused.json["error"]
    pasted = await server.call("POST", "/config/cluster/create", wanted | {"token": "a.b-c_d\n"})
    assert pasted.status == 200
