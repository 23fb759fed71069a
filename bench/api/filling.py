"""A store such as years of use leave behind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from controlplane.store import checkpoints, clock
from controlplane.store.database import locked_database, open_store
from controlplane.store.records import Checkpoint, CheckpointStatus, Image

NAMESPACES: Final = 40
PODS: Final = 2_000


def fill(data_dir: Path, count: int) -> None:
    """Make a data folder with ``count`` checkpoints, four of five with an image. Blocks."""
    open_store(data_dir).close()
    source = random.Random(1)  # noqa: S311 - the same store every time
    with locked_database(data_dir) as database:
        database.execute("BEGIN")
        for number in range(count):
            _insert(database, number, source)
        database.execute("COMMIT")


def _insert(database: Database, number: int, source: random.Random) -> None:
    checkpoint_id, at = clock.new_ulid(), clock.now(-60.0 * number)
    pod = f"app-{source.randrange(PODS)}-7d9f8b6c5d-x{number % 1000}"
    node = source.randrange(200)
    checkpoints.insert(
        database,
        Checkpoint(
            id=checkpoint_id,
            job_id=clock.new_ulid(),
            cluster=f"cluster-{node % 4}",
            node=f"node-{node}",
            namespace=f"team-{source.randrange(NAMESPACES)}",
            pod_name=pod,
            container_name="app",
            filename=f"{pod}-{checkpoint_id}.tar",
            status=source.choice([CheckpointStatus.COMPLETED] * 9 + [CheckpointStatus.FAILED]),
            owner="admin",
            created_at=at,
            completed_at=at,
            engine="runc",
            size_bytes=source.randrange(10**6, 10**9),
            pause_ms=source.uniform(10, 400),
            template_json='{"containers": [{"name": "app", "env": ["' + "v" * 1500 + '"]}]}',
        ),
    )
    if number % 5:
        checkpoints.put_image(
            database,
            Image(
                checkpoint_id=checkpoint_id,
                image=f"registry.example:5000/snap_images/{pod}:latest",
                registry="reg",
                digest=f"sha256:{source.getrandbits(256):064x}",
                size_bytes=source.randrange(10**6, 10**8),
                pushed_bytes=10**5,
                duration_ms=900.0,
                job_id="",
                pushed_at=at,
            ),
        )
