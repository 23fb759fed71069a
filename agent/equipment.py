"""The real parts, plugged together: what stands behind the jobs and the link on a node."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent import errors
from agent.adapters import NotingPusher, ShelfArchives, Trust
from agent.checkpoint import retention, watchdog
from agent.checkpoint import service as checkpoint_service
from agent.checkpoint.retention import Disk
from agent.checkpoint.scratch import Scratch
from agent.checkpoint.service import CheckpointService
from agent.checkpoint.shelf import Shelf
from agent.formats.jobs import JobState
from agent.image.bases import Bases
from agent.image.cache import Cache, JobFetcher
from agent.image.importing import Importer
from agent.image.push import Pusher
from agent.insights.service import Insights
from agent.jobs.runner import Runner
from agent.jobs.steps import Workers
from agent.link import ports as link_ports
from agent.link.uploads import Uploads
from agent.node import here
from agent.node.facts import NodeFacts, Reason
from agent.node.prepare import Preparer, Tools
from agent.node.vitals import Pulse
from agent.restore import lazy_pages
from agent.restore import ledger as restore_ledger
from agent.restore.compatibility import NodeTraits
from agent.restore.decision import Decider, Folders
from agent.restore.grants import Grants
from agent.restore.outcome import OutcomeLog
from agent.restore.service import RestoreService
from agent.restore.telling import OutcomeNews
from agent.runtimes import cri, kubelet
from agent.runtimes.commands import Host
from agent.settings import SERVICE_ACCOUNT, Settings

log = logging.getLogger(__name__)

RETAIN_EVERY_S: Final = 300.0
MARKS: Final = "/run/snap/marks"  # what was restored in which sandbox; gone with the node's boot

Service = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Equipment:
    """What does the work, plugged in behind the jobs and the link.

    Attributes:
        workers: who does the steps of jobs.
        uploads: where the importer reads; given the link when there is one.
        node: given the jobs, what the link tells of this node.
        services: given the jobs, what runs beside them for as long as the agent does, by name.
    """

    workers: Workers
    uploads: Uploads
    archives: link_ports.Archives
    trust: link_ports.Trust
    node: Callable[[Runner], link_ports.Node]
    services: Callable[[Runner], dict[str, Service]]
    outcomes: link_ports.Outcomes = field(default_factory=link_ports.NoOutcomes)


async def equip(settings: Settings, host: Host, runtime: cri.Client, cache: Cache) -> Equipment:
    """The real parts, plugged together, with the node probed."""
    data_dir = str(settings.data_dir)
    shelf = Shelf(host, data_dir)
    scratch = Scratch(host, shelf, settings.checkpoint_scratch_bytes)
    await asyncio.to_thread(scratch.forget_lost)
    bases = Bases(host.path(f"{data_dir}/bases"))
    archives, uploads = ShelfArchives(shelf, cache), Uploads()
    trust = Trust(Grants(host.path(f"{data_dir}/grants.json"), settings.cluster))
    asked = kubelet_of(settings, host)
    known = here.Here(host, settings.cri_endpoint, Pulse(host.path(data_dir)), asked)
    checkpoints = CheckpointService(
        checkpoint_service.Ports(
            host,
            data_dir,
            runtime,
            known.facts,
            shelf,
            partial(lazy_pages.is_arriving, host, f"{data_dir}/restores"),
            asked,
            scratch,
        )
    )
    await known.open()
    restores = _restores(settings, host, runtime, cache, trust, known)
    outcomes = OutcomeNews(restores.outcomes)
    restores.on_outcome = outcomes.on_outcome

    def node(runner: Runner) -> here.Here:
        known.counts = lambda: here.Counts(
            runner.count(JobState.RUNNING), runner.count(JobState.QUEUED), len(shelf.list())
        )
        return known

    preparer = _preparer(settings, host, runtime, known)

    def services(runner: Runner) -> dict[str, Service]:
        prepare = {"prepare": partial(_prepare, preparer, known, runner)}

        def busy() -> frozenset[str]:
            return runner.busy_checkpoints | archives.busy

        return {
            "node": known.watch,
            "restore": restores.run,
            "watchdog": partial(watchdog.watch, host, data_dir, lambda: checkpoints.active),
            "sweep": partial(_sweep, runner, checkpoints),
            "scratch": partial(scratch.watch, busy),
            "retention": partial(_retain, shelf, host.path(data_dir), busy, bases),
            **(prepare if settings.prepare == "auto" else {}),
        }

    return Equipment(
        workers=Workers(
            checkpointer=checkpoints,
            shelf=shelf,
            pusher=NotingPusher(Pusher(bases=bases), shelf),
            fetcher=JobFetcher(cache, trust.access),
            analyst=Insights(shelf),
            importer=Importer(shelf, uploads),
            preparer=preparer,
        ),
        uploads=uploads,
        archives=archives,
        trust=trust,
        outcomes=outcomes,
        node=node,
        services=services,
    )


def _preparer(settings: Settings, host: Host, runtime: cri.Client, known: here.Here) -> Preparer:
    """What makes the node ready, with our programs for it."""
    wrapper = importlib.resources.files("agent.restore").joinpath("snap-runc.sh").read_bytes()
    dump = importlib.resources.files("agent.checkpoint").joinpath("snap-dump.sh").read_bytes()
    lazy = importlib.resources.files("agent.restore").joinpath("snap-lazy.sh").read_bytes()
    scripts = {"snap-runc": wrapper, "snap-crun": wrapper, "snap-dump": dump, "snap-lazy": lazy}
    return Preparer(
        Tools(
            host,
            str(settings.data_dir),
            runtime,
            scripts,
            settings.runtime_restart,
            known.open,
            owner=settings.pod_uid,
        )
    )


async def _prepare(preparer: Preparer, known: here.Here, runner: Runner) -> None:
    """Prepare the node once, at the start of the agent; what stands against it becomes a reason."""
    await runner.settled.wait()  # what a dead agent had begun may be a dump
    try:
        async with runner.without_dumps():
            await preparer.prepare_at_start(lambda said: log.info("preparing: %s", said.message))
        known.note(None)
    except errors.SnapError as failure:
        log.warning("the node could not be prepared: %s %s", failure.message, failure.details)
        remedy = "See the message; then POST /cluster/nodes/{node}/prepare or start the agent anew."
        known.note(
            Reason(
                "PrepareFailed",
                f"The node could not be prepared: {failure.message}",
                remedy,
                blocking=False,
            )
        )
    await asyncio.Event().wait()  # a service runs for as long as the agent


def kubelet_of(settings: Settings, host: Host) -> kubelet.Kubelet:
    """This node's kubelet, as the settings say it is reached."""
    given = settings.kubelet_ca_file
    usual = SERVICE_ACCOUNT / "ca.crt", host.path(kubelet.OWN_CERTIFICATE)
    return kubelet.Kubelet(
        kubelet.Access(
            settings.kubelet_url,
            settings.node,
            lambda: settings.kubelet_token_file.read_text().strip(),
            (given,) if given else usual,
            verify=settings.kubelet_verify == "yes",
        )
    )


def _restores(
    settings: Settings,
    host: Host,
    runtime: cri.Client,
    cache: Cache,
    trust: Trust,
    known: here.Here,
) -> RestoreService:
    """The side that answers the runtime wrapper."""
    folders = Folders(work=f"{settings.data_dir}/restores")
    decider = Decider(
        host=host,
        folders=folders,
        runtime=runtime,
        fetcher=cache,
        credentials=trust,
        grants=trust.kept,
        ledger=restore_ledger.Ledger(host, MARKS),
        traits=lambda: traits_of(known.facts()),
        spawn=_Kept().keep,
        node=settings.node,
    )
    outcomes = OutcomeLog(host.path(f"{settings.data_dir}/restores.log"))
    return RestoreService(host, folders, decider, outcomes)


class _Kept:
    """Tasks that outlive who began them; the loop itself holds tasks only weakly."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Path]] = set()

    def keep(self, task: asyncio.Task[Path]) -> None:
        """Hold ``task`` to its end, and hear of its failure: whoever waits hears of it too."""
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Path]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()):
            log.info("%s: %s", task.get_name(), failure)


def traits_of(facts: NodeFacts) -> NodeTraits:
    """What a restore depends on here."""
    return NodeTraits(
        architecture=facts.architecture,
        kernel=facts.kernel,
        criu_version=facts.criu_version,
        cgroup_version=facts.cgroup_version,
        cpu_features=frozenset(facts.cpu_features),
        criu_features=frozenset(facts.criu_features),
    )


async def _retain(
    shelf: Shelf, data_dir: Path, busy: Callable[[], frozenset[str]], bases: Bases
) -> None:
    """Remove checkpoints that have expired, every few minutes."""
    while True:
        await asyncio.sleep(RETAIN_EVERY_S)
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, data_dir)
            disk = Disk(usage.total, usage.free)
            gone = await asyncio.to_thread(
                retention.sweep, shelf, disk, busy(), None, bases.remember
            )
        except OSError as cause:
            log.warning("retention could not look at the disk: %s", cause)
            continue
        for checkpoint_id in gone:
            log.info("checkpoint %s has expired, removed", checkpoint_id)


async def _sweep(runner: Runner, checkpoints: CheckpointService) -> None:
    """Once all that a dead agent had begun is settled: undo what no job knows of."""
    await runner.settled.wait()
    await checkpoints.sweep()
    await asyncio.Event().wait()  # a service runs for as long as the agent
