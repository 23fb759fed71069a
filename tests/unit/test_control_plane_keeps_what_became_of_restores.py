"""Outcomes of restores in the store: each once, the latest findable by digest, the oldest forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controlplane.store import restores
from controlplane.store.database import open_store
from controlplane.store.records import Restore

DIGEST = "sha256:" + "a" * 64


def told(sequence: int, **changes: Any) -> Restore:
    fields: dict[str, Any] = dict.fromkeys(Restore.__struct_fields__, "")
    fields |= {"cluster": "lab", "node": "n1", "image": f"r.test/x@{DIGEST}", "action": "restored"}
    fields |= {"prepare_ms": 1.0, "restore_ms": 2.0, "start_ms": 3.0, "sequence": sequence}
    return Restore(**(fields | {"at": f"2026-01-01T00:00:{sequence % 60:02}Z"} | changes))


async def test_each_is_kept_once_and_the_latest_is_found(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    try:
        await store.write(lambda db: restores.put(db, [told(1), told(2, action="cold", code="x")]))
        await store.write(lambda db: restores.put(db, [told(2, action="restored")]))  # again
        await store.write(lambda db: restores.put(db, [told(1, node="n2", image="other")]))
        count, last = await store.read(lambda db: restores.of_digests(db, [DIGEST]))
        assert count == 2
        assert last == told(2, action="cold", code="x")
        assert await store.read(lambda db: restores.of_digests(db, [])) == (0, None)
    finally:
        store.close()


async def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    try:
        many = [told(number) for number in range(restores.KEPT_PER_NODE + 7)]
        await store.write(lambda db: restores.put(db, many))
        count, _ = await store.read(lambda db: restores.of_digests(db, [DIGEST]))
        assert count == restores.KEPT_PER_NODE
    finally:
        store.close()
