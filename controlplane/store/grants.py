"""Grants: which checkpoint images may be restored in which namespaces, as signed for the agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlite_utils import Database

_COLUMNS: Final = (
    "digest, cluster, namespaces_json, checkpoint_id, created_by, created_at, expires_at, "
    "payload, signature"
)


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One signed grant; ``payload`` is what ``signature`` covers."""

    digest: str
    cluster: str
    namespaces_json: str
    checkpoint_id: str
    created_by: str
    created_at: str
    expires_at: str
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def put(db: Database, grant: GrantRow) -> None:
    """Store a grant in place of the one of the same digest and cluster."""
    db.execute(
        f"INSERT OR REPLACE INTO grants ({_COLUMNS}) "  # noqa: S608 - constants
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            *(grant.digest, grant.cluster, grant.namespaces_json, grant.checkpoint_id),
            *(grant.created_by, grant.created_at, grant.expires_at),
            *(grant.payload, grant.signature),
        ],
    )


def find(db: Database, digest: str, cluster: str) -> GrantRow | None:
    """The grant of this digest in this cluster."""
    found = _select(db, "WHERE digest = ? AND cluster = ?", [digest, cluster])
    return found[0] if found else None


def of_cluster(db: Database, cluster: str) -> list[GrantRow]:
    """Every grant of a cluster."""
    return _select(db, "WHERE cluster = ? ORDER BY digest", [cluster])


def of_checkpoint(db: Database, checkpoint_id: str) -> list[GrantRow]:
    """Every grant that a checkpoint's images have."""
    return _select(db, "WHERE checkpoint_id = ? ORDER BY digest", [checkpoint_id])


def delete(db: Database, digest: str, cluster: str) -> bool:
    """Forget a grant; whether there was one. Agents hear of it by a whole new list."""
    query = "DELETE FROM grants WHERE digest = ? AND cluster = ?"
    return db.execute(query, [digest, cluster]).rowcount > 0


def _select(db: Database, rest: str, values: list[str]) -> list[GrantRow]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM grants {rest}", values)  # noqa: S608 - constants
    return [GrantRow(*row) for row in rows]
