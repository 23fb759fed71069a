"""Folders of parts as a dump leaves them: valid pagemaps and pages, the rest stands for itself."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

from agent.formats import criu_images, record
from agent.formats.criu_wire import LAZY, PRESENT, PageRun
from agent.formats.pagemap import PAGE_SIZE, Pagemap
from agent.formats.record import CheckpointRecord

_WORDS = [b"memory ", b"window ", b"\0" * 24, b"checkpoint ", b"\x7f\x00\x00\x01"]


def make_parts(
    parts: Path,
    sizes: Sequence[int] = (3 << 20,),
    *,
    shared: int = 0,
    dense: bool = False,
    seed: int = 1,
) -> Path:
    """A checkpoint of processes with ``sizes`` bytes of pages each, in ``parts``, which is returned.

    Args:
        shared: bytes of shared memory.
        dense: pages that can't be compressed.
    """
    rnd = random.Random(seed)  # noqa: S311 - content, not secrets
    folder = parts / "checkpoint"
    folder.mkdir(parents=True)
    for index, size in enumerate(sizes):
        pid, number = index + 1, index + 1
        write_process(folder, pid, number, size // PAGE_SIZE, rnd)
        write_pages(folder / f"pages-{number}.img", size // PAGE_SIZE * PAGE_SIZE, rnd, dense=dense)
    if shared:
        number = len(sizes) + 1
        magic = criu_images.magic(criu_images.PAGEMAP_MAGIC)
        runs = [PageRun(0, shared // PAGE_SIZE, PRESENT)]
        (folder / "pagemap-shmem-77.img").write_bytes(Pagemap(magic, number, runs).image())
        write_pages(folder / f"pages-{number}.img", shared, rnd, dense=dense)
    for name in ("inventory.img", "pstree.img", "core-1.img", "files.img"):
        (folder / name).write_bytes(name.encode() * 9)
    write_rest(parts)
    return parts


def write_process(folder: Path, pid: int, number: int, pages: int, rnd: random.Random) -> None:
    """A pagemap of runs with holes between them, some lazy, some without pages."""
    runs = []
    vaddr = 0x400000
    left = pages
    while left:
        count = min(left, rnd.choice([1, 2, 7, 60, 900]))
        runs.append(PageRun(vaddr, count, PRESENT | (LAZY if rnd.random() < 0.5 else 0)))
        vaddr += (count + rnd.choice([0, 1, 50])) * PAGE_SIZE
        left -= count
        if rnd.random() < 0.01:
            vaddr += 0x10_0000_0000
    magic = criu_images.magic(criu_images.PAGEMAP_MAGIC)
    (folder / f"pagemap-{pid}.img").write_bytes(Pagemap(magic, number, runs).image())


def write_pages(path: Path, size: int, rnd: random.Random, *, dense: bool = False) -> None:
    """``size`` bytes, no two pages alike."""
    with path.open("wb") as out:
        for index in range(size // PAGE_SIZE):
            if dense:
                out.write(rnd.randbytes(PAGE_SIZE))
                continue
            half = rnd.randbytes(PAGE_SIZE // 4) + b"".join(rnd.choices(_WORDS, k=60))
            out.write((index.to_bytes(8, "little") + half).ljust(PAGE_SIZE, b"\0")[:PAGE_SIZE])


def write_rest(parts: Path) -> None:
    """Everything of a checkpoint that is not CRIU's."""
    (parts / "config.dump").write_text(json.dumps({"id": "c1", "name": "counter"}))
    (parts / "spec.dump").write_text(
        json.dumps({"ociVersion": "1.2.0", "process": {"args": ["sh"]}})
    )
    (parts / "status.dump").write_text("{}")
    (parts / "dump.log").write_text("(00.1) Dumping finished successfully\n")
    (parts / "snap" / "volumes").mkdir(parents=True)
    (parts / "snap" / "template.json").write_text("{}")
    (parts / "snap" / "fingerprint.json").write_text('{"architecture": "amd64"}')
    (parts / "snap" / "volumes" / "cache.tar").write_bytes(small_tar("cache/file"))
    (parts / "rootfs-diff.tar").write_bytes(small_tar("etc/changed"))
    record.write(parts, a_record())


def small_tar(name: str) -> bytes:
    """A tar with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    return out.getvalue()


def a_record() -> CheckpointRecord:
    """Of the checkpoint that ``make_parts`` writes."""
    return CheckpointRecord(
        checkpoint_id="01JD0000000000000000000000",
        job_id="job-1",
        namespace="default",
        pod_name="counter-0",
        pod_uid="uid-1",
        container_name="counter",
        container_id="c1",
        engine="runc",
        created_at="2026-01-02T03:04:05Z",
        image_name="registry:5000/counter:latest",
        image_ref="registry:5000/counter@sha256:" + "ab" * 32,
        image_id="sha256:" + "cd" * 32,
        runtime="containerd 2.1.9",
        oci_runtime="runc 1.3.6",
        criu_options="tcp-close",
        pause_ms=12.5,
        complete=True,
    )


def same_tree(one: Path, other: Path, *, without: frozenset[str] = frozenset()) -> None:
    """Assert that two folders hold the same files with the same bytes."""

    def names(root: Path) -> set[str]:
        found = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
        return {name for name in found if name not in without}

    assert names(one) == names(other)
    for name in names(one):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
