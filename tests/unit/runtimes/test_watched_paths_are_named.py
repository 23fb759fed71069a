"""What a process watches by inotify has a name for CRIU again, or the dump is refused before the freeze."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from asyncinotify import Inotify, Mask

from agent import errors
from agent.checkpoint import watched
from agent.runtimes import watches
from agent.runtimes.commands import Host

ME = os.getpid()


@pytest.fixture
def watch() -> Iterator[Inotify]:
    with Inotify() as made:
        yield made


def mark(path: Path) -> watches.Mark:
    found = path.stat()
    return watches.Mark(found.st_dev, found.st_ino)


def test_marks_are_devices_and_inodes(watch: Inotify, tmp_path: Path) -> None:
    before = watches.marks(Host(), [ME])
    file = tmp_path / "file"
    file.touch()
    watch.add_watch(tmp_path, Mask.CREATE)
    watch.add_watch(file, Mask.MODIFY)
    assert watches.marks(Host(), [ME]) - before == {mark(tmp_path), mark(file)}


def test_a_process_that_is_gone_watches_nothing() -> None:
    assert watches.marks(Host(), [1 << 22]) == frozenset()
    assert watches.names(Host(), 1 << 22, frozenset({watches.Mark(1, 1)})) == {}


@pytest.mark.parametrize(
    ("point", "names"),
    [
        pytest.param("/", {"/", "/a", "/a/b"}, id="the root"),
        pytest.param("/a", {"/a", "/a/b"}, id="a volume"),
    ],
)
def test_names_are_found_below_the_mounts_of_their_device(
    tmp_path: Path, point: str, names: set[str]
) -> None:
    root, process = tmp_path / "root", tmp_path / "node/proc/7"
    (root / "a/b").mkdir(parents=True)
    process.mkdir(parents=True)
    (process / "root").symlink_to(root)
    device = root.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    (process / "mountinfo").write_text(f"1 1 {number} / {point} rw - ext4 x rw\n")
    wanted = frozenset(mark(path) for path in (root, root / "a", root / "a/b", tmp_path))
    found = watches.names(Host(tmp_path / "node"), 7, wanted)
    assert found == {mark(root / name.lstrip("/")): name for name in names}


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "a"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    found = [path for path, _ in watches._below(Host(), ME, str(inside), {mark(inside).device})]
    assert found == [str(inside), str(inside / "link")]


def test_what_was_deleted_is_refused(tmp_path: Path) -> None:
    process = tmp_path / "proc/7"
    for folder in ("fd", "fdinfo"):
        (process / folder).mkdir(parents=True)
    (process / "fd/3").symlink_to("anon_inode:inotify")
    told = (
        "pos:\t0\ninotify wd:1 ino:7ffffffe sdev:800001 mask:100 ignored_mask:0 fhandle-bytes:c\n"
    )
    (process / "fdinfo/3").write_text(told)
    (process / "mountinfo").write_text("1 1 8:2 / / rw - ext4 x rw\n")
    assert watches.marks(Host(tmp_path), [7]) == {watches.Mark(os.makedev(8, 1), 0x7FFFFFFE)}
    with pytest.raises(errors.Refused, match="inotify"):
        watched.find(Host(tmp_path), "app", (7,))


@pytest.mark.parametrize(
    ("paths", "lines"),
    [
        pytest.param((), (), id="nothing"),
        pytest.param(("/",), ("force-irmap",), id="the root, which CRIU looks at anyway"),
        pytest.param(
            ("/b", "/a/x"), ("force-irmap", "irmap-scan-path /a/x", "irmap-scan-path /b"), id="two"
        ),
        pytest.param(
            ("/a/two words/x",), ("force-irmap", "irmap-scan-path /a"), id="the folder above"
        ),
        pytest.param(
            ("/a/x\naction-script /evil",), ("force-irmap", "irmap-scan-path /a"), id="a line break"
        ),
        pytest.param(
            ("/a/#x", '/b/"'),
            ("force-irmap", "irmap-scan-path /a", "irmap-scan-path /b"),
            id="others",
        ),
    ],
)
def test_options_are_one_word_each(paths: tuple[str, ...], lines: tuple[str, ...]) -> None:
    assert watched.options(paths) == lines
