"""A row of the table: what is measured, by whom, against which goal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from bench.case import OURS, STOCK, Case, Contestant
from bench.lab import Lab

SMALL: Final = 256 << 20
LARGE: Final = 1 << 30
Medians = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        about: what the figure is, in the table's words.
        unit: of the figure; smaller is better.
        goal: of ours, in words; ``reached`` decides by the medians of all contestants.
        opened: sets the row up and gives its contestants, and tidies up after the block.
        cases: size and data of what it is run with in a full run; the first ones of all rows come first.
        source: the row whose runs give this one's figures too: their notes of the name ``note`` ("": their values),
            with ``ours`` as the contestant that is ours.
        told: notes of ours that the table shows beside the figures.
        limit: what keeps the figure from its goal where it is missed, and what was tried.
    """

    name: str
    about: str
    unit: str
    goal: str
    reached: Callable[[Medians, Case], bool]
    opened: Callable[[Lab, Case], AbstractContextManager[Mapping[str, Contestant]]]
    cases: tuple[tuple[int, str], ...] = ((LARGE, "half"), (SMALL, "half"))
    source: str = ""
    note: str = ""
    ours: str = OURS
    told: tuple[str, ...] = ()
    limit: str = ""


def faster(times: float) -> Callable[[Medians, Case], bool]:
    """Ours at least so many times faster than stock."""
    return lambda medians, _: medians[STOCK] / medians[OURS] >= times


def at_most(limit: float) -> Callable[[Medians, Case], bool]:
    """Ours at most ``limit``."""
    return lambda medians, _: medians[OURS] <= limit


@dataclass(slots=True)
class Watch:
    """What a ``timed`` block took."""

    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def seconds(self) -> float:
        """From beginning to end."""
        return self.ended_s - self.began_s


@contextlib.contextmanager
def timed() -> Iterator[Watch]:
    """Time a block by the monotonic clock, which is the hog's too."""
    watch = Watch(time.monotonic())
    yield watch
    watch.ended_s = time.monotonic()
