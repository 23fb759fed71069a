"""How long pods took until they were ready, whether they were restored, and whether restoring is worth it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.kube.workloads import read_pod
from controlplane.store import starts
from controlplane.store.database import open_store
from controlplane.store.starts import KEPT, StartTimes
from controlplane.watcher.measuring import start_ms, was_restored
from controlplane.workload import Workload
from tests.fakes.pods import NOW, running_pod

OF = Workload("c1", "apps", "Deployment", "web", "main", "hash", "sha256:1")
MUTATED = {"snap.weaversoft.io/mutated": "true"}


def test_a_start_lasts_from_creation_until_ready() -> None:
    # made two minutes ago, ready for one
    assert start_ms(read_pod(running_pod(ready_s=60.0)), NOW) == 60_000.0


@pytest.mark.parametrize("case", ["not ready", "ready for long", "restarted"])
def test_what_may_not_be_the_first_readiness_does_not_count(case: str) -> None:
    pod = running_pod(ready_s=None if case == "not ready" else 60.0)
    if case == "restarted":
        pod["status"]["containerStatuses"][0]["restartCount"] = 1
    later = NOW + timedelta(hours=1) if case == "ready for long" else NOW
    assert start_ms(read_pod(pod), later) is None


@pytest.mark.parametrize(
    ("labels", "told", "restored"),
    [
        ({}, "", False),
        (MUTATED, "", None),
        (MUTATED, "restored", True),
        (MUTATED, "cold", False),
        (MUTATED, "failed", False),
    ],
    ids=["no hook", "not told yet", "restored", "cold", "failed"],
)
def test_only_the_node_knows_whether_a_pod_was_restored(
    labels: dict[str, str], told: str, restored: bool | None
) -> None:
    pod = read_pod(running_pod(labels=labels))
    assert was_restored(pod, pod.containers[0], told) is restored


@pytest.mark.parametrize(
    ("cold", "restored", "is_worth_it"),
    [
        ((), (9.0, 9.0, 9.0), True),
        ((5.0,), (9.0, 9.0), True),
        ((5.0,), (9.0, 9.0, 9.0), False),
        ((5.0,), (9.0, 4.0, 9.0), True),
        ((5.0,), (4.0, 9.0, 9.0, 9.0), True),
        ((5.0, 20.0, 30.0), (9.0, 9.0, 9.0), True),
    ],
    ids=["no cold", "twice", "three times", "one faster", "faster now", "median"],
)
def test_three_slower_restores_in_a_row_are_not_worth_it(
    cold: tuple[float, ...], restored: tuple[float, ...], is_worth_it: bool
) -> None:
    assert (StartTimes(cold, restored).not_worth_it == "") is is_worth_it


async def test_the_latest_starts_of_a_workload_are_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)

    def fill(db: Any) -> None:
        for number in range(KEPT + 5):
            starts.put(db, OF, f"uid-{number}", 1000.0 + number, restored=False)
        starts.put(db, OF, f"uid-{KEPT + 4}", 5.0, restored=True)  # a pod counts once
        starts.put(db, OF, "uid-r", 7.0, restored=True)

    try:
        await store.write(fill)
        found = await store.read(lambda db: starts.of(db, OF))
        assert found.cold == tuple(1000.0 + n for n in reversed(range(5, KEPT + 5)))
        assert found.restored == (7.0,)
        assert await store.read(lambda db: starts.is_known(db, "c1", "uid-r", "main"))
    finally:
        store.close()
