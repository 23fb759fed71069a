"""Who tells why a pod started cold when its node has no agent, or no hook was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from controlplane.clusters import coldstarts
from controlplane.clusters.coldstarts import ColdStartKeeper
from controlplane.clusters.events import News
from controlplane.clusters.following import Followed
from controlplane.kube.client import KubeClient
from controlplane.kube.copies import Copies

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
P = "snap.weaversoft.io/"
TO_RESTORE = {f"{P}checkpoint": "{}"}


@dataclass(slots=True)
class _World:
    """A cluster's pods, its agents, its hook since an hour, and what was told."""

    connected: bool = False
    away: float = 60.0
    since: datetime | None = NOW - timedelta(hours=1)
    answered: frozenset[str] = frozenset()
    told: list[News] = field(default_factory=list)
    copies: Copies = field(default_factory=Copies)

    def is_connected(self, cluster: str, node: str) -> bool:
        return self.connected

    def away_s(self, cluster: str, node: str) -> float:
        return self.away

    def pod(self, annotations: dict[str, str], *, age_s: float = 20, **more: Any) -> None:
        created = (NOW - timedelta(seconds=age_s)).isoformat()
        metadata = {
            "name": "web",
            "namespace": "shop",
            "uid": "u1",
            "creationTimestamp": created,
            "annotations": annotations,
            "labels": more.get("labels", {f"{P}snap": "true"}),
        }
        containers = [{"name": "main", "state": more.get("state", "running")}]
        spec, status = {"nodeName": "n1"}, {"containers": containers}
        self.copies.put({"metadata": metadata, "spec": spec, "status": status})

    async def look(self, times: int = 1) -> list[str]:
        async def answered(uids: Sequence[str]) -> frozenset[str]:
            return self.answered & frozenset(uids)

        def asked_since(cluster: str, namespace: str) -> datetime | None:
            return self.since if (cluster, namespace) == ("c", "shop") else None

        means = coldstarts.Means(
            self, asked_since, answered, lambda *news: self.told.extend(news), lambda: NOW
        )
        keeper = ColdStartKeeper(means)
        followed = cast("Followed", _Followed("c", _Informer(self.copies)))
        for _ in range(times):
            await keeper(cast("KubeClient", None), followed)
        return [news.reason for news in self.told]


@dataclass(frozen=True, slots=True)
class _Informer:
    copies: Copies


@dataclass(frozen=True, slots=True)
class _Followed:
    cluster: str
    pods: _Informer


async def test_a_pod_that_no_agent_restores_is_told_once() -> None:
    world = _World()
    world.pod(TO_RESTORE)
    assert await world.look(times=3) == ["AgentAway"]
    (news,) = world.told
    assert (news.subject.kind, news.subject.uid) == ("Pod", "u1")
    assert "node n1" in news.note


async def test_a_pod_that_no_hook_was_asked_about_is_told_once() -> None:
    world = _World(connected=True)
    world.pod({})
    assert await world.look(times=3) == ["HookNotAsked"]


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(_World(connected=True), id="its agent is there"),
        pytest.param(_World(away=16.0), id="its agent may be back in a moment"),
        pytest.param(_World(answered=frozenset({"u1"})), id="its agent told already"),
    ],
)
async def test_an_agent_tells_by_itself(world: _World) -> None:
    world.pod(TO_RESTORE)
    assert await world.look() == []


@pytest.mark.parametrize(
    ("world", "annotations", "more"),
    [
        pytest.param(_World(), {f"{P}not-restored": "why"}, {}, id="the hook told"),
        pytest.param(_World(), {}, {"labels": {}}, id="not asked for"),
        pytest.param(_World(), {}, {"state": "waiting"}, id="not started"),
        pytest.param(_World(), {}, {"age_s": 700.0}, id="old"),
        pytest.param(_World(since=None), {}, {}, id="no hook"),
        pytest.param(_World(since=NOW - timedelta(seconds=22)), {}, {}, id="a hook since then"),
        pytest.param(_World(), TO_RESTORE, {"state": "waiting"}, id="to be restored yet"),
    ],
)
async def test_there_is_nothing_to_tell(
    world: _World, annotations: dict[str, str], more: dict[str, Any]
) -> None:
    world.pod(annotations, **more)
    assert await world.look() == []
