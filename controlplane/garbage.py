"""Python's collector of reference cycles, kept from visiting what lives long again and again.

A full collection visits every object: with thousands of agents connected it takes more than half a second, in
which nobody is answered, and news make it happen every few seconds. What survives one is therefore set
aside, so that the next one only looks at what came since. Once in a while all of it is looked at: cycles among
long-lived objects that ended (sessions, mostly) go then.

Source: Python's documentation of ``gc`` (freeze, unfreeze, callbacks).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

EVERYTHING_EVERY_S: Final = 3600.0
_OLDEST: Final = 2
_THRESHOLDS: Final = (1_000, 10, 10)  # young collections of a millisecond or less


class SetAside:
    """Sets aside what survives full collections, from ``begin`` to ``end``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._everything_at = clock() + EVERYTHING_EVERY_S
        self._thresholds = gc.get_threshold()

    def begin(self) -> None:
        """Set aside what there is, and what will survive from now on."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
        gc.callbacks.append(self._collected)

    def end(self) -> None:
        """Have the collector as it was."""
        gc.callbacks.remove(self._collected)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def _collected(self, phase: str, about: Mapping[str, Any]) -> None:
        if about["generation"] != _OLDEST:
            return
        if phase == "stop":
            gc.freeze()
        elif self._clock() >= self._everything_at:
            self._everything_at = self._clock() + EVERYTHING_EVERY_S
            gc.unfreeze()
