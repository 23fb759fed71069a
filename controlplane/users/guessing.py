"""Slowing down those who guess passwords, per address and per user.

An address that failed often is told to wait. A user whose password is being guessed from many addresses
only has logins answered later, never refused: else anyone could lock anyone out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FREE_FAILURES: Final = 5
FORGET_S: Final = 900.0
ADDRESS_WAIT_MAX_S: Final = 60.0
USER_DELAY_MAX_S: Final = 2.0
_KEYS_LIMIT: Final = 10_000


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last_at: float = 0.0


class Guessing:
    """Remembers failed logins for a quarter of an hour.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def address_wait_s(self, address: str) -> float:
        """How long ``address`` must wait before it may try again; 0 for at once."""
        seen = self._seen(f"address {address}")
        pause_s = _grown(seen.count, 1.0, ADDRESS_WAIT_MAX_S)
        return max(0.0, seen.last_at + pause_s - self._clock()) if pause_s else 0.0

    def user_delay_s(self, username: str) -> float:
        """How much later a login of ``username`` is answered."""
        return _grown(self._seen(f"user {username}").count, 0.25, USER_DELAY_MAX_S)

    def failed(self, username: str, address: str) -> None:
        """A login failed."""
        for key in (f"address {address}", f"user {username}"):
            seen = self._seen(key)
            self._failures[key] = _Failures(seen.count + 1, self._clock())
            self._failures.move_to_end(key)
        while len(self._failures) > _KEYS_LIMIT:
            self._failures.popitem(last=False)

    def succeeded(self, username: str, address: str) -> None:
        """A login worked: both start afresh."""
        self._failures.pop(f"address {address}", None)
        self._failures.pop(f"user {username}", None)

    def _seen(self, key: str) -> _Failures:
        seen = self._failures.get(key)
        if seen is None or self._clock() - seen.last_at > FORGET_S:
            return _Failures()
        return seen


def _grown(count: int, first_s: float, most_s: float) -> float:
    if count < FREE_FAILURES:
        return 0.0
    return min(most_s, first_s * 2.0 ** min(count - FREE_FAILURES, 16))
