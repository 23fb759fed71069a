"""Every room of the control plane, made and plugged to its neighbours; nothing listens yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter, Gauge

from controlplane import health, operating
from controlplane.api.metrics import Metrics
from controlplane.api.services import Services
from controlplane.background import Background
from controlplane.checkpoints.analysis import Analyses
from controlplane.checkpoints.placing import Placing
from controlplane.clusters import telling
from controlplane.clusters.accounts import ServiceAccounts
from controlplane.clusters.events import EventRecorder
from controlplane.clusters.following import ClusterFollowing
from controlplane.clusters.joining import Joining
from controlplane.clusters.pods import ClusterPods
from controlplane.clusters.reports import NodeReports
from controlplane.clusters.statistics import Counting
from controlplane.hook.running import HookServers
from controlplane.hook.service import Hooks
from controlplane.jobs import JobService
from controlplane.link import certificates
from controlplane.link.announcing import Announcer
from controlplane.link.fleet import Fleet
from controlplane.link.listening import ServedCertificate
from controlplane.link.liveness import Liveness
from controlplane.link.server import LinkServer
from controlplane.link.trust import Trust
from controlplane.live.hub import LiveHub
from controlplane.rooms import (
    Ground,
    Rooms,
    make_agents,
    make_clusters,
    make_configs,
    make_work,
)
from controlplane.settings import Settings
from controlplane.store.database import Store
from controlplane.store.records import Restore
from controlplane.store.secrets import Sealer
from controlplane.users.audit import AuditLog
from controlplane.users.keys import ApiKeys
from controlplane.users.opening import open_users
from controlplane.watcher.service import Watchers


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The rooms, plugged together."""

    settings: Settings
    services: Services
    jobs: JobService
    hub: LiveHub
    fleet: Fleet
    announcer: Announcer
    liveness: Liveness
    following: ClusterFollowing
    recorder: EventRecorder
    link: LinkServer
    certificate: ServedCertificate
    hook_servers: HookServers


async def compose(
    settings: Settings, store: Store, sealer: Sealer, background: Background
) -> ControlPlane:
    """Make every room and plug it to its neighbours."""
    certificate = await asyncio.to_thread(_certificate, settings)
    ground = Ground(settings, store, sealer, background.spawn, certificate, Metrics(), LiveHub())
    agents = await make_agents(ground)
    configs = await make_configs(ground)

    def asked_since(cluster: str, namespace: str) -> datetime | None:
        return hook_servers.asked_since(cluster, namespace)  # made below, before anything is kept

    clusters = make_clusters(ground, agents, configs, asked_since)
    work = await make_work(ground, agents, configs, clusters)
    _measure(ground.metrics, agents.fleet, ground.hub)
    rooms = Rooms(ground, agents, configs, clusters, work)
    loops, hook_servers = await operating.compose(settings, _neighbours(rooms))
    watchers = Watchers(store, configs.directory, loops)
    services = await _services(rooms, watchers, Hooks(store, configs.directory, hook_servers))
    return ControlPlane(
        settings=settings,
        services=services,
        jobs=work.jobs,
        hub=ground.hub,
        fleet=agents.fleet,
        announcer=agents.announcer,
        liveness=Liveness(store, agents.fleet, work.jobs),
        following=clusters.following,
        recorder=clusters.recorder,
        link=_link(rooms),
        certificate=certificate,
        hook_servers=hook_servers,
    )


def _neighbours(rooms: Rooms) -> operating.Neighbours:
    """What watchers and hooks act through."""
    return operating.Neighbours(
        store=rooms.ground.store,
        sealer=rooms.ground.sealer,
        clusters=rooms.configs.apis,
        checkpoints=rooms.work.checkpoints,
        nodes=rooms.agents.nodes,
        metrics=rooms.ground.metrics.registry,
        spawn=rooms.ground.spawn,
    )


async def _services(rooms: Rooms, watchers: Watchers, hooks: Hooks) -> Services:
    """What the API answers by."""
    ground, agents, configs, work = rooms.ground, rooms.agents, rooms.configs, rooms.work
    store, sealer, following = ground.store, ground.sealer, rooms.clusters.following
    pods = ClusterPods(store, configs.directory, configs.apis, agents.fleet, following.everything)
    return Services(
        settings=ground.settings,
        users=await open_users(store, sealer, ground.settings),
        registries=configs.registries,
        clusters=configs.clusters,
        fleet=agents.nodes,
        statistics=Counting(store, agents.nodes, pods.count, time.monotonic, following.everything),
        progress=ground.hub,
        join_tokens=configs.join_tokens,
        checks=lambda: health.checks(store, ground.settings),
        audit=AuditLog(store),
        jobs=work.jobs,
        checkpoints=work.checkpoints,
        uploads=work.uploads,
        analyses=Analyses(store, work.reports, work.jobs),
        metrics=ground.metrics,
        cluster_apis=configs.apis,
        pods=pods,
        node_reports=NodeReports(store),
        api_keys=ApiKeys(store, sealer),
        watchers=watchers,
        hooks=hooks,
        placing=Placing(store, work.jobs, agents.fleet, configs.directory),
        restoring=work.restoring,
        followed=following.of,
        wall=time.time,
        rising=time.monotonic,
        registries_changed=agents.announcer.registries_changed,
    )


def _link(rooms: Rooms) -> LinkServer:
    """What answers agents."""
    ground, agents, configs, work = rooms.ground, rooms.agents, rooms.configs, rooms.work
    accounts = ServiceAccounts(configs.apis, ground.settings.agent_accounts)

    def restored(told: Sequence[Restore]) -> None:
        rooms.clusters.arrivals.heard(told)
        rooms.clusters.recorder.tell(*telling.of_restores(told))

    return LinkServer(
        ground.store,
        Joining(configs.join_tokens, accounts),
        work.jobs,
        agents.fleet,
        agents.transfers,
        Trust(ground.store, agents.grants, agents.credentials),
        work.uploads,
        _counter(ground.metrics),
        restored=restored,
    )


def _certificate(settings: Settings) -> ServedCertificate:
    chain, key = settings.tls_cert_file, settings.tls_key_file
    if chain is not None and key is not None:
        return ServedCertificate(lambda: certificates.from_files(chain, key, settings.tls_ca_file))
    folder = settings.data_dir / "tls"
    return ServedCertificate(lambda: certificates.made(folder, settings.tls_sans))


def _measure(metrics: Metrics, fleet: Fleet, hub: LiveHub) -> None:
    connected = Gauge("snap_agents_connected", "Agents connected", registry=metrics.registry)
    connected.set_function(lambda: len(fleet.sessions()))
    readers = Gauge("snap_live_readers", "WebSockets open", registry=metrics.registry)
    readers.set_function(lambda: hub.subscribers)


def _counter(metrics: Metrics) -> Callable[[str], None]:
    """Counts agents that were not let in, by reason."""
    refused = Counter(
        "snap_agent_joins_refused", "Agents not let in", ["reason"], registry=metrics.registry
    )
    return lambda reason: refused.labels(reason).inc()
