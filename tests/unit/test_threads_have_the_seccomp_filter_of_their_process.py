"""CRIU writes a filter that all threads of a process share to its first thread only; a restore sets it for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.formats import core_images
from snap_protos.criu import images_pb2 as pb
from tests.fakes.criu_images import write

FILTER, TSYNC = 2, 1


def _images(folder: Path, flags: int, own: int | None = None) -> Path:
    """A process of two threads, the second with a filter of its ``own``; a process without a filter."""
    nodes = [
        pb.pstree_entry(pid=1, ppid=0, pgid=1, sid=1, threads=[1, 8]),
        pb.pstree_entry(pid=7, ppid=1, pgid=1, sid=1, threads=[7, 9]),
    ]
    write(folder / "pstree.img", *(node.SerializeToString() for node in nodes))
    for thread, place in ((1, 1), (8, own), (7, None), (9, None)):
        core = pb.core_entry(mtype=1)
        core.thread_core.comm = "x"
        if place is not None:
            core.thread_core.seccomp_mode = FILTER
            core.thread_core.seccomp_filter = place
        write(folder / f"core-{thread}.img", core.SerializeToString())
    filters = pb.seccomp_entry()
    filters.seccomp_filters.add(filter=b"12345678")
    filters.seccomp_filters.add(filter=b"12345678", prev=0, flags=flags)
    write(folder / "seccomp.img", filters.SerializeToString())
    return folder


def _filtered(images: Path) -> set[str]:
    return {name for name, core in core_images.threads(images) if core.seccomp_mode == FILTER}


def test_a_shared_filter_is_every_threads(tmp_path: Path) -> None:
    assert _filtered(_images(tmp_path, TSYNC)) == {"core-1.img", "core-8.img"}


@pytest.mark.parametrize("missing", ["pstree.img", "seccomp.img", ""])
def test_a_filter_that_is_not_shared_is_one_threads(tmp_path: Path, missing: str) -> None:
    images = _images(tmp_path, TSYNC if missing else 0)
    if missing:
        (images / missing).unlink()
    assert _filtered(images) == {"core-1.img"}


def test_threads_may_have_filters_of_their_own(tmp_path: Path) -> None:
    assert _filtered(_images(tmp_path, 0, own=0)) == {"core-1.img", "core-8.img"}
