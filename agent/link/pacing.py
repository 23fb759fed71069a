"""How often progress is told: as often as the control plane keeps up with, at most each quarter of a second.

Frames that it has not read wait in buffers of the network, where nothing overtakes them: hundreds of a node,
seconds old. What waits here is overtaken by what is newer of the same job.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

NEWS_EVERY_S: Final = 0.25
ANSWERED_S: Final = 2.0  # a control plane that keeps up has acknowledged news by then


class Pace:
    """The pace of one session, by what the control plane says and by how long it owes its answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_s = 0.0
        # last sequence of a frame, when it was sent
        self._unanswered: deque[tuple[int, float]] = deque()

    def sent(self, sequence: int) -> None:
        """News up to this number are on their way."""
        self._unanswered.append((sequence, self._clock()))

    def acknowledged(self, up_to: int, every_s: float) -> None:
        """News up to this number are stored. ``every_s``: what is asked of us; 0: nothing."""
        self._told_s = every_s
        while self._unanswered and self._unanswered[0][0] <= up_to:
            self._unanswered.popleft()

    def every_s(self) -> float:
        """How long to wait after news of progress; the longer, the longer their answer is overdue."""
        overdue_s = 0.0
        if self._unanswered:
            overdue_s = self._clock() - self._unanswered[0][1] - ANSWERED_S
        return max(NEWS_EVERY_S, self._told_s, overdue_s)
