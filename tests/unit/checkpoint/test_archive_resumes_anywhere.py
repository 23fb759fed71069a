"""The archive of a folder of parts is the same bytes every time, from any offset."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import pytest

from agent.checkpoint import archive


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "snap/volumes").mkdir(parents=True)
    for name, size in {
        "snap.json": 9,
        "config.dump": 40,
        "spec.dump": 512,
        "checkpoint/inventory.img": 0,
        "checkpoint/pages-1.img": 3 * 4096 + 17,
        "snap/volumes/v.tar": 1025,
    }.items():
        (tmp_path / name).write_bytes((name.encode() * size)[:size])
    return tmp_path


def whole(parts: Path) -> bytes:
    return b"".join(archive.read(parts))


def test_it_is_a_tar_with_the_record_left_out(parts: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(whole(parts))) as tar:
        names = tar.getnames()
        pages = tar.extractfile("checkpoint/pages-1.img")
        assert pages
        assert pages.read() == (parts / "checkpoint/pages-1.img").read_bytes()
    assert names[:2] == ["config.dump", "spec.dump"]
    assert "snap.json" not in names


def test_size_is_known_before(parts: Path) -> None:
    assert archive.size(parts) == len(whole(parts))


def test_any_range_is_what_the_whole_has_there(parts: Path) -> None:
    content = whole(parts)
    steps = itertools.product(range(0, len(content) + 600, 251), (0, 1, 511, 512, 5000))
    for offset, length in steps:
        assert b"".join(archive.read(parts, offset, length)) == content[offset : offset + length]


def test_touched_files_change_nothing(parts: Path) -> None:
    before = whole(parts)
    (parts / "config.dump").chmod(0o644)
    (parts / "config.dump").touch()
    assert whole(parts) == before


def test_a_part_that_became_shorter_is_an_error(parts: Path) -> None:
    reading = archive.read(parts)
    next(reading)
    (parts / "checkpoint/pages-1.img").write_bytes(b"")
    with pytest.raises(EOFError):
        list(reading)
