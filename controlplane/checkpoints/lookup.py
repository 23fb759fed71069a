"""Finding the checkpoint that a request names: names are looked up, never opened."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

from controlplane import errors
from controlplane.errors import NotFound
from controlplane.store import checkpoints as rows
from controlplane.store import clock
from controlplane.store.records import Checkpoint, CheckpointStatus

_NEWEST: Final = "-checkpoint"
_SUFFIX: Final = ".tar"


def find(db: Database, named: str, pod_name: str = "") -> Checkpoint:
    """The checkpoint of this id, path, file name or name (with or without ``.tar``).

    ``<pod>-checkpoint`` is the pod's newest completed one.

    Args:
        pod_name: the pod it must be of; empty for any.

    Raises:
        NotFound: CHECKPOINT_NOT_FOUND.
    """
    name = named.rpartition("/")[2]
    found = rows.find(db, name) if clock.is_ulid(name) else None
    if found is None:
        found = rows.find_file(db, name if name.endswith(_SUFFIX) else name + _SUFFIX)
    if found is None and name.removesuffix(_SUFFIX).endswith(_NEWEST):
        found = rows.newest_of_pod(db, name.removesuffix(_SUFFIX).removesuffix(_NEWEST))
    wrong_pod = found is not None and pod_name not in ("", found.pod_name)
    if found is None or wrong_pod or found.status is CheckpointStatus.DELETED:
        of_pod = f" of pod {pod_name}" if pod_name else ""
        message = f"There is no checkpoint {name[:120]}{of_pod}."
        raise NotFound(message, code=errors.CHECKPOINT_NOT_FOUND)
    return found
