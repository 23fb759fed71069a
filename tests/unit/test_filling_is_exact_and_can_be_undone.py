"""Files of a checkpoint go into the new container's folders, and the list of what to undo comes first."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.restore import filling
from agent.restore.filling import Place
from agent.restore.undoing import UndoList


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: str) -> bytes:
    """One member as a tar of its own, without its end."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o644
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.uid, info.gid, info.mtime = os.getuid(), os.getgid(), 1_700_000_000
    info.linkname = more.pop("linkname", "")
    info.pax_headers = dict(more)
    packed = io.BytesIO(content)
    block = info.tobuf(tarfile.PAX_FORMAT) + packed.read()
    return block + bytes(-len(block) % 512)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "volume"
    folder.mkdir()
    return Place(folder, "/node/volume", tmp_path / "aside", "/node/aside")


Fill = Callable[..., list[str]]


@pytest.fixture
def fill(tmp_path: Path, place: Place) -> Fill:
    """Fills the place with the members given; returns the undo list's lines."""

    def run(*members: bytes, check: Callable[[], None] = lambda: None) -> list[str]:
        archive, undo = tmp_path / "a.tar", UndoList(tmp_path / "undo")
        archive.write_bytes(b"".join(members) + bytes(1024))
        undo.begin()
        try:
            filling.fill(archive, place, undo, check=check)
        finally:
            lines = undo.file.read_text().splitlines()
        return lines

    return run


def test_files_folders_and_links_come_back_with_their_times(fill: Fill, place: Place) -> None:
    fill(
        member("./", tarfile.DIRTYPE),
        member("./d", tarfile.DIRTYPE),
        member("./d/f", content=b"text"),
        member("./d/again", tarfile.LNKTYPE, linkname="./d/f"),
        member("./link", tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("./pipe", tarfile.FIFOTYPE),
    )
    found = place.folder / "d/f"
    assert found.read_bytes() == b"text"
    assert found.stat().st_nlink == 2
    assert found.stat().st_mtime == found.parent.stat().st_mtime == 1_700_000_000
    assert (place.folder / "link").readlink() == Path("/etc/passwd")
    assert (place.folder / "pipe").is_fifo()


def test_holes_stay_holes(fill: Fill, place: Place) -> None:
    fill(member("big", content=bytes(3 << 20) + b"end"))
    facts = (place.folder / "big").stat()
    assert facts.st_size == (3 << 20) + 3
    assert facts.st_blocks * 512 < 1 << 20


def test_a_file_packed_with_its_holes_is_only_read_where_it_has_content(
    tmp_path: Path, place: Place
) -> None:
    size = 1 << 40  # nobody reads that many zeros
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.write(b"begin")
        sparse.seek(size // 2)
        sparse.write(b"middle")
        sparse.truncate(size)
    archive = tmp_path / "a.tar"
    packed = ["tar", "--create", "--sparse", "--format=posix", f"--file={archive}"]
    subprocess.run([*packed, "--directory", str(tmp_path), "sparse"], check=True)
    undo = UndoList(tmp_path / "undo")
    undo.begin()
    filling.fill(archive, place, undo, check=lambda: None)
    file = place.folder / "sparse"
    assert file.stat().st_size == size
    assert file.stat().st_blocks * 512 < 1 << 20
    with file.open("rb") as found:
        assert found.read(6) == b"begin\0"
        found.seek(size // 2)
        assert found.read(7) == b"middle\0"


def test_what_was_there_makes_room_and_the_way_back_is_written(fill: Fill, place: Place) -> None:
    (place.folder / "log").write_text("new pod's")
    (place.folder / "other").write_text("stays")
    lines = fill(member("log", content=b"checkpoint's"), member("more", content=b"x"))
    assert (place.folder / "log").read_bytes() == b"checkpoint's"
    assert (place.folder / "other").read_text() == "stays"
    assert (place.aside / "log").read_text() == "new pod's"
    assert lines == [
        "remove=/node/volume/log",
        "from=/node/aside/log",
        "to=/node/volume/log",
        "remove=/node/volume/more",
    ]


def test_no_link_leads_out_of_the_folder(fill: Fill, place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(OSError, match=r"directory|symbolic"):
        fill(
            member("d", tarfile.SYMTYPE, linkname=str(outside)),
            member("d/f", content=b"escaped"),
        )
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a\nb"])
def test_names_that_lead_out_are_refused(fill: Fill, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        fill(member(name, content=b"x"))


def test_a_hard_link_to_a_file_of_the_pod_is_refused(fill: Fill, place: Place) -> None:
    (place.folder / "theirs").write_text("x")
    with pytest.raises(ValueError, match="not in the archive"):
        fill(member("mine", tarfile.LNKTYPE, linkname="theirs"))


def test_devices_are_not_made_in_volumes(fill: Fill) -> None:
    with pytest.raises(ValueError, match="kind"):
        fill(member("disk", tarfile.BLKTYPE))


def test_it_stops_when_there_is_no_time(fill: Fill, place: Place) -> None:
    left = iter([None, None])

    def check() -> None:
        if next(left, "none") == "none":
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fill(*(member(str(n), content=b"x") for n in range(9)), check=check)
    assert len(list(place.folder.iterdir())) < 9
