"""Every route by every kind of caller, from one table: a route without an entry fails."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
import pytest_asyncio

from controlplane.api.assembly import routes
from tests.fakes import api_server
from tests.fakes.api_server import PASSWORD, Server

OPEN, VIEWER, OPERATOR, ADMINISTRATOR = "open", "viewer", "operator", "administrator"
AGENT = "agent"  # a join token of the cluster, and no user

# method and path -> the least that may call it
NEEDS = {
    "GET /": OPEN,
    "GET /health": OPEN,
    "GET /ready": OPEN,
    "GET /metrics": OPEN,
    "GET /docs": OPEN,
    "GET /docs/{file}": OPEN,
    "GET /openapi.json": OPEN,
    "POST /config/user/login": OPEN,
    "POST /config/user/logout": VIEWER,
    "POST /config/user/verify": VIEWER,
    "GET /config/user/list": VIEWER,
    "POST /config/user/create": ADMINISTRATOR,
    "PUT /config/user/update": VIEWER,
    "DELETE /config/user/delete": ADMINISTRATOR,
    "GET /config/registry/list": VIEWER,
    "POST /config/registry/create": ADMINISTRATOR,
    "PUT /config/registry/update": ADMINISTRATOR,
    "DELETE /config/registry/delete": ADMINISTRATOR,
    "GET /config/clusters/list": VIEWER,
    "GET /config/cluster/list": VIEWER,
    "POST /config/clusters/create": ADMINISTRATOR,
    "POST /config/cluster/create": ADMINISTRATOR,
    "PUT /config/clusters/update": ADMINISTRATOR,
    "PUT /config/cluster/update": ADMINISTRATOR,
    "DELETE /config/clusters/delete": ADMINISTRATOR,
    "DELETE /config/cluster/delete": ADMINISTRATOR,
    "POST /config/clusters/{name}/agent-token": ADMINISTRATOR,
    "POST /config/cluster/{name}/agent-token": ADMINISTRATOR,
    "POST /checkpoint/kubelet/checkpoint": OPERATOR,
    "POST /checkpoint/kubelet/checkpoint-and-push": OPERATOR,
    "GET /checkpoint/list": VIEWER,
    "GET /checkpoint/{id}": VIEWER,
    "GET /checkpoint/download/{pod_name}/{filename}": OPERATOR,
    "HEAD /checkpoint/download/{pod_name}/{filename}": OPERATOR,
    "GET /checkpoint/download/{pod_name}": OPERATOR,
    "HEAD /checkpoint/download/{pod_name}": OPERATOR,
    "DELETE /checkpoint/{id}": OPERATOR,
    "POST /checkpoint/upload/{pod_name}": OPERATOR,
    "POST /checkpoint/{id}/pin": OPERATOR,
    "POST /checkpoint/{id}/share": ADMINISTRATOR,
    "POST /checkpoint/insights": VIEWER,
    "POST /checkpoint/checkpointctl": OPERATOR,
    "GET /checkpoint/checkpointctl/information": OPERATOR,
    "POST /checkpoint/analyze/volatility": OPERATOR,
    "GET /checkpoint/analyze/volatility/results": OPERATOR,
    "GET /jobs": VIEWER,
    "GET /jobs/{id}": VIEWER,
    "POST /jobs/{id}/cancel": OPERATOR,
    "GET /ws/progress": VIEWER,
    "GET /ws/progress/{username}": VIEWER,
    "POST /ws/ticket": VIEWER,
    "GET /cluster/statistics": VIEWER,
    "GET /cluster/status/{cluster_name}": VIEWER,
    "GET /cluster/status/summary": VIEWER,
    "POST /cluster/enable_checkpointing": VIEWER,
    "POST /cluster/install_runc": VIEWER,
    "POST /cluster/verify_checkpointing": VIEWER,
    "POST /registry/login": OPERATOR,
    "POST /registry/create_and_push_checkpoint_container": OPERATOR,
    "GET /config/clusterCache/list": VIEWER,
    "GET /config/clusterCache/get/{cluster}": VIEWER,
    "POST /config/clusterCache/create": ADMINISTRATOR,
    "PUT /config/clusterCache/update": ADMINISTRATOR,
    "DELETE /config/clusterCache/delete": ADMINISTRATOR,
    "GET /config/secret/list": OPERATOR,
    "POST /config/secret/create": ADMINISTRATOR,
    "PUT /config/secret/update": ADMINISTRATOR,
    "DELETE /config/secret/delete": ADMINISTRATOR,
    "GET /config/cluster/node": VIEWER,
    "PUT /config/cluster/nodes/edit": VIEWER,
    "POST /config/cluster/nodes/upload-ssh-key": VIEWER,
    "GET /config/cluster/nodes/list-ssh-keys": VIEWER,
    "GET /config/playbooks/list": VIEWER,
    "PUT /config/playbooks/update": VIEWER,
    "POST /cluster/status/report": AGENT,
    "POST /cluster/nodes/{node}/prepare": ADMINISTRATOR,
    "POST /cluster/{cluster}/nodes/{node}/prepare": ADMINISTRATOR,
    "POST /cluster/{cluster}/nodes/{node}/reset-identity": ADMINISTRATOR,
    "POST /kubectl/login": VIEWER,
    "GET /pod/list": VIEWER,
    "POST /pod/webhook": VIEWER,
    "POST /pod/migrate": OPERATOR,
    "POST /imagetag/generate": VIEWER,
    "POST /imagetag/parse": VIEWER,
    "GET /imagetag/component/{component}": VIEWER,
    "POST /automation/trigger": OPERATOR,
    "POST /checkpoint/{id}/prefetch": OPERATOR,
    "POST /checkpoint/{id}/restore": OPERATOR,
    "POST /operator/start": OPERATOR,
    "POST /operator/stop": OPERATOR,
    "GET /operator/status": VIEWER,
    "POST /operator/snapwatcher": OPERATOR,
    "GET /operator/snapwatcher/{watcher_name}": VIEWER,
    "GET /operator/snapwatcher/{watcher_name}/status": VIEWER,
    "GET /operator/snapwatcher/{watcher_name}/decisions": VIEWER,
    "PUT /operator/snapwatcher/{watcher_name}": OPERATOR,
    "POST /operator/snapwatcher/{watcher_name}/start": OPERATOR,
    "POST /operator/snapwatcher/{watcher_name}/stop": OPERATOR,
    "DELETE /operator/snapwatcher/{watcher_name}": OPERATOR,
    "GET /operator/snapwatchers/{cluster}": VIEWER,
    "GET /operator/watchers/status": VIEWER,
    "POST /snaphook": OPERATOR,
    "GET /snaphook/list": VIEWER,
    "GET /snaphooks": VIEWER,
    "GET /snaphook-configs": VIEWER,
    "GET /snaphook/{name}": VIEWER,
    "GET /snaphook/{name}/status": VIEWER,
    "GET /snaphook/{name}/test-connectivity": VIEWER,
    "POST /snaphook/{name}/start": OPERATOR,
    "POST /snaphook/{name}/stop": OPERATOR,
    "POST /snaphook/{name}/renew-certificates": OPERATOR,
    "DELETE /snaphook/{name}": OPERATOR,
    "GET /audit": ADMINISTRATOR,
}
RANK = {VIEWER: 0, OPERATOR: 1, ADMINISTRATOR: 2}
CALLERS = {"vera": VIEWER, "olga": OPERATOR, "admin": ADMINISTRATOR}
STRANGERS = ("nobody", "broken", "expired", "revoked", "foreign key", "agent token", "gone user")


def test_the_table_names_every_route_and_no_other() -> None:
    assert {f"{route.method} {route.path}" for route in routes()} == set(NEEDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder: Path = tmp_path_factory.mktemp("authorization")
    async with api_server.running(folder) as server:
        await _add_strangers(server)
        yield server


async def _add_strangers(server: Server) -> None:
    ended = await server.services.users.login("vera", PASSWORD, "127.0.0.1")
    server.tokens["revoked"] = ended.token
    await server.call("POST", "/config/user/logout", by="revoked")
    await server.call("POST", "/config/user/create", {"username": "gone", "password": PASSWORD})
    gone = await server.services.users.login("gone", PASSWORD, "127.0.0.1")
    server.tokens["gone user"] = gone.token
    await server.call("DELETE", "/config/user/delete", {"username": "gone"})
    server.tokens["broken"] = server.tokens["admin"][:-4] + "AAAA"
    claims = jwt.decode(server.tokens["admin"], options={"verify_signature": False})
    foreign = b"another key of thirty-two bytes!"
    server.tokens["foreign key"] = jwt.encode(claims, foreign, algorithm="HS256")
    key = server.services.users._tokens._key
    server.tokens["expired"] = jwt.encode(claims | {"exp": 1, "iat": 0}, key, algorithm="HS256")
    joined = await server.call("POST", "/config/clusters/c1/agent-token")
    server.tokens["agent token"] = joined.json["token"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", NEEDS)
async def test_strangers_are_refused(served: Server, route: str) -> None:
    for stranger in STRANGERS:
        answer = await _called(served, route, None if stranger == "nobody" else stranger)
        if NEEDS[route] == OPEN:
            assert answer[0] != 403, stranger
            assert answer[0] != 401 or route == "POST /config/user/login", stranger
        elif NEEDS[route] == AGENT and stranger == "agent token":
            assert answer == (400, "VALIDATION_ERROR"), (
                stranger
            )  # let in, to be told what is missing
        else:
            assert answer == (401, "AUTHENTICATION_FAILED"), stranger


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", [r for r in NEEDS if r != "POST /config/user/logout"])
async def test_roles_reach_as_far_as_they_should(served: Server, route: str, caller: str) -> None:
    status, code = await _called(served, route, caller)
    needed = NEEDS[route]
    if needed == AGENT:
        assert (status, code) == (401, "AUTHENTICATION_FAILED")
        return
    if needed == OPEN or RANK[CALLERS[caller]] >= RANK[needed]:
        assert status not in (401, 403), code
    else:
        assert (status, code) == (403, "PERMISSION_DENIED")


async def _called(server: Server, route: str, by: str | None) -> tuple[int, str]:
    """Call with parameters that name nothing, so that nothing is changed."""
    method, path = route.split(" ", 1)
    path = re.sub(r"{(\w+)}", "nothing", path)
    answer = await server.call(method, path, by=by)
    if method == "HEAD":
        code = {401: "AUTHENTICATION_FAILED", 403: "PERMISSION_DENIED"}.get(answer.status, "")
        return answer.status, code
    return answer.status, (answer.json or {}).get("code", "") if isinstance(
        answer.json, dict
    ) else ""
