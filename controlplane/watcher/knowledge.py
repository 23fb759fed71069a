"""What the store knows of pods that are decided about, read for many of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlite_utils import Database

from controlplane.kube.workloads import PodSeen, moment
from controlplane.store import starts, workloads
from controlplane.store.records import CheckpointStatus
from controlplane.store.workloads import Tried
from controlplane.watcher.deciding import Attempt, Situation
from controlplane.workload import Workload

Place = tuple[str, str]
"""UID of a pod and name of a container."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a pod.

    Attributes:
        situations: by container; ``cordoned`` is not known here.
        unclaimed: (id, container) of its checkpoints whose workload is not stored.
    """

    situations: dict[str, Situation]
    unclaimed: tuple[tuple[str, str], ...] = ()


def read(db: Database, cluster: str, pods: Iterable[PodSeen]) -> dict[str, Known]:
    """What is known of each pod, by its UID."""
    attempts: dict[Workload, tuple[Attempt, ...]] = {}
    reasons: dict[Workload, str] = {}
    found: dict[str, Known] = {}
    for pod in pods:
        started = workloads.started_by(db, pod.uid)
        situations = {}
        for container in pod.containers:
            workload = pod.workload(cluster, container)
            if workload not in attempts:
                attempts[workload] = tuple(map(_attempt, workloads.tried(db, workload)))
                reasons[workload] = starts.of(db, workload).not_worth_it
            situations[container.name] = Situation(
                attempts[workload], started.get(container.name, ""), reasons[workload]
            )
        unclaimed = workloads.without_workload(db, cluster, pod.name, pod.uid)
        found[pod.uid] = Known(situations, tuple(unclaimed))
    return found


def _attempt(tried: Tried) -> Attempt:
    return Attempt(
        checkpoint_id=tried.checkpoint_id,
        status=CheckpointStatus(tried.status),
        has_image=tried.has_image,
        moment=tried.moment,
        ended_at=moment(tried.ended_at),
        error=tried.error,
        condemned=tried.condemned,
        pod_uid=tried.pod_uid,
    )
