"""Checkpoints that somebody else takes: the runtime (engine ``cri``) or the kubelet (engine ``kubelet``).

Both freeze one container after the other and resume it before any file of it can be copied.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import errors
from agent.checkpoint import cri_engine, kubelet_engine, targets, window
from agent.checkpoint.inspection import Inspected
from agent.checkpoint.kubelet_engine import Kubelet
from agent.checkpoint.plan import Dump, DumpTarget, Folder
from agent.formats.jobs import CheckpointSpec, Progress, Report
from agent.runtimes import commands

ENGINES: Final = ("kubelet", "cri")
UNPACK_S: Final = 3600.0  # for memory of any size
_WHO: Final = {"kubelet": "kubelet", "cri": "container runtime"}


@dataclass(frozen=True, slots=True)
class Askers:
    """Who can be asked. ``kubelet``: None where there is none."""

    runtime: targets.Runtime
    kubelet: Kubelet | None


async def dump(
    askers: Askers,
    folder: Folder,
    planned: Dump,
    place: Callable[[DumpTarget], Path],
    report: Report,
) -> float:
    """Have every container of ``planned`` dumped, one after the other; returns the longest call in ms.

    A container that was touched runs afterwards, and no archive is left.

    Raises:
        as ``CheckpointService.checkpoint``.
    """
    longest_s = 0.0
    for number, target in enumerate(planned.targets):
        report(Progress(10, f"The {_WHO[planned.engine]} dumps {target.container_name}"))
        try:
            took_s = await _dump_one(askers, folder, planned, number, place(target))
        except cri_engine.TryAgain:  # as the script of engine runc does
            took_s = await _dump_one(askers, folder, planned, number, place(target))
        longest_s = max(longest_s, took_s)
    return longest_s * 1000


async def _dump_one(
    askers: Askers, folder: Folder, planned: Dump, number: int, place: Path
) -> float:
    """Have one container dumped, and its archive made parts in ``place``; returns the call's seconds."""
    began = asyncio.get_running_loop().time()
    async with _archive(askers, folder, planned, number) as archive:
        took_s = asyncio.get_running_loop().time() - began
        unpacking = asyncio.to_thread(_take_over, archive, place, planned.targets[number])
        await commands.finish(unpacking, UNPACK_S)
    return took_s


def _archive(
    askers: Askers, folder: Folder, planned: Dump, number: int
) -> AbstractAsyncContextManager[Path]:
    if planned.engine == "cri":
        return _of_the_runtime(askers.runtime, folder, planned, number)
    if askers.kubelet is None:
        raise errors.Refused("Engine kubelet is not available on this node; use auto.")
    return _of_the_kubelet(askers.kubelet, folder, planned, number)


@asynccontextmanager
async def _of_the_runtime(
    runtime: targets.Runtime, folder: Folder, planned: Dump, number: int
) -> AsyncIterator[Path]:
    target, location = planned.targets[number], f"{folder.path}/{number}.tar"
    archive = folder.host.path(location)
    try:
        try:
            await runtime.checkpoint_container(target.container_id, location, planned.timeout_s)
        except errors.CommandFailed as cause:
            raise cri_engine.explained(folder.host, cause, target) from cause
        finally:
            await commands.finish(window.close(folder, planned), window.CLOSE_S)
        yield archive
    finally:
        archive.unlink(missing_ok=True)


@asynccontextmanager
async def _of_the_kubelet(
    asked: Kubelet, folder: Folder, planned: Dump, number: int
) -> AsyncIterator[Path]:
    try:
        async with kubelet_engine.archived(asked, folder, planned, number) as archive:
            await commands.finish(window.close(folder, planned), window.CLOSE_S)
            yield archive
    except errors.CommandFailed as cause:
        raise cri_engine.explained(folder.host, cause, planned.targets[number]) from cause
    finally:
        await commands.finish(window.close(folder, planned), window.CLOSE_S)


def _take_over(archive: Path, place: Path, target: DumpTarget) -> None:
    """Make parts of ``archive``, which is consumed.

    Raises:
        Broken: it is none. Retryable: it is of another container.
    """
    found = cri_engine.unpack(archive, place)
    if found not in ("", target.container_id):
        raise errors.Retryable(
            f"Container {target.container_name} was restarted while it was checkpointed; ask again.",
            code=errors.CHECKPOINT_FAILED,
        )


def choose(spec: CheckpointSpec, inspected: tuple[Inspected, ...], usable: tuple[str, ...]) -> str:
    """The engine for ``spec``, when it can do what is asked; ``usable`` are the node's, best first.

    Raises:
        Refused: it can't, or there is no such engine here.
    """
    direct = all(one.oci and one.upper for one in inspected)
    possible = [one for one in usable or ("runc", "cri") if one != "runc" or direct]
    engine = next(iter(possible), "") if spec.engine == "auto" else spec.engine
    if engine == "runc" and not direct:
        raise errors.Refused(
            "The container's OCI runtime or its overlay is not one that engine runc knows; use auto."
        )
    if engine not in ("runc", *ENGINES) or engine not in (usable or ("runc", "cri")):
        raise errors.Refused(
            f"Engine {engine} is not available on this node, which has {', '.join(usable) or 'none'} "
            "(snap-agent probe says why); use auto."
        )
    if engine in ENGINES:
        _check(engine, spec, inspected)
    return engine


def _check(engine: str, spec: CheckpointSpec, inspected: tuple[Inspected, ...]) -> None:
    """Refuse what an engine that only asks others can't do."""
    if not spec.leave_running:
        raise errors.Refused(
            f"Engine {engine} always leaves the container running; use engine runc."
        )
    if any(one.was_paused for one in inspected):
        raise errors.Refused(
            f"A paused container can't be dumped by engine {engine}; use engine runc."
        )
    shared = any(one.volumes or one.shm_used for one in inspected)
    if spec.strict and (shared or len(inspected) > 1):
        raise errors.Refused(
            f"Engine {engine} saves no volumes and freezes containers one after another; use engine "
            "runc or leave out strict."
        )
