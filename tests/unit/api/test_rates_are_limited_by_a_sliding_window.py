"""No stretch of a window's length ever has more requests than the limit."""

from __future__ import annotations

from controlplane.api.ratelimit import RateLimiter


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_limit_is_what_is_let_through() -> None:
    limiter = RateLimiter(Clock())
    answers = [limiter.take("a", 10) for _ in range(12)]
    assert [a.allowed for a in answers] == [True] * 10 + [False] * 2
    assert [a.remaining for a in answers[:3]] == [9, 8, 7]
    assert limiter.take("b", 10).allowed


def test_the_edge_of_a_window_does_not_let_twice_as_many_through() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    passed: list[float] = []
    for _ in range(3 * 3600 // 10):
        clock.now_s += 10
        if limiter.take("a", 100).allowed:
            passed.append(clock.now_s)
    for start in passed:
        assert sum(start <= at < start + 3600 for at in passed) <= 100
    assert len(passed) >= 290  # and it is not much stricter than it says


def test_who_was_refused_may_try_again_when_told() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    for _ in range(5):
        limiter.take("a", 5)
    refused = limiter.take("a", 5)
    assert not refused.allowed
    clock.now_s += refused.retry_after_s
    assert limiter.take("a", 5).allowed
    assert refused.reset_at == clock.now_s or refused.reset_at - clock.now_s < 61


def test_looking_costs_nothing() -> None:
    limiter = RateLimiter(Clock())
    for _ in range(50):
        assert limiter.take("a", 3, 0).remaining == 3


def test_no_limit_lets_everything_through() -> None:
    limiter = RateLimiter(Clock())
    assert all(limiter.take("a", 0).allowed for _ in range(5000))
    assert limiter.take("a", 0).remaining > 1_000_000  # clients wait where nothing remains
