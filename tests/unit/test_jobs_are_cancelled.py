"""Cancelling: before a job was given, while it waits, while it works, after it ended, over a restart."""

from __future__ import annotations

from pathlib import Path

from agent.formats.jobs import JobId, JobKind, JobState
from tests.fakes.jobs import a_job, an_agent, until

J1 = JobId("J1")


async def test_a_running_checkpoint_is_thawed(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold("checkpoint")
        await agent.runner.start(a_job())
        await until(lambda: "checkpoint begun" in agent.shop.notes())
        await agent.runner.cancel(J1, 1)
        update = await agent.result()
        assert agent.shop.notes() == ["checkpoint begun", "checkpoint thawed"]
    assert update.state is JobState.CANCELLED
    assert update.result is None


async def test_a_cancelled_push_keeps_its_checkpoint(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold("push")
        await agent.runner.start(a_job())
        await until(lambda: "push begun" in agent.shop.notes())
        await agent.runner.cancel(J1, 1)
        update = await agent.result()
    assert update.state is JobState.CANCELLED
    assert update.result is not None
    assert [one.checkpoint_id for one in update.result.checkpoints] == ["CP1"]


async def test_a_waiting_job_never_begins(tmp_path: Path) -> None:
    async with an_agent(tmp_path, dumps=1) as agent:
        agent.shop.hold("checkpoint")
        await agent.runner.start(a_job(job_id="J0", checkpoint_id="CP0", container="other"))
        await until(lambda: "checkpoint begun" in agent.shop.notes())
        await agent.runner.start(a_job())
        await agent.runner.cancel(J1, 1)
        assert (await agent.result()).state is JobState.CANCELLED
        assert agent.runner.count(JobState.RUNNING) == 1


async def test_a_job_cancelled_before_it_came_never_begins(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.cancel(J1, 1)
        assert (await agent.result()).state is JobState.CANCELLED
        await agent.runner.start(a_job())
        assert (await agent.result()).state is JobState.CANCELLED
        assert agent.shop.notes() == []


async def test_an_ended_job_reports_its_end_again(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(a_job())
        await agent.result()
        await agent.runner.cancel(J1, 1)
        assert (await agent.result()).state is JobState.COMPLETED


async def test_a_cancel_is_kept_over_a_restart_and_undoes_the_dump(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold("checkpoint")
        await agent.runner.start(a_job(JobKind.CHECKPOINT))
        await until(lambda: "checkpoint begun" in agent.shop.notes())
    (
        tmp_path / "dump-J1"
    ).touch()  # it runs on by itself, and the agent dies right after the cancel
    entry = tmp_path / "jobs" / "J1.json"
    entry.write_text(entry.read_text().replace('"cancel":false', '"cancel":true'))
    async with an_agent(tmp_path) as agent:
        assert (await agent.result()).state is JobState.CANCELLED
        assert agent.shop.notes()[-1] == "deleted CP1"
        assert not (tmp_path / "CP1").exists()
