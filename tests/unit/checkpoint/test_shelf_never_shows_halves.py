"""Checkpoints on a node: only whole ones are seen, and ids never become paths."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent import errors
from agent.checkpoint.shelf import Shelf
from agent.formats import record
from agent.formats.jobs import CheckpointId
from agent.formats.record import CheckpointRecord
from agent.runtimes.commands import Host

ONE = CheckpointId("01ONE")
WHOLE = CheckpointRecord(
    checkpoint_id=ONE,
    job_id="j",
    namespace="default",
    pod_name="p",
    pod_uid="u",
    container_name="c",
    container_id="i",
    engine="runc",
    created_at="2026-05-01T00:00:00Z",
    complete=True,
)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(Host(tmp_path), "/data")


def put(shelf: Shelf, made: CheckpointRecord = WHOLE) -> Path:
    place = shelf.place(CheckpointId(made.checkpoint_id))
    (place / "checkpoint").mkdir(parents=True)
    (place / "checkpoint/pages-1.img").write_bytes(b"x")
    record.write(place, made)
    return place


def test_a_whole_one_is_seen(shelf: Shelf) -> None:
    place = put(shelf)
    assert shelf.parts(ONE) == place
    assert shelf.list() == (WHOLE,)


def test_an_unfinished_one_is_not(shelf: Shelf) -> None:
    put(shelf, msgspec.structs.replace(WHOLE, complete=False))
    assert shelf.list() == ()
    with pytest.raises(errors.NotFound):
        shelf.get(ONE)


def test_a_deleted_one_is_gone_and_deleting_twice_is_fine(shelf: Shelf) -> None:
    place = put(shelf)
    assert shelf.delete(ONE)
    assert not shelf.delete(ONE)
    assert list(place.parent.iterdir()) == []


def test_an_interrupted_delete_is_finished(shelf: Shelf) -> None:
    place = put(shelf)
    place.rename(place.with_name(f".trash-{ONE}"))
    put(shelf)
    assert shelf.delete(ONE)
    assert list(place.parent.iterdir()) == []


def test_the_sweep_takes_halves_and_trash_but_not_what_is_kept(shelf: Shelf) -> None:
    put(shelf)
    for name in ("01HALF", ".trash-01GONE", "01KEPT"):
        (shelf.place(ONE).parent / name / "checkpoint").mkdir(parents=True)
    assert sorted(shelf.sweep({CheckpointId("01KEPT")})) == [".trash-01GONE", "01HALF"]
    assert [one.name for one in sorted(shelf.place(ONE).parent.iterdir())] == ["01KEPT", "01ONE"]


@pytest.mark.parametrize("bad", ["", "..", "a/b", "../x", ".hidden", "a b", "x" * 200])
def test_ids_never_become_paths(shelf: Shelf, bad: str) -> None:
    with pytest.raises(errors.Refused):
        shelf.place(CheckpointId(bad))


def test_a_push_is_remembered_once(shelf: Shelf) -> None:
    put(shelf)
    for at in ("2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z"):
        changed = shelf.note_pushed(ONE, "r/x@sha256:1", at)
    assert changed.pushed == ("r/x@sha256:1",)
    assert changed.pushed_at == "2026-05-02T00:00:00Z"
    assert shelf.pin(ONE).pinned
