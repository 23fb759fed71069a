"""News for the control plane: progress is coalesced, results are kept until they are acknowledged.

Numbers are given when news is taken to be sent, so they rise on the wire, whatever happened in
between; a result that is sent again gets a new number. An acknowledgement covers only what was
sent.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Final, Protocol

from agent.formats.jobs import ENDED, JobId, JobUpdate

BATCH: Final = 200  # results in one frame, about 10 KiB each: well below gRPC's 4 MiB


class Numbers(Protocol):
    """Gives numbers that rise for ever; may block."""

    def next_sequence(self) -> int:
        """The next one."""


class Outbox:
    """What is to be said; fed by jobs (from any thread), emptied by the link."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._lock = threading.Lock()
        self._latest: dict[JobId, JobUpdate] = {}  # progress, one per living job
        self._fresh: set[JobId] = set()  # of these, what was not sent yet
        self._results: dict[JobId, JobUpdate] = {}  # until acknowledged
        self._unsent: set[JobId] = set()  # of these, what this session has not sent
        self._sent: dict[JobId, int] = {}  # number under which a result was sent last
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()

    def progress(self, update: JobUpdate) -> None:
        """Say how far a job is. Only the latest is sent; nothing is said after the job's result."""
        if update.state in ENDED:
            raise ValueError("an ended job has a result, not progress")
        with self._lock:
            if update.job_id in self._results:
                return
            self._latest[update.job_id] = update
            wake = not self._fresh
            self._fresh.add(update.job_id)
        if wake:
            self._loop.call_soon_threadsafe(self._news.set)

    def result(self, update: JobUpdate) -> None:
        """Say how a job ended; said again in every session until it is acknowledged."""
        with self._lock:
            self._latest.pop(update.job_id, None)
            self._fresh.discard(update.job_id)
            self._results[update.job_id] = update
            self._unsent.add(update.job_id)
        self._loop.call_soon_threadsafe(self._wake)

    def forget(self, job_id: JobId) -> None:
        """Say nothing more about ``job_id``'s past: it begins anew or is gone."""
        with self._lock:
            for kept in (self._latest, self._results, self._sent):
                kept.pop(job_id, None)
            self._fresh.discard(job_id)
            self._unsent.discard(job_id)

    def begin_session(self) -> None:
        """Say everything again that is not acknowledged: the other side may not have it."""
        with self._lock:
            self._fresh.update(self._latest)
            self._unsent.update(self._results)
        self._wake()

    async def wait(self) -> None:
        """Return when there is something to send."""
        await self._news.wait()

    async def wait_urgent(self, at_most_s: float) -> None:
        """Return when there is a result to send, or after ``at_most_s``: the pace of progress."""
        try:
            await asyncio.wait_for(self._urgent.wait(), at_most_s)
        except TimeoutError:
            return

    async def take(self) -> tuple[JobUpdate, ...]:
        """What is to be sent now, numbered in rising order; may be empty."""
        self._news.clear()
        self._urgent.clear()
        return await asyncio.to_thread(self._take)

    def _take(self) -> tuple[JobUpdate, ...]:
        with self._lock:
            results = [self._results[job_id] for job_id in sorted(self._unsent)[:BATCH]]
            progress = [self._latest[job_id] for job_id in sorted(self._fresh)]
            self._unsent.difference_update(update.job_id for update in results)
            self._fresh.clear()
            if self._unsent:
                self._loop.call_soon_threadsafe(self._wake)
        numbered = tuple(
            replace(update, sequence=self._numbers.next_sequence()) for update in results + progress
        )
        with self._lock:
            for taken, update in zip(results, numbered, strict=False):  # results come first
                if self._results.get(update.job_id) is taken:
                    self._sent[update.job_id] = update.sequence
        return numbered

    def acknowledged(self, up_to: int) -> tuple[JobId, ...]:
        """Drop the results that were sent under numbers up to ``up_to`` and return their jobs."""
        with self._lock:
            done = tuple(job_id for job_id, sequence in self._sent.items() if sequence <= up_to)
            for job_id in done:
                del self._sent[job_id]
                self._results.pop(job_id, None)
                self._unsent.discard(job_id)
        return done

    def _wake(self) -> None:
        self._news.set()
        self._urgent.set()
