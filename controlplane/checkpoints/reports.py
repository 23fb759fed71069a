"""Reports on checkpoints, sealed like secrets: what they show was in a process's memory.

One per checkpoint, type and options: a checkpoint never changes, so the latest is as good as any. They go with their
checkpoint; one that shows values goes as soon as it was read.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlite_utils import Database

from controlplane.store import secrets
from controlplane.store.records import AnalyzeSpec, Job
from controlplane.store.secrets import Sealer

_PREFIX: Final = "report/"
WHOLE: Final = (
    "inspect"  # the type of a report that has everything, for clients that ask for one file
)
_WITH_VALUES: Final = frozenset({"processes", "volatility"})  # others show none, whoever asks


class Reports:
    """Keeps reports and finds them again."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def keep(self, db: Database, job: Job) -> None:
        """Seal the report that an analysis gave."""
        if job.spec.analyze is not None and job.result is not None and job.result.report_json:
            name = _name(job.spec.analyze)
            self._sealer.put(db, name, job.result.report_json.encode())

    def find(self, db: Database, spec: AnalyzeSpec) -> dict[str, Any] | None:
        """The report that ``spec`` asks for; None if there is none yet."""
        sealed = self._sealer.get(db, _name(spec))
        return None if sealed is None else msgspec.json.decode(sealed, type=dict[str, Any])


def shows_values(spec: AnalyzeSpec) -> bool:
    """Whether the report holds values of variables."""
    return spec.with_values and spec.analysis_type in _WITH_VALUES


def forget(db: Database, spec: AnalyzeSpec) -> None:
    """Forget one report."""
    secrets.delete(db, _name(spec))


def forget_checkpoint(db: Database, checkpoint_id: str) -> None:
    """Forget all reports on a checkpoint."""
    for name in secrets.names(db, f"{_PREFIX}{checkpoint_id}/"):
        secrets.delete(db, name)


def _name(spec: AnalyzeSpec) -> str:
    options = [spec.other_checkpoint_id] if spec.other_checkpoint_id else []
    options += ["values"] if shows_values(spec) else []
    return _PREFIX + "/".join([spec.checkpoint_id, spec.analysis_type, *options])
