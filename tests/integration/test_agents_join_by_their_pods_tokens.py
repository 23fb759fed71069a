"""Over the real link: a projected token lets its own node's agent in, and nobody else, each refusal with its reason."""

from __future__ import annotations

import base64
import dataclasses
import time
from pathlib import Path

import grpc
import jwt
import pytest

from tests.fakes import kube_server
from tests.fakes.api_process import ApiProcess, running, until
from tests.fakes.kube_server import KubeServer
from tests.fakes.node_agent import FakeAgent, Place

EXTRA = "authentication.kubernetes.io/node-name"


def _token(kube: KubeServer, node: str, account: str = "snap:snap-agent") -> str:
    claims = {"iss": "https://kubernetes.default.svc", "aud": ["snap-agent"], "kubernetes.io": {}}
    token = jwt.encode(claims | {"exp": time.time() + 600, "sub": node + account}, "k" * 32)
    kube.reviews[token] = {
        "authenticated": True,
        "audiences": ["snap-agent"],
        "user": {"username": f"system:serviceaccount:{account}", "extra": {EXTRA: [node]}},
    }
    return token


async def _set_up(api: ApiProcess, kube: KubeServer) -> Place:
    """A cluster that is reached by the fake API server; where its agents join."""
    content = base64.b64encode(kube.kubeconfig().encode()).decode()
    config = {"name": "dev", "kubeconfig_content": content}
    await api.call("POST", "/config/clusters/create", config)
    return await api.join_token()


async def _why(agent: FakeAgent) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with agent.join():
            pass
    return caught.value.details() or ""


async def test_a_node_joins_by_its_own_token_only(tmp_path: Path) -> None:
    async with (
        kube_server.running(tmp_path) as kube,
        running(tmp_path / "data") as api,
    ):
        place = await _set_up(api, kube)
        kube.put("/api/v1/nodes/node-1", status={"conditions": []})
        agent = FakeAgent(dataclasses.replace(place, token=_token(kube, "node-1")))
        async with agent.join():
            await agent.heartbeat()
            thief = dataclasses.replace(place, token=_token(kube, "node-2"))
            assert "of node node-2" in await _why(FakeAgent(thief))
            twin = FakeAgent(agent.place, key=agent.key)
            assert "live session" in await _why(twin)
            other = dataclasses.replace(place, token=_token(kube, "node-1", "snap:default"))
            assert "snap/default may not join" in await _why(FakeAgent(other))
            labels = "snap.weaversoft.io/ready"
            await until(
                lambda: labels in (kube.get("/api/v1/nodes/node-1")["metadata"].get("labels") or {})
            )
        figures = (await api.read("/metrics"))[2].decode()
        for reason in ("other_node", "second_session", "account"):
            assert f'snap_agent_joins_refused_total{{reason="{reason}"}} 1.0' in figures
        log = (tmp_path / "api.log").read_text()
        assert "ALARM" in log
        assert not any(token in log for token in kube.reviews)


async def test_a_rotated_token_is_enough_for_the_next_session(tmp_path: Path) -> None:
    async with (
        kube_server.running(tmp_path) as kube,
        running(tmp_path / "data") as api,
    ):
        place = await _set_up(api, kube)
        agent = FakeAgent(dataclasses.replace(place, token=_token(kube, "node-1")))
        async with agent.join():
            pass
        kube.reviews.clear()
        agent.place = dataclasses.replace(place, token=_token(kube, "node-1"))
        await until(lambda: _is_admitted(agent))


async def _is_admitted(agent: FakeAgent) -> bool:
    try:
        async with agent.join():
            return True
    except grpc.aio.AioRpcError:
        return False
