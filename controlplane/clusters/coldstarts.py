"""Pods that started cold where nobody else can say why: their node has no agent, or their hook was never asked.

All other reasons are told by those who decide: the hook (an annotation on the pod) and the node's agent (an Event).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from controlplane.clusters.events import News, Subject
from controlplane.clusters.following import Followed
from controlplane.clusters.projections import node_of_pod
from controlplane.kube.client import KubeClient
from controlplane.kube.resources import Object, uid_of
from controlplane.kube.workloads import CHECKPOINT, NOT_RESTORED, SNAP, moment

NEWS: Final = timedelta(minutes=10)  # what is older was told, or is of no interest any more
AWAY_S: Final = 20.0  # an agent that lost its connection is back by then, and tells what it did
KNOWN: Final = timedelta(seconds=5)  # after which every API server asks a hook that is new
_STARTED: Final = frozenset({"running", "terminated"})


class Agents(Protocol):
    """The nodes by their agents (``link``)."""

    def is_connected(self, cluster: str, node: str) -> bool: ...

    def away_s(self, cluster: str, node: str) -> float:
        """Seconds since a node was heard of, at most since this process began."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What it works with.

    Attributes:
        asked_since: cluster, namespace → since when new pods there are brought before a hook; None: they are not.
        answered: of pods' UIDs, those whose nodes told how they were started.
        tell: has news written as Events.
    """

    agents: Agents
    asked_since: Callable[[str, str], datetime | None]
    answered: Callable[[Sequence[str]], Awaitable[frozenset[str]]]
    tell: Callable[..., None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(slots=True)
class ColdStartKeeper:
    """Tells each such pod once; pods that are too old, or were told, are not looked at again."""

    means: Means
    _done: dict[str, set[str]] = field(default_factory=dict)  # cluster → UIDs

    def __str__(self) -> str:
        return "reasons of cold starts"

    async def __call__(self, client: KubeClient, followed: Followed) -> None:  # noqa: ARG002 - it only looks
        """Look at the pods that are new."""
        done = self._done.setdefault(followed.cluster, set())
        pods = list(followed.pods.copies)
        done.intersection_update(uid_of(pod) for pod in pods)
        found = {}
        for pod in pods:
            if uid_of(pod) in done:
                continue
            if self._is_over(pod):
                done.add(uid_of(pod))
            elif news := self._reason(followed.cluster, pod):
                found[uid_of(pod)] = news
        if not found:
            return
        known = await self.means.answered(list(found))
        self.means.tell(*(news for uid, news in found.items() if uid not in known))
        done.update(found)

    def _is_over(self, pod: Object) -> bool:
        """Whether nothing is ever to be said about it here."""
        metadata = pod["metadata"]
        created = moment(metadata.get("creationTimestamp"))
        if created is None or self.means.now() - created > NEWS:
            return True
        annotations = metadata.get("annotations") or {}
        wants = (metadata.get("labels") or {}).get(SNAP) == "true"
        return CHECKPOINT not in annotations and (NOT_RESTORED in annotations or not wants)

    def _reason(self, cluster: str, pod: Object) -> News | None:
        """Why it started cold; None: it has not started, or there is no reason to think that it did."""
        metadata = pod["metadata"]
        if not any(one["state"] in _STARTED for one in pod["status"]["containers"]):
            return None
        node, namespace = node_of_pod(pod), str(metadata.get("namespace") or "")
        subject = Subject(cluster, "Pod", metadata["name"], namespace, uid_of(pod))
        if CHECKPOINT in (metadata.get("annotations") or {}):
            agents = self.means.agents
            if agents.is_connected(cluster, node) or agents.away_s(cluster, node) < AWAY_S:
                return None
            note = (
                f"It was to start from a checkpoint, but no agent of node {node} is connected: "
                "where none runs, containers start cold."
            )
            return News(subject, "AgentAway", note, "Restore", is_warning=True)
        since = self.means.asked_since(cluster, namespace)
        created = moment(metadata.get("creationTimestamp"))
        if since is None or created is None or created < since + KNOWN:
            return None
        note = (
            "It starts cold: when it was created no hook answered in time. The control plane was away, "
            "or the cluster does not reach it or trust its certificate."
        )
        return News(subject, "HookNotAsked", note, "Restore", is_warning=True)
