"""Registry and cluster configs in both dialects; their secrets stay where they are."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import msgspec
import pytest

from tests.fakes.api_server import Server

CANARY = "c4nary-5ecret"
S_REGISTRY = {
    "name": "nexus-registry",
    "url": "https://nexus.company.com",
    "username": "admin",
    "password": CANARY,
    "verify_ssl": True,
}
O_REGISTRY = {
    "name": "nexus-registry",
    "registry": "nexus.company.com",
    "username": "admin",
    "password": CANARY,
}
S_CLUSTER = {
    "name": "production-cluster",
    "api_server_url": "https://api.cluster.com:6443",
    "auth_type": "kubeconfig",
    "kubeconfig_content": "base64-encoded-kubeconfig",
    "registry_name": "r1",
}
O_CLUSTER = {
    "name": "production-cluster",
    "kube_api_url": "https://api.cluster.com:6443",
    "token": CANARY,
    "registry": "r1",
    "repo": "snap_images",
}


@pytest.mark.parametrize("body", [S_REGISTRY, O_REGISTRY], ids=["S", "O"])
async def test_a_registry_is_made_listed_changed_and_removed(
    server: Server, body: dict[str, object]
) -> None:
    made = await server.call("POST", "/config/registry/create", body)
    assert made.status == 200
    assert made.json["message"] == "Registry config file nexus-registry created successfully"
    assert (await server.call("POST", "/config/registry/create", body)).status == 409
    listed = (await server.call("GET", "/config/registry/list", by="vera")).json
    found = next(r for r in listed["registry_configs"] if r["name"] == "nexus-registry")
    assert found["registry_config_details"] == {
        "registry": "nexus.company.com",
        "username": "admin",
        "password": "********",
    }
    assert (found["password"], found["verify_ssl"]) == ("********", True)
    kept = await server.call("PUT", "/config/registry/update", body | {"password": "********"})
    assert kept.status == 200
    access = await server.store.read(
        lambda db: server.services.registries.access(db, "nexus-registry")
    )
    assert access.password == CANARY
    for path in ("/config/registry/delete", "/config/registry/delete?name=nexus-registry"):
        gone = await server.call("DELETE", path, {"name": "nexus-registry"})
        assert gone.status in (200, 404)
    assert gone.json["code"] == "REGISTRY_NOT_FOUND"


@pytest.mark.parametrize(
    "change",
    [{"url": "https://evil.example"}, {"verify_ssl": False}, {"url": "http://nexus.company.com"}],
    ids=["address", "verify", "plain"],
)
async def test_a_stored_password_goes_to_no_other_address(
    server: Server, change: dict[str, object]
) -> None:
    await server.call("POST", "/config/registry/create", S_REGISTRY)
    body = {"name": "nexus-registry"} | change
    for kept in ({}, {"password": "********"}):
        refused = await server.call("PUT", "/config/registry/update", body | kept)
        assert (refused.status, refused.json["code"]) == (409, "CONFLICT")
        assert "password" in refused.json["error"]
    again = await server.call("PUT", "/config/registry/update", body | {"password": "new"})
    assert again.status == 200


@pytest.mark.parametrize("prefix", ["/config/clusters", "/config/cluster"])
@pytest.mark.parametrize("body", [S_CLUSTER, O_CLUSTER], ids=["S", "O"])
async def test_a_cluster_is_made_listed_changed_and_removed(
    server: Server, body: dict[str, object], prefix: str
) -> None:
    made = await server.call("POST", f"{prefix}/create", body)
    assert made.status == 200, made.json
    assert (await server.call("POST", f"{prefix}/create", body)).status == 409
    listed = (await server.call("GET", f"{prefix}/list", by="vera")).json["cluster_configs"]
    found = next(c for c in listed if c["name"] == "production-cluster")
    assert found["cluster_config_details"] == {
        "kube_api_url": "https://api.cluster.com:6443",
        "token": "********",
    }
    assert found["registry_name"] == "r1"
    assert found["repo"] == "snap_images"
    # what the older web UI sends back
    edited = {"name": "production-cluster", "token": "********"} | {
        "kube_api_url": found["kube_api_url"]
    }
    assert (await server.call("PUT", f"{prefix}/update", edited)).status == 200
    used = await server.call("DELETE", "/config/registry/delete", {"name": "r1"})
    assert used.status == 409
    gone = await server.call("DELETE", f"{prefix}/delete", {"name": "production-cluster"})
    assert gone.status == 200
    assert (await server.call("DELETE", "/config/registry/delete?name=r1")).status == 200


async def test_a_stored_token_goes_to_no_other_api_server(server: Server) -> None:
    body = {"name": "c1", "kube_api_url": "https://evil.example", "token": "********"}
    refused = await server.call("PUT", "/config/clusters/update", body)
    assert (refused.status, refused.json["code"]) == (409, "CONFLICT")
    again = await server.call("PUT", "/config/clusters/update", body | {"token": "other"})
    assert again.status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "summary"}, 400, "VALIDATION_ERROR"),
        ({"name": "x", "registry_name": "nope"}, 404, "REGISTRY_NOT_FOUND"),
        ({"name": "x", "api_server_url": "ftp://x"}, 400, "VALIDATION_ERROR"),
        ({"name": "x", "api_server_url": "https://u:p@x"}, 400, "VALIDATION_ERROR"),
        ({"name": "x", "kubeconfig_content": "%%%"}, 400, "VALIDATION_ERROR"),
        ({"name": "x", "auth_type": "magic"}, 400, "VALIDATION_ERROR"),
        ({"name": "../x"}, 400, "VALIDATION_ERROR"),
    ],
)
async def test_these_clusters_are_refused(
    server: Server, body: dict[str, object], status: int, code: str
) -> None:
    answer = await server.call("POST", "/config/clusters/create", body)
    assert (answer.status, answer.json["code"]) == (status, code)
    listed = (await server.call("GET", "/config/clusters/list")).json["cluster_configs"]
    assert [c["name"] for c in listed] == ["c1"]


async def test_an_agent_token_is_made_for_a_cluster_that_exists(server: Server) -> None:
    made = await server.call("POST", "/config/clusters/c1/agent-token")
    assert {"token", "ca_pem", "expires_at"} <= made.json.keys()
    unknown = await server.call("POST", "/config/clusters/nope/agent-token")
    assert (unknown.status, unknown.json["code"]) == (404, "CLUSTER_NOT_FOUND")


async def test_no_secret_is_found_anywhere(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = {
        "clusters": [{"name": "k", "cluster": {"server": "https://k"}}],
        "users": [{"name": "u", "user": {"token": CANARY}}],
    }
    content = base64.b64encode(msgspec.json.encode(config)).decode()
    answers = [
        await server.call("POST", "/config/registry/create", S_REGISTRY),
        await server.call("POST", "/config/registry/create", S_REGISTRY),
        await server.call("PUT", "/config/registry/update", S_REGISTRY | {"url": "::"}),
        await server.call("POST", "/config/clusters/create", O_CLUSTER),
        await server.call(
            "POST", "/config/clusters/create", {"name": "k", "kubeconfig_content": content}
        ),
        await server.call("POST", "/config/user/create", {"username": "u", "password": CANARY}),
        await server.call("POST", "/config/user/login", {"username": "u", "password": CANARY}),
        await server.call("GET", "/config/registry/list"),
        await server.call("GET", "/config/clusters/list"),
        await server.call("GET", "/config/user/list"),
        await server.call("GET", "/audit"),
        await server.call("GET", "/metrics"),
    ]
    assert not any(CANARY.encode() in answer.content for answer in answers)
    assert CANARY not in caplog.text
    for file in (found for found in (tmp_path / "data").rglob("*") if found.is_file()):
        assert CANARY.encode() not in file.read_bytes(), file
    deeds = [entry["action"] for entry in answers[-2].json["entries"]]
    assert {"create_registry", "create_cluster", "create_user"} <= set(deeds)


async def test_what_was_made_is_answered_without_its_secret(server: Server) -> None:
    for path, body, key in (
        ("/config/registry/create", S_REGISTRY, "registry_config"),
        ("/config/secret/create", {"name": "s", "api_key": {"k": CANARY}}, "secret"),
    ):
        made = (await server.call("POST", path, body)).json
        assert made[key]["name"] == body["name"]
        assert "********" in str(made[key])
        assert CANARY not in str(made)


async def test_what_is_changed_may_be_named_in_the_query(server: Server) -> None:
    made = ("/config/secret/create", {"name": "s", "api_key": {"k": CANARY}})
    assert (await server.call("POST", *made)).status == 200
    put = await server.call("PUT", "/config/secret/update?name=s", {"api_key": {"k": "********"}})
    assert (put.status, put.json["secret"]["name"]) == (200, "s")
    cache = {"registry": "r1", "repo": "other"}
    put = await server.call("PUT", "/config/clusterCache/update?cluster=c1", cache)
    assert put.json["cluster_cache_details"] == {"cluster": "c1", **cache}
