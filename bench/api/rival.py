"""The same two answers by a minimal FastAPI app, as fast as it can be written: run by uvicorn, in its own venv.

No login, no limits, no log; its queries run in the event loop, without a thread's detour. It asks the database the
same questions and encodes the same fields with the same library.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

import msgspec
from fastapi import FastAPI, Response

app = FastAPI()
_encode = msgspec.json.Encoder().encode
_database = sqlite3.connect(os.environ["RIVAL_DATABASE"], cached_statements=256)
_database.execute("PRAGMA query_only=on")
_COLUMNS = (
    "id, pod_name, namespace, created_at, size_bytes, status, node, cluster, container_name, "
    "filename, expires_at, pinned, engine, pause_ms"
)
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))


@app.get("/checkpoint/list")
async def list_checkpoints(limit: int = 1000) -> Response:
    """The newest checkpoints, each with its newest image."""
    rows = _database.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE status != 'deleted' "  # noqa: S608 - constants
        "ORDER BY id DESC LIMIT ?",
        [limit + 1],
    ).fetchall()
    ids = _encode([row[0] for row in rows]).decode()
    images: dict[str, tuple[str, str]] = {}
    for checkpoint_id, image, digest in _database.execute(
        "SELECT checkpoint_id, image, digest FROM images "
        "WHERE checkpoint_id IN (SELECT value FROM json_each(?)) ORDER BY pushed_at DESC",
        [ids],
    ):
        images.setdefault(checkpoint_id, (image, digest))
    found = [_item(row, *images.get(row[0], (None, None))) for row in rows[:limit]]
    cursor = rows[limit - 1][0] if len(rows) > limit else None
    content = {"checkpoints": found, "next_cursor": cursor, "success": True}
    return Response(_encode(content), media_type="application/json")


@app.get("/cluster/statistics")
async def statistics() -> Response:
    """How many clusters and checkpoints there are."""
    clusters = _database.execute("SELECT count(*) FROM clusters").fetchone()[0]
    query = "SELECT count(*) FROM checkpoints WHERE status = 'completed'"
    checkpoints = _database.execute(query).fetchone()[0]
    content = {
        "success": True,
        "total_clusters": clusters,
        "active_clusters": 0,
        "total_checkpoints": checkpoints,
        "total_nodes": 0,
        "total_pods": 0,
    }
    return Response(_encode(content), media_type="application/json")


def _item(row: tuple[Any, ...], image: str | None, digest: str | None) -> dict[str, Any]:
    return {
        "id": row[0],
        "pod_name": row[1],
        "namespace": row[2],
        "created_at": row[3],
        "size": _words(row[4]),
        "status": row[5],
        "checkpoint_name": row[9],
        "analysis_result": None,
        "scan_result": False,
        "node_name": row[6],
        "cluster_name": row[7],
        "container_name": row[8],
        "size_bytes": row[4],
        "image": image,
        "image_digest": digest,
        "filename": row[9],
        "expires_at": row[10],
        "pinned": bool(row[11]),
        "engine": row[12],
        "pause_ms": row[13],
    }


def _words(size_bytes: int) -> str:
    for unit_bytes, name in _UNITS:
        if size_bytes >= unit_bytes:
            amount = size_bytes / unit_bytes
            return f"{amount:.0f}{name}" if amount >= 10 else f"{amount:.1f}{name}"
    return f"{size_bytes}B"
