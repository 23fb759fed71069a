"""How long pods took from their creation until they were ready, cold and restored, as their status said."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlite_utils import Database

from controlplane.store import clock
from controlplane.store.records import Checkpoint
from controlplane.store.workloads import key
from controlplane.workload import Workload

KEPT: Final = 20  # of each kind and workload
SLOWER: Final = 3  # restores in a row that took longer than cold starts do: not worth it
_OF: Final = (
    "cluster = ? AND namespace = ? AND owner_kind = ? AND owner_name = ? AND container = ? "
    "AND template_hash = ? AND image_digest = ?"
)


@dataclass(frozen=True, slots=True)
class StartTimes:
    """The latest starts of a workload in milliseconds, newest first."""

    cold: tuple[float, ...] = ()
    restored: tuple[float, ...] = ()

    @property
    def cold_ms(self) -> float | None:
        """The median of its cold starts."""
        return statistics.median(self.cold) if self.cold else None

    @property
    def restored_ms(self) -> float | None:
        """The median of its restored ones."""
        return statistics.median(self.restored) if self.restored else None

    @property
    def not_worth_it(self) -> str:
        """Why the workload is better started cold, as one phrase; empty: it is not, or nobody knows."""
        latest, cold = self.restored[:SLOWER], self.cold_ms
        if cold is None or len(latest) < SLOWER or min(latest) <= cold:
            return ""
        return (
            f"its last {SLOWER} restores took {min(latest) / 1000:.1f} s or more, "
            f"a cold start takes {cold / 1000:.1f} s"
        )


def put(db: Database, workload: Workload, pod_uid: str, ms: float, *, restored: bool) -> None:
    """Keep how long a pod's container took; a pod counts once."""
    columns = "namespace, owner_kind, owner_name, container, template_hash, image_digest"
    db.execute(
        f"INSERT OR IGNORE INTO starts (cluster, {columns}, pod_uid, restored, ms, at) "  # noqa: S608
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [*key(workload), pod_uid, int(restored), ms, clock.now()],
    )
    db.execute(
        f"DELETE FROM starts WHERE {_OF} AND restored = ? AND rowid NOT IN "  # noqa: S608 - constants
        f"(SELECT rowid FROM starts WHERE {_OF} AND restored = ? ORDER BY at DESC, rowid DESC LIMIT {KEPT})",
        [*key(workload), int(restored), *key(workload), int(restored)],
    )


def is_known(db: Database, cluster: str, pod_uid: str, container: str) -> bool:
    """Whether a pod's start was kept."""
    query = "SELECT 1 FROM starts WHERE cluster = ? AND pod_uid = ? AND container = ?"
    return db.execute(query, [cluster, pod_uid, container]).fetchone() is not None


def of(db: Database, workload: Workload) -> StartTimes:
    """The latest starts of a workload."""
    rows = db.execute(
        f"SELECT restored, ms FROM starts WHERE {_OF} ORDER BY at DESC, rowid DESC",  # noqa: S608 - constants
        key(workload),
    ).fetchall()
    return StartTimes(
        cold=tuple(ms for restored, ms in rows if not restored),
        restored=tuple(ms for restored, ms in rows if restored),
    )


def everything(db: Database) -> dict[Workload, StartTimes]:
    """The latest starts of every workload."""
    columns = "cluster, namespace, owner_kind, owner_name, container, template_hash, image_digest"
    found: dict[Workload, tuple[list[float], list[float]]] = {}
    rows = db.execute(f"SELECT restored, ms, {columns} FROM starts ORDER BY at DESC, rowid DESC")  # noqa: S608
    for restored, ms, *names in rows:
        found.setdefault(Workload(*names), ([], []))[restored].append(ms)
    return {w: StartTimes(tuple(cold), tuple(warm)) for w, (cold, warm) in found.items()}


def of_checkpoints(db: Database, checkpoints: Sequence[Checkpoint]) -> dict[str, StartTimes]:
    """The starts of the workloads that these checkpoints are of."""
    rows = db.execute(
        "SELECT w.checkpoint_id, s.restored, s.ms FROM workloads w JOIN starts s "
        "USING (cluster, namespace, owner_kind, owner_name, container, template_hash, image_digest) "
        "WHERE w.checkpoint_id IN (SELECT value FROM json_each(?)) ORDER BY s.at DESC, s.rowid DESC",
        [msgspec.json.encode([checkpoint.id for checkpoint in checkpoints]).decode()],
    )
    found: dict[str, tuple[list[float], list[float]]] = {}
    for checkpoint, restored, ms in rows:
        found.setdefault(checkpoint, ([], []))[restored].append(ms)
    return {c: StartTimes(tuple(cold), tuple(warm)) for c, (cold, warm) in found.items()}
