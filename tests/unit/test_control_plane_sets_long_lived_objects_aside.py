"""The collector looks at new objects only, at all of them once in a while, and misses no cycle for good."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from controlplane import garbage
from controlplane.garbage import SetAside


class Node:
    """May be a part of a cycle."""

    other: Node


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def aside(clock: Clock) -> Iterator[SetAside]:
    made = SetAside(clock)
    made.begin()
    yield made
    made.end()


def cycle() -> Node:
    one, two = Node(), Node()
    one.other, two.other = two, one
    return one


def test_what_survives_is_not_visited_again() -> None:
    kept = cycle()
    gc.collect()
    assert not any(one is kept for one in gc.get_objects(generation=2))
    assert gc.get_freeze_count() > 0


def test_what_survives_two_collections_is_not_visited_by_the_oldest() -> None:
    kept = cycle()
    gc.collect(generation=0)
    assert any(one is kept for one in gc.get_objects(generation=1))
    gc.collect(generation=1)
    assert not any(one is kept for oldness in range(3) for one in gc.get_objects(oldness))


def test_a_batch_of_news_begins_no_collection() -> None:
    began: list[str] = []

    def count(phase: str, _: object) -> None:
        began.append(phase)

    gc.collect()
    gc.callbacks.append(count)
    try:
        for _ in range(20):
            gone = [[number] for number in range(5_000)]
            del gone
    finally:
        gc.callbacks.remove(count)
    assert began == []


def test_cycles_that_end_young_go_at_the_next_collection() -> None:
    gone = weakref.ref(cycle())
    gc.collect()
    assert gone() is None


def test_cycles_that_end_old_go_when_everything_is_looked_at(clock: Clock) -> None:
    kept = cycle()
    gone = weakref.ref(kept)
    gc.collect()
    del kept
    gc.collect()
    assert gone() is not None
    clock.now += garbage.EVERYTHING_EVERY_S
    gc.collect()
    assert gone() is None


def test_the_collector_is_as_it_was_afterwards(aside: SetAside) -> None:
    aside.end()
    try:
        assert gc.get_freeze_count() == 0
        assert gc.get_threshold() != garbage._THRESHOLDS
    finally:
        aside.begin()
