"""The composition root: opens the store, plugs the rooms together, serves until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import grpc.aio
from aiohttp import web
from prometheus_client import Counter, Gauge

from controlplane import api, logs, operating
from controlplane.api.metrics import Metrics
from controlplane.api.services import Check, Services
from controlplane.api.serving import Runner
from controlplane.archives.shelf import ArchiveShelf, Limits
from controlplane.checkpoints import grants as granting
from controlplane.checkpoints.analysis import Analyses
from controlplane.checkpoints.arrivals import Arrivals
from controlplane.checkpoints.grants import Grants
from controlplane.checkpoints.outcomes import Outcomes
from controlplane.checkpoints.placing import Placing
from controlplane.checkpoints.reports import Reports
from controlplane.checkpoints.restoring import PodRestoring, Surroundings
from controlplane.checkpoints.service import CheckpointService
from controlplane.checkpoints.uploads import Uploads
from controlplane.clusters import coldstarts, own, telling, tokens
from controlplane.clusters.accounts import ServiceAccounts
from controlplane.clusters.coldstarts import ColdStartKeeper
from controlplane.clusters.configs import ClusterConfigs
from controlplane.clusters.directory import ClusterDirectory
from controlplane.clusters.events import EventRecorder
from controlplane.clusters.following import ClusterFollowing
from controlplane.clusters.joining import Joining
from controlplane.clusters.pods import ClusterPods
from controlplane.clusters.reaching import ClusterApis
from controlplane.clusters.reports import NodeReports
from controlplane.clusters.statistics import Counting
from controlplane.clusters.tokens import JoinTokens
from controlplane.clusters.upkeep import CaKeeper, NodeKeeper, RuntimeClassKeeper
from controlplane.errors import Broken, SnapError
from controlplane.hook.running import HookServers
from controlplane.hook.service import Hooks
from controlplane.jobs import JobService
from controlplane.link import certificates, listening
from controlplane.link.announcing import Announcer
from controlplane.link.credentials import Credentials
from controlplane.link.fleet import Fleet
from controlplane.link.listening import ServedCertificate
from controlplane.link.liveness import Liveness
from controlplane.link.server import LinkServer
from controlplane.link.transfers import Transfers
from controlplane.link.trust import Trust
from controlplane.link.views import NodeDirectory
from controlplane.live.figures import JobFigures
from controlplane.live.hub import LiveHub
from controlplane.registries.configs import RegistryConfigs
from controlplane.settings import Address, Settings
from controlplane.store import agents, restores
from controlplane.store import checkpoints as checkpoint_rows
from controlplane.store.database import Store, open_store
from controlplane.store.records import Job, Restore
from controlplane.store.secrets import Sealer, open_sealer
from controlplane.users.audit import AuditLog
from controlplane.users.keys import ApiKeys
from controlplane.users.opening import open_users
from controlplane.watcher.service import Watchers

# a stop takes at most 10 s: requests, then agents, then what runs in the background
_REQUESTS_S: Final = 4.0
_AGENTS_S: Final = 1.0
_BACKGROUND_S: Final = 3.0
_DAY_S: Final = 86_400.0
_CHECK_S: Final = 2.0
_log = logging.getLogger(__name__)


class Background:
    """Tasks that outlive the request that began them; none is forgotten, none fails unseen."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``work`` as a named task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancel what runs and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_BACKGROUND_S)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, SnapError):
            _log.error("task %r failed", task.get_name(), exc_info=failure)


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


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads certificates and the log's level again.

    Raises:
        Broken: it can't start; the message says why.
    """
    background = Background()
    store = await asyncio.to_thread(open_store, settings.data_dir)
    try:
        sealer = await asyncio.to_thread(open_sealer, settings.data_dir, settings.secret_key_file)
        control = await compose(settings, store, sealer, background)
        await _first_administrator(control)
        async with _agents(control), _requests(control, background):
            await _until_stopped(control)
            # whoever waits for a job answers now, before the listeners close
            control.jobs.close()
            control.hub.close()
        await background.stop()
        await control.services.cluster_apis.close()
    finally:
        await asyncio.to_thread(store.close)
    _log.info("stopped")


async def compose(
    settings: Settings, store: Store, sealer: Sealer, background: Background
) -> ControlPlane:
    """Make every room and plug it to its neighbours; nothing listens yet."""
    certificate = await asyncio.to_thread(_certificate, settings)
    seen = await store.read(agents.everyone)
    hub, transfers, metrics = LiveHub(), Transfers(), Metrics()
    credentials = Credentials(store, sealer)
    grants = Grants(store, await granting.open_key(store, sealer), settings.grant_ttl_s)
    fleet = Fleet(credentials, transfers, ((agent.cluster, agent.node) for agent in seen))
    nodes = NodeDirectory(fleet, seen)
    announcer = Announcer(fleet, grants, credentials)
    reports = Reports(sealer)
    outcomes = Outcomes(grants, reports)
    tell = JobFigures(metrics.registry, hub.publish)
    jobs = JobService(store, outcomes, tell, background.spawn)
    jobs.attach(fleet)
    registries = RegistryConfigs(store, sealer)
    directory = ClusterDirectory(store)
    uploads = Uploads(store, await _archives(settings, store), directory)
    clusters = ClusterConfigs(store, sealer)
    await own.register(clusters, settings.cluster_name, os.environ)
    cluster_apis = ClusterApis(clusters)
    recorder = EventRecorder(cluster_apis)

    def asked_since(cluster: str, namespace: str) -> datetime | None:
        return hook_servers.asked_since(cluster, namespace)  # made below, before anything is kept

    keepers = (
        NodeKeeper(nodes),
        RuntimeClassKeeper(),
        CaKeeper(lambda: certificate.ca_pem, settings.ca_namespace),
        ColdStartKeeper(
            coldstarts.Means(
                agents=fleet,
                asked_since=asked_since,
                answered=lambda uids: store.read(lambda db: restores.pods_told_of(db, uids)),
                tell=recorder.tell,
            )
        ),
    )
    following = ClusterFollowing(cluster_apis, keepers)
    arrivals = Arrivals()
    told = nodes.drivers, nodes.being_prepared
    around = Surroundings(cluster_apis, following.answers, *told, arrivals)
    restoring = PodRestoring(store, sealer, around)
    checkpoints = CheckpointService(store, sealer, grants, directory, restoring)
    checkpoints.attach(jobs, fleet, registries, announcer, uploads)
    join_tokens = JoinTokens(
        store,
        await tokens.open_key(store, sealer),
        settings.join_token_ttl_s,
        lambda: certificate.ca_pem,
    )
    for job in await jobs.open_jobs():
        tell(job)
    _measure(metrics, fleet, hub)
    loops, hook_servers = await operating.compose(
        settings,
        operating.Neighbours(
            store=store,
            sealer=sealer,
            clusters=cluster_apis,
            checkpoints=checkpoints,
            nodes=nodes,
            metrics=metrics.registry,
            spawn=background.spawn,
        ),
    )
    pods = ClusterPods(store, directory, cluster_apis, fleet, following.everything)
    fleet.attach(following.node_of)

    async def checkpointed(job: Job) -> None:
        recorder.tell(
            *telling.of_checkpoints(await store.read(lambda db: checkpoint_rows.of_job(db, job.id)))
        )

    def restored(told: Sequence[Restore]) -> None:
        arrivals.heard(told)
        recorder.tell(*telling.of_restores(told))

    outcomes.attach(announcer, checkpointed)
    services = Services(
        settings=settings,
        users=await open_users(store, sealer, settings),
        registries=registries,
        clusters=clusters,
        fleet=nodes,
        statistics=Counting(
            store, nodes, pods=pods.count, rising=time.monotonic, followed=following.everything
        ),
        progress=hub,
        join_tokens=join_tokens,
        checks=lambda: _checks(store, settings),
        audit=AuditLog(store),
        jobs=jobs,
        checkpoints=checkpoints,
        uploads=uploads,
        analyses=Analyses(store, reports, jobs),
        metrics=metrics,
        cluster_apis=cluster_apis,
        pods=pods,
        node_reports=NodeReports(store),
        api_keys=ApiKeys(store, sealer),
        watchers=Watchers(store, directory, loops),
        hooks=Hooks(store, directory, hook_servers),
        placing=Placing(store, jobs, fleet, directory),
        restoring=restoring,
        followed=following.of,
        wall=time.time,
        rising=time.monotonic,
        registries_changed=announcer.registries_changed,
    )
    trust = Trust(store, grants, credentials)
    joining = Joining(join_tokens, ServiceAccounts(cluster_apis, settings.agent_accounts))
    refused = _counter(metrics)
    link = LinkServer(
        store, joining, jobs, fleet, transfers, trust, uploads, refused, restored=restored
    )
    liveness = Liveness(store, fleet, jobs)
    return ControlPlane(
        *(settings, services, jobs, hub, fleet, announcer, liveness),
        *(following, recorder, link, certificate, hook_servers),
    )


async def _archives(settings: Settings, store: Store) -> ArchiveShelf:
    """The folder of uploaded archives, without what uploads that broke off left there."""
    limits = Limits(settings.upload_max_bytes, settings.upload_free_bytes)
    shelf = ArchiveShelf(settings.data_dir / "uploads", limits)
    await asyncio.to_thread(shelf.open, await store.read(checkpoint_rows.uploaded_ids))
    return shelf


def _certificate(settings: Settings) -> ServedCertificate:
    chain, key = settings.tls_cert_file, settings.tls_key_file
    if chain is not None and key is not None:
        return ServedCertificate(lambda: certificates.from_files(chain, key, settings.tls_ca_file))
    folder = settings.data_dir / "tls"
    return ServedCertificate(lambda: certificates.made(folder, settings.tls_sans))


async def _first_administrator(control: ControlPlane) -> None:
    made_up = await control.services.users.make_first_administrator(control.settings.admin_password)
    if made_up is not None:  # shown once, on the terminal, never in a log
        sys.stderr.write(f"The first user is admin, its password is {made_up}\n")
        sys.stderr.flush()


@asynccontextmanager
async def _agents(control: ControlPlane) -> AsyncIterator[grpc.aio.Server]:
    """Answer agents for the block."""
    server = await listening.listen(control.settings.grpc_addr, control.certificate, control.link)
    try:
        yield server
    finally:
        await server.stop(_AGENTS_S)


@asynccontextmanager
async def _requests(control: ControlPlane, background: Background) -> AsyncIterator[None]:
    """Answer users for the block, and look after the nodes."""
    settings = control.settings
    runner = Runner(api.application(control.services), _REQUESTS_S)
    await runner.setup()
    context = _http_tls(settings)
    try:
        address = settings.http_addr
        site = web.TCPSite(runner, address.host, address.port, ssl_context=context)
        try:
            await site.start()
        except OSError as cause:
            raise Broken(
                f"SNAP_HTTP_ADDR: {address} can't be listened on ({cause.strerror}).",
                details=str(cause),
            ) from cause
        _log.info("REST on %s://%s", "https" if context else "http", address)
        background.spawn(_forever(control.liveness.run(), "looking after nodes"), "liveness")
        background.spawn(_forever(control.following.run(), "following clusters"), "following")
        background.spawn(_forever(control.recorder.run(), "writing events"), "events")
        background.spawn(_forever(control.services.watchers.run(), "watchers"), "watchers")
        background.spawn(_forever(control.services.hooks.run(), "hooks"), "hooks")
        background.spawn(_forever(control.hook_servers.run(), "admission"), "admission")
        background.spawn(_forever(_daily(control, context), "daily chores"), "daily")
        _on_hangup(control, context, background)
        yield
    finally:
        await runner.cleanup()


async def _until_stopped(control: ControlPlane) -> None:
    """Return at the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _log.info("ready, data in %s", control.settings.data_dir)
    await stop.wait()
    _log.info("stopping")


def _on_hangup(
    control: ControlPlane, context: ssl.SSLContext | None, background: Background
) -> None:
    """Read certificates and the log's level again at SIGHUP."""

    def reload() -> None:
        _log.info("log level is %s", logs.set_level(control.settings))
        background.spawn(_reload(control, context), "reload certificates")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


async def _reload(control: ControlPlane, context: ssl.SSLContext | None) -> None:
    changed = await asyncio.to_thread(control.certificate.reload)
    _log.info("certificate for agents %s", "reloaded" if changed else "unchanged")
    if context is not None:
        try:
            await asyncio.to_thread(_load_chain, context, control.settings)
        except Broken as failure:
            _log.error("the certificate for REST stays as it was: %s", failure.message)


async def _daily(control: ControlPlane, context: ssl.SSLContext | None) -> None:
    """Renew the certificate that was made here, and the nodes' grants, long before they end."""
    while True:
        await asyncio.sleep(_DAY_S)
        await _reload(control, context)
        await control.announcer.refresh()


async def _forever(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - logged, and it ends the program
        # the server without these chores is worse than no server: a supervisor starts it anew
        _log.exception("%s failed; stopping", name)
        signal.raise_signal(signal.SIGTERM)


def _http_tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.http_tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_chain(context, settings)
    return context


def _load_chain(context: ssl.SSLContext, settings: Settings) -> None:
    chain, key = settings.http_tls_cert_file, settings.http_tls_key_file
    try:
        context.load_cert_chain(chain or Path(), key)
    except (OSError, ssl.SSLError) as cause:
        raise Broken(
            f"{chain} and {key} can't be used for REST over TLS.", details=str(cause)
        ) from cause


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


async def _checks(store: Store, settings: Settings) -> Sequence[Check]:
    """What must work: the store for readers and for the writer, and both listeners."""
    listeners = {"agents": settings.grpc_addr, "rest": settings.http_addr}
    found = await asyncio.gather(*map(_accepts, listeners.values()))
    return [
        await _check_store(store),
        *(
            Check(name, ok=ok, message="" if ok else f"Nothing answers on {listeners[name]}.")
            for name, ok in zip(listeners, found, strict=True)
        ),
    ]


async def _check_store(store: Store) -> Check:
    try:
        async with asyncio.timeout(_CHECK_S):
            await store.read(lambda db: db.execute("SELECT 1").fetchone())
            await store.write(lambda db: db.execute("SELECT 1").fetchone())
    except TimeoutError:
        return Check("store", ok=False, message="The database does not answer.")
    except (SnapError, sqlite3.Error):
        return Check("store", ok=False, message="The database can't be read or written.")
    return Check("store", ok=True)


async def _accepts(address: Address) -> bool:
    """Whether somebody can connect to the listener on ``address``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - any of ours
    try:
        async with asyncio.timeout(_CHECK_S):
            _, writer = await asyncio.open_connection(host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
