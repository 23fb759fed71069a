"""Which workload each checkpoint is one of, and what came of starting from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from controlplane.workload import Workload

_KEY: Final = "cluster, namespace, owner_kind, owner_name, container, template_hash, image_digest"
# what says that the checkpoint itself can't be restored, whatever the pod or the node
PROOFS: Final = ("criu_failed", "damaged", "not_running")
PROOFS_NEEDED: Final = 3


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """One checkpoint's workload.

    Attributes:
        moment: which moment's state it was asked for; empty: any would do.
        asks: digests of what the container asks for in its pod's spec, by name.
    """

    checkpoint_id: str
    workload: Workload
    moment: str
    asks: dict[str, str]


@dataclass(frozen=True, slots=True)
class Tried:
    """One checkpoint of a workload, as decisions see it.

    Attributes:
        error: its failure's message, or its job's where that failed after it was made.
        condemned: why it can't be restored: the last reason of those that proved it.
    """

    checkpoint_id: str
    pod_uid: str
    status: str
    has_image: bool
    moment: str
    ended_at: str
    error: str
    condemned: str


@dataclass(frozen=True, slots=True)
class Offer:
    """An image that pods of a workload may be restored from.

    Attributes:
        image: ``<host>/<repository>:<tag>``; with ``digest``: what is restored.
        namespaces: in which its grant lets it be restored; ``*`` all.
    """

    checkpoint_id: str
    workload: Workload
    asks: dict[str, str]
    image: str
    digest: str
    namespaces: tuple[str, ...]
    fingerprint_json: str

    @property
    def reference(self) -> str:
        """``<host>/<repository>@sha256:…``."""
        return f"{self.image.rpartition(':')[0]}@{self.digest}"


def put(db: Database, row: WorkloadRow) -> None:
    """Store of which workload a checkpoint is one."""
    db.execute(
        f"INSERT OR REPLACE INTO workloads (checkpoint_id, {_KEY}, moment, asks_json) "  # noqa: S608
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            *(row.checkpoint_id, *key(row.workload), row.moment),
            msgspec.json.encode(row.asks, order="deterministic").decode(),
        ],
    )


def key(workload: Workload) -> tuple[str, ...]:
    """The columns of a workload."""
    w = workload
    owner = (w.cluster, w.namespace, w.owner_kind, w.owner_name)
    return (*owner, w.container, w.template_hash, w.image_digest)


def tried(db: Database, workload: Workload) -> list[Tried]:
    """Every checkpoint of a workload, newest first."""
    proofs = ", ".join("?" * len(PROOFS))
    rows = db.execute(
        "SELECT c.id, c.pod_uid, c.status, EXISTS (SELECT 1 FROM images i WHERE i.checkpoint_id = c.id "  # noqa: S608
        "AND i.digest != ''), w.moment, coalesce(c.completed_at, ''), "
        "coalesce(c.error_json, (SELECT j.error_json FROM jobs j WHERE j.id = c.job_id)), "
        f"{_condemned('c.id', proofs)} "
        "FROM workloads w JOIN checkpoints c ON c.id = w.checkpoint_id "
        "WHERE w.cluster = ? AND w.namespace = ? AND w.owner_kind = ? AND w.owner_name = ? "
        "AND w.container = ? AND w.template_hash = ? AND w.image_digest = ? ORDER BY c.id DESC",
        [*PROOFS, *PROOFS, *key(workload)],
    )
    return [_tried(*row) for row in rows]


def without_workload(
    db: Database, cluster: str, pod_name: str, pod_uid: str
) -> list[tuple[str, str]]:
    """(id, container) of a pod's checkpoints whose workload is not stored: nobody who watches made them."""
    rows = db.execute(
        "SELECT c.id, c.container_name FROM checkpoints c LEFT JOIN workloads w "
        "ON w.checkpoint_id = c.id WHERE c.pod_name = ? AND c.cluster = ? AND c.pod_uid = ? "
        "AND w.checkpoint_id IS NULL AND c.status IN ('pending', 'running', 'completed') "
        "AND c.place = 'node' ORDER BY c.id",
        [pod_name, cluster, pod_uid],
    )
    return [(str(row[0]), str(row[1])) for row in rows]


def offers(db: Database) -> list[Offer]:
    """What pods may be restored from, newest first; nothing that was proved not to restore."""
    proofs = ", ".join("?" * len(PROOFS))
    columns = ", ".join(f"w.{name.strip()}" for name in _KEY.split(","))
    rows = db.execute(
        f"SELECT c.id, {columns}, w.asks_json, i.image, i.digest, g.namespaces_json, "  # noqa: S608
        "c.fingerprint_json FROM workloads w JOIN checkpoints c ON c.id = w.checkpoint_id "
        "JOIN images i ON i.checkpoint_id = c.id "
        "JOIN grants g ON g.digest = i.digest AND g.cluster = c.cluster "
        "WHERE c.status = 'completed' AND i.digest != '' "
        f"AND {_condemned('c.id', proofs)} IS NULL ORDER BY c.id DESC, i.pushed_at DESC",
        [*PROOFS, *PROOFS],
    )
    return [_offer(row) for row in rows]


def started_by(db: Database, pod_uid: str) -> dict[str, str]:
    """Container → how its node says that it was started first: restored, cold, failed."""
    rows = db.execute(
        "SELECT container_name, action FROM restores WHERE pod_uid = ? ORDER BY at DESC, sequence DESC",
        [pod_uid],
    )
    return {str(name): str(action) for name, action in rows}  # the oldest comes last, and stays


def _condemned(checkpoint: str, proofs: str) -> str:
    """SQL: why a checkpoint can't be restored; NULL while nothing proves it.

    Several starts from it have failed by its own fault, and none ever worked.
    """
    of_it = f"FROM restores r JOIN images x ON x.digest = r.digest WHERE x.checkpoint_id = {checkpoint} AND r."
    return (
        f"CASE WHEN (SELECT count(*) {of_it}code IN ({proofs})) >= {PROOFS_NEEDED} "
        f"AND NOT EXISTS (SELECT 1 {of_it}action = 'restored') "
        f"THEN (SELECT r.reason {of_it}code IN ({proofs}) ORDER BY r.at DESC LIMIT 1) END"
    )


def _tried(*row: Any) -> Tried:
    checkpoint, pod_uid, status, has_image, moment, ended, error, condemned = row
    message = msgspec.json.decode(error).get("message", "") if error else ""
    why = f"it can't be restored: {condemned}" if condemned is not None else ""
    return Tried(checkpoint, pod_uid, status, bool(has_image), moment, ended, message, why)


def _offer(row: Sequence[Any]) -> Offer:
    checkpoint, *rest = row
    return Offer(
        checkpoint_id=checkpoint,
        workload=_workload(rest[:7]),
        asks=msgspec.json.decode(rest[7], type=dict[str, str]),
        image=rest[8],
        digest=rest[9],
        namespaces=msgspec.json.decode(rest[10], type=tuple[str, ...]),
        fingerprint_json=rest[11],
    )


def _workload(columns: Iterable[Any]) -> Workload:
    return Workload(*(str(column) for column in columns))
