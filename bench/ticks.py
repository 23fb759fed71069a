"""The hog's own word on time: its largest gap between two ticks, and its first tick after a restore.

Lines are ``<RFC 3339 time> stdout F tick <number> <monotonic s>``; the first column is the runtime's, taken when the
line came out of the container.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bench.case import Unusable
from deploy.devnode.pods import Pod

WAIT_S: Final = 60.0
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Tick:
    """One line. ``at_s`` is the process's monotonic clock, ``seen_s`` the runtime's wall clock."""

    number: int
    at_s: float
    seen_s: float


def ticks(pod: Pod) -> Iterator[Tick]:
    """Every tick so far."""
    for line in pod.raw_lines():
        words = line.split(" ")
        if len(words) == 6 and words[3] == "tick":
            seen = datetime.fromisoformat(words[0]).timestamp()
            yield Tick(int(words[4]), float(words[5]), seen)


def longest_gap_s(pod: Pod, began_s: float, ended_s: float) -> float:
    """The largest gap that touches the time from ``began_s`` to ``ended_s`` (this machine's monotonic clock).

    Raises:
        Unusable: the process does not tick any more.
    """
    deadline = time.monotonic() + WAIT_S
    while True:
        found = [tick.at_s for tick in ticks(pod)]
        if found and found[-1] > ended_s:
            break
        if time.monotonic() > deadline:
            raise Unusable(f"{pod.spec.name} stopped ticking")
        time.sleep(_LOOK_S)
    pairs = itertools.pairwise(found)
    return max(later - earlier for earlier, later in pairs if later > began_s and earlier < ended_s)


def first_tick(pod: Pod) -> Tick:
    """The first tick in the log of a pod that was just started.

    Raises:
        Unusable: none came.
    """
    deadline = time.monotonic() + WAIT_S
    while (found := next(ticks(pod), None)) is None:
        if time.monotonic() > deadline:
            raise Unusable(f"{pod.spec.name} did not tick; it wrote {pod.lines()[-3:]}")
        time.sleep(_LOOK_S)
    return found
