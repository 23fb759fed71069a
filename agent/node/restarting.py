"""Starting the node's container runtime anew, when nothing is in its hands, and seeing that all survived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from agent import errors
from agent.formats.jobs import Progress, Report
from agent.runtimes import daemons, pods
from agent.runtimes.commands import Host

_PROGRAMS: Final = {"containerd": "containerd", "cri-o": "crio"}
_ALIVE: Final = (pods.ContainerState.CREATED, pods.ContainerState.RUNNING)
_QUIET_S: Final = 300.0  # dumps and restores that run are waited for
_BACK_S: Final = 60.0  # for the runtime to answer after its start
_LOOK_S: Final = 0.2
_LOST_CODE: Final = (
    255  # Source: containerd says so of containers whose shim it does not find again
)
_log = logging.getLogger(__name__)


class Runtime(Protocol):
    """The container runtime, as far as it is asked here."""

    async def status(self) -> pods.RuntimeStatus:
        """Its conditions and handlers."""

    async def sandboxes(self, labels: Mapping[str, str] = ...) -> tuple[pods.Sandbox, ...]:
        """Sandboxes, whatever their state."""

    async def containers(
        self, labels: Mapping[str, str] = ..., sandbox_id: str = ""
    ) -> tuple[pods.Container, ...]:
        """Containers, whatever their state."""

    async def container(self, container_id: str) -> pods.ContainerDetail:
        """One container in full."""


class Restarting:
    """Starts the runtime anew by ``command``, or by systemd; ``handler`` is the one that comes or goes.

    ``disturbed``: a start was begun, so that the runtime may have read what is being changed.
    """

    def __init__(self, host: Host, runtime: Runtime, command: str, handler: str) -> None:
        self._host = host
        self._runtime = runtime
        self._command = command
        self._handler = handler
        self.disturbed = False

    async def check(self, runtime: str) -> None:
        """Whether there is a way to start ``runtime`` (containerd, cri-o) anew; asked before a change.

        Raises:
            Refused: there is none.
        """
        self.disturbed = False
        daemons.restart_argv(self._host, await self._daemon(runtime), self._command)

    async def restart(self, runtime: str, report: Report, *, want: bool | None) -> frozenset[str]:
        """Wait until nothing is dumped or restored, start ``runtime`` anew, wait until it is back.

        Args:
            want: whether it has the handler then; None: that does not matter.

        Returns:
            The containers that did not survive.

        Raises:
            Retryable: it never was quiet. Refused, CommandFailed: it could not be started anew.
            Broken: it does not come back as it should.
        """
        report(Progress(60, "Waiting until nothing is dumped or restored"))
        await _wait(self._is_quiet, _QUIET_S, _still_busy())
        running = await self._running()
        daemon = await self._daemon(runtime)
        report(Progress(70, "Starting the container runtime anew"))
        _log.info("starting %s anew (process %d)", runtime, daemon.pid)
        self.disturbed = True
        await daemons.restart(self._host, daemon, self._command)

        async def is_back() -> bool:
            now = await asyncio.to_thread(daemons.find, self._host, _PROGRAMS[runtime])
            return now is not None and now.pid != daemon.pid and await self._has_handler(want)

        await _wait(is_back, _BACK_S, _not_back(runtime))
        return await self._lost(running - await self._running())

    async def refuse_while_used(self) -> None:
        """Whether running pods have the handler: to stop them, their shim needs the wrapper.

        Raises:
            Refused: they have.
        """
        boxes = {
            box.id: f"{box.namespace}/{box.name}"
            for box in await self._runtime.sandboxes()
            if box.runtime_handler == self._handler
        }
        every = await self._runtime.containers()
        users = {boxes[c.sandbox_id] for c in every if c.sandbox_id in boxes and c.state in _ALIVE}
        if users:
            raise errors.Refused(
                f"Running pods use the handler {self._handler} and need it to be stopped: "
                f"{', '.join(sorted(users)[:10])}; remove or move them first.",
                code=errors.CONFLICT,
            )

    async def _has_handler(self, want: bool | None) -> bool:
        try:
            status = await self._runtime.status()
        except errors.SnapError:
            return False
        ready = all(one.ok for one in status.conditions if one.type == "RuntimeReady")
        return ready and want in (None, self._handler in status.handlers)

    async def _daemon(self, runtime: str) -> daemons.Daemon:
        program = _PROGRAMS.get(runtime, "-")
        found = await asyncio.to_thread(daemons.find, self._host, program)
        if found is None:
            raise errors.Refused("No container runtime runs on this node.", code=errors.CONFLICT)
        return found

    async def _running(self) -> frozenset[str]:
        every = await self._runtime.containers()
        return frozenset(one.id for one in every if one.state is pods.ContainerState.RUNNING)

    async def _lost(self, gone: frozenset[str]) -> frozenset[str]:
        """Those of ``gone`` that did not just end by themselves meanwhile."""
        lost = []
        for container_id in gone:
            try:
                detail = await self._runtime.container(container_id)
            except errors.NotFound:  # removed by whoever had it made
                continue
            if detail.exit_code == _LOST_CODE:
                lost.append(container_id)
        return frozenset(lost)

    async def _is_quiet(self) -> bool:
        return not await asyncio.to_thread(daemons.busy, self._host)


async def _wait(
    condition: Callable[[], Awaitable[bool]], within_s: float, otherwise: errors.SnapError
) -> None:
    deadline = asyncio.get_running_loop().time() + within_s
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise otherwise
        await asyncio.sleep(_LOOK_S)


def _still_busy() -> errors.Retryable:
    return errors.Retryable(
        "Checkpoints or restores went on all the time, so the container runtime was not started "
        "anew; try again.",
        after_s=60.0,
        code=errors.TIMEOUT,
    )


def _not_back(runtime: str) -> errors.Broken:
    return errors.Broken(
        f"{runtime} did not come back as it should within {_BACK_S:g} s; look at its log."
    )
