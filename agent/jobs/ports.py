"""What jobs need from other rooms, as small protocols; ``app.py`` plugs the real ones in."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from agent.formats.jobs import (
    AnalyzeSpec,
    CheckpointId,
    CheckpointResult,
    CheckpointSpec,
    FetchSpec,
    ImportSpec,
    JobId,
    PushResult,
    PushSpec,
    Report,
)


class Checkpointer(Protocol):
    """Takes checkpoints. A container that it touched runs again when a call ends, however it ends."""

    async def checkpoint(
        self, job_id: JobId, spec: CheckpointSpec, report: Report
    ) -> tuple[CheckpointResult, ...]:
        """Checkpoint every container of ``spec``; cancelled: thawed, and the halves removed."""

    async def recover(
        self, job_id: JobId, spec: CheckpointSpec, report: Report
    ) -> tuple[CheckpointResult, ...] | None:
        """Finish what an agent that died had begun for ``job_id``; None: it had not begun."""


class Shelf(Protocol):
    """The checkpoints on this node."""

    def parts(self, checkpoint_id: CheckpointId) -> Path:
        """The folder of a finished checkpoint; raises NotFound."""

    def delete(self, checkpoint_id: CheckpointId) -> bool:
        """Remove a checkpoint whole; False: it was not there. May be called twice. Blocks."""


class Pusher(Protocol):
    """Turns a checkpoint into an image at its registry. The same push twice gives the same image."""

    async def push(self, parts: Path, spec: PushSpec, report: Report) -> PushResult:
        """Push the checkpoint in ``parts``; nothing is visible at the registry before all is there."""


class Fetcher(Protocol):
    """Brings images into the node's cache."""

    async def fetch(self, spec: FetchSpec, report: Report) -> object:
        """Have the image of ``spec`` in the cache, every byte checked."""


class Importer(Protocol):
    """Takes in archives that users uploaded."""

    async def take(self, spec: ImportSpec, report: Report) -> None:
        """Have the checkpoint of ``spec`` on this node; the same one twice is taken once."""


class Analyst(Protocol):
    """Looks into checkpoints."""

    async def analyze(self, spec: AnalyzeSpec, report: Report) -> str:
        """What was found, as JSON; the checkpoint stays as it is."""


class Preparer(Protocol):
    """Makes this node ready for restores. Each call goes on where an interrupted one ended."""

    async def prepare(self, report: Report) -> None:
        """Have what restores need on the node; what is there is left as it is."""

    async def undo(self, report: Report) -> None:
        """Take back what preparing changed; refused while pods need it."""
