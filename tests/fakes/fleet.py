"""Nodes without agents: one node that does at once what it is told, for tests of the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.checkpoints.arrivals import Arrivals
from controlplane.checkpoints.ports import FoundContainer, FoundPod
from controlplane.errors import NODE_NOT_FOUND, POD_NOT_FOUND, AgentUnavailable, NotFound
from controlplane.jobs import JobService
from controlplane.link.frames import PodAnswer, PodContainer
from controlplane.store.records import (
    CheckpointResult,
    Job,
    JobFailure,
    JobResult,
    JobState,
    JobUpdate,
    PushResult,
)

DIGEST = "sha256:" + "ab" * 32


@dataclass(frozen=True)
class FakeFacts:
    """What the node says it has."""

    engines: tuple[str, ...] = ("runc", "cri")
    restore_drivers: tuple[str, ...] = ("runtime",)
    criu_version: str = "4.2.1"
    runtime: str = "containerd"
    runtime_version: str = "2.1.9"
    oci_runtime: str = "runc"
    oci_runtime_version: str = "1.3.6"
    runc_version: str = "1.3.6"
    kubelet_version: str = "v1.37.2"
    kernel: str = "6.18.0"
    architecture: str = "x86_64"
    cgroup_version: str = "v1"
    cpu_features: tuple[str, ...] = ()


@dataclass(frozen=True)
class FakeStatus:
    """How the node says it is."""

    ready: bool = True
    reasons: tuple[()] = ()


@dataclass(frozen=True)
class FakeNode:
    """One node as the fleet shows it."""

    cluster: str
    node: str
    connected: bool = True
    last_seen: str = "2026-01-15T10:30:00.000Z"
    stale: bool = False
    facts: FakeFacts = field(default_factory=FakeFacts)
    status: FakeStatus = field(default_factory=FakeStatus)


class FakeFleet:
    """One node, ``node-1`` of ``c1``, with the pod ``default/test-app``.

    Attributes:
        connected: False for an agent that is away.
        failure: what jobs end with; None lets them complete.
        is_unpushed: that failure comes after the checkpoints were made.
        held: while it is set, jobs are taken but go on for ever (``say`` tells how far they are).
        archive: bytes of every archive.
        started: jobs that were handed out.
        more: other pods of the node, by namespace and name.
        is_answering: whether the API server of c1 is said to answer.
        restores: how the node restores.
        is_preparing: whether its agent prepares the node.
        arrivals: who hears how containers were started.
    """

    def __init__(self) -> None:
        self.jobs: JobService | None = None
        self.back = asyncio.Event()
        self.busy = asyncio.Event()
        self.connected = True
        self.more: dict[tuple[str, str], FoundPod] = {}
        self.is_answering = False
        self.restores: tuple[str, ...] = ("runtime", "image")
        self.is_preparing = False
        self.arrivals = Arrivals()
        self.failure: JobFailure | None = None
        self.is_unpushed = False
        self.held = False
        self.archive = bytes(range(256)) * 40
        self.break_after: int | None = None
        self.started: list[Job] = []
        self._sequence = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def nodes(self, cluster: str = "") -> Sequence[FakeNode]:
        """The node."""
        return [FakeNode("c1", "node-1", self.connected)] if cluster in ("", "c1") else []

    def sessions(self, cluster: str = "") -> Sequence[FakeNode]:
        """The node, if it is there."""
        return self.nodes(cluster) if self.connected else []

    async def pods(self, cluster: str) -> list[tuple[str, PodAnswer]]:
        """The one pod."""
        image = f"app@{DIGEST}"
        container = PodContainer("test-app", "container-67890", "running", "app:1", image)
        pod = PodAnswer("", True, "", True, "pod-12345", "test-app", "default", (container,))
        return [("node-1", pod)] if self.sessions(cluster) else []

    def drivers(self, cluster: str) -> dict[str, tuple[str, ...]]:
        """The node, and how it restores."""
        return {"node-1": self.restores} if cluster == "c1" and self.connected else {}

    def being_prepared(self, cluster: str) -> frozenset[str]:
        """The node, while its agent prepares it."""
        return frozenset({"node-1"} if cluster == "c1" and self.is_preparing else ())

    def answers(self, cluster: str) -> bool:
        """Whether the API server is said to answer."""
        return self.is_answering

    def require(self, cluster: str, node: str) -> None:
        """Raise unless the node is there."""
        if (cluster, node) != ("c1", "node-1"):
            raise NotFound(f"There is no node {node}.", code=NODE_NOT_FOUND)
        if not self.connected:
            raise AgentUnavailable("The agent of node-1 is not connected.")

    def is_connected(self, cluster: str, node: str) -> bool:
        """Whether the node is there."""
        return self.connected and (cluster, node) == ("c1", "node-1")

    async def wait_connected(self, cluster: str, node: str) -> None:
        """Return when the node is there."""
        if not self.is_connected(cluster, node):
            await self.back.wait()

    async def start_job(self, job: Job) -> None:
        """Take a job and, unless held, end it soon."""
        self.started.append(job)
        self.busy.set()
        if not self.held:
            task = asyncio.create_task(self._run(job))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def say(self, job: Job, **more: Any) -> None:
        """Report that a job runs, and what else an update may tell."""
        await self._report(job, JobState.RUNNING, **more)

    def cancel_job(self, job: Job) -> None:
        """End the job as cancelled."""
        task = asyncio.create_task(self._report(job, JobState.CANCELLED))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def find_pod(
        self, cluster: str, namespace: str, pod_name: str, node: str = ""
    ) -> FoundPod:
        """The one pod."""
        if not self.connected:
            raise AgentUnavailable("The agent of node-1 is not connected.")
        if node not in ("", "node-1"):
            raise NotFound(f"There is no node {node}.", code=NODE_NOT_FOUND)
        if (namespace, pod_name) in self.more:
            return self.more[namespace, pod_name]
        if (namespace, pod_name) != ("default", "test-app"):
            raise NotFound(f"There is no pod {namespace}/{pod_name}.", code=POD_NOT_FOUND)
        container = FoundContainer("test-app", "container-67890", "running", f"app@{DIGEST}")
        return FoundPod("node-1", "pod-12345", (container,))

    def reachable(self, cluster: str = "") -> list[tuple[str, str]]:
        """The node."""
        return [("c1", "node-1")] if self.connected and cluster in ("", "c1") else []

    async def open_image(
        self, node: tuple[str, str], digest: str, offset: int, length: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """An image that no cache has."""
        raise NotFound(f"The image {digest} is not in the cache of {node[1]}.")

    async def open_archive(
        self, node: tuple[str, str], checkpoint_id: str, offset: int, length: int
    ) -> tuple[int, AsyncGenerator[bytes, None]]:
        """The archive in pieces."""
        part = self.archive[offset : offset + length if length else None]

        async def body() -> AsyncGenerator[bytes, None]:
            for start in range(0, len(part), 1000):
                if self.break_after is not None and start >= self.break_after:
                    raise AgentUnavailable("The node went away.")
                yield part[start : start + 1000]

        return len(self.archive), body()

    async def added(self, cluster: str, digests: Sequence[str]) -> None:
        """Grants are nobody's business here."""

    async def removed(self, cluster: str) -> None:
        """Grants are nobody's business here."""

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # a fault of this fake is shown by the loop

    async def _run(self, job: Job) -> None:
        await self._report(job, JobState.RUNNING)
        if self.failure is not None:
            result = JobResult(_result(job).checkpoints) if self.is_unpushed else None
            await self._report(job, JobState.FAILED, result=result, error=self.failure)
        else:
            await self._report(job, JobState.COMPLETED, result=_result(job))

    async def _report(
        self,
        job: Job,
        state: JobState,
        *,
        result: JobResult | None = None,
        error: JobFailure | None = None,
        **more: Any,
    ) -> None:
        assert self.jobs is not None
        self._sequence += 1
        update = JobUpdate(
            job_id=job.id,
            epoch=job.epoch,
            sequence=self._sequence,
            state=state,
            progress=100.0 if state is JobState.COMPLETED else 10.0,
            message=f"the job is {state}",
            task_name=job.task_name,
            result=result,
            error=error,
            **more,
        )
        await self.jobs.take(job.cluster, job.node, [update])


def _result(job: Job) -> JobResult:
    spec = job.spec.checkpoint
    made = tuple(
        CheckpointResult(
            checkpoint_id=target.checkpoint_id,
            container_name=target.container_name,
            container_id=target.container_id,
            pod_uid=spec.pod_uid if spec else "",
            engine="runc",
            size_bytes=150_000_000,
            pause_ms=120.5,
            created_at="2026-01-15T10:30:00.000Z",
        )
        for target in (spec.containers if spec else ())
    )
    pushes = tuple(
        PushResult(checkpoint_id=push.checkpoint_id, image=push.image, digest=DIGEST)
        for push in job.spec.pushes
    )
    report = f'{{"of":"{job.id}","truncated":false}}' if job.spec.analyze else ""
    return JobResult(checkpoints=made, pushes=pushes, report_json=report)
