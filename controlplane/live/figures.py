"""Figures of jobs for Prometheus, taken from the same news that users follow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controlplane.store.records import Job, JobState

_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_PAUSE_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_BYTES: Final = tuple(float(1 << exponent) for exponent in range(16, 41, 2))  # 64 KiB to 1 TiB


class JobFigures:
    """Counts jobs as their news pass through on the way to ``publish``."""

    def __init__(self, registry: CollectorRegistry, publish: Callable[[Job], None]) -> None:
        self._publish = publish
        self._open: dict[str, JobState] = {}
        self._ended = Counter("snap_jobs", "Jobs ended", ["kind", "state"], registry=registry)
        self._errors = Counter("snap_job_errors", "Jobs failed", ["code"], registry=registry)
        self._seconds = Histogram(
            "snap_job_seconds",
            "Time from a job's request to its end",
            ["kind", "state"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._pause = Histogram(
            "snap_checkpoint_pause_seconds",
            "How long a container stood still",
            buckets=_PAUSE_S,
            registry=registry,
        )
        self._size = Histogram(
            "snap_checkpoint_size_bytes", "Size of checkpoints", buckets=_BYTES, registry=registry
        )
        self._image = Histogram(
            "snap_image_size_bytes", "Size of images", buckets=_BYTES, registry=registry
        )
        self._pushed = Counter(
            "snap_pushed_bytes", "Bytes that registries did not have yet", registry=registry
        )
        waiting = Gauge("snap_jobs_open", "Jobs not ended yet", ["state"], registry=registry)
        for state in (JobState.QUEUED, JobState.RUNNING):
            waiting.labels(state).set_function(functools.partial(self._count, state))

    def __call__(self, job: Job) -> None:
        """Take in a job's latest state, and pass it on."""
        if not job.is_ended:
            self._open[job.id] = job.state
        elif self._open.pop(job.id, None) is not None:  # late news of an ended job is not counted
            self._count_end(job)
        self._publish(job)

    def _count(self, state: JobState) -> int:
        return sum(one is state for one in self._open.values())

    def _count_end(self, job: Job) -> None:
        self._ended.labels(job.kind, job.state).inc()
        if job.error is not None:
            self._errors.labels(job.error.code).inc()
        if job.ended_at:
            self._seconds.labels(job.kind, job.state).observe(
                _seconds(job.created_at, job.ended_at)
            )
        for made in job.result.checkpoints if job.result else ():
            self._pause.observe(made.pause_ms / 1000)
            self._size.observe(made.size_bytes)
        for push in job.result.pushes if job.result else ():
            self._image.observe(push.size_bytes)
            self._pushed.inc(push.pushed_bytes)


def _seconds(begin: str, end: str) -> float:
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds())
