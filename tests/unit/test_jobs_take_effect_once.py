"""A job id takes effect at most once, whatever is repeated, cancelled or interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.formats.jobs import JobId, JobKind, JobState
from tests.fakes.jobs import a_job, an_agent, until


async def test_checkpoint_and_push_gives_both_results(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(a_job())
        update = await agent.result()
    assert update.state is JobState.COMPLETED
    assert update.progress == 100.0
    assert update.task_name == "Create and Push Checkpoint"
    assert update.message == "Pushed registry.test:5000/snap/redis:v1"
    assert update.result is not None
    assert [one.checkpoint_id for one in update.result.checkpoints] == ["CP1"]
    assert [one.image for one in update.result.pushes] == ["registry.test:5000/snap/redis:v1"]


@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        (JobKind.CHECKPOINT, "checkpoint done CP1"),
        (JobKind.PUSH, "push done registry.test:5000/snap/redis:v1"),
        (JobKind.PREFETCH, "fetch done registry.test/snap@sha256:" + "2" * 64),
        (JobKind.DELETE, "deleted CP1"),
        (JobKind.ANALYZE, "analyze done CP1"),
    ],
)
async def test_each_kind_does_its_work(tmp_path: Path, kind: JobKind, effect: str) -> None:
    async with an_agent(tmp_path) as agent:
        if kind is not JobKind.CHECKPOINT:
            (tmp_path / "CP1").mkdir()
        await agent.runner.start(a_job(kind))
        assert (await agent.result()).state is JobState.COMPLETED
        assert agent.shop.notes()[-1] == effect


async def test_a_repeated_start_only_reports_again(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(a_job())
        first = await agent.result()
        await agent.runner.start(a_job())
        again = await agent.result()
        notes = agent.shop.notes()
    assert again.result == first.result
    assert again.sequence > first.sequence
    assert notes.count("checkpoint done CP1") == 1


async def test_a_repeated_start_after_a_restart_only_reports_again(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(a_job())
        first = await agent.result()
        await agent.runner.acknowledged(first.sequence)
    async with an_agent(tmp_path) as agent:
        assert agent.runner.briefs() == ()
        await agent.runner.start(a_job())
        again = await agent.result()
        assert agent.shop.notes().count("checkpoint done CP1") == 1
    assert again.result == first.result
    assert again.sequence > first.sequence


async def test_a_newer_epoch_takes_over_and_an_older_is_ignored(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold("checkpoint")
        await agent.runner.start(a_job(epoch=2))
        await agent.runner.start(a_job(epoch=1))
        await until(lambda: "checkpoint begun" in agent.shop.notes())
        await agent.runner.start(a_job(epoch=3))
        await agent.runner.cancel(a_job().job_id, epoch=1)
        agent.shop.release("checkpoint")
        update = await agent.result()
        assert agent.shop.notes().count("checkpoint done CP1") == 1
    assert (update.state, update.epoch) == (JobState.COMPLETED, 3)


@pytest.mark.parametrize("step", ["checkpoint", "push"])
async def test_a_job_goes_on_where_it_was_interrupted(tmp_path: Path, step: str) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold(step)
        await agent.runner.start(a_job())
        await until(lambda: f"{step} begun" in agent.shop.notes())
        (tmp_path / "dump-J1").touch()  # a dump runs on by itself
    async with an_agent(tmp_path) as agent:
        assert [brief.state for brief in agent.runner.briefs()] == [JobState.RUNNING]
        agent.shop.release(step)
        update = await agent.result()
        notes = agent.shop.notes()
    assert update.state is JobState.COMPLETED
    assert notes.count("checkpoint done CP1") == 1
    assert notes.count("push done registry.test:5000/snap/redis:v1") == 1


async def test_an_unbegun_checkpoint_is_begun_after_a_restart(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.hold("checkpoint")
        await agent.runner.start(a_job(JobKind.CHECKPOINT))
        await until(lambda: "checkpoint begun" in agent.shop.notes())
        agent.shop.release("checkpoint")
    (tmp_path / "dump-J1").unlink(missing_ok=True)  # recover() finds nothing
    async with an_agent(tmp_path) as agent:
        assert (await agent.result()).state is JobState.COMPLETED


async def test_a_failed_push_still_gives_its_checkpoint(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        agent.shop.fail("push")
        await agent.runner.start(a_job())
        update = await agent.result()
    assert update.state is JobState.FAILED
    assert update.error is not None
    assert (update.error.message, update.error.details) == ("push failed.", "its words")
    assert update.result is not None
    assert [one.checkpoint_id for one in update.result.checkpoints] == ["CP1"]


@pytest.mark.parametrize("kind", [JobKind.RESTORE])
async def test_what_this_version_cannot_do_is_refused(tmp_path: Path, kind: JobKind) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(a_job(kind))
        update = await agent.result()
    assert update.state is JobState.FAILED
    assert update.error is not None
    assert f"can't do {kind} jobs; it can do checkpoint, push" in update.error.message
    assert update.error.code == "VALIDATION_ERROR"


async def test_an_uploaded_archive_leaves_the_node_after_its_push(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(a_job(JobKind.IMPORT))
        update = await agent.result()
        notes = agent.shop.notes()
    assert update.state is JobState.COMPLETED
    assert update.result is not None
    assert [one.checkpoint_id for one in update.result.pushes] == ["CP1"]
    done = [note for note in notes if " done " in note or note.startswith("deleted")]
    assert done[0] == "import done CP1"
    assert done[-2:] == ["push done registry.test:5000/snap/redis:v1", "deleted CP1"]


@pytest.mark.parametrize("how", ["fails", "cancelled"])
async def test_an_uploaded_archive_leaves_the_node_when_its_push_does_not_work(
    tmp_path: Path, how: str
) -> None:
    async with an_agent(tmp_path) as agent:
        if how == "fails":
            agent.shop.fail("push")
        else:
            agent.shop.hold("push")
        await agent.runner.start(a_job(JobKind.IMPORT))
        if how == "cancelled":
            await until(lambda: "push begun" in agent.shop.notes())
            await agent.runner.cancel(JobId("J1"), 1)
        update = await agent.result()
        notes = agent.shop.notes()
    assert update.state in (JobState.FAILED, JobState.CANCELLED)
    assert notes[-1] == "deleted CP1"


async def test_a_report_is_given_and_then_dropped_from_the_node(tmp_path: Path) -> None:
    async with an_agent(tmp_path) as agent:
        await agent.runner.start(a_job(JobKind.ANALYZE))
        update = await agent.result()
        assert update.result is not None
        assert update.result.report_json == '{"of":"CP1"}'
        assert "report" not in repr(update)
        written = (agent.journal_dir / "J1.json").read_text()
        assert "CP1" in written
        await agent.runner._ledger.delivered("J1")
        assert '\\"of\\"' not in (agent.journal_dir / "J1.json").read_text()


async def test_a_job_that_cannot_be_written_down_fails_instead_of_being_lost(
    tmp_path: Path,
) -> None:
    async with an_agent(tmp_path) as agent:
        agent.journal_dir.rename(tmp_path / "gone")
        await agent.runner.start(a_job())
        update = await agent.result()
        (tmp_path / "gone").rename(agent.journal_dir)
    assert update.state is JobState.FAILED
    assert update.error is not None
    assert update.error.code == "INSUFFICIENT_STORAGE"
    assert agent.shop.notes() == []
