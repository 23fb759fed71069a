"""A job's progress: one scale over its steps, never backwards, with rate and remaining time."""

from __future__ import annotations

import pytest

from agent.formats.jobs import JobKind, Progress
from agent.jobs import steps
from agent.jobs.progress import Meter, Span, duration, size, spans
from tests.fakes.jobs import a_job

MIB = 1 << 20


def test_the_steps_of_a_job_cover_the_whole_scale() -> None:
    cut = [step.span for step in steps.plan(a_job())]
    assert [(span.low, span.high) for span in cut] == [(0, 35), (35, 100)]
    assert spans((1, 1, 2))[1:] == (Span(25, 50), Span(50, 100))


def test_a_job_of_one_step_has_the_whole_scale() -> None:
    (step,) = steps.plan(a_job(JobKind.PUSH))
    assert (step.span.low, step.span.high, step.name) == (0, 100, "push/0")


def test_progress_never_goes_backwards() -> None:
    meter = Meter(Span(35, 100))
    said = [meter.read(Progress(p, "Pushing")).percent for p in (0, 50, 20, 200)]
    assert said == [35, 67.5, 67.5, 100]


def test_the_message_says_how_far_how_fast_and_how_long() -> None:
    now = [100.0]
    meter = Meter(Span(0, 100), clock=lambda: now[0])
    meter.read(Progress(0, "Pushing memory", 0, 1000 * MIB))
    now[0] += 2
    said = meter.read(Progress(20, "Pushing memory", 200 * MIB, 1000 * MIB))
    assert said.message == "Pushing memory: 200 MiB of 1000 MiB, 100 MiB/s, 8 s left"
    now[0] += 8
    done = meter.read(Progress(100, "Pushing memory", 1000 * MIB, 1000 * MIB))
    assert done.message == "Pushing memory: 1000 MiB of 1000 MiB"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = [100.0]
    meter = Meter(Span(0, 100), clock=lambda: now[0])
    total = 1000 * MIB
    rates = []
    for seconds, done in ((0, 0), (1, 300), (1, 400), (1, 420), (1, 440), (1, 460)):
        now[0] += seconds
        rates.append(meter.read(Progress(0, "Pushing", done * MIB, total)).bytes_per_s / MIB)
    assert [rates[0], rates[1], rates[-1]] == [0, 300, 20]


def test_the_rate_of_another_count_begins_anew() -> None:
    now = [100.0]
    meter = Meter(Span(0, 100), clock=lambda: now[0])
    for total in (100 * MIB, 700 * MIB):
        assert meter.read(Progress(0, "Pushing", 0, total)).bytes_per_s == 0
        now[0] += 1
        assert meter.read(Progress(0, "Pushing", 50 * MIB, total)).bytes_per_s == 50 * MIB


def test_a_message_without_bytes_stays_as_it_is() -> None:
    assert Meter(Span(0, 100)).read(Progress(5, "Looking at the containers")).message == (
        "Looking at the containers"
    )


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 40, "1.0 TiB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (59, "59 s"), (125, "2 min 5 s"), (3700, "1 h 1 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
