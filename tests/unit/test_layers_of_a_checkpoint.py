"""Which layers a checkpoint becomes, and that they depend on nothing else."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from agent.errors import Broken
from agent.formats import record
from agent.image import blobs, image_annotations, layers
from agent.image.compression import Codec
from agent.image.content import FILES, MEMORY, METADATA, FileSlice, LayerPlan
from tests.fakes import criu_dump

MIB = 1 << 20


def made(parts: Path, codec: Codec = Codec.ZSTD) -> list[str]:
    return [blobs.make(plan, codec).digest for plan in layers.plan(parts)]


def members(plan: LayerPlan, folder: Path) -> list[str]:
    """By Python's own reader."""
    path = folder / "layer.tar"
    with blobs.BlobReader(plan, Codec.NONE) as reader, path.open("wb") as out:
        while chunk := reader.read():
            out.write(chunk)
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_order_and_content_of_the_layers(tmp_path: Path) -> None:
    parts = criu_dump.make_parts(tmp_path / "p", (40 * MIB, 4096), shared=8192)
    plans = layers.plan(parts)
    assert [plan.content for plan in plans] == [METADATA, FILES, MEMORY, MEMORY, MEMORY]
    named = [members(plan, tmp_path) for plan in plans]
    assert {"checkpoint/pagemap-1.img", "checkpoint/parent/parent/pagemap-1.img"} <= set(named[0])
    assert "checkpoint/pages-1.img" in named[0]  # empty: its pages are in the parents
    assert {"config.dump", "snap/fingerprint.json", "checkpoint"} <= set(named[0])
    assert "snap.json" not in named[0]
    assert named[1] == ["rootfs-diff.tar", "snap/volumes/cache.tar"]
    assert named[2] == ["checkpoint/parent/pages-2.img", "checkpoint/parent/pages-1.img"]
    assert named[3] == ["checkpoint/parent/parent/pages-1.img"]
    assert named[4] == ["checkpoint/pages-3.img"]


@pytest.mark.parametrize("codec", list(Codec))
def test_equal_parts_give_equal_layers_whatever_their_times(tmp_path: Path, codec: Codec) -> None:
    one = criu_dump.make_parts(tmp_path / "one", (2 * MIB,))
    other = criu_dump.make_parts(tmp_path / "other", (2 * MIB,))
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o777)
    assert made(one, codec) == made(other, codec)


def test_change_in_one_window_leaves_the_other_layers(tmp_path: Path) -> None:
    parts = criu_dump.make_parts(tmp_path / "p", (70 * MIB,))
    before = made(parts)
    with (parts / "checkpoint/pages-1.img").open("r+b") as pages:
        pages.seek(40 * MIB)
        pages.write(b"changed")
    after = made(parts)
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        True, True, True, False, True,
    ]  # fmt: skip


def test_layers_without_files_are_left_out(tmp_path: Path) -> None:
    parts = criu_dump.make_parts(tmp_path / "p", ())
    (parts / "rootfs-diff.tar").unlink()
    (parts / "snap/volumes/cache.tar").unlink()
    assert [plan.content for plan in layers.plan(parts)] == [METADATA]


def test_pages_that_are_too_few_are_told(tmp_path: Path) -> None:
    parts = criu_dump.make_parts(tmp_path / "p", (MIB,))
    os.truncate(parts / "checkpoint/pages-1.img", 4096)
    with pytest.raises(Broken) as failed:
        layers.plan(parts)
    assert "pages-1.img" in failed.value.details


def test_anything_but_files_is_told(tmp_path: Path) -> None:
    parts = criu_dump.make_parts(tmp_path / "p", (4096,))
    (parts / "checkpoint/link").symlink_to("/etc/shadow")
    with pytest.raises(Broken):
        layers.plan(parts)


def test_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(10))
    plan = LayerPlan(FILES, (FileSlice(path, 0, 20),), 20)
    with pytest.raises(Broken):
        blobs.make(plan, Codec.ZSTD)


def test_annotations_carry_the_record_there_and_back(tmp_path: Path) -> None:
    parts = criu_dump.make_parts(tmp_path / "p", (4096,))
    known = criu_dump.a_record()
    notes = image_annotations.of(known, parts)
    assert notes["io.kubernetes.cri-o.annotations.checkpoint.name"] == "counter"
    assert notes["org.criu.checkpoint.container.name"] == "counter"
    assert notes["org.criu.checkpoint.engine.name"] == "containerd"
    assert notes["org.criu.checkpoint.rootfsImageName"] == known.image_ref
    assert notes["snap.weaversoft.io/base-digest"] == "sha256:" + "ab" * 32
    assert notes["snap.weaversoft.io/fingerprint"] == '{"architecture":"amd64"}'
    assert image_annotations.record_of(notes) == known
    record.write(parts, known)
    assert image_annotations.of(record.read(parts), parts) == notes
