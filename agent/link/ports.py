"""What the link needs from other rooms, as small protocols; ``app.py`` plugs the real ones in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agent.formats.jobs import CheckpointId, Job, JobBrief, JobFailure, JobId, JobUpdate
from agent.link.frames import GrantNews, PullAccessNews
from agent.node.facts import FoundPod, NodeFacts, NodeStatus
from agent.restore.outcome import Outcome


class Jobs(Protocol):
    """What the agent has promised. Each call is on disk when it returns."""

    @property
    def last_sequence(self) -> int:
        """The highest number that this node has given to news."""

    def briefs(self) -> tuple[JobBrief, ...]:
        """What the control plane may still wait for."""

    async def start(self, job: Job) -> None:
        """Accept ``job``, or report again if it is known."""

    async def refuse(self, job_id: str, epoch: int, failure: JobFailure) -> None:
        """Have ``job_id`` on record as failed."""

    async def cancel(self, job_id: JobId, epoch: int) -> None:
        """Cancel a job."""

    async def acknowledged(self, up_to: int) -> None:
        """The control plane has all news that was sent under numbers up to ``up_to``."""


class News(Protocol):
    """What jobs have to say."""

    def begin_session(self) -> None:
        """Say everything again that is not acknowledged."""

    async def wait(self) -> None:
        """Return when there is something to send."""

    async def wait_urgent(self, at_most_s: float) -> None:
        """Return when a result is there, or after ``at_most_s``."""

    async def take(self) -> tuple[JobUpdate, ...]:
        """What is to be sent now, numbered."""


class Node(Protocol):
    """This node."""

    def facts(self) -> NodeFacts:
        """What it has; at once, from the last probe."""

    async def status(self, *, with_facts: bool) -> NodeStatus:
        """How it is right now."""

    async def wait_changed(self, at_most_s: float) -> None:
        """Return when what it can do has changed since the last status, or after ``at_most_s``."""

    async def find_pod(self, namespace: str, pod_name: str) -> FoundPod | None:
        """The pod of that name, if it runs here.

        Raises:
            SnapError: the container runtime does not answer.
        """

    async def pods(self) -> tuple[FoundPod, ...]:
        """Every pod that runs here; raises as ``find_pod``."""


class Archive(Protocol):
    """One archive, open for reading."""

    @property
    def size_bytes(self) -> int:
        """Of the whole archive."""

    def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """The bytes from ``offset``, ``length`` of them (0: to the end), in pieces of at most 1 MiB."""


class Archives(Protocol):
    """The checkpoints of this node as archives."""

    def open(self, checkpoint_id: CheckpointId) -> AbstractAsyncContextManager[Archive]:
        """The archive of a checkpoint; raises NotFound."""

    def open_image(self, image_digest: str) -> AbstractAsyncContextManager[Archive]:
        """The archive of an image in this node's cache; raises NotFound."""


class Outcomes(Protocol):
    """What became of containers that were to be restored here."""

    def begin_session(self) -> None:
        """Say everything again that is not acknowledged."""

    async def take(self) -> tuple[Outcome, ...]:
        """What is to be sent now, in the order of sequences; waits until there is something."""

    async def acknowledged(self, up_to: int) -> None:
        """The control plane has all up to this sequence."""


class NoOutcomes:
    """A node that restores nothing."""

    def begin_session(self) -> None:
        """Nothing to say."""

    async def take(self) -> tuple[Outcome, ...]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return ()

    async def acknowledged(self, up_to: int) -> None:
        """Nothing was said."""


class Trust(Protocol):
    """What the control plane lets this node restore, and how it may read it."""

    async def grants(self, news: GrantNews, key: bytes | None = None) -> None:
        """Take grants in; ``key`` is the control plane's, when it announced it."""

    async def pull_access(self, news: PullAccessNews) -> None:
        """Take registry credentials in."""
