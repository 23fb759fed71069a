"""The API server that the assertions of this folder are made on: here the fake one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.kube import client as kube
from controlplane.kube.client import KubeClient
from tests.fakes import kube_server
from tests.fakes.kube_server import KubeServer

SPACE = "snap-contract"


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[KubeServer]:
    """The fake API server."""
    async with kube_server.running(tmp_path) as server:
        yield server


@pytest.fixture
async def client(fake: KubeServer) -> AsyncIterator[KubeClient]:
    """Its client."""
    made = await kube.connect(fake.access())
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def space(fake: KubeServer) -> None:
    """A namespace of its own."""
    fake.put(f"/api/v1/namespaces/{SPACE}")


@pytest.fixture
def guarded(fake: KubeServer) -> str:
    """A pod that no budget lets go."""
    fake.put(f"/api/v1/namespaces/{SPACE}/pods/guarded", spec={"containers": []})
    fake.protected.add((SPACE, "guarded"))
    return "guarded"


@pytest.fixture
def pod_token(fake: KubeServer) -> tuple[str, str]:
    """A service account's token, and its audience."""
    fake.reviews["good"] = {
        "authenticated": True,
        "audiences": ["snap-agent"],
        "user": {"username": f"system:serviceaccount:{SPACE}:default"},
    }
    return "good", "snap-agent"
