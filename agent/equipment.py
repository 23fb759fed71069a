"""The real parts, plugged together: what stands behind the jobs and the link on a node."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent import chores
from agent.adapters import NotingPusher, ShelfArchives, Trust
from agent.checkpoint import service as checkpoint_service
from agent.checkpoint import watchdog
from agent.checkpoint.retention import Disk, Policy
from agent.checkpoint.scratch import Scratch
from agent.checkpoint.service import CheckpointService
from agent.checkpoint.shelf import Shelf
from agent.formats.jobs import JobState
from agent.image.bases import Bases
from agent.image.cache import Cache
from agent.image.importing import Importer
from agent.image.prefetching import JobFetcher
from agent.image.push import Pusher
from agent.insights.service import Insights
from agent.jobs.runner import Runner
from agent.jobs.steps import Workers
from agent.link import ports as link_ports
from agent.link.uploads import Uploads
from agent.node import at_start, here
from agent.node.facts import NodeFacts
from agent.node.prepare import Preparer, Tools
from agent.node.vitals import Pulse
from agent.restore import lazy_pages
from agent.restore import ledger as restore_ledger
from agent.restore.compatibility import NodeTraits
from agent.restore.decision import Decider
from agent.restore.folders import Folders
from agent.restore.grants import Grants
from agent.restore.holding import HeldImages
from agent.restore.outcome import OutcomeLog
from agent.restore.recording import Recorder
from agent.restore.service import RestoreService
from agent.restore.telling import OutcomeNews
from agent.runtimes import cri, kubelet
from agent.runtimes.commands import Host
from agent.settings import SERVICE_ACCOUNT, Settings

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class _Place:
    """The node under all parts: what they share of it.

    Attributes:
        asked: this node's kubelet.
    """

    settings: Settings
    host: Host
    runtime: cri.Client
    known: here.Here
    asked: kubelet.Kubelet

    @property
    def data_dir(self) -> str:
        return str(self.settings.data_dir)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What jobs work with and services look after."""

    shelf: Shelf
    scratch: Scratch
    bases: Bases
    archives: ShelfArchives
    checkpoints: CheckpointService
    restores: RestoreService
    preparer: Preparer


async def equip(settings: Settings, host: Host, runtime: cri.Client, cache: Cache) -> Equipment:
    """The real parts, plugged together, with the node probed."""
    data_dir = host.path(str(settings.data_dir))
    asked = kubelet_of(settings, host)
    known = here.Here(host, settings.cri_endpoint, Pulse(data_dir), asked)
    place = _Place(settings, host, runtime, known, asked)
    shelf = Shelf(host, place.data_dir)
    scratch = Scratch(host, shelf, settings.checkpoint_scratch_bytes)
    await asyncio.to_thread(scratch.forget_lost)
    trust = Trust(Grants(data_dir / "grants.json", settings.cluster))
    kept = OutcomeLog(data_dir / "restores.log")
    outcomes = OutcomeNews(kept)
    await known.open()
    if settings.prepare == "auto":
        at_start.announce(known)
    parts = _Parts(
        shelf=shelf,
        scratch=scratch,
        bases=Bases(data_dir / "bases"),
        archives=ShelfArchives(shelf, cache),
        checkpoints=_checkpoints(place, shelf, scratch),
        restores=_restores(place, cache, trust, Recorder(kept, outcomes.on_outcome)),
        preparer=_preparer(place),
    )
    uploads = Uploads()
    return Equipment(
        workers=_workers(place, parts, JobFetcher(cache, trust.access, trust.is_lazy), uploads),
        uploads=uploads,
        archives=parts.archives,
        trust=trust,
        outcomes=outcomes,
        node=partial(_node, known, shelf),
        services=partial(_services, place, parts),
    )


def _workers(place: _Place, parts: _Parts, fetcher: JobFetcher, uploads: Uploads) -> Workers:
    return Workers(
        checkpointer=parts.checkpoints,
        shelf=parts.shelf,
        pusher=NotingPusher(Pusher(bases=parts.bases), parts.shelf),
        fetcher=fetcher,
        analyst=Insights(parts.shelf),
        importer=Importer(parts.shelf, uploads),
        preparer=at_start.Asked(parts.preparer, place.known),
    )


def _node(known: here.Here, shelf: Shelf, runner: Runner) -> here.Here:
    """What the link tells of this node, with the jobs' counts."""
    known.counts = lambda: here.Counts(
        runner.count(JobState.RUNNING), runner.count(JobState.QUEUED), len(shelf.list())
    )
    return known


def _services(place: _Place, parts: _Parts, runner: Runner) -> dict[str, Service]:
    """What runs beside the jobs, by name."""
    host, data_dir = place.host, place.data_dir

    def busy() -> frozenset[str]:
        return runner.busy_checkpoints | parts.archives.busy

    services: dict[str, Service] = {
        "node": place.known.watch,
        "restore": parts.restores.run,
        "watchdog": partial(watchdog.watch, host, data_dir, lambda: parts.checkpoints.active),
        "sweep": partial(chores.sweep, runner, parts.checkpoints),
        "scratch": partial(parts.scratch.watch, busy),
        "retention": partial(
            chores.retain,
            parts.shelf,
            partial(Disk.under, host, data_dir),
            busy,
            retention_of(place.settings),
            parts.bases.remember,
        ),
        "memory": chores.give_memory_back,
    }
    if place.settings.prepare == "auto":
        services["prepare"] = partial(at_start.run, parts.preparer, place.known, runner)
    return services


def _checkpoints(place: _Place, shelf: Shelf, scratch: Scratch) -> CheckpointService:
    """The side that makes checkpoints."""
    return CheckpointService(
        checkpoint_service.Ports(
            place.host,
            place.data_dir,
            place.runtime,
            place.known.facts,
            shelf,
            partial(lazy_pages.is_arriving, place.host, f"{place.data_dir}/restores"),
            place.asked,
            scratch,
            retention_of(place.settings).free_floor,
        )
    )


def _preparer(place: _Place) -> Preparer:
    """What makes the node ready, with our programs for it."""
    wrapper = importlib.resources.files("agent.restore").joinpath("snap-runc.sh").read_bytes()
    dump = importlib.resources.files("agent.checkpoint").joinpath("snap-dump.sh").read_bytes()
    lazy = importlib.resources.files("agent.restore").joinpath("snap-lazy.sh").read_bytes()
    scripts = {"snap-runc": wrapper, "snap-crun": wrapper, "snap-dump": dump, "snap-lazy": lazy}
    return Preparer(
        Tools(
            place.host,
            place.data_dir,
            place.runtime,
            scripts,
            place.settings.runtime_restart,
            place.known.open,
            owner=place.settings.pod_uid,
        )
    )


def retention_of(settings: Settings) -> Policy:
    """How long checkpoints stay here, as the settings say."""
    return Policy(
        pushed_h=settings.keep_pushed_hours,
        unpushed_h=settings.keep_unpushed_hours,
        disk_share=settings.disk_share_percent / 100,
        free_floor=settings.disk_free_percent / 100,
        keep_last=settings.keep_last,
    )


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


def _restores(place: _Place, cache: Cache, trust: Trust, recorder: Recorder) -> RestoreService:
    """The side that answers the runtime wrapper."""
    folders = Folders(work=f"{place.data_dir}/restores")
    decider = Decider(
        host=place.host,
        folders=folders,
        runtime=place.runtime,
        images=HeldImages(cache, trust, _Kept().keep),
        grants=trust.kept,
        ledger=restore_ledger.Ledger(place.host, MARKS),
        traits=lambda: traits_of(place.known.facts()),
        node=place.settings.node,
    )
    return RestoreService(place.host, folders, decider, recorder)


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
