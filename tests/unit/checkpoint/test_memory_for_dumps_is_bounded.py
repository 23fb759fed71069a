"""Dumps go to memory only where it may be used, is there, and is not counted for somebody's limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.checkpoint.scratch import Scratch
from agent.checkpoint.shelf import Shelf
from agent.formats.jobs import CheckpointId
from agent.runtimes import tmpfs
from agent.runtimes.commands import Host

ONE = CheckpointId("01ONE")
ANY = 1 << 60
GIB = 1 << 30


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal:       {16 * GIB >> 10} kB\nMemFree:  1 kB\nMemAvailable:   {8 * GIB >> 10} kB\n"
    )
    return Host(tmp_path)


def limit(host: Host, folder: str, **files: str) -> None:
    place = host.path(f"/sys/fs/cgroup/{folder}")
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name.replace("_", ".", 1)).write_text(text + "\n")


@pytest.mark.parametrize(
    ("wanted", "most", "words"),
    [
        (2 * GIB, GIB, "1024 MiB may be used"),
        (5 * GIB, ANY, "4096 MiB may be used"),
    ],
    ids=["the setting", "a quarter of the node"],
)
async def test_no_more_than_may_be_used(host: Host, wanted: int, most: int, words: str) -> None:
    scratch = Scratch(host, Shelf(host, "/data"), most)
    assert words in await scratch.take({ONE: wanted})
    assert not scratch.forget_lost()


async def test_a_quarter_of_the_node_stays_available(host: Host) -> None:
    text = host.path("/proc/meminfo").read_text().replace(str(8 * GIB >> 10), str(5 * GIB >> 10))
    host.path("/proc/meminfo").write_text(text)
    said = await Scratch(host, Shelf(host, "/data"), ANY).take({ONE: 2 * GIB})
    assert "4096 MiB must stay; 5120 MiB are" in said


async def test_a_limit_of_the_dumps_cgroup_counts(host: Host) -> None:
    limit(host, "snap-agent", memory_max=str(2 * GIB), memory_current=str(GIB))
    said = await Scratch(host, Shelf(host, "/data"), ANY).take({ONE: GIB})
    assert "cgroup has room for 1024 MiB" in said


async def test_the_disk_is_not_explained_to_those_who_asked_for_it(host: Host) -> None:
    assert await Scratch(host, Shelf(host, "/data"), 0).take({ONE: 5 * GIB}) == ""


def test_cgroups_without_a_limit_have_none(host: Host) -> None:
    assert tmpfs.group_room(host) is None
    limit(host, "snap-agent", memory_max="max", memory_current="1")
    limit(host, "memory", memory_limit_in_bytes="9223372036854771712", memory_usage_in_bytes="5")
    assert tmpfs.group_room(host) is None


def test_the_tightest_cgroup_on_the_way_counts(host: Host) -> None:
    limit(host, "snap-agent", memory_max=str(6 * GIB), memory_current="0")
    limit(host, ".", memory_max=str(4 * GIB), memory_current=str(GIB))
    assert tmpfs.group_room(host) == 3 * GIB
