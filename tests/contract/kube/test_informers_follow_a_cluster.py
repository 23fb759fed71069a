"""An informer's copy is what the cluster has, through every failure of its API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controlplane.kube.client import KubeClient
from controlplane.kube.informer import Change, Informer, Pace, Wanted
from controlplane.kube.resources import PODS, Object, name_of
from tests.fakes.jobs import until
from tests.fakes.kube_server import Fault, KubeServer

QUICK = Pace(watch_s=30, first_s=0.01, most_s=0.05)


def _node_of(pod: Object) -> str:
    return str(pod["spec"].get("nodeName") or "")


@asynccontextmanager
async def _following(
    client: KubeClient, pace: Pace = QUICK, **wanted: str
) -> AsyncIterator[tuple[Informer, list[Change]]]:
    changes: list[Change] = []

    async def connect() -> KubeClient:
        return client

    asked = Wanted(PODS.path(), wanted, indexes={"node": _node_of})
    informer = Informer(connect, asked, changes.append, pace)
    task = asyncio.create_task(informer.run())
    try:
        yield informer, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not informer.is_alive


def _pod(server: KubeServer, name: str, node: str = "n1") -> None:
    server.put(f"/api/v1/namespaces/a/pods/{name}", spec={"nodeName": node, "containers": []})


def _told(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind, name_of(change.object)) for change in changes]


async def test_each_change_is_told_once(client: KubeClient, fake: KubeServer) -> None:
    _pod(fake, "one")
    async with _following(client) as (informer, changes):
        await until(lambda: informer.is_alive)
        _pod(fake, "two", "n2")
        fake.put("/api/v1/namespaces/a/pods/one", metadata={"labels": {"x": "y"}})
        fake.delete("/api/v1/namespaces/a/pods/two")
        await until(lambda: len(changes) == 4)
        assert _told(changes) == [
            ("ADDED", "one"),
            ("ADDED", "two"),
            ("MODIFIED", "one"),
            ("DELETED", "two"),
        ]
        assert changes[2].before is not None
        assert informer.copies.by("node", "n1") == [informer.copies.get("a", "one")]
        assert informer.copies.counts("namespace") == {"a": 1}
        assert informer.copies.by("node", "n2") == []
        assert "managedFields" not in changes[0].object["metadata"]


async def test_a_broken_watch_is_taken_up_without_a_new_list(
    client: KubeClient, fake: KubeServer
) -> None:
    async with _following(client) as (informer, changes):
        await until(lambda: fake.watches)
        fake.drop_watches()
        _pod(fake, "meanwhile")
        await until(lambda: changes)
        assert _told(changes) == [("ADDED", "meanwhile")]
        await until(lambda: informer.is_alive)
        assert informer.last_error == ""
        assert informer.failing_since is None


async def test_a_forgotten_place_begins_with_a_list(client: KubeClient, fake: KubeServer) -> None:
    for name in ("stays", "goes", "changes"):
        _pod(fake, name)
    async with _following(client) as (_, changes):
        await until(lambda: fake.watches)
        fake.fail(Fault(503, times=1))
        fake.drop_watches()
        fake.delete("/api/v1/namespaces/a/pods/goes")
        fake.put("/api/v1/namespaces/a/pods/changes", metadata={"labels": {"x": "y"}})
        fake.objects.forget()
        await until(lambda: len(changes) == 5)
        assert sorted(_told(changes)[3:]) == [("DELETED", "goes"), ("MODIFIED", "changes")]


@pytest.mark.parametrize("status", [403, 429, 500])
async def test_it_says_why_it_does_not_follow(
    client: KubeClient, fake: KubeServer, status: int
) -> None:
    fault = Fault(status, times=1_000_000)
    fake.fail(fault)
    async with _following(client) as (informer, changes):
        await until(lambda: informer.last_error)
        assert str(status) in informer.last_error
        assert informer.failing_since is not None
        assert not informer.is_alive
        assert not informer.is_synced
        fake.faults.clear()
        _pod(fake, "late")
        await until(lambda: changes and informer.is_alive)
        assert informer.last_error == ""


async def test_a_watch_that_ends_at_once_is_no_busy_loop(
    client: KubeClient, fake: KubeServer
) -> None:
    pace = Pace(watch_s=30, first_s=5, most_s=5, short_s=2)
    fake.put("/api/v1/namespaces/a/pods/one", spec={"containers": []})
    async with _following(client, pace) as (informer, _):
        await until(lambda: fake.watches)
        fake.drop_watches()
        await until(lambda: not informer.is_alive)
        assert fake.asked["GET /api/v1/pods"] <= 3


async def test_a_selector_decides_what_is_seen(client: KubeClient, fake: KubeServer) -> None:
    async with _following(client, labelSelector="snap=yes") as (informer, changes):
        await until(lambda: informer.is_alive)
        _pod(fake, "other")
        _pod(fake, "ours")
        fake.put("/api/v1/namespaces/a/pods/ours", metadata={"labels": {"snap": "yes"}})
        await until(lambda: changes)
        assert _told(changes) == [("ADDED", "ours")]
        fake.put("/api/v1/namespaces/a/pods/ours", metadata={"labels": {"snap": "no"}})
        await until(lambda: len(changes) == 2)
        assert _told(changes)[1:] == [("DELETED", "ours")]


async def test_changes_come_as_fast_as_they_are_made(client: KubeClient, fake: KubeServer) -> None:
    async with _following(client) as (informer, changes):
        await until(lambda: informer.is_alive)
        for number in range(2000):
            _pod(fake, f"pod-{number}", f"n{number % 7}")
        await until(lambda: len(changes) == 2000)
        assert len(informer.copies) == 2000
        assert sum(informer.copies.counts("node").values()) == 2000
