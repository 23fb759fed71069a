"""Python's collector of reference cycles, kept from visiting what lives long again and again.

A full collection visits every object: with thousands of agents connected it takes more than half a second, in
which nobody is answered, and news make it happen every few seconds. What survives two collections is therefore
set aside, so that none looks at it again. Once in a while all of it is looked at: cycles among long-lived objects
that ended (sessions, mostly) go then.

A batch of news makes thousands of objects that are gone a moment later, without the collector. It begins only
when many more came than went, else it would look at each batch on its way.

Source: Python's documentation of ``gc`` (freeze, unfreeze, callbacks).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

EVERYTHING_EVERY_S: Final = 3600.0
_YOUNGEST, _OLDEST = 0, 2
_THRESHOLDS: Final = (10_000, 5, 10)  # of a few milliseconds, those of the second kind of ten


class SetAside:
    """Sets aside what survives all but the youngest collections, from ``begin`` to ``end``."""

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
        if about["generation"] == _YOUNGEST:
            return
        if phase == "stop":
            gc.freeze()  # the younger generations are empty now
        elif about["generation"] == _OLDEST and self._clock() >= self._everything_at:
            self._everything_at = self._clock() + EVERYTHING_EVERY_S
            gc.unfreeze()
