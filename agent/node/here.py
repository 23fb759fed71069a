"""This node, as the link tells of it: the last probe, the vitals of the moment, its pods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from agent import errors
from agent.node import pods, probe, readiness
from agent.node.facts import FoundPod, NodeFacts, NodeStatus, Readiness, Reason
from agent.node.vitals import Pulse
from agent.runtimes import cri
from agent.runtimes.commands import Host

log = logging.getLogger(__name__)

PROBE_EVERY_S: Final = 600.0  # tools change only when somebody installs something
LOOK_EVERY_S: Final = 10.0  # whether the runtime was restarted: one stat


@dataclass(frozen=True, slots=True)
class Counts:
    """What the agent has to do and to keep."""

    running_jobs: int
    queued_jobs: int
    checkpoints: int


class Here:
    """The node that the agent is on. ``open`` it once; ``watch`` keeps what it knows fresh."""

    def __init__(
        self, host: Host, cri_endpoint: str, pulse: Pulse, kubelet: probe.Kubelet | None = None
    ) -> None:
        self._host = host
        self._kubelet = kubelet
        self._endpoint = cri_endpoint
        self._pulse = pulse
        self.counts: Callable[[], Counts] = lambda: Counts(0, 0, 0)  # may block shortly
        self._readiness = Readiness(NodeFacts())
        self._noted: tuple[Reason, ...] = ()
        self._changed = asyncio.Event()  # since the last status

    async def open(self) -> Readiness:
        """Probe the node and keep what was found."""
        found = await take(self._host, self._endpoint, self._kubelet)
        if found != self._readiness:
            for reason in found.reasons:
                log.info("node: %s %s", reason.message, reason.remedy)
            self._changed.set()
        self._readiness = found
        return found

    def note(self, reason: Reason | None) -> None:
        """Have ``reason`` among what the node lacks; None: it lacks nothing but what the probe finds."""
        self._noted = (reason,) if reason else ()
        self._changed.set()

    async def watch(self) -> None:
        """Probe again from time to time, and soon after the runtime or the wrapper changed."""
        loop = asyncio.get_running_loop()
        seen, due = self._signature(), loop.time() + PROBE_EVERY_S
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = self._signature()
            unanswered = any(r.code == "RuntimeUnavailable" for r in self._readiness.reasons)
            if now != seen or unanswered or loop.time() >= due:
                seen, due = now, loop.time() + PROBE_EVERY_S
                await self.open()

    def facts(self) -> NodeFacts:
        """What the node has, from the last probe."""
        return self._readiness.facts

    async def status(self, *, with_facts: bool) -> NodeStatus:
        """How the node is right now."""
        self._changed.clear()
        vitals = await asyncio.to_thread(self._pulse.take)
        counts = await asyncio.to_thread(self.counts)
        known = self._readiness
        return NodeStatus(
            taken_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            readiness=replace(
                known, reasons=known.reasons + self._noted + readiness.disk_reasons(vitals)
            ),
            vitals=vitals,
            running_jobs=counts.running_jobs,
            queued_jobs=counts.queued_jobs,
            checkpoints=counts.checkpoints,
            with_facts=with_facts,
        )

    async def wait_changed(self, at_most_s: float) -> None:
        """Return when the node can do more or less than the last status says, or after ``at_most_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()

    async def find_pod(self, namespace: str, pod_name: str) -> FoundPod | None:
        """The pod of that name, if it runs here.

        Raises:
            SnapError: the container runtime does not answer.
        """
        async with cri.Client(self._host, cri.find_socket(self._host, self._endpoint)) as runtime:
            return await pods.find(runtime, namespace, pod_name)

    async def pods(self) -> tuple[FoundPod, ...]:
        """Every pod that is ready here.

        Raises:
            SnapError: the container runtime does not answer.
        """
        async with cri.Client(self._host, cri.find_socket(self._host, self._endpoint)) as runtime:
            return await pods.everything(runtime)

    def _signature(self) -> tuple[object, ...]:
        """Changes when the runtime was started anew, or the wrapper was put in place."""
        try:
            stat = self._host.path(cri.find_socket(self._host, self._endpoint)).stat()
            socket = (stat.st_dev, stat.st_ino, stat.st_ctime_ns)
        except (errors.Refused, OSError):
            socket = None
        return (socket, self._host.path(readiness.WRAPPER).exists())


def socket_of(host: Host, cri_endpoint: str) -> str:
    """Where the runtime's socket is, or will be once the runtime has started."""
    try:
        return cri.find_socket(host, cri_endpoint)
    except errors.Refused:
        return cri_endpoint.removeprefix("unix://") or cri.SOCKETS[0]


async def take(host: Host, cri_endpoint: str, kubelet: probe.Kubelet | None) -> Readiness:
    """Probe ``host`` with the runtime that answers at ``cri_endpoint`` ("": the usual places)."""
    try:
        socket = cri.find_socket(host, cri_endpoint)
    except errors.Refused:
        return await probe.take(host, None, kubelet)
    async with cri.Client(host, socket) as runtime:
        return await probe.take(host, runtime, kubelet)
