"""The jobs of this node in memory and on disk, always in step: the disk first."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

import msgspec

from agent import errors
from agent.formats.jobs import Job, JobBrief, JobFailure, JobId, JobState
from agent.jobs.journal import Entry, Journal

log = logging.getLogger(__name__)

KEEP_DELIVERED_S: Final = 24 * 3600.0  # a repeated StartJob within a day only reports again


class Ledger:
    """Entries by job id. Changes come one at a time, whoever makes them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._entries: dict[str, Entry] = {}
        self._changing = asyncio.Lock()

    async def open(self) -> tuple[Entry, ...]:
        """Read the journal; oldest job first.

        Raises:
            OSError: it can't be used.
        """
        entries = await asyncio.to_thread(self._journal.open)
        self._entries = {entry.job_id: entry for entry in entries}
        return entries

    def __getitem__(self, job_id: str) -> Entry:
        return self._entries[job_id]

    def get(self, job_id: str) -> Entry | None:
        """The entry of ``job_id``, if there is one."""
        return self._entries.get(job_id)

    def briefs(self) -> tuple[JobBrief, ...]:
        """What the control plane may still wait for."""
        return tuple(
            JobBrief(JobId(entry.job_id), entry.epoch, entry.state)
            for entry in self._entries.values()
            if not entry.delivered_s
        )

    @property
    def last_sequence(self) -> int:
        """The highest number that this node may have given to news."""
        return self._journal.last_sequence

    def raise_sequence(self, at_least: int) -> None:
        """Number news above ``at_least`` from now on."""
        self._journal.raise_sequence(at_least)

    def living(self) -> tuple[Job, ...]:
        """The jobs that have not ended."""
        return tuple(e.job for e in self._entries.values() if e.job and not e.ended)

    def count(self, state: JobState) -> int:
        """How many jobs are in ``state``."""
        return sum(entry.state is state for entry in list(self._entries.values()))

    async def accept(self, entry: Entry) -> Entry:
        """Have a new ``entry`` on disk; if the disk refuses, the job fails instead of being lost."""
        entry = msgspec.structs.replace(entry, accepted_s=time.time())
        async with self._changing:
            try:
                await asyncio.to_thread(self._journal.write, entry)
            except OSError as cause:
                log.warning("job %s can't be written down: %s", entry.job_id, cause)
                if not entry.ended:
                    entry = failed(entry, _not_written(str(cause)))
            self._entries[entry.job_id] = entry
        return entry

    async def change(self, job_id: str, *, state: JobState | None = None, **changes: Any) -> Entry:
        """Apply ``changes``, and ``state`` by the table of transitions, to a job's entry.

        Raises:
            Retryable: the disk refused, and the job lives: it must not go on unwritten. The news of
                an end is not held up by the disk.
            ValueError: the table has no such transition.
        """
        async with self._changing:
            entry = self._entries[job_id]
            changed = msgspec.structs.replace(entry, **changes)
            if state not in {None, entry.state}:
                assert state is not None  # noqa: S101 - for the type checker
                changed = changed.moved(state)
            try:
                await asyncio.to_thread(self._journal.write, changed)
            except OSError as cause:
                if not changed.ended:
                    failure = _not_written(str(cause))
                    raise errors.Retryable(
                        failure.message, code=failure.code, details=failure.details
                    ) from cause
                log.error("job %s: its end is not on disk: %s", job_id, cause)
            self._entries[job_id] = changed
            return changed

    async def delivered(self, job_id: str) -> None:
        """Note that the control plane has the result of ``job_id``, from now on for a day."""
        if (entry := self._entries.get(job_id)) and entry.ended:
            await self.change(job_id, delivered_s=time.time(), report_json="")

    async def forget_delivered(self) -> None:
        """Drop ended jobs a day after the control plane had their result."""
        old = time.time() - KEEP_DELIVERED_S
        for entry in list(self._entries.values()):
            if entry.ended and 0 < entry.delivered_s < old:
                del self._entries[entry.job_id]
                await asyncio.to_thread(self._journal.forget, entry.job_id)


def failed(entry: Entry, failure: JobFailure) -> Entry:
    """``entry`` ended by ``failure``."""
    return msgspec.structs.replace(entry, error=failure).moved(JobState.FAILED)


def _not_written(cause: str) -> JobFailure:
    return JobFailure(
        errors.INSUFFICIENT_STORAGE,
        "The node could not write down what it was about to do, so it did not do it; free its disk.",
        cause,
    )
