"""Rows of checkpoints and of the images that were pushed of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from controlplane.store.records import Checkpoint, CheckpointStatus, Image, JobFailure, Place

_JSON: Final = {"warnings": "warnings_json", "error": "error_json"}
_FIELDS: Final = tuple(name for name in Checkpoint.__struct_fields__ if name != "images")
_COLUMNS: Final = ", ".join(_JSON.get(name, name) for name in _FIELDS)
_IMAGE_COLUMNS: Final = ", ".join(Image.__struct_fields__)
_encode = msgspec.json.Encoder().encode


def insert(db: Database, checkpoint: Checkpoint) -> None:
    """Store a new checkpoint."""
    marks = ", ".join("?" * len(_FIELDS))
    db.execute(
        f"INSERT INTO checkpoints ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 - constants
        [_column(checkpoint, name) for name in _FIELDS],
    )


def update(db: Database, checkpoint: Checkpoint) -> None:
    """Store ``checkpoint`` in place of its row."""
    changes = ", ".join(f"{_JSON.get(name, name)} = ?" for name in _FIELDS)
    db.execute(
        f"UPDATE checkpoints SET {changes} WHERE id = ?",  # noqa: S608 - constants
        [*(_column(checkpoint, name) for name in _FIELDS), checkpoint.id],
    )


def find(db: Database, checkpoint_id: str) -> Checkpoint | None:
    """The checkpoint of this id, with its images."""
    return _one(db, "id = ?", [checkpoint_id])


def find_file(db: Database, filename: str) -> Checkpoint | None:
    """The checkpoint that is downloaded under this name."""
    return _one(db, "filename = ?", [filename])


def newest_of_pod(db: Database, pod_name: str) -> Checkpoint | None:
    """The newest completed checkpoint of pods of this name."""
    return _one(db, "pod_name = ? AND status = 'completed' ORDER BY id DESC", [pod_name])


def uploaded_ids(db: Database) -> list[str]:
    """The checkpoints whose archives are files on this server."""
    rows = db.execute("SELECT id FROM checkpoints WHERE place = 'uploaded' AND status != 'deleted'")
    return [str(row[0]) for row in rows]


def of_job(db: Database, job_id: str) -> list[Checkpoint]:
    """The checkpoints that a job makes, in the order of its containers."""
    return _select(db, "WHERE job_id = ? ORDER BY id", [job_id])


def page(
    db: Database, equal: dict[str, str], limit: int, before: str | None
) -> tuple[list[Checkpoint], str | None]:
    """Newest first, with ids below ``before``; (checkpoints, cursor of the next page).

    Args:
        equal: column = value, as the use case names them; without a status, all but deleted ones.
    """
    terms = [f"{column} = ?" for column in equal]
    values: list[Any] = list(equal.values())
    if "status" not in equal:
        terms.append("status != 'deleted'")
    if before:
        terms.append("id < ?")
        values.append(before)
    rest = f"WHERE {' AND '.join(terms)} ORDER BY id DESC LIMIT ?"
    found = _select(db, rest, [*values, limit + 1])
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def count(db: Database) -> int:
    """How many checkpoints there are, deleted and failed ones left out."""
    query = "SELECT count(*) FROM checkpoints WHERE status = 'completed'"
    return int(db.execute(query).fetchone()[0])


def count_by_place(db: Database) -> dict[tuple[str, str], int]:
    """How many checkpoints there are of each cluster and namespace, deleted and failed ones left out."""
    query = (
        "SELECT cluster, namespace, count(*) FROM checkpoints WHERE status = 'completed' "
        "GROUP BY cluster, namespace"
    )
    return {(str(cluster), str(namespace)): int(n) for cluster, namespace, n in db.execute(query)}


def put_image(db: Database, image: Image) -> None:
    """Store that a checkpoint was pushed; a tag that is pushed again is replaced."""
    marks = ", ".join("?" * len(Image.__struct_fields__))
    db.execute(
        f"INSERT OR REPLACE INTO images ({_IMAGE_COLUMNS}) VALUES ({marks})",  # noqa: S608
        [getattr(image, name) for name in Image.__struct_fields__],
    )


def delete_image(db: Database, image: Image) -> None:
    """Forget one push."""
    db.execute(
        "DELETE FROM images WHERE checkpoint_id = ? AND image = ?",
        [image.checkpoint_id, image.image],
    )


def images_with_digest(db: Database, digest: str) -> list[Image]:
    """Every push that gave this digest."""
    rows = db.execute(
        f"SELECT {_IMAGE_COLUMNS} FROM images WHERE digest = ?",  # noqa: S608 - constants
        [digest],
    )
    return [_image(row) for row in rows]


def newest_image(db: Database, image: str, cluster: str) -> Image | None:
    """The newest push of a cluster's checkpoints under this name; one that ends in ``:`` means any tag."""
    columns = ", ".join(f"i.{name}" for name in Image.__struct_fields__)
    row = db.execute(
        f"SELECT {columns} FROM images i JOIN checkpoints c ON c.id = i.checkpoint_id "  # noqa: S608
        "WHERE c.cluster = ?2 AND (i.image = ?1 OR (substr(?1, -1) = ':' "
        "AND substr(i.image, 1, length(?1)) = ?1)) ORDER BY i.pushed_at DESC LIMIT 1",
        [image, cluster],
    ).fetchone()
    return None if row is None else _image(row)


def repositories(db: Database, cluster: str) -> list[tuple[str, str]]:
    """(registry config, ``<host>/<repository>``) of all images of a cluster, each once."""
    rows = db.execute(
        "SELECT DISTINCT i.registry, i.image FROM images i "
        "JOIN checkpoints c ON c.id = i.checkpoint_id WHERE c.cluster = ? AND i.registry != ''",
        [cluster],
    )
    return sorted({(row[0], row[1].rpartition(":")[0]) for row in rows})


def _one(db: Database, term: str, values: Sequence[Any]) -> Checkpoint | None:
    found = _select(db, f"WHERE {term} LIMIT 1", values)
    return found[0] if found else None


def _select(db: Database, rest: str, values: Sequence[Any]) -> list[Checkpoint]:
    query = f"SELECT {_COLUMNS} FROM checkpoints {rest}"  # noqa: S608 - constants
    rows = db.execute(query, list(values)).fetchall()
    found = [dict(zip(_FIELDS, row, strict=True)) for row in rows]
    images = _images(db, [row["id"] for row in found])
    return [_checkpoint(row, images.get(row["id"], ())) for row in found]


def _images(db: Database, ids: Sequence[str]) -> dict[str, tuple[Image, ...]]:
    """Images of these checkpoints, newest first."""
    found: dict[str, tuple[Image, ...]] = {}
    if not ids:
        return found
    rows = db.execute(
        f"SELECT {_IMAGE_COLUMNS} FROM images "  # noqa: S608 - constants
        "WHERE checkpoint_id IN (SELECT value FROM json_each(?)) ORDER BY pushed_at DESC",
        [_encode(ids).decode()],
    )
    for row in rows:
        image = _image(row)
        found[image.checkpoint_id] = (*found.get(image.checkpoint_id, ()), image)
    return found


def _image(row: Iterable[Any]) -> Image:
    return Image(**dict(zip(Image.__struct_fields__, row, strict=True)))


def _checkpoint(row: dict[str, Any], images: tuple[Image, ...]) -> Checkpoint:
    values = row | {name: bool(row[name]) for name in _FLAGS}
    values["status"] = CheckpointStatus(row["status"])
    values["place"] = Place(row["place"])
    values["warnings"] = msgspec.json.decode(row["warnings"], type=tuple[str, ...])
    if row["error"] is not None:
        values["error"] = msgspec.json.decode(row["error"], type=JobFailure)
    return Checkpoint(**values, images=images)


_FLAGS: Final = ("left_running", "pinned", "local", "inspected")


def _column(checkpoint: Checkpoint, name: str) -> Any:
    value = getattr(checkpoint, name)
    if name in _JSON:
        return None if value is None else _encode(value).decode()
    return value
