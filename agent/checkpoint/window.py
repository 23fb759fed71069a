"""The freeze window: from the start of a dump to the moment when its containers run again."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from agent import errors
from agent.checkpoint import plan
from agent.checkpoint.plan import SCRIPT, Dump, DumpTarget, Folder, Result
from agent.formats import layout
from agent.runtimes import commands, criu, detached, netlock
from agent.runtimes.commands import Host
from agent.runtimes.runc import OciRuntime

_BEGIN_S: Final = 10.0  # from the start of the script to its pid file
_GRACE_S: Final = float(plan.HARD_AFTER_S)  # for a script that was told to end, and its CRIU
CLOSE_S: Final = 2 * _GRACE_S + 60.0  # more than grace, kill and thaw of several containers
_SLACK_S: Final = 30.0  # beyond the time at which the script kills CRIU itself, per container
_LOOK_S: Final = 0.005  # someone waits for the checkpoint; a look is two small reads
_ROUNDS: Final = 100
_SIGKILLED: Final = 128 + 9
_KILLED: Final = "unixpacket"  # what runc says when CRIU hung up on it
_log = logging.getLogger(__name__)


class Running:
    """A dump that was started, by this agent or by one before it."""

    def __init__(self, folder: Folder, dump: Dump, process: detached.Process) -> None:
        self._folder, self._dump, self._process = folder, dump, process

    async def wait(self, look: Callable[[], None] = lambda: None) -> Result:
        """Wait for the script's result; ``look`` is called twice a second, to tell how far it is.

        Raises:
            CommandFailed: the dump failed, with CRIU's cause in its message.
            Retryable: it took longer than the plan allows, or the script was told to end.
            Broken: the script died without a word.
        """
        limit = (self._dump.hard_s + _SLACK_S) * len(self._dump.targets)
        try:
            async with asyncio.timeout(limit):
                result = await self._result(look)
        except TimeoutError as cause:
            raise _too_long(self._dump) from cause
        if result is None:
            raise errors.Broken(
                "The dump was killed on the node before it was done; the container runs on.",
                code=errors.CHECKPOINT_FAILED,
            )
        if result.outcome == "timeout":
            raise _too_long(self._dump)
        if result.outcome == "cancelled":
            raise errors.Retryable(
                "The dump was stopped on the node; the container runs on. Ask again.",
                code=errors.CHECKPOINT_FAILED,
            )
        if result.outcome != "ok":
            raise self._failure(result)
        return result

    async def _result(self, look: Callable[[], None]) -> Result | None:
        rounds = 0
        while (result := self._folder.result()) is None:
            if not detached.is_alive(self._folder.host, self._process):
                return self._folder.result()  # written between the two looks, or never
            await asyncio.sleep(_LOOK_S)
            rounds += 1
            if rounds % _ROUNDS == 0:
                look()
        return result

    def _failure(self, result: Result) -> errors.SnapError:
        target = self._dump.targets[result.failed or 0]
        work = f"{self._folder.parts(target)}/work"
        found = criu.cause(criu.read_log(self._folder.host, f"{work}/dump.log"))
        said = criu.read_log(self._folder.host, f"{work}/runc.out")[-2000:]
        if not found:
            what = f"The dump of container {target.container_name} failed"
            if _KILLED in said or result.status == _SIGKILLED:
                what = f"CRIU or the OCI runtime was killed while dumping {target.container_name}"
            message = f"{what}; the container runs on."
            return _failed(message, said, target, result.status)
        message = f"Container {target.container_name} could not be dumped: {found.sentence}"
        return _failed(message, "\n".join(found.lines), target, result.status)


@asynccontextmanager
async def opened(folder: Folder, dump: Dump) -> AsyncIterator[Running]:
    """Start the dump that is planned in ``folder``, or take over the one that runs there.

    When the block ends, well, with an error or cancelled, no process of the dump is left and the
    containers run (but for those that were paused before, and those that were not to be left running).

    Raises:
        CommandFailed: it could not be started.
        Broken: a container could not be thawed; a person must look at the node.
    """
    try:
        process = folder.process() or await _begin(folder)
        yield Running(folder, dump, process)
    finally:
        await commands.finish(close(folder, dump), CLOSE_S)


async def _begin(folder: Folder) -> detached.Process:
    await asyncio.to_thread(install, folder.host)
    await detached.start(folder.host, [SCRIPT, "run", folder.path], f"{folder.path}/log")
    deadline = asyncio.get_running_loop().time() + _BEGIN_S
    while (process := folder.process()) is None:
        if asyncio.get_running_loop().time() > deadline:
            said = criu.read_log(folder.host, f"{folder.path}/log")[-2000:]
            raise errors.CommandFailed(
                "The dump did not start on the node.", argv=[SCRIPT], status=None, log_tail=said
            )
        await asyncio.sleep(_LOOK_S)
    return process


async def close(folder: Folder, dump: Dump) -> None:
    """End what is left of a dump and have its containers run. May be called twice.

    Raises:
        Broken: a container stays frozen.
    """
    result = folder.result()
    if process := folder.process():
        await detached.stop(folder.host, process, grace_s=_GRACE_S)
    if result and result.outcome == "ok":
        return
    for target in dump.targets:
        await thaw(folder.host, target)


async def thaw(host: Host, target: DumpTarget) -> None:
    """Have ``target`` run if the dump left it frozen, and take away what cuts it off the network.

    Raises:
        Broken: it stays frozen.
    """
    if not target.binary:
        return  # held by a runtime that we don't know; only its CRI runtime could have frozen it
    runtime = OciRuntime(host, target.binary, target.root)
    try:
        status = (await runtime.state(target.container_id)).status
    except errors.NotFound:
        return
    if status == "paused" and not target.was_paused:
        _log.warning("thawing container %s, left frozen by a dump", target.container_id[:12])
        await runtime.resume(target.container_id)
    if status in ("paused", "running"):
        await netlock.remove(host, target.pid)


def install(host: Host) -> None:
    """Have the script on the node, as this agent knows it. Blocks."""
    script = importlib.resources.files(__package__).joinpath("snap-dump.sh").read_bytes()
    detached.install(host, SCRIPT, script)


def forget(folder: Folder) -> None:
    """Remove a dump's folder; the parts stay. Blocks."""
    shutil.rmtree(folder.here, ignore_errors=True)


def discard(folder: Folder, dump: Dump) -> None:
    """Remove a failed dump: folder and parts. Blocks."""
    for target in dump.targets:
        shutil.rmtree(folder.host.path(folder.parts(target)), ignore_errors=True)
    forget(folder)


def prepare_parts(folder: Folder, target: DumpTarget) -> None:
    """Make the folders that the script and CRIU write into. Blocks."""
    parts = folder.host.path(folder.parts(target))
    for name in (layout.CHECKPOINT_DIR, "work", "raw", layout.VOLUMES_DIR):
        (parts / name).mkdir(parents=True, exist_ok=True, mode=0o700)


def _failed(message: str, details: str, target: DumpTarget, status: int) -> errors.CommandFailed:
    argv = [target.binary, "checkpoint", target.container_id]
    error = errors.CommandFailed(message, argv=argv, status=status, log_tail=details)
    error.code = errors.CHECKPOINT_FAILED
    return error


def _too_long(dump: Dump) -> errors.Retryable:
    return errors.Retryable(
        f"The dump took longer than {dump.timeout_s:g} s and was stopped; the container runs on. "
        "Allow more time (timeout_s) or checkpoint it when it holds less memory.",
        code=errors.TIMEOUT,
        after_s=30.0,
    )
