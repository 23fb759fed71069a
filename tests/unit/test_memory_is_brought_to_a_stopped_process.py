"""Which pages the agent brings, where they lie in a chain, when it does so at all, and what the wrapper is told."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Broken
from agent.formats import criu_images, late_pages
from agent.formats.criu_wire import IN_PARENT, LAZY, PRESENT, PageRun
from agent.formats.late_pages import LatePages, Piece
from agent.formats.pagemap import PAGE_SIZE, Pagemap
from agent.restore import laziness, memory_filling
from agent.restore.inbox import Answer
from agent.restore.laziness import FEATURE, FILLED_BYTES, Situation

MAGIC = criu_images.magic(criu_images.PAGEMAP_MAGIC)
LARGE = Situation("eager", "The pod", "runc", frozenset({FEATURE}), FILLED_BYTES, 1)
NAME = "pagemap-7.img"


def put(folder: Path, *runs: PageRun) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(Pagemap(MAGIC, 3, runs).image())


def test_only_pages_that_may_come_late_are_found_wherever_they_lie(tmp_path: Path) -> None:
    images = tmp_path / "images"
    put(
        images,
        PageRun(0x1000, 1, PRESENT),  # CRIU's own
        PageRun(0x2000, 2, PRESENT | LAZY),
        PageRun(0x8000, 4, IN_PARENT | LAZY),
        PageRun(0xF000, 1, LAZY),  # a zero page: nothing to bring
    )
    put(images / "parent", PageRun(0x8000, 3, PRESENT), PageRun(0xB000, 1, IN_PARENT))
    put(images / "parent" / "parent", PageRun(0xA000, 2, PRESENT))
    found = late_pages.find(images, piece_bytes=2 * PAGE_SIZE)
    top, middle, deep = found.batches
    assert found.pid == 7
    assert found.size == 6 * PAGE_SIZE
    assert (top.file, top.pieces) == (
        images / "pages-3.img",
        (Piece(0x2000, PAGE_SIZE, 2 * PAGE_SIZE),),
    )
    assert middle.file == images / "parent" / "pages-3.img"
    assert middle.pieces == (Piece(0x8000, 0, 2 * PAGE_SIZE), Piece(0xA000, 0x2000, PAGE_SIZE))
    assert (deep.file, deep.pieces) == (
        images / "parent" / "parent" / "pages-3.img",
        (Piece(0xB000, PAGE_SIZE, PAGE_SIZE),),
    )


def test_two_processes_are_not_for_it(tmp_path: Path) -> None:
    put(tmp_path / "images", PageRun(0x1000, 1, PRESENT | LAZY))
    (tmp_path / "images" / "pagemap-8.img").write_bytes(Pagemap(MAGIC, 4).image())
    with pytest.raises(ValueError, match="2 processes"):
        late_pages.find(tmp_path / "images", piece_bytes=PAGE_SIZE)


def test_memory_in_very_many_pieces_is_left_to_criu(tmp_path: Path) -> None:
    many = (
        PageRun(2 * n * PAGE_SIZE, 1, PRESENT | LAZY) for n in range(late_pages.MOST_PIECES + 1)
    )
    put(tmp_path / "images", *many)
    with pytest.raises(ValueError, match="pieces"):
        late_pages.find(tmp_path / "images", piece_bytes=PAGE_SIZE)


@pytest.mark.parametrize(
    ("changes", "filled"),
    [
        pytest.param({}, True, id="one process"),
        pytest.param({"lazy_bytes": FILLED_BYTES - 1}, False, id="small"),
        pytest.param({"address_spaces": 2}, False, id="forked ones share pages"),
        pytest.param({"oci_runtime": "crun"}, False, id="crun can't"),
        pytest.param({"criu_features": frozenset()}, False, id="kernel can't"),
        pytest.param({"lazy_bytes": 1 << 45}, True, id="huge"),
    ],
)
def test_when_the_agent_brings_it(changes: dict[str, Any], filled: bool) -> None:
    seconds = laziness.fill_s(replace(LARGE, **changes))
    assert (seconds > 0) is filled
    assert seconds <= laziness.MOST_FILL_S  # what the wrapper's pattern takes


def test_the_wrapper_is_told_how_long_to_wait() -> None:
    answer = Answer(restore=True, images="/i", work="/w", fill_s=33)
    assert b"\nlazy=0\nfill=33\naction=restore\n" in answer.encode()
    assert b"fill" not in replace(answer, fill_s=0).encode()


def criu(said: bytes) -> socket.socket:
    """What CRIU says before it ends."""
    ours, its = socket.socketpair()
    its.sendall(said)
    its.close()
    return ours


@pytest.mark.parametrize(
    "said", [b"", struct.pack("=i", -1)], ids=["nothing", "only a zombie's number"]
)
def test_a_criu_that_ends_early_is_no_restore(said: bytes) -> None:
    with criu(said) as connection, pytest.raises(Broken, match="CRIU ended"):
        memory_filling.fill(connection, LatePages(7, ()), time.monotonic() + 60)
