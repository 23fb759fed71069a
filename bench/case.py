"""What one measurement is made of: sizes, contestants, samples, figures."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MIB: Final = 1 << 20
_UNITS: Final = {"MiB": MIB, "GiB": 1 << 30}
OURS: Final = "ours"
STOCK: Final = "stock"


class Unusable(RuntimeError):
    """A run gave something else than what was to be measured; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Case:
    """One process to measure with.

    Attributes:
        data: half (each page half random, half zero: like a heap) or full (random).
    """

    size_bytes: int
    data: str
    runs: int

    @property
    def mib(self) -> int:
        """The size as the hog wants it."""
        return self.size_bytes // MIB


@dataclass(frozen=True, slots=True)
class Sample:
    """One run's figure, with what else was seen in it."""

    value: float
    notes: Mapping[str, float] = field(default_factory=dict)


Contestant = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Figures:
    """One contestant's samples, summed up."""

    samples: Sequence[Sample]

    @property
    def median(self) -> float:
        """Of the values."""
        return statistics.median(sample.value for sample in self.samples)

    @property
    def notes(self) -> dict[str, float]:
        """Medians of what else was seen."""
        names = sorted({name for sample in self.samples for name in sample.notes})
        return {
            name: rounded(statistics.median(s.notes[name] for s in self.samples if name in s.notes))
            for name in names
        }

    def of_note(self, name: str) -> Figures | None:
        """The same runs, looked at by one of their notes; None: not all have it."""
        if not all(name in sample.notes for sample in self.samples):
            return None
        return Figures([Sample(sample.notes[name], sample.notes) for sample in self.samples])

    def json(self) -> dict[str, object]:
        """Median, spread, all values in order, and the medians of what else was seen."""
        values = [sample.value for sample in self.samples]
        return {
            "median": rounded(self.median),
            "min": rounded(min(values)),
            "max": rounded(max(values)),
            "values": [rounded(value) for value in values],
            **({"notes": self.notes} if self.notes else {}),
        }


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def parse_size(text: str) -> int:
    """Bytes of ``64MiB`` or ``1GiB``.

    Raises:
        ValueError: it is neither.
    """
    found = re.fullmatch(r"([1-9]\d*)(MiB|GiB)", text)
    if not found:
        raise ValueError(f"{text!r} is no size; write 64MiB or 1GiB")
    return int(found[1]) * _UNITS[found[2]]


def size_text(size_bytes: int) -> str:
    """``64 MiB`` or ``1 GiB``."""
    gib, rest = divmod(size_bytes, 1 << 30)
    return f"{size_bytes // MIB} MiB" if rest else f"{gib} GiB"
