"""The hub: who sees what, what comes first, what happens to the slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from controlplane.identity import Actor, Role
from controlplane.live.hub import QUEUE, Event, LiveHub
from controlplane.store.records import Job, JobKind, JobSpec, JobState

ANN, BOB = Actor("ann", Role.OPERATOR), Actor("bob", Role.VIEWER)
ROOT = Actor("root", Role.ADMINISTRATOR)


def job(job_id: str, owner: str = "ann", state: str = "running", *, broadcast: bool = False) -> Job:
    return Job(
        id=job_id,
        kind=JobKind.CHECKPOINT,
        state=JobState(state),
        epoch=1,
        cluster="dev",
        node="n",
        namespace="default",
        owner=owner,
        initiator="SnapApi",
        broadcast=broadcast,
        task_name="Create Checkpoint",
        spec=JobSpec(),
        updated_at="2024-01-15T10:30:00.000Z",
    )


async def next_of(events: AsyncIterator[Event]) -> Event:
    async with asyncio.timeout(2):
        return await anext(events)


async def test_own_and_broadcast_jobs_and_all_for_administrators() -> None:
    hub = LiveHub()
    async with hub.subscribe(ANN) as ann, hub.subscribe(BOB) as bob, hub.subscribe(ROOT) as root:
        hub.publish(job("a", "ann"))
        hub.publish(job("w", "system", broadcast=True))
        assert [(await next_of(ann)).job_id for _ in range(2)] == ["a", "w"]
        assert (await next_of(bob)).job_id == "w"
        assert [(await next_of(root)).job_id for _ in range(2)] == ["a", "w"]


async def test_the_running_jobs_latest_state_comes_first() -> None:
    hub = LiveHub()
    hub.publish(job("done"))
    hub.publish(job("running"))
    hub.publish(job("done", state="completed"))
    latest = msgspec.structs.replace(job("running"), progress=30.0)
    hub.publish(latest)
    async with hub.subscribe(ANN) as events:
        first = await next_of(events)
        assert (first.job_id, first.message()["progress"]) == ("running", 30.0)
        hub.publish(job("new"))
        assert (await next_of(events)).job_id == "new"


async def test_since_brings_what_was_missed() -> None:
    hub = LiveHub()
    for name in "abcd":
        hub.publish(job(name))
    async with hub.subscribe(ANN, since=2) as events:
        assert [(await next_of(events)).id for _ in range(2)] == [3, 4]
    async with hub.subscribe(ANN, since=10**9) as events:  # of an earlier process
        assert (await next_of(events)).job_id == "a"


async def test_a_slow_reader_is_dropped_and_others_are_not() -> None:
    hub = LiveHub()
    async with hub.subscribe(ANN) as slow:
        for number in range(QUEUE + 10):
            hub.publish(job(str(number)))
        assert hub.subscribers == 0
        read = [event async for event in slow]
        assert len(read) == QUEUE


async def test_a_failure_reads_failed() -> None:
    hub = LiveHub()
    async with hub.subscribe(ANN) as events:
        hub.publish(job("x", state="failed"))
        message = (await next_of(events)).message()
    assert message["progress"] == "failed"
    assert {"type", "task_name", "message", "timestamp", "job_id", "cluster"} <= set(message)


async def test_closing_ends_every_reader() -> None:
    hub = LiveHub()
    async with hub.subscribe(ANN) as events:
        hub.publish(job("x"))
        hub.close()
        assert [event.job_id async for event in events] == ["x"]
    async with hub.subscribe(ANN) as late:
        async with asyncio.timeout(2):
            assert len([event async for event in late]) == 1


async def test_a_batch_is_all_there_is_and_the_end_comes_after_it() -> None:
    hub = LiveHub()
    async with hub.subscribe(ROOT) as news:
        for name in "abc":
            hub.publish(job(name))
        hub.close()
        assert [event.job_id for event in await news.batch()] == ["a", "b", "c"]
        assert await news.batch() == []


async def test_an_event_is_offered_to_nobody_whom_it_does_not_concern() -> None:
    hub = LiveHub()
    async with hub.subscribe(ANN) as ann, hub.subscribe(BOB) as bob:
        hub.publish(job("a", "ann"))
        own = (await ann.batch())[0]
        assert hub.concerned(own) == [ann]  # nothing is even asked of the others
        hub.publish(job("w", "system", broadcast=True))
        assert [event.job_id for event in await bob.batch()] == ["w"]


async def test_a_message_is_encoded_once_for_all_who_read_it() -> None:
    hub = LiveHub()
    async with hub.subscribe(ANN) as ann, hub.subscribe(ROOT) as root:
        hub.publish(job("a"))
        mine, theirs = await next_of(ann), await next_of(root)
    assert mine.encoded() is theirs.encoded()
    assert msgspec.json.decode(mine.encoded()) == mine.message()
