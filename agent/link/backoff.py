"""How long to wait before the next try.

Source: "full jitter": a random time up to a limit that doubles, so that many agents that lost one
control plane do not come back all at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FIRST_S: Final = 0.5
HIGHEST_S: Final = 15.0
REFUSED_S: Final = 60.0  # a refused join needs a person or a new token; asking often helps nobody


@dataclass(slots=True)
class Backoff:
    """Waits between tries; ``reset`` after a session that was stable."""

    draw: Callable[[float, float], float] = random.uniform
    _limit_s: float = field(default=FIRST_S, init=False)

    def next_s(self) -> float:
        """The next wait, in seconds."""
        wait = self.draw(0.0, self._limit_s)
        self._limit_s = min(self._limit_s * 2, HIGHEST_S)
        return wait

    def refused_s(self) -> float:
        """The wait after a join that was refused: long, and spread."""
        return self.draw(REFUSED_S / 2, REFUSED_S)

    def reset(self) -> None:
        """Begin with short waits again."""
        self._limit_s = FIRST_S
