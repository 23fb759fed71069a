"""Sliding windows: how many requests a user or an address has left."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_SLICES: Final = 60  # a window is counted in so many slices; a request is forgotten with its slice
_NO_LIMIT: Final = 2**31 - 1
_KEYS_LIMIT: Final = 20_000  # the longest unseen are forgotten first


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller may still do.

    Attributes:
        allowed: whether this request may go on.
        limit: requests per window.
        remaining: after this one.
        reset_at: Unix seconds when the oldest counted requests are forgotten.
        retry_after_s: whole seconds until a refused caller may try again.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at: int
    retry_after_s: int

    def headers(self) -> dict[str, str]:
        """The same for the client."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }


@dataclass(slots=True)
class _Window:
    total: int = 0
    slices: deque[list[float]] = field(default_factory=deque)  # [start, count], oldest first


class RateLimiter:
    """Counts requests per key over the last ``window_s`` seconds.

    A request is counted until the whole slice that it fell in has left the window, so no stretch of
    ``window_s`` seconds ever has more than ``limit`` of them.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float], window_s: float = 3600.0) -> None:
        self._clock = clock
        self._window_s = window_s
        self._slice_s = window_s / _SLICES
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def take(self, key: str, limit: int, cost: int = 1) -> Allowance:
        """Count ``cost`` requests of ``key`` if that leaves it within ``limit``; a cost of 0 only looks.

        A limit of 0 is none; its headers say a number that nobody reaches, as clients wait at 0 remaining.
        """
        now = self._clock()
        if limit <= 0:
            return Allowance(True, _NO_LIMIT, _NO_LIMIT, math.ceil(now + self._window_s), 0)
        window = self._window(key, now)
        allowed = window.total + cost <= limit
        if allowed and cost:
            start = now - now % self._slice_s
            if not window.slices or window.slices[-1][0] < start:
                window.slices.append([start, 0])
            window.slices[-1][1] += cost
            window.total += cost
        oldest = window.slices[0][0] if window.slices else now
        reset_at = oldest + self._window_s + self._slice_s
        remaining = max(0, limit - window.total)
        return Allowance(
            allowed, limit, remaining, math.ceil(reset_at), max(1, math.ceil(reset_at - now))
        )

    def _window(self, key: str, now: float) -> _Window:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
            if len(self._windows) > _KEYS_LIMIT:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        gone = now - self._window_s - self._slice_s
        while window.slices and window.slices[0][0] <= gone:
            window.total -= int(window.slices.popleft()[1])
        return window
