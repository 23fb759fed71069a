"""Before retention removes a checkpoint, whoever needs something of it is told."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.checkpoint import retention
from agent.checkpoint.retention import Disk, Policy
from agent.checkpoint.shelf import Shelf
from agent.formats import record
from agent.runtimes.commands import Host
from tests.fakes import criu_dump


def test_parts_are_whole_when_it_is_told_that_they_leave(tmp_path: Path) -> None:
    shelf = Shelf(Host(tmp_path), "/data")
    for name, pushed_at in (("old", "2020-01-01T00:00:00+00:00"), ("kept", "")):
        parts = criu_dump.make_parts(tmp_path / "data/checkpoints" / name, (4096,))
        known = msgspec.structs.replace(record.read(parts), checkpoint_id=name, pushed_at=pushed_at)
        record.write(parts, known)
    told: list[str] = []

    def leaving(parts: Path) -> None:
        told.append(record.read(parts).checkpoint_id)

    gone = retention.sweep(shelf, Disk(1 << 40, 1 << 40), Policy(keep_last=1), leaving=leaving)
    assert told == list(gone) == ["old"]
    assert not (tmp_path / "data/checkpoints/old").exists()
