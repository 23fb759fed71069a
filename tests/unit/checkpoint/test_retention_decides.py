"""Which checkpoints leave a node."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from agent.checkpoint.retention import Disk, Held, Policy, expired
from agent.formats.record import CheckpointRecord
from agent.runtimes.commands import Host

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROOMY = Disk(total_bytes=1000, free_bytes=900)


def held(
    name: str,
    age_h: float,
    *,
    pushed_h: float | None = None,
    pinned: bool = False,
    busy: bool = False,
    size: int = 1,
    parent: str = "",
    workload: str = "w",
) -> Held:
    """A checkpoint ``age_h`` old, pushed ``pushed_h`` ago."""
    made = CheckpointRecord(
        checkpoint_id=name,
        job_id="j",
        namespace="default",
        pod_name="p",
        pod_uid="u",
        container_name="c",
        container_id="i",
        engine="runc",
        created_at=at(age_h),
        image_ref=workload,
        size_bytes=size,
        complete=True,
        pinned=pinned,
        parent=parent,
        pushed_at="" if pushed_h is None else at(pushed_h),
    )
    return Held(made, busy)


def at(hours_ago: float) -> str:
    return (NOW - timedelta(hours=hours_ago)).isoformat().replace("+00:00", "Z")


def gone(*items: Held, disk: Disk = ROOMY, policy: Policy | None = None) -> tuple[str, ...]:
    return expired(items, disk, NOW, policy or Policy(keep_last=0))


@pytest.mark.parametrize(
    ("item", "goes"),
    [
        pytest.param(held("a", 30, pushed_h=25), True, id="pushed a day ago"),
        pytest.param(held("a", 300, pushed_h=23), False, id="pushed today"),
        pytest.param(held("a", 24 * 8), True, id="never pushed, a week old"),
        pytest.param(held("a", 24 * 6), False, id="never pushed, six days old"),
        pytest.param(held("a", 999, pushed_h=999, pinned=True), False, id="pinned"),
        pytest.param(held("a", 999, pushed_h=999, busy=True), False, id="busy"),
    ],
)
def test_age(item: Held, goes: bool) -> None:
    assert bool(gone(item)) is goes


def test_the_last_of_a_workload_stay_however_old() -> None:
    items = [held(str(n), 24 * (10 + n)) for n in range(5)]
    assert gone(*items, policy=Policy()) == ("4", "3")


def test_a_base_of_a_delta_stays() -> None:
    assert gone(held("base", 999), held("delta", 1, parent="base")) == ()


def test_pushed_ones_make_room_first_then_the_oldest() -> None:
    items = (
        held("old", 9, size=100),
        held("pushed", 1, pushed_h=1, size=100),
        held("new", 2, size=100),
    )
    assert gone(*items, policy=Policy()) == ("pushed",)
    assert gone(*items, disk=Disk(1000, 0), policy=Policy()) == ("pushed",)
    assert gone(*items, disk=Disk(500, 400), policy=Policy()) == ("pushed", "old")


def test_checkpoints_may_have_a_disk_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> SimpleNamespace:
        asked.append(place)
        return SimpleNamespace(total=1000, free=900)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    host, data = Host(tmp_path), tmp_path / "data"
    data.mkdir()
    assert Disk.under(host, "/data") == ROOMY
    (data / "checkpoints").mkdir()
    Disk.under(host, "/data")
    assert asked == [data, data / "checkpoints"]


def test_an_unreadable_time_keeps_the_checkpoint() -> None:
    item = held("a", 1)
    broken = Held(msgspec.structs.replace(item.record, created_at="yesterday"))
    assert gone(broken) == ()
