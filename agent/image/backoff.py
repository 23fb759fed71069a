"""Trying again after a while, a bounded number of times."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.errors import Retryable

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how patiently. The n-th pause is random up to ``first_s`` * 2^n, at most ``cap_s``.

    Full jitter, so that many nodes that lost one registry do not come back at once. The defaults
    wait 15 s at the longest, 8 s on average.
    """

    tries: int = 6
    first_s: float = 0.5
    cap_s: float = 8.0


async def persist(backoff: Backoff, attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Await ``attempt()`` until it does not raise Retryable, or the tries are used up.

    Raises:
        Retryable: of the last try.
    """
    for number in range(backoff.tries - 1):
        try:
            return await attempt()
        except Retryable as cause:
            longest = min(backoff.cap_s, backoff.first_s * 2**number)
            pause_s = max(random.uniform(0, longest), _asked_for(cause))  # noqa: S311 - no secret
            await asyncio.sleep(pause_s)
    return await attempt()


def _asked_for(cause: Retryable) -> float:
    """What the registry said it needs; the default of one second is nobody's word."""
    return cause.after_s if cause.after_s > 1.0 else 0.0
