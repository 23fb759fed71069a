"""Results are acknowledged at once, progress now and then; the last word is always said."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.errors import AgentUnavailable
from controlplane.link import frames
from controlplane.link.frames import NodeFacts
from controlplane.link.session import Session


def session() -> Session:
    return Session(frames.Hello("dev", "node-1", "1", "boot", NodeFacts(), b"", b"", 0, ()))


async def acknowledged(of: Session) -> int:
    async with asyncio.timeout(5):
        return (await of.next_frame()).ack.up_to_sequence


async def test_progress_shares_an_acknowledgement_and_the_last_one_comes_by_itself() -> None:
    joined = session()
    joined.stored(1, at_once=False)  # the first after a pause: at once
    assert await acknowledged(joined) == 1
    for sequence in range(2, 50):
        joined.stored(sequence, at_once=False)
    assert await acknowledged(joined) == 49


async def test_a_result_does_not_wait() -> None:
    joined = session()
    joined.stored(1, at_once=False)
    joined.stored(2, at_once=False)
    joined.stored(3, at_once=True)
    assert [await acknowledged(joined) for _ in range(2)] == [1, 3]


async def test_nothing_is_said_after_the_end() -> None:
    joined = session()
    joined.stored(1, at_once=False)
    joined.stored(2, at_once=False)
    joined.close()
    with pytest.raises(AgentUnavailable):
        joined.stored(3, at_once=True)
