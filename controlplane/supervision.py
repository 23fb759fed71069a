"""What should run and does not is started, again and again: the part that watchers and hooks have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from controlplane.errors import SnapError
from controlplane.store import clock

RETRY_S: Final = 60.0  # between tries to start what should run and does not
_STARTING: Final = "It is being started."
_log = logging.getLogger(__name__)


class Wanted(Protocol):
    """A stored setting of something that runs; ``wanted``: it should."""

    @property
    def name(self) -> str: ...

    @property
    def wanted(self) -> bool: ...


Row = TypeVar("Row", bound=Wanted)


@dataclass(frozen=True, slots=True)
class Runs(Generic[Row]):
    """How one kind of thing is run.

    Attributes:
        kind: what it is, as the log names it.
        start: returns when it runs; raises SnapError.
        stop: fine if it does not run.
        words: what went wrong, for people.
    """

    kind: str
    is_running: Callable[[str], bool]
    start: Callable[[Row], Awaitable[None]]
    stop: Callable[[Row], Awaitable[None]]
    words: Callable[[SnapError], str]


@dataclass(frozen=True, slots=True)
class Failing:
    """Why something that should run does not, and since when (RFC 3339; empty: not tried yet)."""

    words: str = _STARTING
    since: str = ""


@dataclass(frozen=True, slots=True)
class Supervision(Generic[Row]):
    """Starts and stops, one at a time, and remembers what went wrong. Keep ``run`` running."""

    runs: Runs[Row]
    _failing: dict[str, Failing] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # so that start and stop don't cross

    async def run(self, everything: Callable[[], Awaitable[Iterable[Row]]]) -> None:
        """Start what should run and does not, once a minute, until cancelled."""
        while True:
            for row in await everything():
                if row.wanted and not self.runs.is_running(row.name):
                    await self.start(row)
            await asyncio.sleep(RETRY_S)

    async def start(self, row: Row) -> SnapError | None:
        """Start it, if it does not run; what went wrong is kept for its status."""
        async with self._turn:
            if self.runs.is_running(row.name):
                return None
            try:
                await self.runs.start(row)
            except SnapError as failure:
                words, before = self.runs.words(failure), self._failing.get(row.name, Failing())
                if before.words != words:
                    _log.warning("%s %s does not run: %s", self.runs.kind, row.name, words)
                self._failing[row.name] = Failing(words, before.since or clock.now())
                return failure
        self._failing.pop(row.name, None)
        return None

    async def stop(self, row: Row) -> None:
        """Stop it, and forget what went wrong."""
        async with self._turn:
            await self.runs.stop(row)
        self._failing.pop(row.name, None)

    def failing(self, name: str) -> Failing:
        """What went wrong when it was last started."""
        return self._failing.get(name, Failing())
