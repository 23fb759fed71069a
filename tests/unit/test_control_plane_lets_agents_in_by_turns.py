"""A storm of joins: a few at a time, in order, and who waited too long is told to come back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from agent.link import conversation, session
from controlplane.errors import Retryable
from controlplane.link import door, server
from controlplane.link.door import Door


async def test_only_a_few_are_inside_and_all_get_in() -> None:
    door, inside, most, order = Door(at_once=3), 0, 0, list[int]()

    async def join(number: int) -> None:
        nonlocal inside, most
        async with door.passed():
            inside += 1
            most = max(most, inside)
            order.append(number)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(join, range(50)))
    assert most == 3
    assert order == list(range(50))


async def test_who_waits_too_long_is_sent_away_and_takes_no_place() -> None:
    door = Door(at_once=1, wait_s=0.01)
    async with door.passed():
        with pytest.raises(Retryable):
            async with door.passed():
                pass
    async with door.passed():
        pass


async def test_a_join_that_fails_gives_its_place_back() -> None:
    door = Door(at_once=1)
    for _ in range(3):
        with contextlib.suppress(ValueError):
            async with door.passed():
                raise ValueError
    async with door.passed():
        pass


def test_nobody_is_given_up_while_it_may_still_be_let_in() -> None:
    dialled = dict(session.OPTIONS)
    assert door.WAIT_S < conversation.HANDSHAKE_S
    assert server.HANDSHAKE_S < conversation.HANDSHAKE_S
    assert dialled["grpc.min_reconnect_backoff_ms"] >= conversation.HANDSHAKE_S * 1000
