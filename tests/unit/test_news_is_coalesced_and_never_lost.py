"""The outbox: only the latest progress, every result until it is acknowledged, numbers that rise."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest

from agent.formats.jobs import JobId, JobResult, JobState, JobUpdate
from agent.jobs.outbox import BATCH, Outbox


class Counting:
    """Numbers from one on."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def next_sequence(self) -> int:
        return next(self._count)


def progress(job_id: str, percent: float) -> JobUpdate:
    return JobUpdate(JobId(job_id), 1, 0, JobState.RUNNING, percent)


def result(job_id: str) -> JobUpdate:
    return JobUpdate(JobId(job_id), 1, 0, JobState.COMPLETED, 100.0, result=JobResult())


async def test_only_the_latest_progress_of_each_job_is_sent() -> None:
    outbox = Outbox(Counting())
    for percent in range(100):
        outbox.progress(progress("A", percent))
        outbox.progress(progress("B", percent / 2))
    sent = await outbox.take()
    assert [(one.job_id, one.progress) for one in sent] == [("A", 99), ("B", 49.5)]
    assert await outbox.take() == ()


async def test_a_result_ends_the_progress_of_its_job() -> None:
    outbox = Outbox(Counting())
    outbox.progress(progress("A", 50))
    outbox.result(result("A"))
    outbox.progress(progress("A", 60))  # a worker thread that was late
    assert [one.state for one in await outbox.take()] == [JobState.COMPLETED]


async def test_results_are_sent_again_in_each_session_until_they_are_acknowledged() -> None:
    outbox = Outbox(Counting())
    outbox.result(result("A"))
    first = await outbox.take()
    assert await outbox.take() == ()
    outbox.begin_session()
    second = await outbox.take()
    assert [one.job_id for one in second] == ["A"]
    assert second[0].sequence > first[0].sequence
    assert outbox.acknowledged(first[0].sequence) == ()  # it was sent anew since
    assert outbox.acknowledged(second[0].sequence) == ("A",)
    outbox.begin_session()
    assert await outbox.take() == ()


async def test_an_acknowledgement_covers_only_what_was_sent() -> None:
    outbox = Outbox(Counting())
    outbox.result(result("A"))
    sent = await outbox.take()
    outbox.result(result("B"))
    assert outbox.acknowledged(sent[-1].sequence + 100) == ("A",)
    assert [one.job_id for one in await outbox.take()] == ["B"]


async def test_numbers_rise_through_results_and_progress() -> None:
    outbox = Outbox(Counting())
    outbox.progress(progress("A", 1))
    outbox.result(result("B"))
    outbox.progress(progress("C", 1))
    sequences = [one.sequence for one in await outbox.take()]
    assert sequences == sorted(sequences)


async def test_results_are_urgent_and_progress_is_not() -> None:
    outbox = Outbox(Counting())
    outbox.progress(progress("A", 1))
    await outbox.wait()
    await outbox.take()
    outbox.progress(progress("A", 2))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await outbox.wait_urgent(10)
    outbox.result(result("A"))
    async with asyncio.timeout(5):
        await outbox.wait_urgent(10)


async def test_progress_may_come_from_threads() -> None:
    outbox = Outbox(Counting())

    def work(name: str) -> None:
        for percent in range(1, 501):
            outbox.progress(progress(name, percent / 5))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ABCD"]
    for thread in threads:
        thread.start()
    await outbox.wait()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    sent = await outbox.take()
    assert {one.job_id: one.progress for one in sent} == dict.fromkeys("ABCD", 100.0)


async def test_a_flood_of_results_goes_out_in_batches() -> None:
    outbox = Outbox(Counting())
    for number in range(BATCH + 10):
        outbox.result(result(f"J{number:04}"))
    first = await outbox.take()
    await outbox.wait()
    second = await outbox.take()
    assert (len(first), len(second)) == (BATCH, 10)
    assert second[0].sequence > first[-1].sequence
