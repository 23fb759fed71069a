"""In a pod, the control plane knows its own cluster; what somebody set up under that name stays theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.clusters import own
from controlplane.clusters.configs import ClusterConfigs, ClusterDraft
from controlplane.store.database import open_store
from controlplane.store.secrets import open_sealer

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}


@pytest.fixture
async def configs(tmp_path: Path) -> AsyncIterator[ClusterConfigs]:
    (tmp_path / "token").write_text("t")
    store = open_store(tmp_path / "data")
    yield ClusterConfigs(store, open_sealer(tmp_path / "data", None))
    store.close()


async def test_it_is_set_up_once(configs: ClusterConfigs, tmp_path: Path) -> None:
    assert await own.register(configs, "home", POD, tmp_path)
    assert (await configs.get("home")).auth_type == "in_cluster"
    assert not await own.register(configs, "home", POD, tmp_path)


async def test_outside_of_a_pod_nothing_is(configs: ClusterConfigs, tmp_path: Path) -> None:
    assert not await own.register(configs, "home", {}, tmp_path)
    assert not await own.register(configs, "home", POD, tmp_path / "elsewhere")
    assert await configs.everything() == []


async def test_what_was_set_up_stays(configs: ClusterConfigs, tmp_path: Path) -> None:
    draft = ClusterDraft("home", api_server_url="https://api.example:6443", token="t")
    await configs.create(draft)
    assert not await own.register(configs, "home", POD, tmp_path)
    assert (await configs.get("home")).auth_type == "token"


async def test_one_that_can_not_be_reached_yet_is_completed(
    configs: ClusterConfigs, tmp_path: Path
) -> None:
    await configs.create(ClusterDraft("home"))
    assert await own.register(configs, "home", POD, tmp_path)
    assert (await configs.get("home")).auth_type == "in_cluster"
