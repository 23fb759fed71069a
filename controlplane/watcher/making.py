"""From decisions about a pod to the job that makes its checkpoints; of which workload they are is kept with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlite_utils import Database

from controlplane.identity import Actor, Role
from controlplane.kube.asking import asks, container_of
from controlplane.kube.workloads import ContainerSeen, PodSeen
from controlplane.store import watchers as rows
from controlplane.store import workloads
from controlplane.store.watchers import WatcherRow
from controlplane.store.workloads import WorkloadRow
from controlplane.watcher.deciding import Decision
from controlplane.watcher.ports import Making, Means

ALL: Final = "*"


@dataclass(frozen=True, slots=True)
class Order:
    """Checkpoint these containers of a pod.

    Attributes:
        pod, found: the pod as it was decided about, and as the API server has it.
        decisions: by container.
    """

    pod: PodSeen
    found: Mapping[str, Any]
    decisions: Mapping[str, Decision]

    @property
    def containers(self) -> tuple[ContainerSeen, ...]:
        """The containers."""
        return tuple(c for c in self.pod.containers if c.name in self.decisions)


async def carry_out(order: Order, watcher: WatcherRow, means: Means) -> None:
    """Start the job, and keep what was decided with its id.

    Raises:
        SnapError: it was not started; nothing was kept.
    """
    pod = order.pod
    names = [container.name for container in order.containers]
    together = len(names) > 1 and len(names) == len(pod.containers)
    for name in [ALL] if together else names:
        wanted = Making(watcher.cluster, pod.namespace, pod.name, pod.node, name)
        job = await means.checkpoints.make(wanted, actor(watcher))
        made = await means.checkpoints.of_job(job.id)
        kept = [
            row_of(
                watcher.cluster, pod, order.found, (one.id, one.container_name, d.moment), means.key
            )
            for one in made
            if (d := order.decisions.get(one.container_name)) is not None
        ]
        told = [
            record(watcher, pod, one.container_name, order.decisions[one.container_name], job.id)
            for one in made
            if one.container_name in order.decisions
        ]
        await means.store.write(lambda db, k=kept, t=told: _keep(db, k, t))  # type: ignore[misc]


def row_of(
    cluster: str,
    pod: PodSeen,
    found: Mapping[str, Any],
    checkpoint: tuple[str, str, str],
    key: bytes,
) -> WorkloadRow:
    """Of which workload a checkpoint (id, container, moment) of ``pod`` is."""
    checkpoint_id, name, moment = checkpoint
    container = next(c for c in pod.containers if c.name == name)
    spec = found.get("spec") or {}
    wants = asks(spec, container_of(spec, name), key)
    return WorkloadRow(checkpoint_id, pod.workload(cluster, container), moment, wants)


def actor(watcher: WatcherRow) -> Actor:
    """In whose name a watcher acts: its owner's, where it was set to look."""
    namespaces = (watcher.namespace,) if watcher.scope == "namespace" else ()
    return Actor(watcher.owner, Role.OPERATOR, namespaces, initiator="SnapWatcher", broadcast=True)


def record(
    watcher: WatcherRow, pod: PodSeen, container: str, decision: Decision, job_id: str = ""
) -> rows.Decision:
    """A decision as it is kept."""
    return told(watcher, pod, container, (decision.action, decision.reason), job_id)


def told(
    watcher: WatcherRow, pod: PodSeen, container: str, what: tuple[str, str], job_id: str = ""
) -> rows.Decision:
    """What was done, and why, as it is kept."""
    place = (pod.namespace, pod.name, container)
    return rows.Decision(0, watcher.name, "", *place, str(what[0]), what[1], job_id)


def _keep(db: Database, made: Iterable[WorkloadRow], decisions: Iterable[rows.Decision]) -> None:
    for row in made:
        workloads.put(db, row)
    for decision in decisions:
        rows.record(db, decision)
