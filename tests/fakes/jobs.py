"""Jobs as the control plane gives them, and a runner that works on a fake workshop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from agent.formats.jobs import (
    ENDED,
    AnalyzeSpec,
    CheckpointId,
    CheckpointSpec,
    ContainerTarget,
    FetchSpec,
    ImportSpec,
    Job,
    JobId,
    JobKind,
    JobUpdate,
    PushSpec,
    RegistryAccess,
)
from agent.jobs import lanes
from agent.jobs.journal import Journal
from agent.jobs.ledger import Ledger
from agent.jobs.outbox import Outbox
from agent.jobs.runner import Runner
from agent.jobs.steps import Steps
from tests.fakes.workshop import Workshop, workers

REGISTRY = RegistryAccess("registry.test:5000", "robot", "s3cret-password")


def a_job(
    kind: JobKind = JobKind.CHECKPOINT_AND_PUSH,
    job_id: str = "J1",
    epoch: int = 1,
    checkpoint_id: str = "CP1",
    container: str = "redis",
) -> Job:
    """A job of ``kind`` about one container."""
    target = CheckpointId(checkpoint_id)
    spec = CheckpointSpec("default", "pod-1", (ContainerTarget(target, container),))
    push = PushSpec(target, REGISTRY, "snap/redis", "v1")
    return Job(
        job_id=JobId(job_id),
        epoch=epoch,
        kind=kind,
        checkpoint=spec if kind in {JobKind.CHECKPOINT, JobKind.CHECKPOINT_AND_PUSH} else None,
        pushes=(push,)
        if kind in {JobKind.PUSH, JobKind.CHECKPOINT_AND_PUSH, JobKind.IMPORT}
        else (),
        checkpoint_ids=(target,) if kind in {JobKind.DELETE, JobKind.IMPORT} else (),
        fetches=(FetchSpec("registry.test/snap@sha256:" + "2" * 64),)
        if kind in {JobKind.FETCH, JobKind.PREFETCH}
        else (),
        analyze=AnalyzeSpec(target, "summary") if kind is JobKind.ANALYZE else None,
        import_=ImportSpec(target, job_id, 1000, "pod-1") if kind is JobKind.IMPORT else None,
    )


@dataclass
class Agent:
    """A runner with what is around it."""

    shop: Workshop
    journal_dir: Path
    outbox: Outbox
    runner: Runner

    async def result(self, job_id: str = "J1") -> JobUpdate:
        """The result of ``job_id``, as soon as it is said."""
        async with asyncio.timeout(10):
            while True:
                for update in await self.outbox.take():
                    if update.job_id == job_id and update.state in ENDED:
                        return update
                await self.outbox.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when ``condition`` holds."""
        await until(condition)


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Return when ``condition`` holds; fails after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition may be another process's
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def an_agent(folder: Path, dumps: int = 2) -> AsyncIterator[Agent]:
    """A runner over ``folder``; leaving ends it as SIGTERM would, a second one goes on there."""
    shop = Workshop(folder)
    journal = Journal(folder / "jobs")
    outbox = Outbox(journal)
    steps = Steps(workers(shop))
    sizes = {lanes.Lane.TRANSFER: 2, lanes.Lane.ANALYSIS: 1, lanes.Lane.LIGHT: 4}
    turns = lanes.Lanes({lanes.Lane.DUMP: dumps, **sizes})
    runner = Runner(Ledger(journal), steps, outbox, turns)
    await runner.open()
    running = asyncio.create_task(runner.run(), name="jobs")
    try:
        yield Agent(shop, folder / "jobs", outbox, runner)
    finally:
        running.cancel()
        await asyncio.wait({running})
        if not running.cancelled() and (failure := running.exception()):
            raise failure
