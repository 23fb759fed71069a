"""Carries jobs out: each at most once per id, each step on disk before it is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from agent import errors
from agent.formats.jobs import (
    Job,
    JobBrief,
    JobFailure,
    JobId,
    JobKind,
    JobResult,
    JobState,
    JobUpdate,
    Progress,
    Report,
)
from agent.jobs import lanes, progress, steps
from agent.jobs.journal import Entry, is_job_id
from agent.jobs.ledger import Ledger
from agent.jobs.outbox import Outbox
from agent.runtimes import commands

log = logging.getLogger(__name__)

FORGET_EVERY_S: Final = 600.0
RECORD_S: Final = 30.0  # for a write to the journal that must not be interrupted


class Runner:
    """The jobs of this node. ``open`` it, then keep ``run`` running; the link calls the rest."""

    def __init__(
        self, ledger: Ledger, work: steps.Steps, outbox: Outbox, turns: lanes.Lanes
    ) -> None:
        self._ledger = ledger
        self._steps = work
        self._outbox = outbox
        self._lanes = turns
        self._found: set[str] = set()  # living jobs of an agent that died
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._accepted: asyncio.Queue[str] = asyncio.Queue()
        self._unsettled: set[str] = set()  # of the found ones, those that have not ended yet
        self.settled = asyncio.Event()  # what an agent that died had begun is brought to its end

    async def open(self) -> None:
        """Read what an earlier agent had promised: results go out again, living jobs go on in ``run``.

        Raises:
            OSError: the journal can't be used.
        """
        for entry in await self._ledger.open():
            if not entry.ended:
                log.info("job %s was left %s at step %r", entry.job_id, entry.state, entry.step)
                self._found.add(entry.job_id)
                self._accepted.put_nowait(entry.job_id)
            elif not entry.delivered_s:
                self._outbox.result(news_of(entry))
        self._unsettled = set(self._found)
        self._settle("")

    async def run(self) -> None:
        """Carry accepted jobs out until cancelled; then, what has begun is left to the next agent."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forget_old(), name="jobs: forget")
            while True:
                job_id = await self._accepted.get()
                task = group.create_task(self._carry_out(job_id), name=f"job {job_id}")
                self._tasks[job_id] = task
                task.add_done_callback(partial(self._forget_task, job_id))

    async def start(self, job: Job) -> None:
        """Accept ``job``: it is on disk when this returns. A known id only reports again.

        A newer epoch takes the job over, an older one is ignored.
        """
        known = self._ledger.get(job.job_id)
        if known is None:
            try:
                steps.check(job)
            except errors.Refused as refusal:
                await self.refuse(job.job_id, job.epoch, failure_of(refusal))
                return
            await self._accept(Entry(job_id=job.job_id, epoch=job.epoch, job=job))
            return
        if job.epoch < known.epoch:
            log.warning("job %s: epoch %d is over, ignored", job.job_id, job.epoch)
            return
        if job.epoch > known.epoch:
            await self._ledger.change(job.job_id, epoch=job.epoch)
        self._say_again(job.job_id)

    async def refuse(self, job_id: str, epoch: int, failure: JobFailure) -> None:
        """Have ``job_id`` on record as failed before it began."""
        if not is_job_id(job_id):
            log.error("a job came with an id that is none, ignored: %r", job_id[:80])
        elif self._ledger.get(job_id) is None:
            entry = Entry(job_id=job_id, epoch=epoch, job=None, error=failure)
            await self._accept(entry.moved(JobState.FAILED))

    async def cancel(self, job_id: JobId, epoch: int) -> None:
        """Cancel ``job_id``; the wish is on disk when this returns.

        An ended job reports again. One that was never given is marked, so that it won't start
        later.
        """
        known = self._ledger.get(job_id)
        if known is None:
            if is_job_id(job_id):
                entry = Entry(job_id=job_id, epoch=epoch, job=None, cancel=True)
                await self._accept(entry.moved(JobState.CANCELLED))
        elif epoch < known.epoch:
            log.warning("job %s: a cancel of epoch %d is over, ignored", job_id, epoch)
        elif known.ended:
            self._say_again(job_id)
        else:
            await self._ledger.change(job_id, cancel=True, epoch=epoch)
            if task := self._tasks.get(job_id):
                task.cancel()

    @asynccontextmanager
    async def without_dumps(self) -> AsyncIterator[None]:
        """Wait until no job dumps, and let none begin to for the block."""
        async with self._lanes.turn(lanes.Lane.PREPARE, ()):
            yield

    @property
    def is_dumping(self) -> bool:
        """Whether a dump runs that must not be cancelled because the agent ends."""
        return any(_dumps(self._ledger[job_id]) for job_id in self._tasks)

    @property
    def busy_checkpoints(self) -> frozenset[str]:
        """The checkpoints that jobs make, read or remove, or are going to."""
        return frozenset().union(*(lanes.checkpoints_of(job) for job in self._ledger.living()))

    async def acknowledged(self, up_to: int) -> None:
        """The control plane has all news that was sent under numbers up to ``up_to``."""
        self._ledger.raise_sequence(up_to)
        for job_id in self._outbox.acknowledged(up_to):
            await self._ledger.delivered(job_id)

    @property
    def last_sequence(self) -> int:
        """The highest number that this node has given to news."""
        return self._ledger.last_sequence

    def briefs(self) -> tuple[JobBrief, ...]:
        """What the control plane may still wait for."""
        return self._ledger.briefs()

    def count(self, state: JobState) -> int:
        """How many jobs are in ``state``."""
        return self._ledger.count(state)

    # -- one job

    def _forget_task(self, job_id: str, _: asyncio.Task[None]) -> None:
        self._tasks.pop(job_id, None)

    async def _accept(self, entry: Entry) -> None:
        entry = await self._ledger.accept(entry)
        kind = entry.job.kind if entry.job else "no job"
        log.info("job %s accepted: %s, %s", entry.job_id, kind, entry.state)
        if entry.ended:
            self._outbox.result(news_of(entry))
        else:
            self._accepted.put_nowait(entry.job_id)

    async def _carry_out(self, job_id: str) -> None:
        """Bring one job to its end; only the agent's own end interrupts it."""
        try:
            await self._work(job_id)
        except asyncio.CancelledError:
            if not self._ledger[job_id].cancel:
                raise  # the agent ends; the journal says where to go on
            await self._end(job_id, JobState.CANCELLED)
        except errors.SnapError as failure:
            await self._end(job_id, JobState.FAILED, failure_of(failure))
        except Exception as failure:
            log.exception("job %s failed in a way that nobody foresaw", job_id)
            await self._end(job_id, JobState.FAILED, _unforeseen(failure))
        else:
            cancelled = self._ledger[job_id].cancel and not self._is_done(job_id)
            await self._end(job_id, JobState.CANCELLED if cancelled else JobState.COMPLETED)

    async def _work(self, job_id: str) -> None:
        entry = self._ledger[job_id]
        job = entry.job
        assert job is not None  # noqa: S101 - entries without a job are ended
        self._say(job_id, Progress(0.0, "Waiting for its turn"))
        async with self._lanes.turn(lanes.lane_of(job.kind), lanes.keys_of(job)):
            for step in steps.plan(job)[entry.done :]:
                entry = self._ledger[job_id]
                begun = job_id in self._found and entry.step == step.name
                report = self._reporter(job_id, step)
                if entry.cancel:
                    if begun:
                        await self._steps.undo(step, entry, report)
                    return
                if not begun:
                    entry = await self._ledger.change(
                        job_id, step=step.name, state=JobState.RUNNING
                    )
                report(Progress(0.0, steps.BEGINNINGS[step.kind]))
                gained = await self._steps.take(step, entry, begun=begun, report=report)
                done = {"done": entry.done + 1, **gained}
                await commands.finish(self._ledger.change(job_id, **done), RECORD_S)

    def _is_done(self, job_id: str) -> bool:
        entry = self._ledger[job_id]
        return entry.job is not None and entry.done == len(steps.plan(entry.job))

    async def _end(self, job_id: str, state: JobState, failure: JobFailure | None = None) -> None:
        """Put the end on disk and say it, although the task may be cancelled again."""

        async def end() -> None:
            entry = await self._ledger.change(job_id, state=state, error=failure)
            log.info("job %s %s%s", job_id, state, f": {failure.message}" if failure else "")
            self._outbox.result(news_of(entry))
            self._settle(job_id)

        await commands.finish(end(), RECORD_S)

    def _settle(self, job_id: str) -> None:
        self._unsettled.discard(job_id)
        if not self._unsettled:
            self.settled.set()

    # -- news

    def _reporter(self, job_id: str, step: steps.Step) -> Report:
        meter = progress.Meter(step.span)
        return lambda said: self._say(job_id, meter.read(said))

    def _say(self, job_id: str, said: Progress) -> None:
        entry = self._ledger[job_id]
        if not entry.ended:  # a worker thread may not have heard yet
            self._outbox.progress(news_of(entry, said))

    def _say_again(self, job_id: str) -> None:
        entry = self._ledger[job_id]
        if entry.ended:
            self._outbox.result(news_of(entry))

    async def _forget_old(self) -> None:
        while True:
            await self._ledger.forget_delivered()
            await asyncio.sleep(FORGET_EVERY_S)


def news_of(entry: Entry, said: Progress | None = None) -> JobUpdate:
    """What is to be said of ``entry``: how far it is, or how it ended and what it gave.

    A job that failed or was cancelled late still says what it made: a checkpoint whose push failed
        is there.
    """
    gave = JobResult(entry.checkpoints, entry.pushes, entry.report_json) if entry.ended else None
    completed = entry.state is JobState.COMPLETED
    return JobUpdate(
        job_id=JobId(entry.job_id),
        epoch=entry.epoch,
        sequence=0,  # given when it is sent
        state=entry.state,
        progress=100.0 if completed else round(said.percent, 1) if said else 0.0,
        message=said.message if said else _last_words(entry),
        task_name=steps.TASK_NAMES.get(entry.job.kind, "") if entry.job else "",
        bytes_done=said.bytes_done if said else 0,
        bytes_total=said.bytes_total if said else 0,
        bytes_per_s=said.bytes_per_s if said else 0,
        result=gave if gave and (completed or gave.checkpoints or gave.pushes) else None,
        error=entry.error,
    )


def _dumps(entry: Entry) -> bool:
    """Whether ``entry`` is in its first step and that is a dump which shall go on."""
    begun = entry.state is JobState.RUNNING and entry.done == 0 and not entry.cancel
    return begun and entry.step.startswith(f"{JobKind.CHECKPOINT}/")


def failure_of(failure: errors.SnapError) -> JobFailure:
    """``failure`` as it travels to the user."""
    return JobFailure(failure.code, failure.message, failure.details)


def _unforeseen(failure: Exception) -> JobFailure:
    return JobFailure(
        errors.INTERNAL_ERROR,
        "The agent failed in a way that nobody foresaw; its log on the node says more.",
        type(failure).__name__,  # not its text: nobody checked it for secrets
    )


def _last_words(entry: Entry) -> str:
    if entry.error:
        return entry.error.message
    if entry.state is JobState.CANCELLED:
        return "Cancelled"
    if entry.pushes:
        return f"Pushed {', '.join(push.image for push in entry.pushes)}"
    if entry.checkpoints:
        pause_ms = max(result.pause_ms for result in entry.checkpoints)
        size_bytes = sum(result.size_bytes for result in entry.checkpoints)
        return f"Checkpointed, {progress.size(size_bytes)}, paused for {pause_ms:.0f} ms"
    if entry.job and entry.job.analyze:
        return "Analyzed"
    if entry.job and entry.job.kind is JobKind.PREPARE:
        return "The node is as it was before" if entry.job.undo else "The node is prepared"
    return "Done"
