"""One scale from 0 to 100 for a job of several steps, and the sentence that goes with it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from agent.formats.jobs import Progress

WINDOW_S: Final = 3.0  # long enough to be steady, short enough to follow a network that changes
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a job's scale that one step has, in percent."""

    low: float
    high: float

    def at(self, percent: float) -> float:
        """Where ``percent`` of the step lies on the job's scale."""
        return self.low + (self.high - self.low) * min(max(percent, 0.0), 100.0) / 100.0


def spans(weights: tuple[float, ...]) -> tuple[Span, ...]:
    """The job's scale cut in steps as long as their ``weights``."""
    total, low, cut = sum(weights), 0.0, []
    for weight in weights:
        high = low + 100.0 * weight / total
        cut.append(Span(low, high))
        low = high
    return tuple(cut)


class Meter:
    """Turns a step's own progress into the job's: never backwards, with rate and remaining time.

    May be called from any thread.
    """

    def __init__(self, span: Span, clock: Callable[[], float] = time.monotonic) -> None:
        self._span = span
        self._clock = clock
        self._lock = threading.Lock()
        self._highest = span.low
        self._seen: deque[tuple[float, int]] = deque()
        self._total = 0

    def read(self, progress: Progress) -> Progress:
        """``progress`` on the job's scale, with its rate; its message says what its bytes say."""
        with self._lock:
            self._highest = max(self._highest, self._span.at(progress.percent))
            rate = self._rate(progress)
            message = sentence(progress, rate)
            return replace(
                progress, percent=self._highest, message=message, bytes_per_s=round(rate)
            )

    def _rate(self, progress: Progress) -> float:
        """Bytes per second over the last seconds, 0 while unknown."""
        now = self._clock()
        if progress.bytes_total != self._total or (
            self._seen and progress.bytes_done < self._seen[-1][1]
        ):
            self._seen.clear()  # another thing is being counted now
            self._total = progress.bytes_total
        self._seen.append((now, progress.bytes_done))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        elapsed = now - self._seen[0][0]
        return (progress.bytes_done - self._seen[0][1]) / elapsed if elapsed > 0.2 else 0.0


def sentence(progress: Progress, rate: float) -> str:
    """The message of ``progress`` with what its bytes say; ``rate`` is in bytes per second."""
    if progress.bytes_total <= 0:
        return progress.message
    said = f"{progress.message}: {size(progress.bytes_done)} of {size(progress.bytes_total)}"
    left = progress.bytes_total - progress.bytes_done
    if rate > 0 and left > 0:
        said += f", {size(rate)}/s, {duration(left / rate)} left"
    return said


def size(count: float) -> str:
    """``count`` bytes as people read it ("1.5 GiB")."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """``seconds`` as people read it ("2 min 5 s")."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
