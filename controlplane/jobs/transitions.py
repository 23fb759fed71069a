"""The one table of what a job's state may become."""

from __future__ import annotations

from typing import Final

import msgspec

from controlplane.store import clock
from controlplane.store.records import ENDED, Job, JobFailure, JobState, JobUpdate

# completed right from queued: the news that it ran may have been coalesced away
TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.QUEUED, JobState.RUNNING}) | ENDED,
    JobState.RUNNING: frozenset({JobState.RUNNING}) | ENDED,
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

_BEGUN: Final = frozenset({JobState.RUNNING, JobState.COMPLETED})


def advance(job: Job, news: JobUpdate, at: str) -> Job | None:
    """``job`` after ``news``; None if the news are refused (older lease, or no such transition).

    Args:
        at: the time that it then has, as the store writes it.
    """
    if news.epoch < job.epoch or news.state not in TRANSITIONS[job.state]:
        return None
    ended = news.state in ENDED
    completed = news.state is JobState.COMPLETED
    done, total = _bytes(job, news)
    return msgspec.structs.replace(
        job,
        state=news.state,
        progress=100.0 if completed else min(max(job.progress, news.progress), 100.0),
        message=news.message or (news.error.message if news.error else job.message),
        task_name=job.task_name or news.task_name,  # clients know a job by one name
        bytes_done=total if completed else done,
        bytes_total=total,
        bytes_per_s=0 if ended else news.bytes_per_s,
        result=news.result or job.result,
        error=(news.error or job.error) if ended and not completed else None,
        agent_lost=False,
        started_at=job.started_at or (at if news.state in _BEGUN else None),
        updated_at=at,
        ended_at=at if ended else None,
    )


def _bytes(job: Job, news: JobUpdate) -> tuple[int, int]:
    """Bytes done and in all; news that count none leave what was last counted."""
    counted = news if news.bytes_total or news.bytes_done else job
    return counted.bytes_done, counted.bytes_total


def ended_here(job: Job, state: JobState, message: str, error: JobFailure | None = None) -> Job:
    """``job`` ended by the control plane itself, its node having no part in it."""
    news = JobUpdate(
        job_id=job.id, epoch=job.epoch, sequence=0, state=state, message=message, error=error
    )
    after = advance(job, news, clock.now())
    return job if after is None else after
