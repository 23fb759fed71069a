"""Deleting a pod that was checkpointed, so that its successor starts from the checkpoint; or why it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

from controlplane.errors import Conflict, NotFound, Retryable, SnapError
from controlplane.kube.workloads import DELETE_LAST, PodSeen, read_pod
from controlplane.watcher.ports import Means

NEWS: Final = timedelta(minutes=10)  # a checkpoint that is older was dealt with before a restart
OFFERED_LOOKS: Final = 25  # until hooks know of a new checkpoint
SEEN_LOOKS: Final = 50  # until the watch tells of an eviction
_LOOK_S: Final = 0.2
# what makes another pod for any that is gone; to a Job, for one, a deleted pod has failed
REMAKING: Final = frozenset(
    {"Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet"}
)
TRIES: Final = 10  # of an eviction that a disruption budget forbids
AGAIN_S: Final = 10.0


class Pods(Protocol):
    """The pods as they are now (``kube.copies``)."""

    def get(self, namespace: str, name: str) -> dict[str, Any] | None: ...

    def by(self, index: str, value: str) -> list[dict[str, Any]]: ...


def reason_to_keep(pod: PodSeen | None, uid: str, others: Iterable[PodSeen], uncovered: str) -> str:
    """Why the pod stays; empty: it may be deleted.

    Args:
        pod: as it is now; None: it is gone.
        uid: of the pod that was checkpointed.
        others: pods of its namespace.
        uncovered: why a new pod like it would not start from a checkpoint; empty: it would.
    """
    if pod is None or pod.uid != uid:
        return "it is gone already"
    if pod.gone_at is not None:
        return "it is being deleted already"
    if not pod.is_controlled:
        return "it has no controller that would make another one"
    if pod.owner_kind not in REMAKING:
        return f"its controller, a {pod.owner_kind}, may not make another one"
    if uncovered:
        return f"its successor would not start from the checkpoint: {uncovered}"
    if pod.annotations.get(DELETE_LAST) == "true":
        return ""
    owner = (pod.owner_kind, pod.owner_name)
    if not any(_is_ready_beside(pod, other, owner) for other in others):
        return "it is the last ready replica of its workload"
    return ""


async def replace(pod: PodSeen, cluster: str, pods: Pods, means: Means) -> str:
    """Evict a pod as far as its disruption budget allows; why it was kept, empty if it was not."""
    uncovered = await _uncovered(pods.get(pod.namespace, pod.name) or {}, cluster, means)
    reason = ""
    for tries_left in reversed(range(TRIES)):
        try:
            async with means.evicting:
                return await _evicted(pod, cluster, uncovered, pods, means)
        except Retryable as failure:
            # a budget is kept by an API server that is reached well
            reason = (failure.details or failure.message).removeprefix("unreachable: ")
            if tries_left:
                await asyncio.sleep(max(failure.after_s, AGAIN_S))
        except (NotFound, Conflict):
            return "it is gone already"
        except SnapError as failure:
            return failure.details or failure.message
    return reason


async def _evicted(pod: PodSeen, cluster: str, uncovered: str, pods: Pods, means: Means) -> str:
    """Evict a pod unless it has to stay, and wait until that is seen; why it stays, or empty.

    Raises:
        SnapError: the cluster did not let it go.
    """
    current = _current(pod, pods)
    others = [read_pod(other) for other in pods.by("namespace", pod.namespace)]
    if reason := reason_to_keep(current, pod.uid, others, uncovered):
        return reason
    client = await means.clusters.client(cluster)
    await client.evict(pod.namespace, pod.name, uid=pod.uid)
    for _ in range(SEEN_LOOKS):  # or the next one would still count it as a ready replica
        current = _current(pod, pods)
        if current is None or current.uid != pod.uid or current.gone_at is not None:
            break
        await asyncio.sleep(_LOOK_S)
    return ""


def _current(pod: PodSeen, pods: Pods) -> PodSeen | None:
    found = pods.get(pod.namespace, pod.name)
    return None if found is None else read_pod(found)


async def _uncovered(pod: Mapping[str, Any], cluster: str, means: Means) -> str:
    """Why no hook would give the pod's successor the checkpoint, once they can know of it."""
    for _ in range(OFFERED_LOOKS):
        if not (reason := means.hooks.covering(cluster, pod)):
            break
        await asyncio.sleep(_LOOK_S)
    return reason


def _is_ready_beside(pod: PodSeen, other: PodSeen, owner: tuple[str, str]) -> bool:
    return (
        other.uid != pod.uid
        and (other.owner_kind, other.owner_name) == owner
        and other.ready_since is not None
        and other.gone_at is None
    )
