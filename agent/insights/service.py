"""Makes reports: picks by type, works in a thread, ends when nobody waits any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from agent import errors
from agent.formats.jobs import AnalyzeSpec, CheckpointId, Progress, Report
from agent.insights import (
    comparison,
    files,
    inspection,
    mappings,
    processes,
    secrets,
    sockets,
    summary,
    volatility,
)
from agent.insights.bounds import Bounds, Stopped, damaged
from agent.insights.dump import Dump

_log = logging.getLogger(__name__)


class Shelf(Protocol):
    """The checkpoints on this node."""

    def parts(self, checkpoint_id: CheckpointId) -> Path:
        """The folder of a finished checkpoint; raises NotFound."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a report is made from."""

    dump: Dump
    other: Dump | None
    with_values: bool
    bounds: Bounds
    progress: Report


def _compared(wish: Wish) -> dict[str, Any]:
    assert wish.other is not None  # noqa: S101 - check() saw it
    return comparison.report(wish.dump, wish.other, wish.bounds, wish.progress)


MAKERS: Final[Mapping[str, Callable[[Wish], dict[str, Any]]]] = {
    "summary": lambda wish: summary.report(wish.dump, wish.bounds),
    "processes": lambda wish: processes.report(
        wish.dump, wish.bounds, with_values=wish.with_values
    ),
    "memory": lambda wish: mappings.report(wish.dump, wish.bounds),
    "files": lambda wish: files.report(wish.dump, wish.bounds),
    "sockets": lambda wish: sockets.report(wish.dump, wish.bounds),
    "volatility": lambda wish: volatility.report(
        wish.dump, wish.bounds, with_values=wish.with_values
    ),
    "secrets": lambda wish: secrets.report(wish.dump, wish.bounds, wish.progress),
    "diff": _compared,
    "inspect": lambda wish: inspection.report(wish.dump, wish.bounds),
}


class Insights:
    """Looks into the checkpoints of this node."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def analyze(self, spec: AnalyzeSpec, report: Report) -> str:
        """A report as JSON, with ``truncated`` true where something was left out.

        Cancelled: the thread that reads ends at its next step.

        Raises:
            NotFound: a checkpoint is not on this node.
            Refused: the type is unknown, or an image is damaged; the sentence names it.
        """
        bounds = Bounds()
        work = asyncio.create_task(asyncio.to_thread(self._make, spec, bounds, report))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            bounds.stop()
            await asyncio.wait([work])
            if not work.cancelled() and isinstance(failure := work.exception(), Exception):
                _log.debug("analysis of %s was stopped: %r", spec.checkpoint_id, failure)
            raise

    def _make(self, spec: AnalyzeSpec, bounds: Bounds, report: Report) -> str:
        dump, other = self._dumps(spec)
        report(Progress(0.0, f"Reading the checkpoint for {spec.analysis_type}"))
        wish = Wish(dump, other, spec.with_values, bounds, report)
        try:
            made = MAKERS[spec.analysis_type](wish)
        except FileNotFoundError as cause:
            missing = f"Checkpoint {spec.checkpoint_id} was removed while it was read."
            raise errors.NotFound(missing, details=str(cause.filename)) from cause
        except Stopped as cause:
            raise errors.Retryable("The analysis was stopped.") from cause
        except (RecursionError, MemoryError, OverflowError) as cause:
            raise damaged("content", type(cause).__name__) from cause
        return msgspec.json.encode(made | {"truncated": bounds.truncated}).decode()

    def _dumps(self, spec: AnalyzeSpec) -> tuple[Dump, Dump | None]:
        if spec.analysis_type not in MAKERS:
            raise errors.Refused(
                f"The agent on this node does not know the analysis {spec.analysis_type[:40]!r}; "
                f"it knows {', '.join(MAKERS)}.",
                code=errors.VALIDATION_ERROR,
            )
        if (spec.analysis_type == "diff") != bool(spec.other_checkpoint_id):
            raise errors.Refused(
                "A diff, and nothing else, needs another checkpoint to compare with.",
                code=errors.VALIDATION_ERROR,
            )
        other = spec.other_checkpoint_id
        dump = Dump(self._shelf.parts(spec.checkpoint_id))
        return dump, Dump(self._shelf.parts(CheckpointId(other))) if other else None
