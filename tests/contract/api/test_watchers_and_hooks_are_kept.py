"""Watchers and hooks are kept as they were set, over restarts too, and say honestly whether they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import api_server
from tests.fakes.api_server import Server

NOWHERE = {"name": "c9", "kube_api_url": "https://127.0.0.1:9", "token": "canary-token"}
WATCHER = {"name": "w1", "cluster_name": "c9", "scope": "namespace", "namespace": "shop"}
HOOK = {"name": "h1", "cluster_name": "c9", "webhook_url": "", "cert_expiry_days": 30}


async def _made(server: Server) -> None:
    await server.call("POST", "/config/cluster/create", NOWHERE)
    created = await server.call("POST", "/operator/snapwatcher", WATCHER, by="olga")
    assert created.status == 200, created.json
    assert (await server.call("POST", "/snaphook", HOOK, by="olga")).status == 200


async def test_a_cluster_without_an_address_is_sent_back_as_it_was_listed(server: Server) -> None:
    """As clients do that know a cluster from the list: the control plane's own has no address there."""
    await server.call("POST", "/config/cluster/create", NOWHERE)
    listed = {"name": "c9", "cluster_config_details": {"kube_api_url": "", "token": "********"}}
    for path, body in (
        ("/operator/snapwatcher", WATCHER),
        ("/snaphook", HOOK),
        ("/snaphook", HOOK | {"name": "h2", "cluster_config": {"api_server_url": ""}}),
    ):
        made = await server.call("POST", path, {"cluster_config": listed} | body)
        assert (made.status, made.json["cluster_name"]) == (200, "c9"), made.json


async def test_a_watcher_says_why_it_does_not_run(server: Server) -> None:
    await _made(server)
    seen = (await server.call("GET", "/operator/snapwatcher/w1/status", by="vera")).json
    assert (seen["status"], seen["thread_alive"]) == ("error", False)
    assert "c9" in seen["error_message"]
    started = await server.call("POST", "/operator/snapwatcher/w1/start", by="olga")
    assert (started.status, started.json["code"]) == (502, "CLUSTER_CONNECTION_FAILED")
    assert started.json["details"].startswith("unreachable:")
    assert "canary-token" not in str(started.json)
    every = (await server.call("GET", "/operator/watchers/status")).json
    assert (every["active_watchers"], every["watchers"]["w1"]["thread_alive"]) == (0, False)


async def test_a_hook_says_why_it_does_not_run(server: Server) -> None:
    await _made(server)
    assert (await server.call("GET", "/snaphook/h1")).json["error_message"] is None
    started = await server.call("POST", "/snaphook/h1/start", by="olga")
    assert (started.status, started.json["code"]) == (502, "CLUSTER_CONNECTION_FAILED")
    seen = (await server.call("GET", "/snaphook/h1/status")).json
    assert (seen["is_running"], seen["status"]["certificate_generated"]) == (False, False)
    assert "c9" in seen["error_message"]
    assert ":8443/hook/h1/" in seen["webhook_url"]


@pytest.mark.parametrize(
    "url", ["https://\x98\x82", "https://a:99999/x", "http://a/x", "https://u@a/x", "https://a/ö"]
)
async def test_a_hook_is_at_a_real_url(server: Server, url: str) -> None:
    refused = await server.call("POST", "/snaphook", {**HOOK, "webhook_url": url})
    assert (refused.status, refused.json["code"]) == (400, "VALIDATION_ERROR")
    assert "webhook_url" in refused.json["message"]
    assert (await server.call("GET", "/snaphooks")).status == 200


async def test_a_hooks_name_may_not_be_a_segment_of_our_paths(server: Server) -> None:
    refused = await server.call("POST", "/snaphook", {**HOOK, "name": "list"})
    assert (refused.status, refused.json["code"]) == (400, "VALIDATION_ERROR")
    assert refused.json["error"].startswith("Field `name` ")
    assert "reserved" in refused.json["error"]


async def test_they_survive_a_restart(tmp_path: Path) -> None:
    async with api_server.running(tmp_path) as server:
        await _made(server)
        await server.call("POST", "/snaphook/h1/start")
        before = (await server.call("GET", "/operator/snapwatcher/w1")).json
    async with api_server.running(tmp_path) as server:
        after = (await server.call("GET", "/operator/snapwatcher/w1")).json
        hook = (await server.call("GET", "/snaphook/h1")).json
    assert after == before | {"error_message": "It is being started.", "failing_since": None}
    assert hook["error_message"] == "It is being started."


async def test_stopping_is_for_good(server: Server) -> None:
    await _made(server)
    stopped = await server.call("POST", "/operator/snapwatcher/w1/stop", by="olga")
    assert (stopped.status, stopped.json["status"]) == (200, "stopped")
    again = await server.call("POST", "/operator/snapwatcher/w1/stop", by="olga")
    assert (again.status, again.json["status"]) == (200, "stopped")
    gone = await server.call("DELETE", "/operator/snapwatcher/w1", by="olga")
    assert gone.json["message"] == "SnapWatcher 'w1' deleted successfully"
    missing = await server.call("GET", "/operator/snapwatcher/w1")
    assert (missing.status, missing.json["code"]) == (404, "WATCHER_NOT_FOUND")
    await server.call("DELETE", "/snaphook/h1")
    assert (await server.call("GET", "/snaphook/h1")).json["code"] == "HOOK_NOT_FOUND"


async def test_an_operator_of_some_namespaces_watches_only_there(server: Server) -> None:
    await _made(server)
    limited = {"username": "oskar", "namespaces": ["other"]}
    await server.call("PUT", "/config/user/update", limited)
    login = await server.services.users.login("oskar", api_server.PASSWORD, "127.0.0.1")
    for path, body in (
        ("/operator/snapwatcher", WATCHER | {"name": "w2"}),
        ("/operator/snapwatcher", {"name": "w2", "cluster_name": "c9"}),
        ("/snaphook", HOOK | {"name": "h2"}),
        ("/operator/snapwatcher/w1/stop", None),
    ):
        answer = await server.call("POST", path, body, by=login.token)
        assert (answer.status, answer.json["code"]) == (403, "PERMISSION_DENIED"), path
    assert (await server.call("DELETE", "/snaphook/h1", by=login.token)).status == 403
