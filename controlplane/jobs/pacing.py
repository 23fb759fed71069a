"""How often agents are asked to tell progress, so that what they tell is stored soon.

While news are stored, each session waits with its next frame. A round that takes longer than the agents' own pace
therefore means that more is sent than is taken; the rest piles up in buffers of the network, older by the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SLOW_S: Final = 0.25  # the agents' own pace
MOST_S: Final = 2.0
_ROOM: Final = 1.25  # a pace with some time left for everything else
_EASED_IN_S: Final = 15.0  # how long until agents may send again as often as they like, about


class Pace:
    """Asks for fewer news at once when a round is slow, and for more again little by little."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_s = 0.0
        self._asked_at = 0.0

    def took(self, round_s: float) -> None:
        """News were stored; from the first that waited for it until then it took so long."""
        wanted_s = min(round_s * _ROOM, MOST_S)
        if round_s > SLOW_S and wanted_s > self.every_s():
            self._asked_s, self._asked_at = wanted_s, self._clock()

    def every_s(self) -> float:
        """How long agents are to wait between news of progress; 0: as they like."""
        left = 1.0 - (self._clock() - self._asked_at) / _EASED_IN_S
        return self._asked_s * left if left > 0 else 0.0
