"""One watcher at work: follows its pods, decides about each whenever something changes, and acts."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlite_utils import Database

from controlplane.errors import CLUSTER_CONNECTION_FAILED, Failed, Retryable, SnapError
from controlplane.kube.client import KubeClient
from controlplane.kube.copies import Key, key_of
from controlplane.kube.informer import Change, Informer, Wanted
from controlplane.kube.resources import NODES, PODS, Object, trimmed, uid_of
from controlplane.kube.workloads import SNAP, ContainerSeen, PodSeen, moment, read_pod
from controlplane.store import starts, workloads
from controlplane.store import watchers as rows
from controlplane.store.watchers import WatcherRow
from controlplane.store.workloads import WorkloadRow
from controlplane.watcher import knowledge, making, measuring, replacing
from controlplane.watcher.deciding import Action, Decision, Scope, Situation, decide
from controlplane.watcher.knowledge import Known
from controlplane.watcher.making import Order
from controlplane.watcher.ports import Means
from controlplane.watcher.triggers import Setting

SYNC_S: Final = 15.0
LOOK_S: Final = (
    0.5  # between looks at pods that changed; what is new in the store is looked at at once
)
DRAIN_LOOK_S: Final = 0.1  # a pod that is drained may be gone soon
_REST: Final = 4  # times as long as it decided it rests, where much is new all the time
_SOON_S: Final = 0.02
AT_ONCE: Final = 200  # pods that are decided about together
LATER_S: Final = 15.0  # after a job that could not be started, at least
ONE_OF_ALL: Final = frozenset(
    {"startupProbe", "ready", "running"}
)  # triggers for which one is enough
_TABLES: Final = ("checkpoints", "images", "workloads", "restores", "starts")
_BEGUN: Final = "a checkpoint of this workload is being begun"
_log = logging.getLogger(__name__)


class Watch:
    """A watcher's watch, from ``start`` until ``stop``."""

    def __init__(self, watcher: WatcherRow, means: Means) -> None:
        self._watcher = watcher
        self._means = means
        since = moment(watcher.started_at) or means.now()
        namespace = watcher.namespace if watcher.scope == "namespace" else ""
        setting = Setting(watcher.trigger, watcher.delay_s, watcher.schedule, since)
        self._scope = Scope(setting, namespace)
        labelled = {"labelSelector": SNAP}
        self._pods = Informer(
            self._client, Wanted(PODS.path(namespace), labelled), self._pod_changed
        )
        self._nodes = Informer(
            self._client, Wanted(NODES.path(), keep=_of_node), self._node_changed
        )
        self._dirty: dict[Key, None] = {}
        self._timers: list[tuple[datetime, Key]] = []
        self._told: dict[tuple[str, str], tuple[str, str]] = {}  # (uid, container) → last decision
        self._later: dict[tuple[str, str], tuple[float, str]] = {}  # … → not before, and why
        self._measured: set[tuple[str, str]] = set()
        self._replacing: set[str] = set()  # UIDs
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def is_started(self) -> bool:
        """Whether it is at work, though its cluster may be away just now."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def is_alive(self) -> bool:
        """Whether the cluster is really watched now."""
        return self.is_started and all(informer.is_alive for informer in self._informers())

    @property
    def failure(self) -> tuple[str, float] | None:
        """Why the cluster is not watched just now, and since when (Unix seconds)."""
        for informer in self._informers():
            if informer.failing_since is not None:
                return informer.last_error, informer.failing_since
        return None

    async def start(self) -> None:
        """Begin; returns when all pods were read once.

        Raises:
            SnapError: CLUSTER_CONNECTION_FAILED; it does not watch then.
        """
        await (await self._client()).version()  # a wrong credential is told at once
        spawn, name = self._means.spawn, self._watcher.name
        self._tasks = [spawn(one.run(), f"watcher {name}") for one in self._informers()]
        try:
            async with asyncio.timeout(SYNC_S):
                for informer in self._informers():
                    await informer.wait_synced()
                while not self.is_alive:  # noqa: ASYNC110 - the watch begins right after the list
                    await asyncio.sleep(_SOON_S)
        except TimeoutError as cause:
            details = self.failure[0] if self.failure else f"unreachable: no answer in {SYNC_S:g} s"
            await self.stop()
            raise Failed(
                f"Cluster {self._watcher.cluster} can't be watched with the stored credential.",
                code=CLUSTER_CONNECTION_FAILED,
                details=details,
            ) from cause
        except BaseException:
            await self.stop()
            raise
        self._tasks.append(spawn(self._work(), f"decisions of watcher {name}"))

    async def stop(self) -> None:
        """End; jobs that were started go on."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _informers(self) -> tuple[Informer, ...]:
        drains = self._watcher.trigger == "drain"
        return (self._pods, self._nodes) if drains else (self._pods,)

    async def _client(self) -> KubeClient:
        return await self._means.clusters.client(self._watcher.cluster)

    def _pod_changed(self, change: Change) -> None:
        self._dirty[key_of(change.object)] = None

    def _node_changed(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        for pod in self._pods.copies:
            if (pod.get("spec") or {}).get("nodeName") == name:
                self._dirty[key_of(pod)] = None

    async def _work(self) -> None:
        """Decide about pods that changed, whose time has come, or of which something new is known."""
        look_s = DRAIN_LOOK_S if self._watcher.trigger == "drain" else LOOK_S
        with self._means.store.revisions.news(*_TABLES) as news:
            news.set()
            while True:
                began = time.monotonic()
                if news.is_set():
                    news.clear()
                    self._dirty.update(dict.fromkeys(self._pods.copies.keys()))
                await self._decide_all()
                took_s = time.monotonic() - began
                rest_s = max(took_s, min(_REST * took_s, look_s))  # never mostly this
                await asyncio.sleep(rest_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, look_s - rest_s)):
                        await news.wait()

    async def _decide_all(self) -> None:
        now = self._means.now()
        while self._timers and self._timers[0][0] <= now:
            self._dirty[heapq.heappop(self._timers)[1]] = None
        while self._dirty:
            keys = list(self._dirty)[:AT_ONCE]
            for key in keys:
                del self._dirty[key]
            await self._decide(keys)

    async def _decide(self, keys: Iterable[Key]) -> None:
        found = {key: self._pods.copies.get(*key) for key in keys}
        objects = [pod for pod in found.values() if pod is not None]
        pods = {uid_of(pod): (read_pod(pod), pod) for pod in objects}
        seen = [pod for pod, _ in pods.values()]
        cluster, ended = self._watcher.cluster, self._means.claims.ended
        known = await self._means.store.read(lambda db: knowledge.read(db, cluster, seen))
        if await self._claim(pods, known, ended):
            known = await self._means.store.read(lambda db: knowledge.read(db, cluster, seen))
        news: list[rows.Decision] = []
        for pod, given in pods.values():
            news += self._of_pod(pod, given, known[pod.uid], ended)
        await self._measure(seen, known)
        if news:
            await self._means.store.write(lambda db: _keep(db, news))
        self._forget()

    def _of_pod(self, pod: PodSeen, given: Object, known: Known, ended: int) -> list[rows.Decision]:
        """Decide about a pod's containers, and act; what is new about it.

        Args:
            ended: of the claims, before ``known`` was read.
        """
        news = []
        wanted: dict[str, Decision] = {}
        decided: list[Decision] = []
        cordoned = self._is_cordoned(pod.node)
        now = self._means.now()
        for container in pod.containers:
            situation = replace(
                known.situations.get(container.name, Situation()), cordoned=cordoned
            )
            decision = decide(self._scope, pod, container, situation, now)
            if decision.action is Action.CHECKPOINT:
                decision = self._held_back(pod, container, decision, ended)
            if decision.action is Action.CHECKPOINT:
                wanted[container.name] = decision
            else:
                news += self._new(pod, container.name, decision)
            if decision.again_at is not None:
                heapq.heappush(self._timers, (decision.again_at, (pod.namespace, pod.name)))
            decided.append(decision)
        self._replace_maybe(pod, decided, now)
        if wanted:
            self._begin(Order(pod, given, wanted))
        return news

    def _held_back(
        self, pod: PodSeen, container: ContainerSeen, decision: Decision, ended: int
    ) -> Decision:
        """The decision to checkpoint, unless that is being begun, or could not be just now."""
        claims = self._means.claims
        if claims.ended != ended:  # a checkpoint was begun that is not known here yet
            self._dirty[pod.namespace, pod.name] = None
            return Decision(Action.WAIT, _BEGUN)
        if pod.workload(self._watcher.cluster, container) in claims:
            return Decision(Action.WAIT, _BEGUN)
        until, why = self._later.get((pod.uid, container.name), (0.0, ""))
        if time.monotonic() < until:
            again = self._means.now() + timedelta(seconds=until - time.monotonic())
            return Decision(Action.WAIT, why, again_at=again)
        return decision

    def _new(self, pod: PodSeen, container: str, decision: Decision) -> list[rows.Decision]:
        """The decision as it is kept, if it is another one than the last."""
        what = (str(decision.action), decision.reason)
        if self._told.get((pod.uid, container)) == what:
            return []
        self._told[pod.uid, container] = what
        return [making.record(self._watcher, pod, container, decision)]

    def _begin(self, order: Order) -> None:
        claimed = {order.pod.workload(self._watcher.cluster, c) for c in order.containers}
        self._means.claims.hold(claimed)  # at once: the task begins later

        async def work() -> None:
            try:
                await making.carry_out(order, self._watcher, self._means)
            except SnapError as failure:
                await self._not_begun(order, failure)
            finally:
                self._means.claims.release(claimed)
                self._dirty[order.pod.namespace, order.pod.name] = None

        self._means.spawn(work(), f"checkpoint {order.pod.namespace}/{order.pod.name}")

    async def _not_begun(self, order: Order, failure: SnapError) -> None:
        after_s = failure.after_s if isinstance(failure, Retryable) else 60.0
        why = f"the checkpoint was not begun: {failure.message}"
        again = Decision(Action.WAIT, why)
        news = []
        for name in order.decisions:
            self._later[order.pod.uid, name] = (time.monotonic() + max(after_s, LATER_S), why)
            news += self._new(order.pod, name, again)
        _log.info("pod %s/%s: %s", order.pod.namespace, order.pod.name, why)
        if news:
            await self._means.store.write(lambda db: _keep(db, news))

    async def _claim(
        self, pods: dict[str, tuple[PodSeen, Object]], known: dict[str, Known], ended: int
    ) -> bool:
        """Keep of which workload the checkpoints are that others had made of these pods; whether there are any."""
        cluster, key = self._watcher.cluster, self._means.key
        found = [
            making.row_of(cluster, *pods[uid], (checkpoint, container, ""), key)
            for uid, one in known.items()
            for checkpoint, container in one.unclaimed
            if any(c.name == container and c.image_digest for c in pods[uid][0].containers)
        ]
        claims = self._means.claims  # while one is being begun, they may be its own
        if not found or claims or claims.ended != ended:
            return False
        await self._means.store.write(lambda db: _adopt(db, found))
        return True

    async def _measure(self, pods: Iterable[PodSeen], known: dict[str, Known]) -> None:
        """Keep how long pods took that became ready."""
        now, cluster = self._means.now(), self._watcher.cluster
        found = []
        for pod in pods:
            took = measuring.start_ms(pod, now)
            for container in pod.containers if took is not None and pod.is_opted_in else ():
                place = (pod.uid, container.name)
                by = known[pod.uid].situations[container.name].started_by
                restored = measuring.was_restored(pod, container, by)
                if place in self._measured or restored is None or not container.image_digest:
                    continue
                self._measured.add(place)
                found.append((pod.workload(cluster, container), pod.uid, took or 0.0, restored))
        if found:
            new = await self._means.store.write(lambda db: _keep_starts(db, found))
            for workload, _, ms, restored in new:
                self._means.measured(workload, ms, restored)

    def _replace_maybe(self, pod: PodSeen, decided: Iterable[Decision], now: datetime) -> None:
        """Delete a pod once its own checkpoints are there, if the watcher is set to."""
        if not self._watcher.auto_delete_pod or self._watcher.trigger not in ONE_OF_ALL:
            return
        ended = []
        for decision in decided:
            if decision.action is not Action.SKIP:
                return  # its successor would wait for this container again
            if (made := decision.checkpoint) is not None and made.pod_uid == pod.uid:
                ended.append(made.ended_at)
        is_news = any(one is not None and now - one < replacing.NEWS for one in ended)
        if is_news and pod.uid not in self._replacing:
            self._replacing.add(pod.uid)
            self._means.spawn(self._replace(pod), f"replace {pod.namespace}/{pod.name}")

    async def _replace(self, pod: PodSeen) -> None:
        reason = await replacing.replace(pod, self._watcher.cluster, self._pods.copies, self._means)
        what = (
            ("kept", reason) if reason else ("deleted", "its successor starts from its checkpoint")
        )
        _log.info("pod %s/%s was %s: %s", pod.namespace, pod.name, *what)
        kept = making.told(self._watcher, pod, "", what)
        await self._means.store.write(lambda db: rows.record(db, kept))

    def _is_cordoned(self, node: str) -> bool:
        found = self._nodes.copies.get("", node)
        return found is not None and found["spec"].get("unschedulable") is True

    def _forget(self) -> None:
        """What was kept in mind of pods that are gone."""
        if len(self._told) + len(self._measured) < 4 * len(self._pods.copies) + 1000:
            return
        there = {uid_of(pod) for pod in self._pods.copies}
        self._told = {k: v for k, v in self._told.items() if k[0] in there}
        self._later = {k: v for k, v in self._later.items() if k[0] in there}
        self._measured = {k for k in self._measured if k[0] in there}
        self._replacing &= there


def _keep(db: Database, decisions: Iterable[rows.Decision]) -> None:
    for decision in decisions:
        rows.record(db, decision)


def _adopt(db: Database, found: Iterable[WorkloadRow]) -> None:
    for row in found:
        workloads.put(db, row)


_Start = tuple[Any, str, float, bool]


def _keep_starts(db: Database, found: Iterable[_Start]) -> list[_Start]:
    """Keep starts; those that were not kept before, by this watcher or another."""
    new = []
    for workload, uid, ms, restored in found:
        if not starts.is_known(db, workload.cluster, uid, workload.container):
            starts.put(db, workload, uid, ms, restored=restored)
            new.append((workload, uid, ms, restored))
    return new


def _of_node(node: Object) -> Object:
    spec = node.get("spec") or {}
    kept = trimmed(node)["metadata"]
    names = {k: kept[k] for k in ("name", "resourceVersion") if k in kept}
    return {"metadata": names, "spec": {"unschedulable": spec.get("unschedulable")}}
