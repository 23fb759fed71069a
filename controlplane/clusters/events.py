"""Events on pods and nodes, for those who look with ``kubectl get events``: never in anybody's way.

What is told is queued and written by a task of its own; equal news within ten minutes are one event with a count; an
object gets a few a minute at most; what can't be written is dropped and counted.

Source: kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1 (events.k8s.io).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from controlplane.errors import NotFound, SnapError
from controlplane.kube.client import KubeClient
from controlplane.kube.resources import EVENTS, Object

CONTROLLER: Final = "snap.weaversoft.io/control-plane"
SAME_S: Final = 600.0  # as Kubernetes' own recorder: after that it is another event
PER_OBJECT: Final = 10  # a minute
_MINUTE_S: Final = 60.0
_WAITING: Final = 1000
_REMEMBERED: Final = 4096
_WRITE_S: Final = 5.0
_NOTE_CHARS: Final = 1000  # the API takes 1 KiB
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about: a Pod, or a Node (in no namespace)."""

    cluster: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """What happened.

    Attributes:
        reason: one word in CamelCase.
        note: a sentence.
        action: what was done or tried.
    """

    subject: Subject
    reason: str
    note: str
    action: str
    is_warning: bool = False


class Clusters(Protocol):
    """The clusters' API servers (``reaching.ClusterApis``)."""

    async def reachable(self) -> list[str]: ...

    async def client(self, cluster: str) -> KubeClient: ...


@dataclass(slots=True)
class _Written:
    """An event that is there already."""

    name: str
    since: float
    count: int = 1


class EventRecorder:
    """Takes news and writes them as events while ``run`` runs.

    Args:
        rising: seconds that never jump.

    Attributes:
        dropped: how many news were not written, because of too many or of an API server that refuses.
    """

    def __init__(self, clusters: Clusters, rising: Callable[[], float] = time.monotonic) -> None:
        self._clusters = clusters
        self._rising = rising
        self._waiting: asyncio.Queue[News] = asyncio.Queue(_WAITING)
        self._written: OrderedDict[News, _Written] = OrderedDict()
        self._spent: OrderedDict[Subject, list[float]] = OrderedDict()
        self._said: dict[str, str] = {}
        self.dropped = 0

    def tell(self, *news: News) -> None:
        """Have news written soon; returns at once."""
        for one in news:
            if self._is_too_much(one.subject):
                self.dropped += 1
                continue
            try:
                self._waiting.put_nowait(one)
            except asyncio.QueueFull:
                self.dropped += 1

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            news = await self._waiting.get()
            try:
                await self._write(news)
            except SnapError as failure:
                self.dropped += 1
                words = failure.details or failure.message
                if self._said.get(news.subject.cluster) != words:
                    _log.warning("events of cluster %s: %s", news.subject.cluster, words)
                self._said[news.subject.cluster] = words
            finally:
                self._waiting.task_done()

    async def settle(self) -> None:
        """Return when all that was told is written, or dropped."""
        await self._waiting.join()

    async def _write(self, news: News) -> None:
        subject = news.subject
        if subject.cluster not in await self._clusters.reachable():
            return
        client = await self._clusters.client(subject.cluster)
        namespace = subject.namespace or "default"
        written = self._written.get(news)
        if written is not None and self._rising() < written.since + SAME_S:
            series = {"count": written.count + 1, "lastObservedTime": _now()}
            path = EVENTS.path(namespace, written.name)
            try:
                await client.patch(path, {"series": series}, timeout_s=_WRITE_S)
            except NotFound:  # it has expired there
                self._written.pop(news, None)
            else:
                written.count += 1
                return
        made = await client.create(
            EVENTS.path(namespace), _event(news, namespace), timeout_s=_WRITE_S
        )
        self._written[news] = _Written(made["metadata"]["name"], self._rising())
        self._written.move_to_end(news)
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    def _is_too_much(self, subject: Subject) -> bool:
        """Whether an object has had its share of the last minute."""
        now = self._rising()
        spent = [at for at in self._spent.pop(subject, ()) if at > now - _MINUTE_S]
        too_much = len(spent) >= PER_OBJECT
        self._spent[subject] = spent if too_much else [*spent, now]
        while len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)
        return too_much


def _event(news: News, namespace: str) -> Object:
    subject = news.subject
    regarding = {
        "apiVersion": "v1",
        "kind": subject.kind,
        "name": subject.name,
        "namespace": subject.namespace,
        # of a node, the kubelet's own events have the name in its place: kubectl describe goes by that
        "uid": subject.uid or (subject.name if subject.kind == "Node" else ""),
    }
    return {
        "apiVersion": EVENTS.api,
        "kind": "Event",
        "metadata": {"generateName": f"{subject.name[:200]}-snap-", "namespace": namespace},
        "eventTime": _now(),
        "reportingController": CONTROLLER,
        "reportingInstance": socket.gethostname()[:128] or "snap",
        "action": news.action,
        "reason": news.reason,
        "regarding": {name: value for name, value in regarding.items() if value},
        "note": news.note[:_NOTE_CHARS],
        "type": "Warning" if news.is_warning else "Normal",
    }


def _now() -> str:
    """Microseconds, as MicroTime has them."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
