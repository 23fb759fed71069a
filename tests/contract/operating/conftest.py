"""The API with a cluster that has an API server (the fake one), and the nodes of ``FakeFleet``."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.checkpoints.ports import FoundContainer, FoundPod
from controlplane.clusters.configs import ClusterDraft
from controlplane.settings import Address
from deploy.devnode.ports import free_port
from tests.fakes import api_server, kube_server
from tests.fakes.api_server import Server
from tests.fakes.kube_server import KubeServer
from tests.fakes.pods import DIGEST, node, running_pod

WAIT_S = 60.0


@dataclass
class Place:
    """A control plane and a cluster."""

    server: Server
    kube: KubeServer

    def add_pod(self, name: str, **changes: Any) -> dict[str, Any]:
        """A pod of ``web`` in the cluster and on the node."""
        pod = running_pod(name, **changes)
        self.put_pod(pod)
        return pod

    def put_pod(self, pod: dict[str, Any]) -> None:
        """A pod in the cluster and on the node."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self.kube.put(path, **pod)
        made = self.kube.put(f"{path}/status", status=pod["status"])
        uid = metadata["uid"] = made["metadata"]["uid"]
        found = tuple(
            FoundContainer(c["name"], f"{uid}-{c['name']}", "running", f"web@{DIGEST}")
            for c in pod["spec"]["containers"]
        )
        key = (metadata["namespace"], metadata["name"])
        labels = metadata["labels"]
        self.server.fleet.more[key] = FoundPod("node-1", uid, found, labels)

    def pod(self, name: str) -> dict[str, Any] | None:
        """A pod as the cluster has it."""
        return self.kube.find(f"/api/v1/namespaces/apps/pods/{name}")

    async def watch(self, **draft: Any) -> None:
        """Make a watcher that really watches."""
        body = {"name": "w", "cluster_name": "c1", "auto_delete_pod": False} | draft
        answer = await self.server.call("POST", "/operator/snapwatcher", body)
        assert (answer.status, answer.json["status"]) == (200, "running"), answer.json

    async def decisions(self, watcher: str = "w") -> list[dict[str, Any]]:
        """What a watcher decided, oldest first."""
        answer = await self.server.call("GET", f"/operator/snapwatcher/{watcher}/decisions")
        found: list[dict[str, Any]] = answer.json["decisions"]
        return found[::-1]

    async def decided(self, decision: str, words: str = "", pod: str = "") -> dict[str, Any]:
        """Wait for a decision like this; it."""
        end = time.monotonic() + WAIT_S
        while True:
            found = await self.decisions()
            for one in found:
                like = one["decision"] == decision and words in one["reason"]
                if like and pod in ("", one["pod_name"]):
                    return one
            told = [(d["pod_name"], d["decision"], d["reason"]) for d in found]
            assert time.monotonic() < end, f"no {decision} ({words}) of {pod or 'any'} in {told}"
            await asyncio.sleep(0.02)

    async def checkpoints(self) -> list[dict[str, Any]]:
        """What ``GET /checkpoint/list`` shows."""
        answer = await self.server.call("GET", "/checkpoint/list")
        found: list[dict[str, Any]] = answer.json["checkpoints"]
        return found

    async def hook(self, name: str = "h", **draft: Any) -> dict[str, Any]:
        """Make a hook and start it."""
        body = {"name": name, "cluster_name": "c1"} | draft
        assert (await self.server.call("POST", "/snaphook", body)).status == 200
        answer = await self.server.call("POST", f"/snaphook/{name}/start")
        assert answer.status == 200, answer.json
        found: dict[str, Any] = answer.json
        return found

    def webhook(self, name: str = "snap-h") -> dict[str, Any] | None:
        """What the cluster was told of a hook."""
        return self.kube.find(f"{WEBHOOKS}/{name}")

    async def admit(self, review: dict[str, Any], name: str = "snap-h") -> dict[str, Any]:
        """Ask a hook as its API server does: by what the cluster was told, and nothing else."""
        config = self.webhook(name)
        assert config is not None
        client = config["webhooks"][0]["clientConfig"]
        trusted = base64.b64decode(client["caBundle"]).decode()
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=trusted))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(client["url"], json=review) as answer,
        ):
            assert answer.status == 200
            found: dict[str, Any] = (await answer.json())["response"]
            return found


WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@asynccontextmanager
async def opened(folder: Path, kube: KubeServer, **settings: Any) -> AsyncIterator[Place]:
    """A control plane over ``folder`` for the cluster; a second one goes on there."""
    given = {"hook_addr": Address("127.0.0.1", free_port())} | settings
    async with api_server.running(folder, **given) as server:
        content = base64.b64encode(kube.kubeconfig().encode()).decode()
        draft = ClusterDraft(
            "c1",
            api_server_url=kube.url,
            auth_type="kubeconfig",
            kubeconfig_content=content,
            registry_name="r1",
        )
        await server.services.clusters.update(draft)
        tasks = [
            asyncio.create_task(server.services.watchers.run(), name="watchers"),
            asyncio.create_task(server.services.hooks.run(), name="hooks"),
        ]
        try:
            yield Place(server, kube)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeServer]:
    """A cluster with two prepared nodes and the RuntimeClass."""
    async with kube_server.running(tmp_path) as made:
        for name in ("node-1", "node-2"):
            made.put(f"/api/v1/nodes/{name}", **node(name))
        made.put("/apis/node.k8s.io/v1/runtimeclasses/snap", handler="snap")
        yield made


@pytest.fixture
async def place(tmp_path: Path, kube: KubeServer) -> AsyncIterator[Place]:
    """A control plane for the cluster."""
    async with opened(tmp_path, kube) as made:
        yield made
