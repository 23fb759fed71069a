"""Which cluster each user looks at."""

from __future__ import annotations

from sqlite_utils import Database

from controlplane.store import clock


def put(db: Database, username: str, cluster: str) -> None:
    """Remember that ``username`` looks at ``cluster``."""
    db.execute(
        "INSERT INTO chosen_clusters (username, cluster, chosen_at) VALUES (?, ?, ?) "
        "ON CONFLICT (username) DO UPDATE SET cluster = excluded.cluster, "
        "chosen_at = excluded.chosen_at",
        [username, cluster, clock.now()],
    )


def get(db: Database, username: str) -> str:
    """The cluster that ``username`` looks at, if it still exists; empty when none was chosen."""
    row = db.execute(
        "SELECT cluster FROM chosen_clusters WHERE username = ? "
        "AND cluster IN (SELECT name FROM clusters)",
        [username],
    ).fetchone()
    return "" if row is None else str(row[0])
