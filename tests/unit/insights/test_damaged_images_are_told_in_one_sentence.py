"""Whatever is wrong with an image, the answer is a report or one clear sentence, never anything else."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from agent import errors
from agent.formats import criu_images, criu_wire
from agent.formats.criu_images import PAGE_SIZE
from agent.formats.criu_wire import IN_PARENT, PRESENT, PageRun
from agent.insights.bounds import Bounds
from agent.insights.service import MAKERS
from tests.fakes.criu_images import HEAP, MAGIC, STACK, write_dump, write_pagemap
from tests.unit.insights.test_images_are_reported import report_of

KINDS = [kind for kind in MAKERS if kind != "diff"]
NAMES = ("pstree.img", "core-1.img", "mm-1.img", "ids-1.img", "fdinfo-3.img", "files.img")


def refusal(parts: Path, kind: str) -> errors.Refused:
    """What is said instead of a report."""
    with pytest.raises(errors.Refused) as told:
        report_of(parts, kind)
    return told.value


@pytest.mark.parametrize(
    "content", [b"", b"\1", MAGIC, MAGIC + b"\xff\xff\xff\x7f", MAGIC + b"\3\0\0\0\xff\xff\xff"]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_image_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    parts = write_dump(tmp_path)
    (parts / "checkpoint" / name).write_bytes(content)
    if content == MAGIC and name in ("fdinfo-3.img", "files.img"):
        return  # nothing open is no damage
    told = refusal(parts, "files" if name != "mm-1.img" else "memory")
    assert told.message == f"The checkpoint can't be analysed, its {name} is damaged."
    assert name in told.details


def test_pages_that_are_missing_are_told(tmp_path: Path) -> None:
    parts = write_dump(tmp_path)
    pages = parts / "checkpoint" / "pages-1.img"
    pages.write_bytes(pages.read_bytes()[:PAGE_SIZE])
    assert "pagemap-1.img" in refusal(parts, "processes").message
    pages.unlink()
    assert "pagemap-1.img" in refusal(parts, "secrets").message


@pytest.mark.parametrize(
    "runs",
    [[PageRun(HEAP, 1, IN_PARENT)], [PageRun(STACK, 1, PRESENT), PageRun(HEAP, 1, PRESENT)]],
    ids=["a parent that is not there", "out of order"],
)
def test_impossible_pagemaps_are_told(tmp_path: Path, runs: list[PageRun]) -> None:
    parts = write_dump(tmp_path)
    file = parts / "checkpoint" / "pagemap-1.img"
    write_pagemap(file, 1, runs[:1])
    for run in runs[1:]:
        file.write_bytes(file.read_bytes() + criu_images.frame(criu_wire.page_run(run)))
    assert "pagemap-1.img" in refusal(parts, "memory").message


def test_a_loop_of_parents_and_twins_are_told(tmp_path: Path) -> None:
    parts = write_dump(tmp_path)
    tree = parts / "checkpoint" / "pstree.img"
    twice = tree.read_bytes()
    tree.write_bytes(twice + twice[8:])
    assert "pstree.img" in refusal(parts, "processes").message


def test_only_files_are_read(tmp_path: Path) -> None:
    parts = write_dump(tmp_path)
    image = parts / "checkpoint" / "files.img"
    image.unlink()
    image.symlink_to("/etc/passwd")
    assert "files.img" in refusal(parts, "files").message
    image.unlink()
    os.mkfifo(image)
    assert "files.img" in refusal(parts, "files").message


def test_a_tar_that_ends_early_is_told_beside_what_was_found(tmp_path: Path) -> None:
    parts = write_dump(tmp_path)
    (parts / "rootfs-diff.tar").write_bytes(b"not a tar".ljust(2048, b"x"))
    found = report_of(parts, "secrets")
    assert found["not_read"][0].startswith("rootfs-diff.tar could not be read to its end")


def test_random_damage_never_surprises(tmp_path: Path) -> None:
    rnd = random.Random(7)  # noqa: S311 - content, not secrets
    parts = write_dump(tmp_path, heap=os.urandom(2 * PAGE_SIZE))
    images = sorted(file for file in (parts / "checkpoint").iterdir() if "pages-" not in file.name)
    for _ in range(600):
        file = rnd.choice(images)
        kept = file.read_bytes()
        broken = bytearray(kept)
        for _ in range(rnd.randint(1, 6)):
            broken[rnd.randrange(8, len(broken))] = rnd.randrange(256)
        if rnd.random() < 0.3:
            del broken[rnd.randrange(len(broken)) :]
        file.write_bytes(broken)
        for kind in KINDS:
            try:
                report_of(parts, kind, bounds=Bounds(time_limit_s=10))
            except errors.Refused:
                continue  # one sentence; any other error fails the test
        file.write_bytes(kept)
