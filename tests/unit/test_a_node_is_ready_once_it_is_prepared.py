"""A node whose agent prepares it says that it is not ready until that has ended, well or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import errors
from agent.formats.jobs import Report
from agent.node import at_start
from agent.node.facts import NodeFacts, Readiness
from agent.node.here import Here
from agent.node.vitals import Pulse
from agent.runtimes.commands import Host
from tests.fakes.jobs import until


class Node(Here):
    """A node whose probe found how it restores, and nothing else."""

    def __init__(self, folder: Path, *restores: str) -> None:
        super().__init__(Host(folder), "", Pulse(folder))
        self.restores = restores

    def facts(self) -> NodeFacts:
        return NodeFacts(restore_drivers=self.restores)

    async def told(self) -> Readiness:
        """As its status has it, but for the disk: that one is this machine's."""
        found = (await self.status(with_facts=True)).readiness
        reasons = tuple(one for one in found.reasons if one.code != "DiskLow")
        return replace(found, reasons=reasons)


class Work:
    """A preparation that ends when it is let go, and jobs that have a dump to end before it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.settled = asyncio.Event()
        self.dump_ended = asyncio.Event()
        self.go_on = asyncio.Event()
        self.steps: list[str] = []
        self._failure = failure

    @contextlib.asynccontextmanager
    async def without_dumps(self) -> AsyncIterator[None]:
        await self.dump_ended.wait()
        yield

    async def prepare(self, report: Report) -> None:
        await self.prepare_at_start(report)

    async def undo(self, report: Report) -> None:
        self.steps.append("undone")

    async def prepare_at_start(self, report: Report) -> None:
        self.steps.append("begun")
        await self.go_on.wait()
        if self._failure:
            raise self._failure


@contextlib.asynccontextmanager
async def preparing(node: Node, work: Work) -> AsyncIterator[asyncio.Task[None]]:
    at_start.announce(node)
    task = asyncio.create_task(at_start.run(work, node, work))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_is_not_ready_before(tmp_path: Path) -> None:
    node, work = Node(tmp_path), Work()
    async with preparing(node, work):
        for event in (work.settled, work.dump_ended, work.go_on):
            told = await node.told()
            assert not told.ready
            assert [reason.code for reason in told.reasons] == ["BeingPrepared"]
            event.set()
        async with asyncio.timeout(10):
            await node.wait_changed(3600)
        told = await node.told()
        assert told.ready
        assert told.reasons == ()


@pytest.mark.parametrize(
    "failure",
    [
        errors.Refused("No CRIU.", code=errors.CONFLICT),
        PermissionError(30, "Read-only file system", "/opt/snap/bin"),
    ],
    ids=["refused", "read-only"],
)
async def test_one_that_can_not_be_prepared_is_ready_for_the_rest(
    tmp_path: Path, failure: Exception
) -> None:
    node, work = Node(tmp_path), Work(failure)
    for event in (work.settled, work.dump_ended, work.go_on):
        event.set()
    async with preparing(node, work):
        await until(lambda: bool(work.steps))
        told = await node.told()
        assert told.ready
        assert [reason.code for reason in told.reasons] == ["PrepareFailed"]
        assert str(failure.args[-1]) in told.reasons[0].message


async def test_a_failure_that_nobody_foresaw_is_told_and_goes_on(tmp_path: Path) -> None:
    node, work = Node(tmp_path), Work(ZeroDivisionError())
    for event in (work.settled, work.dump_ended, work.go_on):
        event.set()
    async with preparing(node, work) as task:
        with pytest.raises(ZeroDivisionError):
            await task
        assert [reason.code for reason in (await node.told()).reasons] == ["PrepareFailed"]


async def failed_at_the_start(node: Node) -> None:
    work = Work(errors.Refused("No CRIU.", code=errors.CONFLICT))
    for event in (work.settled, work.dump_ended, work.go_on):
        event.set()
    async with preparing(node, work):
        await until(lambda: bool(work.steps))
    assert [reason.code for reason in (await node.told()).reasons] == ["PrepareFailed"]


@pytest.mark.parametrize("asked_for", ["prepare", "undo"])
async def test_what_failed_at_the_start_is_over_once_a_job_did_it(
    tmp_path: Path, asked_for: str
) -> None:
    node, later = Node(tmp_path), Work()
    later.go_on.set()
    await failed_at_the_start(node)
    await getattr(at_start.Asked(later, node), asked_for)(lambda _: None)
    assert (await node.told()).reasons == ()


async def test_what_failed_at_the_start_stays_while_jobs_fail_too(tmp_path: Path) -> None:
    node, later = Node(tmp_path), Work(errors.Refused("Still none.", code=errors.CONFLICT))
    later.go_on.set()
    await failed_at_the_start(node)
    with pytest.raises(errors.Refused):
        await at_start.Asked(later, node).prepare(lambda _: None)
    assert [reason.code for reason in (await node.told()).reasons] == ["PrepareFailed"]


async def test_what_an_earlier_agent_prepared_stays_ready(tmp_path: Path) -> None:
    node, work = Node(tmp_path, "runtime"), Work()
    async with preparing(node, work):
        assert (await node.told()).ready


async def test_nothing_new_is_no_change(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.note(at_start.BEING_PREPARED)
    await node.told()
    waiting = asyncio.create_task(node.wait_changed(3600))
    await asyncio.sleep(0)
    assert not waiting.done()
    node.note(None)
    async with asyncio.timeout(10):
        await waiting
