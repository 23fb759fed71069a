"""A job that prepares the node: done once, by itself among dumps, gone on with after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.formats.jobs import (
    CheckpointId,
    CheckpointSpec,
    ContainerTarget,
    Job,
    JobId,
    JobKind,
    JobState,
)
from tests.fakes.jobs import an_agent


def prepare(job_id: str = "P1", *, undo: bool = False) -> Job:
    """Prepare the node, or undo that."""
    return Job(JobId(job_id), 1, JobKind.PREPARE, undo=undo)


def checkpoint(job_id: str) -> Job:
    """Checkpoint one container."""
    targets = (ContainerTarget(CheckpointId(f"c-{job_id}"), "app"),)
    spec = CheckpointSpec("default", f"pod-{job_id}", targets)
    return Job(JobId(job_id), 1, JobKind.CHECKPOINT, checkpoint=spec)


@pytest.mark.parametrize(
    ("undo", "step", "said"),
    [(False, "prepare", "The node is prepared"), (True, "undo", "The node is as it was before")],
)
async def test_it_is_done_and_told(tmp_path: Path, undo: bool, step: str, said: str) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(prepare(undo=undo))
        update = await agent.result("P1")
        assert (update.state, update.message) == (JobState.COMPLETED, said)
        assert update.task_name == "Prepare Node"
        assert agent.shop.notes() == [f"{step} begun", f"{step} done"]


async def test_no_dump_runs_beside_it(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold("checkpoint")
        await agent.runner.start(checkpoint("C1"))
        await agent.until(lambda: "checkpoint begun" in agent.shop.notes())
        await agent.runner.start(prepare())
        await agent.runner.start(checkpoint("C2"))
        agent.shop.hold("prepare")
        agent.shop.release("checkpoint")
        await agent.until(lambda: "prepare begun" in agent.shop.notes())
        done = agent.shop.notes()
        assert done.count("checkpoint begun") == done.count("checkpoint done c-C1") + done.count(
            "checkpoint done c-C2"
        )
        agent.shop.release("prepare")
        await agent.until(lambda: agent.runner.count(JobState.COMPLETED) == 3)


async def test_the_next_agent_goes_on_with_it(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold("prepare")
        await agent.runner.start(prepare())
        await agent.until(lambda: "prepare begun" in agent.shop.notes())
    agent.shop.release("prepare")
    async with an_agent(tmp_path) as agent:
        assert (await agent.result("P1")).state is JobState.COMPLETED
        assert agent.shop.notes() == ["prepare begun", "prepare begun", "prepare done"]
