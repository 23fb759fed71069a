"""The API as it runs, on loopback, with a real store; only the nodes are not real."""

from __future__ import annotations

import asyncio
import functools
import io
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from controlplane import operating
from controlplane.api import application
from controlplane.api.metrics import Metrics
from controlplane.api.services import Check, Services
from controlplane.archives.shelf import ArchiveShelf, Limits
from controlplane.checkpoints import grants
from controlplane.checkpoints.analysis import Analyses
from controlplane.checkpoints.arrivals import Arrivals
from controlplane.checkpoints.grants import Grants
from controlplane.checkpoints.outcomes import Outcomes
from controlplane.checkpoints.placing import Placing
from controlplane.checkpoints.reports import Reports
from controlplane.checkpoints.restoring import PodRestoring, Surroundings
from controlplane.checkpoints.service import CheckpointService
from controlplane.checkpoints.uploads import Uploads
from controlplane.clusters import tokens as join_tokens
from controlplane.clusters.configs import ClusterConfigs, ClusterDraft
from controlplane.clusters.directory import ClusterDirectory
from controlplane.clusters.pods import ClusterPods
from controlplane.clusters.reaching import ClusterApis
from controlplane.clusters.reports import NodeReports
from controlplane.clusters.statistics import Counting
from controlplane.clusters.tokens import JoinTokens
from controlplane.errors import SnapError
from controlplane.hook.running import HookServers
from controlplane.hook.service import Hooks
from controlplane.identity import Role
from controlplane.jobs import JobService
from controlplane.live.hub import LiveHub
from controlplane.registries.configs import RegistryConfigs, RegistryDraft
from controlplane.settings import Settings
from controlplane.store import users
from controlplane.store.database import Store, open_store
from controlplane.store.secrets import Sealer, open_sealer
from controlplane.store.users import UserRow
from controlplane.users.audit import AuditLog
from controlplane.users.keys import ApiKeys
from controlplane.users.opening import open_users
from controlplane.users.passwords import _HASHER
from controlplane.users.service import _stamp
from controlplane.watcher.service import Watchers
from tests.fakes.fleet import FakeFleet

_TIMEOUT = aiohttp.ClientTimeout(total=10)  # no test waits longer for an answer
PASSWORD = "correct horse battery"
USERS = {
    "admin": Role.ADMINISTRATOR,
    "olga": Role.OPERATOR,
    "oskar": Role.OPERATOR,
    "vera": Role.VIEWER,
}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    content: bytes
    json: Any = None


@dataclass
class Server:
    """A running API and how to call it.

    Attributes:
        tokens: of the users, by name.
    """

    url: str
    services: Services
    store: Store
    fleet: FakeFleet
    hub: LiveHub
    hook_servers: HookServers
    session: aiohttp.ClientSession
    tokens: dict[str, str] = field(default_factory=dict)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        by: str | None = "admin",
        raw: bytes | io.BytesIO | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request, by a user's token, or nobody's."""
        given = dict(headers or {})
        if by is not None and "Authorization" not in given:
            given["Authorization"] = f"Bearer {self.tokens.get(by, by)}"
        if raw is not None and "Content-Type" not in given:
            given["Content-Type"] = "application/json"
        sent = {"json": body} if body is not None else {"data": raw}
        async with self.session.request(
            method, self.url + path, headers=given, allow_redirects=False, **sent
        ) as answer:
            content = await answer.read()
            is_json = answer.content_type == "application/json" and content
            return Answer(
                answer.status, answer.headers, content, await answer.json() if is_json else None
            )


class Spawner:
    """Background tasks that are ended with the test."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._faults: list[BaseException] = []

    def __call__(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, SnapError):
            self._faults.append(fault)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._faults and error is None:
            raise self._faults[0]


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[Server]:
    """The API with four users, the cluster ``c1``, and the registry config ``r1``; or with what is there."""
    mine = Settings(data_dir=folder / "data", rate_limit_user=0, rate_limit_anonymous=0)
    given = replace(mine, **settings)
    store = open_store(folder / "data")
    sealer = open_sealer(folder / "data", None)
    try:
        async with Spawner() as spawn, aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            server = await _made(store, sealer, given, spawn)
            server.session = session
            spawn(server.hook_servers.run(), "admission")
            runner = web.AppRunner(
                application(server.services), access_log=None, shutdown_timeout=2
            )
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                server.url = "http://{}:{}".format(*runner.addresses[0][:2])
                yield server
            finally:
                server.services.jobs.close()
                server.hub.close()
                await runner.cleanup()
    finally:
        store.close()


async def _made(store: Store, sealer: Sealer, settings: Settings, spawn: Spawner) -> Server:
    hub, fleet = LiveHub(), FakeFleet()
    signed = Grants(store, await grants.open_key(store, sealer), settings.grant_ttl_s)
    reports = Reports(sealer)
    outcomes = Outcomes(signed, reports)
    outcomes.attach(fleet)
    jobs = JobService(store, outcomes, hub.publish, spawn)
    jobs.attach(fleet)
    fleet.jobs = jobs
    registries = RegistryConfigs(store, sealer)
    clusters, directory = ClusterConfigs(store, sealer), ClusterDirectory(store)
    cluster_apis, arrivals = ClusterApis(clusters), Arrivals()
    told = fleet.drivers, fleet.being_prepared
    around = Surroundings(cluster_apis, fleet.answers, *told, arrivals)
    restoring = PodRestoring(store, sealer, around)
    fleet.arrivals = arrivals
    checkpoints = CheckpointService(store, sealer, signed, directory, restoring)
    limits = Limits(settings.upload_max_bytes, settings.upload_free_bytes)
    shelf = ArchiveShelf(settings.data_dir / "uploads", limits)
    shelf.open(())
    uploads = Uploads(store, shelf, ClusterDirectory(store))
    checkpoints.attach(jobs, fleet, registries, fleet, uploads)
    accounts = await open_users(store, sealer, settings)
    key = await join_tokens.open_key(store, sealer)
    pods = ClusterPods(store, directory, cluster_apis, fleet)
    metrics = Metrics()
    loops, hook_servers = await operating.compose(
        settings,
        operating.Neighbours(
            store=store,
            sealer=sealer,
            clusters=cluster_apis,
            checkpoints=checkpoints,
            nodes=fleet,
            metrics=metrics.registry,
            spawn=spawn,
        ),
    )
    services = Services(
        settings=settings,
        users=accounts,
        registries=registries,
        clusters=clusters,
        statistics=Counting(store, fleet, _no_pods, time.monotonic),
        join_tokens=JoinTokens(store, key, settings.join_token_ttl_s, lambda: "-----BEGIN CA"),
        jobs=jobs,
        checkpoints=checkpoints,
        uploads=uploads,
        analyses=Analyses(store, reports, jobs),
        fleet=fleet,
        progress=hub,
        audit=AuditLog(store),
        metrics=metrics,
        cluster_apis=cluster_apis,
        pods=pods,
        node_reports=NodeReports(store),
        api_keys=ApiKeys(store, sealer),
        watchers=Watchers(store, directory, loops),
        hooks=Hooks(store, directory, hook_servers),
        placing=Placing(store, jobs, fleet, directory),
        restoring=restoring,
        followed=lambda _cluster: None,
        checks=_all_well,
        wall=time.time,
        rising=time.monotonic,
    )
    if not accounts.everyone():
        await _fill(services, store)
    server = Server("", services, store, fleet, hub, hook_servers, session=None)  # type: ignore[arg-type]  # set by running()
    for user in accounts.everyone():  # as a login does, without its work
        server.tokens[user.username] = accounts._tokens.issue(user.username, _stamp(user))[0]
    return server


@functools.cache
def _hashed() -> str:
    return _HASHER.hash(PASSWORD)


async def _fill(services: Services, store: Store) -> None:
    for name, role in USERS.items():
        row = UserRow(name, name, "", role, _hashed())
        await store.write(lambda db, row=row: users.put(db, row))  # type: ignore[misc]
    await services.users.load()
    await services.registries.create(
        RegistryDraft("r1", "https://registry.example:5000", "pusher", "registry-secret")
    )
    await services.clusters.create(
        ClusterDraft("c1", api_server_url="https://api.example:6443", token="cluster-secret")
    )


async def _no_pods() -> int:
    return 0


async def _all_well() -> list[Check]:
    return [Check("store", ok=True)]
