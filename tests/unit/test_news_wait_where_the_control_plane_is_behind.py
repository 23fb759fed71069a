"""The pace of news: the control plane asks for fewer when storing is slow, the agent heeds it and its silence."""

from __future__ import annotations

import asyncio

import pytest

from agent.link import pacing as agents_pacing
from agent.link.pacing import ANSWERED_S, NEWS_EVERY_S
from controlplane.jobs import pacing
from controlplane.jobs.pacing import MOST_S, SLOW_S
from controlplane.link import frames
from controlplane.link.frames import NodeFacts
from controlplane.link.session import Session


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_asked_while_news_are_stored_soon() -> None:
    pace = pacing.Pace(Clock())
    for _ in range(100):
        pace.took(SLOW_S)
    assert pace.every_s() == 0.0


def test_one_slow_round_asks_for_a_pace_that_leaves_room() -> None:
    pace = pacing.Pace(Clock())
    pace.took(1.0)
    assert 1.0 < pace.every_s() < 2.0


def test_a_round_that_is_less_slow_does_not_quicken_the_pace() -> None:
    pace = pacing.Pace(Clock())
    pace.took(1.0)
    asked = pace.every_s()
    pace.took(0.2)
    assert pace.every_s() == asked


def test_the_pace_eases_little_by_little_until_nothing_is_asked() -> None:
    clock = Clock()
    pace = pacing.Pace(clock)
    pace.took(1.0)
    seen = []
    for _ in range(30):
        seen.append(pace.every_s())
        clock.now += 1.0
    assert seen == sorted(seen, reverse=True)
    assert seen[5] > seen[0] / 2
    assert seen[-1] == 0.0


def test_agents_are_never_silenced_for_long() -> None:
    pace = pacing.Pace(Clock())
    pace.took(3600.0)
    assert pace.every_s() == MOST_S


def test_an_agent_keeps_its_pace_while_it_is_answered_and_asked_for_nothing() -> None:
    clock = Clock()
    pace = agents_pacing.Pace(clock)
    for sequence in range(1, 40):
        pace.sent(sequence)
        assert pace.every_s() == NEWS_EVERY_S
        clock.now += NEWS_EVERY_S
        if sequence % 8 == 0:  # each two seconds, as control planes of all versions do
            pace.acknowledged(sequence, 0.0)


def test_an_agent_does_as_it_is_asked_until_it_is_told_otherwise() -> None:
    clock = Clock()
    pace = agents_pacing.Pace(clock)
    pace.sent(1)
    pace.acknowledged(1, 1.5)
    assert pace.every_s() == 1.5
    pace.sent(2)
    pace.acknowledged(2, 0.0)
    assert pace.every_s() == NEWS_EVERY_S


@pytest.mark.parametrize("overdue_s", [1.0, 7.0])
def test_an_agent_waits_longer_the_longer_its_answer_is_overdue(overdue_s: float) -> None:
    clock = Clock()
    pace = agents_pacing.Pace(clock)
    pace.sent(1)
    pace.sent(2)
    pace.acknowledged(1, 0.0)
    clock.now += ANSWERED_S + overdue_s
    pace.sent(3)
    assert pace.every_s() == pytest.approx(overdue_s)
    pace.acknowledged(3, 0.0)
    assert pace.every_s() == NEWS_EVERY_S


async def test_an_acknowledgement_says_how_often_news_may_come() -> None:
    joined = Session(frames.Hello("dev", "node-1", "1", "boot", NodeFacts(), b"", b"", 0, ()))
    joined.stored(7, at_once=False, every_s=1.5)
    async with asyncio.timeout(5):
        told = (await joined.next_frame()).ack
    assert (told.up_to_sequence, told.news_every_s) == (7, 1.5)
