"""The control plane's rooms in groups, each made out of those before it; ``composing`` puts the groups together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.api.metrics import Metrics
from controlplane.archives.shelf import ArchiveShelf, Limits
from controlplane.checkpoints import grants as granting
from controlplane.checkpoints.arrivals import Arrivals
from controlplane.checkpoints.grants import Grants
from controlplane.checkpoints.outcomes import Outcomes
from controlplane.checkpoints.reports import Reports
from controlplane.checkpoints.restoring import PodRestoring, Surroundings
from controlplane.checkpoints.service import CheckpointService
from controlplane.checkpoints.uploads import Uploads
from controlplane.clusters import coldstarts, own, telling, tokens
from controlplane.clusters.coldstarts import ColdStartKeeper
from controlplane.clusters.configs import ClusterConfigs
from controlplane.clusters.directory import ClusterDirectory
from controlplane.clusters.events import EventRecorder
from controlplane.clusters.following import ClusterFollowing
from controlplane.clusters.reaching import ClusterApis
from controlplane.clusters.tokens import JoinTokens
from controlplane.clusters.upkeep import CaKeeper, NodeKeeper, RuntimeClassKeeper
from controlplane.jobs import JobService
from controlplane.link.announcing import Announcer
from controlplane.link.credentials import Credentials
from controlplane.link.fleet import Fleet
from controlplane.link.listening import ServedCertificate
from controlplane.link.transfers import Transfers
from controlplane.link.views import NodeDirectory
from controlplane.live.figures import JobFigures
from controlplane.live.hub import LiveHub
from controlplane.registries.configs import RegistryConfigs
from controlplane.settings import Settings
from controlplane.store import agents as agent_rows
from controlplane.store import checkpoints as checkpoint_rows
from controlplane.store import restores
from controlplane.store.database import Store
from controlplane.store.records import Job
from controlplane.store.secrets import Sealer

AskedSince = Callable[[str, str], datetime | None]


@dataclass(frozen=True, slots=True)
class Ground:
    """What everything stands on."""

    settings: Settings
    store: Store
    sealer: Sealer
    spawn: Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]
    certificate: ServedCertificate
    metrics: Metrics
    hub: LiveHub


@dataclass(frozen=True, slots=True)
class Agents:
    """Those who are connected, and what they are trusted with."""

    credentials: Credentials
    transfers: Transfers
    grants: Grants
    fleet: Fleet
    nodes: NodeDirectory
    announcer: Announcer


@dataclass(frozen=True, slots=True)
class Configs:
    """What users set."""

    registries: RegistryConfigs
    clusters: ClusterConfigs
    directory: ClusterDirectory
    apis: ClusterApis
    join_tokens: JoinTokens


@dataclass(frozen=True, slots=True)
class Clusters:
    """What is seen of clusters and told to them."""

    following: ClusterFollowing
    recorder: EventRecorder
    arrivals: Arrivals


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to containers."""

    reports: Reports
    jobs: JobService
    uploads: Uploads
    restoring: PodRestoring
    checkpoints: CheckpointService


@dataclass(frozen=True, slots=True)
class Rooms:
    """All of them."""

    ground: Ground
    agents: Agents
    configs: Configs
    clusters: Clusters
    work: Work


async def make_agents(ground: Ground) -> Agents:
    """The agents' side; those that were here before are known, and away."""
    store = ground.store
    seen = await store.read(agent_rows.everyone)
    credentials, transfers = Credentials(store, ground.sealer), Transfers()
    key = await granting.open_key(store, ground.sealer)
    grants = Grants(store, key, ground.settings.grant_ttl_s)
    fleet = Fleet(credentials, transfers, ((agent.cluster, agent.node) for agent in seen))
    announcer = Announcer(fleet, grants, credentials)
    return Agents(credentials, transfers, grants, fleet, NodeDirectory(fleet, seen), announcer)


async def make_configs(ground: Ground) -> Configs:
    """What users set; the cluster that this runs in is among it."""
    store, sealer, settings = ground.store, ground.sealer, ground.settings
    clusters = ClusterConfigs(store, sealer)
    await own.register(clusters, settings.cluster_name, os.environ)
    join_tokens = JoinTokens(
        store,
        await tokens.open_key(store, sealer),
        settings.join_token_ttl_s,
        lambda: ground.certificate.ca_pem,
    )
    return Configs(
        registries=RegistryConfigs(store, sealer),
        clusters=clusters,
        directory=ClusterDirectory(store),
        apis=ClusterApis(clusters),
        join_tokens=join_tokens,
    )


def make_clusters(
    ground: Ground, agents: Agents, configs: Configs, asked_since: AskedSince
) -> Clusters:
    """Those who keep clusters as they should be, and what they know of them."""
    store, recorder = ground.store, EventRecorder(configs.apis)
    cold_starts = coldstarts.Means(
        agents=agents.fleet,
        asked_since=asked_since,
        answered=lambda uids: store.read(lambda db: restores.pods_told_of(db, uids)),
        tell=recorder.tell,
    )
    keepers = (
        NodeKeeper(agents.nodes),
        RuntimeClassKeeper(),
        CaKeeper(lambda: ground.certificate.ca_pem, ground.settings.ca_namespace),
        ColdStartKeeper(cold_starts),
    )
    following = ClusterFollowing(configs.apis, keepers)
    agents.fleet.attach(following.node_of)
    return Clusters(following, recorder, Arrivals())


async def make_work(ground: Ground, agents: Agents, configs: Configs, clusters: Clusters) -> Work:
    """Jobs, and checkpoints made and restored by them; the jobs that are open are told of."""
    store, sealer = ground.store, ground.sealer
    reports = Reports(sealer)
    outcomes = Outcomes(agents.grants, reports)
    tell = JobFigures(ground.metrics.registry, ground.hub.publish)
    jobs = JobService(store, outcomes, tell, ground.spawn)
    jobs.attach(agents.fleet)
    uploads = Uploads(store, await _archives(ground.settings, store), configs.directory)
    told = agents.nodes.drivers, agents.nodes.being_prepared
    around = Surroundings(configs.apis, clusters.following.answers, *told, clusters.arrivals)
    restoring = PodRestoring(store, sealer, around)
    checkpoints = CheckpointService(store, sealer, agents.grants, configs.directory, restoring)
    checkpoints.attach(jobs, agents.fleet, configs.registries, agents.announcer, uploads)
    for job in await jobs.open_jobs():
        tell(job)

    async def checkpointed(job: Job) -> None:
        made = await store.read(lambda db: checkpoint_rows.of_job(db, job.id))
        clusters.recorder.tell(*telling.of_checkpoints(made))

    outcomes.attach(agents.announcer, checkpointed)
    return Work(reports, jobs, uploads, restoring, checkpoints)


async def _archives(settings: Settings, store: Store) -> ArchiveShelf:
    """The folder of uploaded archives, without what uploads that broke off left there."""
    limits = Limits(settings.upload_max_bytes, settings.upload_free_bytes)
    shelf = ArchiveShelf(settings.data_dir / "uploads", limits)
    await asyncio.to_thread(shelf.open, await store.read(checkpoint_rows.uploaded_ids))
    return shelf
