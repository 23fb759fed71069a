"""What became of containers that were to be restored, as their nodes told; the oldest are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlite_utils import Database

from controlplane.store.records import Restore

KEPT_PER_NODE: Final = 1000
_NAMES: Final = Restore.__struct_fields__
_COLUMNS: Final = ", ".join(_NAMES)


def put(db: Database, told: Sequence[Restore]) -> None:
    """Keep what one node told; what is here already stays as it is."""
    marks = ", ".join("?" * (len(_NAMES) + 1))
    for one in told:
        db.execute(
            f"INSERT OR IGNORE INTO restores ({_COLUMNS}, digest) VALUES ({marks})",  # noqa: S608 - constants
            [*(getattr(one, name) for name in _NAMES), one.image.rpartition("@")[2]],
        )
    for cluster, node in {(one.cluster, one.node) for one in told}:
        db.execute(
            "DELETE FROM restores WHERE cluster = ?1 AND node = ?2 AND sequence <= (SELECT sequence "
            "FROM restores WHERE cluster = ?1 AND node = ?2 ORDER BY sequence DESC LIMIT 1 OFFSET ?3)",
            [cluster, node, KEPT_PER_NODE],
        )


def pods_told_of(db: Database, uids: Sequence[str]) -> frozenset[str]:
    """Of these pods, those of which a node told how a container was started."""
    marks = ", ".join("?" * len(uids))
    query = f"SELECT DISTINCT pod_uid FROM restores WHERE pod_uid IN ({marks})"  # noqa: S608 - marks
    return frozenset(str(uid) for (uid,) in db.execute(query, list(uids)))


def of_digests(db: Database, digests: Sequence[str]) -> tuple[int, Restore | None]:
    """How many starts there were from images of these digests, and the latest."""
    marks = ", ".join("?" * len(digests))
    where = f"FROM restores WHERE digest IN ({marks})"
    counted = db.execute(f"SELECT count(*) {where}", list(digests)).fetchone()[0]
    rows = db.execute(
        f"SELECT {_COLUMNS} {where} ORDER BY at DESC, sequence DESC LIMIT 1", list(digests)
    )
    latest = next(rows, None)
    return int(counted), Restore(**dict(zip(_NAMES, latest, strict=True))) if latest else None
