"""The composition root: makes every part, plugs them together, runs them in one task group, ends them."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import agent
from agent import cancellation, errors
from agent.equipment import Equipment, Service, equip
from agent.image.cache import Cache, CacheLimits
from agent.jobs import lanes
from agent.jobs.journal import Journal
from agent.jobs.ledger import Ledger
from agent.jobs.outbox import Outbox
from agent.jobs.runner import Runner
from agent.jobs.steps import Steps
from agent.link import identity, session
from agent.link.conversation import Member, Rooms
from agent.link.session import Dialling, Session
from agent.node import here, machine
from agent.runtimes import cri
from agent.runtimes.commands import Host
from agent.settings import Settings

log = logging.getLogger(__name__)

# cgroup too: what outlives the agent has to leave the pod's
NSENTER: Final = ("nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-C", "--")
LEAVE_S: Final = 8.0  # of the 10 s that a clean end may take
LIGHT_JOBS: Final = 4
ANALYSES: Final = 2
RESTART_S: Final = 5.0


def host_of(settings: Settings) -> Host:
    """The node as this process sees it: directly, or out of a pod."""
    return Host(settings.host_root, () if settings.host_root == Path("/") else NSENTER)


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Hold the data directory for the block, against a second agent on this node.

    Raises:
        Refused: another agent has it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise errors.Refused(
                f"Another agent works with {folder} on this node; only one can."
            ) from cause
        yield
    finally:
        os.close(descriptor)


async def run(settings: Settings) -> None:
    """Be the agent of this node until SIGTERM.

    Raises:
        SnapError, OSError: it can't begin, or another agent is here.
        ExceptionGroup: a part of it failed.
    """
    host = host_of(settings)
    data_dir = host.path(settings.data_dir)
    with sole(data_dir):
        limits = CacheLimits(size_bytes=settings.cache_max_bytes)
        cache = Cache(data_dir / "cache", limits)
        await cache.open()
        try:
            socket = here.socket_of(host, settings.cri_endpoint)
            async with cri.Client(host, socket) as runtime:
                await serve(settings, await equip(settings, host, runtime, cache))
        finally:
            await cache.close()


async def serve(settings: Settings, equipment: Equipment) -> None:
    """Carry jobs out and hold the link until SIGTERM or SIGINT; then end within 10 s.

    A dump that runs goes on by itself, and the next agent takes it over: a dump can't be asked to pause.

    Raises:
        SnapError, OSError: the agent can't begin.
        ExceptionGroup: a part of the agent failed in a way that nobody foresaw.
    """
    data_dir = host_of(settings).path(settings.data_dir)
    journal = Journal(data_dir / "jobs")
    outbox = Outbox(journal)
    runner = Runner(Ledger(journal), Steps(equipment.workers), outbox, _lanes(settings))
    await runner.open()
    node = equipment.node(runner)
    parts = equipment.archives, equipment.trust, equipment.outcomes
    rooms = Rooms(runner, outbox, node, *parts)
    link = Session(_dialling(settings), await _member(settings, data_dir), rooms)
    equipment.uploads.attach(link)
    around = {"link": link.run, **equipment.services(runner)}
    services: dict[str, Service] = {name: partial(_kept_up, run) for name, run in around.items()}
    services["jobs"] = runner.run
    name, cluster = settings.node, settings.cluster
    log.info("agent %s of node %s, cluster %s", agent.__version__, name, cluster)
    async with asyncio.TaskGroup() as group, _told_to_leave() as leave:
        tasks: dict[str, asyncio.Task[Any]] = {
            name: group.create_task(run(), name=name) for name, run in services.items()
        }
        tasks["signals"] = group.create_task(leave.wait(), name="signals")
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        await _leave(runner, tasks)


async def _kept_up(service: Service) -> None:
    """Run ``service``, again if it fails: jobs must not end because something beside them did.

    Raises:
        SnapError: it said why it can't work here.
    """
    while True:
        try:
            await service()
        except errors.SnapError:
            raise
        except Exception:
            log.exception("a service failed, it begins again in %g s", RESTART_S)
            cancellation.heed()
        await asyncio.sleep(RESTART_S)


async def _leave(runner: Runner, tasks: dict[str, asyncio.Task[Any]]) -> None:
    """End every task, but for dumps: those run on without us, and cancelling their job would end them."""
    log.info("leaving")
    dumping = runner.is_dumping
    ending = {task for name, task in tasks.items() if not (dumping and name == "jobs")}
    for task in ending:
        task.cancel()
    _, late = await asyncio.wait(ending, timeout=LEAVE_S)
    if not dumping and not late:
        return
    for task in late:
        log.warning("%s did not end in time, left as it is", task.get_name())
    if dumping:
        log.info("a dump goes on by itself; the next agent takes it over")
    logging.shutdown()
    os._exit(0)  # what is on disk is always whole; the loop's own end would cancel the dump's job


@asynccontextmanager
async def _told_to_leave() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    loop, leave = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)
    try:
        yield leave
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _lanes(settings: Settings) -> lanes.Lanes:
    return lanes.Lanes(
        {
            lanes.Lane.DUMP: settings.max_dumps,
            lanes.Lane.TRANSFER: settings.max_transfers,
            lanes.Lane.ANALYSIS: ANALYSES,
            lanes.Lane.LIGHT: LIGHT_JOBS,
        }
    )


def _dialling(settings: Settings) -> Dialling:
    token = partial(session.read_token, settings.token_file, settings.token)
    return Dialling(settings.control_plane, settings.ca_file, token)


async def _member(settings: Settings, data_dir: Path) -> Member:
    keys = await asyncio.to_thread(identity.load, data_dir / "identity")
    boot_id = (await asyncio.to_thread(machine.read, host_of(settings))).boot_id
    return Member(settings.cluster, settings.node, boot_id, keys)
