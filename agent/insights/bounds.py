"""How much a report may hold and how long making it may take: images may be large, damaged or hostile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from agent import errors

MAX_REPORT_BYTES: Final = 4 << 20  # of JSON; it travels in one message and is kept with the job
MAX_ROWS: Final = 50_000
MAX_TEXT: Final = 4096  # characters of one path, argument or value
TIME_LIMIT_S: Final = 3600.0

Row = dict[str, Any]
_ENCODER: Final = msgspec.json.Encoder()


class Stopped(Exception):
    """Whoever wanted the report is gone."""


class Bounds:
    """What is left of a report's room and time, over all its lists. One per report; may be stopped from elsewhere.

    Attributes:
        truncated: something was left out; the report says so.
    """

    def __init__(
        self,
        rows: int = MAX_ROWS,
        size_bytes: int = MAX_REPORT_BYTES,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.truncated = False
        self._rows = rows
        self._size_bytes = size_bytes
        self._until = time.monotonic() + time_limit_s
        self._stop = threading.Event()

    def stop(self) -> None:
        """Have the next ``check`` end the work."""
        self._stop.set()

    def check(self) -> None:
        """Pass, or end the work.

        Raises:
            Stopped: nobody wants it any more.
        """
        if self._stop.is_set():
            raise Stopped

    @property
    def is_over(self) -> bool:
        """Whether the time is up; what was found until now is the report."""
        if time.monotonic() > self._until:
            self.truncated = True
            return True
        return False

    def fits(self, row: Any) -> bool:
        """Take the room of ``row``; False (and ``truncated``) when there is none left."""
        self.check()
        size = len(_ENCODER.encode(row))
        if self._rows < 1 or size > self._size_bytes:
            self.truncated = True
            return False
        self._rows -= 1
        self._size_bytes -= size
        return True

    def keep(self, rows: Iterable[Row]) -> list[Row]:
        """As many of ``rows`` as there is room for."""
        kept = []
        for row in rows:
            if not self.fits(row):
                break
            kept.append(row)
        return kept


def clipped(text: str) -> str:
    """``text``, cut where it gets too long to be shown."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def damaged(name: str, cause: object) -> errors.Refused:
    """A file of the checkpoint can't be read as what it should be."""
    return errors.Refused(
        f"The checkpoint can't be analysed, its {name} is damaged.", details=f"{name}: {cause}"
    )


def joined(parts: Sequence[bytes]) -> str:
    """A command line as people read it."""
    return " ".join(part.decode("utf-8", "backslashreplace") for part in parts)
