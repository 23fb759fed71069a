"""The hooks that run: registered in their clusters, answered here, repaired and renewed as time goes by."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from controlplane.errors import Conflict, SnapError
from controlplane.hook import indexing, webhook
from controlplane.hook.addresses import Reaching
from controlplane.hook.admission import NEVER, Answer, Policy, answer
from controlplane.hook.authority import Authority, Wanted
from controlplane.hook.cluster_watch import ClusterWatch, Spawn
from controlplane.hook.fitting import Traits
from controlplane.hook.index import Index
from controlplane.hook.listener import Listener
from controlplane.hook.registering import Clusters, Registrar, pod_of
from controlplane.kube.resources import Object
from controlplane.kube.workloads import ALIKE, CONTAINERS, WITH_VOLUMES, moment
from controlplane.store.database import Store
from controlplane.store.hooks import HookRow

TRAITS_S: Final = 10.0  # after which what agents tell of their nodes is looked at again
KNOWN_S: Final = 5.0  # after which every API server knows of a configuration
RENEW_S: Final = (0.2, 5.0)  # between looks at the certificates, at least and at most
CALM_S: Final = (0.0, 1.0, 5.0, 30.0, 60.0)  # between repairs of one webhook: others may insist too
CALM_AFTER_S: Final = 300.0
_ASKING: Final = frozenset({ALIKE, CONTAINERS, WITH_VOLUMES})  # annotations of a pod's next one too
# a successor under a StatefulSet has its name as well; others are not known by theirs
_KEPT: Final = ("name", "labels", "ownerReferences", "generateName")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What hooks work with.

    Attributes:
        traits: cluster → what agents told of its nodes, by name.
        told: hears of each answer: hook, answer, seconds it took.
        key: of the digests of what containers ask for.
    """

    store: Store
    clusters: Clusters
    listener: Listener
    authority: Authority
    reaching: Reaching
    traits: Callable[[str], Mapping[str, Traits]]
    told: Callable[[str, Answer, float], None]
    spawn: Spawn
    key: bytes = field(repr=False)
    partial: bool = False


@dataclass(slots=True)
class _Running:
    row: HookRow
    path: str
    watch: ClusterWatch
    repairs: int = 0
    repaired_at: float = 0.0
    repairing: asyncio.Task[Any] | None = None


class HookServers:
    """The hooks that run. Keep ``run`` running: it follows the store and renews certificates."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._watches: dict[str, ClusterWatch] = {}  # of the clusters that have a hook
        self._registrar = Registrar(means.clusters, means.reaching, means.authority)
        self._index = Index()
        self._running: dict[str, _Running] = {}
        self._probes: dict[str, bool] = {}
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()  # other hooks run than before

    async def run(self) -> None:
        """Keep the index and the certificates as they should be, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                following = indexing.follow(self._means.store, self._indexed)
                group.create_task(following, name="index of checkpoints")
                group.create_task(self._refresh_traits(), name="traits of nodes")
                group.create_task(self._renew(), name="hooks' certificates")
        finally:
            await self._means.listener.stop()

    def is_running(self, name: str) -> bool:
        """Whether reviews of ``name`` are answered."""
        running = self._running.get(name)
        return running is not None and running.watch.is_alive and self._means.listener.is_listening

    def url(self, hook: HookRow) -> str:
        """Where its cluster reaches a hook."""
        return self._means.reaching.url(hook)

    async def start(self, hook: HookRow) -> None:
        """Answer a hook's reviews, then register it in its cluster.

        Raises:
            Conflict: another hook answers at that path.
            SnapError: the port can't be opened; CLUSTER_CONNECTION_FAILED.
        """
        async with self._turn:
            await self._stop(hook.name)
            path = self._means.reaching.path(hook)
            self._require_free(path)
            client = await self._means.clusters.client(hook.cluster)
            await client.version()  # what is wrong with the credential is told at once
            watch = await self._watch(hook.cluster)
            try:
                await self._ensure_certificate(hook)
                await self._means.listener.start(self._means.authority.load())
                self._means.listener.open(path, self._answering(hook, watch))
                await self._registrar.register(hook)
            except BaseException:
                self._means.listener.close(path)
                await self._leave(hook.cluster)
                raise
            self._running[hook.name] = _Running(hook, path, watch)
            self._changed.set()
        _log.info("hook %s answers for cluster %s", hook.name, hook.cluster)

    async def stop(self, hook: HookRow) -> None:
        """Take the webhook out of its cluster, then answer it no longer; fine if it does not run."""
        async with self._turn:
            try:
                await self._registrar.unregister(hook)
            except SnapError as failure:
                _log.warning(
                    "the webhook of hook %s stays in cluster %s, which can't be told (%s); "
                    "pods there start without it",
                    *(hook.name, hook.cluster, failure.details or failure.message),
                )
            await self._stop(hook.name)

    async def renew(self, hook: HookRow) -> None:
        """Make a new certificate; connections that are open go on."""
        async with self._turn:
            await self._ensure_certificate(hook, anew=True)

    async def probe(self, hook: HookRow) -> str:
        """Have the cluster call the hook, by a pod that it only pretends to create; why it does not call, or empty.

        Raises:
            SnapError: CLUSTER_CONNECTION_FAILED.
        """
        client = await self._means.clusters.client(hook.cluster)
        await client.version()
        if not self.is_running(hook.name):
            return "the hook does not run"
        name = f"snap-probe-{secrets.token_hex(8)}"
        self._probes[name] = False
        refusal = "its API server did not call"
        try:
            await self._registrar.pretend(hook, name)
        except SnapError as failure:  # what it says of the pod is no matter, if it called before
            refusal = failure.details or failure.message
        return "" if self._probes.pop(name) else refusal

    def covering(self, cluster: str, pod: Mapping[str, Any]) -> str:
        """Why a new pod like ``pod`` would not start from a checkpoint there; empty: it would."""
        reason = f"no hook runs for cluster {cluster}"
        for running in self._running.values():
            if running.row.cluster == cluster and self.is_running(running.row.name):
                given = self._answering(running.row, running.watch, tells=False)(_review(pod))
                if given.restores and not given.reason:
                    return ""
                reason = given.reason or f"hook {running.row.name} does not look at it"
        return reason

    def asked_since(self, cluster: str, namespace: str) -> datetime | None:
        """Since when new pods there that want it are brought before a hook; None: they are not."""
        if namespace in NEVER | self._means.reaching.left_alone():
            return None
        rows = [r.row for r in self._running.values() if r.row.cluster == cluster]
        moments = (moment(row.updated_at) for row in rows if self.is_running(row.name))
        return min((one for one in moments if one), default=None)

    def _indexed(self, index: Index) -> None:
        self._index = index

    async def _refresh_traits(self) -> None:
        while True:
            await asyncio.sleep(TRAITS_S)
            for watch in self._watches.values():
                watch.refresh()

    async def _renew(self) -> None:
        """Renew what is worn; have clusters learn of a next authority before it signs."""
        authority, known_at = self._means.authority, 0.0
        while True:
            wait_s = authority.renew_in().total_seconds() if self._running else RENEW_S[1]
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(RENEW_S[0], min(wait_s, RENEW_S[1]))):
                    await self._changed.wait()
            if not self._running:
                continue
            for one in list(self._running.values()):  # what changed while it was being repaired
                name = webhook.name_of(one.row.name)
                self._webhook_seen(one.row.cluster, name, one.watch.webhook(name))
            async with self._turn:
                if authority.renew_in() <= timedelta():
                    await self._ensure_certificate()
                if not authority.is_changing:
                    known_at = 0.0
                elif not known_at:
                    known_at = time.monotonic() if await self._register_all() else 0.0
                elif time.monotonic() - known_at > KNOWN_S:
                    await asyncio.to_thread(authority.bundle_is_known, self._wanted())
                    authority.load()
                    await self._register_all()
                    _log.info("certificates for admission are signed by a new authority")

    async def _register_all(self) -> bool:
        """Tell every cluster the bundle; whether all know it."""
        known = True
        for running in self._running.values():
            try:
                await self._registrar.register(running.row)
            except SnapError as failure:
                known = False
                _log.warning("hook %s: %s", running.row.name, failure.details or failure.message)
        return known

    def _answering(
        self, hook: HookRow, watch: ClusterWatch, *, tells: bool = True
    ) -> Callable[[object], Answer]:
        means = self._means
        policy = Policy(
            hook.cluster, hook.driver, means.partial, means.reaching.left_alone(), means.key
        )

        def answering(review: object) -> Answer:
            began = time.perf_counter()
            given = answer(review, policy, self._index, watch.seen)
            if self._probes and (name := pod_of(review)) in self._probes:
                self._probes[name] = True
            if tells and not given.dry_run:
                means.told(hook.name, given, time.perf_counter() - began)
            return given

        return answering

    def _require_free(self, path: str) -> None:
        for running in self._running.values():
            if running.path == path:
                raise Conflict(
                    f"SnapHook '{running.row.name}' answers at {path}; each needs a path of its own."
                )

    async def _watch(self, cluster: str) -> ClusterWatch:
        watch = self._watches.get(cluster)
        if watch is not None and watch.is_alive:
            return watch
        means = self._means
        watch = ClusterWatch(
            cluster,
            lambda: means.clusters.client(cluster),
            lambda: means.traits(cluster),
            lambda name, found: self._webhook_seen(cluster, name, found),
        )
        await watch.start(means.spawn)
        self._watches[cluster] = watch
        return watch

    async def _stop(self, name: str) -> None:
        running = self._running.pop(name, None)
        if running is None:
            return
        if running.repairing is not None:
            running.repairing.cancel()
        self._means.listener.close(running.path)
        await self._leave(running.row.cluster)
        if not self._running:
            await self._means.listener.stop()

    async def _leave(self, cluster: str) -> None:
        """Follow a cluster no longer that no hook is left for."""
        if all(running.row.cluster != cluster for running in self._running.values()):
            watch = self._watches.pop(cluster, None)
            if watch is not None:
                await watch.stop()

    def _wanted(self, *more: HookRow) -> Wanted:
        """The certificate that the hooks that run need; the shortest life counts."""
        reaching = self._means.reaching
        rows = [*(running.row for running in self._running.values()), *more]
        names = reaching.names.union(*(reaching.names_of(row) for row in rows))
        return Wanted(
            names, min((reaching.life_of(row) for row in rows), default=timedelta(days=1))
        )

    async def _ensure_certificate(self, *more: HookRow, anew: bool = False) -> None:
        authority = self._means.authority
        if await asyncio.to_thread(authority.ensure, self._wanted(*more), anew=anew):
            authority.load()
            _log.info("new certificate for admission, until %s", authority.expires_at)

    def _webhook_seen(self, cluster: str, name: str, found: Object | None) -> None:
        """A configuration of ours changed: repair it if somebody else did that."""
        for running in self._running.values():
            row = running.row
            if row.cluster != cluster or webhook.name_of(row.name) != name:
                continue
            is_right = self._registrar.is_right(row, found)
            if not is_right and (running.repairing is None or running.repairing.done()):
                task = self._repair(running)
                running.repairing = self._means.spawn(task, f"repair hook {row.name}")

    async def _repair(self, running: _Running) -> None:
        name = running.row.name
        if time.monotonic() - running.repaired_at > CALM_AFTER_S:
            running.repairs = 0
        while True:
            await asyncio.sleep(CALM_S[min(running.repairs, len(CALM_S) - 1)])
            running.repairs += 1
            running.repaired_at = time.monotonic()
            try:
                async with self._turn:
                    is_ours = self._running.get(name) is running
                    if is_ours and await self._registrar.register(running.row):
                        _log.warning("the webhook of hook %s was changed by others; put back", name)
            except SnapError as failure:
                _log.warning("hook %s: %s", name, failure.details or failure.message)
                continue
            return


def _review(pod: Mapping[str, Any]) -> dict[str, Any]:
    """A review as there would be of a new pod like ``pod``."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    kept = {k: metadata[k] for k in _KEPT if k in metadata}
    given = metadata.get("annotations") or {}
    new = {
        "metadata": kept | {"annotations": {k: v for k, v in given.items() if k in _ASKING}},
        "spec": {k: v for k, v in spec.items() if k not in ("nodeName", "runtimeClassName")},
    }
    namespace = metadata.get("namespace", "")
    request = {"uid": "covering", "operation": "CREATE", "namespace": namespace, "object": new}
    return {"request": request | {"dryRun": True}}
