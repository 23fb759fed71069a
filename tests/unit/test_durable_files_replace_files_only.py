"""A small file is written whole, and never in the place of a device: a rename would take it from everyone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import durable as of_agent
from controlplane import durable as of_control_plane

Write = Callable[[Path, bytes], None]


@pytest.fixture(params=[of_agent.write, of_control_plane.write], ids=["agent", "control plane"])
def write(request: pytest.FixtureRequest) -> Write:
    chosen: Write = request.param
    return chosen


def test_a_file_is_made_and_replaced(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "token"
    write(file, b"first")
    write(file, b"second")
    assert file.read_bytes() == b"second"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_what_is_no_file_stays_what_it_is(write: Write, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="Not an ordinary file"):
        write(pipe, b"anything")
    assert pipe.is_fifo()
    with pytest.raises(OSError, match="Not an ordinary file"):
        write(tmp_path, b"anything")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
