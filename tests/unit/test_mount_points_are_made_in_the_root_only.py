"""A file to mount something on: made where there is none, never through a link of the image's."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.restore import rootfs


def test_it_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        rootfs.have_file(tmp_path, "/run/.containerenv", lambda: said.append("before"))
    assert (tmp_path / "run/.containerenv").read_bytes() == b""
    assert said == ["before"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").write_text("engine")
    rootfs.have_file(tmp_path, "/run/.containerenv", lambda: pytest.fail("nothing is made"))
    assert (tmp_path / "run/.containerenv").read_text() == "engine"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "run").symlink_to(outside)
    with pytest.raises(OSError, match="run"):
        rootfs.have_file(root, "/run/.containerenv", lambda: None)
    assert list(outside.iterdir()) == []
